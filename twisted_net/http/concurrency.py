"""How many requests to one origin run at a time, and how the others wait for their turn."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_net.http.errors import ClientClosed, OriginBusy
from twisted_net.http.per_origin import Origin


class ConcurrencyLimiter:
    """
    Lets at most so many requests to one origin run at a time.

    The others wait in one line per origin: who came first is first, and nobody new passes those
    who wait. What is remembered of an origin is forgotten when nothing to it runs.

    :param limit: most requests that run, for each origin.
    :param max_queued: most that wait, for each origin.
    """

    def __init__(self, clock: IReactorTime, limit: int, max_queued: int) -> None:
        self._clock = clock
        self._limit = limit
        self._max_queued = max_queued
        self._taken: dict[Origin, int] = {}
        self._waiting: dict[Origin, deque[Deferred[None]]] = {}
        self._closed = False

    def take(self, origin: Origin) -> Deferred[None] | None:
        """
        Take a slot; whoever has one gives it back with :meth:`give_back`.

        :returns: None where there was one; else a Deferred that fires when there is. Cancelling
            it leaves the line. It fails with ClientClosed on :meth:`close`.
        :raises OriginBusy: where as many wait as may.
        """
        taken = self._taken.get(origin, 0)
        waiting = self._waiting.get(origin)
        if taken < self._limit and not waiting:
            self._taken[origin] = taken + 1
            return None
        if waiting is None:
            waiting = self._waiting[origin] = deque()
        if len(waiting) >= self._max_queued:
            raise OriginBusy(origin[1], taken, len(waiting))
        turn: Deferred[None] = Deferred(lambda turn: self._leave(origin, turn))
        waiting.append(turn)
        return turn

    def give_back(self, origin: Origin) -> None:
        """Give back a slot: it goes to who has waited for longest, in the next turn."""
        if self._waiting.get(origin) and not self._closed:
            # Not at once: the connection that was given back is still inside its own callback.
            self._clock.callLater(0, self._hand_on, origin)
        else:
            self._free(origin)

    def close(self) -> None:
        """Fail all that wait."""
        self._closed = True
        for waiting in list(self._waiting.values()):
            while waiting:
                waiting.popleft().errback(ClientClosed())
        self._waiting.clear()

    def _hand_on(self, origin: Origin) -> None:
        waiting = self._waiting.get(origin)
        if not waiting:
            self._free(origin)
            return
        turn = waiting.popleft()
        if not waiting:
            del self._waiting[origin]
        turn.callback(None)

    def _free(self, origin: Origin) -> None:
        left = self._taken[origin] - 1
        if left:
            self._taken[origin] = left
        else:
            del self._taken[origin]

    def _leave(self, origin: Origin, turn: Deferred[None]) -> None:
        waiting = self._waiting[origin]
        waiting.remove(turn)
        if not waiting:
            del self._waiting[origin]
