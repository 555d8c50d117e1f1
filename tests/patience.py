"""
How long the tests wait: for what happens, not for a time in which it ought to have happened.

A bound is there to end a test that hangs. A busy machine does not reach it, so it says nothing of
how fast the code is: no test does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater

PATIENCE = 60.0
"""Seconds to wait for one thing that is about to happen; nothing but a hang takes as long."""

_PAUSE = 0.01
"""Seconds between two looks."""


async def until(
    reactor: Any,  # Any: reactors have no one type
    condition: Callable[[], object],
) -> None:
    """
    Wait until something is so.

    :raises AssertionError: if it is not after :data:`PATIENCE`.
    """
    looks = int(PATIENCE / _PAUSE)
    while not condition():
        # Looks are counted, not seconds: a process that gets no processor makes none.
        looks -= 1
        assert looks > 0, "it has not come true"
        await deferLater(reactor, _PAUSE)


def wait_until(condition: Callable[[], object]) -> None:
    """
    Do as :func:`until` does, where no reactor runs: in a thread, or beside other processes.

    :raises AssertionError: if it is not after :data:`PATIENCE`.
    """
    looks = int(PATIENCE / _PAUSE)
    while not condition():
        looks -= 1
        assert looks > 0, "it has not come true"
        time.sleep(_PAUSE)
