"""Grouped items: items in the order in which they came, each of a group, and the largest group."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from twisted_net.net.length_ranking import LengthRanking

_T = TypeVar("_T", bound=Hashable)


class GroupedItems(Generic[_T]):
    """Items in their order and by group; each operation takes O(1)."""

    def __init__(self) -> None:
        # Oldest first, with their groups.
        self._group_of: OrderedDict[_T, str] = OrderedDict()
        self._groups: dict[str, OrderedDict[_T, None]] = {}
        self._lengths = LengthRanking()  # of groups

    def __len__(self) -> int:
        return len(self._group_of)

    def __contains__(self, item: _T) -> bool:
        return item in self._group_of

    def add(self, item: _T, group: str) -> bool:
        """
        Add an item as the newest.

        :param item: not here yet.
        :return: whether it is the only one of its group.
        """
        self._group_of[item] = group
        same = self._groups.setdefault(group, OrderedDict())
        same[item] = None
        self._lengths.grown(group, len(same))
        return len(same) == 1

    def discard(self, item: _T) -> str | None:
        """
        Remove an item, if it is here.

        :return: its group, if it was the last one of it.
        """
        group = self._group_of.pop(item, None)
        if group is None:
            return None
        same = self._groups[group]
        del same[item]
        if not same:
            del self._groups[group]
        self._lengths.shrunk(group, len(same))
        return None if same else group

    def newest(self) -> _T:
        """Return the newest item; there must be one."""
        return next(reversed(self._group_of))

    def newest_of(self, group: str) -> _T:
        """Return the newest item of a group that has one."""
        return next(reversed(self._groups[group]))

    def oldest_of_largest(self) -> _T:
        """Return the oldest item of a largest group; there must be one."""
        return next(iter(self._groups[self._lengths.first()]))

    def group_of(self, item: _T) -> str:
        """Return the group of an item that is here."""
        return self._group_of[item]
