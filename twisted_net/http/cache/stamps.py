"""
Stamps of a cache file: shared memory by which processes know that their entries are current.

Beside the cache file is a file of fixed size that all processes map. Its *slots*, each for many
URLs, hold the number of the last transaction that changed one of them. A transaction writes its
number there before it commits, while it holds SQLite's lock on the file, and the same number into
the file. A reader notes the number that the file had; as long as the slot's is not greater, what
it read is what the file has.

So nothing has to be written after the commit. A process that is killed between the two leaves a
number that no file has: its URLs are read from the file each time, until the next transaction,
whose number is as great.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import sys
import time
import zlib
from array import array
from collections.abc import Iterable
from typing import Final

SLOTS: Final = 16_384
"""Number of slots. A write makes each tier forget what shares its slot: 6 of 100,000 URLs."""

MAGIC: Final = 0x7477_5374_616D_7031
"""The first word of the file, "twStamp1" in the byte order of this machine."""

MAX_COMMIT: Final = 2**62
"""Numbers from here on are damage: counting would take longer than any machine lasts."""

_HEADER: Final = 8
_HIGHEST: Final = 1
_INODE: Final = 2
_SIZE: Final = 8 * (_HEADER + SLOTS)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PAUSE = 0.005


class StampFile:
    """
    The mapped file. It is created with mode 0600; one of another size or kind is replaced.

    Like SQLite's ``-shm`` it must not be truncated while it is mapped: the system kills a process
    that reads behind its end. It is therefore never written to in place, but replaced.

    :param path: its directory must exist.
    :param timeout: seconds to wait for other processes that are opening it.
    :ivar words: its 64-bit words; a slot is an index of it.
    :ivar identity: device and inode.
    :raises OSError: if it cannot be opened or mapped, is a symbolic link, or is not regular.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        end = time.monotonic() + timeout
        while True:
            self._descriptor = os.open(path, _FLAGS, 0o600)
            try:
                self._lock(end)
                found = os.fstat(self._descriptor)
                if self._is_usable(found):
                    # Of its own descriptor: it outlives this one.
                    words = mmap.mmap(self._descriptor, _SIZE)
                    break
            except ValueError as error:  # it was truncated meanwhile
                self.unlock()
                raise OSError(f"{path}: {error}") from error
            except BaseException:
                self.unlock()
                raise
            self.unlock()
        self.identity = (found.st_dev, found.st_ino)
        self.words = memoryview(words).cast("Q")
        self.words[0] = MAGIC

    def unlock(self) -> None:
        """
        Let other processes open the cache file; until then they wait.

        :class:`StampFile` is made with this lock: who holds it may create the cache file, and
        remove what an older one has left.
        """
        # Not by closing alone: the descriptor of the mapping holds the lock as well.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)

    def is_in_place(self) -> bool:
        """Return whether its path still leads to it, with its size."""
        try:
            named = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        return (named.st_dev, named.st_ino) == self.identity and named.st_size == _SIZE

    @property
    def inode(self) -> int:
        """The inode of the cache file that was opened last; 0: unknown."""
        return self.words[_INODE]

    @inode.setter
    def inode(self, inode: int) -> None:
        self.words[_INODE] = inode

    def next_commit(self, stored: int) -> int:
        """
        Return the number of a transaction, greater than all before it.

        :param stored: that of the last transaction, as the file has it. It may be less than those
            of the slots: after a crash, or where the file is another.
        """
        highest = self.words[_HIGHEST]
        commit = max(stored, highest if highest < MAX_COMMIT else 0) + 1
        self.words[_HIGHEST] = commit
        return commit

    def mark(self, urls: Iterable[str], commit: int) -> None:
        """Note that a transaction, which is to commit, changes the entries of these URLs."""
        for url in urls:
            self.words[slot(url)] = commit

    def mark_all(self, commit: int) -> None:
        """Note that a transaction, which is to commit, changes the entries of all URLs."""
        self.words[_HEADER:] = memoryview(array("Q", [commit]) * SLOTS)

    def _lock(self, end: float) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise OSError(f"another process keeps {self._path} locked") from None
                time.sleep(_PAUSE)
            else:
                return

    def _is_usable(self, found: os.stat_result) -> bool:
        """
        Return whether the open file can be mapped; an empty one is given its size.

        Any other is unlinked, and what has another name by now is left alone.
        """
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{self._path} is not a regular file")
        try:
            named = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if (named.st_dev, named.st_ino) != (found.st_dev, found.st_ino):
            return False
        if not found.st_size:
            # Not with holes: writing into one while the disk is full ends the process.
            if os.pwrite(self._descriptor, bytes(_SIZE), 0) != _SIZE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
            return True
        if found.st_size == _SIZE:
            magic = int.from_bytes(os.pread(self._descriptor, 8, 0), sys.byteorder)
            # 0: its process was killed before it wrote more.
            if magic in (0, MAGIC):
                return True
        os.unlink(self._path)
        return False


def slot(url: str) -> int:
    """Return the slot of a URL: an index of :attr:`StampFile.words`."""
    return _HEADER + zlib.crc32(url.encode()) % SLOTS
