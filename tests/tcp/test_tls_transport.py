"""The halves of a TLS connection end one by one, and an idle one keeps no large buffers."""

from __future__ import annotations

import contextlib
import ctypes
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from OpenSSL._util import ffi, lib
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.protocols.tls import BufferingTLSTransport
from zope.interface import implementer

from tests.tcp.test_tls import Client, TlsCase
from twisted_net import twisted_internals
from twisted_net.tcp import tls_transport
from twisted_net.tcp.tls_transport import KEPT, RELEASE_INTERVAL, TlsTransport
from twisted_net.twisted_internals import tls_buffers_changes

BURST = [b"ECHO " + b"x" * 1000] * 60
SMALL = 2 * KEPT
"""Bytes of memory that a buffer of OpenSSL may have: it takes a third more than it must."""

_usable_size = ctypes.CDLL(None).malloc_usable_size
_usable_size.argtypes, _usable_size.restype = (ctypes.c_void_p,), ctypes.c_size_t


def capacity(buffer: Any) -> int:  # Any: a BIO
    """Give the bytes of memory that a buffer has; this spoils what is in it."""
    if not lib.BIO_write(buffer, b"!", 1):
        raise AssertionError("the buffer takes nothing")
    begin = ffi.new("char **")
    lib.BIO_get_mem_data(buffer, begin)
    return int(_usable_size(int(ffi.cast("intptr_t", begin[0]))))


class BuffersTests(TlsCase):
    """:class:`TlsTransport` releases memory, and loses nothing by it."""

    def connections(self) -> list[SSL.Connection]:
        """Return the server's sides of all connections."""
        return [transport._tlsConnection for transport in self.factory.protocols]

    def assert_small(self) -> None:
        """After a moment no connection of the server has a large buffer."""
        self.reactor.pass_time(RELEASE_INTERVAL)
        for connection in self.connections():
            for buffer in (connection._into_ssl, connection._from_ssl):
                self.assertLessEqual(capacity(buffer), SMALL)

    def burst(self, client: Client) -> int:
        """Send sixty kilobytes in one piece, and return how many answers came."""
        for line in BURST:
            client.tls.send(line + b"\n")
        return len(client.ask())

    def shaken(self, **options: Any) -> Client:  # Any: parameters of Client
        """Connect and shake hands."""
        client = self.client(**options)
        self.assertTrue(client.shake())
        return client

    def test_after_the_handshake(self) -> None:
        """The handshake, with certificates of both sides, leaves no buffers."""
        self.factory = self.mutual()
        for highest in (None, SSL.TLS1_2_VERSION):
            client = self.shaken(pair=self.pair("ada"), highest=highest)
            self.assertEqual(client.ask(b"PING")[0]["result"], "PONG")
        self.assert_small()

    def test_after_a_burst(self) -> None:
        """Sixty kilobytes in one piece, and as many of answers, leave none."""
        client = self.shaken()
        for _ in range(3):
            self.assertEqual(self.burst(client), len(BURST))
        self.assert_small()

    def test_after_large_answers(self) -> None:
        """Short commands with large answers leave none."""
        client = self.shaken()
        self.assertGreater(len(json.dumps(client.ask(b"HELP"))), 2 * KEPT)
        self.assert_small()

    def test_unanswered(self) -> None:
        """The beginning of a long line, to which there is no answer, leaves none."""
        client = self.shaken()
        client.tls.send(b"ECHO " + b"x" * 10_000)
        client.flush()
        self.assert_small()

    def test_not_empty(self) -> None:
        """Nothing is released while records wait, though large answers leave meanwhile."""
        client = self.shaken()
        for _ in range(100):
            client.tls.send(b"HELP\n")
        self.assertEqual(len(client.ask()), 100)
        self.assert_small()

    def test_would_be_seen(self) -> None:
        """With Twisted's transport there are large buffers."""
        self.factory.protocol = BufferingTLSTransport
        self.burst(self.shaken())
        (connection,) = self.connections()
        self.assertGreater(capacity(connection._into_ssl), 40_000)

    def test_within_a_record(self) -> None:
        """Buffers are released while half a record is there; the other half completes it."""
        client = self.shaken()
        client.tls.send(b"ECHO " + b"a" * 8000 + b"\n")
        record = client.tls.bio_read(65_536)
        for begin in range(0, len(record), 3000):
            client.connection.send(record[begin : begin + 3000])
            self.reactor.settle()
        self.assertEqual([len(answer["result"]) for answer in client.ask()], [8000])
        self.assert_small()

    @settings(max_examples=30)
    @given(st.lists(st.integers(0, 5000), max_size=20), st.lists(st.integers(1, 9000), max_size=9))
    def test_any_sizes(self, lengths: list[int], cuts: list[int]) -> None:
        """Whatever comes, in whatever pieces, is answered in order."""
        client = self.shaken()
        for length in lengths:
            client.tls.send(b"ECHO " + b"a" * length + b"\n")
        sent = b""
        while True:
            try:
                sent += client.tls.bio_read(65_536)
            except SSL.WantReadError:
                break
        for cut in cuts:
            client.connection.send(sent[:cut])
            self.reactor.settle()
            sent = sent[cut:]
        client.connection.send(sent)
        self.assertEqual([len(answer["result"]) for answer in client.ask()], lengths)

    def test_in_turn(self) -> None:
        """Many are released in several turns, each once, and the timer ends with the last."""
        self.patch(tls_transport, "RELEASES_AT_ONCE", 2)
        clients = [self.shaken() for _ in range(5)]
        for client in clients * 2:
            self.burst(client)
        released: list[TlsTransport] = []
        release = TlsTransport.release_buffers

        def release_and_note(transport: TlsTransport) -> None:
            released.append(transport)
            release(transport)

        self.patch(TlsTransport, "release_buffers", release_and_note)
        for count in (2, 4, 5, 5):
            self.reactor.pass_time(RELEASE_INTERVAL)
            self.assertEqual((len(released), len(set(released))), (count, count))
        self.assertEqual(self.timers(), 0)
        self.burst(clients[0])
        self.assert_small()

    def timers(self) -> int:
        """Return how many calls of the transports are scheduled."""
        return sum(call.func == self.factory.grown._release for call in self.reactor.calls)

    def test_no_timer_left(self) -> None:
        """With the last connection the timer ends, too."""
        clients = [self.shaken(), self.shaken()]
        for client in clients:
            self.burst(client)
        clients[0].connection.reset()
        self.assertEqual(self.timers(), 1)
        (transport,) = self.factory.protocols
        clients[1].connection.reset()
        self.assertEqual(self.timers(), 0)
        transport._write(b"x" * 1000)
        self.assertEqual(self.timers(), 0)
        self.burst(self.shaken())
        self.assertEqual(self.timers(), 1)
        self.assert_small()

    def test_lost(self) -> None:
        """A connection that is reset after a burst is counted, and not kept."""
        client = self.shaken()
        self.burst(client)
        client.connection.reset()
        self.reactor.settle()
        self.assertEqual((self.ended(), self.factory.protocols), ({"connection_lost": 1}, {}))


class OtherVersionTests(TlsCase):
    """With a pyOpenSSL that is not known the buffers are kept, and a warning says so."""

    def test_installed(self) -> None:
        """What is installed is known."""
        self.assertEqual(tls_buffers_changes(), [])

    def test_changed(self) -> None:
        """Connections work with another one."""
        logged = EventLoggingObserver()
        globalLogPublisher.addObserver(logged)
        self.addCleanup(globalLogPublisher.removeObserver, logged)
        tls_transport._buffers_release.cache_clear()
        self.addCleanup(tls_transport._buffers_release.cache_clear)
        self.patch(twisted_internals, "_TLS_BUFFERS", {"bio_read": "_other"})
        client = self.client()
        self.assertTrue(client.shake())
        self.assertEqual(client.ask(b"PING")[0]["result"], "PONG")
        texts = [formatEvent(event) for event in logged]
        self.assertEqual(len([text for text in texts if "Connection.bio_read" in text]), 1)


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


class Closing(Halves):
    """One that closes when the peer has ended its half, as the protocol of commands does."""

    def readConnectionLost(self) -> None:
        """The peer has ended its half."""
        super().readConnectionLost()
        self.transport.loseConnection()  # type: ignore[union-attr]  # there is one


@implementer(IPushProducer)
class Producer:
    """A producer that does nothing."""

    def pauseProducing(self) -> None:
        """Pause."""

    def resumeProducing(self) -> None:
        """Resume."""

    def stopProducing(self) -> None:
        """Stop."""


class HalvesTests(TlsCase):
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

    def output_ended(self, kind: type[Whole]) -> tuple[Client, Any]:  # Any: the protocol
        """Connect a client that has got our close_notify, and has not answered it yet."""
        client, protocol = self.under(kind)
        client.connection.polite = False
        protocol.transport.write(b"last")
        protocol.transport.loseWriteConnection()
        self.assertEqual(self.read(client), (b"last", True))
        protocol.happened.clear()
        return client, protocol

    def test_notified_in_return(self) -> None:
        """A close_notify that answers ours ends all at once, within the call that brings it."""
        for kind, happened in ((Closing, ["input"]), (Whole, [])):
            for highest in (SSL.TLS1_2_VERSION, None):
                client, protocol = self.output_ended(kind)
                client.tls.shutdown()
                client.connection.send(client.tls.bio_read(65_536))
                self.reactor.settle()
                self.assertEqual(protocol.happened, [*happened, ConnectionDone], highest)
                self.assertTrue(client.connection.gone)

    def test_failure_after_ours(self) -> None:
        """So does a broken record; no call is left that would abort the connection."""
        client, protocol = self.output_ended(Closing)
        calls = set(self.reactor.getDelayedCalls())
        client.connection.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        self.reactor.settle()
        self.assertEqual(protocol.happened, [SSL.Error])
        self.assertLessEqual(set(self.reactor.getDelayedCalls()), calls)

    def test_after_the_end(self) -> None:
        """What is called once the connection is lost does nothing."""
        client, protocol = self.under(Halves)
        client.connection.reset()
        transport = protocol.transport
        for called in ("abortConnection", "loseWriteConnection", "loseConnection"):
            getattr(transport, called)()
        transport.write(b"x" * 100_000)
        self.reactor.settle()
        self.assertEqual(protocol.happened, [ConnectionLost])

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

    def test_last_words_of_a_producer(self) -> None:
        """What a producer writes before it is unregistered, within one turn, is sent."""
        for end in ("loseWriteConnection", "loseConnection"):
            for streaming in (True, False):
                with self.subTest(end=end, streaming=streaming):
                    client, protocol = self.under(Halves)
                    transport = protocol.transport
                    transport.registerProducer(Producer(), streaming)
                    transport.write(b"one ")
                    getattr(transport, end)()
                    transport.write(b"two")
                    transport.unregisterProducer()
                    transport.write(b"too late")
                    self.assertEqual(self.read(client), (b"one two", True))

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
