"""Fair backlog: what waits for a thread, by client, so that no client keeps the others waiting."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from twisted_net.net.length_ranking import LengthRanking

_T = TypeVar("_T", bound=Hashable)


class FairBacklog(Generic[_T]):
    """
    Items of many clients that wait for one of a few workers.

    Clients take turns; each one's items are taken in their order. A client gets no further worker
    while it has as many as are free ("dynamic threshold", Choudhury and Hahne 1998): one client
    alone has half of them at most, and the next finds a free one. Over the limit, the client that
    has most items waiting loses its newest ("longest queue drop").

    :param limit: items that may wait or be worked on.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._at_work = 0
        # Items by client, oldest first. The first client has waited longest for its turn.
        self._waiting: OrderedDict[str, OrderedDict[_T, None]] = OrderedDict()
        self._running: dict[str, int] = {}
        self._lengths = LengthRanking()  # of clients

    def __len__(self) -> int:
        """Return how many items wait or are worked on."""
        return self._size + self._at_work

    def add(self, client: str, item: _T) -> _T | None:
        """
        Let an item wait.

        :return: the one that has no place any more, or None; it may be *item*.
        """
        if len(self) < self._limit:
            self._append(client, item)
            return None
        mine = len(self._waiting.get(client, ()))
        if mine + 1 >= self._lengths.longest:
            return item
        longest = self._lengths.first()
        newest = next(reversed(self._waiting[longest]))
        self._remove(longest, newest)
        self._append(client, item)
        return newest

    def take(self, free: int) -> tuple[str, _T] | None:
        """
        Take the item that is next, with its client; call :meth:`finished` when it is done.

        :param free: workers that are idle.
        :return: None if nothing waits that may have a worker.
        """
        # At most as many clients are passed over as there are workers: each has one.
        for client, items in self._waiting.items():
            if self._running.get(client, 0) < free:
                item = next(iter(items))
                self._waiting.move_to_end(client)
                self._remove(client, item)
                self._running[client] = self._running.get(client, 0) + 1
                self._at_work += 1
                return client, item
        return None

    def finished(self, client: str) -> None:
        """Note that a worker is done with an item of this client."""
        self._at_work -= 1
        running = self._running.pop(client) - 1
        if running:
            self._running[client] = running

    def discard(self, client: str, item: _T) -> bool:
        """Remove an item, if it waits; return whether it did."""
        waits = item in self._waiting.get(client, ())
        if waits:
            self._remove(client, item)
        return waits

    def _append(self, client: str, item: _T) -> None:
        items = self._waiting.setdefault(client, OrderedDict())
        items[item] = None
        self._size += 1
        self._lengths.grown(client, len(items))

    def _remove(self, client: str, item: _T) -> None:
        items = self._waiting[client]
        del items[item]
        self._size -= 1
        if not items:
            del self._waiting[client]
        self._lengths.shrunk(client, len(items))
