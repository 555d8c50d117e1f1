"""The command server: a factory, which has all that its connections share."""

from __future__ import annotations

import time
from math import ceil

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.commands.registry import Commands, encode_error
from twisted_net.commands.runner import CommandRunner, RunnerLimits
from twisted_net.errors import TooManyConnections
from twisted_net.net.addresses import UNIX
from twisted_net.net.turn_scheduler import StepScheduler, TurnScheduler
from twisted_net.reasons import End
from twisted_net.sessions import Sessions, encode_event
from twisted_net.tcp.admission import Access, Turned
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
    RefusingProtocol,
)

SWEEP_INTERVAL = 1.0
"""Seconds between two looks at the connections that have a time limit."""


class CommandFactory(Factory):
    """
    A command server: give it to ``listenTCP`` or to any stream server endpoint.

    :param reactor: whose time it uses; its threads too, for blocking commands.
    :param commands: what the clients may ask for.
    :param limits: what they may not.
    :param sessions: who is connected, where several servers share it; one of its own if None.
    :param access: who may log in, and what those may do who have not; everybody everything if None.
    :ivar sessions: who is connected; its ``broadcast`` and ``spread`` reach them all.
    :ivar watched: true where somebody watches what clients ask.
    :ivar turn_time: seconds for the lines of one connection in a turn. It is at most what makes a
        command slow, so that each slow one ends its turn and is known.
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
    ) -> None:
        self.reactor = reactor
        self.commands = commands
        self.limits = limits = limits or Limits()
        self.sessions = (
            Sessions(time.time, pacing=StepScheduler(reactor)) if sessions is None else sessions
        )
        self.runner = CommandRunner(
            reactor,
            commands,
            self.sessions,
            RunnerLimits(limits.command_timeout, limits.max_blocking),
        )
        self.guard = ConnectionGuard(reactor, self.runner, limits, self.sessions, access)
        self.fanout = Fanout(reactor)
        self.turns = TurnScheduler(reactor)
        self._protocols: set[CommandProtocol] = set()
        self._refusing: set[RefusingProtocol] = set()
        self._deadlines: dict[Abortable, tuple[float, End]] = {}
        self._sweeping: IDelayedCall | None = None
        self._idle_interval = max(SWEEP_INTERVAL, limits.idle_timeout / 4)
        self._idle_looks = ceil(limits.idle_timeout / self._idle_interval) + 1
        self._idle_look = 0.0
        # Looked up once for each turn, so kept at hand.
        self.answer: AnswerTo = self.runner.answer
        self.seconds = reactor.seconds
        self.turn_time = min(
            limits.turn_time, self.sessions.instruments.slow_log.settings.threshold
        )
        self.watched = self.sessions.instruments.monitors.views
        self._drain: Drain | None = None

    @override
    def startFactory(self) -> None:
        self._drain = None

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        if self._drain is not None:
            self.sessions.refused(End.DRAINED)
            return ClosingProtocol()
        most, host = self.limits.max_connections, getattr(addr, "host", UNIX)
        if len(self._protocols) >= most:
            turned: Turned | None = Turned(End.TOO_MANY_CONNECTIONS, TooManyConnections(most))
        else:
            turned = self.guard.admission.refusal(host)
        if turned is None:
            return CommandProtocol(self)
        self.sessions.turned_away(turned.end, host, getattr(addr, "port", 0))
        if len(self._refusing) < MAX_LINGERING:
            return RefusingProtocol(self, encode_error(turned.error))
        return ClosingProtocol()

    def drain(self, timeout: float, per_second: float = DRAIN_RATE) -> Deferred[None]:
        """
        Tell all clients that the server goes, then end them by and by: answer, and close.

        Those whose turn has not come are served meanwhile. Stop listening first: a connection that
        still comes is closed without a word.

        :param timeout: seconds after which the connections that are left are aborted.
        :param per_second: how many are ended a second, see :class:`Drain`.
        :return: fires when no connection is left.
        """
        if self._drain is None:
            # Not to all sessions: those of other servers may share them, and go on.
            event = encode_event({"event": "shutdown", "timeout": timeout})
            protocols = list(self._protocols)
            self._drain = Drain(self.reactor, protocols, per_second, timeout)
            for protocol in protocols:
                protocol.session.deliver(event)
            self._drain.begin()
        drained = self._drain.wait(timeout, self.abort)
        self._end_drain()
        return drained

    def abort(self) -> None:
        """End all connections now."""
        connections: list[Abortable] = [*self._protocols, *self._refusing]
        for connection in connections:
            connection.abort(End.ABORTED)

    # --- what the protocols tell and ask ---

    def opened(self, connection: CommandProtocol) -> None:
        """Take in a client that is connected."""
        self._protocols.add(connection)
        self._look_at_times()

    def closed(self, connection: CommandProtocol) -> None:
        """Let go of a client whose connection is lost."""
        self._protocols.discard(connection)
        self._forget(connection)

    def refusing(self, connection: RefusingProtocol) -> None:
        """Take in a connection that is turned away."""
        self._refusing.add(connection)
        self._look_at_times()

    def refused(self, connection: RefusingProtocol) -> None:
        """Let go of a connection that was turned away and is lost."""
        self._refusing.discard(connection)
        self._forget(connection)

    def watch(self, connection: Abortable, timeout: float, end: End) -> None:
        """Abort a connection with this reason in so many seconds; a later call replaces this."""
        self._deadlines[connection] = (self.reactor.seconds() + timeout, end)

    def unwatch(self, connection: Abortable) -> None:
        """Forget the time limit of a connection."""
        self._deadlines.pop(connection, None)

    def _look_at_times(self) -> None:
        if self._sweeping is None:
            self._sweeping = self.reactor.callLater(SWEEP_INTERVAL, self._sweep)

    def _forget(self, connection: Abortable) -> None:
        self._deadlines.pop(connection, None)
        if not self._protocols and not self._refusing and self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
            self.fanout.stop()
            self.turns.stop()
        self._end_drain()

    def _end_drain(self) -> None:
        """Let the drain be over where there is one and nobody is left."""
        if self._drain is not None and not self._protocols and not self._refusing:
            self._drain.over()

    def _sweep(self) -> None:
        """Abort the connections whose time is over, and close those that are idle."""
        self._sweeping = self.reactor.callLater(SWEEP_INTERVAL, self._sweep)
        now = self.reactor.seconds()
        for connection, (deadline, end) in list(self._deadlines.items()):
            if deadline <= now:
                del self._deadlines[connection]
                connection.abort(end)
            elif isinstance(connection, CommandProtocol):
                connection.weigh_messages()
        self.guard.sweep()
        if self.limits.idle_timeout and now >= self._idle_look:
            self._idle_look = now + self._idle_interval
            for protocol in list(self._protocols):
                protocol.quiet += 1
                if protocol.quiet >= self._idle_looks and protocol.idle:
                    protocol.deliver(_IDLE)
                    protocol.hang_up(End.IDLE_TIMEOUT)


_IDLE = encode_event({"event": "closing", "reason": End.IDLE_TIMEOUT.value})
