"""
Paced reads: what a client's connection has read is handed on in pieces, in the turns of all.

A server may send what costs a hundred times more than other bytes: short lines, or bodies that
grow. :class:`PacedReads` cuts what has come into pieces of bounded cost, and hands on as many in a
turn as :class:`~twisted_net.turns.paced_input.PacedInput` lets it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from twisted_net.turns.paced_input import UNITS_PER_LOOK, Below, PacedInput
from twisted_net.turns.turn_scheduler import TurnScheduler, turns_of

SMALL_READ = 4096
"""Bytes that are handed on as they come without making others wait for their turn."""

LINES_PER_PIECE, LINES_PER_UNIT = 64, 8
"""
Lines of a piece, and of a unit: each may be an answer, which wakes a caller. So a piece of 64 is
eight units more than one without lines.
"""


class Cutter(Protocol):
    """Cuts a stream into pieces of bounded cost."""

    @property
    def ready(self) -> bool:
        """Whether there may be a piece to take."""
        ...

    def __len__(self) -> int:
        """How many bytes are kept."""
        ...

    def keep(self, data: bytes) -> None:
        """Keep the next bytes until they are taken."""
        ...

    def take(self, limit: int) -> tuple[bytes, int]:
        """
        Take a piece, which may be empty; return it and its units.

        :param limit: units of which a cutter that can choose takes no more.
        """
        ...

    def clear(self) -> None:
        """Drop what is kept."""
        ...


class LineCutter:
    """Cuts a stream into pieces of at most :data:`LINES_PER_PIECE` lines."""

    __slots__ = ("_begin", "_kept", "_size")

    def __init__(self) -> None:
        self._kept = b""
        self._begin = 0  # what is before it has been taken
        self._size = 0  # of the last piece that was cut short; the next one is often like it

    def __len__(self) -> int:
        """How many bytes are kept."""
        return len(self._kept) - self._begin

    @property
    def ready(self) -> bool:
        """Whether there is a piece to take."""
        return self._begin < len(self._kept)

    def keep(self, data: bytes) -> None:
        """Keep the next bytes until they are taken."""
        self._kept = self._kept[self._begin :] + data if self._kept else data
        self._begin = 0

    def take(self, limit: int) -> tuple[bytes, int]:
        """Take a piece."""
        kept, begin, left = self._kept, self._begin, len(self)
        size = min(2 * self._size, left) if self._size else left
        # Halved, not searched line by line: a long text without lines is looked at once.
        while (lines := kept.count(b"\n", begin, begin + size)) > LINES_PER_PIECE:
            size //= 2
        self._size = size if size < left else 0
        self._begin = begin + size
        if self._begin == len(kept):
            self.clear()
        units = 1 + lines // LINES_PER_UNIT
        return kept[begin : begin + size] if size < len(kept) else kept, units

    def clear(self) -> None:
        """Drop what is kept."""
        self._kept, self._begin = b"", 0


@frozen
class Pace:
    """
    The turns that something takes its part of.

    :param turns: of the reactor.
    :param seconds: its clock, for durations.
    """

    turns: TurnScheduler
    seconds: Callable[[], float]

    @classmethod
    def of(cls, reactor: IReactorTime) -> Pace:
        """Return that of all connections of a reactor."""
        return cls(turns_of(reactor), reactor.seconds)


class PacedReads:
    """
    What one connection has read, handed on piece by piece.

    The end of the connection is handed on after the last piece. What is handed on may pause this,
    and nothing more comes then until it is resumed.

    :param below: what is paused while pieces are left.
    :param deliver: called with each piece.
    :param lost: called once, with the reason.
    """

    __slots__ = (
        "_cutter",
        "_deliver",
        "_input",
        "_lost",
        "_paused",
        "_reason",
        "_seconds",
        "_turns",
    )

    def __init__(
        self,
        pace: Pace,
        below: Below,
        cutter: Cutter,
        deliver: Callable[[bytes], object],
        lost: Callable[[Failure], object],
    ) -> None:
        self._cutter = cutter
        self._deliver = deliver
        self._lost = lost
        self._seconds = pace.seconds
        self._turns = pace.turns
        self._paused = False
        self._reason: Failure | None = None
        self._input = PacedInput(pace.turns, pace.seconds, below, self._step)

    def received(self, data: bytes) -> None:
        """Hand on what has come, or let it wait for its turn."""
        self._cutter.keep(data)
        # What another server has sent may have cost much already: even a small response takes
        # more than all lines that a connection may run as they arrive.
        self._input.arrived(alone=self._turns.busy or len(self._cutter) > SMALL_READ)

    def end(self, reason: Failure) -> None:
        """Hand on the end of the connection, when all pieces have been."""
        self._reason = reason
        if not self._cutter.ready:
            self._finish()

    def pause(self) -> None:
        """Hand on nothing for now."""
        self._paused = True
        self._input.pause()

    def resume(self) -> None:
        """Hand on more, in its turn."""
        self._paused = False
        self._input.resume()

    def drop(self) -> None:
        """Drop what is left: the connection is to be closed, or has been."""
        self._cutter.clear()
        if self._reason is not None:
            # Its end waits behind what was left. It is told in a turn, as by a transport.
            self._reason = Failure(ConnectionAborted())
            self.resume()

    def _step(self, limit: int, until: float) -> bool:
        """Hand on pieces; return whether some are left."""
        cutter, seconds = self._cutter, self._seconds
        began, left = seconds(), cutter.ready
        while left and limit > 0 and not self._paused:
            piece, units = cutter.take(min(limit, UNITS_PER_LOOK))
            limit -= max(units, 1)
            self._deliver(piece)
            left = cutter.ready
            if left and seconds() >= until:
                break
        if not left and self._reason is not None:
            self._finish()
        self._turns.spend(began, seconds())
        return left

    def _finish(self) -> None:
        reason, self._reason = self._reason, None
        self._input.stop()
        assert reason is not None
        lost = self._lost
        # They may refer to this, as the cutter may.
        self._deliver = self._lost = _nothing
        self._cutter = LineCutter()
        lost(reason)


def _nothing(_: object) -> None:
    """Nothing comes after the end."""


class PacedTransport:
    """
    The transport of a protocol whose reads are paced: that below, but for what is read.

    :param below: the transport; its methods are those of this one.
    """

    def __init__(self, below: Any, reads: PacedReads) -> None:  # Any: of TCP or TLS, or of a body
        self._below = below
        self._reads = reads
        interfaces = list(providedBy(below))
        if interfaces:
            directlyProvides(self, interfaces)

    def __getattr__(self, name: str) -> Any:  # Any: as above
        return getattr(self._below, name)

    def pauseProducing(self) -> None:
        """Hand on nothing for now."""
        self._reads.pause()

    def resumeProducing(self) -> None:
        """Hand on more."""
        self._reads.resume()

    def loseConnection(self) -> None:
        """Close the connection; what has been read already is dropped."""
        self._reads.drop()
        self._below.loseConnection()

    def abortConnection(self) -> None:
        """Drop the connection, and what has been read already."""
        self._reads.drop()
        self._below.abortConnection()
