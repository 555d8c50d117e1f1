"""Does long work a step in each reactor turn, so that others have theirs in between."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

T = TypeVar("T")


class Pace:
    """
    Goes through iterables, one after the other: a step now, the others a turn each.

    Each ends by itself, so there is nothing to stop.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._one = DeferredLock()

    def __call__(self, steps: Iterable[T]) -> Deferred[list[T]]:
        """
        Go through an iterable.

        :return: fires a turn after the last step, with what all have given, or with the failure of
            one. When cancelled it fires at once, while the steps go on to their end, unheard.
        """
        done: Deferred[list[T]] = Deferred()
        self._one.run(self._go_through, steps).chainDeferred(done)
        return done

    async def _go_through(self, steps: Iterable[T]) -> list[T]:
        given = []
        for value in steps:
            given.append(value)
            await deferLater(self._reactor, 0)
        return given
