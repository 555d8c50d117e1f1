"""How a server that stops lets its clients go: told at once, ended a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import ceil
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.reasons import End

DRAIN_RATE = 2000.0
"""
Connections that are ended a second, unless told otherwise.

Clients that lose their server connect to another one at once. Spread like this, 10 000 of them
come to it over five seconds, about as fast as TLS handshakes of that many are made.
"""

STEP = 0.05
"""Seconds between two lots of connections that are ended; the first lot goes at once."""


class Leaving(Protocol):
    """A connection that is to end."""

    def finish(self, end: End) -> None:
        """Take no more lines, answer those that were taken, then hang up."""
        ...


class Drain:
    """
    The end of all connections of one server.

    Those that are still to be ended are served as ever until their turn comes.

    :param connections: that there are, in the order in which they are to be ended.
    :param per_second: how many are ended a second; more where half of *timeout* would not do.
    :param timeout: seconds that there are in all.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        connections: Iterable[Leaving],
        per_second: float,
        timeout: float,
    ) -> None:
        self._reactor = reactor
        self._left = deque(connections)
        in_time = len(self._left) / max(timeout / 2, STEP)
        self._lot = max(ceil(max(per_second, in_time) * STEP), 1)
        self._step: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []

    def begin(self) -> None:
        """End the first lot; the others follow."""
        self._step = None
        for _ in range(min(self._lot, len(self._left))):
            self._left.popleft().finish(End.DRAINED)
        if self._left:
            self._step = self._reactor.callLater(STEP, self.begin)

    def wait(self, timeout: float, abort: Callable[[], None]) -> Deferred[None]:
        """
        Give what fires at :meth:`over`; after *timeout* seconds without it call *abort*.

        Whoever no longer wants to wait cancels it; the drain goes on.
        """
        deadline = self._reactor.callLater(timeout, abort)
        waiting: Deferred[None] = Deferred()

        def forget_deadline(result: None) -> None:
            if deadline.active():
                deadline.cancel()
            return result

        waiting.addBoth(forget_deadline)
        self._waiting.append(waiting)
        return waiting

    def over(self) -> None:
        """No connection is left."""
        self._left.clear()
        if self._step is not None:
            self._step.cancel()
            self._step = None
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)
