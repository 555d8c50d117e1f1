"""Paced input: what a layer such as TLS or WebSocket has read is processed in the turns of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted_net.turns.turn_scheduler import FREE_LINES, TURN_BUDGET, TurnScheduler

UNITS_PER_TURN = 64
"""Records or frames of one connection that are processed in one reactor turn, as of lines."""

UNITS_PER_LOOK = 8
"""Records or frames between two looks at the clock: KeyUpdates, the dearest, take 0.1 ms each."""

READ_SIZE = 16_645
"""
Bytes that a connection under such a layer reads at once: one record of TLS (RFC 8446 §5.2).

What is not processed is kept, and 64 KiB of the smallest units would be a hundred turns of work.
"""


class Below(Protocol):
    """The connection below a layer: a transport."""

    def pauseProducing(self) -> None:
        """Read no more for now."""

    def resumeProducing(self) -> None:
        """Read on."""

    def abortConnection(self) -> None:
        """End it now."""


class PacedInput:
    """
    The place of one layer's input in the scheduler of all connections.

    What is read is processed at once, up to :data:`UNITS_PER_TURN`, unless other connections wait
    for a turn; then :data:`FREE_LINES` units are. The rest waits for its turn. Meanwhile the
    connection below is not read; one whose units took long is not read before its next turn,
    either.

    :param below: the connection below; paused and resumed.
    :param step: processes so many units at most, and until the time that it is given, and returns
        whether some may be left. It may pause and resume this, and stop it.
    :param seconds: a steady clock, for durations.
    """

    __slots__ = (
        "_below",
        "_blocked",
        "_due",
        "_reading",
        "_seconds",
        "_step",
        "_stepping",
        "_turns",
        "_wanted",
    )

    def __init__(
        self,
        turns: TurnScheduler,
        seconds: Callable[[], float],
        below: Below,
        step: Callable[[int, float], bool],
    ) -> None:
        self._turns = turns
        self._seconds = seconds
        self._below = below
        self._reading = True
        self._step: Callable[[int, float], bool] | None = step
        self._wanted = True  # the protocol within reads
        self._blocked = False  # the peer does not read
        self._due = False  # units are left, or the last ones took long: a turn comes first
        self._stepping = False

    @property
    def due(self) -> bool:
        """Whether a turn must come before anything is read."""
        return self._due

    def arrived(self, *, alone: bool = False, little: bool = False) -> None:
        """
        Process what has been read, or let it wait for its turn.

        :param alone: whether its units are dear, so that no two of them, of any connections, are
            processed in one turn outside the time for all.
        :param little: whether most likely nothing follows, so that the connection need not be
            stopped, and read again, for one turn. It is stopped if something follows.
        """
        if self._due or self._stepping:
            self._settle()
            return
        busy = self._turns.busy
        if alone:
            self._turns.mark_busy()
        if busy and alone and little and self._wanted and not self._blocked:
            self._due = True
            self._turns.add(self)
        elif busy and alone:
            self._wait()
        else:
            self._process(FREE_LINES if busy else UNITS_PER_TURN)

    def take_turn(self) -> None:
        """Process some of what has been read, or read on; its turn has come."""
        self._due = False
        try:
            self._process(UNITS_PER_TURN)
        except BaseException:
            # As the reactor ends a connection whose protocol fails while it reads.
            self._below.abortConnection()
            raise

    def pause(self) -> None:
        """Process and read nothing: the protocol within wants no more for now."""
        self._wanted = False
        self._settle()

    def resume(self) -> None:
        """Go on, with what has been read already when its turn comes."""
        self._wanted = True
        self._settle()

    def block(self) -> None:
        """Process and read nothing, as :meth:`pause` does: the peer does not read."""
        self._blocked = True
        self._settle()

    def unblock(self) -> None:
        """The peer has read everything."""
        self._blocked = False
        self._settle()

    def stop(self) -> None:
        """Do nothing any more: the connection is lost, or nothing follows."""
        self._step = None
        self._turns.discard(self)

    def _process(self, limit: int) -> None:
        step = self._step
        if step is None:
            return
        if self._blocked or not self._wanted:
            self._wait()
            return
        self._stepping = True
        began = self._seconds()
        try:
            left = step(limit, began + TURN_BUDGET)
        finally:
            self._stepping = False
        if self._seconds() - began >= TURN_BUDGET:
            self._turns.mark_busy()
            left = True
        self._due = left
        self._settle()

    def _wait(self) -> None:
        self._due = True
        self._settle()

    def _settle(self) -> None:
        """Ask for a turn where one is due and may be taken; read where none is."""
        if self._stepping or self._step is None:
            return
        goes_on = self._wanted and not self._blocked
        if self._due:
            self._read(False)
            if goes_on:
                self._turns.add(self)
            else:
                self._turns.discard(self)
        else:
            self._read(goes_on)

    def _read(self, reading: bool) -> None:
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self._below.resumeProducing()
            else:
                self._below.pauseProducing()
