"""The thread names what a long turn has done, and blames no callback for another turn or a stop."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock, patch

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.patience import wait_until
from twisted_net.ops.long_turns import NOT_RUNNING, UNKNOWN
from twisted_net.ops.turn_sampler import LONGEST_PERIOD, MAX_PLACES, THREAD_NAME, TurnSampler
from twisted_net.turns.turn_clock import TurnClock

LIMIT = 0.0625
"""Seconds, which are added up exactly."""


def loop(callback: Callable[[], object]) -> None:
    """Stand in for the loop of a reactor."""
    callback()


class SamplerCase(SynchronousTestCase):
    """A sampler of the thread that runs the test, whose clock the test sets."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.processor = 100.0
        self.patch(time, "process_time", lambda: self.processor)
        self.patch(time, "clock_gettime", lambda _: self.processor)
        self.turns = TurnClock(self.clock.seconds, lambda began, ended: None)
        self.turns.limit = LIMIT
        self.sampler = self.make()

    def make(self) -> TurnSampler:
        """Make a sampler."""
        return TurnSampler(self.turns, (loop.__code__,))

    def pass_time(self, seconds: float, *, running: bool = True) -> None:
        """Let time pass; *running*: the process has a processor."""
        self.clock.advance(seconds)
        if running:
            self.processor += seconds

    def look(self) -> None:
        """Let time pass as the thread sleeps, then look."""
        self.pass_time(LIMIT / 2)
        self.sampler.observe()

    def first(self) -> None:
        """Be looked at."""
        self.look()

    def second(self) -> None:
        """Be looked at, twice."""
        self.look()
        self.look()

    def turn(self, *callbacks: Callable[[], object]) -> tuple[str, float | None]:
        """Run callbacks in one turn; return the function that is blamed, and the CPU seconds."""
        self.turns.poll_ends()
        began = self.turns.began
        assert began is not None
        for callback in callbacks:
            loop(callback)
        judgement = self.sampler.judge(began, self.clock.seconds())
        self.turns.poll_begins()
        return judgement.callback.partition(" (")[0].rpartition(".")[2], judgement.cpu


class JudgeTests(SamplerCase):
    """:meth:`TurnSampler.judge`."""

    def test_most_often(self) -> None:
        """The callback that was seen most often is named."""
        for _ in range(2):
            self.assertEqual(self.turn(self.first, self.second)[0], "second")
            self.assertEqual(self.turn(self.second, self.first)[0], "second")

    def test_lines(self) -> None:
        """A callback that was seen at different lines counts as one, against one at one line."""

        def wanders() -> None:
            self.look()
            self.look()
            self.look()

        def stays() -> None:
            for _ in range(2):
                self.look()

        self.assertEqual(self.turn(stays, wanders)[0], "wanders")

    def test_other_turn(self) -> None:
        """What was seen of one turn is not said of the next one."""
        self.assertEqual(self.turn(self.second)[0], "second")
        self.assertEqual(self.turn(lambda: self.pass_time(LIMIT))[0], UNKNOWN)
        self.assertEqual(self.turn(self.second)[0], "second")

    def test_turn_that_ends_meanwhile(self) -> None:
        """A frame that may be of a later turn is not counted."""
        frames = sys._current_frames

        def late() -> object:
            self.turns.poll_begins()
            self.turns.poll_ends()
            self.turns.began = 7.0
            return frames()

        def callback() -> None:
            with patch.object(sys, "_current_frames", late):
                self.look()
            self.pass_time(LIMIT)

        self.assertEqual(self.turn(callback)[0], UNKNOWN)

    def test_young(self) -> None:
        """A turn that is not half as old as a long one is not looked at."""

        def callback() -> None:
            self.sampler.observe()
            self.pass_time(LIMIT)

        with patch.object(sys, "_current_frames", dict):  # in which there is no thread
            self.assertEqual(self.turn(callback)[0], UNKNOWN)

    def test_polling(self) -> None:
        """During a poll nothing is looked at."""
        frames = Mock(return_value={})
        with patch.object(sys, "_current_frames", frames):
            self.second()
            self.assertEqual(frames.call_count, 0)
            self.turn(self.second)
            self.assertEqual(frames.call_count, 2)

    def test_thread_gone(self) -> None:
        """A thread that has ended has no frame."""
        with patch.object(sys, "_current_frames", dict):
            self.assertEqual(self.turn(self.second)[0], UNKNOWN)

    def test_places(self) -> None:
        """So many places of a turn are told apart; those that are known are counted on."""
        names: dict[str, Any] = {"__name__": "shop", "look": self.look}  # Any: functions, too
        for i in range(2 * MAX_PLACES):
            exec(f"def f{i}():\n look()", names)
        others = [names[f"f{i}"] for i in range(2 * MAX_PLACES)]
        self.assertEqual(self.turn(*others, *[self.first] * 5)[0], "f0")
        self.assertEqual(self.turn(*others, *[self.first] * 5, others[7])[0], "f7")


class ProcessorTests(SamplerCase):
    """Processor time, and its absence."""

    def test_busy(self) -> None:
        """A turn that has computed all the time has as many seconds of the processor."""
        _, cpu = self.turn(self.second)
        self.assertAlmostEqual(cpu or 0.0, LIMIT)

    def test_before(self) -> None:
        """What ran before the turn is counted at most as much as the turn took."""
        self.pass_time(3)
        _, cpu = self.turn(self.second)
        self.assertAlmostEqual(cpu or 0.0, LIMIT)

    def test_blocked(self) -> None:
        """A callback that has waited is blamed, with little processor time: the thread did look."""

        def callback() -> None:
            for _ in range(4):
                self.pass_time(LIMIT / 2, running=False)
                self.sampler.observe()

        self.assertEqual(self.turn(callback), ("callback", 0.0))

    def test_lock_held(self) -> None:
        """A function of C that keeps the thread from looking is blamed: the processor worked."""

        def callback() -> None:
            self.pass_time(2)
            self.sampler.observe()

        self.assertEqual(self.turn(callback)[0], "callback")

    def test_stopped(self) -> None:
        """No callback is blamed for a stop of the process, whoever runs first afterwards."""

        def seen() -> None:
            unseen()
            self.sampler.observe()

        def unseen() -> None:
            self.pass_time(LIMIT / 4)
            self.sampler.observe()
            self.pass_time(3, running=False)

        for callback in (seen, unseen):
            callback_name, cpu = self.turn(callback)
            self.assertEqual((callback_name, round(cpu or 0.0, 6)), (NOT_RUNNING, LIMIT / 4))

    def test_stopped_and_long(self) -> None:
        """A callback that would have been too long without the stop is blamed."""

        def callback() -> None:
            self.look()
            self.pass_time(3, running=False)
            self.second()

        self.assertEqual(self.turn(callback)[0], "callback")

    def test_stopped_before(self) -> None:
        """A stop before the turn is none of the turn's, whenever the thread looks again."""

        def held() -> None:
            self.pass_time(2)
            self.sampler.observe()

        for callback, name in ((self.second, "second"), (held, "held")):
            self.pass_time(3, running=False)
            self.assertEqual(self.turn(callback)[0], name)

    def test_unknown(self) -> None:
        """Where the system does not say, or the thread has ended, it is None."""

        def fail(_: int) -> float:
            raise OSError

        self.patch(time, "clock_gettime", fail)
        self.assertIsNone(self.turn(self.second)[1])
        with patch.object(time, "pthread_getcpuclockid", None):
            del time.pthread_getcpuclockid
            self.sampler = self.make()
        self.assertEqual(self.turn(self.second), ("second", None))


class ThreadTests(SamplerCase):
    """The thread of :class:`TurnSampler`."""

    def threads(self) -> int:
        """Return how many there are."""
        return sum(thread.name == THREAD_NAME for thread in threading.enumerate())

    def test_looks(self) -> None:
        """It looks until it is stopped, and does not keep the process alive."""
        before = self.threads()
        dues: list[float] = []
        self.sampler = TurnSampler(self.turns, (), dues.append)
        self.sampler.start()
        self.assertEqual(self.threads(), before + 1)
        self.assertTrue(self.sampler._thread.daemon)
        wait_until(lambda: len(dues) > 1)
        self.sampler.stop()
        self.sampler.stop()
        self.assertEqual(self.threads(), before)
        self.assertEqual(dues[0], LIMIT / 2)

    def test_not_started(self) -> None:
        """One that was never started can be stopped, and looks no more if it is started then."""
        before = self.threads()
        dues: list[float] = []
        self.sampler = TurnSampler(self.turns, (), dues.append)
        self.sampler.stop()
        self.assertEqual(self.threads(), before)
        self.sampler.start()
        self.addCleanup(self.sampler.stop)
        wait_until(lambda: self.threads() == before)
        self.assertEqual(dues, [])

    def test_period(self) -> None:
        """It looks twice within the limit, but neither for ever, nor seldom."""
        for limit, period in ((0.0, 0.005), (0.05, 0.025), (60.0, LONGEST_PERIOD)):
            self.turns.limit = limit
            self.assertEqual(self.make()._period, period)

    def test_frames(self) -> None:
        """No frame is kept: what a callback has is free when it ends."""
        freed: list[bool] = []

        class Held:
            def __del__(self) -> None:
                freed.append(True)

        def callback() -> None:
            held = Held()  # noqa: F841  # it is freed with the frame
            for _ in range(2):
                self.pass_time(LIMIT / 2)
                # Another thread, as a frame that sees itself is freed by the collector only.
                thread = threading.Thread(target=self.sampler.observe)
                thread.start()
                thread.join()

        self.assertEqual(self.turn(callback)[0], "callback")
        self.assertEqual(freed, [True])
