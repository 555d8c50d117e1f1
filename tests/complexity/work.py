"""Counts work: the calls that a piece of code makes, of Python's functions and of C's."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import CodeType, FrameType

from attrs import frozen


@frozen
class Work:
    """
    What was done.

    :param calls: how many functions were called. What one call of C does is not in it.
    :param codes: those of Python that were called.
    """

    calls: int
    codes: frozenset[CodeType]


def counted(function: Callable[[], object]) -> Work:
    """Call a function, and return what it did: each time the same."""
    calls = 0
    codes: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        if event == "call":
            calls += 1
            codes.add(frame.f_code)
        elif event == "c_call":
            calls += 1

    # Finalizers that the collector calls would count as work, at any time.
    was_enabled = gc.isenabled()
    gc.disable()
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
        if was_enabled:
            gc.enable()
    return Work(calls, frozenset(codes))
