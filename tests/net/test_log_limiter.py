"""Tests for :mod:`twisted_net.net.log_limiter`."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import cast

from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.patience import PATIENCE
from twisted_net.net.log_limiter import (
    BURST,
    FAILURE_UNITS,
    MAX_KINDS,
    PER_SECOND,
    LogLimiter,
    limited_logger,
)


class LogLimiterTests(SynchronousTestCase):
    """:class:`LogLimiter` passes on a bounded number of lines."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[LogEvent] = []
        self.observe = cast(ILogObserver, self.events.append)  # mypy sees no function's interface
        self.limiter = LogLimiter(self.observe, self.clock.seconds)
        self.log = Logger("some.where", observer=self.limiter)

    def lines(self) -> list[str]:
        """Take what was passed on, formatted."""
        events, self.events[:] = list(self.events), []
        return [formatEvent(event) for event in events]

    def test_burst_and_rate(self) -> None:
        """A burst passes, then the rate; what was left out is counted and logged later."""
        for number in range(5000):
            self.log.warn("stranger {number}", number=number)
        self.assertEqual(len(self.lines()), BURST)
        self.assertEqual(self.limiter.left_out, 5000 - BURST)
        self.clock.advance(1)
        for number in range(5000):
            self.log.warn("stranger {number}", number=number)
        lines = self.lines()
        self.assertEqual(len(lines), PER_SECOND)
        self.assertEqual(lines[0], "4900 more lines of this kind were left out: stranger {number}")
        self.assertEqual(lines[1], "stranger 0")

    def test_count_with_another_line(self) -> None:
        """The count is logged with whatever is logged next, in its own namespace and level."""
        for _ in range(int(BURST) + 2):
            self.log.warn("stranger")
        self.lines()
        self.log.info("something else")
        self.assertEqual(self.lines(), ["something else"])
        self.clock.advance(1)
        self.log.info("something else")
        count, other = self.events
        self.assertEqual(count["left_out"], 2)
        self.assertEqual(
            (count["log_level"], count["log_namespace"]), (LogLevel.warn, "some.where")
        )
        self.assertEqual(formatEvent(other), "something else")
        self.lines()
        self.clock.advance(100)
        self.log.info("once more")
        self.assertEqual(self.lines(), ["once more"])

    def test_kinds(self) -> None:
        """Lines of another format, level or namespace have a rate of their own."""
        for _ in range(1000):
            self.log.warn("stranger")
        self.lines()
        self.log.warn("neighbour")
        self.log.info("stranger")
        Logger("else.where", observer=self.limiter).warn("stranger")
        self.assertEqual(self.lines(), ["neighbour", "stranger", "stranger"])

    def test_failures(self) -> None:
        """Exceptions count as their tracebacks' lines; each class of them is a kind."""
        for error in (ValueError("x"), KeyError("x")):
            for _ in range(1000):
                self.log.failure("it broke", Failure(error))
            self.assertEqual(len(self.events), BURST / FAILURE_UNITS)
            self.lines()
        for _ in range(1000):
            self.limiter({"isError": 1, "log_format": "{log_text}", "log_level": LogLevel.critical})
        self.assertEqual(len(self.events), BURST / FAILURE_UNITS)

    def fail_here(self) -> None:
        """Log an error of one place."""
        try:
            raise ValueError("here")
        except ValueError:
            self.log.failure("unhandled")

    def fail_there(self) -> None:
        """Log the same, of another place."""
        try:
            raise ValueError("there")
        except ValueError:
            self.log.failure("unhandled")

    def test_places(self) -> None:
        """Errors of one class are told apart by the line that raised them: none hides another."""
        for _ in range(100):
            self.fail_here()
        self.assertEqual(len(self.lines()), BURST / FAILURE_UNITS)
        self.fail_there()
        self.assertIn("there", self.events[-1]["log_failure"].getErrorMessage())

    def test_counted_failures(self) -> None:
        """The count of errors that were left out names the class and the place."""
        for _ in range(100):
            self.fail_here()
        self.lines()
        self.clock.advance(60)
        self.log.info("later")
        count, _ = self.lines()
        self.assertRegex(
            count,
            r"^90 more lines of this kind were left out: unhandled "
            r"\(ValueError, test_log_limiter\.py:\d+ in fail_here\)$",
        )

    def test_counted_legacy_failures(self) -> None:
        """So does that of errors that come from the older log."""
        failure = Failure(ValueError("x"))  # without a place
        for _ in range(20):
            self.log.error("{log_text}", log_text="Unhandled Error", log_failure=failure, isError=1)
        self.lines()
        self.clock.advance(60)
        self.log.info("later")
        self.assertEqual(
            self.lines()[0], "10 more lines of this kind were left out: an error (ValueError)"
        )

    def test_bounded_table(self) -> None:
        """Neither kinds nor counts grow without end."""
        for number in range(3 * MAX_KINDS):
            for _ in range(int(BURST) + 1):
                self.log.info(f"format {number}")
        self.assertLessEqual(len(self.limiter._unsaid), MAX_KINDS)
        self.assertLessEqual(len(self.limiter._rates), MAX_KINDS)
        self.clock.advance(1000)
        self.lines()
        self.log.info("next")
        self.assertLess(len(self.lines()), 10)

    def test_bounded_counts(self) -> None:
        """Counts that cannot be logged yet do not grow without end either."""
        self.patch(self.limiter, "_take_counts", lambda now: [])
        for number in range(3 * MAX_KINDS):
            for _ in range(int(BURST) + 1):
                self.log.info(f"format {number}")
        self.assertEqual(len(self.limiter._unsaid), MAX_KINDS)

    def test_interrupted(self) -> None:
        """A signal handler may log while this very thread is within the limiter."""
        interrupted: list[bool] = []

        def seconds() -> float:
            if not interrupted:
                interrupted.append(True)
                log.info("inner")
            return 0.0

        log = Logger("n", observer=LogLimiter(self.observe, seconds))
        thread = threading.Thread(target=log.info, args=("outer",), daemon=True)
        thread.start()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
        self.assertEqual(self.lines(), ["inner", "outer"])

    def test_nested(self) -> None:
        """What one limiter has let pass, or has counted, the next one does not count."""
        outer = LogLimiter(self.observe, self.clock.seconds, per_second=0.001, burst=1)
        log = Logger("n", observer=LogLimiter(outer, self.clock.seconds))
        for _ in range(1000):
            log.warn("stranger")
        self.assertEqual(len(self.lines()), BURST)
        self.clock.advance(1)
        log.warn("stranger")
        self.assertEqual(len(self.lines()), 2)
        self.assertEqual(outer.left_out, 0)

    def test_applies(self) -> None:
        """Events to which it does not apply pass."""
        limiter = LogLimiter(
            self.observe,
            self.clock.seconds,
            applies=lambda event: event["log_level"] is LogLevel.warn,
        )
        log = Logger("n", observer=limiter)
        for _ in range(1000):
            log.info("mine")
        self.assertEqual(len(self.lines()), 1000)

    def test_logs_while_it_logs(self) -> None:
        """An observer that logs itself, as a signal handler may, is no deadlock."""
        log = Logger("n", observer=LogLimiter(cast(ILogObserver, self.nest), self.clock.seconds))
        self.nested = log
        log.info("outer")
        self.assertEqual(self.lines(), ["inner", "outer"])

    def nest(self, event: LogEvent) -> None:
        """Log once more at the first event."""
        if event["log_format"] == "outer":
            self.nested.info("inner")
        self.events.append(event)


class LimitedLoggerTests(SynchronousTestCase):
    """:func:`limited_logger` returns a logger of its owner."""

    def test_namespace(self) -> None:
        """The namespace is that of the object, and the log is the global one."""
        events: list[LogEvent] = []
        observe = cast(ILogObserver, events.append)  # as above
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        log = limited_logger(self, seconds=Clock().seconds)
        for _ in range(1000):
            log.info("stranger")
        self.assertEqual(len(events), BURST)
        self.assertEqual(
            events[0]["log_namespace"], "tests.net.test_log_limiter.LimitedLoggerTests"
        )

    def test_no_cycle(self) -> None:
        """An object that has its own logger is freed at once, as no cycle keeps it."""

        class Owner:
            def __init__(self) -> None:
                self.log = limited_logger(self)

        gc.disable()
        self.addCleanup(gc.enable)
        owner = Owner()
        gone = weakref.ref(owner)
        del owner
        self.assertIsNone(gone())
