"""A socket and a reactor in memory, under which real transports of Twisted's run."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.posixbase import _DisconnectSelectableMixin
from twisted.internet.task import Clock


class FakeSocket:
    """
    A connected socket whose kernel does what a test says.

    :ivar room: bytes that it takes before EWOULDBLOCK.
    :ivar error: an errno with which the next send fails, once, as SO_ERROR does.
    :ivar sent: all that it has taken.
    :ivar sends: how often it took something, or refused to.
    :ivar incoming: what recv gives, in order: bytes, ``b""`` for the end, or an errno.
    """

    def __init__(self) -> None:
        self.room = 1 << 30
        self.error = 0
        self.sent = b""
        self.sends = 0
        self.incoming: list[bytes | int] = []
        self.shut: list[int] = []
        self.closed = False
        self.reset = False
        self.broken = False

    def setblocking(self, flag: bool) -> None:
        """Sockets of transports never block."""

    def fileno(self) -> int:
        """Return a number, or -1 for a socket that is closed."""
        return -1 if self.closed else 7

    def recv(self, size: int) -> bytes:
        """Return the next of :attr:`incoming`."""
        item = self.incoming.pop(0) if self.incoming else errno.EWOULDBLOCK
        if isinstance(item, int):
            raise OSError(item, "told to")
        return item

    def send(self, data: Any) -> int:  # Any: bytes or a memoryview
        """Take what there is room for."""
        self.sends += 1
        if self.error:
            self.error, code = 0, self.error
            self.broken = code not in (errno.EWOULDBLOCK, errno.ENOBUFS)
            raise OSError(code, "told to")
        if self.broken:
            raise OSError(errno.EPIPE, "broken before")
        if not self.room and len(data):
            raise OSError(errno.EWOULDBLOCK, "no room")
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def shutdown(self, how: int) -> None:
        """Note the half, or the whole, that is ended."""
        self.shut.append(how)

    def setsockopt(self, *option: object) -> None:
        """SO_LINGER of no time is what abortConnection asks for."""
        self.reset = True

    def close(self) -> None:
        """Close it."""
        self.closed = True


class FakeReactor(Clock, _DisconnectSelectableMixin):
    """A reactor in which time, reading and writing come when a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()  # Any: descriptors
        self.writers: set[Any] = set()
        self.added = 0

    def addReader(self, reader: object) -> None:
        """Watch for bytes."""
        self.readers.add(reader)

    def addWriter(self, writer: object) -> None:
        """Watch for room."""
        self.added += 1
        self.writers.add(writer)

    def removeReader(self, reader: object) -> None:
        """Watch no more."""
        self.readers.discard(reader)

    def removeWriter(self, writer: object) -> None:
        """Watch no more."""
        self.writers.discard(writer)

    def turn(self, on_read: Any = lambda: None) -> None:  # Any: what a lambda returns
        """
        Run what is due, then let every descriptor that is watched read, then write.

        :param on_read: called between the two.
        """
        self.advance(0)
        for descriptor in [*self.readers]:
            if descriptor.socket.incoming:
                self._event(descriptor, descriptor.doRead, True)
        on_read()
        self._end_reading()
        for descriptor in [*self.writers]:
            if descriptor in self.writers:
                self._event(descriptor, descriptor.doWrite, False)

    def _end_reading(self) -> None:
        """All have read."""

    def _event(self, descriptor: Any, step: Any, reading: bool) -> None:  # Any: as above
        try:
            why = step()
        except Exception as error:
            why, reading = error, False
        if why:
            self._disconnectSelectable(descriptor, why, reading)


class FakeQuietReactor(FakeReactor):
    """The same, and it lets transports write at the end of a turn, as the quiet reactor does."""

    def __init__(self) -> None:
        super().__init__()
        self.pending_writes: list[Any] = []  # Any: transports

    def _end_reading(self) -> None:
        for descriptor in self.pending_writes:
            descriptor.write_pending()
        self.pending_writes.clear()
