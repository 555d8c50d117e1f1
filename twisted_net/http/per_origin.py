"""What is remembered of each origin: one thing apiece, and of so many origins at most."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Origin = tuple[str, str, int]
"""Scheme, host and port; see :attr:`twisted_net.http.urls.HttpTarget.origin`."""

T = TypeVar("T")


class PerOrigin(Generic[T]):
    """
    Gives the one thing that belongs to an origin.

    Beyond the limit the origin that was asked for longest ago is forgotten, and begins anew when
    it is asked for again: so a stranger who makes up host names cannot fill the memory.

    :param make: makes the thing of an origin that is new.
    :param limit: most origins; at least 1.
    """

    def __init__(self, make: Callable[[], T], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._things: OrderedDict[Origin, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._things)

    def of(self, origin: Origin) -> T:
        """Give the thing of *origin*."""
        thing = self._things.get(origin)
        if thing is not None:
            self._things.move_to_end(origin)
            return thing
        thing = self._things[origin] = self._make()
        if len(self._things) > self._limit:
            self._things.popitem(last=False)
        return thing
