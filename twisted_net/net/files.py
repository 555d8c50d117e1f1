"""Files: read and locked within limits of size and time, whatever they turn out to be."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import time
from collections.abc import Iterator

PIPE_PATIENCE = 10.0
"""
Seconds in which a pipe, such as a shell's ``<(command)``, has to bring all of its content where a
service starts; commands such as ``sops`` ask other machines.
"""

LOCK_TIMEOUT = 2.0
"""Seconds to wait for a lock; those who share one hold it for a millisecond."""

_LOCK_INTERVAL = 0.01
_PIECE = 1 << 16


def read_file(path: str, limit: int, patience: float = 0.0) -> bytes:
    """
    Return the content of a file.

    To open a pipe (FIFO) in the usual way waits for a writer without a limit, and to read from
    ``/dev/zero`` never ends: a service that is given one by mistake would hang in silence.

    :param limit: of its size, in bytes.
    :param patience: seconds to wait for the end of what is not a regular file, such as a pipe, a
        terminal or a device; 0 to refuse it.
    :raises OSError: if it cannot be read; its ``strerror`` says why, in all these cases, too.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        kind = os.fstat(descriptor).st_mode
        # A directory is not refused here: to read it fails with the words that all know.
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
            return _read(descriptor, path, limit, None)
        if not patience:
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        return _read(descriptor, path, limit, time.monotonic() + patience)
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: str, limit: int, deadline: float | None) -> bytes:
    """Read to the end, but not beyond the limit; wait for each piece if there is a deadline."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    pieces: list[bytes] = []
    size = 0
    while size <= limit:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise OSError(errno.ETIMEDOUT, "its end did not come in time", path)
        try:
            piece = os.read(descriptor, min(_PIECE, limit + 1 - size))
        except BlockingIOError:
            continue
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
    raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", path)


def is_readable_by_all(path: str) -> bool:
    """Whether a file's mode lets every user of this machine read it; not if there is no file."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False


@contextlib.contextmanager
def locked(name: bytes) -> Iterator[None]:
    """
    Exclude all others who lock the file of this name, which is removed at the end.

    Only processes of one user can share such a lock: others may not open the file, and one of
    theirs is refused. A lock on a file or folder that others may read they could hold for ever.

    :raises OSError: if it is not free in :data:`LOCK_TIMEOUT`, or the file cannot be used; its
        ``strerror`` says why, with the name.
    """
    shown = os.fsdecode(name)
    deadline = time.monotonic() + LOCK_TIMEOUT
    try:
        while (descriptor := _lock(name)) is None:
            if time.monotonic() >= deadline:
                raise OSError(errno.EAGAIN, "another process has the lock")
            time.sleep(_LOCK_INTERVAL)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {shown}", shown) from None
    try:
        yield
    finally:
        try:
            # While it is locked: whoever has opened it meanwhile sees that, and opens another.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        finally:
            os.close(descriptor)


def _lock(name: bytes) -> int | None:
    """Return the descriptor of the file, locked; None if another has the lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600)
    try:
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode) or opened.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "the lock is not a file of this user")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(opened, os.lstat(name)):
            descriptor, kept = -1, descriptor
            return kept
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return None
