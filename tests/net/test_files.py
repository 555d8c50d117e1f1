"""A file is read and locked within limits, whatever it turns out to be."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.patience import PATIENCE
from twisted_net.net import files
from twisted_net.net.files import locked, read_file


class ReadFileTests(SynchronousTestCase):
    """:func:`read_file` returns what is in a file, or says in a few words why it does not."""

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = Path(holder.name, "file")

    def refusal(self, path: Path | str, limit: int = 100, patience: float = 0.0) -> str:
        """Return the words with which a file is refused."""
        error = self.assertRaises(OSError, read_file, str(path), limit, patience)
        assert isinstance(error.strerror, str)
        return error.strerror

    def test_sizes(self) -> None:
        """All of it is returned, up to the limit."""
        for size in (0, 1, 99, 100, 65_536, 200_000):
            content = os.urandom(size)
            self.path.write_bytes(content)
            self.assertEqual(read_file(str(self.path), max(size, 1)), content)
            self.assertEqual(read_file(str(self.path), 1 << 20, 1.0), content)
        self.assertEqual(self.refusal(self.path, 199_999), "it has more than 199,999 bytes")

    def test_grows(self) -> None:
        """The limit holds for what is read, and not for a size that is stated."""
        self.assertEqual(
            self.refusal("/dev/zero", 1 << 20, PATIENCE), "it has more than 1,048,576 bytes"
        )
        self.assertGreater(len(read_file("/proc/self/status", 1 << 20)), 0)

    def test_absent(self) -> None:
        """What cannot be opened is refused as the system does."""
        self.assertEqual(self.refusal(self.path), "No such file or directory")
        self.assertEqual(self.refusal(self.path.parent), "Is a directory")
        self.assertEqual(self.refusal(self.path.parent, patience=PATIENCE), "Is a directory")
        self.path.symlink_to(self.path)
        self.assertIn("symbolic links", self.refusal(self.path))
        self.path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path))
            self.assertIn("No such device", self.refusal(self.path))

    def test_not_regular(self) -> None:
        """A pipe or a device is refused at once, where nobody waits."""
        os.mkfifo(self.path)
        for path in (self.path, "/dev/zero", "/dev/null"):
            self.assertEqual(self.refusal(path), "it is not a regular file")

    def test_silent_pipe(self) -> None:
        """A pipe without a writer, or whose writer says nothing or does not end, is given up."""
        os.mkfifo(self.path)
        self.assertEqual(self.refusal(self.path, patience=0.01), "its end did not come in time")
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(self.path, os.O_WRONLY)
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        self.assertEqual(self.refusal(self.path, patience=0.01), "its end did not come in time")
        os.write(writer, b"part")
        self.assertEqual(self.refusal(self.path, patience=0.01), "its end did not come in time")

    def test_pipe(self) -> None:
        """Where somebody waits, a pipe is read to its end, as that of a shell's ``<(command)``."""
        os.mkfifo(self.path)
        content = os.urandom(300_000)
        writer = threading.Thread(target=self.path.write_bytes, args=(content,))
        writer.start()
        self.assertEqual(read_file(str(self.path), 1 << 20, PATIENCE), content)
        writer.join()
        self.assertEqual(read_file("/dev/null", 100, PATIENCE), b"")

    def test_descriptors(self) -> None:
        """None is left open, whatever happens."""
        os.mkfifo(self.path)
        before = os.listdir("/proc/self/fd")
        for path in (self.path, self.path.parent, "/dev/zero"):
            self.refusal(path)
            self.refusal(path, patience=0.01)
        read_file("/proc/self/status", 1 << 20)
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))


class LockedTests(SynchronousTestCase):
    """:func:`locked` excludes others of this user, and waits for nobody without a limit."""

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)
        self.path = self.folder / "x-lock"
        self.name = bytes(self.path)

    def refusal(self) -> str:
        """Return the words with which the lock is refused."""
        self.patch(files, "LOCK_TIMEOUT", 0.0)
        error = self.assertRaises(OSError, self.lock)
        assert isinstance(error.strerror, str)
        return error.strerror.removesuffix(f": {self.path}")

    def lock(self) -> None:
        """Lock it, and release it at once."""
        with locked(self.name):
            pass

    def test_excludes(self) -> None:
        """While one holds it others are refused; afterwards nothing is left, and it is free."""
        with locked(self.name):
            self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
            self.assertEqual(self.refusal(), "another process has the lock")
        self.assertEqual([*self.folder.iterdir()], [])
        self.lock()

    def test_waits(self) -> None:
        """One that comes while it is held gets it when it is free, and then its file is new."""
        waiting = threading.Event()
        self.patch(files, "LOCK_TIMEOUT", PATIENCE)
        self.patch(time, "sleep", lambda seconds: waiting.set())
        got: list[bool] = []

        def wait() -> None:
            with locked(self.name):
                got.append(self.path.exists())

        with locked(self.name):
            thread = threading.Thread(target=wait)
            thread.start()
            waiting.wait(PATIENCE)
            self.assertEqual(got, [])
        thread.join()
        self.assertEqual(got, [True])
        self.assertEqual([*self.folder.iterdir()], [])

    def test_file_that_was_removed(self) -> None:
        """A lock on a file that has lost its name is none."""
        real = fcntl.flock

        def lock_late(descriptor: int, how: int) -> None:
            self.path.unlink()
            real(descriptor, how)

        self.patch(fcntl, "flock", lock_late)
        self.assertEqual(self.refusal(), "another process has the lock")

    def test_failure_within(self) -> None:
        """It is released when what was to be done has failed, and if its file has gone."""

        def fail() -> None:
            with locked(self.name):
                self.path.unlink()
                raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, fail)
        self.lock()

    def test_file_that_cannot_be_removed(self) -> None:
        """The lock is released all the same, and no descriptor is left."""
        before = len(os.listdir("/proc/self/fd"))
        with self.assertRaises(OSError), locked(self.name):
            self.path.unlink()
            self.path.mkdir()  # not a file: unlink fails, for root too
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_left_behind(self) -> None:
        """The file of a process that was killed is no lock."""
        self.path.write_text("")
        self.lock()
        self.assertEqual([*self.folder.iterdir()], [])

    def test_of_others(self) -> None:
        """A link, a pipe, a folder or a file of another user is refused."""
        (self.folder / "other").write_text("")
        self.path.symlink_to(self.folder / "other")
        self.assertIn("symbolic links", self.refusal())
        self.path.unlink()
        os.mkfifo(self.path)
        self.assertEqual(self.refusal(), "the lock is not a file of this user")
        self.path.unlink()
        self.path.mkdir()
        self.assertEqual(self.refusal(), "Is a directory")
        self.path.rmdir()
        self.path.write_text("")
        self.patch(os, "geteuid", lambda: self.path.stat().st_uid + 1)
        self.assertEqual(self.refusal(), "the lock is not a file of this user")
        self.assertEqual(len([*self.folder.iterdir()]), 2)

    def test_lock_of_a_reader(self) -> None:
        """A lock on the folder, which any user may take, is not waited for."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.patch(files, "LOCK_TIMEOUT", 0.0)
        self.lock()
        self.assertEqual([*self.folder.iterdir()], [])
