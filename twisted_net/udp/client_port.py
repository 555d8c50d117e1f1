"""UDP port of a client: it writes at once, and hears which destinations cannot be reached."""

# mypy: disallow-untyped-calls=False
# Few of the methods that the port derives from have types.

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from twisted.internet.error import MessageLengthError
from typing_extensions import override

from twisted_net.net.addresses import Source
from twisted_net.udp.error_queue import enable_error_queue, take_refusals
from twisted_net.udp.port import TRANSIENT_READ_ERRORS, CappedPort
from twisted_net.udp.sockets import socket_address


class ClientPort(CappedPort):
    """
    The port of a client: it writes at once, and raises what the kernel says of a datagram.

    So a call whose server cannot be reached ends at once.

    :ivar refused: called with a destination at which nobody listens, as ICMP says, though the
        socket is not connected (Linux). None, or set before the start.
    """

    refused: Callable[[Source], object] | None = None

    @override
    def startListening(self) -> None:
        super().startListening()
        if self.refused is not None and not enable_error_queue(self.socket):
            self.refused = None

    @override
    def write(self, datagram: bytes, addr: Source | None = None) -> None:
        while self.connected:
            try:
                self._send(datagram, addr)
                return
            except OSError:
                # It may be the error of an earlier datagram, to another destination.
                if not self._take_refusals():
                    raise

    @override
    def _send(self, datagram: bytes, addr: Source | None) -> None:
        if self.refused is None or addr is None:
            super()._send(datagram, addr)
            return
        try:
            # Twisted's own drops the datagram without a word if the error is ECONNREFUSED.
            self.socket.sendto(datagram, socket_address(addr))
        except OSError as failure:
            if failure.errno == errno.EMSGSIZE:
                raise MessageLengthError("message too long") from failure
            raise

    @override
    def doRead(self) -> None:
        super().doRead()
        self._take_refusals()

    @override
    def _survives_error(self) -> bool:
        if self.refused is None:
            return super()._survives_error()
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        # With neither, a write in this turn of the reactor has taken them.
        if not self._take_refusals() and number and number not in TRANSIENT_READ_ERRORS:
            return False
        if self.connected and not self._stopping:
            self.startReading()
        return True

    def _take_refusals(self) -> bool:
        """Pass on the errors that the kernel has queued; return whether there were some."""
        if self.refused is None or not self.connected:
            return False
        destinations = take_refusals(self.socket)
        for destination in destinations or ():
            self.refused(destination)
        return destinations is not None
