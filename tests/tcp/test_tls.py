"""TLS in front of a command server: who is let in, when, and under which name."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.protocols.tls import BufferingTLSTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import NOW, Authority, write_pair
from tests.tcp.memory import Connection, Reactor
from twisted_net.commands.standard import standard_commands
from twisted_net.config.tls import TlsSettings
from twisted_net.net.certificates import Certificates
from twisted_net.tcp import tls
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.proxy_header import TrustedProxies
from twisted_net.tcp.proxy_protocol import ProxyFactory
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.tls import TlsFactory

AUTHORITY = Authority()
STRANGER = Authority("Somebody else")


async def _fetch(url: str) -> dict[str, object]:
    raise NotImplementedError(url)


class Client:
    """
    A TLS client over a connection in memory.

    :param pair: its certificate and key, if any.
    """

    def __init__(
        self,
        reactor: Reactor,
        connection: Connection,
        pair: tuple[Path, Path] | None = None,
        alpn: list[bytes] | None = None,
        highest: int | None = None,
        context: SSL.Context | None = None,
    ) -> None:
        self.reactor = reactor
        self.connection = connection
        context = context or SSL.Context(SSL.TLS_CLIENT_METHOD)
        if highest is not None:
            context.set_cipher_list(b"ALL:@SECLEVEL=0")
            context.set_max_proto_version(highest)
        if pair is not None:
            context.use_certificate_file(str(pair[0]))
            context.use_privatekey_file(str(pair[1]))
        self.tls = SSL.Connection(context, None)
        if alpn:
            self.tls.set_alpn_protos(alpn)
        self.tls.set_connect_state()

    def flush(self) -> None:
        """Let everything flow until nothing does."""
        for _ in range(10):
            with contextlib.suppress(SSL.WantReadError):
                self.connection.send(self.tls.bio_read(65_536))
            self.reactor.settle()
            received = self.connection.received()
            if received:
                self.tls.bio_write(received)
            with contextlib.suppress(SSL.WantReadError):
                self.tls.do_handshake()

    def shake(self) -> bool:
        """Shake hands, and say whether the server took part; its alert may yet come."""
        try:
            with contextlib.suppress(SSL.WantReadError):
                self.tls.do_handshake()
            self.flush()
        except SSL.Error:
            return False
        return True

    def ask(self, *lines: bytes) -> list[Any]:  # Any: JSON
        """Send lines, and return the answers."""
        if lines:
            self.tls.send(b"\n".join(lines) + b"\n")
        self.flush()
        text = b""
        with contextlib.suppress(SSL.WantReadError, SSL.ZeroReturnError):
            while True:
                text += self.tls.recv(65_536)
        return [json.loads(line) for line in text.splitlines()]


class TlsCase(SynchronousTestCase):
    """A command server behind TLS."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.reactor = Reactor()
        self.commands = CommandFactory(self.reactor, standard_commands(_fetch), Limits())
        self.handshakes = Handshakes(self.reactor, 10, 20, self.commands.sessions.refused)
        self.certificate = write_pair(self.folder / "server.pem", AUTHORITY.issue("a.test"))
        self.factory = self.tls()

    def tls(self, **settings: Any) -> TlsFactory:  # Any: fields of TlsSettings
        """Make the factory under test."""
        certificates = Certificates(
            TlsSettings(certificate=str(self.certificate), **settings), NOW.timestamp
        )
        return TlsFactory(self.commands, certificates, self.handshakes, self.reactor)

    def mutual(self, **settings: Any) -> TlsFactory:  # Any: as above
        """Make one that asks for the clients' certificates."""
        return self.tls(client_ca=str(AUTHORITY.write(self.folder / "ca.pem")), **settings)

    def client(self, **options: Any) -> Client:  # Any: parameters of Client
        """Connect."""
        return Client(self.reactor, self.reactor.connect(self.factory), **options)

    def pair(self, *common_names: str, authority: Authority = AUTHORITY) -> tuple[Path, Path]:
        """Return the files of a client's certificate."""
        chain, key = authority.issue("client.test", common_names=common_names)
        files = self.folder / "client.pem", self.folder / "client.key"
        for file, content in zip(files, (chain, key), strict=True):
            file.write_bytes(content)
        return files

    def identities(self) -> list[str | None]:
        """Return the users of the sessions."""
        return [session.identity for session in self.commands.sessions]

    def ended(self) -> dict[str, int]:
        """Return the reasons for which connections have ended."""
        ended = self.commands.sessions.counters.ended
        return {end.value: count for end, count in ended.items() if count}


class TlsTests(TlsCase):
    """:class:`TlsFactory` in front of a command server."""

    # --- who is let in ---

    def test_answers(self) -> None:
        """A client is answered as over TCP, and has no name."""
        client = self.client()
        self.assertTrue(client.shake())
        self.assertEqual(
            [answer.get("result") for answer in client.ask(b"PING", b"ECHO a b")], ["PONG", "a b"]
        )
        self.assertEqual(self.identities(), [None])
        self.assertEqual(self.reactor.getDelayedCalls(), [self.commands._sweeping])

    def test_alpn(self) -> None:
        """A client that offers protocols which there are not is served without one."""
        client = self.client(alpn=[b"h2", b"http/1.1"])
        self.assertTrue(client.shake())
        self.assertEqual(client.ask(b"PING")[0]["result"], "PONG")
        self.assertEqual(client.tls.get_alpn_proto_negotiated(), b"")

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, and nothing older."""
        for highest, expected in [
            (SSL.TLS1_3_VERSION, True),
            (SSL.TLS1_2_VERSION, True),
            (SSL.TLS1_1_VERSION, False),
        ]:
            with self.subTest(highest=highest):
                self.assertEqual(self.client(highest=highest).shake(), expected)

    def test_no_renegotiation(self) -> None:
        """A client of TLS 1.2 cannot renegotiate: it gets an alert, and no second handshake."""
        client = self.client(highest=SSL.TLS1_2_VERSION)
        self.assertTrue(client.shake())
        client.ask(b"ECHO a")
        self.assertTrue(client.tls.renegotiate())
        with contextlib.suppress(SSL.WantReadError):
            client.tls.do_handshake()
        error = self.assertRaises(SSL.Error, client.flush)
        self.assertIn("no renegotiation", str(error))
        self.assertEqual(len(self.commands.sessions), 1)

    def test_session_after_the_handshake(self) -> None:
        """A client that has not finished its handshake is no session."""
        client = self.client()
        self.reactor.settle()
        self.assertEqual((len(self.commands.sessions), len(self.handshakes)), (0, 1))
        client.shake()
        self.assertEqual((len(self.commands.sessions), len(self.handshakes)), (1, 0))

    def test_too_many(self) -> None:
        """A refusal of the server is read by the client, under TLS."""
        self.commands.limits = Limits(max_connections=1)
        self.client().shake()
        client = self.client()
        client.shake()
        self.assertEqual(client.ask()[0]["code"], "too_many_connections")

    # --- who is who ---

    def test_user(self) -> None:
        """The common name of the client's certificate is its user."""
        self.factory = self.mutual()
        client = self.client(pair=self.pair("ada"))
        client.shake()
        self.assertEqual(client.ask(b"PING")[0]["result"], "PONG")
        self.assertEqual(self.identities(), ["ada"])

    def test_required(self) -> None:
        """Without a certificate, or with one of another CA, a client is refused."""
        self.factory = self.mutual()
        for pair in (None, self.pair("ada", authority=STRANGER)):
            with self.subTest(pair=pair):
                self.client(pair=pair).shake()
                self.assertEqual(len(self.commands.sessions), 0)
        self.assertEqual(self.ended(), {"handshake_failed": 2})

    def test_optional(self) -> None:
        """Where it is optional one without is let in without a name, and a stranger's is not."""
        self.factory = self.mutual(client_certificate="optional")
        self.client().shake()
        self.client(pair=self.pair("ada", authority=STRANGER)).shake()
        self.client(pair=self.pair("ada")).shake()
        self.assertEqual(self.identities(), [None, "ada"])

    def test_no_resumption(self) -> None:
        """Where clients have certificates no session is resumed: each certificate is checked."""
        self.factory = self.mutual()
        for highest in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            with self.subTest(version=highest):
                first = self.client(pair=self.pair("ada"), highest=highest)
                self.assertTrue(first.shake())
                self.assertEqual(first.ask(b"PING")[0]["result"], "PONG")
                self.assertEqual(self.identities(), ["ada"])
                session = first.tls.get_session()
                again = self.client(context=first.tls.get_context())
                if session is not None:
                    again.tls.set_session(session)
                again.shake()
                self.assertEqual(again.ask(b"PING")[0]["result"], "PONG")
                self.assertNotEqual(again.tls.master_key(), first.tls.master_key())
                for client in (first, again):
                    client.connection.reset()

    def test_no_sessions_kept(self) -> None:
        """The server keeps no sessions in memory; who wants to resume one must bring a ticket."""
        for ticket in (False, True):
            with self.subTest(ticket=ticket):
                context = SSL.Context(SSL.TLS_CLIENT_METHOD)
                context.set_max_proto_version(SSL.TLS1_2_VERSION)
                context.set_options(0 if ticket else SSL.OP_NO_TICKET)
                first = self.client(context=context)
                self.assertTrue(first.shake())
                session = first.tls.get_session()
                assert session is not None
                again = self.client(context=context)
                again.tls.set_session(session)
                self.assertTrue(again.shake())
                self.assertEqual(again.ask(b"PING")[0]["result"], "PONG")
                self.assertEqual(again.tls.master_key() == first.tls.master_key(), ticket)

    def test_another_authority(self) -> None:
        """A new file of authorities holds from the next handshake on."""
        self.factory = self.mutual()
        STRANGER.write(self.folder / "ca.pem")
        self.client(pair=self.pair("ada")).shake()
        self.assertEqual(self.identities(), [])
        self.client(pair=self.pair("eve", authority=STRANGER)).shake()
        self.assertEqual(self.identities(), ["eve"])

    # --- who is not ---

    def test_silence(self) -> None:
        """A client that never speaks, or stops in the middle, is disconnected in time."""
        silent = self.client().connection
        half = self.client()
        with contextlib.suppress(SSL.WantReadError):
            half.tls.do_handshake()
        half.connection.send(half.tls.bio_read(65_536)[:50])
        self.reactor.pass_time(9)
        self.assertFalse(silent.gone)
        half.connection.send(b"\x00")
        self.reactor.pass_time(1)
        self.assertTrue(silent.gone)
        self.assertTrue(half.connection.gone)
        self.assertEqual(self.ended(), {"handshake_timeout": 2})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_tls(self) -> None:
        """A client that speaks no TLS is disconnected at once."""
        connection = self.reactor.connect(self.factory)
        connection.send(b"PING\n")
        self.reactor.settle()
        self.assertTrue(connection.gone)
        self.assertEqual(self.ended(), {"handshake_failed": 1})

    def test_crowd(self) -> None:
        """A crowd of unfinished handshakes keeps no client out."""
        crowd = [self.client() for _ in range(50)]
        client = self.client()
        client.shake()
        self.assertEqual(client.ask(b"PING")[0]["result"], "PONG")
        self.assertEqual(sum(one.connection.gone for one in crowd), 31)

    # --- the end ---

    def test_drain(self) -> None:
        """A drained client has its answers and the end of TLS, and then that of the connection."""
        client = self.client()
        client.shake()
        client.tls.send(b"PING\n")
        client.flush()
        drained = self.commands.drain(10)
        events = client.ask()
        self.assertEqual([line.get("event") for line in events], [None, "shutdown"])
        self.assertTrue(client.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN)
        client.tls.shutdown()
        client.flush()
        self.successResultOf(drained)
        self.assertEqual(self.ended(), {"drained": 1})

    def test_never_reading(self) -> None:
        """A client that does not read is paused, and disconnected in time."""
        client = self.client()
        client.shake()
        client.connection.reads = False
        for _ in range(40):
            client.tls.send(b"ECHO " + b"x" * 10_000 + b"\n")
            client.connection.send(client.tls.bio_read(65_536))
            self.reactor.settle()
        self.assertLess(client.connection.unread, 200_000)
        self.assertGreater(client.connection.unheard, 0)
        self.reactor.pass_time(40)
        self.assertTrue(client.connection.gone)
        self.assertEqual(self.ended(), {"write_timeout": 1})

    def test_another_twisted(self) -> None:
        """With a Twisted that is not known its own TLS is used, and a warning says so."""
        self.patch(tls, "tls_transport_changes", lambda: ["TLSMemoryBIOProtocol.write"])
        tls._known.cache_clear()
        self.addCleanup(tls._known.cache_clear)
        logged = EventLoggingObserver()
        globalLogPublisher.addObserver(logged)
        self.addCleanup(globalLogPublisher.removeObserver, logged)
        self.factory = self.tls()
        client = self.client()
        client.shake()
        self.assertEqual(client.ask(b"PING")[0]["result"], "PONG")
        self.assertIs(self.factory.protocol, BufferingTLSTransport)
        self.assertIn("TLSMemoryBIOProtocol.write", [event.get("changes") for event in logged])


class LayersTests(TlsTests):
    """TLS within a connection with a PROXY header, which all of the above holds for too."""

    def client(self, **options: Any) -> Client:  # Any: as above
        """Connect through a proxy."""
        trusted = TrustedProxies(["10.0.0.1"])
        proxied = ProxyFactory(self.factory, trusted, self.handshakes)
        proxy = IPv4Address("TCP", "10.0.0.1", 40_000)
        connection = self.reactor.connect(proxied, proxy)
        connection.send(b"PROXY TCP4 192.0.2.7 198.51.100.2 50000 8888\r\n")
        return Client(self.reactor, connection, **options)

    def test_real_address(self) -> None:
        """The session has the address from the header."""
        self.client().shake()
        self.assertEqual([session.name for session in self.commands.sessions], ["192.0.2.7:50000"])

    def test_crowd(self) -> None:
        """The header and the handshake count as one that is under way."""
        for _ in range(50):
            self.client()
        self.reactor.settle()
        self.assertLessEqual(len(self.handshakes), 20)
        client = self.client()
        self.assertTrue(client.shake())
        self.assertEqual(client.ask(b"PING")[0]["result"], "PONG")


class InnerFactoryTests(TlsCase):
    """What :class:`TlsFactory` asks of the factory behind it."""

    def test_starts_and_stops_it(self) -> None:
        """The inner factory starts with the first port and stops with the last."""
        self.factory.doStart()  # type: ignore[no-untyped-call]  # as a port does
        self.assertEqual(self.commands.numPorts, 1)
        self.factory.doStop()  # type: ignore[no-untyped-call]  # as a port does
        self.assertEqual(self.commands.numPorts, 0)

    def test_no_protocol(self) -> None:
        """If it returns no protocol the connection ends."""

        class Refusing(Factory):
            """Accepts no connection."""

            def buildProtocol(self, addr: IAddress | None) -> None:
                """Refuse."""

        certificates = Certificates(TlsSettings(certificate=str(self.certificate)), NOW.timestamp)
        self.factory = TlsFactory(Refusing(), certificates, self.handshakes, self.reactor)
        client = self.client()
        client.shake()
        self.assertTrue(client.connection.gone)
