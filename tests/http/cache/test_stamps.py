"""Tests of :mod:`twisted_net.http.cache.stamps`, with real files."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.stamps import MAX_COMMIT, SLOTS, StampFile, slot


class StampFileTests(SynchronousTestCase):
    """:class:`StampFile` is shared memory of a fixed size."""

    def setUp(self) -> None:
        self.path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "stamps"

    def opened(self) -> StampFile:
        """Open the file, and let others open it."""
        stamps = StampFile(str(self.path), 0.05)
        stamps.unlock()
        return stamps

    def test_shared(self) -> None:
        """What one writes the other sees, at once and in the same slots."""
        one, two = self.opened(), self.opened()
        self.assertEqual(one.identity, two.identity)
        one.mark(["a", "b"], 7)
        one.inode = 99
        self.assertEqual([two.words[slot(url)] for url in "abc"], [7, 7, 0])
        self.assertEqual(two.inode, 99)
        two.mark_all(9)
        self.assertEqual({one.words[slot(f"{n}")] for n in range(1000)}, {9})
        self.assertEqual((one.inode, self.opened().identity), (99, one.identity))

    def test_slots(self) -> None:
        """Every slot is one of the file, and they are all in use."""
        stamps = self.opened()
        found = {slot(f"http://localhost/{n}") for n in range(20 * SLOTS)}
        self.assertEqual((len(found), max(found)), (SLOTS, len(stamps.words) - 1))

    def test_numbers(self) -> None:
        """Each transaction has a greater number than all before, in whichever file."""
        one, two = self.opened(), self.opened()
        self.assertEqual([one.next_commit(0), two.next_commit(1), one.next_commit(1)], [1, 2, 3])
        self.assertEqual(two.next_commit(50), 51)
        self.assertEqual(one.next_commit(0), 52)

    def test_damaged_number(self) -> None:
        """A number that cannot be is not counted on from."""
        stamps = self.opened()
        stamps.next_commit(MAX_COMMIT - 1)
        self.assertEqual(stamps.next_commit(3), 4)

    def test_mode(self) -> None:
        """No other user may write it."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.opened()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_other_contents(self) -> None:
        """One of another size or kind is replaced, not written to: others may have mapped it."""
        size = 8 * len(self.opened().words)
        whole = self.path.read_bytes()
        for contents in (b"x", whole[:-1], whole + b"x", b"\1" + whole[1:], bytes(4096)):
            self.path.write_bytes(contents)
            with self.path.open("rb") as before:
                stamps = self.opened()
                self.assertEqual(before.read(), contents)
                self.assertNotEqual(os.fstat(before.fileno()).st_ino, stamps.identity[1])
            self.assertEqual(self.path.stat().st_size, size)
            stamps.mark(["a"], 7)
            self.assertEqual(self.opened().words[slot("a")], 7)

    def test_unfinished(self) -> None:
        """An empty one, or one that was not begun, is of a process that was killed: it is used."""
        size = 8 * len(self.opened().words)
        for contents in (b"", bytes(size)):
            self.path.write_bytes(contents)
            inode = self.path.stat().st_ino
            stamps = self.opened()
            self.assertEqual((stamps.identity[1], len(stamps.words) * 8), (inode, size))

    def test_symbolic_link(self) -> None:
        """A symbolic link is not followed, also where it leads to nothing."""
        self.opened()
        target = self.path.rename(self.path.with_name("target"))
        for to in (target, self.path.with_name("missing")):
            self.path.unlink(missing_ok=True)
            self.path.symlink_to(to)
            self.assertRaises(OSError, self.opened)
        self.assertFalse(to.exists())

    def test_no_file(self) -> None:
        """What is not a file is left alone."""
        self.path.mkdir()
        self.assertRaises(OSError, self.opened)
        self.path.rmdir()
        os.mkfifo(self.path)
        error = self.assertRaises(OSError, self.opened)
        self.assertIn("is not a regular file", str(error))
        self.assertTrue(self.path.is_fifo())

    def test_locked(self) -> None:
        """While another process opens it, it is waited for, but not for ever."""
        first = StampFile(str(self.path), 0.05)
        error = self.assertRaises(OSError, self.opened)
        self.assertIn("another process keeps", str(error))
        first.unlock()
        self.opened()

    def test_replaced_meanwhile(self) -> None:
        """One that is replaced while its lock is waited for is not used."""
        self.opened()
        real = fcntl.flock
        replaced: list[int] = []

        def lock(descriptor: int, how: int) -> None:
            if how & fcntl.LOCK_EX and not replaced:
                replaced.append(self.path.stat().st_ino)
                self.path.rename(self.path.with_name("old"))
            real(descriptor, how)

        self.patch(fcntl, "flock", lock)
        stamps = self.opened()
        self.assertNotEqual([stamps.identity[1]], replaced)
        self.assertEqual(stamps.identity[1], self.path.stat().st_ino)
