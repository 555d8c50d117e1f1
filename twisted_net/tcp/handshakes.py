"""Bounds what goes on before a connection may speak: PROXY headers, TLS, WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.reasons import End


class Newcomer(Protocol):
    """A connection whose handshake is under way."""

    def abort(self) -> None:
        """End the connection now; it calls :meth:`Handshakes.lost` when it is gone."""


class Handshakes:
    """
    The handshakes of one listener that are under way: how many, and for how long.

    One too many breaks off the one that began first. A crowd that never finishes then keeps out
    only those who need longer than it takes the crowd to come anew.

    :param clock: tells the time and calls later; one call at most is waiting.
    :param timeout: seconds for each.
    :param limit: how many at one time.
    :param count: told of each that did not succeed, with the reason.
    """

    def __init__(
        self, clock: IReactorTime, timeout: float, limit: int, count: Callable[[End], object]
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._limit = limit
        self._count = count
        # All have the same time, so the order in which they came is that of their deadlines.
        self._deadlines: dict[Newcomer, float] = {}
        self._leaving: set[Newcomer] = set()
        self._timer: IDelayedCall | None = None
        self._closed: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._deadlines)

    def began(self, connection: Newcomer) -> None:
        """A connection has begun."""
        if len(self._deadlines) >= self._limit:
            self._abort(next(iter(self._deadlines)), End.TOO_MANY_HANDSHAKES)
        self._deadlines[connection] = self._clock.seconds() + self._timeout
        if self._timer is None:
            self._timer = self._clock.callLater(self._timeout, self._look)

    def succeeded(self, connection: Newcomer) -> None:
        """A connection goes on to what it is for, and is no affair of ours any longer."""
        del self._deadlines[connection]
        self._settle()

    def failed(self, connection: Newcomer, end: End = End.HANDSHAKE_FAILED) -> None:
        """What a connection sent is wrong: end it."""
        self._abort(connection, end)

    def lost(self, connection: Newcomer) -> None:
        """A connection is gone before it succeeded, for whatever reason."""
        if self._deadlines.pop(connection, None) is not None:
            self._count(End.HANDSHAKE_FAILED)
        self._leaving.discard(connection)
        self._settle()

    def close(self) -> Deferred[None]:
        """
        End all that are under way.

        :return: fires when they are gone.
        """
        for connection in list(self._deadlines):
            self._abort(connection, End.DRAINED)
        closed: Deferred[None] = Deferred()
        self._closed.append(closed)
        self._settle()
        return closed

    def _abort(self, connection: Newcomer, end: End) -> None:
        del self._deadlines[connection]
        self._leaving.add(connection)
        self._count(end)
        connection.abort()

    def _look(self) -> None:
        """Abort those whose time is over, and wait for the next."""
        self._timer = None
        now = self._clock.seconds()
        for connection, deadline in list(self._deadlines.items()):
            if deadline > now:
                self._timer = self._clock.callLater(deadline - now, self._look)
                break
            self._abort(connection, End.HANDSHAKE_TIMEOUT)

    def _settle(self) -> None:
        if not self._deadlines and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._deadlines and not self._leaving:
            closed, self._closed = self._closed, []
            for deferred in closed:
                deferred.callback(None)
