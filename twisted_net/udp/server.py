"""The datagram server: a protocol that asks the responder, and what lets it listen."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.net.addresses import Source, is_local
from twisted_net.udp.amplification_guard import Guard

# Named here too, where those who embed look for it.
from twisted_net.udp.port import CappedPort as CappedPort
from twisted_net.udp.port import open_port
from twisted_net.udp.responder import (
    ANSWER_TOO_LONG,
    DatagramHandler,
    DatagramLimits,
    DatagramResponder,
)
from twisted_net.udp.socket_spec import Bound, Place, parse_place

# A flood that makes a handler fail must not fill the disk with tracebacks: the count goes on.
_SECONDS_BETWEEN_TRACEBACKS = 1.0


class DatagramServer(DatagramProtocol):
    """
    Answers each datagram, and logs a summary at an interval.

    Any UDP transport will do; :func:`listen_datagrams` gives the one that keeps the limits. What
    a handler raises is counted and logged, at most one traceback a second; its client hears
    nothing. An answer too long for a datagram counts as such a failure, and the client is told.
    Where no datagram came in since the last summary, none is logged.

    The summary's timer runs while the protocol has its transport, and never longer.

    A server has one socket; :meth:`companion` gives another for one more, and both count
    together. Over a transport of another kind than ours its answers are not guarded
    (:mod:`twisted_net.udp.amplification_guard`) unless :meth:`guard` is called.

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
        self._guard = Guard(self.responder, self.limits)
        self._answer = self.responder.answer
        self._clock = clock
        self._seconds = clock.seconds
        self._wall = wall
        # Twisted's reactors have it so, and one look at the clock for a datagram is enough then.
        self._clock_is_wall = wall is clock.seconds
        self._summary = LoopingCall(self._log_summary)
        self._summary.clock = clock
        self._summarises = self.limits.summary_interval > 0
        self._summarised = 0
        self._next_traceback = float("-inf")

    def companion(self) -> DatagramServer:
        """Give a server for one more socket: the same answers, counts and rates, no summaries."""
        other = DatagramServer(self._clock, self.limits, wall=self._wall)
        other.responder, other._guard = self.responder, self._guard
        other._answer = other.responder.answer
        other._summarises = False
        return other

    def guard(self, own_port: int) -> None:
        """
        Guard the answers from now on: sources may be forged.

        :param own_port: the port it listens on, which it and its companions then never answer.
        """
        self._guard.own_ports.add(own_port)
        self._answer = self._guard.answer

    def unguard(self) -> None:
        """Answer everybody freely from now on, as on loopback."""
        self._answer = self.responder.answer

    @override
    def startProtocol(self) -> None:
        if self._summarises:
            # now=False: there is nothing to tell yet. The Deferred fires at stop() alone, as
            # _log_summary does nothing that raises.
            self._summary.start(self.limits.summary_interval, now=False)

    @override
    def stopProtocol(self) -> None:
        if self._summary.running:
            self._summary.stop()

    def answer_group(self, datagram: bytes, addr: Source) -> bytes | None:
        """
        Give the answer to a datagram that came to a group of servers, to be sent later.

        It is counted as any other; a datagram that is too long is not answered here.
        """
        if len(datagram) > self.limits.max_datagram:
            self.responder.counts.received += 1
            self.responder.counts.refused += 1
            return None
        try:
            return self._answer(datagram, addr, self._seconds(), self._wall())
        except Exception:
            self._count_failure()
            return None

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        transport = self.transport
        if transport is None:
            return
        try:
            now = self._seconds()
            answer = self._answer(datagram, addr, now, now if self._clock_is_wall else self._wall())
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
        responder, counts = self.responder, self.responder.counts
        if counts.received == self._summarised:
            return
        self._summarised = counts.received
        recent = responder.recent_clients(self._seconds())
        self.log.info(
            "{total_packets} datagrams, {active_clients} clients, {refused} refused,"
            " {failed} failed, {dropped} answers dropped, {kernel_drops} lost by the kernel,"
            " {withheld} not answered by the guard; most recent: {recent_text}",
            recent=recent,
            recent_text=", ".join(
                f"{client['client']} ({client['packets']} packets, {client['age']:.1f} s ago)"
                for client in recent
            ),
            withheld=counts.ignored + counts.rate_limited + counts.too_short,
            **responder.statistics(),
        )


def listen_datagrams(
    reactor: IReactorFDSet, server: DatagramServer, port: int, interface: str = "127.0.0.1"
) -> CappedPort:
    """
    Serve *server* on a UDP port of its own, with its limits, and give that port.

    ``getHost()`` of it tells the address, ``receive_buffer`` what the kernel granted, and
    ``stopListening()`` ends it: once its Deferred fires, no socket and no timer is left, and
    *server* may listen again. Answers are guarded where the limit ``guard`` says so.

    :param reactor: one that watches descriptors: epoll, asyncio, poll and select do.
    :param port: 0 for any that is free.
    :param interface: a numeric address, with its scope (``fe80::1%eth0``) where it is link-local;
        ``""`` for every IPv4 and ``"::"`` for every IPv6 one.
    :raises CannotListenError: where the port is taken, or the address is not of this machine.
    """
    return listen_at(reactor, server, Place(Bound(port, interface)))


def listen_at(reactor: IReactorFDSet, server: DatagramServer, place: Place | str) -> CappedPort:
    """
    Do as :func:`listen_datagrams` at a place that is described in a string, or parsed already.

    ``udp:9999:interface=[::1]:rcvbuf=4M:reuseport=yes`` binds a port; ``fd:3`` takes over a socket
    from the parent process, ``systemd:0`` one from systemd. See
    :func:`twisted_net.udp.socket_spec.parse_place`.

    :raises ValueError: for a string that describes no place.
    :raises CannotListenError: where the socket cannot be had.
    """
    limits = server.limits
    listening = open_port(
        parse_place(place) if isinstance(place, str) else place,
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
    if limits.guard == "always" or (limits.guard == "public" and not is_local(address.host)):
        server.guard(address.port)
    else:
        server.unguard()
    return listening
