"""
Compares what an entry of a table costs once the table is full with what it cost before.

Nothing in Python counts the places that a dictionary walks over, so processor time of this process
is compared with processor time of this process, measured a moment before.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

FACTOR = 8.0
"""
How much more an entry may cost at the limit: the oldest one is evicted, too. A plain dictionary
used as a queue takes 50 times as much at :data:`TABLE_LIMIT`, a list that is searched more.
"""

TABLE_LIMIT = 32_768
"""Entries of the tables that are compared, unless each of them takes long."""

TIMES = 10
"""How many limits of further entries come to the full table."""


def cost(add: Callable[[int], object], numbers: range) -> float:
    """Return the seconds of processor time that a call takes, on average."""
    begin = time.process_time()
    for number in numbers:
        add(number)
    return (time.process_time() - begin) / len(numbers)


def cost_when_full(
    add: Callable[[int], object], limit: int = TABLE_LIMIT, times: int = TIMES
) -> float:
    """
    Fill a table, then go on; return what an entry costs then, as a multiple of before.

    :param add: adds an entry that is new, different for each number.
    :param limit: entries that the table takes.
    :param times: how many limits of further entries come.
    """
    gc.collect()
    gc.disable()  # Its work grows with all that other tests have left.
    try:
        before = cost(add, range(limit))
        return cost(add, range(limit, limit * (1 + times))) / before
    finally:
        gc.enable()
