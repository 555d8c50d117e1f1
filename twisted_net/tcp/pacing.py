"""Does long work a step in each reactor turn, so that others have theirs in between."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

T = TypeVar("T")


class Pace:
    """
    Runs generators to their end, one after the other: a step now, the others a turn each.

    Each ends by itself, so there is nothing to stop.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._one = DeferredLock()

    def __call__(self, steps: Generator[None, None, T]) -> Deferred[T]:
        """
        Run a generator.

        :return: fires with what it returns or raises. When cancelled it fires at once, while the
            work goes on to its end, unheard.
        """
        done: Deferred[T] = Deferred()
        self._one.run(self._run, steps).chainDeferred(done)
        return done

    async def _run(self, steps: Generator[None, None, T]) -> T:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                value: T = end.value
                return value
            await deferLater(self._reactor, 0)
