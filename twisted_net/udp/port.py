"""A UDP port that is fair to others, keeps what cannot be sent at once, and counts what is lost."""

# mypy: disallow-untyped-calls=False
# Few of the methods that the port derives from have types.

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from typing import Any

from twisted.internet import udp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.protocol import AbstractDatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.net.addresses import Source
from twisted_net.udp.gso import Answer, Peer, can_cut, runs, send_run
from twisted_net.udp.responder import DatagramCounts
from twisted_net.udp.socket_spec import Bound, Place
from twisted_net.udp.sockets import (
    ask_receive_buffer,
    ask_send_buffer,
    kernel_drops,
    scoped_source,
    share_port,
    socket_address,
    take_over,
)

QUEUED_COST = 256
"""Bytes that a datagram in the send queue counts beside its own: those of the objects it is in."""

ANSWERS_AT_ONCE = 32
"""
Small answers that are sent together, in a row, at the end of a turn at the latest.

To answer and to send by turns takes a tenth more, as the ways of Python and of the kernel then
drive each other from the processor's cache; and who waits for answers on this machine is woken by
the first of them, which took 19 of the 31 µs of a CoAP exchange where they left one by one.
"""

LONGEST_SMALL = 1232
"""
Bytes of an answer that waits for others.

They fit into the smallest packet of IPv6, 1280, with its headers. Of longer ones the kernel may say
that they do not fit, and :meth:`CappedPort.write` raises that, so they are sent within it.
"""

# What a read may fail with while the socket is sound: an ICMP message to an earlier answer, or a
# kernel short of memory. The stock port dies of all but the first.
_PASSING_READ_ERRORS = frozenset(
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


class CappedPort(udp.Port):
    """
    A UDP port that reads a bounded number of datagrams a turn, and outlives what errors pass.

    The stock port reads 256 KiB of payload before anything else has its turn, cuts long datagrams
    in silence, and raises what ``sendto`` raises. This one

    - reads at most *datagrams_per_turn* before its protocol has them one by one; the rest is read
      in the next turn;
    - reads up to ``maxPacketSize`` bytes, so that a protocol whose limit is lower sees that a
      datagram was over it;
    - keeps what the kernel takes only later, in order, up to *send_queue* bytes; what has no room,
      what the kernel refuses, and what is left at the end is counted as dropped, as the
      network would drop it. Only an answer too long for any datagram is raised, as
      :class:`~twisted.internet.error.MessageLengthError`;
    - knows the scope of link-local IPv6 addresses (``fe80::1%2``): of its own interface, of
      sources, of those it sends to;
    - does not check the address of an answer to the datagram that its protocol has: it came from
      the socket;
    - sends small answers in a row, at the end of a turn or after :data:`ANSWERS_AT_ONCE`, and
      those of one size to one client in one call where the kernel cuts that; what is written
      besides leaves after those that were written before it;
    - tells what the kernel dropped, through *counts*.

    :param receive_buffer: asked of the kernel, in bytes; a warning is logged where it gives less.
    :param counts: where drops and read errors are counted.
    :param send_buffer: as *receive_buffer*; None leaves it as the kernel has it.
    :param send_queue: bytes, of which each datagram takes its own and :data:`QUEUED_COST`.
    :param reuse_port: whether other processes may bind the same port (``SO_REUSEPORT``).
    :param opened: a socket to take in place of one of our own; *port* and *interface* then are
        its, whatever is given.
    :ivar receive_buffer: what the kernel gave, in the same bytes; 0 before the start.
    """

    _log = Logger()
    _preexistingSocket: Any  # a socket; Twisted's annotations have None alone

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
        self._opened = opened
        self._datagrams_per_turn = datagrams_per_turn
        self._asked_buffers = (receive_buffer, send_buffer)
        self._reuse_port = reuse_port
        self._send_queue = send_queue
        self._queue: deque[tuple[bytes, Source | None]] = deque()
        self._queued = 0
        # The source of the datagram that its protocol has now, and the same as the kernel has it.
        self._source: Source | None = None
        self._peer: Peer = ("", 0)
        # Those that wait for the end of the turn, each with both.
        self._answers: list[Answer] = []
        self._kernel_cuts = False
        self._drops_before = 0

    @override
    def startListening(self) -> None:
        # The stock port would forget a scope as it binds, and leave a socket that it could not
        # bind to the garbage collector.
        opened, self._opened = self._opened, None
        if opened is None:
            opened = self._bound_socket()
        else:
            self._ask_buffers(opened)
        self._drops_before = kernel_drops(opened)
        self._kernel_cuts = can_cut(opened)
        self._preexistingSocket = opened
        udp.Port.startListening(self)
        self.counts.add_meter(self._kernel_drops)

    def _bound_socket(self) -> socket.socket:
        created = None
        try:
            created = self.createInternetSocket()
            if self._reuse_port:
                share_port(created)
            created.bind(socket_address((self.interface, self.port)))
        except OSError as error:
            if created is not None:
                created.close()
            raise CannotListenError(self.interface, self.port, error) from error
        return created

    @override
    def createInternetSocket(self) -> socket.socket:
        created = super().createInternetSocket()
        # Before it is bound, so that the first burst finds them.
        self._ask_buffers(created)
        return created

    def _ask_buffers(self, sock: socket.socket) -> None:
        asked, send_asked = self._asked_buffers
        self.receive_buffer = ask_receive_buffer(sock, asked)
        if self.receive_buffer < asked:
            self._log.warn(
                "the kernel gives this socket a receive buffer of {granted} bytes, not {asked}:"
                " bursts will lose more datagrams. Raise net.core.rmem_max, or ask for less.",
                granted=self.receive_buffer,
                asked=asked,
            )
        if send_asked is not None and (granted := ask_send_buffer(sock, send_asked)) < send_asked:
            self._log.warn(
                "the kernel gives this socket a send buffer of {granted} bytes, not {asked}."
                " Raise net.core.wmem_max, or ask for less.",
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
        if "%" not in host:
            udp.Port.connect(self, host, port)
            return
        if self._connectedAddr:
            raise RuntimeError("already connected")
        self.socket.connect(socket_address((host, port)))
        self._connectedAddr = (host, port)

    @override
    def stopListening(self) -> Deferred[None] | None:
        if self._queue:
            self.doWrite()
        stopped: Deferred[None] | None = udp.Port.stopListening(self)
        return stopped

    @override
    def connectionLost(self, reason: Failure | None = None) -> None:
        if reason is not None and self._outlives():
            return
        self.counts.dropped += len(self._queue) + len(self._answers)
        self._queue.clear()
        self._answers.clear()
        self._queued = 0
        self.counts.end_meter(self._kernel_drops)
        udp.Port.connectionLost(self, reason)

    def _outlives(self) -> bool:
        """
        Whether the reactor took an error that passes for the end of the socket.

        epoll does where a host has said that nobody listens at the port we are connected to, and
        there is nothing to read besides.
        """
        if self._connectedAddr is None:
            return False
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number not in _PASSING_READ_ERRORS:
            return False
        self.startReading()
        self._read_failed(OSError(number, os.strerror(number)))
        return True

    def _kernel_drops(self) -> int:
        return (kernel_drops(self.socket) - self._drops_before) & 0xFFFFFFFF

    @override
    def doRead(self) -> None:
        receive = self.socket.recvfrom
        size = self.maxPacketSize
        # First all are read, then all are answered: to go back and forth between the two takes the
        # kernel a third longer (docs/architecture.rst).
        batch = []
        failed = None
        try:
            for _ in range(self._datagrams_per_turn):
                batch.append(receive(size))  # noqa: PERF401  # what came before an error stays
        except BlockingIOError:
            pass
        except OSError as failure:
            failed = failure
        self._deliver(batch)
        self._send_answers()
        if failed is not None:
            self._read_failed(failed)

    def _deliver(self, batch: list[tuple[bytes, Any]]) -> None:  # Any: as a Peer
        """Give the protocol datagrams, and keep its small answers to them."""
        received = self.protocol.datagramReceived
        six = self.addressFamily == socket.AF_INET6
        for data, peer in batch:
            source = scoped_source(peer) if six else peer
            self._source, self._peer = source, peer
            try:
                received(data, source)
            except Exception:
                # A protocol's bug: were it to leave, the reactor would close the port.
                self._log.failure("{protocol} failed on a datagram", protocol=self.protocol)
        self._source = None

    @override
    def write(self, datagram: bytes, addr: Source | None = None) -> None:
        source, peer = self._source, None
        if (
            source is not None
            # Nearly always the very one, which is found out sooner than an equal one is.
            and (addr is source or addr == source)
            and self._connectedAddr is None
        ):
            peer = self._peer
            if (
                len(datagram) <= LONGEST_SMALL
                # A buffer of another kind may be changed meanwhile.
                and type(datagram) is bytes
                # What waits there was written before it.
                and not self._queue
            ):
                self._answers.append((datagram, source, peer))
                if len(self._answers) >= ANSWERS_AT_ONCE:
                    self._send_answers()
                return
        # They were written before it too.
        self._send_answers()
        try:
            if self._queue:
                self._keep(datagram, addr)
            elif peer is not None:
                self.socket.sendto(datagram, peer)
            else:
                self._send(datagram, addr)
        except BlockingIOError:
            self._keep(datagram, addr)
        except OSError as failure:
            if failure.errno == errno.EMSGSIZE:
                raise MessageLengthError("message too long") from failure
            self.counts.dropped += 1

    def _send_answers(self) -> None:
        """Send the answers of this turn that are not sent yet, in a row."""
        if not self._answers:
            return
        answers, self._answers = self._answers, []
        if self._kernel_cuts:
            done = 0
            for start, end in runs(answers):
                self._send_each(answers[done:start])
                run = answers[start:end]
                if self._queue or not send_run(self.socket, run):
                    self._send_each(run)
                done = end
            answers = answers[done:]
        self._send_each(answers)

    def _send_each(self, answers: list[Answer]) -> None:
        """Send answers one by one; those that the kernel takes later are kept."""
        send = self.socket.sendto
        for datagram, source, peer in answers:
            try:
                if self._queue:
                    self._keep(datagram, source)
                else:
                    send(datagram, peer)
            except BlockingIOError:
                self._keep(datagram, source)
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

    def _keep(self, datagram: bytes, addr: Source | None) -> None:
        cost = len(datagram) + QUEUED_COST
        if self._queued + cost > self._send_queue:
            self.counts.dropped += 1
            return
        if not self._queue:
            self.startWriting()
        self._queue.append((bytes(datagram), addr))
        self._queued += cost

    def _send(self, datagram: bytes, addr: Source | None) -> None:
        if addr is not None and "%" in addr[0] and self._connectedAddr is None:
            self.socket.sendto(datagram, socket_address(addr))
        else:
            udp.Port.write(self, datagram, addr)

    def _read_failed(self, failure: OSError) -> None:
        if failure.errno not in _PASSING_READ_ERRORS:
            raise failure
        self.counts.read_errors += 1
        if failure.errno == errno.ECONNREFUSED and self._connectedAddr is not None:
            self.protocol.connectionRefused()


def open_port(
    place: Place,
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
    Start a :class:`CappedPort` at *place*, whose own buffers go before those given here.

    :param max_datagram: the limit of the protocol: one byte more is read, by which a longer
        datagram is known.
    :raises CannotListenError: where the socket cannot be had.
    """
    origin = place.origin
    bound = origin if isinstance(origin, Bound) else Bound(0)
    opened = None if isinstance(origin, Bound) else take_over(origin)
    port = CappedPort(
        bound.port,
        protocol,
        bound.interface,
        max_datagram + 1,
        reactor,
        datagrams_per_turn=datagrams_per_turn,
        receive_buffer=place.receive_buffer or receive_buffer,
        counts=counts,
        send_buffer=place.send_buffer or send_buffer,
        send_queue=send_queue,
        reuse_port=bound.reuse_port,
        opened=opened,
    )
    port.startListening()
    return port
