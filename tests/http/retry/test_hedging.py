"""Tests of :mod:`twisted_net.http.retry.hedging`; :mod:`tests.http.retry.test_agent` has more."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.retry.hedging import hedge


class HedgeTests(SynchronousTestCase):
    """:func:`hedge` returns the first good result of two."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.started: list[Deferred[int]] = []
        self.cancelled: list[Deferred[int]] = []
        self.racing = hedge(
            self.clock, self.start, 1.0, lambda: True, lambda result, last: result > 0
        )

    def start(self) -> Deferred[int]:
        """Begin one."""
        self.started.append(Deferred(self.cancelled.append))
        return self.started[-1]

    def test_good(self) -> None:
        """The first good result is used, whichever attempt it is of."""
        self.clock.advance(1.0)
        self.started[1].callback(5)
        self.assertEqual(self.successResultOf(self.racing), 5)
        self.assertEqual(self.cancelled, self.started[:1])

    def test_none_good(self) -> None:
        """If none is good the last is returned; without a second attempt, the first."""
        self.clock.advance(1.0)
        self.started[1].callback(-1)
        self.assertNoResult(self.racing)
        self.started[0].callback(-2)
        self.assertEqual(self.successResultOf(self.racing), -2)
        self.setUp()
        self.started[0].callback(-3)
        self.assertEqual(self.successResultOf(self.racing), -3)
        self.assertEqual(self.clock.getDelayedCalls(), [])
