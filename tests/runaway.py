"""
Ends a computation that would run for hours, so that a test of linear time fails and does not hang.

The steps of a regular expression cannot be counted, and a ratio of two times is noise on a busy
machine. So such a test takes an input of a megabyte: linear work takes milliseconds, quadratic
work hours. The limit lies far from both, and counts this process's processor time alone.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LIMIT = 60.0
"""Seconds of processor time of this process."""

MEGABYTE = 10**6
"""Characters of the inputs."""


@contextmanager
def ended_if_runaway(limit: float = LIMIT) -> Iterator[None]:
    """Raise AssertionError in the block after a time, of this process's own."""

    def end(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not finished after {limit:g} s: the time is not linear")

    # The engine of regular expressions checks for signals while it runs, so this ends it, too.
    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
