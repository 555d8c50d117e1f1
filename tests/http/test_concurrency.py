"""Tests of :mod:`twisted_net.http.concurrency`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.concurrency import ConcurrencyLimiter
from twisted_net.http.errors import ClientClosed, OriginBusy

HERE = ("http", "here", 80)
THERE = ("http", "there", 80)


class ConcurrencyLimiterTests(SynchronousTestCase):
    """:class:`ConcurrencyLimiter` runs requests up to its limit, and the others in order."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.limiter = ConcurrencyLimiter(self.clock, 2, 3)

    def fill(self) -> None:
        """Acquire all slots."""
        for _ in range(2):
            self.assertIsNone(self.limiter.acquire(HERE))

    def wait(self) -> Deferred[None]:
        """Join the queue."""
        turn = self.limiter.acquire(HERE)
        assert turn is not None
        return turn

    def test_limit(self) -> None:
        """The limit is that of each origin."""
        self.fill()
        self.assertNoResult(self.wait())
        self.assertIsNone(self.limiter.acquire(THERE))

    def test_in_order(self) -> None:
        """First come, first served: one for each slot that is released."""
        self.fill()
        first, second = self.wait(), self.wait()
        self.limiter.release(HERE)
        self.assertNoResult(first)
        self.clock.advance(0)
        self.successResultOf(first)
        self.assertNoResult(second)

    def test_nobody_passes(self) -> None:
        """A request that comes while a slot is being passed on joins the queue."""
        self.fill()
        first = self.wait()
        self.limiter.release(HERE)
        second = self.wait()
        self.clock.advance(0)
        self.successResultOf(first)
        self.assertNoResult(second)

    def test_full_line(self) -> None:
        """A full queue refuses at once."""
        self.fill()
        for _ in range(3):
            self.wait()
        error = self.assertRaises(OriginBusy, self.limiter.acquire, HERE)
        self.assertEqual(
            str(error), "2 requests to here are running and 3 are waiting; try again later"
        )

    def test_leave(self) -> None:
        """A request that leaves the queue is skipped; its slot is not lost."""
        self.fill()
        first, second = self.wait(), self.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.limiter.release(HERE)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.clock.advance(0)
        self.assertIsNone(self.limiter.acquire(HERE))
        self.wait()

    def test_nothing_is_kept(self) -> None:
        """Nothing is kept about an origin without requests."""
        self.fill()
        self.limiter.release(HERE)
        self.limiter.release(HERE)
        inside: Any = self.limiter  # Any: what it holds is its own affair, but for this
        self.assertEqual((inside._running, inside._waiting), ({}, {}))

    def test_close(self) -> None:
        """Requests that wait fail; those that run may still release their slots."""
        self.fill()
        turn = self.wait()
        self.limiter.close()
        self.failureResultOf(turn, ClientClosed)
        self.limiter.release(HERE)
        self.assertEqual(self.clock.getDelayedCalls(), [])
