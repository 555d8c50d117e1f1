"""Reactor latency: how late timers run, as a histogram and the latest spikes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from attrs import frozen

from twisted_net.ops.histogram import Histogram

PROBE_INTERVAL = 0.1
"""
Seconds between two timed calls. A pause of the reactor that is longer than this is always seen;
ten calls a second cost some 0.1 ms of processor time.
"""

SPIKE = 0.01
"""Seconds from which on a delay is kept with its time, as SLOWLOG keeps commands."""

SPIKES_KEPT = 160
"""Spikes that are kept, the latest ones; as many as Redis keeps of an event."""


@frozen
class Spike:
    """One delay of at least :data:`SPIKE`; *at* in seconds of the wall clock."""

    at: float
    seconds: float


class Latency:
    """
    How late the timers of a reactor run.

    :ivar lateness: all delays since the start or a reset, in seconds.
    """

    def __init__(self) -> None:
        self.lateness = Histogram()
        self._spikes: deque[Spike] = deque(maxlen=SPIKES_KEPT)

    def note(self, late: float, wall: float) -> None:
        """
        Count a timer that ran.

        :param late: its delay in seconds; a clock that was set back makes it less than 0.
        :param wall: when it ran, in seconds of the wall clock.
        """
        late = max(late, 0.0)
        self.lateness.note(late)
        if late >= SPIKE:
            self._spikes.append(Spike(wall, late))

    def spikes(self, limit: int) -> Iterator[Spike]:
        """Iterate over the spikes, latest first, at most *limit* of them."""
        return islice(reversed(self._spikes), limit)

    def reset(self) -> None:
        """Start again from zero."""
        self.lateness.reset()
        self._spikes.clear()
