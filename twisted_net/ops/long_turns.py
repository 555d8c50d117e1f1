"""Long turns: the turns of the reactor that took long, the latest ones, with their callbacks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Literal

from attrs import frozen
from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.config.type_checks import check_arguments
from twisted_net.ops.latency import SPIKES_KEPT

LONG_TURNS_KEPT = SPIKES_KEPT
"""Long turns that are kept, the latest ones; ``LATENCY`` shows as many of them as of spikes."""

SHORTEST = 0.01
"""
Least threshold in seconds. The stack is looked at twice within it, and a thread that wakes more
often than each 5 ms would itself be a load.
"""

UNKNOWN = "unknown"
"""Callback of a long turn of which no sample was taken: the machine was too busy."""

NOT_RUNNING = "the process did not run"
"""In place of a callback: it was stopped by a signal, swapped out, or had no processor."""

Measured = Literal["turns", "calls", "nothing"]
"""
What is measured: each turn; where the reactor has no place for that, how long a call from a thread
waits for the reactor, which may be :data:`SHORTEST` to half the threshold less than the turn took;
or nothing.
"""


class LatencySettings(Record, frozen=True):
    """
    What ``LATENCY`` and the log show beside the lateness of timers, ``[latency]``.

    50 ms are five times what ``LATENCY`` shows as a spike: a turn that a machine has made long by
    itself is rarely as long.

    :raises ValueError: for a threshold between 0 and 10 ms.
    """

    long_turn: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="seconds from which a turn of the reactor is long, at least 0.01; "
            "0: do not measure turns",
        ),
    ] = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.long_turn < SHORTEST:
            raise ValueError(
                f"LatencySettings.long_turn must be 0, or a number from {SHORTEST} to 3600, "
                f"not {self.long_turn}"
            )


@frozen
class LongTurn:
    """
    A turn of the reactor that took long.

    :ivar at: when it ended, in seconds of the wall clock.
    :ivar seconds: how long it took.
    :ivar cpu: about how many of these the reactor's thread had a processor; None where the system
        does not say.
    :ivar callback: the function that ran longest, its file and line; or :data:`UNKNOWN` or
        :data:`NOT_RUNNING`.
    :ivar where: the innermost function that it was seen in, if that is another one; else "".
    """

    at: float
    seconds: float
    cpu: float | None
    callback: str
    where: str = ""

    def __str__(self) -> str:
        cpu = "" if self.cpu is None else f" ({self.cpu:.3f} s of processor time)"
        where = f", in {self.where}" if self.where else ""
        return f"{self.seconds:.3f} s{cpu}: {self.callback}{where}"


@check_arguments
class LongTurns:
    """
    The long turns of a reactor, the latest :data:`LONG_TURNS_KEPT` of them.

    :param settings: which turn is long.
    :ivar count: long turns since the start or a reset, those no longer kept included.
    :ivar longest: the longest of these, or None.
    :ivar measured: what is measured now.
    """

    def __init__(self, settings: LatencySettings | None = None) -> None:
        self.settings = settings or LatencySettings()
        self.count = 0
        self.longest: LongTurn | None = None
        self.measured: Measured = "nothing"
        self._latest: deque[LongTurn] = deque(maxlen=LONG_TURNS_KEPT)

    def note(self, turn: LongTurn) -> None:
        """Add a long turn; at the bound the oldest is dropped."""
        self.count += 1
        self._latest.append(turn)
        if self.longest is None or turn.seconds > self.longest.seconds:
            self.longest = turn

    def latest(self, limit: int) -> Iterator[LongTurn]:
        """Iterate over the long turns, latest first, at most *limit* of them."""
        return islice(reversed(self._latest), limit)

    def reset(self) -> None:
        """Start again from zero."""
        self.count = 0
        self.longest = None
        self._latest.clear()
