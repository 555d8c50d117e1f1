"""
The SQLite file of a cache, which several processes may share: schema, transactions, recovery.

Every call waits for the disk, and so belongs in a thread, such as that of
:mod:`twisted_net.http.cache.sqlite_store`.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import sqlite3
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from attrs import Factory, define, frozen

from twisted_net.http.cache.entry import Entry, replace_variant
from twisted_net.http.cache.serialization import FORMAT, decode_head, encode_head

APPLICATION_ID: Final = 0x74774361
"""The application ID in SQLite's header: "twCa"."""

MAX_CORRUPT_FILES = 3
"""Limit of ``.corrupt-N`` files; at it, there is no cache until one is removed."""

BATCH_URLS = 64
"""Limit of URLs written, and of entries evicted, in one transaction."""

BATCH_BYTES = 4 * 2**20
"""Bytes after which no further URL is added to a transaction."""

BUSY_TIMEOUT = 0.1
"""Seconds that a transaction waits for another process's, before reads are tried again."""

REOPEN_AFTER = 10.0
"""Seconds until a file that could not be opened is tried again."""

OPEN_TIMEOUT = 2.0
"""Seconds that opening waits for another process that is preparing the file."""

_SCHEMA = """
CREATE TABLE urls (id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE, used INTEGER NOT NULL);
CREATE INDEX urls_used ON urls (used);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY, url INTEGER NOT NULL, size INTEGER NOT NULL,
    checksum INTEGER NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL
);
CREATE INDEX entries_url ON entries (url);
CREATE TABLE totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER added AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER removed AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size;
END;
"""

VERSION: Final = zlib.crc32(f"{_SCHEMA}{FORMAT}".encode()) & 0x7FFF_FFFF
"""The file's ``user_version``: a hash of the tables and of the entries' format."""

# These are errors of the file's contents, not of the disk. SQLITE_ERROR means an SQL statement
# that does not fit the tables: our statements are constant, so the tables are wrong.
_CORRUPT_CODES = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_ERROR,
}


class CorruptFile(Exception):
    """The file is not a cache of this package, or it is damaged."""


class OtherVersion(Exception):
    """Another version of this package has replaced the tables since the file was opened."""


class FileUnavailable(Exception):
    """The file could not be opened, now or within :data:`REOPEN_AFTER`."""


@frozen
class PendingChange:
    """
    A change to the entries of one URL that waits to be written.

    :param removed: whether to delete first those in the file.
    :param entries: to add then, in this order.
    :param size: of these entries, in bytes.
    """

    removed: bool
    entries: tuple[Entry, ...] = ()
    size: int = Factory(lambda self: sum(each.size for each in self.entries), takes_self=True)

    def over(self, stored: Sequence[Entry], max_variants: int) -> tuple[Entry, ...]:
        """Return the entries *stored* after this change."""
        kept = () if self.removed else tuple(stored)
        for entry in self.entries:
            kept = replace_variant(kept, entry, max_variants)
        return kept

    def after(self, older: PendingChange | None, max_variants: int) -> PendingChange:
        """Return both changes as one, with *older* applied first."""
        if older is None or self.removed:
            return self
        return PendingChange(older.removed, self.over(older.entries, max_variants))


@define
class WriteBatch:
    """
    The changes of one transaction, applied in the order of the fields.

    :param everything_removed: whether to delete all URLs first.
    :param changes: by URL.
    :param used: URLs that were read or changed, the latest last.
    """

    everything_removed: bool = False
    changes: dict[str, PendingChange] = Factory(dict)
    used: Sequence[str] = ()


class CacheFile:
    """
    The file and its one connection. Every call waits for the disk: none is for the reactor.

    It is opened at its first use, and again later if that failed. A file that is corrupt, or that
    belongs to another program, is renamed and replaced by an empty one, once no other process has
    it open. A cache of another version is emptied.

    :param warn: called with a sentence for each file that was renamed.
    :param connect: ``sqlite3.connect``, or a fake of it in tests.
    """

    def __init__(
        self,
        path: str,
        max_entries: int,
        max_bytes: int,
        max_variants: int,
        *,
        warn: Callable[[str], None],
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> None:
        self._path = path
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._max_variants = max_variants
        self._warn = warn
        self._connect = connect
        self._database: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._inode = 0
        self._reopen_at = 0.0
        self._lost = False

    def read(self, url: str) -> tuple[Entry, ...]:
        """
        Return the entries of a URL, newest last.

        :raises Exception: one of :data:`FAILURES`.
        """
        with self._transaction("BEGIN") as database:
            rows = database.execute(
                "SELECT id, checksum, head FROM entries"
                " WHERE url = (SELECT id FROM urls WHERE url = ?) ORDER BY id",
                (url,),
            ).fetchall()
            found = _typed(rows, int, int, bytes)
            return tuple(self._entry(database, url, *row) for row in found)

    def write(self, batch: WriteBatch) -> bool:
        """
        Apply *batch*, all of it or nothing, and evict entries beyond the limits.

        :return: whether the next transaction must evict more.
        :raises Exception: one of :data:`FAILURES`.
        """
        with self._transaction("BEGIN IMMEDIATE") as database:
            if batch.everything_removed:
                database.execute("DELETE FROM entries")
                database.execute("DELETE FROM urls")
            latest = database.execute("SELECT coalesce(max(used), 0) FROM urls").fetchall()
            uses = itertools.count(_typed(latest, int)[0][0] + 1)
            for url, change in batch.changes.items():
                self._apply(database, url, change, next(uses))
            database.executemany(
                "UPDATE urls SET used = ? WHERE url = ?",
                [(used, url) for url, used in zip(batch.used, uses, strict=False)],
            )
            return self._evict(database)

    def close(self) -> None:
        """Close the connection, if there is one; a later call opens it again."""
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        """Run the body between *begin* and COMMIT, or ROLLBACK if it fails."""
        database = self._opened()
        try:
            database.execute(begin)
            try:
                if _pragma(database, "user_version") != VERSION:
                    self._lost = True
                    raise OtherVersion("another version of twisted_net has replaced its tables")
                yield database
                database.execute("COMMIT")
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")
        except (CorruptFile, OtherVersion, sqlite3.Error) as error:
            if not is_busy(error):
                self._disconnect_after(error)
            raise

    def _disconnect_after(self, error: Exception) -> None:
        """Close the connection after *error*; a later use opens another."""
        if _is_corrupt(error):
            try:
                self._quarantine(error)
            finally:
                self.close()
        elif not _is_full(error):
            self.close()
            self._reopen_at = time.monotonic() + REOPEN_AFTER

    def _opened(self) -> sqlite3.Connection:
        if self._database is not None:
            return self._database
        if self._lost or time.monotonic() < self._reopen_at:
            raise FileUnavailable("it could not be opened")
        try:
            try:
                self._database = self._open()
            except (CorruptFile, sqlite3.Error) as error:
                if not _is_corrupt(error):
                    raise
                self._quarantine(error)
                self._database = self._open()
        except BaseException:
            self.close()
            self._reopen_at = time.monotonic() + REOPEN_AFTER
            raise
        return self._database

    def _open(self) -> sqlite3.Connection:
        """Connect to the file, created if it does not exist, and check its tables."""
        if self._lock is None:
            # Held while the file is open: only the single process that holds it may rename it.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._lock = os.open(f"{self._path}-lock", flags, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with contextlib.suppress(FileExistsError):
            # Responses may be private. An existing file is not opened: closing it here would drop
            # the POSIX locks of other connections in this process.
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        found = os.stat(self._path)
        if not stat.S_ISREG(found.st_mode):
            raise FileUnavailable("it is not a regular file")
        self._inode = found.st_ino
        # isolation_level=None: sqlite3 begins no transactions of its own.
        database = self._connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        end = time.monotonic() + OPEN_TIMEOUT
        while True:
            try:
                database.execute("PRAGMA journal_mode = WAL")
                # In WAL mode this does without an fsync per transaction, and cannot corrupt it.
                database.execute("PRAGMA synchronous = NORMAL")
                database.execute(f"PRAGMA journal_size_limit = {2 * BATCH_BYTES}")
                if (_pragma(database, "application_id"), _pragma(database, "user_version")) != (
                    APPLICATION_ID,
                    VERSION,
                ):
                    self._create(database)
                return
            except sqlite3.OperationalError as error:
                # Changing the journal mode does not wait for other processes, despite timeout=.
                if not is_busy(error) or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def _create(self, database: sqlite3.Connection) -> None:
        """Create the tables, in place of those of another version."""
        database.execute("BEGIN IMMEDIATE")
        try:
            application = _pragma(database, "application_id")
            if (application, _pragma(database, "user_version")) == (APPLICATION_ID, VERSION):
                return  # another process was faster
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            names = [name for (name,) in tables.fetchall() if not name.startswith("sqlite_")]
            if names and application != APPLICATION_ID:
                raise CorruptFile("it belongs to another program")
            for name in names:
                quoted = name.replace('"', '""')
                database.execute(f'DROP TABLE "{quoted}"')
            for statement in _statements(_SCHEMA):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {VERSION}")
            database.execute("COMMIT")
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")

    def _quarantine(self, error: Exception) -> None:
        """
        Rename the file to a free ``.corrupt-N``, with SQLite's files beside it.

        :raises FileUnavailable: if another process has it open, or no name is free.
        """
        assert self._lock is not None
        database, self._database = self._database, None
        if database is not None:
            database.close()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileUnavailable(f"{error}, and another process has it open") from error
        try:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self._path).st_ino == self._inode:
                    self._rename(error)
        finally:
            try:
                # This releases it for a moment, in which another process may take it.
                fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                self._lock = None

    def _rename(self, error: Exception) -> None:
        names = [f"{self._path}.corrupt-{number}" for number in range(1, MAX_CORRUPT_FILES + 1)]
        free = [name for name in names if not os.path.lexists(name)]
        if not free:
            count = MAX_CORRUPT_FILES
            raise FileUnavailable(f"{error}, and there are {count} .corrupt files already")
        os.rename(self._path, free[0])
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._path + suffix, free[0] + suffix)
        self._warn(f"{error}: renamed to {free[0]}, and replaced by an empty file")

    def _entry(
        self, database: sqlite3.Connection, url: str, number: int, checksum: int, head: bytes
    ) -> Entry:
        # By a Blob, because it releases the GIL while it copies.
        with database.blobopen("entries", "body", number, readonly=True) as blob:
            body = blob.read()
        if _checksum(url, head, body) != checksum:
            raise CorruptFile("the checksum of an entry is wrong")
        return _decoded(head, body)

    def _apply(
        self, database: sqlite3.Connection, url: str, change: PendingChange, used: int
    ) -> None:
        row = database.execute("SELECT id FROM urls WHERE url = ?", (url,)).fetchone()
        if row is None:
            if not change.entries:
                return
            row = database.execute(
                "INSERT INTO urls (url, used) VALUES (?, ?) RETURNING id", (url, used)
            ).fetchone()
        rows = database.execute("SELECT id, head FROM entries WHERE url = ? ORDER BY id", row)
        stored = [
            (number, _decoded(head, b"")) for number, head in _typed(rows.fetchall(), int, bytes)
        ]
        kept = {
            id(entry) for entry in change.over([entry for _, entry in stored], self._max_variants)
        }
        gone = [(number,) for number, entry in stored if id(entry) not in kept]
        database.executemany("DELETE FROM entries WHERE id = ?", gone)
        for entry in change.entries:
            if id(entry) in kept:
                self._insert(database, row[0], url, entry)
        if not kept:
            database.execute("DELETE FROM urls WHERE id = ?", row)

    def _insert(self, database: sqlite3.Connection, number: int, url: str, entry: Entry) -> None:
        head = encode_head(entry)
        made = database.execute(
            "INSERT INTO entries (url, size, checksum, head, body)"
            " VALUES (?, ?, ?, ?, zeroblob(?)) RETURNING id",
            (number, entry.size, _checksum(url, head, entry.body), head, len(entry.body)),
        ).fetchone()
        with database.blobopen("entries", "body", made[0]) as blob:
            blob.write(entry.body)

    def _evict(self, database: sqlite3.Connection) -> bool:
        """Evict the least recently used entries; return whether there are more to evict."""
        totals = database.execute("SELECT entries, bytes FROM totals").fetchall()
        [(entries, size)] = _typed(totals, int, int)
        if not self._overfull(entries, size):
            return False
        oldest = database.execute(
            "SELECT entries.id, entries.size, urls.id FROM urls CROSS JOIN entries"
            " ON entries.url = urls.id ORDER BY urls.used, entries.id LIMIT ?",
            (BATCH_URLS,),
        ).fetchall()
        for number, bytes_, url in _typed(oldest, int, int, int):
            database.execute("DELETE FROM entries WHERE id = ?", (number,))
            database.execute(
                "DELETE FROM urls WHERE id = ?1"
                " AND NOT EXISTS (SELECT 1 FROM entries WHERE url = ?1)",
                (url,),
            )
            entries, size = entries - 1, size - bytes_
            if not self._overfull(entries, size):
                return False
        return True

    def _overfull(self, entries: int, size: int) -> bool:
        return entries > self._max_entries or size > self._max_bytes


FAILURES = (sqlite3.Error, OSError, CorruptFile, OtherVersion, FileUnavailable)
"""The errors that :class:`CacheFile` raises."""


def is_busy(error: BaseException) -> bool:
    """Return whether another process was writing, so that a retry may succeed."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_full(error: BaseException) -> bool:
    return _code(error) == sqlite3.SQLITE_FULL


def _is_corrupt(error: BaseException) -> bool:
    return isinstance(error, CorruptFile) or _code(error) in _CORRUPT_CODES


def _code(error: BaseException) -> int | None:
    """Return SQLite's primary code of an error, without the extended bits."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _pragma(database: sqlite3.Connection, name: str) -> int:
    value: int = database.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements; ``executescript`` would commit before the first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _typed(rows: Any, *kinds: type) -> Any:  # Any: tuples of these types
    """
    Return *rows* if all values have these types: a damaged file may hold any value anywhere.

    :raises CorruptFile: if one has not.
    """
    for row in rows:
        if tuple(map(type, row)) != kinds:
            raise CorruptFile("a row has values of the wrong types")
    return rows


def _decoded(head: bytes, body: bytes) -> Entry:
    try:
        return decode_head(head, body)
    except ValueError as error:
        raise CorruptFile(f"an entry cannot be decoded ({error})") from error


def _checksum(url: str, head: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(head, zlib.crc32(url.encode())))
