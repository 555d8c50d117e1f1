"""The delayed calls of a clock in memory, as a turn of a reactor makes them."""

from __future__ import annotations

from twisted.internet.task import Clock


def call_due(clock: Clock) -> bool:
    """
    Make the calls that are due, but none that these schedule: the next turn is theirs.

    :return: whether any was due.
    """
    due = [call for call in clock.calls if call.getTime() <= clock.seconds()]
    for call in due:
        if call.active():
            clock.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)
    return bool(due)
