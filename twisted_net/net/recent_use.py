"""Recent use: how much each key has used something lately, in a table of bounded size."""

from __future__ import annotations

from math import inf, log2

from twisted_net.net.bounded_table import BoundedTable
from twisted_net.net.rate_limit import MAX_KEYS

NEVER = -inf
"""Level of a key that has used nothing, or that the table no longer has."""


class RecentUse:
    """
    How much each key has used lately: a sum in which each unit counts half after a half-life.

    The sum is kept as a *level*: the binary logarithm of the units, each weighted by two to the
    power of its time in half-lives ("forward decay", Cormode et al. 2009). All levels decay in
    step, so that the order of two keys never changes while neither is charged: levels can be sorted
    once and compared at any time. A unit that is charged one half-life later weighs twice as much.

    :param half_life: seconds.
    :param max_keys: size of the table. At this number the key that was charged longest ago is
        evicted, which counts as never used again.
    """

    def __init__(self, half_life: float, max_keys: int = MAX_KEYS) -> None:
        self._half_life = half_life
        # Least recently charged first.
        self._levels: BoundedTable[str, float] = BoundedTable(max_keys)

    def __len__(self) -> int:
        return len(self._levels)

    def level(self, key: str) -> float:
        """Return the level of a key; the lower, the less it has used. :data:`NEVER` if nothing."""
        level = self._levels.get(key)
        return NEVER if level is None else level

    def exceeds(self, key: str, now: float, units: float) -> bool:
        """Whether a key has used more than these units, those of before weighted by their age."""
        return self.level(key) > log2(units) + now / self._half_life

    def charge(self, key: str, now: float, units: float = 1.0) -> None:
        """
        Charge units to a key.

        :param units: above 0.
        """
        level = joint_level(self.level(key), log2(units) + now / self._half_life)
        self._levels[key] = level
        self._levels.move_to_end(key)

    def take_back(self, key: str, now: float, units: float) -> None:
        """
        Take back units that were charged to a key a moment ago.

        They count as they would if they were charged now: a little more than they did.
        """
        level = self.level(key)
        rest = 1.0 - 2.0 ** min(log2(units) + now / self._half_life - level, 1.0)
        if rest > 0:
            self._levels[key] = level + log2(rest)
        else:
            self._levels.pop(key)


def joint_level(one: float, other: float) -> float:
    """Return the level of what two keys have used together."""
    low, high = sorted((one, other))
    return high if low == NEVER else high + log2(1.0 + 2.0 ** (low - high))
