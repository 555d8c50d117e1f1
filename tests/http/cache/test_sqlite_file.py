"""Tests of :mod:`twisted_net.http.cache.sqlite_file`; more by way of the store."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.http.store_contract import make_entry
from twisted_net.http.cache import sqlite_file
from twisted_net.http.cache import stamps as stamps_module
from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.memory_tier import Snapshot
from twisted_net.http.cache.pending_changes import PendingChange, WriteBatch
from twisted_net.http.cache.sqlite_file import (
    SMALL_BODY,
    VACUUM_PAGES,
    CacheFile,
    FileUnavailable,
    OtherVersion,
    surplus_pages,
)
from twisted_net.http.cache.sqlite_schema import CorruptFile


class FileCase(SynchronousTestCase):
    """Files on one path, used in the test's thread."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = self.folder / "cache.sqlite"
        self.warned: list[str] = []
        self.replaced: list[None] = []
        self.patch(sqlite_file, "CHECK_AFTER", 0.0)
        self.patch(sqlite_file, "REOPEN_AFTER", 0.0)

    def opened(self, max_entries: int = 1000, max_bytes: int = 2**26, **options: Any) -> CacheFile:
        """Return a file with limits, closed when the test is over."""
        file = CacheFile(
            str(self.path),
            max_entries,
            max_bytes,
            64,
            warn=self.warned.append,
            replaced=lambda: self.replaced.append(None),
            **options,
        )
        self.addCleanup(file.close)
        return file

    def put(self, file: CacheFile, *urls: str, size: int = 1000, **changes: Any) -> Entry:
        """Write an entry under some URLs, and return it."""
        entry = make_entry(size, **changes)
        file.write(WriteBatch(changes={url: PendingChange(False, (entry,)) for url in urls}))
        return entry

    def current(self, snapshot: Snapshot) -> bool:
        """Return whether what was read is current."""
        return snapshot.stamps[snapshot.slot] <= snapshot.commit


class ReadTests(FileCase):
    """:meth:`CacheFile.read` returns entries of one state of the file."""

    def test_bodies(self) -> None:
        """Bodies of any size are whole, side by side, and in the order of their writing."""
        file = self.opened()
        sizes = [500, 500 + SMALL_BODY, 501 + SMALL_BODY, 500_000, 501]
        for size in sizes:
            self.put(file, "a", size=size, variant=b"%d" % size)
        self.assertEqual([entry.size for entry in file.read("a").entries], sizes)

    def test_none(self) -> None:
        """An unknown URL has no entries, and that is current until it has."""
        file = self.opened()
        found = file.read("a")
        self.assertEqual((found.entries, self.current(found.snapshot)), ((), True))
        self.put(file, "other")
        self.assertTrue(self.current(found.snapshot))
        self.put(file, "a")
        self.assertFalse(self.current(found.snapshot))

    def test_damage(self) -> None:
        """Values that cannot be there are damage: the file is renamed."""
        for number, statement in enumerate(
            (
                "UPDATE totals SET commits = -1",
                f"UPDATE totals SET commits = {2**62}",
                "UPDATE totals SET commits = 'x'",
                "DELETE FROM totals",
                "UPDATE entries SET body = 'text'",
                "UPDATE entries SET checksum = checksum + 1",
            )
        ):
            file = self.opened()
            self.put(file, "a")
            connection = sqlite3.connect(self.path)
            with connection:
                connection.execute(statement)
            connection.close()
            self.assertRaises((CorruptFile, FileUnavailable), file.read, "a")
            file.close()
            self.assertEqual(len(self.warned), number + 1, statement)
            for each in self.folder.iterdir():
                each.unlink()

    def test_other_version(self) -> None:
        """Another version is noticed by its number, and by tables that are not ours."""
        for statement in (
            "UPDATE totals SET version = 7",
            "ALTER TABLE totals DROP COLUMN commits",
            "DROP TABLE entries",
        ):
            file = self.opened()
            self.put(file, "a")
            connection = sqlite3.connect(self.path)
            connection.execute("PRAGMA user_version = 7")
            with connection:
                connection.execute(statement)
            connection.close()
            for _ in range(2):
                self.assertRaises((OtherVersion, FileUnavailable), file.read, "a")
            self.assertRaises(FileUnavailable, self.put, file, "b")
            file.close()
            self.path.unlink()
        self.assertEqual(self.warned, [])


class StampsTests(FileCase):
    """Each transaction stamps what it changes, before others can see it."""

    def test_changes(self) -> None:
        """What another has changed, removed or evicted is not current; the rest is."""
        one, two = self.opened(), self.opened(max_entries=3)
        self.put(two, "a", "b", "c")
        before = {url: one.read(url).snapshot for url in "abcd"}

        def stale() -> str:
            found = [url for url in "abcd" if not self.current(before[url])]
            before.update({url: one.read(url).snapshot for url in found})
            return "".join(found)

        self.assertEqual(stale(), "")
        self.put(two, "b")
        self.assertEqual(stale(), "b")
        two.write(WriteBatch(changes={"c": PendingChange(removed=True)}))
        self.assertEqual(stale(), "c")
        two.write(WriteBatch(used=["a"]))
        self.assertEqual(stale(), "")
        self.put(two, "c", "d")
        self.assertEqual(stale(), "bcd")
        two.write(WriteBatch(everything_removed=True))
        self.assertEqual(stale(), "abcd")
        self.assertEqual([one.read(url).entries for url in "abcd"], [()] * 4)

    def test_what_was_before(self) -> None:
        """A write returns the stamps before it, each from before its first; not of the evicted."""
        file = self.opened(max_entries=2)
        for module in (sqlite_file, stamps_module):
            self.patch(module, "slot", lambda url: 8 if url in "ab" else 9)
        self.put(file, "a", "c")
        before = file.read("a").snapshot.commit
        done = file.write(
            WriteBatch(changes={url: PendingChange(False, (make_entry(),)) for url in "abc"})
        )
        found = {url: (was, at.slot, at.commit) for url, (was, at) in done.changed.items()}
        self.assertEqual(found, {"b": (before, 8, before + 1), "c": (before, 9, before + 1)})
        self.assertEqual(file.write(WriteBatch(everything_removed=True)).changed, {})
        self.assertEqual(file.write(WriteBatch()).changed, {})

    def test_before_the_commit(self) -> None:
        """The stamp is there when the commit begins; it is never too late."""
        seen: list[bool] = []
        reader = self.opened()

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:  # Any: sqlite3's
                if sql == "COMMIT" and watched:
                    seen.append(watched[0].stamps[watched[0].slot] <= watched[0].commit)
                return super().execute(sql, *parameters)

        watched: list[Snapshot] = []
        writer = self.opened(connect=lambda *a, **k: sqlite3.connect(*a, factory=Connection, **k))
        self.put(writer, "a")
        watched.append(reader.read("a").snapshot)
        self.put(writer, "a")
        self.assertEqual(seen, [False])

    def test_killed_before_the_commit(self) -> None:
        """A stamp without its commit makes misses, until the next commit; no entry is wrong."""
        file = self.opened()
        entry = self.put(file, "a")

        class Killed(BaseException):
            """Stands for SIGKILL: nothing is written any more."""

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:  # Any: sqlite3's
                if sql == "COMMIT":
                    raise Killed
                return super().execute(sql, *parameters)

        def connect(*args: Any, **options: Any) -> sqlite3.Connection:  # Any: sqlite3's
            return sqlite3.connect(*args, factory=Connection, **options)

        killed = self.opened(connect=connect)
        self.assertRaises(Killed, self.put, killed, "a", size=2000)
        for _ in range(2):
            found = file.read("a")
            self.assertEqual((found.entries, self.current(found.snapshot)), ((entry,), False))
        self.put(file, "b")
        found = file.read("a")
        self.assertEqual((found.entries, self.current(found.snapshot)), ((entry,), True))

    def test_bad_files(self) -> None:
        """With a stamps file that cannot be used there is no cache; others are replaced."""
        stamps = self.path.with_name("cache.sqlite-stamps")
        file = self.opened()
        stamps.symlink_to(self.path)
        self.assertRaises(OSError, file.read, "a")
        stamps.unlink()
        stamps.mkdir()
        self.assertRaises(OSError, file.read, "a")
        stamps.rmdir()
        self.assertFalse(self.path.exists())
        stamps.write_bytes(b"truncated")
        self.put(file, "a")
        self.assertTrue(self.current(file.read("a").snapshot))
        self.assertEqual(self.warned, [])

    def test_missing(self) -> None:
        """One that is deleted while the file is open is noticed; its processes meet again."""
        one, two = self.opened(), self.opened()
        self.put(one, "a")
        two.read("a")
        self.path.with_name("cache.sqlite-stamps").unlink()
        found = two.read("a")
        self.assertEqual((len(found.entries), len(self.replaced)), (1, 1))
        self.put(one, "a")
        self.assertFalse(self.current(found.snapshot))
        self.assertEqual(len(self.warned), 2)


class ReplacedTests(FileCase):
    """A file that is deleted or replaced while it is open is noticed."""

    def integrity(self) -> object:
        """Return what SQLite says of the file."""
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        return connection.execute("PRAGMA integrity_check").fetchall()

    def test_deleted(self) -> None:
        """A file that was deleted is made anew, with or without the files beside it."""
        for beside in (True, False):
            one, two = self.opened(), self.opened()
            self.put(one, "a")
            self.assertEqual(len(two.read("a").entries), 1)
            self.warned.clear()
            self.replaced.clear()
            for each in self.folder.iterdir() if beside else [self.path]:
                each.unlink()
            for file in (one, two):
                for _ in range(2):
                    self.assertEqual(file.read("a").entries, ())
            self.assertEqual((len(self.warned), len(self.replaced)), (2, 2))
            self.assertIn("it was deleted or replaced", self.warned[0])
            self.put(one, "b")
            self.assertEqual(len(two.read("b").entries), 1)
            one.close()
            two.close()
            self.assertEqual(self.integrity(), [("ok",)])

    def test_written(self) -> None:
        """A write looks each time, and goes into the new file; a read looks now and then."""
        self.patch(sqlite_file, "CHECK_AFTER", 3600.0)
        file = self.opened()
        self.put(file, "a")
        self.path.unlink()
        self.assertEqual(len(file.read("a").entries), 1)
        self.put(file, "b")
        self.assertEqual(len(self.opened().read("b").entries), 1)

    def test_opened_before_it_is_noticed(self) -> None:
        """A process that opens a new file does not use what the deleted one has left."""
        one = self.opened()
        for number in range(20):
            self.put(one, f"{number}", size=20_000)
        self.path.unlink()
        self.assertTrue(self.path.with_name("cache.sqlite-wal").exists())
        two = self.opened()
        self.assertEqual(two.read("1").entries, ())
        self.put(two, "1")
        one.close()  # SQLite may remove the files beside it, but not those of the new one
        self.assertEqual(len(two.read("1").entries), 1)
        self.put(two, "2")
        two.close()
        self.assertEqual((self.integrity(), self.warned), ([("ok",)], []))

    def test_replaced(self) -> None:
        """A file that is put in its place is used, without the log of the old one."""
        other = self.folder / "other"
        one = self.opened()
        self.put(one, "new", size=30_000)
        one.close()
        self.path.rename(other)
        self.put(one, "old", size=30_000)
        os.replace(other, self.path)
        two = self.opened()
        for file in (two, one):
            self.assertEqual(len(file.read("new").entries), 1)
            self.assertEqual(file.read("old").entries, ())
        self.put(one, "more")
        self.assertEqual(len(two.read("more").entries), 1)
        one.close()
        two.close()
        self.assertEqual((self.integrity(), len(self.warned)), ([("ok",)], 1))

    def test_truncated_stamps(self) -> None:
        """A stamps file of another size is replaced, although it has its name."""
        file = self.opened()
        self.put(file, "a")
        stamps = self.path.with_name("cache.sqlite-stamps")
        with stamps.open("ab") as longer:
            longer.write(b"x")
        self.assertEqual(len(file.read("a").entries), 1)
        self.assertEqual((len(self.warned), len(self.replaced)), (1, 1))
        self.assertTrue(self.current(file.read("a").snapshot))

    def test_other_version(self) -> None:
        """Tables of another version are noticed, although nobody reads; once, and for good."""
        file = self.opened()
        self.put(file, "a")
        file.check()
        self.assertEqual(self.replaced, [])
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA user_version = 7")
        connection.close()
        for _ in range(2):
            file.check()
            self.assertEqual(len(self.replaced), 1)
        self.assertRaises(FileUnavailable, file.read, "a")

    def test_closed(self) -> None:
        """A file that is not open is not looked for."""
        file = self.opened()
        file.check()
        self.assertEqual((list(self.folder.iterdir()), self.replaced), ([], []))


class ShrinkTests(FileCase):
    """The file shrinks when its limits do."""

    def sizes(self, **limits: int) -> tuple[int, int, int]:
        """Fill a file with 6 MB, reopen it, and return its sizes, and the count of writes."""
        file = self.opened()
        for number in range(0, 120, 20):
            self.put(file, *(f"{each}" for each in range(number, number + 20)), size=50_000)
        file.close()
        before = self.path.stat().st_size
        file = self.opened(**limits)
        writes = 1
        while file.write(WriteBatch()).more:
            writes += 1
            found = file.read("119").entries
            self.assertEqual([entry.size for entry in found], [50_000])
        file.close()
        return before, self.path.stat().st_size, writes

    def test_limits(self) -> None:
        """Lower limits evict, then give pages back in pieces; reads go on between."""
        for limits in ({"max_bytes": 200_000}, {"max_entries": 3}):
            before, after, writes = self.sizes(**limits)
            self.assertGreater(before, 6_000_000)
            self.assertLess(after, 200_000 + (VACUUM_PAGES + 20) * 4096)
            self.assertGreater(writes, 5)
            self.path.unlink()

    def test_same_limits(self) -> None:
        """With the same limits nothing is given back."""
        before, after, writes = self.sizes()
        self.assertEqual((after, writes), (before, 1))

    def test_old_version(self) -> None:
        """The file of a version that gave nothing back is made one that does."""
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA application_id = 0x74774361")
        with connection:
            connection.execute("CREATE TABLE entries (body)")
            connection.execute("INSERT INTO entries VALUES (zeroblob(3000000))")
        connection.close()
        file = self.opened()
        self.assertEqual(file.read("a").entries, ())
        file.close()
        self.assertLess(self.path.stat().st_size, 100_000)
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("PRAGMA auto_vacuum").fetchone(), (2,))

    @given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
    def test_surplus(self, used: int, free: int, limit: int) -> None:
        """A steady file keeps its free pages; a large one with little in it does not."""
        surplus = surplus_pages(used + free, free, limit)
        self.assertTrue(0 <= surplus <= free)
        pages = used + free - surplus
        if surplus:
            self.assertGreater(used + free, VACUUM_PAGES)
        else:
            self.assertTrue(free <= max(used, VACUUM_PAGES))
        self.assertEqual(surplus_pages(pages, free - surplus, limit), 0)
