"""Steps: what touches many clients or subscriptions is done in steps, one in a reactor turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Protocol

CLIENTS_AT_ONCE = 64
"""
Clients that something is written to in one turn of the reactor.

These take 1 ms; 9,000 at once kept all others waiting for 0.1 s.
"""

ENDS_AT_ONCE = 16
"""Clients whose connections are ended in one turn of the reactor: 1 ms, and more when they go."""

CANCELLED_AT_ONCE = 64
"""Commands of clients that have left which are cancelled in one turn of the reactor: 1 ms."""

CHECKS_AT_ONCE = 1024
"""Clients that are looked at in one turn of the reactor, if nothing is to be done for them."""

WRITE = 1 / CLIENTS_AT_ONCE
"""Share of a step that it takes to write something to a client."""

END = 1 / ENDS_AT_ONCE
"""Share of a step that it takes to end a connection."""

CANCEL = 1 / CANCELLED_AT_ONCE
"""Share of a step that it takes to cancel a command that waits."""

CHECK = 1 / CHECKS_AT_ONCE
"""Share of a step that it takes to look at a client."""

Pacing = Callable[[Iterable[int]], Awaitable[list[int]]]
"""
Goes through an iterable, one step in each turn of the reactor, and returns all values.

It begins at once, whether it is awaited or not. An empty iterable has ended when all before it
have.
"""


class FairPacing(Protocol):
    """A :data:`Pacing` for the events of many senders, which bounds those that wait."""

    def __len__(self) -> int:
        """Return how many events wait or are being sent."""
        ...

    def __call__(self, steps: Iterable[int], sender: str, size: int) -> Awaitable[list[int]]:
        """
        Go through the steps of an event.

        :param sender: whom it counts for.
        :param size: bytes that it holds.
        :raises TooBusy: if too many wait, be it now or later.
        """
        ...


async def unpaced(steps: Iterable[int]) -> list[int]:
    """Go through an iterable when awaited: the :data:`Pacing` of a server without a reactor."""
    return list(steps)


def in_steps(work: Iterable[float]) -> Iterator[int]:
    """
    Divide work into the steps of a :data:`Pacing`.

    :param work: does something for one client each time, and yields the share of a step that it
        took: :data:`WRITE`, :data:`END`, :data:`CANCEL`, :data:`CHECK` or another.
    :return: how many values of *work* each step has taken; the last one of a step may exceed it.
    """
    taken, share = 0, 0.0
    for each in work:
        taken += 1
        share += each
        if share >= 1:
            yield taken
            taken, share = 0, 0.0
    if taken:
        yield taken
