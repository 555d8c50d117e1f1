"""A histogram counts each value in its range, and bounds every quantile."""

from __future__ import annotations

from math import ceil

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.ops.histogram import SECONDS, Histogram

BOUNDS = (1.0, 2.0, 5.0)


class HistogramTests(SynchronousTestCase):
    """:class:`Histogram`."""

    def test_empty(self) -> None:
        """Without values all figures are 0."""
        histogram = Histogram(BOUNDS)
        self.assertEqual(histogram.counts, [0, 0, 0, 0])
        self.assertEqual((histogram.count, histogram.total, histogram.maximum), (0, 0.0, 0.0))
        self.assertEqual((histogram.quantile(0.5), histogram.quantile(1.0)), (0.0, 0.0))

    def test_bounds(self) -> None:
        """A bound belongs to its range; what is above the last has a range of its own."""
        histogram = Histogram(BOUNDS)
        for value in (0.0, 1.0, 1.1, 2.0, 5.0, 5.1):
            histogram.note(value)
        self.assertEqual(histogram.counts, [2, 2, 1, 1])

    def test_reset(self) -> None:
        """After a reset it is as at the start."""
        histogram = Histogram(BOUNDS)
        histogram.note(7.0)
        histogram.reset()
        self.assertEqual((histogram.counts, histogram.maximum), ([0, 0, 0, 0], 0.0))

    def test_seconds(self) -> None:
        """The bounds for times ascend from 0.1 ms to 10 s."""
        self.assertEqual(list(SECONDS), sorted(set(SECONDS)))
        self.assertEqual((SECONDS[0], SECONDS[-1]), (0.0001, 10.0))

    @given(
        st.lists(st.floats(0, 10, allow_nan=False), min_size=1, max_size=50),
        st.floats(0, 1, exclude_min=True),
    )
    def test_quantile(self, values: list[float], share: float) -> None:
        """A quantile is not below the true one, and in the same range."""
        histogram = Histogram(BOUNDS)
        for value in values:
            histogram.note(value)
        true = sorted(values)[ceil(share * len(values)) - 1]
        found = histogram.quantile(share)
        self.assertGreaterEqual(found, true)
        self.assertLessEqual(found, max(values))
        self.assertFalse([bound for bound in BOUNDS if true <= bound < found])
