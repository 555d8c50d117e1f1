"""Metrics: histograms with fixed buckets, for latencies."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil

SECONDS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
"""Bucket bounds for delays of a reactor, in seconds: three to each power of ten."""


class Histogram:
    """
    How many values fell into each bucket, in memory of fixed size.

    :param bounds: the inclusive upper bounds of the buckets, ascending; one more bucket holds
        what is above the last.
    :ivar counts: values by bucket.
    :ivar count: values in all.
    :ivar total: their sum.
    :ivar maximum: the greatest value; 0 before the first.
    """

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.reset()

    def reset(self) -> None:
        """Drop all values."""
        self.counts = [0] * (len(self.bounds) + 1)
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0

    def note(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value
        self.maximum = max(self.maximum, value)

    def quantile(self, share: float) -> float:
        """
        Return an upper bound of a quantile; 0 if there is no value.

        It is the upper bound of the quantile's bucket, or the greatest value if that is less.

        :param share: above 0 and at most 1.
        """
        left = ceil(share * self.count)
        for count, bound in zip(self.counts, self.bounds, strict=False):
            left -= count
            if left <= 0:
                return min(bound, self.maximum)
        return self.maximum
