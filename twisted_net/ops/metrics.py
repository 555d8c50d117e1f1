"""Figures that take more than an integer: a histogram with fixed buckets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil

SECONDS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
"""Bounds for times that a reactor knows, from 0.1 ms on: three to each power of ten."""


class Histogram:
    """
    How often a value fell into which range, in memory that does not grow.

    :param bounds: the upper ends of the ranges, ascending, each belonging to its range; above the
        last there is one more.
    :ivar counts: values by range.
    :ivar count: values in all.
    :ivar total: their sum.
    :ivar most: the greatest; 0 before the first.
    """

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self.counts = [0] * (len(self.bounds) + 1)
        self.count = 0
        self.total = 0.0
        self.most = 0.0

    def note(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value
        self.most = max(self.most, value)

    def quantile(self, share: float) -> float:
        """
        Give a value that at least this share of all values is not above; 0 where there is none.

        It is the upper end of a range, or the greatest value where that is less: the true
        quantile lies in the same range.

        :param share: above 0 and at most 1.
        """
        left = ceil(share * self.count)
        for count, bound in zip(self.counts, self.bounds, strict=False):
            left -= count
            if left <= 0:
                return min(bound, self.most)
        return self.most
