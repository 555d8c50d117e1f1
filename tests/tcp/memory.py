"""
TCP in memory: a reactor that turns when a test says, and both ends of connections.

To a server the transport behaves as Twisted's: it buffers what is written, pauses
its producer above 64 KiB and resumes it at zero, ends either half of a connection alone, tells
of an abort a turn later, and delivers what the client sent only while it is read.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from tests.due_calls import call_due
from tests.threads import ThreadClock

BUFFER = 65_536
"""Bytes: what is read at once, and what may be written before the producer is paused."""

Address = IPv4Address | IPv6Address | UNIXAddress


class Reactor(ThreadClock):
    """A clock that runs in turns: the calls that are due, then input, then output."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        self.connections: list[Connection] = []
        self._port = 50_000

    def connect(
        self, factory: IProtocolFactory, peer: Address | None = None, *, tls: bool = False
    ) -> Connection:
        """Connect a client."""
        self._port += 1
        peer = peer or IPv4Address("TCP", "192.0.2.1", self._port)
        connection = (Connection if tls else HalfCloseableConnection)(self, peer, tls)
        self.connections.append(connection)
        protocol = factory.buildProtocol(peer)
        assert protocol is not None
        connection.protocol = protocol
        protocol.makeConnection(connection)
        return connection

    def turn(self) -> bool:
        """Turn once; say whether there was anything to do."""
        self.turns += 1
        due = call_due(self)
        connections = list(self.connections)
        read = [connection.read_turn() for connection in connections]
        written = [connection.write_turn() for connection in connections]
        return due or any(read) or any(written)

    def settle(self) -> None:
        """Turn until there is nothing to do now."""
        for _ in range(100_000):
            if not self.turn():
                return
        raise AssertionError("it never settles")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and do all that falls due meanwhile, in order."""
        until = self.seconds() + seconds
        self.settle()
        while self.calls and (due := min(call.getTime() for call in self.calls)) <= until:
            self.rightNow = due
            self.settle()
        self.rightNow = until
        self.settle()


@implementer(ITransport, IConsumer, IPushProducer)
class Connection:
    """
    Both ends of a connection: to the server its transport, to the test the client.

    With *tls* it is as Twisted's own TLS, which ends both halves at once; else it is one of
    :class:`HalfCloseableConnection`.

    :ivar reads: whether the client reads what comes; set it to False for one that does not.
    :ivar polite: whether the client ends its half once the server has ended its own.
    :ivar reading: whether the server reads.
    :ivar writes: what the server wrote, each with the turn in which it did.
    :ivar ended: whether the client has seen the end of the server's half.
    :ivar gone: whether nothing is left of the connection; *reason* then says why.
    """

    protocol: IProtocol

    def __init__(self, reactor: Reactor, peer: Address, tls: bool) -> None:
        self.tls = tls
        if tls:
            alsoProvides(self, ISSLTransport)
        self._reactor = reactor
        self._peer = peer
        self.reads = self.polite = True
        self.reading = True
        self.no_delay = False
        self.writes: list[tuple[int, bytes]] = []
        self.ended = self.gone = False
        self.reason: Failure | None = None
        self.producer: IPushProducer | None = None
        self._paused = False
        self._inbox = bytearray()
        self._end_to_read = False
        self._buffer = bytearray()
        self._received = bytearray()
        self._disconnecting = self._ending = self._aborting = False

    # --- the client ---

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._inbox += data

    def end(self) -> None:
        """End the client's half; bytes sent before go first."""
        self._end_to_read = True

    def reset(self) -> None:
        """Reset the connection."""
        self._lost(ConnectionLost())

    def received(self) -> bytes:
        """Take what has been received so far."""
        received = bytes(self._received)
        self._received.clear()
        return received

    def answers(self) -> list[Any]:  # Any: JSON
        """Take the lines received so far, decoded."""
        received = self.received()
        assert not received or received.endswith(b"\n"), received
        return [json.loads(line) for line in received.splitlines()]

    @property
    def unread(self) -> int:
        """How many bytes wait for the client to read them."""
        return len(self._buffer)

    @property
    def unheard(self) -> int:
        """How many bytes wait for the server to read them."""
        return len(self._inbox)

    # --- the reactor ---

    def read_turn(self) -> bool:
        """Return the protocol what is there, once."""
        if self.gone or not self.reading or self._disconnecting or self._aborting:
            return False
        if self._inbox:
            data = bytes(self._inbox[:BUFFER])
            del self._inbox[:BUFFER]
            self.protocol.dataReceived(data)
            return True
        if self._end_to_read:
            self._end_to_read = self.reading = False
            # TLS ends both halves at once.
            if self.tls:
                self._lost(ConnectionDone())
            else:
                half_closeable: Any = self.protocol  # Any: whether it is one
                if IHalfCloseableProtocol.providedBy(half_closeable):
                    half_closeable.readConnectionLost()
                else:
                    self._lost(ConnectionDone())
            return True
        return False

    def write_turn(self) -> bool:
        """Let the client read what was written, and do what was to follow."""
        if self.gone or self._aborting or not self.reads:
            return False
        busy = bool(self._buffer) or self._paused
        self._received += self._buffer
        self._buffer.clear()
        if self.producer is not None and self._paused:
            self._paused = False
            self.producer.resumeProducing()
        elif self._disconnecting:
            busy = True
            self._lost(ConnectionDone())
        elif self._ending and not self.ended:
            busy = self.ended = True
            self._end_to_read = self._end_to_read or self.polite
            half_closeable: Any = self.protocol  # Any: whether it is one
            if IHalfCloseableProtocol.providedBy(half_closeable):
                half_closeable.writeConnectionLost()
        return busy

    def _lost(self, why: Exception) -> None:
        if self.gone:
            return
        self.gone = self.ended = True
        self.reading = False
        self.reason = Failure(why)
        self._reactor.connections.remove(self)
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        self.protocol.connectionLost(self.reason)

    # --- the transport ---

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError(data)
        if self.gone or self.ended or (self._disconnecting and self.producer is None):
            return
        self.writes.append((self._reactor.turns, data))
        self._buffer += data
        if self.producer is not None and len(self._buffer) > BUFFER:
            self._paused = True
            self.producer.pauseProducing()

    def writeSequence(self, iovec: Any) -> None:  # Any: an iterable of bytes
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        if self.ended:
            self._lost(ConnectionDone())
        self._disconnecting = True

    def abortConnection(self) -> None:
        if not self.gone and not self._aborting:
            self._aborting = True
            self._reactor.callLater(0, self._lost, ConnectionAborted())

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = not self.gone

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        assert self.producer is None
        assert streaming
        self.producer = IPushProducer(producer)

    def unregisterProducer(self) -> None:
        self.producer = None
        self._paused = False

    def getPeer(self) -> Any:  # Any: zope's interface does not know of UNIX
        return self._peer

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.9", 8888)

    def getTcpNoDelay(self) -> bool:
        return self.no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        assert not isinstance(self._peer, UNIXAddress), "no socket of TCP's"
        self.no_delay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        raise NotImplementedError

    def getPeerCertificate(self) -> None:
        raise NotImplementedError


@implementer(ITCPTransport)
class HalfCloseableConnection(Connection):
    """A connection each half of which ends alone, as that of TCP and Unix sockets do."""

    def loseWriteConnection(self) -> None:
        """End the server's half, once everything has left."""
        self._ending = True
