"""Flow control of one connection: when it is read, how much is kept for it, how fast it may go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.tcp.admission import Meter
from twisted_net.tcp.answer_queue import AnswerQueue

UNCOUNTED = 4096
"""
Bytes that need not be counted, as they are few: after the last line of a piece, or of what waits
for an answer. Nothing is counted for a client that is answered at once.
"""

LINE_BYTES = 41
"""Bytes of a line that waits, beside its own: an object of Python's, and its place in a list."""


class Readable(Protocol):
    """A transport whose reading can be paused: TCP, Unix or TLS."""

    def pauseProducing(self) -> None:
        """Read no more for now."""

    def resumeProducing(self) -> None:
        """Read on."""


class FlowControl:
    """
    Flow control of one connection: whether it is read, and how many bytes are kept for it.

    It knows no limit but the one that it is called with, and pauses nothing unasked: the
    connection decides, since it alone knows which lines and answers are left.

    :param transport: paused and resumed once for each change; it reads in the beginning.
    :ivar reading: whether the transport is read.
    :ivar input_size: bytes received and not run yet: an unfinished line, lines left over.
    :ivar output_size: bytes written since the peer stopped reading.
    :ivar unsent: bytes that wait for the kernel to take them, if the transport tells.
    :ivar pending_size: bytes of lines whose answers are waited for, and of answers behind these.
    """

    __slots__ = (
        "_begin",
        "_events_size",
        "_lines",
        "_transport",
        "_uncut",
        "input_size",
        "output_size",
        "pending_size",
        "reading",
        "unsent",
    )

    def __init__(self, transport: Readable) -> None:
        self._transport = transport
        self.reading = True
        self.input_size = 0
        self.output_size = 0
        self.unsent = 0
        self.pending_size = 0
        self._events_size = 0  # the part of output_size that is events
        self._uncut = 0  # the part of input_size that is not cut into lines
        self._lines: Sequence[bytes | None] | None = None  # those of the rest of it,
        self._begin = 0  # from this one on

    @property
    def output(self) -> int:
        """Bytes that wait for the peer."""
        return max(self.output_size, self.unsent)

    @property
    def kept(self) -> int:
        """Bytes that are kept in memory for this connection, at both ends."""
        return self.input_size + self.pending_size + self.output

    def set_input(
        self,
        uncut: int,
        lines: Sequence[bytes | None] | None,
        begin: int,
        queue: AnswerQueue | None,
    ) -> bool:
        """
        Set :attr:`input_size` and :attr:`pending_size`; return whether they have changed.

        :param uncut: bytes that are not cut into lines.
        :param lines: those that are, of which the first have run.
        :param begin: the index of the first that has not.
        :param queue: the answers that are waited for.
        """
        before, pending = self.input_size + self.pending_size, 0 if queue is None else queue.size
        self.pending_size = pending if pending > UNCOUNTED or self.pending_size else 0
        if lines is None:
            size = uncut
        elif lines is self._lines and begin == self._begin:
            # Only what is uncut may have changed: lines are not added up each time.
            size = self.input_size - self._uncut + uncut
        else:
            size = uncut + (len(lines) - begin) * LINE_BYTES
            size += sum([len(line) for line in lines[begin:] if line])
        self.input_size, self._uncut = size, uncut
        # The lines themselves: as many others may follow them.
        self._lines, self._begin = lines, begin
        return size + self.pending_size != before

    def set_reading(self, reading: bool) -> None:
        """Pause or resume the transport; nothing is done where it already is so."""
        if reading is not self.reading:
            self.reading = reading
            if reading:
                self._transport.resumeProducing()
            else:
                self._transport.pauseProducing()

    def add_event(self, size: int, limit: int) -> bool:
        """
        Count an event that is about to be written to a peer that does not read.

        :param limit: bytes of events that may wait for such a peer.
        :return: False, and nothing is counted, where the event does not fit in the limit.
        """
        if self._events_size + size > limit:
            return False
        self._events_size += size
        self.output_size += size
        return True

    def output_read(self) -> None:
        """Count from zero again: the peer has read everything."""
        self.output_size = self._events_size = 0


class Throttle:
    """
    Rate limits of one connection: counts its commands and bytes, and pauses it after too many.

    Made only for connections that are under a rate limit.

    :param meter: counts against all the rates that hold for this client; replaced when it logs in.
    :param changed: called after each change of :attr:`paused`; it reads the connection or does not.
    """

    __slots__ = ("_changed", "_clock", "_pause", "meter")

    def __init__(self, clock: IReactorTime, meter: Meter, changed: Callable[[], None]) -> None:
        self.meter = meter
        self._clock = clock
        self._changed: Callable[[], None] | None = changed
        self._pause: IDelayedCall | None = None

    @property
    def paused(self) -> bool:
        """Whether the connection is not to be read, since too many bytes came or went."""
        return self._pause is not None

    def charge(self, size: int) -> None:
        """Count bytes that came or went; pause for as long as they were too many."""
        wait = self.meter.charge(size, self._clock.seconds())
        if wait > 0 and self._pause is None and self._changed is not None:
            self._pause = self._clock.callLater(wait, self._end_pause)
            self._changed()

    def stop(self) -> None:
        """Pause no more: the connection is lost, and neither keeps the other in memory."""
        self._changed = None
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _end_pause(self) -> None:
        self._pause = None
        # Others under the same rate may have used it up meanwhile.
        self.charge(0)
        if self._pause is None and self._changed is not None:
            self._changed()
