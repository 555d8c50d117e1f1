"""A function is called at an interval, whatever it raises, while its service runs."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.periodic_call import PeriodicCall


class PeriodicCallTests(SynchronousTestCase):
    """:class:`PeriodicCall`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[tuple[float, float]] = []
        self.service = PeriodicCall(self.clock, 1.0, self.called)

    def called(self, late: float) -> None:
        """Note when this is called, and how late."""
        self.calls.append((self.clock.seconds(), late))

    def test_interval(self) -> None:
        """It is called once in each interval; a late call moves the later ones."""
        self.service.startService()
        self.service.startService()
        self.clock.pump([1.0, 1.5, 0.5, 0.5])
        self.assertEqual(self.calls, [(1.0, 0.0), (2.5, 0.5), (3.5, 0.0)])

    def test_stop(self) -> None:
        """A stop leaves no call, also a second one; it may be started again."""
        self.service.stopService()
        self.service.startService()
        self.service.stopService()
        self.service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.service.startService()
        self.clock.advance(1.0)
        self.assertEqual(len(self.calls), 1)

    def test_raises(self) -> None:
        """A function that raises is called again."""

        def fail(late: float) -> None:
            self.called(late)
            raise ZeroDivisionError

        PeriodicCall(self.clock, 1.0, fail).startService()
        for _ in range(3):
            self.assertRaises(ZeroDivisionError, self.clock.advance, 1.0)
        self.assertEqual(len(self.calls), 3)

    def test_stop_within(self) -> None:
        """The function may stop the service."""
        service = PeriodicCall(self.clock, 1.0, lambda _: service.stopService())
        service.startService()
        self.clock.advance(1.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
