"""UDP ports over sockets that are fakes, and what is needed to look at them."""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.addresses import Source
from twisted_net.udp.limits import MAX_PAYLOAD, DatagramLimits
from twisted_net.udp.port import CappedPort
from twisted_net.udp.responder import DatagramHandler
from twisted_net.udp.server import DatagramServer, listen_datagrams

HERE: Source = ("127.0.0.1", 50_000)
WALL = 0.0
# As linux/udp.h has them: SOL_UDP, UDP_SEGMENT.
UDP_SEGMENT = (17, 103)


class FakeSocket:
    """
    A datagram socket without a network, which cuts as Linux does, and refuses as the BSDs do too.

    :ivar incoming: what ``recvfrom`` gives, oldest first: a datagram and its source, or an error.
    :ivar outgoing: what ``sendto`` took.
    :ivar send_errors: the errno of each coming ``sendto`` that is to fail.
    :ivar reads: how often ``recvfrom`` was called.
    :ivar polls: how often its poller was asked.
    :ivar asked: the options that were set, each with its value.
    :ivar groups: those of IP, by level and number.
    :ivar error: the errno that waits to be told; 0 for none.
    :ivar drops: what the kernel tells of itself; None where it tells nothing.
    :ivar runs: how many datagrams each ``sendmsg`` was cut into.
    :param cuts: whether it cuts runs into datagrams, as Linux does.
    """

    def __init__(self, rmem_max: int = 8 << 20, taken: bool = False, cuts: bool = False) -> None:
        self.incoming: deque[tuple[bytes, tuple[Any, ...]] | OSError] = deque()  # v4 and v6 tuples
        self.outgoing: list[tuple[bytes, Source]] = []
        self.send_errors: deque[int] = deque()
        self.reads = 0
        self.polls = 0
        self.asked: dict[int, int] = {}
        self.groups: dict[tuple[int, int], int] = {}
        self.error = 0
        self.drops: int | None = None
        self.closed = False
        self.cuts = cuts
        self.runs: list[int] = []
        self._rmem_max = rmem_max
        self._taken = taken
        self._doubled_buffer = 2 * 212_992
        self._address: tuple[Any, ...] = ("127.0.0.1", 0)  # Any: as above
        self._peer: Source | None = None

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if level != socket.SOL_SOCKET:
            self.groups[level, option] = value
            return
        self.asked[option] = value
        if option == socket.SO_RCVBUF:
            self._doubled_buffer = 2 * min(value, self._rmem_max)

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        if (level, option) == UDP_SEGMENT and self.cuts:
            return 0
        if level != socket.SOL_SOCKET:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        if size:
            if self.drops is None:
                raise OSError(errno.ENOPROTOOPT, "Protocol not available")
            return struct.pack("9I", *[7] * 8, self.drops)
        if option == socket.SO_RCVBUF:
            return self._doubled_buffer
        if option == socket.SO_ERROR:
            return self.error
        return 2 * min(self.asked[option], self._rmem_max)

    def bind(self, address: tuple[Any, ...]) -> None:  # Any: v4 and v6
        if self._taken:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        host, port, *rest = address
        rest = rest or [0, 0] * (":" in host)
        self._address = (host, port or 40_000, *rest)

    def getsockname(self) -> tuple[Any, ...]:  # Any: as above
        return self._address

    def connect(self, address: Source) -> None:
        self._peer = address

    def getpeername(self) -> Source:
        assert self._peer is not None
        return self._peer

    def fileno(self) -> int:
        return -1 if self.closed else 77

    def close(self) -> None:
        self.closed = True

    def recvfrom(self, size: int) -> tuple[bytes, tuple[Any, ...]]:
        self.reads += 1
        if not self.incoming:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        item = self.incoming.popleft()
        if isinstance(item, OSError):
            raise item
        data, source = item
        return data[:size], source

    def sendto(self, data: bytes, address: Source) -> int:
        if self._peer is not None:
            raise OSError(errno.EISCONN, "Socket is already connected")
        return self._send(data, address)

    def send(self, data: bytes) -> int:
        assert self._peer is not None
        return self._send(data, self._peer)

    def sendmsg(
        self,
        buffers: list[bytes],
        ancillary: list[tuple[int, int, bytes]],
        flags: int,
        address: Source,
    ) -> int:
        ((level, option, size),) = ancillary
        assert (level, option, flags) == (*UDP_SEGMENT, 0)
        data = b"".join(buffers)
        (step,) = struct.unpack("=H", size)
        if self.send_errors:
            raise OSError(self.send_errors.popleft(), "as the test asked")
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        self.outgoing.extend((piece, address) for piece in pieces)
        self.runs.append(len(pieces))
        return len(data)

    def _send(self, data: bytes, address: Source) -> int:
        if self.send_errors:
            raise OSError(self.send_errors.popleft(), "as the test asked")
        if len(data) > MAX_PAYLOAD:
            raise OSError(errno.EMSGSIZE, "Message too long")
        self.outgoing.append((data, address))
        return len(data)


class FakePoller:
    """What ``select.poll`` makes, for one fake socket; it counts how often it was asked."""

    def __init__(self, fake: FakeSocket) -> None:
        self._fake = fake

    def register(self, fd: int, events: int) -> None:
        assert (fd, events) == (self._fake.fileno(), select.POLLIN)

    def poll(self, timeout: int) -> list[tuple[int, int]]:
        assert timeout == 0
        self._fake.polls += 1
        return [(self._fake.fileno(), select.POLLIN)] if self._fake.incoming else []


class Recorder(DatagramProtocol):
    """Keeps what it is given; raises what it is told to."""

    noisy = False

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Source]] = []
        self.refusals = 0
        self.error: BaseException | None = None

    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        self.datagrams.append((datagram, addr))
        if self.error is not None:
            raise self.error

    def connectionRefused(self) -> None:
        self.refusals += 1


def texts(events: Sequence[LogEvent], level: LogLevel) -> list[str]:
    """Return our own log messages at *level*; Twisted logs ports that open and close."""
    return [
        event["log_format"]
        for event in events
        if event["log_level"] is level and event["log_namespace"].startswith("twisted_net")
    ]


class PortTestCase(SynchronousTestCase):
    """Makes ports whose sockets are fakes."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def use_socket(self, fake: FakeSocket) -> FakeSocket:
        """Make the next sockets *fake*."""
        self.patch(socket, "socket", lambda family, kind: fake)
        if hasattr(select, "poll"):
            self.patch(select, "poll", lambda: FakePoller(fake))
        return fake

    def open_port(
        self,
        protocol: DatagramProtocol,
        interface: str = "127.0.0.1",
        *,
        cuts: bool = False,
        **options: Any,  # Any: as the port has them
    ) -> tuple[CappedPort, FakeSocket]:
        """Start a port on a fake socket."""
        fake = self.use_socket(FakeSocket(cuts=cuts))
        port = CappedPort(
            0,
            protocol,
            interface,
            4097,
            self.reactor,
            **options,
        )
        port.startListening()
        return port, fake

    def serve(
        self,
        handler: DatagramHandler | None = None,
        *,
        interface: str = "127.0.0.1",
        **limits: Any,  # Any: the record checks
    ) -> tuple[DatagramServer, CappedPort, FakeSocket]:
        """Start a server, as an embedder does, on a fake socket."""
        fake = self.use_socket(FakeSocket())
        server = DatagramServer(
            self.reactor,
            DatagramLimits(**limits),
            handler,
            lambda: WALL,
        )
        port = listen_datagrams(self.reactor, server, 0, interface)
        return server, port, fake

    def stop(self, port: CappedPort) -> None:
        """Stop *port*, and see that it says when it has."""
        stopped = port.stopListening()
        assert stopped is not None
        self.assertNoResult(stopped)
        self.reactor.advance(0)
        self.successResultOf(stopped)
