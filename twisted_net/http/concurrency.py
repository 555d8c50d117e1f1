"""Concurrency limit: how many requests to one origin run at a time; the others wait in a queue."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_net.http.errors import ClientClosed, OriginBusy
from twisted_net.http.urls import Origin


class ConcurrencyLimiter:
    """
    Limits the requests to one origin that run at a time.

    The others wait in a queue per origin, first come, first served: a new request never overtakes
    one that waits. Nothing is kept about an origin without requests.

    :param limit: running requests, for each origin.
    :param max_queued: waiting requests, for each origin.
    """

    def __init__(self, clock: IReactorTime, limit: int, max_queued: int) -> None:
        self._clock = clock
        self._limit = limit
        self._max_queued = max_queued
        self._running: dict[Origin, int] = {}
        self._waiting: dict[Origin, deque[Deferred[None]]] = {}
        self._closed = False

    def acquire(self, origin: Origin) -> Deferred[None] | None:
        """
        Acquire a slot, which is to be released with :meth:`release`.

        :return: None if there was a free slot; else a Deferred that fires when there is one.
            Cancelling it leaves the queue. It fails with ClientClosed on :meth:`close`.
        :raises OriginBusy: if the queue is full.
        """
        running = self._running.get(origin, 0)
        waiting = self._waiting.get(origin)
        if running < self._limit and not waiting:
            self._running[origin] = running + 1
            return None
        if waiting is None:
            waiting = self._waiting[origin] = deque()
        if len(waiting) >= self._max_queued:
            raise OriginBusy(origin[1], running, len(waiting))
        turn: Deferred[None] = Deferred(lambda turn: self._leave_queue(origin, turn))
        waiting.append(turn)
        return turn

    def release(self, origin: Origin) -> None:
        """Release a slot: in the next turn it goes to the request that has waited longest."""
        if self._waiting.get(origin) and not self._closed:
            # Not at once: the connection that released it is still inside its own callback.
            self._clock.callLater(0, self._pass_on, origin)
        else:
            self._free(origin)

    def close(self) -> None:
        """Fail all requests that wait."""
        self._closed = True
        for waiting in list(self._waiting.values()):
            while waiting:
                waiting.popleft().errback(ClientClosed())
        self._waiting.clear()

    def _pass_on(self, origin: Origin) -> None:
        waiting = self._waiting.get(origin)
        if not waiting:
            self._free(origin)
            return
        turn = waiting.popleft()
        if not waiting:
            del self._waiting[origin]
        turn.callback(None)

    def _free(self, origin: Origin) -> None:
        remaining = self._running[origin] - 1
        if remaining:
            self._running[origin] = remaining
        else:
            del self._running[origin]

    def _leave_queue(self, origin: Origin, turn: Deferred[None]) -> None:
        waiting = self._waiting[origin]
        waiting.remove(turn)
        if not waiting:
            del self._waiting[origin]
