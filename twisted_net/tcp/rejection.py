"""How connections end with words: those that are turned away, and those that we hang up on."""

from __future__ import annotations

from typing import Protocol as Seam

from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twisted_net.reasons import End
from twisted_net.tcp.transport import StreamTransport

LINGER_TIMEOUT = 2.0
"""
Seconds in which a peer that we hang up on may read our last words and end its half.

To close a socket that holds unread input resets the connection, and a reset may overtake the
answers. So we end our half first, drop what still comes, and wait for the peer to end its own.
"""

MAX_LINGERING = 256
"""Connections refused with words at one time; further ones are closed without."""


class Abortable(Seam):
    """A connection that its owner may have to end."""

    def abort(self, end: End) -> None:
        """End the connection now."""
        ...


class _Owner(Seam):
    """The factory that refuses: it counts the connection, and ends it where it stays."""

    def refusing(self, connection: RefusingProtocol) -> None: ...
    def refused(self, connection: RefusingProtocol) -> None: ...
    def watch(self, connection: Abortable, timeout: float, end: End) -> None: ...


@implementer(IHalfCloseableProtocol)
class RefusingProtocol(Protocol):
    """
    Tells a client why it is turned away, and waits a while for it to leave.

    :param answer: the line that says why.
    """

    transport: StreamTransport

    def __init__(self, owner: _Owner, answer: bytes) -> None:
        self._owner = owner
        self._answer = answer

    @override
    def connectionMade(self) -> None:
        self.transport.write(self._answer)
        end_output(self.transport)
        self._owner.refusing(self)
        self._owner.watch(self, LINGER_TIMEOUT, End.TOO_MANY_CONNECTIONS)

    def readConnectionLost(self) -> None:
        """The client has left."""
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The client has been told."""

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._owner.refused(self)

    def abort(self, end: End) -> None:
        """End the connection now."""
        self.transport.abortConnection()


class ClosingProtocol(Protocol):
    """
    Closes one connection without a word.

    ``buildProtocol`` might give None, but TLS and other wrapping factories fail on that.
    """

    @override
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


def end_output(transport: StreamTransport) -> None:
    """End our half of a connection once what was written has left."""
    # TLS has no half of a connection to end.
    if ISSLTransport.providedBy(transport):
        transport.loseConnection()
    else:
        transport.loseWriteConnection()
