"""How late the reactor is: what clients wait for beside their own command."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from attrs import frozen

from twisted_net.ops.metrics import Histogram

PROBE_INTERVAL = 0.1
"""
Seconds between two calls that are timed. Whatever holds the reactor for longer than this is seen
for certain; ten calls a second cost some 0.1 ms of processor time.
"""

SPIKE = 0.01
"""Seconds from which on a lateness is remembered with its time, as SLOWLOG remembers commands."""

SPIKES_KEPT = 160
"""Spikes that are remembered, the latest ones; as many as Redis keeps of an event."""


@frozen
class Spike:
    """A moment in which the reactor was late; *at* in seconds of the wall clock."""

    at: float
    seconds: float


class Latency:
    """
    How much later than due the calls of a reactor came.

    :ivar lateness: all that were timed since the start or a reset, in seconds.
    """

    def __init__(self) -> None:
        self.lateness = Histogram()
        self._spikes: deque[Spike] = deque(maxlen=SPIKES_KEPT)

    def note(self, late: float, wall: float) -> None:
        """
        Count a call that came.

        :param late: by how many seconds; a clock that was set back makes it less than 0.
        :param wall: when, in seconds of the wall clock.
        """
        late = max(late, 0.0)
        self.lateness.note(late)
        if late >= SPIKE:
            self._spikes.append(Spike(wall, late))

    def spikes(self, limit: int) -> Iterator[Spike]:
        """Go through the spikes, latest first, at most so many of them."""
        return islice(reversed(self._spikes), limit)

    def reset(self) -> None:
        """Forget everything."""
        self.lateness.reset()
        self._spikes.clear()
