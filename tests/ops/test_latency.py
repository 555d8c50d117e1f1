"""How late the reactor is: counted, and remembered where it was much."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.ops.latency import SPIKE, SPIKES_KEPT, Latency


class LatencyTests(SynchronousTestCase):
    """:class:`Latency`."""

    def setUp(self) -> None:
        self.latency = Latency()

    def test_spikes(self) -> None:
        """From SPIKE on a lateness is remembered, the latest first, in bounds."""
        self.latency.note(SPIKE - 0.0001, 1.0)
        self.assertEqual(list(self.latency.spikes(10)), [])
        for i in range(SPIKES_KEPT + 5):
            self.latency.note(SPIKE + i, float(i))
        self.assertEqual(len(list(self.latency.spikes(1000))), SPIKES_KEPT)
        newest = next(self.latency.spikes(1))
        self.assertEqual((newest.at, newest.seconds), (SPIKES_KEPT + 4.0, SPIKE + SPIKES_KEPT + 4))
        self.assertEqual(self.latency.lateness.count, SPIKES_KEPT + 6)

    def test_clock_set_back(self) -> None:
        """A call that comes too early, as the clock was set back, is not late."""
        self.latency.note(-3600.0, 0.0)
        self.assertEqual((self.latency.lateness.count, self.latency.lateness.maximum), (1, 0.0))

    def test_reset(self) -> None:
        """A reset forgets all."""
        self.latency.note(1.0, 0.0)
        self.latency.reset()
        self.assertEqual((self.latency.lateness.count, list(self.latency.spikes(9))), (0, []))
