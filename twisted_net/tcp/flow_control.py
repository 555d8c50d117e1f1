"""Tells a transport whether to read, once for each change."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol


class ReadingProtocol(Protocol):
    """The part of a protocol that knows whether its transport reads; it does in the beginning."""

    transport: Any  # TCP, Unix or TLS

    __slots__ = ("_reading",)

    def __init__(self) -> None:
        self._reading = True

    def _read(self, reading: bool) -> None:
        """Let the transport read, or not."""
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()
