"""Flow control of one connection: when it is read, how much is kept for it, how fast it may go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.tcp.admission import Meter

UNCOUNTED = 4096
"""Bytes after the last line of a piece that need not be counted, as they are few."""


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
    """

    __slots__ = ("_events_size", "_transport", "input_size", "output_size", "reading")

    def __init__(self, transport: Readable) -> None:
        self._transport = transport
        self.reading = True
        self.input_size = 0
        self.output_size = 0
        self._events_size = 0  # the part of output_size that is events

    @property
    def kept(self) -> int:
        """Bytes that are kept in memory for this connection, at both ends."""
        return self.input_size + self.output_size

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
