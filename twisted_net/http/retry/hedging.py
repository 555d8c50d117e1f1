"""Hedging: a second attempt beside one that takes too long, and the first good answer of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")


def first_good(
    clock: IReactorTime,
    start: Callable[[], Deferred[T]],
    delay: float,
    may_start: Callable[[], bool],
    good: Callable[[T, bool], bool],
) -> Deferred[T]:
    """
    Start something, and once more if it is not over in time; give the first good result.

    The other one is cancelled then. Where none is good, the last result is given. A failure ends
    both. Cancelling what this returns cancels both.

    :param start: begins one.
    :param delay: seconds after which the second begins.
    :param may_start: says, when that time has come, whether it may.
    :param good: judges a result; its second argument is whether no other can follow.
    """
    return _Race(clock, start, may_start, good).begin(delay)


class _Race(Generic[T]):
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
