"""State per origin: a table with one value for each origin, limited by evicting the oldest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted_net.http.urls import Origin as Origin
from twisted_net.net.bounded_table import BoundedTable

T = TypeVar("T")


class PerOrigin(Generic[T]):
    """
    Table of one value per origin, made at its first use.

    Beyond the limit the least recently used origin is evicted, and gets a new value at its next
    use: made-up host names cannot fill the memory.

    :param make: makes the value of a new origin.
    :param limit: origins in the table; at least 1.
    """

    def __init__(self, make: Callable[[], T], limit: int) -> None:
        self._make = make
        self._values: BoundedTable[Origin, T] = BoundedTable(limit)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, origin: Origin) -> T:
        """Return the value of *origin*."""
        value = self._values.get(origin)
        if value is not None:
            self._values.move_to_end(origin)
            return value
        value = self._values[origin] = self._make()
        return value
