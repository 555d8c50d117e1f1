"""Tests of :mod:`twisted_net.http.h1.tls_transport`: against OpenSSL's server side, in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, ISSLTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from benchmarks.layer_crowds import Records
from tests.tcp.issuing import Authority, write_pair
from twisted_net.config.tls import ClientTlsSettings
from twisted_net.http.h1 import tls_calls
from twisted_net.http.h1.tls_transport import (
    RECORDS_WITHOUT_DATA,
    ClientTlsFactory,
    ClientTlsTransport,
)
from twisted_net.net.tls_policy import TlsPolicy
from twisted_net.net.tls_reason import tls_reason
from twisted_net.turns.paced_input import UNITS_PER_TURN
from twisted_net.turns.paced_reads import SMALL_READ, Pace

LARGE = b"x" * 300_000
SESSION_TICKETS = 2
"""Records that OpenSSL sends as a server after its handshake."""


class Inner(Protocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.lost: list[Failure] = []

    @override
    def dataReceived(self, data: bytes) -> None:
        self.data.append(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason)


class Producer:
    """A push producer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.told.append(name)


class Below(StringTransport):
    """A connection that may be aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class TlsCase(SynchronousTestCase):
    """A client's transport, and OpenSSL as its server."""

    def setUp(self) -> None:
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = Path(temporary.name)
        authority = Authority()
        file = authority.write(folder / "ca.pem")
        self.authorities, ca = [Certificate.loadPEM(file.read_bytes())], str(file)
        self.pair = str(write_pair(folder / "server.pem", authority.issue("a.test")))
        self.policy = TlsPolicy(ClientTlsSettings(ca=ca))
        self.reactor = MemoryReactorClock()
        self.connect(self.policy.creatorForNetloc(b"a.test", 443))

    def connect(
        self, creator: IOpenSSLClientConnectionCreator, version: int = SSL.TLS1_3_VERSION
    ) -> None:
        """Connect to a new server; the handshake has not been made."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_max_proto_version(version)
        context.use_certificate_chain_file(self.pair)
        context.use_privatekey_file(self.pair)
        self.secrets: list[bytes] = []
        context.set_keylog_callback(lambda connection, line: self.secrets.append(line))
        self.server = SSL.Connection(context, None)
        self.server.set_accept_state()
        self.got = b""  # what the server has read
        pace = Pace.of(cast(Any, self.reactor))  # Any: reactors have no one type
        factory = ClientTlsFactory(Factory.forProtocol(Inner), creator, pace)
        tls = factory.buildProtocol(None)
        assert tls is not None
        self.tls: ClientTlsTransport = tls
        self.inner: Inner = tls.wrappedProtocol
        self.below = Below()
        cast(Any, tls).makeConnection(self.below)  # Any: it has no types

    def to_server(self) -> None:
        """Give the server what the client has sent, and let it read."""
        sent = self.below.value()
        self.below.clear()
        if sent:
            self.server.bio_write(sent)
        try:
            while True:
                self.got += self.server.recv(2**15)
        except SSL.Error:
            pass

    def from_server(self) -> bytes:
        """Return what the server has sent."""
        found = b""
        try:
            while True:
                found += self.server.bio_read(2**15)
        except SSL.WantReadError:
            return found

    def exchange(self) -> None:
        """Let both sides go on until none has anything to send."""
        while self.below.value() or not self.got:
            self.to_server()
            sent = self.from_server()
            if not sent:
                break
            self.tls.dataReceived(sent)
            self.reactor.advance(0.0)

    def records(self) -> Records:
        """Return what encrypts more records of the server, of any kind, after its tickets."""
        words = [line.split() for line in self.secrets]
        (secret,) = (word[2] for word in words if word[0] == b"SERVER_TRAFFIC_SECRET_0")
        records = Records(bytes.fromhex(secret.decode()))
        records._number = SESSION_TICKETS
        return records

    def settle(self) -> None:
        """Let all turns be taken."""
        while self.reactor.getDelayedCalls():
            self.reactor.advance(0.0)

    def reason(self) -> BaseException:
        """Return why the connection within was lost, of which it has heard once."""
        (failure,) = self.inner.lost
        return cast(BaseException, failure.value)


class ClientTlsTransportTests(TlsCase):
    """:class:`ClientTlsTransport` passes data on, and tells how the connection has ended."""

    def test_early_write(self) -> None:
        """What is written before the handshake leaves after it, all of it and in order."""
        self.tls.write(b"one ")
        self.tls.writeSequence([b"two ", LARGE])
        self.exchange()
        self.assertEqual(self.got, b"one two " + LARGE)

    def test_read_together(self) -> None:
        """Records that come together are passed on together, before the end that follows them."""
        self.exchange()
        for data in (b"a response", b"what does not", b"belong to it"):
            self.server.send(data)
        self.tls.dataReceived(self.from_server())
        self.assertEqual(self.inner.data, [b"a responsewhat does notbelong to it"])
        self.server.send(b"more")
        self.server.shutdown()
        self.tls.dataReceived(self.from_server())
        self.settle()
        self.assertEqual(self.inner.data[1:], [b"more"])
        self.assertTrue(self.tls.disconnecting)

    def test_write_buffers(self) -> None:
        """What is like bytes leaves as it was when it was written, before and after a handshake."""
        buffer: Any = bytearray(b"one ")  # Any: of types, a transport names bytes alone
        view: Any = memoryview(b"three")
        self.tls.write(buffer)
        buffer[:] = b"two "
        self.exchange()
        self.tls.write(buffer)
        self.tls.write(view)
        self.exchange()
        self.assertEqual(self.got, b"one two three")

    def test_write_at_once(self) -> None:
        """After the handshake a write leaves within the call: no turn of the reactor is waited."""
        self.exchange()
        self.tls.write(b"hello")
        self.assertNotEqual(self.below.value(), b"")
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.to_server()
        self.assertEqual(self.got, b"hello")

    def test_read(self) -> None:
        """Data comes whole, however the connection cuts it, and however much there is."""
        self.exchange()
        self.server.send(b"hello")
        for byte in self.from_server():
            self.tls.dataReceived(bytes([byte]))
        self.server.send(b"again")
        self.tls.dataReceived(self.from_server())
        self.assertEqual(b"".join(self.inner.data), b"helloagain")
        view = memoryview(LARGE)
        while view:
            view = view[self.server.send(view[:16_384]) :]
        self.tls.dataReceived(self.from_server())
        self.settle()
        self.assertEqual(b"".join(self.inner.data), b"helloagain" + LARGE)

    def test_turns(self) -> None:
        """Many small records are decrypted some at a time; the connection is not read meanwhile."""
        self.exchange()
        for _ in range(1000):
            self.server.send(b"x")
        self.tls.dataReceived(self.from_server())
        self.assertLessEqual(len(self.inner.data), UNITS_PER_TURN)
        self.assertEqual(self.below.producerState, "paused")
        self.settle()
        self.assertEqual(b"".join(self.inner.data), b"x" * 1000)
        self.assertEqual(self.below.producerState, "producing")

    def test_little_in_a_long_turn(self) -> None:
        """A short record in a long turn waits for its own; the connection is read on meanwhile."""
        self.exchange()
        self.settle()
        self.patch(self.below, "pauseProducing", lambda: self.fail("paused"))
        self.tls._turns.mark_busy()
        self.server.send(b"hello")
        self.tls.dataReceived(self.from_server())
        self.assertEqual(self.inner.data, [])
        self.reactor.advance(0)
        self.assertEqual(self.inner.data, [b"hello"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_much_in_a_long_turn(self) -> None:
        """A long record, and what follows a short one, stops the connection for that time."""
        for sizes in ((2 * SMALL_READ,), (1, 1)):
            self.exchange()
            self.settle()
            self.inner.data.clear()
            self.tls._turns.mark_busy()
            for size in sizes:
                self.server.send(bytes(size))
                self.tls.dataReceived(self.from_server())
            self.assertEqual(self.inner.data, [])
            self.assertEqual(self.below.producerState, "paused")
            self.settle()
            self.assertEqual(b"".join(self.inner.data), bytes(sum(sizes)))
            self.assertEqual(self.below.producerState, "producing")

    def test_pause(self) -> None:
        """Nothing is delivered while it is paused, also of what has come."""
        self.exchange()
        self.tls.pauseProducing()
        self.assertEqual(self.below.producerState, "paused")
        self.server.send(b"hello")
        self.tls.dataReceived(self.from_server())
        self.settle()
        self.assertEqual(self.inner.data, [])
        self.tls.resumeProducing()
        self.settle()
        self.assertEqual(self.inner.data, [b"hello"])

    def test_close_notify(self) -> None:
        """A close_notify is a clean end, however the connection below ends after it."""
        self.exchange()
        self.server.send(b"all")
        self.server.shutdown()
        self.tls.dataReceived(self.from_server())
        self.settle()
        self.assertTrue(self.below.disconnecting)
        self.tls.dataReceived(b"ignored")
        self.tls.connectionLost(Failure(ConnectionLost()))
        self.assertIsInstance(self.reason(), ConnectionDone)
        self.assertEqual(self.inner.data, [b"all"])
        self.to_server()
        self.assertEqual(self.server.get_shutdown(), SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)

    def test_cut(self) -> None:
        """An end without a close_notify is none, even where the connection below has ended well."""
        self.exchange()
        self.server.send(b"some")
        self.tls.dataReceived(self.from_server())
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(self.reason(), ConnectionLost)

    def test_end_after_data(self) -> None:
        """The end is told after all that came before it; what is paused waits for that."""
        self.exchange()
        for _ in range(1000):
            self.server.send(b"x")
        self.tls.dataReceived(self.from_server())
        self.tls.pauseProducing()
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.settle()
        self.assertEqual(self.inner.lost, [])
        self.tls.resumeProducing()
        self.settle()
        self.assertEqual(b"".join(self.inner.data), b"x" * 1000)
        self.assertIsInstance(self.reason(), ConnectionLost)

    def test_abort(self) -> None:
        """An aborted connection delivers nothing more; its end is told in a turn, once."""
        self.exchange()
        for _ in range(1000):
            self.server.send(b"x")
        self.tls.dataReceived(self.from_server())
        self.tls.abortConnection()
        self.assertTrue(self.below.aborted)
        delivered = len(self.inner.data)
        self.settle()
        self.assertEqual(len(self.inner.data), delivered)
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.tls.abortConnection()
        self.assertEqual(len(self.inner.lost), 1)

    def test_abort_at_the_end(self) -> None:
        """What waits behind data that is dropped is told in a turn."""
        self.exchange()
        for _ in range(1000):
            self.server.send(b"x")
        self.tls.dataReceived(self.from_server())
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.tls.abortConnection()
        self.assertEqual(self.inner.lost, [])
        self.settle()
        self.assertEqual(len(self.inner.lost), 1)

    def test_lose_connection(self) -> None:
        """A close_notify is sent, and that of the server ends the connection."""
        self.exchange()
        self.tls.loseConnection()
        self.assertFalse(self.below.disconnecting)
        self.to_server()
        self.assertEqual(self.server.get_shutdown(), SSL.RECEIVED_SHUTDOWN)
        self.tls.write(b"too late")
        self.assertEqual(self.below.value(), b"")
        self.server.shutdown()
        self.tls.dataReceived(self.from_server())
        self.assertTrue(self.below.disconnecting)

    def test_lose_connection_early(self) -> None:
        """Before the handshake there is nothing to end: the connection is dropped."""
        self.tls.loseConnection()
        self.assertTrue(self.below.aborted)

    def test_producer(self) -> None:
        """A producer is paused while TLS cannot encrypt, or the server does not read."""
        producer = Producer()
        self.tls.registerProducer(producer, True)
        self.tls.write(b"a")
        self.tls.write(b"b")
        self.assertEqual(producer.told, ["pauseProducing"])
        below = cast(Any, self.below.producer)
        below.pauseProducing()
        below.resumeProducing()
        self.assertEqual(producer.told, ["pauseProducing"])
        self.exchange()
        self.assertEqual(producer.told, ["pauseProducing", "resumeProducing"])
        below.pauseProducing()
        below.pauseProducing()
        below.resumeProducing()
        self.assertEqual(producer.told, ["pauseProducing", "resumeProducing"] * 2)
        below.stopProducing()
        self.assertEqual(producer.told[-1], "stopProducing")
        self.tls.loseConnection()
        self.to_server()
        self.assertEqual(self.server.get_shutdown(), 0)
        self.tls.unregisterProducer()
        self.assertIsNone(self.below.producer)
        self.to_server()
        self.assertEqual(self.server.get_shutdown(), SSL.RECEIVED_SHUTDOWN)
        with self.assertRaises(ValueError):
            self.tls.registerProducer(producer, False)

    def test_end_while_producing(self) -> None:
        """A producer is stopped at once when the server ends the connection: nothing can leave."""
        self.exchange()
        producer = Producer()
        self.tls.registerProducer(producer, True)
        self.server.shutdown()
        self.tls.dataReceived(self.from_server())
        self.assertEqual(producer.told, ["stopProducing"])
        self.assertTrue(self.below.aborted)
        self.tls.connectionLost(Failure(ConnectionLost()))
        self.assertIsInstance(self.reason(), ConnectionDone)

    def test_late_producer(self) -> None:
        """A producer of a connection that has ended is stopped."""
        producer = Producer()
        self.tls.abortConnection()
        self.tls.registerProducer(producer, True)
        self.tls.write(b"nothing")
        self.assertEqual(producer.told, ["stopProducing"])

    def test_failed_handshake(self) -> None:
        """A certificate that is not trusted says why; the server gets an alert."""
        self.connect(TlsPolicy(authorities=[]).creatorForNetloc(b"a.test", 443))
        self.exchange()
        self.assertTrue(self.below.disconnecting)
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.assertIn(
            "certificate verify failed: self-signed certificate in certificate chain",
            str(self.reason()),
        )

    def test_no_tls(self) -> None:
        """A server that does not speak TLS has failed the handshake."""
        self.tls.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.settle()
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(self.reason(), SSL.Error)

    def test_broken_record(self) -> None:
        """A record that cannot be decrypted is a failure of TLS."""
        self.exchange()
        self.tls.dataReceived(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(self.reason(), SSL.Error)

    def test_records_without_data(self) -> None:
        """A server that sends nothing but records without data is failed."""
        self.exchange()
        records = self.records()
        some = [records.key_update() for _ in range(RECORDS_WITHOUT_DATA - SESSION_TICKETS)]
        self.tls.dataReceived(b"".join([*some, records.data(b"x")]))
        self.settle()
        self.assertEqual(self.inner.data, [b"x"])
        more = [records.key_update() for _ in range(RECORDS_WITHOUT_DATA)]
        self.tls.dataReceived(b"".join(more))
        self.settle()
        self.assertFalse(self.below.disconnecting)
        self.tls.dataReceived(records.key_update())
        self.settle()
        self.assertTrue(self.below.disconnecting)
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(tls_reason(self.reason()), "too many records without data")

    def test_dear_records(self) -> None:
        """After a record without data, which may be dear, others wait for their turns."""
        self.exchange()
        self.settle()
        records = self.records()
        self.tls.dataReceived(records.data(b"x"))
        self.assertFalse(self.tls._turns.busy)
        self.tls.dataReceived(records.key_update())
        self.assertTrue(self.tls._turns.busy)

    def test_interface(self) -> None:
        """It is a TLS transport, with what the connection below has, until it is lost."""
        self.assertTrue(ISSLTransport.providedBy(self.tls))
        self.assertEqual(self.tls.getPeer(), self.below.getPeer())
        self.exchange()
        self.assertIsNotNone(self.tls.getPeerCertificate())
        self.assertIsInstance(self.tls.getHandle(), SSL.Connection)
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.assertIsNone(self.tls.getHandle())
        self.assertIsNone(self.tls.getPeerCertificate())

    def test_tls_1_2(self) -> None:
        """TLS 1.2 does as well."""
        creator = self.policy.creatorForNetloc(b"a.test", 443)
        self.connect(creator, version=SSL.TLS1_2_VERSION)
        self.tls.write(b"hello")
        self.exchange()
        self.assertEqual(self.got, b"hello")

    def test_other_handshake(self) -> None:
        """What is written during another handshake of TLS 1.2 leaves after it."""
        (authority,) = self.authorities
        creator = optionsForClientTLS("a.test", trustRootFromCertificates([authority]))
        self.connect(creator, version=SSL.TLS1_2_VERSION)
        self.tls.write(b"one")
        self.exchange()
        self.server.renegotiate()
        with contextlib.suppress(SSL.WantReadError):
            self.server.do_handshake()
        self.tls.dataReceived(self.from_server())
        self.tls.write(b" two")
        self.exchange()
        self.tls.write(b" three")
        self.exchange()
        self.assertEqual(self.got, b"one two three")


class MethodsTests(ClientTlsTransportTests):
    """With an unknown pyOpenSSL, whose methods are called, it is the same."""

    def setUp(self) -> None:
        self.patch(tls_calls, "_is_known", lambda: False)
        super().setUp()


del TlsCase
