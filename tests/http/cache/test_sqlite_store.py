"""Tests of :mod:`twisted_net.http.cache.sqlite_store`, with its thread and without a reactor."""

from __future__ import annotations

import _thread
import fcntl
import os
import queue
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override
from zope.interface import implementer

from tests.http.store_contract import StoreContract, make_entry
from tests.patience import PATIENCE, wait_until
from twisted_net.http.cache import pending_changes, sqlite_schema, sqlite_store
from twisted_net.http.cache.sqlite_file import MAX_CORRUPT_FILES
from twisted_net.http.cache.sqlite_schema import APPLICATION_ID, VERSION
from twisted_net.http.cache.sqlite_store import SQLiteStore
from twisted_net.http.cache.stores import Store

_T = TypeVar("_T")


class ThreadedClock(Clock):
    """A clock that takes calls from threads; they are made while a test waits."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: queue.Queue[Callable[[], object]] = queue.Queue()

    def callFromThread(self, function: Callable[..., object], *args: object, **kw: object) -> None:
        """Schedule a call in the test's thread."""
        self.handed.put(lambda: function(*args, **kw))

    def wait_for(self, waiting: Deferred[_T]) -> _T:
        """Make calls until *waiting* has fired, and return its result."""
        results: list[Any] = []  # Any: a result or a failure
        waiting.addBoth(results.append)
        while not results:
            self.advance(0.0)
            self.handed.get(timeout=PATIENCE)()
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        result: _T = results[0]
        return result

    def make_calls(self) -> None:
        """Make the pending calls."""
        while not self.handed.empty():
            self.handed.get()()


class ThreadedCase(SynchronousTestCase):
    """A folder, a clock, and the log."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = self.folder / "cache.sqlite"
        self.clock = ThreadedClock()
        self.logged: list[str] = []
        self.events: list[LogEvent] = []

        @implementer(ILogObserver)
        def note(event: LogEvent) -> None:
            if event.get("log_namespace", "").startswith("twisted_net"):
                self.logged.append(formatEvent(event))
                self.events.append(event)

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)


class SQLiteCase(ThreadedCase):
    """Stores on one file."""

    def store(self, **options: Any) -> SQLiteStore:  # Any: as SQLiteStore types them
        """Return a store, closed when the test is over."""
        store = SQLiteStore(self.clock, self.path, **options)
        self.addCleanup(lambda: self.clock.wait_for(store.close()))
        return store

    def found(self, store: SQLiteStore, key: str) -> list[bytes]:
        """Return the variants that the store has under *key*."""
        return [entry.variant for entry in self.clock.wait_for(store.get(key))]

    def flush(self, store: SQLiteStore) -> None:
        """Wait until all changes are written."""
        self.clock.wait_for(store.flush())

    def fill(self, key: str = "k") -> None:
        """Make a file with one entry, and close it."""
        store = SQLiteStore(self.clock, self.path)
        store.put(key, make_entry(variant=b"filled"))
        self.clock.wait_for(store.close())

    def names(self) -> list[str]:
        """Return the names in the folder, without those of an open file."""
        return sorted(
            each.name
            for each in self.folder.iterdir()
            if not each.name.endswith(("-lock", "-stamps", "-wal", "-shm"))
        )


def failing(*statements: str) -> Callable[..., sqlite3.Connection]:
    """Return a fake of ``sqlite3.connect`` that modifies connections."""

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:  # Any: sqlite3's
        connection: sqlite3.Connection = sqlite3.connect(*args, **options)
        for statement in statements:
            connection.execute(statement)
        return connection

    return connect


class SQLiteContractTests(StoreContract, ThreadedCase):
    """:class:`SQLiteStore` fulfils the contract of a store."""

    @override
    def make_store(
        self, max_entries: int = 1000, max_bytes: int = 2**20, max_variants: int = 64
    ) -> Store:
        self.path = Path(tempfile.mkdtemp(dir=self.folder)) / "cache.sqlite"
        return SQLiteStore(self.clock, self.path, max_entries, max_bytes, max_variants)

    @override
    def wait_for(self, value: _T | Awaitable[_T]) -> _T:
        assert isinstance(value, Deferred)
        result: _T = self.clock.wait_for(value)
        return result

    @override
    def settle(self, store: Store) -> None:
        assert isinstance(store, SQLiteStore)
        self.clock.wait_for(store.flush())


class PersistenceTests(SQLiteCase):
    """Entries are still there when the file is opened again."""

    def test_reopened(self) -> None:
        """Closing writes pending changes; another store finds them, variants in order."""
        store = SQLiteStore(self.clock, self.path)
        for variant in (b"a", b"b"):
            store.put("k", make_entry(variant=variant))
        self.clock.wait_for(store.close())
        self.assertEqual(self.found(self.store(), "k"), [b"a", b"b"])
        self.assertEqual(self.logged, [])

    def test_mode(self) -> None:
        """No other user may read the file, nor SQLite's files beside it."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        store = self.store()
        store.put("k", make_entry())
        self.flush(store)
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in self.folder.iterdir()}
        self.assertEqual(
            modes,
            {f"cache.sqlite{suffix}": 0o600 for suffix in ("", "-wal", "-shm", "-lock", "-stamps")},
        )

    def test_written_by_itself(self) -> None:
        """An entry is written a moment later, without a flush."""
        store = self.store()
        other = self.store()
        store.put("k", make_entry(variant=b"v"))
        self.clock.advance(sqlite_store.WRITE_DELAY)
        wait_until(lambda: self.found(other, "k"))
        self.assertEqual(self.found(other, "k"), [b"v"])

    def test_use_is_noted(self) -> None:
        """The order of use is known to the next process."""
        store = SQLiteStore(self.clock, self.path)
        for key in "abc":
            store.put(key, make_entry())
        self.flush(store)
        self.found(store, "a")
        self.clock.wait_for(store.close())
        store = self.store(max_entries=2)
        store.put("d", make_entry())
        self.flush(store)
        self.assertEqual([key for key in "abcd" if self.found(store, key)], ["a", "d"])

    def test_much_use(self) -> None:
        """Many reads cause a write of their order; beyond the limit the latest count."""
        store = self.store()
        store.put("k", make_entry())
        self.flush(store)
        for number in range(sqlite_store.MAX_USED + 10):
            self.found(store, f"unknown {number}")
        self.assertLessEqual(len(store._used), sqlite_store.MAX_USED)

    def test_lower_bounds(self) -> None:
        """A file far over its limits is reduced by some entries per transaction."""
        store = SQLiteStore(self.clock, self.path)
        for number in range(3 * pending_changes.BATCH_URLS):
            store.put(f"{number}", make_entry(500))
        self.clock.wait_for(store.close())
        store = self.store(max_entries=10)
        store.put("new", make_entry(500))
        self.flush(store)
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM entries), (SELECT count(*) FROM urls), entries, bytes"
            " FROM totals"
        ).fetchone()
        self.assertEqual(counts, (10, 10, 10, 5000))
        self.assertEqual(len(self.found(store, "new")), 1)

    def test_two_stores(self) -> None:
        """Two stores on one file see each other's entries and removals."""
        one, two = self.store(), self.store()
        one.put("k", make_entry(variant=b"1"))
        self.flush(one)
        two.put("k", make_entry(variant=b"2"))
        self.flush(two)
        self.assertEqual(self.found(one, "k"), [b"1", b"2"])
        two.remove("k")
        self.flush(two)
        self.assertEqual(self.found(one, "k"), [])

    def test_relative_path(self) -> None:
        """The file stays where it was when the working directory changes."""
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        store = SQLiteStore(self.clock, "cache.sqlite")
        os.chdir("/")
        store.put("k", make_entry())
        self.clock.wait_for(store.close())
        self.assertEqual(self.names(), ["cache.sqlite"])


class MemoryTests(SQLiteCase):
    """What was read is served from memory, as long as nothing has changed it."""

    def filled(self, *keys: str, **options: Any) -> SQLiteStore:  # Any: as SQLiteStore types them
        """Return a store that has read what another one has written."""
        for key in keys:
            self.fill(key)
        store = self.store(**options)
        for key in keys:
            self.assertIsNone(store.get_from_memory(key))
            self.found(store, key)
        return store

    def near(self, store: SQLiteStore, key: str) -> list[bytes] | None:
        """Return the variants that the store has in memory."""
        found = store.get_from_memory(key)
        return None if found is None else [entry.variant for entry in found]

    def test_hit(self) -> None:
        """A second read is answered at once, also of a key that has no entries."""
        store = self.filled("k")
        self.assertEqual(self.near(store, "k"), [b"filled"])
        self.assertEqual(len(self.successResultOf(store.get("k"))), 1)
        self.assertIsNone(store.get_from_memory("unknown"))
        self.assertEqual(self.found(store, "unknown"), [])
        self.assertEqual(self.successResultOf(store.get("unknown")), ())

    def test_own_changes(self) -> None:
        """Changes of this store are seen at once, before and after they are written."""
        store = self.filled("k")
        store.put("k", make_entry(variant=b"new"))
        self.assertEqual(self.near(store, "k"), [b"filled", b"new"])
        self.flush(store)
        self.assertEqual(self.near(store, "k"), [b"filled", b"new"])
        self.assertEqual(self.found(self.store(), "k"), [b"filled", b"new"])
        store.put("unread", make_entry())
        self.assertIsNone(store.get_from_memory("unread"))
        store.remove("k")
        self.assertIsNone(store.get_from_memory("k"))
        self.assertEqual(self.found(store, "k"), [])
        self.flush(store)
        self.assertEqual(self.found(store, "k"), [])
        self.assertEqual(self.near(store, "k"), [])

    def test_changed_while_it_is_read(self) -> None:
        """What was being read when it was changed is not kept."""
        self.fill("k")
        store = self.store()
        changes: list[Callable[[], None]] = [
            lambda: store.remove("k"),
            lambda: store.put("k", make_entry()),
        ]
        for change in changes:
            reading = store.get("k")
            while self.clock.handed.empty():
                pass
            change()
            self.clock.wait_for(reading)
            self.assertIsNone(store.get_from_memory("k"))

    def test_others_changes_before_own(self) -> None:
        """What this store has written is not served from memory if another wrote before it."""
        store = self.filled("k")
        store.put("k", make_entry(variant=b"own"))
        writer = self.store()
        writer.put("k", make_entry(variant=b"new"))
        self.flush(writer)
        self.flush(store)
        self.assertIsNone(store.get_from_memory("k"))
        self.assertEqual(self.found(store, "k"), [b"filled", b"new", b"own"])

    def test_others_changes(self) -> None:
        """What another store has written is not served from memory any more."""
        store = self.filled("k", "other")
        writer = self.store()
        writer.put("k", make_entry(variant=b"new"))
        self.assertEqual(self.near(store, "k"), [b"filled"])
        self.flush(writer)
        self.assertIsNone(store.get_from_memory("k"))
        self.assertEqual(self.near(store, "other"), [b"filled"])
        self.assertEqual(self.found(store, "k"), [b"filled", b"new"])
        writer.remove("k")
        self.flush(writer)
        self.assertIsNone(store.get_from_memory("k"))
        self.assertEqual(self.found(store, "k"), [])

    def test_everything_removed(self) -> None:
        """When too many removals wait, nothing is served from memory."""
        store = self.filled("k", "other")
        with mock.patch.object(pending_changes, "MAX_CHANGED", 2):
            for key in "abc":
                store.remove(key)
        self.assertIsNone(store.get_from_memory("k"))
        self.assertEqual(self.found(store, "k"), [])
        self.flush(store)
        self.assertEqual(self.found(store, "k"), [])

    def test_failed_write(self) -> None:
        """An entry that could not be written is not served from memory, as from the file."""
        store = self.store(connect=failing("PRAGMA max_page_count = 20"))
        store.put("k", make_entry(200_000))
        self.assertEqual(self.found(store, "k"), [b""])
        self.assertEqual(self.near(store, "k"), [b""])
        self.flush(store)
        self.assertEqual(store.dropped, 1)
        self.assertIsNone(store.get_from_memory("k"))
        self.assertEqual(self.found(store, "k"), [])

    def test_limit(self) -> None:
        """No more than ``max_memory`` is kept; with 0 all reads are of the file."""
        store = self.filled("a", "b", "c", max_memory=16 * 1501)
        self.assertEqual(self.near(store, "a"), [b"filled"])
        store._tier._max_bytes = 3002
        for key in "abc":
            self.fill(key)
            self.found(store, key)
        self.assertEqual([self.near(store, key) for key in "abc"], [None, None, None])
        store = self.store(max_memory=0)
        self.found(store, "a")
        self.assertIsNone(store.get_from_memory("a"))

    def test_use(self) -> None:
        """The file is told of uses in memory at most once a second for each key."""
        store = self.filled("a", "b")
        self.flush(store)
        told = []
        for _ in range(32):
            self.clock.advance(1 / 8)
            store.get_from_memory("a")
            told += list(store._used)
            store._used.pop("a")
        self.assertEqual(told, ["a"] * 4)
        self.clock.advance(1)
        store.get_from_memory("a")
        self.clock.wait_for(store.close())
        store = self.store(max_entries=2)
        store.put("new", make_entry())
        self.flush(store)
        self.assertEqual([key for key in ("a", "b", "new") if self.found(store, key)], ["a", "new"])

    def test_deleted_file(self) -> None:
        """A file that is deleted is noticed within a second, though only memory answers."""
        store = self.filled("k")
        self.path.unlink()
        self.assertEqual(self.near(store, "k"), [b"filled"])
        self.clock.advance(sqlite_store.CHECK_INTERVAL)
        self.assertEqual(self.near(store, "k"), [b"filled"])
        while store.get_from_memory("k") is not None:
            self.clock.handed.get(timeout=PATIENCE)()
        self.assertEqual(self.found(store, "k"), [])
        self.clock.make_calls()
        self.assertEqual(len(self.logged), 1, self.logged)
        self.assertIn("it was deleted or replaced while it was open", self.logged[0])
        store.put("k", make_entry(variant=b"new"))
        self.flush(store)
        self.assertEqual(self.found(self.store(), "k"), [b"new"])

    def test_read_before_it_is_replaced(self) -> None:
        """What was read from the old file in the same round is not kept."""
        self.fill("k")
        store = self.store()
        self.found(store, "unknown")
        real = store._file.read
        go = threading.Event()

        def read(url: str) -> Any:  # Any: FileRead
            if url == "first":
                go.wait(PATIENCE)
            elif url == "other":
                self.path.unlink()
                store._file._check_at = 0.0
            return real(url)

        with mock.patch.object(store._file, "read", read):
            waiting = [store.get(url) for url in ("first", "k", "other")]
            go.set()
            found = [len(self.clock.wait_for(each)) for each in waiting]
        self.assertEqual(found, [0, 1, 0])
        self.assertEqual(self.found(store, "k"), [])

    def test_shared_read(self) -> None:
        """Callers who ask for the same key at once share one read of the file."""
        self.fill("k")
        store = self.store()
        with mock.patch.object(store._file, "read", wraps=store._file.read) as read:
            waiting = [store.get("k") for _ in range(5)]
            waiting[1].cancel()
            self.failureResultOf(waiting.pop(1), CancelledError)
            for each in waiting:
                self.assertEqual(len(self.clock.wait_for(each)), 1)
        self.assertEqual(read.call_count, 1)

    def test_closed(self) -> None:
        """After closing there is nothing in memory."""
        store = self.filled("k")
        self.clock.wait_for(store.close())
        self.assertIsNone(store.get_from_memory("k"))
        self.assertEqual(self.successResultOf(store.get("k")), ())

    def test_lower_limits(self) -> None:
        """A file that is only read shrinks after a start with lower limits."""
        store = SQLiteStore(self.clock, self.path)
        for number in range(30):
            store.put(f"{number}", make_entry(100_000))
        self.clock.wait_for(store.close())
        for max_bytes in (2**26, 300_000):
            self.assertGreater(self.path.stat().st_size, 2_900_000)
            store = SQLiteStore(self.clock, self.path, max_bytes=max_bytes)
            self.found(store, "29")
            self.clock.advance(sqlite_store.WRITE_DELAY)
            while store._writing or store._more_to_write:
                self.clock.handed.get(timeout=PATIENCE)()
            self.clock.wait_for(store.close())
        self.assertLess(self.path.stat().st_size, 2_000_000)


class OtherFileTests(SQLiteCase):
    """A file that is not a cache is renamed, and the cache works."""

    def check_moved(self, count: int = 1) -> None:
        """The file was renamed with a warning, and a new one stores entries."""
        store = self.store()
        self.assertEqual(self.found(store, "k"), [])
        store.put("k", make_entry(variant=b"new"))
        self.flush(store)
        self.assertEqual(self.found(store, "k"), [b"new"])
        self.assertEqual(
            self.names(), ["cache.sqlite", *(f"cache.sqlite.corrupt-{n + 1}" for n in range(count))]
        )
        self.assertEqual(len(self.logged), 1, self.logged)
        self.assertIn(f"renamed to {self.path}.corrupt-{count}, and replaced", self.logged[0])

    def test_no_database(self) -> None:
        """A file of another kind is kept as it is."""
        self.path.write_bytes(b"private notes\n" * 1000)
        self.check_moved()
        moved = self.path.with_name("cache.sqlite.corrupt-1")
        self.assertEqual(moved.read_bytes(), b"private notes\n" * 1000)

    def test_database_of_another_program(self) -> None:
        """Another program's database is kept as it is."""
        with sqlite3.connect(self.path) as connection:
            connection.execute("CREATE TABLE entries (id)")
            connection.execute("INSERT INTO entries VALUES (42)")
        connection.close()
        self.check_moved()
        self.assertIn("it belongs to another program", self.logged[0])
        moved = sqlite3.connect(f"{self.path}.corrupt-1")
        self.addCleanup(moved.close)
        self.assertEqual(moved.execute("SELECT id FROM entries").fetchall(), [(42,)])

    def test_empty_file(self) -> None:
        """An empty file is used."""
        self.path.touch()
        self.fill()
        self.assertEqual(self.found(self.store(), "k"), [b"filled"])
        self.assertEqual((self.names(), self.logged), (["cache.sqlite"], []))

    def test_missing_table(self) -> None:
        """A file with our application ID that lacks a table is renamed."""
        self.fill()
        with sqlite3.connect(self.path) as connection:
            connection.execute("DROP TABLE entries")
        connection.close()
        store = self.store()
        for _ in range(2):
            self.assertEqual(self.found(store, "k"), [])
        self.assertEqual(self.names(), ["cache.sqlite", "cache.sqlite.corrupt-1"])

    def test_several(self) -> None:
        """Each has its own name; with all in use there is no cache, and no file is lost."""
        for number in range(1, MAX_CORRUPT_FILES + 1):
            Path(f"{self.path}.corrupt-{number}").touch()
        self.path.write_bytes(b"notes" * 1000)
        store = self.store()
        store.put("k", make_entry())
        self.flush(store)
        self.assertEqual(self.found(store, "k"), [])
        self.assertEqual(self.path.read_bytes(), b"notes" * 1000)
        self.assertIn(f"there are {MAX_CORRUPT_FILES} .corrupt files already", self.logged[0])
        self.assertEqual(store.dropped, 1)

    def test_in_use(self) -> None:
        """A damaged file that another store has open is not renamed until that closes it."""
        other = SQLiteStore(self.clock, self.path)
        other.put("k", make_entry())
        self.flush(other)
        with sqlite3.connect(self.path) as connection:
            connection.execute("UPDATE entries SET head = x'00'")
        connection.close()
        store = self.store()
        self.assertEqual(self.found(store, "k"), [])
        self.assertIn("another process has it open", self.logged[0])
        self.assertEqual(self.names(), ["cache.sqlite"])
        self.clock.wait_for(other.close())
        store._file._reopen_at = 0.0
        for _ in range(2):
            self.assertEqual(self.found(store, "k"), [])
        self.assertEqual(self.names(), ["cache.sqlite", "cache.sqlite.corrupt-1"])

    def test_lock_of_others(self) -> None:
        """A lock that another holds, even while ours changes, is not waited for."""
        lock = self.path.with_name("cache.sqlite-lock")
        lock.touch()
        with lock.open() as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            self.assertEqual(self.found(self.store(), "k"), [])
        self.fill()
        with sqlite3.connect(self.path) as connection:
            connection.execute("UPDATE entries SET head = x'00'")
        connection.close()
        with lock.open() as other:
            real = fcntl.flock

            def lock_slowly(descriptor: int, how: int) -> None:
                if how == fcntl.LOCK_SH | fcntl.LOCK_NB and self.names()[-1:] != ["cache.sqlite"]:
                    real(descriptor, fcntl.LOCK_UN)
                    real(other, fcntl.LOCK_EX)
                real(descriptor, how)

            self.patch(fcntl, "flock", lock_slowly)
            store = self.store()
            self.assertEqual(self.found(store, "k"), [])
            self.assertEqual(self.names(), ["cache.sqlite.corrupt-1"])
            self.patch(fcntl, "flock", real)
        store._file._reopen_at = 0.0
        store.put("k", make_entry())
        self.flush(store)
        self.assertEqual(len(self.found(store, "k")), 1)

    def test_replaced_by_another(self) -> None:
        """A damaged file that another process has replaced already is not renamed."""
        self.fill()
        broken = self.path.with_name("broken")
        with sqlite3.connect(self.path) as connection:
            connection.execute("UPDATE entries SET checksum = 0")
        connection.close()
        store = self.store()
        self.found(store, "unknown")
        self.path.rename(broken)
        self.path.write_bytes(b"")
        self.assertEqual(self.found(store, "k"), [])
        self.assertEqual(self.names(), ["broken", "cache.sqlite"])

    def test_other_version(self) -> None:
        """A cache of another version is emptied, not renamed."""
        self.fill()
        with sqlite3.connect(self.path) as connection:
            connection.execute("PRAGMA user_version = 7")
            connection.execute('CREATE TABLE "od""d" (id)')
        connection.close()
        store = self.store()
        self.assertEqual(self.found(store, "k"), [])
        self.flush(store)
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("PRAGMA user_version").fetchone(), (VERSION,))
        self.assertEqual(connection.execute("PRAGMA application_id").fetchone(), (APPLICATION_ID,))
        self.assertEqual((self.names(), self.logged), (["cache.sqlite"], []))

    def test_taken_over(self) -> None:
        """Once another version has replaced the tables, the file is not used any more."""
        store = self.store()
        store.put("k", make_entry())
        self.flush(store)
        with sqlite3.connect(self.path) as connection:
            connection.execute("PRAGMA user_version = 7")
            connection.execute("DROP TABLE totals")
        connection.close()
        self.assertEqual(self.found(store, "k"), [])
        self.assertIn("another version of twisted_net has replaced its tables", self.logged[0])
        store._file._reopen_at = 0.0
        store.put("k", make_entry())
        self.flush(store)
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("PRAGMA user_version").fetchone(), (7,))


class BrokenFileTests(SQLiteCase):
    """A file with damage anywhere yields correct entries or none, and no error is raised."""

    def test_any_damage(self) -> None:
        """Bytes are changed all over the file, a page or so at a time."""
        store = SQLiteStore(self.clock, self.path)
        entries = {f"k{n}": make_entry(500 + 700 * n, b"%d" % n) for n in range(12)}
        for key, entry in entries.items():
            store.put(key, entry)
        self.clock.wait_for(store.close())
        whole = self.path.read_bytes()
        for offset in range(0, len(whole), 577):
            damaged = bytearray(whole)
            for place in range(offset, min(offset + 40, len(whole)), 3):
                damaged[place] ^= 0x55 + place % 7
            self.path.write_bytes(damaged)
            store = SQLiteStore(self.clock, self.path)
            for key, entry in entries.items():
                found = self.clock.wait_for(store.get(key))
                self.assertIn(tuple(found), [(), (entry,)], offset)
            store.put("new", make_entry())
            self.assertEqual(len(self.found(store, "new")), 1)
            self.clock.wait_for(store.close())
            for each in self.folder.iterdir():
                each.unlink()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cut_anywhere(self) -> None:
        """The same for a file that is cut short."""
        self.fill()
        whole = self.path.read_bytes()
        for length in range(1, len(whole), 1999):
            self.path.write_bytes(whole[:length])
            store = SQLiteStore(self.clock, self.path)
            self.assertIn(self.found(store, "k"), [[], [b"filled"]])
            store.put("new", make_entry())
            self.clock.wait_for(store.close())
            for each in self.folder.iterdir():
                each.unlink()
        self.assertEqual(self.flushLoggedErrors(), [])


class FailingFileTests(SQLiteCase):
    """While the file fails there is no cache; this is counted and logged, and no read waits."""

    def check_no_cache(self, store: SQLiteStore) -> None:
        """Writes are dropped, reads find nothing; one line is logged."""
        for _ in range(3):
            store.put("k", make_entry())
            self.flush(store)
            self.assertEqual(self.found(store, "k"), [])
        self.assertEqual(store.dropped, 3)
        self.assertGreaterEqual(store.failures, 3)
        self.assertEqual(len(self.logged), 1, self.logged)

    def test_no_directory(self) -> None:
        """A missing directory is not created."""
        self.path = self.folder / "missing" / "cache.sqlite"
        self.check_no_cache(self.store())
        self.assertIn("No such file or directory", self.logged[0])

    def test_no_file(self) -> None:
        """A directory in its place is left alone."""
        self.path.mkdir()
        self.check_no_cache(self.store())
        self.assertIn("not a regular file", self.logged[0])
        self.assertEqual(self.names(), ["cache.sqlite"])

    def test_no_thread(self) -> None:
        """If the system has no thread to give, no read waits; there is a cache once it has."""
        store = self.store()
        refused = RuntimeError("can't start new thread")
        with mock.patch.object(_thread, "start_new_thread", side_effect=refused):
            for _ in range(3):
                store.put("k", make_entry(variant=b"kept"))
                self.assertEqual(self.successResultOf(store.get("k")), ())
                self.successResultOf(store.flush())
        self.assertEqual(store.failures, 6)
        self.assertEqual(len(self.logged), 1, self.logged)
        self.assertIn("can't start new thread", self.logged[0])
        self.assertEqual(self.found(store, "k"), [b"kept"])

    def test_opened_later(self) -> None:
        """It is tried again a while later."""
        self.path.mkdir()
        store = self.store()
        store.put("k", make_entry())
        self.flush(store)
        self.path.rmdir()
        store._file._reopen_at = 0.0
        store.put("k", make_entry(variant=b"later"))
        self.flush(store)
        self.assertEqual(self.found(store, "k"), [b"later"])

    def test_disk_full(self) -> None:
        """With a full disk entries can be read, and removed ones stay removed."""
        self.fill()
        store = self.store(connect=failing("PRAGMA max_page_count = 20"))
        store.put("k", make_entry(200_000, b"filled"))
        self.flush(store)
        self.assertEqual(self.found(store, "k"), [])
        self.assertEqual((store.dropped, store.failures), (1, 1))
        self.assertIn("full", self.logged[0])
        store.put("small", make_entry())
        self.flush(store)
        self.assertEqual(len(self.found(store, "small")), 1)

    def test_read_only(self) -> None:
        """A file that cannot be written is read until the write fails."""
        self.fill()
        store = self.store(connect=failing("PRAGMA query_only = 1"))
        self.assertEqual(self.found(store, "k"), [b"filled"])
        store.put("other", make_entry())
        self.flush(store)
        self.assertEqual(store.dropped, 1)
        self.assertIn("readonly", self.logged[0])

    def test_locked(self) -> None:
        """While another process writes, reads go on, and writes wait."""
        self.fill()
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        store = self.store()
        store.put("new", make_entry(variant=b"new"))
        flushed = store.flush()
        while not store.failures:
            self.assertEqual(self.found(store, "k"), [b"filled"])
            self.assertEqual(self.found(store, "new"), [b"new"])
        other.execute("ROLLBACK")
        self.clock.wait_for(flushed)
        self.assertEqual(store.dropped, 0)
        self.assertEqual(self.found(self.store(), "new"), [b"new"])

    def test_locked_while_it_is_opened(self) -> None:
        """A file that stays locked is not opened."""
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        with mock.patch.object(sqlite_schema, "OPEN_TIMEOUT", 0.05):
            store = self.store()
            self.assertEqual(self.found(store, "k"), [])
        self.assertIn("locked", self.logged[0])
        other.execute("ROLLBACK")

    def test_warnings(self) -> None:
        """One failure a minute is logged, with the number of those between."""
        self.path.mkdir()
        store = self.store()
        for _ in range(4):
            self.found(store, "k")
        self.clock.advance(sqlite_store.WARNING_INTERVAL)
        self.found(store, "k")
        self.assertEqual(len(self.logged), 2)
        self.assertIn("(3 more of its failures were not logged)", self.logged[1])
        # The write that looks whether the file is too large has failed, too.
        self.assertEqual((self.events[1]["failures"], store.failures), (5, 6))

    def test_bug(self) -> None:
        """After a bug in the thread there is no cache, and no read waits."""
        store = self.store()
        with mock.patch.object(store._file, "read", side_effect=ZeroDivisionError):
            one, two = store.get("k"), store.get("k")
            self.assertEqual(self.clock.wait_for(one), ())
            self.assertEqual(self.clock.wait_for(two), ())
        self.clock.make_calls()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.successResultOf(store.flush())
        store.put("k", make_entry())
        self.assertEqual(self.found(store, "k"), [])


class SlowFile:
    """A fake disk: reads wait until the test allows them."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def connect(self, *args: Any, **options: Any) -> sqlite3.Connection:  # Any: sqlite3's
        """Connect, once the test allows it."""
        self.go.wait(PATIENCE)
        connection: sqlite3.Connection = sqlite3.connect(*args, **options)
        return connection


class WaitingTests(SQLiteCase):
    """Pending reads and writes are limited, in number and in time."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = SlowFile()
        self.addCleanup(self.disk.go.set)

    def test_read_timeout(self) -> None:
        """A read that takes too long finds nothing, which is counted; the next ones work."""
        self.fill()
        store = self.store(connect=self.disk.connect, read_timeout=0.5)
        waiting = store.get("k")
        self.clock.advance(0.4)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.assertEqual(self.successResultOf(waiting), ())
        self.assertEqual(store.read_timeouts, 1)
        self.assertIn("did not answer within 0.5 s", self.logged[0])
        self.disk.go.set()
        self.assertEqual(self.found(store, "k"), [b"filled"])
        self.clock.wait_for(store.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """A read can be cancelled, before and while it is done."""
        store = self.store(connect=self.disk.connect)
        first, second, third = store.get("a"), store.get("b"), store.get("c")
        second.cancel()
        first.cancel()
        self.disk.go.set()
        self.assertEqual(self.clock.wait_for(third), ())
        for cancelled in (first, second):
            self.failureResultOf(cancelled, CancelledError)
        self.clock.wait_for(store.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_max_entries(self) -> None:
        """Entries over the limit are dropped, and those that they replace removed."""
        self.fill("c")
        store = self.store(connect=self.disk.connect, max_waiting=2)
        for key in "abc":
            store.put(key, make_entry())
        self.assertEqual(store.dropped, 1)
        self.disk.go.set()
        self.assertEqual([key for key in "abc" if self.found(store, key)], ["a", "b"])

    def test_max_bytes(self) -> None:
        """The same for too many bytes; an entry that is replaced while it waits is not counted."""
        store = self.store(connect=self.disk.connect, max_waiting_bytes=3000)
        for size in (1000, 2000, 1000, 1500):
            store.put("a", make_entry(size))
        self.assertEqual(store.dropped, 0)
        store.put("b", make_entry(1501))
        store.put("c", make_entry(1500))
        self.assertEqual(store.dropped, 1)
        self.disk.go.set()
        self.assertEqual([key for key in "abc" if self.found(store, key)], ["a", "c"])

    def test_max_changes(self) -> None:
        """When too many removals wait, everything is removed."""
        store = SQLiteStore(self.clock, self.path)
        for key in ("k1", "k2", "other"):
            store.put(key, make_entry())
        self.clock.wait_for(store.close())
        with mock.patch.object(pending_changes, "MAX_CHANGED", 3):
            store = self.store(connect=self.disk.connect)
            store.put("new", make_entry())
            store.remove("k1")
            store.remove("k2")
            store.remove("k3")
        store.put("k1", make_entry(variant=b"again"))
        self.assertEqual(store.dropped, 1)
        self.disk.go.set()
        self.assertEqual(self.found(store, "k1"), [b"again"])
        self.assertEqual(self.found(store, "other"), [])
        self.flush(store)
        self.assertEqual(self.found(store, "k1"), [b"again"])
        for key in ("k2", "other", "new"):
            self.assertEqual(self.found(store, key), [])

    def test_max_reads(self) -> None:
        """One read too many finds nothing."""
        store = self.store(connect=self.disk.connect)
        with mock.patch.object(sqlite_store, "MAX_READS", 2):
            # The thread has taken the first by the time it asks for the file.
            waiting = [store.get("k") for _ in range(20)]
        self.assertEqual(self.successResultOf(waiting[-1]), ())
        self.disk.go.set()
        for each in waiting:
            self.clock.wait_for(each)

    def last_call(self, store: SQLiteStore) -> AbstractContextManager[mock.Mock]:
        """Watch the last call that the thread of a store makes."""
        return mock.patch.object(store, "_thread_ended", wraps=store._thread_ended)

    def test_close_in_vain(self) -> None:
        """Closing waits until its timeout; the thread ends when the disk responds."""
        store = SQLiteStore(self.clock, self.path, connect=self.disk.connect, close_timeout=2.0)
        store.put("k", make_entry())
        closed = store.close()
        self.clock.advance(1.9)
        self.assertNoResult(closed)
        self.clock.advance(0.2)
        self.successResultOf(closed)
        self.assertIn("were not written within 2 s", self.logged[0])
        with self.last_call(store) as ended:
            self.disk.go.set()
            while not ended.called:
                self.clock.handed.get(timeout=PATIENCE)()

    def test_closed(self) -> None:
        """After closing the thread has ended; later calls are ignored."""
        store = SQLiteStore(self.clock, self.path)
        waiting = store.get("k")
        store.put("k", make_entry())
        with self.last_call(store) as ended:
            self.clock.wait_for(store.close())
        self.assertEqual(len(self.successResultOf(waiting)), 1)
        ended.assert_called_once_with()
        store.put("late", make_entry())
        store.remove("k")
        self.assertEqual(self.successResultOf(store.get("k")), ())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.found(self.store(), "k"), [b""])

    def test_put_back(self) -> None:
        """Changes made while a write failed take precedence over it."""
        self.fill()
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        store = self.store()
        store.put("k", make_entry(1000, b"v"))
        flushed = store.flush()
        while not store.failures:
            self.found(store, "k")
        store.put("k", make_entry(2000, b"v"))
        store.put("k", make_entry(1000, b"w"))
        other.execute("ROLLBACK")
        self.clock.wait_for(flushed)
        self.flush(store)
        sizes = [entry.size for entry in self.clock.wait_for(store.get("k"))]
        self.assertEqual(sizes, [1000, 2000, 1000])
