"""Blocking calls are bounded, taken in turns, and cancelled for their caller."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.threads import ThreadClock
from twisted_net.errors import CommandError, TooBusy
from twisted_net.net.fair_calls import FairCalls


class FairCallsTests(SynchronousTestCase):
    """:class:`FairCalls` with threads that run when the test says so."""

    def setUp(self) -> None:
        self.threads = ThreadClock()
        self.threads.limit = 4
        self.calls = FairCalls(self.threads, 8)
        self.ran: list[str] = []

    def call(self, what: str) -> Deferred[None]:
        """Call for the client that the first letter names."""
        return self.calls.call(lambda: self.ran.append(what), what[0])

    def run_all(self) -> None:
        """Run all that there is to run."""
        while self.threads.threads:
            self.threads.run_thread()

    def test_value(self) -> None:
        """The value comes once the thread has run, and the place is free."""
        result = self.calls.call(lambda: 42, "a")
        self.assertNoResult(result)
        self.assertEqual(len(self.calls), 1)
        self.threads.run_thread()
        self.assertEqual(self.successResultOf(result), 42)
        self.assertEqual(len(self.calls), 0)

    def test_exception(self) -> None:
        """An exception comes as a failure, and the place is free."""
        result = self.calls.call(lambda: 1 // 0, "a")
        self.threads.run_thread()
        self.failureResultOf(result, ZeroDivisionError)
        self.assertEqual(len(self.calls), 0)

    def test_one_client(self) -> None:
        """One client has half of the threads, and another one's call is begun at once."""
        for i in range(7):
            self.call(f"a{i}")
        self.assertEqual(self.threads.busy, 2)
        self.call("b1")
        self.assertEqual(self.threads.busy, 3)
        self.run_all()
        self.assertEqual(self.ran[:3], ["a0", "a1", "b1"])

    def test_refused(self) -> None:
        """A call is checked when its turn has come; one that is refused takes no thread."""
        refused: list[str] = []

        def check() -> None:
            if refused:
                raise CommandError(refused[0])

        freed: list[None] = []
        self.threads.limit = 2
        ran, waits, last = (
            self.calls.call(lambda: 42, "a", lambda: freed.append(None), check) for _ in range(3)
        )
        refused.append("no more")
        self.run_all()
        self.assertEqual(self.successResultOf(ran), 42)
        for result in (waits, last):
            self.assertEqual(str(self.failureResultOf(result, CommandError).value), "no more")
        self.assertEqual((len(freed), len(self.calls), self.threads.busy), (3, 0, 0))

    def test_limit(self) -> None:
        """One call above the limit is refused; a place that is free again is taken."""
        calls = [self.call(f"a{i}") for i in range(8)]
        error = self.failureResultOf(self.call("a8"), TooBusy).value
        self.assertEqual(error.limit, 8)
        self.threads.run_thread()
        calls.append(self.call("a9"))
        self.failureResultOf(self.call("a10"), TooBusy)
        self.run_all()
        for result in calls:
            self.successResultOf(result)
        self.assertEqual(len(self.calls), 0)

    def test_gives_way(self) -> None:
        """The newest call of the client with most gives its place to another client."""
        calls = [self.call(f"a{i}") for i in range(8)]
        other = self.call("b0")
        self.failureResultOf(calls.pop(), TooBusy)
        self.run_all()
        for result in (*calls, other):
            self.successResultOf(result)

    def test_cancelled_before_it_runs(self) -> None:
        """A call that nobody waits for any more frees its place at once, and is not begun."""
        calls = [self.call(f"a{i}") for i in range(8)]
        calls[7].cancel()
        self.failureResultOf(calls[7], CancelledError)
        self.assertEqual(len(self.calls), 7)
        self.call("a8")
        self.run_all()
        self.assertEqual(self.ran, [f"a{i}" for i in (*range(7), 8)])

    def test_cancelled_before_its_thread_runs(self) -> None:
        """Nor is one whose thread has not begun yet."""
        self.call("a1").addErrback(lambda _: None).cancel()
        self.run_all()
        self.assertEqual((self.ran, len(self.calls)), ([], 0))

    def test_cancelled_while_it_runs(self) -> None:
        """The caller is free at once; what the function gives or raises is unheard."""

        def fails() -> None:
            failing.cancel()
            raise ZeroDivisionError

        result: Deferred[None] = self.calls.call(lambda: result.cancel(), "a")
        failing: Deferred[None] = self.calls.call(fails, "a")
        for deferred in (result, failing):
            self.threads.run_thread()
            self.failureResultOf(deferred, CancelledError)
        self.assertEqual(len(self.calls), 0)

    def test_cancelled_calls_hold_their_threads(self) -> None:
        """Who asks, leaves and comes again gets no further thread."""
        for i in range(8):
            result = self.call(f"a{i}")
            result.cancel()
            self.failureResultOf(result, CancelledError)
        self.assertEqual((self.threads.busy, len(self.calls)), (2, 2))

    def test_freed(self) -> None:
        """It tells when a function cannot run any more, whatever became of its call."""
        freed: list[str] = []

        def call(what: str) -> Deferred[None]:
            return self.calls.call(lambda: None, what[0], lambda: freed.append(what))

        calls = {what: call(what) for what in ("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8")}
        calls["a1"].cancel()
        self.assertEqual(freed, [])
        calls["a3"].cancel()
        self.assertEqual(freed, ["a3"])
        for what in ("b1", "b2"):
            call(what)
        self.assertEqual(freed, ["a3", "a8"])
        self.threads.run_thread()
        self.assertEqual(freed, ["a3", "a8", "a1"])
        self.run_all()
        self.assertEqual(len(set(freed)), 10)
        for what in ("a1", "a3"):
            self.failureResultOf(calls[what], CancelledError)
        self.failureResultOf(calls["a8"], TooBusy)

    def test_deferred_from_a_thread(self) -> None:
        """A Deferred, which no function should make in a thread, is not waited for."""
        made: Deferred[None] = Deferred()
        result: Deferred[object] = self.calls.call(lambda: made, "a")
        self.threads.run_thread()
        self.assertIs(self.successResultOf(result), made)
        self.assertEqual(len(self.calls), 0)

    def test_calls_from_a_callback(self) -> None:
        """A callback may call again."""
        result = self.call("a1").addCallback(lambda _: self.call("a2"))
        self.run_all()
        self.successResultOf(result)
        self.assertEqual(self.ran, ["a1", "a2"])

    def test_no_threads(self) -> None:
        """Without a thread each call fails, however many wait."""

        def refuse(function: object) -> Deferred[object]:
            failed: Deferred[object] = Deferred()
            failed.errback(RuntimeError("can't start new thread"))
            return failed

        self.calls = FairCalls(self.threads, 5000)
        blocked = [self.call(f"a{i}") for i in range(4000)]
        self.patch(self.threads, "call", refuse)
        self.run_all()
        failed = [result for result in blocked if result.called][2:]
        self.assertEqual(len(failed), 3998)
        for result in failed:
            self.failureResultOf(result, RuntimeError)
