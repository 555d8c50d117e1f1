"""Counts work: the calls that a piece of code makes, of Python's functions and of C's."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Container
from types import CodeType, FrameType

from attrs import frozen


@frozen
class Work:
    """
    What was done.

    :param calls: how many functions were called. What one call of C does is not in it.
    :param longest_turn: how many of these in one turn of a reactor.
    :param codes: those of Python that were called.
    """

    calls: int
    longest_turn: int
    codes: frozenset[CodeType]


def counted(function: Callable[[], object], turns: Container[CodeType] = ()) -> Work:
    """
    Call a function, and return what it did: each time the same.

    :param turns: the functions with which a turn of a reactor begins.
    """
    calls = begun = longest = 0
    codes: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls, begun, longest
        if event == "call":
            calls += 1
            codes.add(frame.f_code)
            if frame.f_code in turns:
                longest = max(longest, calls - begun)
                begun = calls
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
    return Work(calls, max(longest, calls - begun), frozenset(codes))
