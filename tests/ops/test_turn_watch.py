"""The watch records and logs the long turns of any reactor, and leaves nothing when it stops."""

from __future__ import annotations

import threading
from typing import Any, cast

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, providedBy

from tests.patience import wait_until
from tests.threads import ThreadReactor
from twisted_net.ops import turn_watch
from twisted_net.ops.long_turns import UNKNOWN, LatencySettings, LongTurns
from twisted_net.ops.turn_sampler import THREAD_NAME
from twisted_net.ops.turn_watch import TurnWatch
from twisted_net.turns.turn_clock import TurnClock


class MeasuringReactor(MemoryReactorClock):
    """A reactor in memory that measures its turns as the quiet reactor does."""

    turn: TurnClock | None = None

    def measure_turns(self, clock: TurnClock | None) -> None:
        """Let a clock measure the turns."""
        self.turn = clock

    def run_turn(self, seconds: float) -> None:
        """Run a turn that takes so long, if somebody measures it."""
        if self.turn is not None:
            self.turn.poll_ends()
        self.advance(seconds)
        if self.turn is not None:
            self.turn.poll_begins()


def threads() -> int:
    """Return how many threads of watches there are."""
    return sum(thread.name == THREAD_NAME for thread in threading.enumerate())


class WatchCase(SynchronousTestCase):
    """Watches of a reactor in memory, whose wall clock is ahead by 1,000 seconds."""

    def setUp(self) -> None:
        self.reactor: Any = MeasuringReactor()  # Any: it has no threads
        self.reactor.hasRun = True
        self.logged = EventLoggingObserver()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)

    def watch(self, threshold: float = 0.05) -> TurnWatch:
        """Make a watch and start it."""
        long_turns = LongTurns(LatencySettings(long_turn=threshold))
        watch = TurnWatch(self.reactor, long_turns, lambda: 1000.0 + self.reactor.seconds())
        watch.startService()
        self.addCleanup(watch.stopService)
        return watch

    def lines(self) -> list[str]:
        """Return what was logged of long turns."""
        return [
            formatEvent(event)
            for event in self.logged
            if "turn_watch" in event.get("log_namespace", "")
        ]


class TurnWatchTests(WatchCase):
    """:class:`TurnWatch`."""

    def test_long_turns(self) -> None:
        """Turns at the threshold are recorded, with the time of their end; others are not."""
        found = self.watch(0.25).long_turns
        for seconds in (0.125, 0.25, 0.5):
            self.reactor.run_turn(seconds)
        self.assertEqual(found.measured, "turns")
        self.assertEqual(
            [(turn.at, turn.seconds) for turn in found.latest(9)],
            [(1000.875, 0.5), (1000.375, 0.25)],
        )

    def test_logged(self) -> None:
        """Each is logged as a warning."""
        self.watch()
        self.reactor.run_turn(0.25)
        (line,) = self.lines()
        self.assertRegex(line, r"^long turn of the reactor: 0\.250 s \(.* s of processor time\): ")
        self.assertEqual([event["log_level"] for event in self.logged], [LogLevel.warn])

    def test_log_is_bounded(self) -> None:
        """Of 1,000 long turns in as many seconds about a hundred are logged; all are counted."""
        found = self.watch().long_turns
        for _ in range(1000):
            self.reactor.run_turn(1.0)
        self.assertEqual(found.count, 1000)
        warnings = [line for line in self.lines() if line.startswith("long turn")]
        counts = [line for line in self.lines() if "more lines of this kind were left out" in line]
        self.assertEqual(len(warnings) + len(counts), len(self.lines()))
        self.assertLessEqual(len(self.lines()), 111)
        left_out = sum(int(line.partition(" ")[0]) for line in counts)
        self.assertGreater(left_out + len(warnings), 980)

    def test_stop(self) -> None:
        """A stop ends the thread and measures no more; a second one does nothing."""
        before = threads()
        watch = self.watch()
        self.assertEqual(threads(), before + 1)
        for _ in range(2):
            watch.stopService()
            self.assertEqual(threads(), before)
            self.assertIsNone(self.reactor.turn)
            self.assertEqual(watch.long_turns.measured, "nothing")
        self.assertEqual(turn_watch._watched, {})

    def test_start_again(self) -> None:
        """It can be started again, and twice is as once."""
        before = threads()
        watch = self.watch()
        watch.stopService()
        watch.startService()
        watch.startService()
        self.assertEqual(threads(), before + 1)
        self.reactor.run_turn(1.0)
        self.assertEqual(watch.long_turns.count, 1)

    def test_off(self) -> None:
        """With a threshold of 0 nothing is measured, and there is no thread."""
        before = threads()
        watch = self.watch(0.0)
        self.assertEqual((threads(), self.reactor.turn), (before, None))
        self.assertEqual(watch.long_turns.measured, "nothing")

    def test_before_the_reactor(self) -> None:
        """It waits until the reactor runs, as the process may become a daemon before."""
        self.reactor.hasRun = False
        before = threads()
        watch, stopped = self.watch(), self.watch()
        stopped.stopService()
        self.assertEqual((threads(), self.reactor.turn), (before, None))
        for function, arguments, options in self.reactor.whenRunningHooks:
            function(*arguments, **options)
        self.assertEqual(threads(), before + 1)
        self.assertEqual([watch.long_turns.measured, stopped.long_turns.measured][1], "nothing")
        self.assertEqual(watch.long_turns.measured, "turns")

    def test_two_services(self) -> None:
        """Two services share a thread and the log; each records what is long for it."""
        before = threads()
        first, second = self.watch(0.5), self.watch(0.125)
        self.assertEqual(threads(), before + 1)
        self.reactor.run_turn(0.25)
        self.reactor.run_turn(1.0)
        self.assertEqual([first.long_turns.count, second.long_turns.count], [1, 2])
        self.assertEqual(len(self.lines()), 2)
        second.stopService()
        self.assertEqual(threads(), before + 1)
        self.reactor.run_turn(0.25)
        self.reactor.run_turn(1.0)
        self.assertEqual([first.long_turns.count, second.long_turns.count], [2, 2])
        self.assertEqual(first.long_turns.measured, "turns")
        first.stopService()
        self.assertEqual(threads(), before)

    def test_out_of_threads(self) -> None:
        """If the system has no thread to give, turns are counted, and no callback is named."""

        def fail(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(threading.Thread, "start", fail)
        watch = self.watch()
        self.reactor.run_turn(1.0)
        (turn,) = watch.long_turns.latest(9)
        self.assertEqual((turn.seconds, turn.cpu, turn.callback), (1.0, None, UNKNOWN))
        self.assertIn("no thread to name long turns", self.lines()[0])


class OtherReactorTests(WatchCase):
    """Reactors that have no place for a measurement."""

    def test_without_threads(self) -> None:
        """One without threads is not measured, which the figures say."""
        self.reactor = MemoryReactorClock()
        self.reactor.hasRun = True
        before = threads()
        watch = self.watch()
        self.assertEqual((watch.long_turns.measured, threads()), ("nothing", before))

    def test_calls(self) -> None:
        """Of another one the time is measured that calls from the thread wait."""
        self.reactor = ThreadReactor()
        self.reactor.hasRun = True
        directlyProvides(self.reactor, IReactorFromThreads, *providedBy(self.reactor))
        found = self.watch().long_turns
        self.assertEqual(found.measured, "calls")
        self.reactor.run_one()
        self.assertEqual(found.count, 0)
        # The thread makes one call at a time.
        wait_until(lambda: self.reactor.calls_from_threads.qsize() == 1)
        self.reactor.advance(0.25)
        self.reactor.run_one()
        (turn,) = found.latest(9)
        # From when the call was due: what keeps the thread from running keeps the reactor, too.
        self.assertAlmostEqual(turn.seconds, 0.25 - 0.025)

    def test_calls_without_threads_left(self) -> None:
        """If the system has no thread to give, these are not measured, which the figures say."""

        def fail(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(threading.Thread, "start", fail)
        self.reactor = ThreadReactor()
        self.reactor.hasRun = True
        directlyProvides(self.reactor, IReactorFromThreads, *providedBy(self.reactor))
        self.assertEqual(self.watch().long_turns.measured, "nothing")

    def test_ended(self) -> None:
        """A reactor that has ended takes no calls; the thread goes on until the service stops."""
        self.reactor = ThreadReactor()
        self.reactor.hasRun = True
        directlyProvides(self.reactor, IReactorFromThreads, *providedBy(self.reactor))
        asked: list[object] = []

        def closed(function: object, *arguments: object) -> None:
            asked.append(function)
            cast(Any, asked[0]).__self__.began = None  # Any: a method; as if it had been called
            raise RuntimeError("Event loop is closed")

        self.patch(self.reactor, "callFromThread", closed)
        before = threads()
        watch = self.watch()
        wait_until(lambda: len(asked) > 1)
        watch.stopService()
        self.assertEqual(threads(), before)
