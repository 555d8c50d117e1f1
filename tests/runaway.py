"""
Ends code that would run for hours, so that a test of linear work fails where it would hang.

Work that grows with the square of its input cannot be counted inside a regular expression, and
the time of two sizes is noise on a busy machine. So such a test takes an input of a megabyte:
linear work on it is some milliseconds, quadratic work is hours. Between the two lies no doubt,
whatever else the machine does; the limit here only keeps the hours from passing.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LIMIT = 60.0
"""Seconds of this process's own processor time; those of other processes do not count."""

MEGABYTE = 10**6
"""Characters of the inputs."""


@contextmanager
def ended_if_runaway() -> Iterator[None]:
    """Raise AssertionError inside the block once it has taken :data:`LIMIT`."""

    def end(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still at work after {LIMIT:g} s: the work is not linear")

    # Regular expressions look for signals as they go, so that they can be ended.
    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
