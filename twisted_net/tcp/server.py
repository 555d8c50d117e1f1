"""Command server: a factory of connections, with everything that they share."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from math import ceil

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.broadcasts import encode_event
from twisted_net.commands.cancellations import Cancellations
from twisted_net.commands.registry import Commands, encode_error
from twisted_net.commands.runner import CommandRunner, RunnerLimits
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import Banned, TooManyConnections
from twisted_net.net.addresses import UNIX
from twisted_net.net.steady_clock import steady, stopwatch
from twisted_net.net.worker_threads import Threads
from twisted_net.reasons import End
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session
from twisted_net.tcp.admission import Access, Rejection
from twisted_net.tcp.connection import CommandProtocol
from twisted_net.tcp.connection_guard import ConnectionGuard
from twisted_net.tcp.connection_owner import AnswerTo
from twisted_net.tcp.drain import DRAIN_RATE, Drain
from twisted_net.tcp.fanout import Fanout
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.rejection import (
    MAX_LINGERING,
    Abortable,
    ClosingProtocol,
    RejectingProtocol,
    closing_event,
)
from twisted_net.turns.broadcast_scheduler import pacings
from twisted_net.turns.step_scheduler import StepScheduler
from twisted_net.turns.steps import CHECK, END, in_steps
from twisted_net.turns.turn_scheduler import turns_of

SWEEP_INTERVAL = 1.0
"""Seconds between two checks of the connections that have a time limit."""


@check_arguments
class CommandFactory(Factory):
    """
    A command server: pass it to ``listenTCP`` or to any stream server endpoint.

    :param reactor: its time is used.
    :param commands: the commands that clients may call.
    :param limits: bounds of connections; the defaults if None.
    :param sessions: the clients that are connected, if several servers share them; else None.
    :param access: who may log in, and what clients may do before; if None, all may do everything.
    :param threads: those that run blocking commands; of its own if None.
    :ivar sessions: the clients that are connected; its ``broadcast`` and ``spread`` reach them all.
    :ivar max_descriptors: connections for which the process has file descriptors.
    :ivar watched: true while a client uses MONITOR.
    :ivar turn_time: seconds for the lines of one connection in a turn; no more than makes a command
        slow, so that every slow command ends its turn and is noticed.
    """

    noisy = False
    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        commands: Commands,
        limits: Limits | None = None,
        sessions: Sessions | None = None,
        access: Access | None = None,
        threads: Threads | None = None,
    ) -> None:
        self.reactor = steady(reactor)
        self.commands = commands
        self.limits = limits = limits or Limits()
        self.access = access
        self.max_descriptors = sys.maxsize
        self.sessions = Sessions(time.time) if sessions is None else sessions
        self.sessions.use_pacing(*pacings(reactor, self.sessions.memory))
        self.sessions.use_clock(reactor.seconds)
        self.runner = CommandRunner(
            reactor,
            commands,
            self.sessions,
            RunnerLimits(limits.command_timeout, limits.max_blocking, limits.blocking_threads),
            threads=threads,
        )
        self.guard = ConnectionGuard(reactor, self.runner, limits, self.sessions, access)
        self.fanout = Fanout(reactor)
        self.cancellations = Cancellations(reactor, self._end_drain, self.sessions.memory)
        self.turns = turns_of(self.reactor)
        self._protocols: set[CommandProtocol] = set()
        self._rejecting: set[RejectingProtocol] = set()
        self._deadlines: dict[Abortable, tuple[float, End]] = {}
        self._sweeping: IDelayedCall | None = None
        self._sweeps = StepScheduler(reactor)
        self._abortions = StepScheduler(reactor)
        self._idle_interval = max(SWEEP_INTERVAL, limits.idle_timeout / 4)
        self._idle_checks = ceil(limits.idle_timeout / self._idle_interval) + 1
        self._idle_check = 0.0
        # Attributes of its own: they are looked up in every turn.
        self.answer: AnswerTo = self.runner.answer
        self.seconds = stopwatch(reactor)
        self.turn_time = min(
            limits.turn_time, self.sessions.instruments.slow_log.settings.threshold
        )
        self.watched = self.sessions.instruments.monitors.views
        self._drain: Drain[CommandProtocol] | None = None

    @override
    def startFactory(self) -> None:
        self._drain = None
        self.runner.start_threads()

    @override
    def stopFactory(self) -> None:
        self.runner.stop_threads()

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        if self._drain is not None:
            self.sessions.refused(End.DRAINED)
            return ClosingProtocol()
        host = getattr(addr, "host", UNIX)
        limit = min(self.limits.max_connections, self.max_descriptors)
        rejection = self.guard.admission.rejection(host)
        if left := self.sessions.doors.bans.left("address", host):
            rejection = Rejection(End.BANNED, Banned("address", left))
        if len(self._protocols) >= limit:
            rejection = Rejection(End.TOO_MANY_CONNECTIONS, TooManyConnections(limit))
        if rejection is None:
            return CommandProtocol(self)
        self.sessions.turned_away(rejection.end, host, getattr(addr, "port", 0))
        if len(self._rejecting) < MAX_LINGERING:
            return RejectingProtocol(self, encode_error(rejection.error))
        return ClosingProtocol()

    def drain(self, timeout: float, per_second: float = DRAIN_RATE) -> Deferred[None]:
        """
        Announce the end to all clients, then end them at a limited rate: answer, and close.

        Those whose turn has not come are served meanwhile. Stop listening first: a connection that
        is accepted nevertheless is closed without an answer.

        :param timeout: seconds after which the connections that are left are aborted.
        :param per_second: how many are ended a second, see :class:`Drain`.
        :return: fires when no connection is left, and all their commands and hooks have ended or
            were cancelled.
        """
        if self._drain is None:
            # Not to all sessions: other servers may share them, and go on.
            event = encode_event({"event": "shutdown", "timeout": timeout})

            def announce(protocol: CommandProtocol) -> None:
                if protocol in self._protocols:  # else it has left meanwhile
                    protocol.session.deliver(event)

            protocols = list(self._protocols)
            self._drain = Drain(self.reactor, protocols, per_second, timeout, announce)
            self._drain.begin()
        drained = self._drain.wait(timeout, self._abort_in_steps)
        self._end_drain()
        return drained.addCallback(lambda _: Deferred.fromCoroutine(self.sessions.hooks.settle()))

    def abort(self) -> None:
        """End all connections now."""
        for _ in self._aborts():
            pass

    def _abort_in_steps(self) -> None:
        """End all connections, some in each turn of the reactor."""
        self._abortions(in_steps(self._aborts()))

    def _aborts(self) -> Iterator[float]:
        connections: list[Abortable] = [*self._protocols, *self._rejecting]
        for connection in connections:
            if connection in self._protocols or connection in self._rejecting:
                connection.abort(End.ABORTED)
                yield END

    # --- its connections call ---

    def open_session(self, connection: CommandProtocol) -> Session:
        """Open the session of a client that has connected, under the name of its address."""
        transport = connection.transport
        peer: object = transport.getPeer()
        if isinstance(peer, IPv4Address | IPv6Address):
            # Answers written in later turns would wait for the peer's delayed ACK, 40 ms.
            transport.setTcpNoDelay(True)
            host, port = peer.host, peer.port
        else:
            # The peer of a Unix socket has no port: a running number distinguishes them.
            host, port = getattr(peer, "host", UNIX), self.sessions.counters.opened + 1
        session = self.sessions.open(host, port, connection.deliver, connection)
        session.identity = getattr(transport, "identity", None)
        return session

    def opened(self, connection: CommandProtocol) -> None:
        """Register a connection that is made."""
        self._protocols.add(connection)
        self._start_sweeping()

    def closed(self, connection: CommandProtocol) -> None:
        """Remove a connection that is lost."""
        self._protocols.discard(connection)
        self._remove(connection)

    def rejecting(self, connection: RejectingProtocol) -> None:
        """Register a connection that is rejected."""
        self._rejecting.add(connection)
        self._start_sweeping()

    def rejected(self, connection: RejectingProtocol) -> None:
        """Remove a rejected connection that is lost."""
        self._rejecting.discard(connection)
        self._remove(connection)

    def watch(self, connection: Abortable, timeout: float, end: End) -> None:
        """Abort a connection with this reason in so many seconds; a later call replaces this."""
        self._deadlines[connection] = (self.reactor.seconds() + timeout, end)

    def unwatch(self, connection: Abortable) -> None:
        """Cancel the time limit of a connection."""
        self._deadlines.pop(connection, None)

    def _start_sweeping(self) -> None:
        if self._sweeping is None:
            self._sweeping = self.reactor.callLater(SWEEP_INTERVAL, self._sweep)

    def _remove(self, connection: Abortable) -> None:
        self._deadlines.pop(connection, None)
        if not self._protocols and not self._rejecting and self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
            self._sweeps.stop()
            self._abortions.stop()
            self.fanout.stop()
            self.turns.stop()
        self._end_drain()

    def _end_drain(self) -> None:
        """Complete the drain, if there is one and nothing is left of any connection."""
        left = self._protocols or self._rejecting or self.cancellations.busy
        if self._drain is not None and not left:
            self._drain.complete()

    def _sweep(self) -> None:
        """Abort the connections whose time is over, and close those that are idle."""
        self._sweeping = self.reactor.callLater(SWEEP_INTERVAL, self._sweep)
        if not self._sweeps.busy:
            self._sweeps(in_steps(self._sweep_work(self.reactor.seconds())))

    def _sweep_work(self, now: float) -> Iterator[float]:
        """Do what a sweep has to do, for one connection after the other; any may end meanwhile."""
        for connection, limit in list(self._deadlines.items()):
            yield self._check_deadline(connection, limit, now)
        yield from self.guard.sweep()
        if self.limits.idle_timeout and now >= self._idle_check:
            self._idle_check = now + self._idle_interval
            for protocol in list(self._protocols):
                yield self._check_idle(protocol)

    def _check_deadline(self, connection: Abortable, limit: tuple[float, End], now: float) -> float:
        """Abort a connection if its time is over; return the share of a step that this took."""
        if self._deadlines.get(connection) is not limit:
            return CHECK
        deadline, end = limit
        if deadline <= now:
            del self._deadlines[connection]
            connection.abort(end)
            return END
        if isinstance(connection, CommandProtocol):
            connection.weigh_messages()
        return CHECK

    def _check_idle(self, protocol: CommandProtocol) -> float:
        """Close a connection if it is idle; return the share of a step that this took."""
        protocol.idle_checks += 1
        if protocol.idle_checks < self._idle_checks or protocol not in self._protocols:
            return CHECK
        if not protocol.idle:
            return CHECK
        protocol.deliver(_IDLE)
        protocol.hang_up(End.IDLE_TIMEOUT)
        return END


_IDLE = closing_event(End.IDLE_TIMEOUT)
