"""Bounded calls of blocking functions in the reactor's thread pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool

from twisted_net.errors import TooBusy


class BlockingCalls:
    """
    Runs blocking functions in the reactor's thread pool.

    A pool's own queue has no bound, and its calls cannot be cancelled: a client that calls,
    disconnects and reconnects would fill it. Here the calls that wait or run are counted until
    their thread is free again, and a cancelled one that waits is not begun.

    :param reactor: must provide ``IReactorThreads`` once a call is made.
    :param limit: calls that wait for a thread or run in one.
    """

    def __init__(self, reactor: IReactorTime, limit: int) -> None:
        self._reactor = reactor
        self._limit = limit
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def call(
        self, function: Callable[[], object], freed: Callable[[], None] | None = None
    ) -> Deferred[object]:
        """
        Call *function* in a thread.

        :param freed: called once the thread is free again; before, *function* may still run.
        :return: fires with its value or its exception. When cancelled it fires at once, while
            a function that already runs goes on, its outcome ignored.
        :raises TooBusy: if as many calls as the limit wait or run.
        """
        if self._count >= self._limit:
            raise TooBusy(self._limit)
        self._count += 1
        result: Deferred[object] = Deferred()

        def begin() -> object:
            return None if result.called else function()

        def ended(value: object) -> None:
            self._count -= 1
            if freed is not None:
                freed()
            if not result.called:
                result.callback(value)

        pool = cast(IReactorThreads, self._reactor).getThreadPool()
        reactor = cast(IReactorFromThreads, self._reactor)
        deferToThreadPool(reactor, pool, begin).addBoth(ended)
        return result
