"""Datagram server: the protocol that answers by the responder, and functions that let it listen."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.config.callbacks import check_callback
from twisted_net.config.type_checks import check_arguments
from twisted_net.net.addresses import Source, is_local
from twisted_net.net.log_limiter import TracebackRate
from twisted_net.net.printable_failure import printable_failure
from twisted_net.net.steady_clock import steady, stopwatch
from twisted_net.udp.amplification_guard import AmplificationGuard
from twisted_net.udp.limits import DatagramLimits
from twisted_net.udp.port import CappedPort, open_port
from twisted_net.udp.responder import ANSWER_TOO_LONG, DatagramHandler, DatagramResponder
from twisted_net.udp.socket_spec import BoundSocket, SocketSpec, parse_socket_spec


@check_arguments
class DatagramServer(DatagramProtocol):
    """
    Answers each datagram, and logs a summary at an interval.

    It works with any UDP transport; :func:`listen_datagrams` returns the one that enforces the
    limits. An exception of a handler is counted and logged, ten tracebacks at once and then one per
    second; its client gets no answer. An answer too long for a datagram counts as a failure too,
    and the client gets an error. No summary is logged while no datagrams come in.

    The summary's timer runs only while the protocol has a transport.

    A server has one socket; :meth:`companion` returns another server for a further socket, which
    shares its counts. Over a transport other than ours its answers are not guarded
    (:mod:`twisted_net.udp.amplification_guard`) unless :meth:`guard` is called.

    :param clock: usually the reactor.
    :param handler: replaces the standard answers; a plain function, not ``async``.
    :param wall: returns seconds since 1970, for ``TIME``.
    :ivar responder: holds the counts and the table of clients.
    :raises TypeError: for a handler that is ``async``, or does not take two arguments.
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
        if handler is not None:
            check_callback("the handler", handler, "data", "source", plain=True)
        self.limits = DatagramLimits() if limits is None else limits
        self.responder = DatagramResponder(self.limits, handler)
        self._guard = AmplificationGuard(self.responder, self.limits)
        self._answer = self.responder.answer
        self._clock = steady(clock)
        self._seconds = stopwatch(clock)
        self._wall = wall
        self._summary = LoopingCall(self._log_summary)
        self._summary.clock = clock
        self._summarises = self.limits.summary_interval > 0
        self._summarised = 0
        self._tracebacks = TracebackRate()

    def companion(self) -> DatagramServer:
        """Return a server for a further socket: same answers, counts and rates, no summaries."""
        other = DatagramServer(self._clock, self.limits, wall=self._wall)
        other.responder, other._guard = self.responder, self._guard
        other._answer = other.responder.answer
        other._summarises = False
        return other

    def guard(self) -> None:
        """Guard the answers from now on, as sources may be forged."""
        self._answer = self._guard.answer

    def add_own_port(self, port: int) -> None:
        """
        Note a port on which it, or a companion, listens, guarded or not.

        A guarded one never answers a datagram from it: who forges it would have the two answer
        each other, until the answers are too short.
        """
        self._guard.own_ports.add(port)

    def unguard(self) -> None:
        """Answer all sources without the guard from now on, as on loopback."""
        self._answer = self.responder.answer

    @override
    def startProtocol(self) -> None:
        if self._summarises:
            # now=False: there is nothing to summarise yet. The Deferred fires at stop() only, as
            # _log_summary cannot fail.
            self._summary.start(self.limits.summary_interval, now=False)

    @override
    def stopProtocol(self) -> None:
        if self._summary.running:
            self._summary.stop()

    def answer_group(self, datagram: bytes, addr: Source) -> bytes | None:
        """
        Return the answer to a datagram that was sent to a multicast group; it is sent later.

        The datagram is counted as any other. One over the limit gets no answer here.
        """
        if len(datagram) > self.limits.max_datagram:
            self.responder.counts.received += 1
            self.responder.counts.refused += 1
            return None
        try:
            return self._answer(datagram, addr, self._seconds(), self._wall)
        except BaseException:
            self._count_failure()
            return None

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        transport = self.transport
        if transport is None:
            return
        try:
            answer = self._answer(datagram, addr, self._seconds(), self._wall)
            if answer is not None:
                transport.write(answer, addr)
        except MessageLengthError:
            self._count_failure()
            transport.write(ANSWER_TOO_LONG, addr)
        except BaseException:
            self._count_failure()

    def _count_failure(self) -> None:
        counts = self.responder.counts
        counts.failed += 1
        if self._tracebacks.take(self._seconds()):
            self.log.failure(
                "a datagram could not be answered ({failed} so far)",
                printable_failure(Failure()),
                failed=counts.failed,
            )

    def _log_summary(self) -> None:
        responder, counts = self.responder, self.responder.counts
        if counts.received == self._summarised:
            return
        self._summarised = counts.received
        recent = responder.recent_clients(self._seconds())
        self.log.info(
            "{total_packets} datagrams, {active_clients} clients, {refused} refused,"
            " {failed} failed, {dropped} answers dropped, {kernel_drops} dropped by the kernel,"
            " {withheld} withheld by the guard; most recent: {recent_text}",
            recent=recent,
            recent_text=", ".join(
                f"{client['client']} ({client['packets']} packets, {client['age']:.1f} s ago)"
                for client in recent
            ),
            withheld=counts.ignored + counts.rate_limited + counts.too_short,
            **responder.statistics(),
        )


@check_arguments
def listen_datagrams(
    reactor: IReactorFDSet, server: DatagramServer, port: int, interface: str = "127.0.0.1"
) -> CappedPort:
    """
    Serve *server* on a UDP port, with its limits, and return the listening port.

    Of the port, ``getHost()`` returns the address, ``receive_buffer`` is what the kernel granted,
    and ``stopListening()`` ends it: once its Deferred fires, no socket and no timer is left, and
    *server* may listen again. Answers are guarded as the limit ``guard`` says.

    :param reactor: one that watches file descriptors: epoll, asyncio, poll and select do.
    :param port: 0 for any free port.
    :param interface: a numeric address, with its scope (``fe80::1%eth0``) if it is link-local;
        ``""`` for all IPv4 interfaces, ``"::"`` for all IPv6 interfaces.
    :raises CannotListenError: if the port is taken, or the address is not one of this machine.
    """
    return listen_at(reactor, server, SocketSpec(BoundSocket(port, interface)))


@check_arguments
def listen_at(reactor: IReactorFDSet, server: DatagramServer, spec: SocketSpec | str) -> CappedPort:
    """
    Serve *server* as :func:`listen_datagrams` does, on the socket of a spec, parsed or not.

    ``udp:9999:interface=[::1]:rcvbuf=4M:reuseport=yes`` binds a port; ``fd:3`` adopts a socket
    of the parent process, ``systemd:0`` one of systemd. See
    :func:`twisted_net.udp.socket_spec.parse_socket_spec`.

    :raises ValueError: for a string that is not a socket spec.
    :raises CannotListenError: if the socket cannot be opened or adopted.
    """
    limits = server.limits
    listening = open_port(
        parse_socket_spec(spec) if isinstance(spec, str) else spec,
        server,
        limits.max_datagram,
        reactor,
        datagrams_per_turn=limits.datagrams_per_turn,
        receive_buffer=limits.receive_buffer,
        send_buffer=limits.send_buffer,
        send_queue=limits.send_queue,
        counts=server.responder.counts,
    )
    address = listening.getHost()
    server.add_own_port(address.port)
    if limits.guard == "always" or (limits.guard == "public" and not is_local(address.host)):
        server.guard()
    else:
        server.unguard()
    return listening
