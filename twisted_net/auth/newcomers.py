"""Newcomers: whose password is checked next of those that nothing is known of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from twisted_net.net.grouped_items import GroupedItems

_T = TypeVar("_T", bound=Hashable)


class Newcomers(Generic[_T]):
    """
    Items of sources that nothing is known of, in an order that a crowd of these cannot fill.

    Three ways of choosing take turns, the first one three times of four:

    1. the newest: of more than can be served in time the oldest have waited in vain, and first
       come, first served would serve everybody too late;
    2. the newest of a name: names take turns, so that many sources that try one name do not keep
       out those of another;
    3. by chance: a few clients that come anew as soon as they are served would else always be the
       newest.

    Who gives way is the oldest item of the name that has most.
    """

    def __init__(self) -> None:
        self._items: GroupedItems[_T] = GroupedItems()  # by name
        self._turns: OrderedDict[str, None] = OrderedDict()  # names; the last is next
        # In any order, and where each is.
        self._drawn_from: list[_T] = []
        self._places: dict[_T, int] = {}
        self._taken = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: _T, name: str) -> None:
        """Add an item."""
        if self._items.add(item, name):
            self._turns[name] = None
        self._places[item] = len(self._drawn_from)
        self._drawn_from.append(item)

    def take(self, chance: float) -> _T:
        """
        Remove and return the one that is next; there must be one.

        :param chance: a number drawn evenly from 0 to 1.
        """
        self._taken += 1
        if self._taken % 4:
            item = self._items.newest()
        elif self._taken % 8:
            item = self._items.newest_of(next(reversed(self._turns)))
        else:
            item = self._drawn_from[min(int(chance * len(self)), len(self) - 1)]
        self._turns.move_to_end(self._items.group_of(item), last=False)
        self.discard(item)
        return item

    def remove_worst(self) -> _T:
        """Remove and return the one that gives way; there must be one."""
        item = self._items.oldest_of_largest()
        self.discard(item)
        return item

    def discard(self, item: _T) -> None:
        """Remove an item, if it is here."""
        if item not in self._items:
            return
        name = self._items.discard(item)
        if name is not None:
            del self._turns[name]
        place, last = self._places.pop(item), self._drawn_from.pop()
        if last != item:
            self._drawn_from[place] = last
            self._places[last] = place
