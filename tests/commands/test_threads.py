"""Blocking calls are bounded, cancelled for their caller, and free their place in the end."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.trial.unittest import SynchronousTestCase

from tests.threads import ThreadClock
from twisted_net.commands.threads import BlockingCalls
from twisted_net.errors import TooBusy


class BlockingCallsTests(SynchronousTestCase):
    """:class:`BlockingCalls` with threads that run when the test says so."""

    def setUp(self) -> None:
        self.reactor = ThreadClock()
        self.calls = BlockingCalls(self.reactor, 2)

    def test_reactor(self) -> None:
        """A clock alone will do where nothing is called."""
        self.assertTrue(IReactorTime.providedBy(self.reactor))
        self.assertEqual(len(self.calls), 0)

    def test_value(self) -> None:
        """The value comes once the thread has run, and the place is free."""
        result = self.calls.call(lambda: 42)
        self.assertNoResult(result)
        self.assertEqual(len(self.calls), 1)
        self.reactor.run_thread()
        self.assertEqual(self.successResultOf(result), 42)
        self.assertEqual(len(self.calls), 0)

    def test_exception(self) -> None:
        """An exception comes as a failure, and the place is free."""
        result = self.calls.call(lambda: 1 // 0)
        self.reactor.run_thread()
        self.failureResultOf(result, ZeroDivisionError)
        self.assertEqual(len(self.calls), 0)

    def test_limit(self) -> None:
        """One call above the limit is refused; a place that is free again is taken."""
        first, second = self.calls.call(lambda: 1), self.calls.call(lambda: 2)
        error = self.assertRaises(TooBusy, self.calls.call, lambda: 3)
        self.assertEqual(error.limit, 2)
        self.reactor.run_thread()
        third = self.calls.call(lambda: 3)
        self.assertRaises(TooBusy, self.calls.call, lambda: 4)
        self.reactor.run_thread()
        self.reactor.run_thread()
        self.assertEqual([self.successResultOf(d) for d in (first, second, third)], [1, 2, 3])

    def test_cancelled_before_it_runs(self) -> None:
        """A call that nobody waits for any more is not begun, and holds its place until then."""
        ran: list[int] = []
        result = self.calls.call(lambda: ran.append(1))
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(len(self.calls), 1)
        self.reactor.run_thread()
        self.assertEqual((ran, len(self.calls)), ([], 0))

    def test_cancelled_while_it_runs(self) -> None:
        """The caller is free at once; what the function gives or raises is unheard."""

        def fails() -> None:
            failing.cancel()
            raise ZeroDivisionError

        result: Deferred[object] = self.calls.call(lambda: result.cancel())
        failing: Deferred[object] = self.calls.call(fails)
        for deferred in (result, failing):
            self.reactor.run_thread()
            self.failureResultOf(deferred, CancelledError)
        self.assertEqual(len(self.calls), 0)

    def test_cancelled_calls_hold_their_places(self) -> None:
        """Who asks, leaves and comes again does not get past the limit."""
        for _ in range(2):
            result = self.calls.call(lambda: None)
            result.cancel()
            self.failureResultOf(result, CancelledError)
        self.assertRaises(TooBusy, self.calls.call, lambda: None)

    def test_deferred_from_a_thread(self) -> None:
        """A Deferred, which no function should make in a thread, is not waited for."""
        made: Deferred[None] = Deferred()
        result = self.calls.call(lambda: made)
        self.reactor.run_thread()
        self.assertIs(self.successResultOf(result), made)
        self.assertEqual(len(self.calls), 0)
