"""Rejection of connections with an answer, and closing so that the last bytes arrive."""

from __future__ import annotations

from typing import Protocol as Seam

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twisted_net.broadcasts import encode_event
from twisted_net.reasons import End
from twisted_net.tcp.proxy_protocol import ProxiedTransport
from twisted_net.tcp.transport import StreamTransport

LINGER_TIMEOUT = 2.0
"""
Seconds for a peer to read our last bytes and end its half, after we have ended ours.

Closing a socket with unread input resets the connection, and a reset may overtake the answers.
So our half is ended first, input is dropped, and the peer is waited for.
"""

MAX_LINGERING = 256
"""Connections rejected with an answer at one time; further ones are closed without."""


class Abortable(Seam):
    """A connection that can be ended at once."""

    def abort(self, end: End) -> None:
        """End the connection now."""
        ...


class _Owner(Seam):
    """The factory that rejects: it counts the connection, and aborts it at its time limit."""

    def rejecting(self, connection: RejectingProtocol) -> None: ...
    def rejected(self, connection: RejectingProtocol) -> None: ...
    def watch(self, connection: Abortable, timeout: float, end: End) -> None: ...


@implementer(IHalfCloseableProtocol)
class RejectingProtocol(Protocol):
    """
    Answers a client why it is rejected, and waits for it to leave.

    :param answer: a line of JSON, the error.
    """

    transport: StreamTransport

    def __init__(self, owner: _Owner, answer: bytes) -> None:
        self._owner = owner
        self._answer = answer

    @override
    def connectionMade(self) -> None:
        self.transport.write(self._answer)
        end_output(self.transport, self)
        self._owner.rejecting(self)
        self._owner.watch(self, LINGER_TIMEOUT, End.TOO_MANY_CONNECTIONS)

    def readConnectionLost(self) -> None:
        """The client has left."""
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The answer has left."""

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._owner.rejected(self)

    def abort(self, end: End) -> None:
        """End the connection now."""
        self.transport.abortConnection()


class ClosingProtocol(Protocol):
    """
    Closes one connection without an answer.

    ``buildProtocol`` might return None instead, but TLS and other wrapping factories fail on that.
    """

    @override
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


def end_output(transport: StreamTransport, protocol: IHalfCloseableProtocol | None) -> None:
    """
    End our half of a connection once everything written has left.

    The transport then calls ``writeConnectionLost``. One that only wraps another, such as the TLS
    of Twisted's own endpoints, never does: for it, *protocol* is told at once.

    :param protocol: that of the connection; None where the peer has output to read, so that it may
        take its time.
    """
    # A wrapper has the methods of the connection within as attributes, but not in its class.
    bare: object = transport
    if isinstance(bare, ProxiedTransport):
        bare = bare.unproxied
    tells = hasattr(type(bare), "loseWriteConnection")
    if not tells and ISSLTransport.providedBy(transport):
        # The connection within would end without a close_notify.
        transport.loseConnection()
    else:
        transport.loseWriteConnection()
    if not tells and protocol is not None:
        protocol.writeConnectionLost()


class LayerEnded(ConnectionAborted):
    """
    A layer below the commands, such as TLS, has ended a connection.

    :param end: why, as it is counted.
    """

    def __init__(self, end: End) -> None:
        super().__init__(end.value)
        self.end = end


def end_of(reason: Failure) -> End:
    """Return why a connection has ended of which the transport says that it is lost."""
    # Not by Failure.check, which takes a quarter of all that an end takes of us.
    error = reason.value
    if isinstance(error, LayerEnded):
        return error.end
    return End.CLIENT_CLOSED if isinstance(error, ConnectionDone) else End.CONNECTION_LOST


def closing_event(end: End, message: str = "") -> bytes:
    """
    Return the event that tells a client why the server closes its connection.

    :param message: more about it in words; empty for nothing.
    """
    event = {"event": "closing", "reason": end.value}
    return encode_event({**event, "message": message} if message else event)
