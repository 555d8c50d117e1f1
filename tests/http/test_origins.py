"""Tests of :mod:`twisted_net.http.origins`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.comparisons import compared_deferreds
from twisted_net.http.errors import ClientClosed, OriginBusy
from twisted_net.http.origins import OriginTable
from twisted_net.http.retry.circuit_breaker import CircuitState
from twisted_net.http.settings import HttpSettings
from twisted_net.http.urls import Origin

HERE = ("http", "here", 80)
THERE = ("http", "there", 80)


class OriginStateTests(SynchronousTestCase):
    """:class:`OriginState` runs requests up to its limit, and the others in order."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.table = OriginTable(self.clock, HttpSettings(max_per_origin=2, max_queued=3))
        self.here = self.table.get(HERE)

    def fill(self) -> None:
        """Acquire all slots."""
        for _ in range(2):
            self.assertIsNone(self.here.acquire())

    def wait(self) -> Deferred[None]:
        """Join the queue."""
        turn = self.here.acquire()
        assert turn is not None
        return turn

    def test_limit(self) -> None:
        """The limit is that of each origin."""
        self.fill()
        self.assertNoResult(self.wait())
        self.assertIsNone(self.table.get(THERE).acquire())

    def test_in_order(self) -> None:
        """First come, first served: one for each slot that is released."""
        self.fill()
        first, second = self.wait(), self.wait()
        self.here.release()
        self.assertNoResult(first)
        self.clock.advance(0)
        self.successResultOf(first)
        self.assertNoResult(second)

    def test_nobody_passes(self) -> None:
        """A request that comes while a slot is being passed on joins the queue."""
        self.fill()
        first = self.wait()
        self.here.release()
        second = self.wait()
        self.clock.advance(0)
        self.successResultOf(first)
        self.assertNoResult(second)

    def test_any_of_many(self) -> None:
        """One of many leaves the queue without a look at the others."""
        self.table = OriginTable(self.clock, HttpSettings(max_per_origin=2, max_queued=50))
        self.here = self.table.get(HERE)
        self.fill()
        waiting = [self.wait() for _ in range(50)]
        with compared_deferreds() as compared:
            for turn in reversed(waiting[1:]):
                turn.cancel()
                self.failureResultOf(turn, CancelledError)
        self.assertEqual(compared, [])
        self.here.release()
        self.clock.advance(0)
        self.successResultOf(waiting[0])

    def test_full_line(self) -> None:
        """A full queue refuses at once."""
        self.fill()
        for _ in range(3):
            self.wait()
        error = self.assertRaises(OriginBusy, self.here.acquire)
        self.assertEqual(
            str(error), "2 requests to here are running and 3 are waiting; try again later"
        )

    def test_leave(self) -> None:
        """A request that leaves the queue is skipped; its slot is not lost."""
        self.fill()
        first, second = self.wait(), self.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.here.release()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.clock.advance(0)
        self.assertIsNone(self.here.acquire())
        self.wait()

    def test_after_close(self) -> None:
        """Nobody joins the queue of a table that is closed: none of it would be passed on."""
        self.fill()
        self.table.close()
        self.assertRaises(ClientClosed, self.here.acquire)

    def test_close(self) -> None:
        """Requests that wait fail; those that run may still release their slots."""
        self.fill()
        turn = self.wait()
        self.table.close()
        self.failureResultOf(turn, ClientClosed)
        self.here.release()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OriginTableTests(SynchronousTestCase):
    """:class:`OriginTable` has one state for each origin."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.table = OriginTable(self.clock, HttpSettings(max_origins=2, max_per_origin=1))

    def open_circuit(self, key: Origin) -> None:
        """Open the circuit breaker of an origin."""
        breaker = self.table.get(key).breaker
        while breaker.state is CircuitState.CLOSED:
            ticket = breaker.acquire(0.0)
            assert ticket is not None
            breaker.release(ticket, False, 0.0)

    def use_others(self) -> None:
        """Use more other origins than may be in the table."""
        for name in ("a", "b", "c"):
            self.table.get(("http", name, 80)).acquire()
            self.table.get(("http", name, 80)).release()

    def test_same(self) -> None:
        """The same origin has the same state, another origin another."""
        here = self.table.get(HERE)
        self.assertIs(self.table.get(HERE), here)
        self.assertEqual((here.key, here.host), (HERE, "here"))
        self.assertIsNot(self.table.get(("https", "here", 443)), here)

    def test_limit(self) -> None:
        """Beyond the limit the least recently used origin is evicted."""
        here, there = self.table.get(HERE), self.table.get(THERE)
        self.table.get(HERE)
        self.table.get(("http", "third", 80))
        self.assertEqual(len(self.table), 2)
        self.assertIs(self.table.get(HERE), here)
        self.assertIsNot(self.table.get(THERE), there)

    def test_in_use(self) -> None:
        """One with a request that runs or waits is kept, with its breaker; then it is evicted."""
        here = self.table.get(HERE)
        self.open_circuit(HERE)
        self.assertIsNone(here.acquire())
        turn = here.acquire()
        assert turn is not None
        here.release()
        self.use_others()
        self.clock.advance(0)
        self.successResultOf(turn)
        self.use_others()
        self.assertIs(self.table.get(HERE), here)
        self.assertEqual(len(self.table), 3)
        here.release()
        self.use_others()
        self.assertEqual(self.table.get(HERE).breaker.state, CircuitState.CLOSED)
        self.assertEqual(len(self.table), 2)

    def test_last_one_leaves(self) -> None:
        """It is not kept for requests that have left the queue."""
        here = self.table.get(HERE)
        here.acquire()
        turn = here.acquire()
        assert turn is not None
        here.release()
        turn.cancel()
        self.failureResultOf(turn, CancelledError)
        self.clock.advance(0)
        self.use_others()
        self.assertIsNot(self.table.get(HERE), here)
