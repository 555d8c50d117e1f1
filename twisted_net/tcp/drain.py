"""Drain: announces the end to all connections of a server, and ends them at a limited rate."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from typing import Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.reasons import End
from twisted_net.turns.step_scheduler import StepScheduler
from twisted_net.turns.steps import END, WRITE, in_steps

DRAIN_RATE = 2000.0
"""
Connections that are ended per second by default.

Clients that lose their server connect to another one at once. At this rate 10 000 of them arrive
there over five seconds, about as fast as it can make that many TLS handshakes.
"""

STEP = 0.05
"""Seconds between two batches of connections that are ended; the first is ended at once."""


TURNS_PER_BATCH = 32
"""
Turns of the reactor in which a batch is ended at the latest, about as many as fit into a step.

In each are ended :data:`~twisted_net.turns.steps.ENDS_AT_ONCE`, and more only if a short time for
all together requires it.
"""


class Drainable(Protocol):
    """A connection that can be ended once its answers have left."""

    def finish(self, end: End) -> None:
        """Take no more lines, answer those that were taken, then hang up."""
        ...


_D = TypeVar("_D", bound=Drainable)


class Drain(Generic[_D]):
    """
    Announces the end to the connections of one server, then ends them, some at a time.

    Those whose turn has not come are served as before. What happens to many is spread over turns of
    the reactor; each is told before it is ended.

    :param connections: all of them, in the order in which they are to be ended.
    :param per_second: how many are ended per second; more if half of *timeout* were not enough.
    :param timeout: seconds for all together.
    :param announce: tells a connection, which may be lost, that it will be ended.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        connections: Iterable[_D],
        per_second: float,
        timeout: float,
        announce: Callable[[_D], object],
    ) -> None:
        self._reactor = reactor
        self._remaining = deque(connections)
        self._untold = deque(self._remaining)
        self._announce = announce
        in_time = len(self._remaining) / max(timeout / 2, STEP)
        self._batch_size = max(ceil(max(per_second, in_time) * STEP), 1)
        self._share = min(END, TURNS_PER_BATCH / self._batch_size)
        self._due = 0
        self._ending = False
        self._farewells = StepScheduler(reactor)
        self._ends = StepScheduler(reactor)
        self._step: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []

    def begin(self) -> None:
        """Announce the end, and end the first batch; the others follow by timer."""
        self._farewells(in_steps(self._announcements()))
        self._end_batch()

    def _announcements(self) -> Iterator[float]:
        while self._untold:
            self._announce(self._untold.popleft())
            yield WRITE

    def _end_batch(self) -> None:
        self._step = None
        self._due += self._batch_size
        if not self._ending:
            self._ending = True
            self._ends(in_steps(self._end_due()))
        if len(self._remaining) > self._due:
            self._step = self._reactor.callLater(STEP, self._end_batch)

    def _end_due(self) -> Iterator[float]:
        try:
            while self._due and self._remaining:
                self._due -= 1
                # Both are in the same order.
                if len(self._untold) == len(self._remaining):
                    self._announce(self._untold.popleft())
                self._remaining.popleft().finish(End.DRAINED)
                yield self._share
        finally:
            # If one fails, by a bug, the next batch goes on.
            self._ending = False

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
        self._untold.clear()
        self._farewells.stop()
        self._ends.stop()
        if self._step is not None:
            self._step.cancel()
            self._step = None
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)
