"""
Sends of a request at once, past the transport of Twisted, which would wait for the reactor.

Twisted's own transport asks the reactor to report when the socket is writable, which it nearly
always is, and sends in the next turn: two changes of the poll set and an event for each request.
Only what the kernel does not accept waits so.
"""

# mypy: disallow-untyped-calls=False
# Few of the transport's methods have types.

from __future__ import annotations

from errno import ENOBUFS, EWOULDBLOCK
from functools import cache

from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Client

from twisted_net.twisted_internals import fast_transport_changes

MAX_PROMPT = 2**16
"""Bytes that are sent at once; of more, the kernel would not take all."""


def send_promptly(transport: ITransport, data: bytes) -> None:
    """
    Send before this returns, if the transport is a TCP connection that has nothing else to send.

    Otherwise it is what ``transport.write(data)`` is. An error is not raised: the reactor reports
    the loss of the connection in its next turn.
    """
    if (
        type(transport) is not Client
        or not transport.connected
        or transport.dataBuffer
        or transport._tempDataBuffer
        or transport.producer is not None
        or transport.TLS
        or transport.disconnecting
        or transport._writeDisconnecting
        or transport._aborting
        or len(data) > MAX_PROMPT
        or not _is_known()
    ):
        transport.write(data)
        return
    try:
        sent = transport.socket.send(data)
    except OSError as error:
        sent = 0
        if error.errno not in (EWOULDBLOCK, ENOBUFS):
            # The socket has forgotten its error with this, and would look cleanly closed to a read.
            # The next send fails too, and tells the reactor.
            transport.stopReading()
    if sent < len(data):
        transport.write(data[sent:])


@cache
def _is_known() -> bool:
    """Return whether the installed Twisted has the transport that this relies on."""
    return not fast_transport_changes()
