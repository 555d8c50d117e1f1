"""Bounded table: a dictionary in order, of bounded size, that evicts its oldest entry in O(1)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, ValuesView
from itertools import islice
from typing import Generic, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


class BoundedTable(Generic[_K, _V]):
    """
    Entries in their order, as in an ``OrderedDict``; at the limit a new key evicts the oldest one.

    A new key is the newest. One that is set again keeps its place: :attr:`move_to_end` makes it the
    newest, in a table that is to evict the least recently used. All operations take O(1), at the
    limit, too: to find its first key, a plain dictionary walks over the places of all keys that
    were removed in front of it, 60 µs where new keys come to a table of 65,536.

    :param limit: number of entries; with 0 each is evicted at once.
    :param evicted: called with the key and the value of an evicted entry. The table has the new
        entry then, and not that one; it may be changed.
    :ivar get: ``get(key)`` returns the value of a key, or None.
    :ivar move_to_end: ``move_to_end(key)`` makes a key the newest, or raises KeyError.
    """

    __slots__ = ("_entries", "_evicted", "_limit", "get", "move_to_end")

    get: Callable[[_K], _V | None]
    move_to_end: Callable[[_K], None]

    def __init__(self, limit: int, evicted: Callable[[_K, _V], object] | None = None) -> None:
        self._limit = limit
        self._evicted = evicted
        self._entries: OrderedDict[_K, _V] = OrderedDict()
        # Attributes of its own: a datagram makes several look-ups, and a call of Python's would
        # take as long as two of them.
        self.get = self._entries.get
        self.move_to_end = self._entries.move_to_end

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: _K) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[_K]:
        """Iterate over the keys, oldest first; the table must not be changed meanwhile."""
        return iter(self._entries)

    def __getitem__(self, key: _K) -> _V:
        return self._entries[key]

    def __setitem__(self, key: _K, value: _V) -> None:
        """Set the value of a key; a new one over the limit evicts the oldest."""
        entries = self._entries
        entries[key] = value
        if len(entries) > self._limit:
            oldest = entries.popitem(last=False)
            if self._evicted is not None:
                self._evicted(*oldest)

    def __delitem__(self, key: _K) -> None:
        del self._entries[key]

    def pop(self, key: _K) -> _V | None:
        """Remove a key, and return its value; None if it is not here."""
        return self._entries.pop(key, None)

    def oldest(self) -> tuple[_K, _V] | None:
        """Return the oldest key with its value; None if the table is empty."""
        return next(iter(self._entries.items()), None)

    def newest(self, count: int) -> list[tuple[_K, _V]]:
        """Return up to *count* keys with their values, newest first."""
        return list(islice(reversed(self._entries.items()), count))

    def values(self) -> ValuesView[_V]:
        """Return a view of the values, oldest first."""
        return self._entries.values()

    def clear(self) -> None:
        """Remove all entries; none of them counts as evicted."""
        self._entries.clear()
