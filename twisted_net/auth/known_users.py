"""Known users: who logs in where its password was right before, and in which order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable
from typing import Generic, TypeVar

from twisted_net.net.grouped_items import GroupedItems
from twisted_net.net.recent_use import RecentUse

MAX_KNOWN = 4096
"""Pairs of a source and a name that are remembered because the password was right."""

_T = TypeVar("_T", bound=Hashable)


class KnownPairs:
    """
    Pairs of a source and a name whose password was right from there.

    At the limit the name that has most pairs loses its oldest: a user who logs in from everywhere
    makes nobody else unknown.
    """

    def __init__(self, limit: int = MAX_KNOWN) -> None:
        self._limit = limit
        self._pairs: GroupedItems[tuple[str, str]] = GroupedItems()

    def __len__(self) -> int:
        return len(self._pairs)

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair in self._pairs

    def add(self, source: str, name: str) -> None:
        """Remember a pair, as the newest."""
        self._pairs.discard((source, name))
        self._pairs.add((source, name), name)
        if len(self._pairs) > self._limit:
            self._pairs.discard(self._pairs.oldest_of(self._pairs.largest_group()))


class KnownUsers(Generic[_T]):
    """
    Items of known users; the name that has asked for the least lately is next.

    So a user who logs in without end, from however many addresses, comes after the others. Who
    gives way is the oldest item of the name that has most.

    :param half_life: see :class:`~twisted_net.net.recent_use.RecentUse`.
    """

    def __init__(self, half_life: float) -> None:
        self._use = RecentUse(half_life, MAX_KNOWN)
        self._items: GroupedItems[_T] = GroupedItems()
        # The names of the items, with their levels, the highest first.
        self._names: list[tuple[float, str]] = []
        self._levels: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._items)

    def charge(self, name: str, now: float, units: float) -> None:
        """Charge units to a name."""
        waits = name in self._levels
        if waits:
            self._remove_name(name)
        self._use.charge(name, now, units)
        if waits:
            self._add_name(name)

    def add(self, item: _T, name: str) -> None:
        """Add an item."""
        if self._items.add(item, name):
            self._add_name(name)

    def take(self) -> _T:
        """Remove and return the one that is next; there must be one."""
        item = self._items.newest_of(self._names[-1][1])
        self.discard(item)
        return item

    def remove_worst(self) -> _T:
        """Remove and return the one that gives way; there must be one."""
        item = self._items.oldest_of(self._items.largest_group())
        self.discard(item)
        return item

    def discard(self, item: _T) -> None:
        """Remove an item, if it is here."""
        name = self._items.discard(item)
        if name is not None:
            self._remove_name(name)

    def _add_name(self, name: str) -> None:
        level = self._levels[name] = -self._use.level(name)
        # Insertion moves pointers, which takes 2 µs for 10,000.
        insort(self._names, (level, name))

    def _remove_name(self, name: str) -> None:
        del self._names[bisect_left(self._names, (self._levels.pop(name), name))]
