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

    The newest is next: of more than can be served in time the oldest have waited in vain, and first
    come, first served would serve everybody too late. It comes only after the one that found nobody
    waiting, which was there before the crowd.

    Those that the newest keep out can be chosen in two ways, which take turns:

    1. the newest of a name: names take turns, so that many sources that try one name do not keep
       out those of another;
    2. by chance: a few clients that come anew as soon as they are served would else always be the
       newest.

    Who gives way is the oldest item of the name that has most.
    """

    def __init__(self) -> None:
        # The item that came when there was none, with its time.
        self._first: tuple[_T, float] | None = None
        self._items: GroupedItems[_T] = GroupedItems()  # the others, by name
        self._turns: OrderedDict[str, None] = OrderedDict()  # names; the last is next
        self._name_is_next = True
        # Items and times, in any order, and where each is.
        self._drawn_from: list[tuple[_T, float]] = []
        self._places: dict[_T, int] = {}

    def __len__(self) -> int:
        return len(self._items) + (self._first is not None)

    def add(self, item: _T, name: str, now: float) -> None:
        """Add an item."""
        if not len(self):
            self._first = item, now
            return
        if self._items.add(item, name):
            self._turns[name] = None
        self._places[item] = len(self._drawn_from)
        self._drawn_from.append((item, now))

    def newest_since(self) -> float:
        """Return the time at which the newest item was added; there must be one."""
        if self._items:
            return self._drawn_from[self._places[self._items.newest()]][1]
        assert self._first is not None
        return self._first[1]

    def take(self) -> _T:
        """Remove and return the one that is next; there must be one."""
        if self._first is None:
            return self._take(self._items.newest())
        (item, _), self._first = self._first, None
        return item

    def take_passed_over(self, chance: float) -> _T:
        """
        Remove and return one that the newest keep out; there must be one.

        :param chance: a number drawn evenly from 0 to 1.
        """
        if not self._items:
            return self.take()
        self._name_is_next, by_name = not self._name_is_next, self._name_is_next
        if by_name:
            return self._take(self._items.newest_of(next(reversed(self._turns))))
        last = len(self._drawn_from) - 1
        return self._take(self._drawn_from[min(int(chance * (last + 1)), last)][0])

    def remove_worst(self) -> _T:
        """Remove and return the one that gives way; there must be one."""
        if not self._items:
            return self.take()
        item = self._items.oldest_of(self._items.largest_group())
        self.discard(item)
        return item

    def discard(self, item: _T) -> None:
        """Remove an item, if it is here."""
        if self._first is not None and item == self._first[0]:
            self._first = None
        if item not in self._items:
            return
        name = self._items.discard(item)
        if name is not None:
            del self._turns[name]
        place, last = self._places.pop(item), self._drawn_from.pop()
        if last[0] != item:
            self._drawn_from[place] = last
            self._places[last[0]] = place

    def _take(self, item: _T) -> _T:
        name = self._items.group_of(item)
        assert name is not None
        self._turns.move_to_end(name, last=False)
        self.discard(item)
        return item
