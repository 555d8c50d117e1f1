"""
Compares what a further entry costs a large full table with what it costs a small one.

Nothing in Python counts the places that a dictionary walks over, so processor time of this process
is compared with processor time of this process, measured a moment before.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

FACTOR = 3.0
"""
How much more an entry may cost a large table, whose memory is further away. A plain dictionary used
as a queue takes 20 times as much or more, a table that is searched more than that.
"""

SMALL, LARGE = 256, 16_384
"""Entries of the tables that are compared, unless each of them takes long."""

Add = Callable[[int], object]
"""Adds an entry that is new, different for each number."""


def cost_ratio(
    make: Callable[[int], Add], small: int = SMALL, large: int = LARGE, further: int = 2 * LARGE
) -> float:
    """
    Return what an entry of a full large table costs, as a multiple of one of a small table.

    :param make: makes a table with so many places.
    :param further: entries that are added to both once they are full.
    """
    return _cost(make(large), large, further) / _cost(make(small), small, further)


def _cost(add: Add, limit: int, further: int) -> float:
    for number in range(limit):
        add(number)
    gc.collect()
    gc.disable()  # Its work grows with all that other tests have left.
    try:
        begin = time.process_time()
        for number in range(limit, limit + further):
            add(number)
        return time.process_time() - begin
    finally:
        gc.enable()
