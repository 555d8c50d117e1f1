"""The datagram server: a protocol that asks the responder, and a port that is fair to others."""

from __future__ import annotations

import contextlib
import errno
import inspect
import socket
import sys
import time
from collections.abc import Callable

from twisted.internet import udp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.internet.protocol import AbstractDatagramProtocol, DatagramProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.udp.datagrams import (
    ANSWER_TOO_LONG,
    DatagramCounts,
    DatagramHandler,
    DatagramLimits,
    DatagramResponder,
    Source,
)

# A flood that makes a handler fail must not fill the disk with tracebacks: the count goes on.
_SECONDS_BETWEEN_TRACEBACKS = 1.0

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


class DatagramServer(DatagramProtocol):
    """
    Answers each datagram, and logs a summary at an interval.

    Any UDP transport will do; :func:`listen_datagrams` gives the one that keeps the limits. What
    a handler raises is counted and logged, at most one traceback a second; its client hears
    nothing. An answer too long for a datagram counts as such a failure, and the client is told.
    Where no datagram came in since the last summary, none is logged.

    The summary's timer runs while the protocol has its transport, and never longer.

    :param clock: the reactor, as a rule.
    :param handler: answers in place of the standard answers; a plain function, not ``async``.
    :param wall: seconds since 1970, for ``TIME``.
    :ivar responder: has the counts and the table of clients.
    :raises TypeError: for an ``async`` handler.
    """

    log = Logger()
    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        limits: DatagramLimits | None = None,
        handler: DatagramHandler | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if inspect.iscoroutinefunction(handler):
            raise TypeError("a datagram handler is a plain function: it returns bytes or None")
        self.limits = DatagramLimits() if limits is None else limits
        self.responder = DatagramResponder(self.limits, handler)
        self._answer = self.responder.answer
        self._seconds = clock.seconds
        self._wall = wall
        self._summary = LoopingCall(self._log_summary)
        self._summary.clock = clock
        self._summarised = 0
        self._next_traceback = float("-inf")

    @override
    def startProtocol(self) -> None:
        if self.limits.summary_interval:
            # now=False: there is nothing to tell yet. The Deferred fires at stop() alone, as
            # _log_summary does nothing that raises.
            self._summary.start(self.limits.summary_interval, now=False)

    @override
    def stopProtocol(self) -> None:
        if self._summary.running:
            self._summary.stop()

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        transport = self.transport
        if transport is None:
            return
        try:
            answer = self._answer(datagram, addr, self._seconds(), self._wall())
            if answer is not None:
                transport.write(answer, addr)
        except MessageLengthError:
            self._count_failure()
            transport.write(ANSWER_TOO_LONG, addr)
        except Exception:
            self._count_failure()

    def _count_failure(self) -> None:
        counts = self.responder.counts
        counts.failed += 1
        now = self._seconds()
        if now >= self._next_traceback:
            self._next_traceback = now + _SECONDS_BETWEEN_TRACEBACKS
            self.log.failure(
                "a datagram could not be answered ({failed} so far)", failed=counts.failed
            )

    def _log_summary(self) -> None:
        responder = self.responder
        if responder.counts.received == self._summarised:
            return
        self._summarised = responder.counts.received
        recent = responder.recent_clients(self._seconds())
        self.log.info(
            "{total_packets} datagrams, {active_clients} clients, {refused} refused,"
            " {failed} failed, {dropped} answers dropped; most recent: {recent_text}",
            recent=recent,
            recent_text=", ".join(
                f"{client['client']} ({client['packets']} packets, {client['age']:.1f} s ago)"
                for client in recent
            ),
            **responder.statistics(),
        )


class CappedPort(udp.Port):
    """
    A UDP port that reads a bounded number of datagrams a turn, and outlives what errors pass.

    The stock port reads 256 KiB of payload before anything else has its turn, cuts long datagrams
    in silence, and raises what ``sendto`` raises. This one

    - reads at most *datagrams_per_turn*, of which the rest is read in the next turn;
    - reads up to ``maxPacketSize`` bytes, so that a protocol whose limit is lower sees that a
      datagram was over it;
    - counts answers that the kernel does not take as dropped, as the network would drop them;
      only an answer too long for any datagram is raised, as
      :class:`~twisted.internet.error.MessageLengthError`;
    - keeps the scope of a link-local IPv6 source (``fe80::1%2``), so that it can be answered;
    - does not check the address of an answer to the datagram at hand: it came from the socket.

    :param receive_buffer: asked of the kernel, in bytes; a warning is logged where it gives less.
    :param counts: where drops and read errors are counted.
    :ivar receive_buffer: what the kernel gave, in the same bytes; 0 before the start.
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
    ) -> None:
        udp.Port.__init__(self, port, proto, interface, maxPacketSize, reactor)
        self.receive_buffer = 0
        self.counts = DatagramCounts() if counts is None else counts
        self._datagrams_per_turn = datagrams_per_turn
        self._asked_buffer = receive_buffer
        self._source: Source = ("", 0)
        self._created: socket.socket | None = None

    @override
    def startListening(self) -> None:
        try:
            udp.Port.startListening(self)
        except CannotListenError:
            # The stock port leaves the socket that it could not bind to the garbage collector.
            if self._created is not None:
                self._created.close()
            raise
        finally:
            self._created = None

    @override
    def createInternetSocket(self) -> socket.socket:
        self._created = created = super().createInternetSocket()
        # Before it is bound, so that the first burst finds it.
        self.receive_buffer = ask_receive_buffer(created, self._asked_buffer)
        if self.receive_buffer < self._asked_buffer:
            self._log.warn(
                "the kernel gives this socket a receive buffer of {granted} bytes, not {asked}:"
                " bursts will lose more datagrams. Raise net.core.rmem_max, or ask for less.",
                granted=self.receive_buffer,
                asked=self._asked_buffer,
            )
        return created

    @override
    def getHost(self) -> IPv4Address | IPv6Address:
        host: IPv4Address | IPv6Address = udp.Port.getHost(self)
        return host

    @override
    def stopListening(self) -> Deferred[None] | None:
        stopped: Deferred[None] | None = udp.Port.stopListening(self)
        return stopped

    @override
    def doRead(self) -> None:
        protocol = self.protocol
        receive = self.socket.recvfrom
        size = self.maxPacketSize
        for _ in range(self._datagrams_per_turn):
            try:
                data, source = receive(size)
            except BlockingIOError:
                return
            except OSError as failure:
                self._read_failed(failure)
                return
            if len(source) == 4:
                host, port, _flow, scope = source
                source = (f"{host}%{scope}" if scope else host, port)
            self._source = source
            try:
                protocol.datagramReceived(data, source)
            except Exception:
                # A protocol's bug: were it to leave, the reactor would close the port.
                self._log.failure("{protocol} failed on a datagram", protocol=protocol)

    @override
    def write(self, datagram: bytes, addr: Source | None = None) -> None:
        try:
            if addr is self._source and self._connectedAddr is None:
                self.socket.sendto(datagram, addr)
            else:
                super().write(datagram, addr)
        except OSError as failure:
            if failure.errno == errno.EMSGSIZE:
                raise MessageLengthError("message too long") from failure
            self.counts.dropped += 1

    def _read_failed(self, failure: OSError) -> None:
        if failure.errno not in _PASSING_READ_ERRORS:
            raise failure
        self.counts.read_errors += 1
        if failure.errno == errno.ECONNREFUSED and self._connectedAddr is not None:
            self.protocol.connectionRefused()


def ask_receive_buffer(sock: socket.socket, size: int) -> int:
    """
    Ask the kernel for a receive buffer of *size* bytes, and give what it granted.

    Both count as the kernel does when it is asked, its bookkeeping left out: Linux reserves, and
    reports, twice that (socket(7)). Linux grants at most ``net.core.rmem_max``; others may refuse
    the call, and the buffer stays as it was.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return granted // 2 if sys.platform == "linux" else granted


def listen_datagrams(
    reactor: IReactorFDSet, server: DatagramServer, port: int, interface: str = "127.0.0.1"
) -> CappedPort:
    """
    Serve *server* on a UDP port of its own, with its limits, and give that port.

    ``getHost()`` of it tells the address, ``receive_buffer`` what the kernel granted, and
    ``stopListening()`` ends it: once its Deferred fires, no socket and no timer is left, and
    *server* may listen again.

    :param reactor: one that watches descriptors: epoll, asyncio, poll and select do.
    :param port: 0 for any that is free.
    :param interface: a numeric address; ``""`` for every IPv4 and ``"::"`` for every IPv6 one.
    :raises CannotListenError: where the port is taken, or the address is not of this machine.
    """
    limits = server.limits
    listening = CappedPort(
        port,
        server,
        interface,
        # One byte more than the limit, by which a longer datagram is known.
        limits.max_datagram + 1,
        reactor,
        datagrams_per_turn=limits.datagrams_per_turn,
        receive_buffer=limits.receive_buffer,
        counts=server.responder.counts,
    )
    listening.startListening()
    return listening
