"""Tests of :mod:`twisted_net.http.h1.tls_sessions`, and of connections that resume them."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from OpenSSL.SSL import Session
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import Authority, write_pair
from twisted_net.config.tls import ClientTlsSettings
from twisted_net.http.h1.tls_sessions import (
    MAX_HOSTS,
    SESSION_AGE,
    SESSIONS_PER_HOST,
    Resumption,
    TlsSessions,
)
from twisted_net.http.h1.tls_transport import ClientTlsFactory, ClientTlsTransport
from twisted_net.net.tls_policy import TlsPolicy
from twisted_net.turns.paced_reads import Pace

HOST = "a.test", 443


class TlsSessionsTests(SynchronousTestCase):
    """:class:`TlsSessions` keeps a bounded number, for a time."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.sessions = TlsSessions(self.clock.seconds)

    def test_once(self) -> None:
        """Each is taken once, the newest first, with the time of its certificate."""
        one, two = Session(), Session()
        self.sessions.keep(HOST, one, 0.0)
        self.sessions.keep(HOST, two, -1.0)
        self.assertEqual(self.sessions.take(HOST), (two, -1.0))
        self.assertEqual(self.sessions.take(HOST), (one, 0.0))
        self.assertIsNone(self.sessions.take(HOST))

    def test_hosts(self) -> None:
        """None is for another host, or another port of the same one."""
        self.sessions.keep(HOST, Session(), 0.0)
        self.assertIsNone(self.sessions.take(("b.test", 443)))
        self.assertIsNone(self.sessions.take(("a.test", 444)))

    def test_age(self) -> None:
        """One whose certificate was verified long ago is dropped."""
        self.sessions.keep(HOST, Session(), 0.0)
        self.clock.advance(SESSION_AGE)
        self.sessions.keep(HOST, Session(), 0.0)
        self.assertIsNone(self.sessions.take(HOST))
        self.assertEqual(len(self.sessions), 0)

    def test_refused(self) -> None:
        """A host that has failed to resume one gets none any more."""
        self.sessions.keep(HOST, Session(), 0.0)
        self.sessions.refuse(HOST)
        self.sessions.keep(HOST, Session(), 0.0)
        self.assertIsNone(self.sessions.take(HOST))

    def test_limits(self) -> None:
        """Of one host the newest are kept, and of hosts those that were used last."""
        some = [Session() for _ in range(SESSIONS_PER_HOST + 1)]
        for session in some:
            self.sessions.keep(HOST, session, 0.0)
        self.assertEqual(len(self.sessions), SESSIONS_PER_HOST)
        for number in range(MAX_HOSTS - 1):
            self.sessions.keep((f"{number}.test", 443), Session(), 0.0)
        self.sessions.keep(HOST, some[0], 0.0)
        self.sessions.keep(("b.test", 443), Session(), 0.0)
        self.assertIsNone(self.sessions.take(("0.test", 443)))
        self.assertEqual(self.sessions.take(HOST), (some[0], 0.0))
        self.assertEqual(len(self.sessions), MAX_HOSTS + SESSIONS_PER_HOST - 2)


class Below(StringTransport):
    """A connection that may be aborted."""

    def abortConnection(self) -> None:
        """End it."""


class ResumptionTests(SynchronousTestCase):
    """Connections resume the sessions of others, if both may."""

    def setUp(self) -> None:
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = Path(temporary.name)
        authority = Authority()
        ca = str(authority.write(folder / "ca.pem"))
        self.pair = str(write_pair(folder / "server.pem", authority.issue("a.test", "b.test")))
        self.policy = TlsPolicy(ClientTlsSettings(ca=ca))
        self.clock = MemoryReactorClock()
        self.sessions = TlsSessions(self.clock.seconds)
        self.serve(ssl.TLSVersion.TLSv1_3)

    def serve(self, version: ssl.TLSVersion) -> None:
        """Start a server, which knows no session."""
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(self.pair)
        self.server.maximum_version = version

    def shake_hands(self, host: str) -> tuple[ClientTlsTransport, ssl.SSLObject, ssl.MemoryBIO]:
        """Make a connection; return both sides, and what the server sends."""
        creator = self.policy.creatorForNetloc(host.encode(), 443)
        pace = Pace.of(cast(Any, self.clock))  # Any: reactors have no one type
        resumption = Resumption(self.sessions, (host, 443))
        factory = ClientTlsFactory(Factory.forProtocol(Protocol), creator, pace, resumption)
        client = factory.buildProtocol(None)
        assert client is not None
        below = Below()
        cast(Any, client).makeConnection(below)  # Any: it has no types
        came, leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = self.server.wrap_bio(came, leaves, server_side=True)
        for _ in range(3):
            came.write(below.value())
            below.clear()
            with contextlib.suppress(ssl.SSLError):
                server.do_handshake()
            client.dataReceived(leaves.read())
            self.clock.advance(0)
        return client, server, leaves

    def connect(self, host: str = "a.test") -> tuple[ClientTlsTransport, ssl.SSLObject]:
        """Make a connection, and let the server answer something; return both sides."""
        client, server, leaves = self.shake_hands(host)
        server.write(b"hello")
        client.dataReceived(leaves.read())
        return client, server

    def resumed(self, host: str = "a.test") -> bool:
        """Make a connection and end it without a word; return whether the server resumed one."""
        client, server = self.connect(host)
        client.connectionLost(Failure(ConnectionDone()))
        return bool(server.session_reused)

    def test_resumed(self) -> None:
        """A connection resumes the session of the one before, however that ended."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version=version):
                self.serve(version)
                self.sessions = TlsSessions(self.clock.seconds)
                self.assertEqual([self.resumed() for _ in range(4)], [False, True, True, True])

    def test_beside(self) -> None:
        """One that is open has left its session, too, for one connection."""
        connections = [self.connect() for _ in range(3)]
        self.assertEqual([server.session_reused for _, server in connections], [False, True, True])
        self.assertEqual(len(self.sessions), 1)
        for client, _ in connections:
            client.connectionLost(Failure(ConnectionDone()))

    def test_other_host(self) -> None:
        """A session is not resumed with another host, although its certificate is for both."""
        self.assertFalse(self.resumed())
        self.assertFalse(self.resumed("b.test"))

    def test_forgotten(self) -> None:
        """A server that has forgotten it is verified again."""
        self.resumed()
        self.serve(ssl.TLSVersion.TLSv1_3)
        self.assertEqual([self.resumed() for _ in range(2)], [False, True])

    def test_age(self) -> None:
        """Sessions of resumed connections are no younger than the certificate's check."""
        self.assertFalse(self.resumed())
        self.clock.advance(SESSION_AGE - 1)
        self.assertTrue(self.resumed())
        self.clock.advance(1)
        self.assertEqual([self.resumed() for _ in range(2)], [False, True])

    def test_refused(self) -> None:
        """A connection that is refused leaves nothing."""
        self.policy = TlsPolicy(authorities=[])
        client, _, _ = self.shake_hands("a.test")
        client.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.sessions), 0)

    def test_server_that_fails(self) -> None:
        """A server that fails a handshake where it could resume is not asked to again."""
        self.resumed()
        self.server = cast(Any, FailsOnce(self.server))  # Any: in its place
        client, _, _ = self.shake_hands("a.test")
        client.connectionLost(Failure(ConnectionDone()))
        self.assertEqual([self.resumed() for _ in range(3)], [False] * 3)

    def test_other_failure(self) -> None:
        """One that fails without having been asked to may be asked later."""
        self.server = cast(Any, FailsOnce(self.server))  # Any: as above
        client, _, _ = self.shake_hands("a.test")
        client.connectionLost(Failure(ConnectionDone()))
        self.assertEqual([self.resumed() for _ in range(3)], [False, True, True])

    def test_policy(self) -> None:
        """With a certificate of its own a client resumes nothing."""
        self.assertTrue(self.policy.resumable)
        self.assertFalse(TlsPolicy(ClientTlsSettings(certificate=self.pair)).resumable)


class FailsOnce:
    """A context of a server that answers its first handshake with an alert, and then as another."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._failed = False

    def wrap_bio(self, came: ssl.MemoryBIO, leaves: ssl.MemoryBIO, **options: Any) -> Any:
        """Make a connection, see :meth:`ssl.SSLContext.wrap_bio`."""
        if self._failed:
            return self._context.wrap_bio(came, leaves, **options)
        self._failed = True
        leaves.write(bytes.fromhex("15030300020250"))  # internal_error (RFC 8446 §6)
        return self._context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), **options)
