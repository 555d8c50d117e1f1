"""Handshakes: limits number and time of PROXY headers, TLS and WebSocket handshakes under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.bounded_table import BoundedTable
from twisted_net.net.log_limiter import limited_logger
from twisted_net.net.steady_clock import steady
from twisted_net.reasons import End
from twisted_net.turns.step_scheduler import StepScheduler
from twisted_net.turns.steps import END, ENDS_AT_ONCE, in_steps


class HandshakingConnection(Protocol):
    """A connection whose handshake is under way."""

    def abort(self) -> None:
        """End the connection now; it calls :meth:`Handshakes.lost` when it is lost."""


@check_arguments
class Handshakes:
    """
    The handshakes of one listener that are under way: how many, and for how long.

    One over the limit aborts the oldest. Clients that never finish, however many, then keep out
    only those whose handshake takes longer than as many new connections do.

    :param clock: for the time limits; at most one call is scheduled.
    :param timeout: seconds for each.
    :param limit: how many at one time.
    :param count: called with the reason for each that did not succeed.
    """

    def __init__(
        self, clock: IReactorTime, timeout: float, limit: int, count: Callable[[End], object]
    ) -> None:
        self._clock = steady(clock)
        self._timeout = timeout
        self._count = count
        # All have the same time limit, so they are in the order of their deadlines.
        self._deadlines: BoundedTable[HandshakingConnection, float] = BoundedTable(
            limit, self._crowded_out
        )
        self._aborted: set[HandshakingConnection] = set()
        self._timer: IDelayedCall | None = None
        self._closed: list[Deferred[None]] = []
        self._steps = StepScheduler(clock)

    def __len__(self) -> int:
        return len(self._deadlines)

    def began(self, connection: HandshakingConnection) -> None:
        """Register a connection whose handshake begins."""
        self._deadlines[connection] = self._clock.seconds() + self._timeout
        if self._timer is None:
            self._timer = self._clock.callLater(self._timeout, self._abort_overdue)

    def succeeded(self, connection: HandshakingConnection) -> None:
        """Remove a connection whose handshake is done."""
        del self._deadlines[connection]
        self._settle()

    def failed(self, connection: HandshakingConnection, end: End = End.HANDSHAKE_FAILED) -> None:
        """Abort a connection that sent something wrong, unless it is being aborted already."""
        if self._deadlines.pop(connection) is not None:
            self._abort(connection, end)

    def lost(self, connection: HandshakingConnection) -> None:
        """Remove a connection that is lost, and count it if that was before it succeeded."""
        if self._deadlines.pop(connection) is not None:
            self._count(End.HANDSHAKE_FAILED)
        self._aborted.discard(connection)
        self._settle()

    def close(self) -> Deferred[None]:
        """
        Abort all that are under way, some in each turn of the reactor.

        :return: fires when they are lost.
        """
        self._steps(in_steps(self._aborts()))
        closed: Deferred[None] = Deferred()
        self._closed.append(closed)
        self._settle()
        return closed

    def _aborts(self) -> Iterator[float]:
        while (oldest := self._deadlines.oldest()) is not None:
            self._abort_oldest(oldest[0], End.DRAINED)
            yield END

    def _crowded_out(self, connection: HandshakingConnection, deadline: float) -> None:
        self._abort(connection, End.TOO_MANY_HANDSHAKES)

    def _abort(self, connection: HandshakingConnection, end: End) -> None:
        self._aborted.add(connection)
        self._count(end)
        connection.abort()

    def _abort_overdue(self) -> None:
        """Abort those whose time is over, some in this turn, and wait for the next deadline."""
        self._timer = None
        now = self._clock.seconds()
        for _ in range(ENDS_AT_ONCE):
            oldest = self._deadlines.oldest()
            if oldest is None or oldest[1] > now:
                break
            self._abort_oldest(oldest[0], End.HANDSHAKE_TIMEOUT)
        oldest = self._deadlines.oldest()
        if oldest is not None:
            self._timer = self._clock.callLater(max(0.0, oldest[1] - now), self._abort_overdue)

    def _abort_oldest(self, connection: HandshakingConnection, end: End) -> None:
        del self._deadlines[connection]
        self._abort(connection, end)

    def _settle(self) -> None:
        if not self._deadlines and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._deadlines:
            self._steps.stop()
        if not self._deadlines and not self._aborted:
            closed, self._closed = self._closed, []
            for deferred in closed:
                deferred.callback(None)


class HandshakeFactory(Factory):
    """
    Wraps a factory, whose protocols get the connections once a handshake is done.

    :param inner: starts and stops with this one.
    :param handshakes: limits those that are under way.
    :ivar log: for what is wrong with a client's handshake, at a limited rate.
    """

    noisy = False

    def __init__(self, inner: IProtocolFactory, handshakes: Handshakes) -> None:
        self.inner = inner
        self.handshakes = handshakes
        self.log = limited_logger(self)

    @override
    def startFactory(self) -> None:
        self.inner.doStart()

    @override
    def stopFactory(self) -> None:
        self.inner.doStop()
