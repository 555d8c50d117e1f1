"""The probe notes how late the reactor calls it, while it runs and no longer."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.ops.latency import PROBE_INTERVAL, Latency
from twisted_net.ops.latency_probe import LatencyProbe


class LatencyProbeTests(SynchronousTestCase):
    """:class:`LatencyProbe`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.latency = Latency()
        self.probe = LatencyProbe(self.clock, self.latency, lambda: 1000.0 + self.clock.seconds())

    def test_in_time(self) -> None:
        """A reactor that is in time is late by nothing, ten times a second."""
        self.probe.startService()
        self.clock.pump([PROBE_INTERVAL] * 10)
        self.assertEqual(self.latency.lateness.count, 10)
        self.assertAlmostEqual(self.latency.lateness.maximum, 0.0)

    def test_late(self) -> None:
        """A reactor that was held is seen, with the time at which it was free again."""
        self.probe.startService()
        self.clock.advance(PROBE_INTERVAL + 0.25)
        (spike,) = self.latency.spikes(10)
        self.assertAlmostEqual(spike.seconds, 0.25)
        self.assertAlmostEqual(spike.at, 1000.35)

    def test_stopped(self) -> None:
        """A stop leaves no call, also a second one; it may be started again, once."""
        self.probe.startService()
        self.probe.stopService()
        self.probe.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.probe.startService()
        self.probe.startService()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.probe.stopService()
