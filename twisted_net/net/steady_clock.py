"""
Steady clock: keeps a step of the wall clock from moving the timers of a reactor.

The seconds of Twisted's reactors are those of ``time.time``. When the wall clock is set back by an
hour, no timer runs for an hour; when it is set forward, all of them run at once. A reactor that
:func:`steady` has changed counts on by CLOCK_MONOTONIC from what the wall clock showed then.

Its seconds therefore look like seconds since 1970, as before, and differ from them by the steps
since. Use them for durations, deadlines and rates; for a date use ``time.time``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TypeVar
from weakref import WeakSet

from twisted.copyright import version as twisted_version
from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_net.twisted_internals import reactor_time_changes

_log = Logger()
_steady: WeakSet[ReactorBase] = WeakSet()

_R = TypeVar("_R")

since_boot: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else monotonic
)
"""
Return seconds of a steady clock; on Linux they go on while the machine is suspended.

CLOCK_MONOTONIC stops then, which is right for timers; but what a cache holds grows old.
"""


def steady(reactor: _R) -> _R:
    """
    Make the clock of a reactor steady, and return the reactor.

    Calls that are scheduled already run when they would have run if the wall clock had not been
    set. A reactor that is steady, that has a clock of its own, such as those for tests, or whose
    ``seconds`` were set by others, is left as it is. If Twisted has changed, it is left as it is
    too, and a warning says so.

    :raises TypeError: for what has no clock, and for a class.
    """
    if isinstance(reactor, type) or not callable(getattr(reactor, "seconds", None)):
        kind = f"the class {reactor.__name__}" if isinstance(reactor, type) else type(reactor)
        raise TypeError(f"a reactor, or a clock, is needed, not {kind}")
    if (
        not isinstance(reactor, ReactorBase)
        or "seconds" in vars(reactor)
        or type(reactor).seconds is not ReactorBase.seconds
    ):
        return reactor
    if changes := reactor_time_changes(type(reactor)):
        _log.warn(
            "steady timers do not support Twisted {version}: a step of the wall clock moves "
            "them; changed methods: {changes}",
            version=twisted_version,
            changes=", ".join(changes),
        )
        return reactor
    # Not from zero: others may take these seconds for a date, or compare them with one.
    ahead = reactor.seconds() - monotonic()

    def seconds() -> float:
        """Return seconds that never step."""
        return monotonic() + ahead

    setattr(reactor, "seconds", seconds)  # noqa: B010  # mypy: it is a method
    for call in reactor.getDelayedCalls():
        # It has its own reference to the clock, by which reset() reckons.
        if isinstance(call, DelayedCall):
            call.seconds = seconds
    _steady.add(reactor)
    return reactor


def steady_wall(clock: IReactorTime, wall: Callable[[], float]) -> Callable[[], float]:
    """
    Return a clock that shows what *wall* shows now, and goes on steadily from there.

    It is for ages that must outlive the process: within it they are not changed by steps of the
    wall clock, and the clock of another process shows about the same.

    :param clock: a reactor, which is made steady; or a clock of its own, such as one for tests,
        with which it then goes on.
    """
    elapsed = since_boot if steady(clock) in _steady else clock.seconds
    ahead = wall() - elapsed()
    return lambda: elapsed() + ahead


def stopwatch(clock: IReactorTime) -> Callable[[], float]:
    """
    Return the fastest steady clock for durations alone; its seconds count from anywhere.

    For a steady reactor it is ``time.monotonic``, in half the time that ``seconds()`` takes; for
    any other clock it is that clock's ``seconds``.
    """
    return monotonic if clock in _steady else clock.seconds
