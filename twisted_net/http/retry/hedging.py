"""Hedging: a second attempt beside a slow one; the first good result of both is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")


def hedge(
    clock: IReactorTime,
    start: Callable[[], Deferred[T]],
    delay: float,
    may_start: Callable[[], bool],
    good: Callable[[T, bool], bool],
) -> Deferred[T]:
    """
    Start an attempt, and a second one if it takes too long; return the first good result.

    The other attempt is cancelled then. If no result is good, the last one is returned. A failure
    ends both. Cancelling the returned Deferred cancels both.

    :param start: starts an attempt.
    :param delay: seconds after which the second one is started.
    :param may_start: returns, at that time, whether it may be started.
    :param good: returns whether a result is good; its second argument is whether it is the last.
    """
    return _HedgedAttempts(clock, start, may_start, good).begin(delay)


class _HedgedAttempts(Generic[T]):
    def __init__(
        self,
        clock: IReactorTime,
        start: Callable[[], Deferred[T]],
        may_start: Callable[[], bool],
        good: Callable[[T, bool], bool],
    ) -> None:
        self._clock = clock
        self._start = start
        self._may_start = may_start
        self._good = good
        self._running: list[Deferred[T]] = []
        self._over = False
        self._winner: Deferred[T] = Deferred(lambda _: self._stop())

    def begin(self, delay: float) -> Deferred[T]:
        self._timer = self._clock.callLater(delay, self._late)
        self._run()
        return self._winner

    def _late(self) -> None:
        if self._may_start():
            self._run()

    def _run(self) -> None:
        one = self._start()
        self._running.append(one)
        one.addCallbacks(self._done, self._failed, callbackArgs=(one,), errbackArgs=(one,))

    def _done(self, result: T, one: Deferred[T]) -> None:
        self._running.remove(one)
        if self._over:
            return
        if self._good(result, not self._running) or not self._running:
            self._stop()
            self._winner.callback(result)

    def _failed(self, failure: Failure, one: Deferred[T]) -> None:
        self._running.remove(one)
        if not self._over:
            self._stop()
            self._winner.errback(failure)

    def _stop(self) -> None:
        self._over = True
        if self._timer.active():
            self._timer.cancel()
        for one in list(self._running):
            one.cancel()
