"""UDP port: bounded reads per turn, a bounded send queue, batched answers, counted losses."""

# mypy: disallow-untyped-calls=False
# Few of the methods that the port derives from have types.

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import udp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime
from twisted.internet.protocol import AbstractDatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.addresses import Source, is_numeric
from twisted_net.net.log_limiter import limited_logger
from twisted_net.net.printable_failure import printable_failure
from twisted_net.net.steady_clock import stopwatch
from twisted_net.udp.gso import KernelAddress, QueuedAnswer, runs, send_segmented, supports_gso
from twisted_net.udp.responder import DatagramCounts
from twisted_net.udp.socket_spec import BoundSocket, SocketSpec
from twisted_net.udp.sockets import (
    adopt_socket,
    enable_reuse_port,
    kernel_drops,
    receive_own_groups,
    scoped_source,
    set_receive_buffer,
    set_send_buffer,
    socket_address,
)

QUEUED_COST = 256
"""Bytes that a queued datagram counts besides its payload: the size of the objects around it."""

DELIVERY_BUDGET = 0.001
"""
Seconds in a turn for the datagrams that were read; those that are left then have the next one.

A CoAP message that fetches a page takes 1 to 2 ms, and a DTLS handshake as much.
"""

MAX_BATCH = 32
"""
Small answers that are batched and sent together, at the end of a turn at the latest.

To alternate between answering and sending costs a tenth more, as Python's and the kernel's code
then evict each other from the processor's cache. A client on this machine is also woken by the
first answer, which took 19 of the 31 µs of a CoAP exchange when answers were sent one by one.
"""

MAX_BATCHED_ANSWER = 1232
"""
Bytes of the longest answer that is batched.

With headers it fits into IPv6's minimum MTU, 1280. The kernel may reject longer ones with
EMSGSIZE, which :meth:`CappedPort.write` raises, so these are sent within that call.
"""

TRANSIENT_READ_ERRORS = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.ENETDOWN,
        errno.EMSGSIZE,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.ENOBUFS,
        errno.ENOMEM,
    }
)
"""
Transient errors of a read: an ICMP message to an earlier answer, or a kernel that is short of
memory. The stock port is closed by all but the first.
"""


@check_arguments
class CappedPort(udp.Port):
    """
    A UDP port that reads a bounded number of datagrams per turn and survives transient errors.

    The stock port reads 256 KiB of payload before other connections are served, truncates long
    datagrams silently, and raises what ``sendto`` raises. This port

    - reads at most *datagrams_per_turn* and then passes them to its protocol, until
      :data:`DELIVERY_BUDGET` is over; the rest follows in the next turns, unless the port is
      stopped before;
    - reads up to ``maxPacketSize`` bytes, so that a protocol with a lower limit detects a datagram
      over it;
    - queues datagrams that the kernel does not accept now, in order, up to *send_queue* bytes.
      What has no room, what the kernel rejects, and what is left at the end is counted as dropped.
      Only an answer too long for any datagram is raised, as
      :class:`~twisted.internet.error.MessageLengthError`;
    - supports scopes of link-local IPv6 addresses (``fe80::1%2``): in its own interface, in
      sources and in destinations;
    - does not validate the destination of an answer to the current datagram, as it came from the
      socket;
    - batches small answers until the end of the turn or :data:`MAX_BATCH` of them, and sends those
      of one size to one client in one call where the kernel supports it. All datagrams leave in
      the order of the writes;
    - counts what the kernel dropped, through *counts*.

    :param receive_buffer: requested of the kernel, in bytes; if it grants less, a warning is
        logged.
    :param counts: where drops and read errors are counted.
    :param send_buffer: like *receive_buffer*; None leaves the kernel's default.
    :param send_queue: bytes; each datagram counts its payload and :data:`QUEUED_COST`.
    :param reuse_port: whether other processes may bind the same port (``SO_REUSEPORT``).
    :param opened: a socket to use instead of opening one; *port* and *interface* are then ignored.
    :ivar receive_buffer: what the kernel granted, in bytes; 0 before the start.
    """

    _log = Logger()

    def __init__(
        self,
        port: int,
        proto: AbstractDatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,
        reactor: IReactorFDSet | None = None,
        *,
        datagrams_per_turn: int = 64,
        receive_buffer: int = 4 << 20,
        counts: DatagramCounts | None = None,
        send_buffer: int | None = None,
        send_queue: int = 262_144,
        reuse_port: bool = False,
        opened: socket.socket | None = None,
    ) -> None:
        if opened is not None:
            interface, port = opened.getsockname()[:2]
        udp.Port.__init__(self, port, proto, interface, maxPacketSize, reactor)
        self.receive_buffer = 0
        self.counts = DatagramCounts() if counts is None else counts
        self._stranger_log = limited_logger(self)
        self._opened = opened
        self._server: Source | None = None
        self._datagrams_per_turn = datagrams_per_turn
        self._clock = cast(IReactorTime, self.reactor)  # Twisted's annotation lacks it
        self._seconds: Callable[[], float] = stopwatch(self._clock)
        # Whether the last turn had at most one datagram, and what tells whether others wait.
        self._alone = False
        self._readable: Callable[[int], object] | None = None
        # What was read and not passed on yet, and the delayed call that does.
        self._left: deque[tuple[bytes, Any]] = deque()  # Any: as a KernelAddress
        self._going_on: IDelayedCall | None = None
        self._requested_buffers = (receive_buffer, send_buffer)
        self._reuse_port = reuse_port
        self._send_queue = send_queue
        self._queue: deque[tuple[bytes, Source | None]] = deque()
        self._queued = 0
        # The source of the datagram that the protocol is handling, as it and the kernel write it.
        self._source: Source | None = None
        self._peer: KernelAddress = ("", 0)
        # The batch of this turn.
        self._answers: list[QueuedAnswer] = []
        self._gso = False
        self._drops_before = 0
        # The calls of stopListening() that wait for the end, and the delayed call that brings it.
        self._stopping: list[Deferred[None]] = []
        self._closing: IDelayedCall | None = None

    @override
    def startListening(self) -> None:
        # The stock port would drop a scope when it binds, and leave a socket that it could not
        # bind to the garbage collector.
        opened, self._opened = self._opened, None
        if opened is None:
            opened = self._bound_socket()
        else:
            self._set_options(opened)
        self._drops_before = kernel_drops(opened)
        self._gso = supports_gso(opened)
        # What the stock port does besides is kept in private attributes, which are not used here.
        self.socket = opened
        # An attribute, as the reactor asks for it at each event.
        self.fileno = opened.fileno  # type: ignore[method-assign]  # as the stock port does
        if hasattr(select, "poll"):
            poller = select.poll()
            poller.register(opened.fileno(), select.POLLIN)
            self._readable = poller.poll
        self.connected = True
        self.protocol.makeConnection(self)
        self.startReading()
        self.counts.add_meter(self._kernel_drops)

    def _bound_socket(self) -> socket.socket:
        created = None
        try:
            created = self.createInternetSocket()
            if self._reuse_port:
                enable_reuse_port(created)
            created.bind(socket_address((self.interface, self.port)))
        except OSError as error:
            if created is not None:
                created.close()
            raise CannotListenError(self.interface, self.port, error) from error
        return created

    @override
    def createInternetSocket(self) -> socket.socket:
        created = super().createInternetSocket()
        # Before it is bound, so that they are there for the first burst.
        self._set_options(created)
        return created

    def _set_options(self, sock: socket.socket) -> None:
        receive_own_groups(sock)
        asked, send_asked = self._requested_buffers
        self.receive_buffer = set_receive_buffer(sock, asked)
        if self.receive_buffer < asked:
            self._log.warn(
                "the kernel granted a receive buffer of {granted} bytes, not {asked}:"
                " bursts will lose more datagrams. Raise net.core.rmem_max, or request less.",
                granted=self.receive_buffer,
                asked=asked,
            )
        if send_asked is not None and (granted := set_send_buffer(sock, send_asked)) < send_asked:
            self._log.warn(
                "the kernel granted a send buffer of {granted} bytes, not {asked}."
                " Raise net.core.wmem_max, or request less.",
                granted=granted,
                asked=send_asked,
            )

    @override
    def getHost(self) -> IPv4Address | IPv6Address:
        name = self.socket.getsockname()
        if len(name) == 4:
            return IPv6Address("UDP", *scoped_source(name))
        host: IPv4Address | IPv6Address = udp.Port.getHost(self)
        return host

    @override
    def connect(self, host: str, port: int) -> None:
        if self._server is not None:
            raise RuntimeError("already connected")
        if not is_numeric(host):
            raise InvalidAddressError(host, "not an IP address")
        self.socket.connect(socket_address((host, port)))
        self._server = (host, port)

    @override
    def stopListening(self) -> Deferred[None] | None:
        if not self.connected:
            return None
        if self._queue:
            self.doWrite()
        self.stopReading()
        if not self._stopping:
            # Not now, as Twisted's: the protocol may have called this from datagramReceived.
            self._closing = self._clock.callLater(0, self.connectionLost)
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        return stopped

    @override
    def connectionLost(self, reason: Failure | None = None) -> None:
        if reason is not None and self._survives_error():
            return
        closing, self._closing = self._closing, None
        if closing is not None and closing.active():
            # The reactor closes the socket for an error, before its turn.
            closing.cancel()
        going_on, self._going_on = self._going_on, None
        if going_on is not None:
            going_on.cancel()
        self.counts.dropped += len(self._queue) + len(self._answers) + len(self._left)
        self._left.clear()
        self._queue.clear()
        self._answers.clear()
        self._queued = 0
        self.counts.end_meter(self._kernel_drops)
        self._server = None
        FileDescriptor.connectionLost(self, reason)
        self.protocol.doStop()
        self.socket.close()
        del self.socket, self.fileno
        stopping, self._stopping = self._stopping, []
        for stopped in stopping:
            stopped.callback(None)

    @override
    def __repr__(self) -> str:
        state = f"on {self.getHost()}" if self.connected else "not listening"
        return f"<{type(self).__name__} of {self.protocol!r}, {state}>"

    def _survives_error(self) -> bool:
        """
        Whether the reactor closes the socket for a transient error, which is then handled here.

        The epoll reactor does so after an ICMP "port unreachable" for a connected socket without
        datagrams to read.
        """
        if self._server is None:
            return False
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number not in TRANSIENT_READ_ERRORS:
            return False
        # The reactor has removed both.
        if not self._stopping:
            self.startReading()
        if self._queue:
            self.startWriting()
        self._read_failed(OSError(number, os.strerror(number)))
        return True

    def _kernel_drops(self) -> int:
        return (kernel_drops(self.socket) - self._drops_before) & 0xFFFFFFFF

    @override
    def doRead(self) -> None:
        if self._left:
            return  # they have a turn of their own, and what comes now comes after them
        left = self._datagrams_per_turn
        if self._alone:
            if not self._answer_alone():
                return
            left -= 1
        receive = self.socket.recvfrom
        size = self.maxPacketSize
        # First all are read, then all are answered: to alternate costs a third more in the kernel
        # (docs/architecture.rst).
        batch = []
        failed = None
        try:
            for _ in range(left):
                batch.append(receive(size))  # noqa: PERF401  # kept if a later read fails
        except BlockingIOError:
            pass
        except OSError as failure:
            failed = failure
        self._alone = len(batch) + self._alone <= 1
        if batch:
            self._deliver(batch)
        if failed is not None:
            self._read_failed(failed)

    def _answer_alone(self) -> bool:
        """
        Answer one datagram before the socket is read on; return whether it is to be.

        A read that fails makes an exception and takes as long as Python's part of an answer, which
        a lone datagram would wait for. Where the platform has poll(), that tells in a fifth of the
        time whether another datagram waits.
        """
        try:
            data, peer = self.socket.recvfrom(self.maxPacketSize)
        except BlockingIOError:
            return False
        except OSError as failure:
            self._read_failed(failure)
            return False
        until = self._seconds() + DELIVERY_BUDGET
        self._source = source = scoped_source(peer) if len(peer) == 4 else peer
        self._peer = peer
        try:
            self.protocol.datagramReceived(data, source)
        except BaseException:
            self._log_failure()
        self._source = None
        if self._answers:
            self._send_answers()
        # A slow one has used up the turn; those behind it stay in the kernel, for the next one.
        if self._stopping or self._seconds() >= until:
            return False
        return self._readable is None or bool(self._readable(0))

    def _go_on(self) -> None:
        """Pass on what an earlier turn had no time for."""
        self._going_on = None
        if self._stopping:
            return  # the end of the port counts what is left as dropped
        left = list(self._left)
        self._left.clear()
        self._deliver(left)

    def _deliver(self, batch: list[tuple[bytes, Any]]) -> None:  # Any: as a KernelAddress
        """Pass datagrams to the protocol while there is time, and batch its small answers."""
        received = self.protocol.datagramReceived
        six = self.addressFamily == socket.AF_INET6
        until = self._seconds() + DELIVERY_BUDGET
        passed = 0
        for data, peer in batch:
            source = scoped_source(peer) if six else peer
            self._source, self._peer = source, peer
            try:
                received(data, source)
            except BaseException:
                self._log_failure()
            passed += 1
            # A client that has stopped one port takes no late answer for that of its next one.
            if self._stopping or self._seconds() >= until:
                break
        self._source = None
        if passed < len(batch):
            self._left.extend(batch[passed:])
            if not self._stopping:
                self._going_on = self._clock.callLater(0, self._go_on)
        self._send_answers()

    def _log_failure(self) -> None:
        """Log a bug of the protocol; raised further, it would make the reactor close the port."""
        self._stranger_log.failure(
            "{protocol} failed on a datagram",
            printable_failure(Failure()),
            protocol=self.protocol,
        )

    @override
    def write(self, datagram: bytes, addr: Source | None = None) -> None:
        source, peer = self._source, None
        if (
            source is not None
            # Nearly always the same object, and identity is the cheaper test.
            and (addr is source or addr == source)
            and self._server is None
        ):
            peer = self._peer
            if (
                len(datagram) <= MAX_BATCHED_ANSWER
                # A mutable buffer may change before the batch is sent.
                and type(datagram) is bytes
                # Queued datagrams were written earlier.
                and not self._queue
            ):
                self._answers.append((datagram, source, peer))
                if len(self._answers) >= MAX_BATCH:
                    self._send_answers()
                return
        # Batched answers were written earlier too.
        self._send_answers()
        try:
            if self._queue:
                self._enqueue(datagram, addr)
            elif peer is not None:
                self.socket.sendto(datagram, peer)
            else:
                self._send(datagram, addr)
        except BlockingIOError:
            self._enqueue(datagram, addr)
        except OSError as failure:
            if failure.errno == errno.EMSGSIZE:
                raise MessageLengthError("message too long") from failure
            self.counts.dropped += 1

    def _send_answers(self) -> None:
        """Send the batch."""
        if not self._answers:
            return
        answers, self._answers = self._answers, []
        if self._gso and len(answers) > 1:
            done = 0
            for start, end in runs(answers):
                self._send_each(answers[done:start])
                run = answers[start:end]
                if self._queue or not send_segmented(self.socket, run):
                    self._send_each(run)
                done = end
            answers = answers[done:]
        self._send_each(answers)

    def _send_each(self, answers: list[QueuedAnswer]) -> None:
        """Send answers one by one; those that the kernel does not accept now are queued."""
        send = self.socket.sendto
        for datagram, source, peer in answers:
            try:
                if self._queue:
                    self._enqueue(datagram, source)
                else:
                    send(datagram, peer)
            except BlockingIOError:
                self._enqueue(datagram, source)
            except OSError:
                self.counts.dropped += 1

    @override
    def doWrite(self) -> None:
        queue = self._queue
        while queue:
            datagram, addr = queue[0]
            try:
                self._send(datagram, addr)
            except BlockingIOError:
                return
            except (OSError, MessageLengthError, InvalidAddressError):
                self.counts.dropped += 1
            queue.popleft()
            self._queued -= len(datagram) + QUEUED_COST
        self.stopWriting()

    def _enqueue(self, datagram: bytes, addr: Source | None) -> None:
        cost = len(datagram) + QUEUED_COST
        if self._queued + cost > self._send_queue:
            self.counts.dropped += 1
            return
        if not self._queue:
            self.startWriting()
        self._queue.append((bytes(datagram), addr))
        self._queued += cost

    def _send(self, datagram: bytes, addr: Source | None) -> None:
        if self._server is not None:
            self._send_connected(datagram, addr)
        elif addr is not None and "%" in addr[0]:
            self.socket.sendto(datagram, socket_address(addr))
        else:
            udp.Port.write(self, datagram, addr)

    def _send_connected(self, datagram: bytes, addr: Source | None) -> None:
        if addr is not None and addr != self._server:
            raise InvalidAddressError(addr[0], "not the address to which this port is connected")
        try:
            self.socket.send(datagram)
        except ConnectionRefusedError:
            self.protocol.connectionRefused()

    def _read_failed(self, failure: OSError) -> None:
        if failure.errno not in TRANSIENT_READ_ERRORS:
            raise failure
        self.counts.read_errors += 1
        if failure.errno == errno.ECONNREFUSED and self._server is not None:
            self.protocol.connectionRefused()


def open_port(
    spec: SocketSpec,
    protocol: AbstractDatagramProtocol,
    max_datagram: int,
    reactor: IReactorFDSet,
    *,
    datagrams_per_turn: int,
    receive_buffer: int,
    send_buffer: int | None,
    send_queue: int,
    counts: DatagramCounts,
) -> CappedPort:
    """
    Start a :class:`CappedPort` on the socket of *spec*, whose buffers override the arguments.

    :param max_datagram: the protocol's limit; one byte more is read to detect longer datagrams.
    :raises CannotListenError: if the socket cannot be opened or adopted.
    """
    origin = spec.origin
    bound = origin if isinstance(origin, BoundSocket) else BoundSocket(0)
    opened = None if isinstance(origin, BoundSocket) else adopt_socket(origin)
    port = CappedPort(
        bound.port,
        protocol,
        bound.interface,
        max_datagram + 1,
        reactor,
        datagrams_per_turn=datagrams_per_turn,
        receive_buffer=spec.receive_buffer or receive_buffer,
        counts=counts,
        send_buffer=spec.send_buffer or send_buffer,
        send_queue=send_queue,
        reuse_port=bound.reuse_port,
        opened=opened,
    )
    port.startListening()
    return port
