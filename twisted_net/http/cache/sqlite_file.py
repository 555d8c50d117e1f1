"""
The SQLite file of a cache, which several processes may share: transactions, recovery.

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
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, Final, NoReturn

from attrs import frozen

from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.memory_tier import Snapshot
from twisted_net.http.cache.pending_changes import BATCH_URLS, PendingChange, WriteBatch
from twisted_net.http.cache.serialization import decode_head, encode_head
from twisted_net.http.cache.sqlite_schema import (
    OPEN_TIMEOUT,
    VERSION,
    CorruptFile,
    is_busy,
    is_corrupt,
    is_current,
    is_full,
    pragma,
    prepare,
    typed,
)
from twisted_net.http.cache.stamps import MAX_COMMIT, StampFile, slot

MAX_CORRUPT_FILES = 3
"""Limit of ``.corrupt-N`` files; at it, there is no cache until one is removed."""

BUSY_TIMEOUT = 0.1
"""Seconds that a transaction waits for another process's, before reads are tried again."""

REOPEN_AFTER = 10.0
"""Seconds until a file that could not be opened is tried again."""

CHECK_AFTER = 0.05
"""Seconds between two looks whether the file still has its name; a write looks each time."""

SMALL_BODY: Final = 2**16
"""Bytes up to which a body is read together with its row."""

VACUUM_PAGES: Final = 256
"""Pages given back to the system after one transaction, 1 MiB; and those that are always kept."""

_READ = f"""
SELECT totals.version, totals.commits, entries.id, entries.checksum, entries.head,
    CASE WHEN length(entries.body) <= {SMALL_BODY} THEN entries.body END
FROM totals LEFT JOIN entries ON entries.url = (SELECT id FROM urls WHERE url = ?)
"""


class OtherVersion(Exception):
    """Another version of this package has replaced the tables since the file was opened."""


class FileUnavailable(Exception):
    """The file could not be opened, now or within :data:`REOPEN_AFTER`."""


class _LargeBody(Exception):
    """A body has to be read in a transaction of several statements."""


@frozen(slots=True)
class FileRead:
    """The entries of a URL, newest last, and until when they are current."""

    entries: tuple[Entry, ...]
    snapshot: Snapshot


@frozen(slots=True)
class FileWrite:
    """
    What a transaction has written.

    :param more: whether there is more to do: to evict, or to free space.
    :param changed: by URL, what its slot's stamp was before, and when it was written; not those
        that were evicted at once.
    """

    more: bool
    changed: dict[str, tuple[int, Snapshot]]


class CacheFile:
    """
    The file and its one connection. Every call waits for the disk: none is for the reactor.

    It is opened at its first use, and again later if that failed. A file that is corrupt, or that
    belongs to another program, is renamed and replaced by an empty one, once no other process has
    it open. A cache of another version is emptied. One that was deleted or replaced while it was
    open is opened anew.

    :param warn: called with a sentence for each file that was renamed, deleted or replaced.
    :param replaced: called when what was read before may not be what is in the file.
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
        replaced: Callable[[], None] = lambda: None,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> None:
        self._path = path
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._max_variants = max_variants
        self._warn = warn
        self._replaced = replaced
        self._connect = connect
        self._database: sqlite3.Connection | None = None
        self._stamps: StampFile | None = None
        self._lock: int | None = None
        self._identity = (0, 0)
        self._check_at = 0.0
        self._reopen_at = 0.0
        self._lost = False
        self._may_shrink = False

    def read(self, url: str) -> FileRead:
        """
        Return the entries of a URL.

        :raises Exception: one of :data:`FAILURES`.
        """
        database = self._opened()
        try:
            # One statement sees one state of the file, and does without a transaction.
            return self._found(url, database.execute(_READ, (url,)).fetchall(), None)
        except _LargeBody:
            with self._transaction("BEGIN") as database:
                rows = database.execute(_READ, (url,)).fetchall()
                return self._found(url, rows, database)
        except _OF_THE_FILE as error:
            self._raise_after_closing(error)

    def write(self, batch: WriteBatch) -> FileWrite:
        """
        Apply *batch*, all of it or nothing, and evict entries beyond the limits.

        :raises Exception: one of :data:`FAILURES`.
        """
        self._check_at = 0.0
        with self._transaction("BEGIN IMMEDIATE") as database:
            if not is_current(database):
                raise self._other_version()
            if batch.everything_removed:
                database.execute("DELETE FROM entries")
                database.execute("DELETE FROM urls")
            latest = database.execute("SELECT coalesce(max(used), 0) FROM urls").fetchall()
            uses = itertools.count(typed(latest, int)[0][0] + 1)
            for url, change in batch.changes.items():
                self._apply(database, url, change, next(uses))
            database.executemany(
                "UPDATE urls SET used = ? WHERE url = ?",
                [(used, url) for url, used in zip(batch.used, uses, strict=False)],
            )
            evicted, more = self._evict(database)
            changed = self._mark(database, batch, evicted)
        if batch.changes or batch.everything_removed or evicted:
            self._may_shrink = True
        if not more and self._may_shrink:
            self._may_shrink = more = self._vacuum(database)
        return FileWrite(more, changed)

    def check(self) -> None:
        """
        Look whether what was read may still be in the file, although nobody reads it now.

        :raises Exception: never.
        """
        self._check_name()
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                if not is_current(self._database):
                    self._disconnect_after(self._other_version())

    def close(self) -> None:
        """Close the connection, if there is one; a later call opens it again."""
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()
        # What was read keeps its mapping.
        self._stamps = None
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
                yield database
                database.execute("COMMIT")
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")
        except _OF_THE_FILE as error:
            self._raise_after_closing(error)

    def _raise_after_closing(self, error: Exception) -> NoReturn:
        """Raise *error*, after the connection was closed where it shows that it is of no use."""
        reason = self._reason(error)
        if not is_busy(reason):
            self._disconnect_after(reason)
        if reason is error:
            raise error
        raise reason from error

    def _reason(self, error: Exception) -> Exception:
        """Return *error*, or :class:`OtherVersion` where that is why a statement does not fit."""
        if is_corrupt(error) and self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                if not is_current(self._database):
                    return self._other_version()
        return error

    def _other_version(self) -> OtherVersion:
        self._lost = True
        self._replaced()
        return OtherVersion("another version of twisted_net has replaced its tables")

    def _disconnect_after(self, error: Exception) -> None:
        """Close the connection after *error*; a later use opens another."""
        if is_corrupt(error):
            try:
                self._quarantine(error)
            finally:
                self.close()
        elif not is_full(error):
            self.close()
            self._reopen_at = time.monotonic() + REOPEN_AFTER

    def _check_name(self) -> None:
        """Close the file if it no longer has its name, and say so."""
        if self._database is None:
            return
        self._check_at = time.monotonic() + CHECK_AFTER
        assert self._stamps is not None
        if _identity(self._path) == self._identity and self._stamps.is_in_place():
            return
        self.close()
        self._replaced()
        self._warn("it was deleted or replaced while it was open, and is opened anew")

    def _opened(self) -> sqlite3.Connection:
        if self._database is not None and time.monotonic() >= self._check_at:
            self._check_name()
        if self._database is not None:
            return self._database
        if self._lost or time.monotonic() < self._reopen_at:
            raise FileUnavailable("it could not be opened")
        try:
            try:
                self._database = self._open()
            except (CorruptFile, sqlite3.Error) as error:
                if not is_corrupt(error):
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
        self._stamps = StampFile(f"{self._path}-stamps", OPEN_TIMEOUT)
        try:
            self._create()
        finally:
            self._stamps.unlock()
        # isolation_level=None: sqlite3 begins no transactions of its own.
        database = self._connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            prepare(database, self._stamps.next_commit(0))
        except BaseException:
            database.close()
            raise
        return database

    def _create(self) -> None:
        """Create an empty file, if there is none, and remove what another one has left."""
        assert self._stamps is not None
        created = True
        try:
            # Responses may be private. An existing file is not opened: closing it here would drop
            # the POSIX locks of other connections in this process.
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            created = False
        found = os.stat(self._path)
        if not stat.S_ISREG(found.st_mode):
            raise FileUnavailable("it is not a regular file")
        self._identity = (found.st_dev, found.st_ino)
        self._check_at = time.monotonic() + CHECK_AFTER
        if created or self._stamps.inode not in (0, found.st_ino):
            # SQLite would apply the log of a file that was deleted to the one in its place.
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path + suffix)
        self._stamps.inode = found.st_ino
        self._may_shrink = True

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
            if _identity(self._path) == self._identity:
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

    def _found(self, url: str, rows: Any, database: sqlite3.Connection | None) -> FileRead:
        """
        Return what the rows of :data:`_READ` are.

        :param database: where to read large bodies from.
        """
        if not rows:
            raise CorruptFile("its totals are missing")
        version, commit = rows[0][:2]
        if version != VERSION:
            raise self._other_version()
        if type(commit) is not int or not 0 <= commit < MAX_COMMIT:
            raise CorruptFile("the number of its transactions is wrong")
        assert self._stamps is not None
        snapshot = Snapshot(self._stamps.words, slot(url), commit)
        if rows[0][2] is None:
            return FileRead((), snapshot)
        prefix = zlib.crc32(url.encode())
        entries = []
        for _, _, number, checksum, head, body in sorted(rows, key=itemgetter(2)):
            if body is None:
                if database is None:
                    raise _LargeBody
                # By a Blob, because it releases the GIL while it copies.
                with database.blobopen("entries", "body", number, readonly=True) as blob:
                    body = blob.read()
            if not type(head) is type(body) is bytes:
                raise CorruptFile("a row has values of the wrong types")
            if zlib.crc32(body, zlib.crc32(head, prefix)) != checksum:
                raise CorruptFile("the checksum of an entry is wrong")
            entries.append(_decoded(head, body))
        return FileRead(tuple(entries), snapshot)

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
            (number, _decoded(head, b"")) for number, head in typed(rows.fetchall(), int, bytes)
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

    def _evict(self, database: sqlite3.Connection) -> tuple[set[str], bool]:
        """Evict the least recently used entries; return their URLs, and whether there are more."""
        evicted: set[str] = set()
        totals = database.execute("SELECT entries, bytes FROM totals").fetchall()
        [(entries, size)] = typed(totals, int, int)
        if not self._overfull(entries, size):
            return evicted, False
        oldest = database.execute(
            "SELECT entries.id, entries.size, urls.id, CAST(urls.url AS BLOB)"
            " FROM urls CROSS JOIN entries"
            " ON entries.url = urls.id ORDER BY urls.used, entries.id LIMIT ?",
            (BATCH_URLS,),
        ).fetchall()
        for number, bytes_, row, url in typed(oldest, int, int, int, bytes):
            # Damaged text must not keep it from being evicted.
            evicted.add(url.decode(errors="replace"))
            database.execute("DELETE FROM entries WHERE id = ?", (number,))
            database.execute(
                "DELETE FROM urls WHERE id = ?1"
                " AND NOT EXISTS (SELECT 1 FROM entries WHERE url = ?1)",
                (row,),
            )
            entries, size = entries - 1, size - bytes_
            if not self._overfull(entries, size):
                return evicted, False
        return evicted, True

    def _overfull(self, entries: int, size: int) -> bool:
        return entries > self._max_entries or size > self._max_bytes

    def _mark(
        self, database: sqlite3.Connection, batch: WriteBatch, evicted: set[str]
    ) -> dict[str, tuple[int, Snapshot]]:
        """
        Number the transaction, and stamp the URLs that it changes; the commit follows.

        :return: as in :class:`FileWrite`.
        """
        if not (batch.everything_removed or batch.changes or batch.used or evicted):
            return {}
        assert self._stamps is not None
        [(stored,)] = typed(database.execute("SELECT commits FROM totals").fetchall(), int)
        if not 0 <= stored < MAX_COMMIT:
            raise CorruptFile("the number of its transactions is wrong")
        words, commit = self._stamps.words, self._stamps.next_commit(stored)
        database.execute("UPDATE totals SET commits = ?", (commit,))
        if batch.everything_removed:
            self._stamps.mark_all(commit)
            return {}
        slots = {url: slot(url) for url in batch.changes if url not in evicted}
        # All of them before the first is stamped: URLs may share a slot.
        changed = {url: (words[at], Snapshot(words, at, commit)) for url, at in slots.items()}
        self._stamps.mark((*batch.changes, *evicted), commit)
        return changed

    def _vacuum(self, database: sqlite3.Connection) -> bool:
        """Free some of the unused pages; return whether there are more to free."""
        try:
            pages, free = pragma(database, "page_count"), pragma(database, "freelist_count")
            surplus = surplus_pages(pages, free, self._max_bytes // pragma(database, "page_size"))
            if not surplus or pragma(database, "auto_vacuum") != _INCREMENTAL:
                return False
            count = min(surplus, VACUUM_PAGES)
            # A script: each step frees one page, and execute() makes one step.
            database.executescript(f"PRAGMA incremental_vacuum({count})")
            if count == surplus:
                # The file gets shorter when its log is written back.
                database.execute("PRAGMA wal_checkpoint(PASSIVE)")
            return count < surplus
        except sqlite3.Error as error:
            if is_busy(error):
                return False  # the next change tries again
            self._raise_after_closing(error)


_INCREMENTAL = 2

_OF_THE_FILE = (CorruptFile, OtherVersion, sqlite3.Error)

FAILURES = (*_OF_THE_FILE, OSError, FileUnavailable)
"""The errors that :class:`CacheFile` raises."""


def surplus_pages(pages: int, free: int, limit: int) -> int:
    """
    Return how many free pages of a file are to be given back.

    As many as are in use may stay, so that one that is in steady use does not shrink and grow;
    but not where that makes it larger than its limits ask for.

    :param pages: of the file, in all.
    :param free: those of them that are free.
    :param limit: pages of the largest contents.
    """
    allowed = max(pages - free, VACUUM_PAGES)
    beyond_limit = pages - limit - max(limit // 4, VACUUM_PAGES)
    return min(free, max(0, free - allowed, beyond_limit))


def _identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of a path; None where there is nothing, or nothing to be seen."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _decoded(head: bytes, body: bytes) -> Entry:
    try:
        return decode_head(head, body)
    except ValueError as error:
        raise CorruptFile(f"an entry cannot be decoded ({error})") from error


def _checksum(url: str, head: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(head, zlib.crc32(url.encode())))
