"""
The entries of a cache in an SQLite file, which several processes may share.

Every call waits for the disk: this is for a thread, such as that of
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
"""What SQLite's header says the file is for: "twCa"."""

MAX_ASIDE = 3
"""Most files that are kept as ``.corrupt-N``; beyond it there is no cache until one is removed."""

BATCH_URLS = 64
"""Most URLs that are written in one transaction, and most entries that one evicts."""

BATCH_BYTES = 4 * 2**20
"""Bytes after which a transaction takes no further URL."""

BUSY_TIMEOUT = 0.1
"""Seconds that a transaction waits for one of another process, before reads have their turn."""

REOPEN_AFTER = 10.0
"""Seconds after which a file that could not be opened is tried again."""

OPEN_PATIENCE = 2.0
"""Seconds in which a file can be opened that another process is preparing."""

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
"""The file's ``user_version``: made from the tables and from what an entry consists of."""

# No error of the disk: the file is not what it should be. SQLITE_ERROR is an SQL statement that
# does not fit the tables, and ours are constant.
_CORRUPT_CODES = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_ERROR,
}


class CorruptFile(Exception):
    """The file is no cache of ours, or a broken one."""


class OtherVersion(Exception):
    """Another version of this package has taken the file over since it was opened."""


class FileUnavailable(Exception):
    """The file could not be opened a moment ago, or never can be."""


@frozen
class Change:
    """
    What waits to be done to the entries of one URL.

    :param removed: those in the file go first.
    :param entries: are added then, in this order.
    """

    removed: bool
    entries: tuple[Entry, ...] = ()
    size: int = Factory(lambda self: sum(each.size for each in self.entries), takes_self=True)

    def over(self, stored: Sequence[Entry], max_variants: int) -> tuple[Entry, ...]:
        """Give *stored* as it is after this change."""
        kept = () if self.removed else tuple(stored)
        for entry in self.entries:
            kept = replace_variant(kept, entry, max_variants)
        return kept

    def after(self, older: Change | None, max_variants: int) -> Change:
        """Give both changes as one, *older* done first."""
        if older is None or self.removed:
            return self
        return Change(older.removed, self.over(older.entries, max_variants))


@define
class Batch:
    """
    What one transaction does, in the order of the fields.

    :param everything_removed: all URLs go first.
    :param used: URLs that were asked for or changed, the latest last.
    """

    everything_removed: bool = False
    changes: dict[str, Change] = Factory(dict)
    used: Sequence[str] = ()


class CacheFile:
    """
    The file and its one connection. Every call waits for the disk: none is for the reactor.

    It is opened when first used, and again later if that failed. A file that is corrupt, or that
    belongs to another program, is moved aside and replaced by an empty one, once no other process
    has it open. A cache of another version is emptied.

    :param warn: is told in a sentence of each file that was moved aside.
    :param connect: ``sqlite3.connect``, or in tests what stands in for it.
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
        Give the entries of a URL, newest last.

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

    def write(self, batch: Batch) -> bool:
        """
        Do what *batch* holds, all of it or nothing, and evict what is too much.

        :return: whether there is more to evict, for the next transaction.
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
        """Close the connection, if there is one; what is used afterwards is opened again."""
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
                    raise OtherVersion("another version of twisted_net has taken it over")
                yield database
                database.execute("COMMIT")
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")
        except (CorruptFile, OtherVersion, sqlite3.Error) as error:
            if not is_busy(error):
                self._give_up(error)
            raise

    def _give_up(self, error: Exception) -> None:
        """Close the connection on which *error* came; the next use opens another."""
        if _is_corrupt(error):
            try:
                self._set_aside(error)
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
                self._set_aside(error)
                self._database = self._open()
        except BaseException:
            self.close()
            self._reopen_at = time.monotonic() + REOPEN_AFTER
            raise
        return self._database

    def _open(self) -> sqlite3.Connection:
        """Connect to the file, made if it is not there, and see that the tables are right."""
        if self._lock is None:
            # Held for as long as the file is open: who holds it alone may move the file away.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock = os.open(f"{self._path}-lock", flags, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with contextlib.suppress(FileExistsError):
            # Answers may be private. One that exists is not opened: closing it here would drop
            # the locks of other connections in this process (POSIX locks).
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        found = os.stat(self._path)
        if not stat.S_ISREG(found.st_mode):
            raise FileUnavailable("it is no regular file")
        self._inode = found.st_ino
        # isolation_level=None: transactions begin where we say so.
        database = self._connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        end = time.monotonic() + OPEN_PATIENCE
        while True:
            try:
                database.execute("PRAGMA journal_mode = WAL")
                # In WAL mode no transaction is fsynced, and yet the file is never corrupted.
                database.execute("PRAGMA synchronous = NORMAL")
                database.execute(f"PRAGMA journal_size_limit = {2 * BATCH_BYTES}")
                if (_pragma(database, "application_id"), _pragma(database, "user_version")) != (
                    APPLICATION_ID,
                    VERSION,
                ):
                    self._create(database)
                return
            except sqlite3.OperationalError as error:
                # Changing the journal's mode does not wait for other processes by itself.
                if not is_busy(error) or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def _create(self, database: sqlite3.Connection) -> None:
        """Make the tables, in place of those of another version."""
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

    def _set_aside(self, error: Exception) -> None:
        """
        Move the file to a free name, with what SQLite keeps beside it.

        :raises FileUnavailable: where another process has it open, or no name is free.
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
                    self._move(error)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def _move(self, error: Exception) -> None:
        names = [f"{self._path}.corrupt-{number}" for number in range(1, MAX_ASIDE + 1)]
        free = [name for name in names if not os.path.lexists(name)]
        if not free:
            raise FileUnavailable(f"{error}, and there are {MAX_ASIDE} .corrupt files already")
        os.rename(self._path, free[0])
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._path + suffix, free[0] + suffix)
        self._warn(f"{error}: moved to {free[0]}, and begun anew")

    def _entry(
        self, database: sqlite3.Connection, url: str, number: int, checksum: int, head: bytes
    ) -> Entry:
        # By a Blob, because it lets other threads run while it copies.
        with database.blobopen("entries", "body", number, readonly=True) as blob:
            body = blob.read()
        if _checksum(url, head, body) != checksum:
            raise CorruptFile("an entry has changed by itself")
        return _decoded(head, body)

    def _apply(self, database: sqlite3.Connection, url: str, change: Change, used: int) -> None:
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
        """Delete what was unused for longest, and say whether there is more to delete."""
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
"""What :class:`CacheFile` fails with."""


def is_busy(error: BaseException) -> bool:
    """Say whether another process was writing, so that it may work a moment later."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_full(error: BaseException) -> bool:
    return _code(error) == sqlite3.SQLITE_FULL


def _is_corrupt(error: BaseException) -> bool:
    return isinstance(error, CorruptFile) or _code(error) in _CORRUPT_CODES


def _code(error: BaseException) -> int | None:
    """SQLite's primary code of an error, without what it says in detail."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _pragma(database: sqlite3.Connection, name: str) -> int:
    value: int = database.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _statements(script: str) -> Iterator[str]:
    """Cut a script into statements; ``executescript`` would commit before the first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _typed(rows: Any, *kinds: type) -> Any:  # Any: tuples of these types
    """
    Give *rows* if their values are of these types: a broken file may hold anything anywhere.

    :raises CorruptFile: if one is not.
    """
    for row in rows:
        if tuple(map(type, row)) != kinds:
            raise CorruptFile("a row has the wrong form")
    return rows


def _decoded(head: bytes, body: bytes) -> Entry:
    try:
        return decode_head(head, body)
    except ValueError as error:
        raise CorruptFile(f"an entry cannot be read ({error})") from error


def _checksum(url: str, head: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(head, zlib.crc32(url.encode())))
