"""The halves of a TLS connection end one by one, under any protocol."""

from __future__ import annotations

import contextlib
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import BufferingTLSTransport
from zope.interface import implementer

from tests.tcp.test_tls import Client, TlsCase


class Whole(Protocol):
    """
    A protocol that knows nothing of halves, and keeps what happens to it.

    :ivar happened: the kinds of events, and the type of error with which it was lost.
    """

    def __init__(self) -> None:
        self.happened: list[object] = []
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:  # Any: a Failure
        """Keep why."""
        self.happened.append(reason.type)


@implementer(IHalfCloseableProtocol)
class Halves(Whole):
    """One that knows of half-closed connections, and pauses and ends nothing by itself."""

    def readConnectionLost(self) -> None:
        """The peer has ended its half."""
        self.happened.append("input")

    def writeConnectionLost(self) -> None:
        """Our half has ended."""
        self.happened.append("output")


@implementer(IPushProducer)
class Producer:
    """A producer that does nothing."""

    def pauseProducing(self) -> None:
        """Pause."""

    def resumeProducing(self) -> None:
        """Resume."""

    def stopProducing(self) -> None:
        """Stop."""


class TlsTransportTests(TlsCase):
    """:class:`TlsTransport` under a protocol that knows of halves, and one that does not."""

    def under(self, kind: type[Whole]) -> tuple[Client, Any]:  # Any: the protocol
        """Connect a client to a protocol of this kind."""
        made: list[Whole] = []

        def make() -> Whole:
            made.append(kind())
            return made[0]

        factory: Any = self.factory  # Any: its attribute has no type
        factory.wrappedFactory.inner = Factory.forProtocol(make)
        client = self.client()
        self.assertTrue(client.shake())
        return client, made[0]

    def read(self, client: Client) -> tuple[bytes, bool]:
        """Return what a client has received, and whether a close_notify followed."""
        client.flush()
        text = b""
        with contextlib.suppress(SSL.WantReadError):
            try:
                while True:
                    text += client.tls.recv(65_536)
            except SSL.ZeroReturnError:
                return text, True
        return text, False

    # --- the peer ends its half ---

    def test_notified(self) -> None:
        """After a close_notify of the peer all is sent that is written; then both have ended."""
        client, protocol = self.under(Halves)
        client.tls.send(b"question")
        client.tls.shutdown()
        client.flush()
        self.assertEqual((protocol.received, protocol.happened), (b"question", ["input"]))
        for _ in range(3):
            protocol.transport.write(b"answer ")
            self.assertEqual(self.read(client), (b"answer ", False))
        protocol.transport.write(b"last")
        protocol.transport.loseConnection()
        self.assertEqual(self.read(client), (b"last", True))
        self.assertEqual(protocol.happened, ["input", ConnectionDone])
        self.assertTrue(client.connection.gone)

    def test_after_the_notification(self) -> None:
        """What follows a close_notify is not kept, and the end of the connection is no news."""
        client, protocol = self.under(Halves)
        client.tls.shutdown()
        client.flush()
        kept: list[bytes] = []
        self.patch(BufferingTLSTransport, "dataReceived", lambda _, data: kept.append(data))
        for _ in range(100):
            client.connection.send(b"x" * 60_000)
            self.reactor.settle()
        client.connection.end()
        self.reactor.settle()
        self.assertEqual((kept, client.connection.unheard), ([], 0))
        self.assertEqual(protocol.happened, ["input"])
        protocol.transport.loseConnection()
        self.reactor.settle()
        self.assertEqual(protocol.happened[1:], [ConnectionLost])

    def test_not_notified(self) -> None:
        """Without a close_notify it is the same, but the connection is lost, not done."""
        client, protocol = self.under(Halves)
        client.tls.send(b"question")
        client.flush()
        client.connection.end()
        self.reactor.settle()
        self.assertEqual((protocol.received, protocol.happened), (b"question", ["input"]))
        protocol.transport.write(b"answer")
        protocol.transport.loseConnection()
        self.assertEqual(self.read(client), (b"answer", True))
        self.assertEqual(protocol.happened, ["input", ConnectionLost])

    # --- our half ends ---

    def test_output_ends(self) -> None:
        """Our half ends when the peer has read all; until then its own is received."""
        client, protocol = self.under(Halves)
        client.connection.polite = False
        client.connection.reads = False
        protocol.transport.write(b"last")
        for _ in range(2):
            protocol.transport.loseWriteConnection()
        protocol.transport.write(b"too late")
        self.reactor.settle()
        self.assertEqual(protocol.happened, [])
        client.connection.reads = True
        self.assertEqual(self.read(client), (b"last", True))
        self.assertEqual(protocol.happened, ["output"])
        client.tls.send(b"more")
        client.flush()
        self.assertEqual(protocol.received, b"more")
        client.tls.shutdown()
        client.flush()
        self.assertEqual(protocol.happened, ["output", "input"])
        protocol.transport.loseConnection()
        self.reactor.settle()
        self.assertEqual(protocol.happened, ["output", "input", ConnectionDone])

    def test_producer(self) -> None:
        """A producer may write on; our half ends once it has been unregistered."""
        client, protocol = self.under(Halves)
        client.connection.polite = False
        transport = protocol.transport
        transport.registerProducer(Producer(), True)
        transport.write(b"one ")
        transport.loseWriteConnection()
        self.assertEqual(self.read(client), (b"one ", False))
        transport.write(b"two")
        self.assertEqual(self.read(client), (b"two", False))
        transport.unregisterProducer()
        self.assertEqual(self.read(client), (b"", True))
        self.assertEqual(protocol.happened, ["output"])
        transport.registerProducer(Producer(), True)
        transport.unregisterProducer()
        client.connection.reset()

    def test_producer_until_the_end(self) -> None:
        """So it is where both halves are to end, even if only one was at first."""
        client, protocol = self.under(Halves)
        transport = protocol.transport
        transport.registerProducer(Producer(), True)
        transport.loseWriteConnection()
        transport.loseConnection()
        client.flush()
        self.assertEqual(protocol.happened, [])
        transport.unregisterProducer()
        client.flush()
        self.assertEqual(protocol.happened, [ConnectionDone])

    def test_aborted(self) -> None:
        """To abort is allowed in every state, and ends both halves at once."""
        for ended in ("", "loseWriteConnection", "loseConnection"):
            client, protocol = self.under(Halves)
            client.connection.polite = client.connection.reads = False
            protocol.transport.write(b"x" * 100_000)
            if ended:
                getattr(protocol.transport, ended)()
            self.reactor.settle()
            self.assertFalse(client.connection.gone)
            protocol.transport.abortConnection()
            self.reactor.settle()
            self.assertEqual(protocol.happened, [ConnectionAborted])

    # --- under a protocol that knows no halves ---

    def test_whole_notified(self) -> None:
        """A close_notify of the peer ends the connection, once what was written has left."""
        client, protocol = self.under(Whole)
        protocol.transport.write(b"last")
        client.tls.shutdown()
        self.assertEqual(self.read(client), (b"last", True))
        self.assertEqual(protocol.happened, [ConnectionDone])

    def test_whole_not_notified(self) -> None:
        """An end without one is a loss."""
        client, protocol = self.under(Whole)
        client.connection.end()
        client.flush()
        self.assertEqual(protocol.happened, [ConnectionLost])

    def test_whole_output_ends(self) -> None:
        """It is not told of the end of its half."""
        client, protocol = self.under(Whole)
        client.connection.polite = False
        protocol.transport.loseWriteConnection()
        self.assertEqual(self.read(client), (b"", True))
        self.assertEqual(protocol.happened, [])
        client.connection.reset()

    def test_whole_closes(self) -> None:
        """When it closes the connection does not wait for the peer's close_notify."""
        client, protocol = self.under(Whole)
        client.connection.polite = False
        protocol.transport.write(b"last")
        protocol.transport.loseConnection()
        self.assertEqual(self.read(client), (b"last", True))
        self.assertEqual(protocol.happened, [ConnectionDone])
