"""Blocking functions in the reactor's threads, in a bounded number."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from twisted_net.errors import TooBusy


class BlockingCalls:
    """
    Runs blocking functions in the reactor's thread pool.

    A pool's own queue has no bound, and its calls cannot be cancelled: a client that asks,
    leaves and comes again would fill it. Here the calls that wait or run are counted until
    their thread is free again, and one that nobody waits for any more is not begun.

    :param reactor: provides ``IReactorThreads`` too, once a call is made.
    :param limit: calls that wait for a thread or run in one.
    """

    def __init__(self, reactor: IReactorTime, limit: int) -> None:
        self._reactor = reactor
        self._limit = limit
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def call(self, function: Callable[[], object]) -> Deferred[object]:
        """
        Call *function* in a thread.

        :return: fires with its value or its exception; when cancelled, fires at once, while
            a function that runs already goes on unheard.
        :raises TooBusy: for one call above the limit.
        """
        if self._count >= self._limit:
            raise TooBusy(self._limit)
        self._count += 1
        result: Deferred[object] = Deferred()

        def begin() -> object:
            return None if result.called else function()

        def freed(value: object) -> None:
            self._count -= 1
            if not result.called:
                result.callback(value)
            elif isinstance(value, Failure):
                value.trap(Exception)

        pool = cast(IReactorThreads, self._reactor).getThreadPool()
        reactor = cast(IReactorFromThreads, self._reactor)
        deferToThreadPool(reactor, pool, begin).addBoth(freed)
        return result
