"""Grouped items: items in the order in which they came, each of a group, and the largest group."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T", bound=Hashable)


class GroupedItems(Generic[_T]):
    """
    Items in their order and by group; each operation takes O(1).

    :ivar largest_size: items of the largest group; 0 if there is none.
    """

    def __init__(self) -> None:
        self.largest_size = 0
        # Oldest first, with their groups.
        self._group_of: OrderedDict[_T, str] = OrderedDict()
        self._groups: dict[str, OrderedDict[_T, None]] = {}
        # The groups by size, each that has had it longest first.
        self._groups_by_size: dict[int, OrderedDict[str, None]] = {}

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
        size = len(same)
        self._resize(group, size - 1, size)
        self.largest_size = max(self.largest_size, size)
        return size == 1

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
        size = len(same)
        self._resize(group, size + 1, size)
        # No size is skipped: this group is one below.
        if self.largest_size not in self._groups_by_size:
            self.largest_size -= 1
        if size:
            return None
        del self._groups[group]
        return group

    def newest(self) -> _T:
        """Return the newest item; there must be one."""
        return next(reversed(self._group_of))

    def newest_of(self, group: str) -> _T:
        """Return the newest item of a group that has one."""
        return next(reversed(self._groups[group]))

    def oldest_of(self, group: str) -> _T:
        """Return the oldest item of a group that has one."""
        return next(iter(self._groups[group]))

    def largest_group(self) -> str:
        """Return the group that has been a largest one for longest; there must be one."""
        return next(iter(self._groups_by_size[self.largest_size]))

    def size_of(self, group: str) -> int:
        """Return how many items a group has."""
        return len(self._groups.get(group, ()))

    def group_of(self, item: _T) -> str | None:
        """Return the group of an item; None if it is not here."""
        return self._group_of.get(item)

    def _resize(self, group: str, before: int, after: int) -> None:
        if before:
            groups = self._groups_by_size[before]
            del groups[group]
            if not groups:
                del self._groups_by_size[before]
        if after:
            self._groups_by_size.setdefault(after, OrderedDict())[group] = None
