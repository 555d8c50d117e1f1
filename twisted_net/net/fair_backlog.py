"""Fair backlog: what waits for a thread, by client, so that no client keeps the others waiting."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from twisted_net.net.grouped_items import GroupedItems

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
        self._at_work = 0
        self._waiting: GroupedItems[_T] = GroupedItems()  # by client
        # Clients that have items. The first has waited longest for its turn.
        self._turns: OrderedDict[str, None] = OrderedDict()
        self._running: dict[str, int] = {}

    def __len__(self) -> int:
        """Return how many items wait or are worked on."""
        return len(self._waiting) + self._at_work

    def add(self, client: str, item: _T) -> _T | None:
        """
        Let an item wait.

        :return: the one that has no place any more, or None; it may be *item*.
        """
        surplus = None
        if len(self) >= self._limit:
            surplus = self.displace(client)
            if surplus is None:
                return item
        if self._waiting.add(item, client):
            self._turns[client] = None
        return surplus

    def displace(self, client: str) -> _T | None:
        """
        Remove the newest item of the client that has most waiting, to make room for one more.

        :param client: whose item is to have the room.
        :return: None if no other client has more than it would have then: nothing is removed.
        """
        if self._waiting.size_of(client) + 1 >= self._waiting.largest_size:
            return None
        surplus = self._waiting.newest_of(self._waiting.largest_group())
        self._remove(surplus)
        return surplus

    def take(self, free: int) -> tuple[str, _T] | None:
        """
        Take the item that is next, with its client; call :meth:`finished` when it is done.

        :param free: workers that are idle.
        :return: None if nothing waits that may have a worker.
        """
        # At most as many clients are passed over as there are workers: each has one.
        for client in self._turns:
            if self._running.get(client, 0) < free:
                item = self._waiting.oldest_of(client)
                self._turns.move_to_end(client)
                self._remove(item)
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
        waits = self._waiting.group_of(item) == client
        if waits:
            self._remove(item)
        return waits

    def _remove(self, item: _T) -> None:
        client = self._waiting.discard(item)
        if client is not None:
            del self._turns[client]
