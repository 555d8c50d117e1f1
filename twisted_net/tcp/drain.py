"""Drain: ends all connections of a server that stops, at a limited rate."""

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
Connections that are ended per second by default.

Clients that lose their server connect to another one at once. At this rate 10 000 of them arrive
there over five seconds, about as fast as it can make that many TLS handshakes.
"""

STEP = 0.05
"""Seconds between two batches of connections that are ended; the first is ended at once."""


class Drainable(Protocol):
    """A connection that can be ended once its answers have left."""

    def finish(self, end: End) -> None:
        """Take no more lines, answer those that were taken, then hang up."""
        ...


class Drain:
    """
    Ends the connections of one server, some at a time.

    Those whose turn has not come are served as before.

    :param connections: all of them, in the order in which they are to be ended.
    :param per_second: how many are ended per second; more if half of *timeout* were not enough.
    :param timeout: seconds for all together.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        connections: Iterable[Drainable],
        per_second: float,
        timeout: float,
    ) -> None:
        self._reactor = reactor
        self._remaining = deque(connections)
        in_time = len(self._remaining) / max(timeout / 2, STEP)
        self._batch_size = max(ceil(max(per_second, in_time) * STEP), 1)
        self._step: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []

    def begin(self) -> None:
        """End the first batch; the others follow by timer."""
        self._step = None
        for _ in range(min(self._batch_size, len(self._remaining))):
            self._remaining.popleft().finish(End.DRAINED)
        if self._remaining:
            self._step = self._reactor.callLater(STEP, self.begin)

    def wait(self, timeout: float, abort: Callable[[], None]) -> Deferred[None]:
        """
        Wait for the end of all connections.

        :param abort: called after *timeout* seconds, if some are left.
        :return: fires at :meth:`complete`. It may be cancelled; the drain goes on.
        """
        deadline = self._reactor.callLater(timeout, abort)
        waiting: Deferred[None] = Deferred()

        def cancel_deadline(result: None) -> None:
            if deadline.active():
                deadline.cancel()
            return result

        waiting.addBoth(cancel_deadline)
        self._waiting.append(waiting)
        return waiting

    def complete(self) -> None:
        """Fire all that wait: no connection is left."""
        self._remaining.clear()
        if self._step is not None:
            self._step.cancel()
            self._step = None
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)
