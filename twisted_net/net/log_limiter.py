"""Log limiter: bounds the lines of each kind by rate, and counts those that are left out."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import RLock
from typing import cast

from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from zope.interface import implementer

from twisted_net.net.rate_limit import RateLimiter

PER_SECOND, BURST = 10.0, 100.0
"""
Lines of one kind: what a stranger can cause a thousand times a second must not fill the disk. With
lines of 100 bytes that is 1 KB a second at most.
"""

FAILURE_UNITS = 10.0
"""How many lines an exception counts as: its traceback has about as many."""

TRACEBACKS_PER_SECOND, TRACEBACK_BURST = PER_SECOND / FAILURE_UNITS, int(BURST / FAILURE_UNITS)
"""Tracebacks of one kind, by these."""

MAX_KINDS = 256
"""
Kinds of lines that are told apart.

A kind is a namespace, a level and a format; of errors also the class of the exception, and the line
of code that raised it.
"""

LIMITED = "log_limited"
"""Key of events that a limiter has let pass: another one does not count them."""

_LEGACY_FORMAT = "{log_text}"
"""Format of all events of the older log (:mod:`twisted.python.log`)."""

_PASSED_ON = 8
"""Counts that are logged with one event, at most."""


@implementer(ILogObserver)
class LogLimiter:
    """
    Passes events on to another observer, those of one kind at a limited rate.

    How many were left out is logged with a later event, once the rate allows it.

    :param observer: gets the events.
    :param seconds: returns the seconds of a steady clock.
    :param applies: whether an event is limited; None for all.
    :ivar left_out: events that were not passed on.
    """

    def __init__(
        self,
        observer: ILogObserver,
        seconds: Callable[[], float],
        per_second: float = PER_SECOND,
        burst: float = BURST,
        applies: Callable[[LogEvent], bool] | None = None,
    ) -> None:
        self.left_out = 0
        self._observer = observer
        self._seconds = seconds
        self._applies = applies
        self._rates = RateLimiter(per_second, burst, MAX_KINDS)
        # By kind: how many were left out since the last count, and the last one of them.
        self._unsaid: dict[str, tuple[int, LogEvent]] = {}
        # Threads log, too, and so does a signal handler while this very thread is here.
        self._lock = RLock()

    def __call__(self, event: LogEvent) -> None:
        """Pass an event on, or count it."""
        if LIMITED in event or (self._applies is not None and not self._applies(event)):
            self._observer(event)
            return
        kind = _kind_of(event)
        with self._lock:
            now = self._seconds()
            counts = self._take_counts(now) if self._unsaid else []
            fits = self._fits(kind, event, now)
            if not fits:
                self.left_out += 1
                count, _ = self._unsaid.pop(kind, (0, event))
                if len(self._unsaid) < MAX_KINDS:
                    self._unsaid[kind] = count + 1, event
        for count, example in counts:
            self._log_count(count, example)
        if fits:
            event[LIMITED] = True
            self._observer(event)

    def _fits(self, kind: str, event: LogEvent, now: float) -> bool:
        units = FAILURE_UNITS if _is_error(event) else 1.0
        return self._rates.take(kind, now, units) == 0.0

    def _take_counts(self, now: float) -> list[tuple[int, LogEvent]]:
        """Remove and return the counts that may be logged now, oldest kinds first."""
        due = [
            kind
            for kind, (_, event) in list(self._unsaid.items())[:_PASSED_ON]
            if self._fits(kind, event, now)
        ]
        return [self._unsaid.pop(kind) for kind in due]

    def _log_count(self, count: int, example: LogEvent) -> None:
        namespace = str(example.get("log_namespace", ""))
        line = example.get("log_format") or ""
        if line in ("", _LEGACY_FORMAT):
            line = "an error"
        if raised := _raised_in(example):
            line += f" ({raised})"
        Logger(namespace, observer=cast(ILogObserver, self._mark_and_pass)).emit(
            example["log_level"],
            "{left_out} more lines of this kind were left out: {line}",
            left_out=count,
            line=line,
        )

    def _mark_and_pass(self, event: LogEvent) -> None:
        event[LIMITED] = True
        self._observer(event)


class TracebackRate:
    """
    Says whether one more traceback may be logged, as often as :class:`LogLimiter` passes one kind.

    For code that strangers can make fail a thousand times a second: it asks first, as it takes
    longer to describe a failure than to answer it.
    """

    __slots__ = ("_rate",)

    def __init__(self) -> None:
        self._rate = RateLimiter(TRACEBACKS_PER_SECOND, TRACEBACK_BURST, max_keys=1)

    def take(self, now: float) -> bool:
        """
        Return whether a traceback may be logged now, and count it if so.

        :param now: seconds of a steady clock.
        """
        return self._rate.take("", now) == 0.0


def limited_logger(
    source: object,
    per_second: float = PER_SECOND,
    burst: float = BURST,
    seconds: Callable[[], float] = time.monotonic,
) -> Logger:
    """
    Return a logger for the lines that strangers can cause.

    :param source: the object that logs, whose class is the namespace. The logger does not keep it:
        objects that have their own logger would be garbage only when cycles are collected.
    :param seconds: returns the seconds of a steady clock.
    """
    owner = type(source)
    limiter = LogLimiter(globalLogPublisher, seconds, per_second, burst)
    return Logger(f"{owner.__module__}.{owner.__qualname__}", observer=limiter)


def _is_error(event: LogEvent) -> bool:
    return "log_failure" in event or bool(event.get("isError"))


def _kind_of(event: LogEvent) -> str:
    line = event.get("log_format") or ""
    return f"{event.get('log_namespace')} {event.get('log_level')} {_raised_in(event)} {line}"


def _raised_in(event: LogEvent) -> str:
    """Return the class of the exception of an event, and the line that raised it; "" for none."""
    failure = event.get("log_failure")
    if failure is None:
        return ""
    name = str(getattr(failure.type, "__qualname__", ""))
    traceback = failure.getTracebackObject()
    if traceback is None:
        return name
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    file = code.co_filename.rpartition("/")[2]
    return f"{name}, {file}:{traceback.tb_lineno} in {code.co_name}"
