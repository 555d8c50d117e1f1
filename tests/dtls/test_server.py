"""Tests of :mod:`twisted_net.dtls.server` in memory, with OpenSSL's own client or ours."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL.SSL import DTLS_CLIENT_METHOD, Context, WantReadError
from twisted.internet.error import MessageLengthError
from twisted.trial.unittest import SynchronousTestCase

from tests.dtls import dtls_wire
from tests.dtls.dtls_wire import HERE, SERVER, Client, Files, Inner, Wire, stop
from twisted_net.dtls.cookies import COOKIE_LIFETIME, ClientHello
from twisted_net.dtls.errors import DtlsEnded, DtlsFailed
from twisted_net.dtls.peer import SecurePeer
from twisted_net.dtls.records import MAX_RECORDS
from twisted_net.dtls.server import DtlsServer
from twisted_net.dtls.settings import DtlsSettings
from twisted_net.errors import ConfigError
from twisted_net.net.addresses import Source
from twisted_net.reasons import End


def at(number: int) -> Source:
    """Return one of many addresses."""
    return f"198.51.{number // 250}.{number % 250 + 1}", 40_000


_Change = tuple[str, int, int, int, bytes]

CHANGES: st.SearchStrategy[_Change] = st.tuples(
    st.sampled_from(["noise", "known", "cut", "changed", "more"]),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(0, 255),
    st.binary(min_size=1, max_size=200),
)


class DtlsTestCase(SynchronousTestCase):
    """Has certificates, and a wire that leaves nothing behind."""

    def setUp(self) -> None:
        self.files = Files()
        self.addCleanup(self.files.remove)

    def wire(self, **words: object) -> Wire:
        """Make a wire whose server has these settings."""
        bounds = {"certificate": self.files.server} | words
        made = Wire(self.files, DtlsSettings(**bounds))  # type: ignore[arg-type]  # fields
        self.addCleanup(self.check_end, made)
        return made

    def check_end(self, wire: Wire) -> None:
        """Stop the server, and see that neither a session nor a timer is left."""
        if wire.server.transport is not None:
            stop(wire.server)
        self.assertEqual((wire.server.sessions, wire.server.handshakes), (0, 0))
        for client in wire._clients.values():
            if client.dtls.transport is not None:
                stop(client.dtls)
        self.assertEqual(wire.clock.getDelayedCalls(), [])

    def check_talks(self, wire: Wire, client: Client) -> None:
        """See that a client is answered."""
        before = len(client.heard)
        client.say(b"hello")
        wire.run()
        self.assertEqual(client.heard[before:], [b"echo hello"])


class ConversationTests(DtlsTestCase):
    """What a client and a server say to each other."""

    def test_datagrams(self) -> None:
        """Datagrams go both ways, each whole; the server knows from where."""
        wire = self.wire()
        client = wire.connect()
        self.assertTrue(client.connected)
        for payload in (b"a", b"b" * 1000):
            client.say(payload)
        wire.run()
        self.assertEqual(client.heard, [b"echo a", b"echo " + b"b" * 1000])
        assert isinstance(wire.inner, Inner)
        ((first, peer), (_, again)) = wire.inner.got
        self.assertEqual(first, b"a")
        assert isinstance(peer, SecurePeer)
        self.assertIs(peer, again)
        self.assertEqual((peer[0], peer[1], peer.identity), (*HERE, None))
        self.assertEqual([addr for _, addr in client.inner.got], [SERVER, SERVER])
        self.assertNotIn(b"echo", b"".join(wire.from_server()))

    def test_many_clients(self) -> None:
        """Clients are told apart by their addresses."""
        wire = self.wire()
        clients = [wire.client(at(i)) for i in range(5)]
        wire.run()
        for i, client in enumerate(clients):
            client.say(b"%d" % i)
        wire.run()
        self.assertEqual([client.heard for client in clients], [[b"echo %d" % i] for i in range(5)])
        self.assertEqual(wire.server.sessions, 5)

    def test_users(self) -> None:
        """A client's certificate names its user; one without is refused where one is required."""
        wire = self.wire(client_ca=self.files.ca)
        ann = wire.connect(certificate=self.files.write("ann", user="ann"))
        self.check_talks(wire, ann)
        assert isinstance(wire.inner, Inner)
        peer = wire.inner.got[0][1]
        assert isinstance(peer, SecurePeer)
        self.assertEqual(peer.identity, "ann")
        stranger = wire.connect(at(1))
        self.assertIsInstance(stranger.failures[0], DtlsFailed)
        self.assertEqual(wire.server.counts.ended[End.HANDSHAKE_FAILED], 1)
        self.assertEqual((wire.server.sessions, wire.server.handshakes), (1, 0))

    def test_optional_certificates(self) -> None:
        """Where they are optional a stranger is let in, and has no name."""
        wire = self.wire(client_ca=self.files.ca, client_certificate="optional")
        self.check_talks(wire, wire.connect())
        assert isinstance(wire.inner, Inner)
        peer = wire.inner.got[0][1]
        assert isinstance(peer, SecurePeer)
        self.assertIsNone(peer.identity)

    def test_renewal(self) -> None:
        """A certificate that was renewed is shown at the next handshake; who is there stays."""
        wire = self.wire()
        first = wire.connect()
        certificate = first.dtls._session.certificate
        self.files.write("server", "a.test")
        second = wire.connect(at(1))
        self.assertTrue(second.connected)
        self.assertNotEqual(second.dtls._session.certificate, certificate)
        self.check_talks(wire, first)

    def test_missing_files(self) -> None:
        """A file that is missing is a mistake that names it."""
        missing = DtlsSettings(certificate="/nowhere.pem")
        error = self.assertRaises(ConfigError, DtlsServer.make_certificates, missing)
        self.assertEqual(error.mistakes, ["/nowhere.pem: No such file or directory"])

    def test_client_ends(self) -> None:
        """A client that ends is told good-bye, and its session is gone at once."""
        wire = self.wire()
        client = wire.connect()
        sent = len(wire.from_server())
        client.dtls.close()
        wire.run()
        self.assertEqual(wire.server.sessions, 0)
        self.assertEqual([end for _, end in wire.ended], [End.CLIENT_CLOSED])
        # An alert (21), encrypted.
        self.assertEqual([datagram[0] for datagram in wire.from_server()[sent:]], [21])
        self.assertEqual(client.lost, [])

    def test_gone_peer(self) -> None:
        """What is written to a session that is over is dropped and counted."""
        wire = self.wire()
        client = wire.connect()
        self.check_talks(wire, client)
        assert isinstance(wire.inner, Inner)
        peer = wire.inner.got[0][1]
        client.dtls.close()
        wire.run()
        sent = len(wire.carried)
        wire.server.write(b"late", peer)
        wire.server.write(b"to an address", HERE)
        self.assertEqual(len(wire.carried), sent)
        self.assertEqual(wire.server.counts.dropped, 2)

    def test_stop(self) -> None:
        """At the stop all clients are told; who was shaking hands is forgotten."""
        wire = self.wire()
        clients = [wire.connect(at(i)) for i in range(3)]
        wire.fate = lambda number, datagram, to_server: [datagram] if to_server else []
        wire.client(at(3))
        wire.run()
        wire.fate = lambda number, datagram, to_server: [datagram]
        wire.stop()
        for client in clients:
            self.assertIsInstance(client.lost[0], DtlsEnded)
        self.assertEqual([end for _, end in wire.ended], [End.DRAINED] * 3)
        self.assertIsNone(wire.inner.transport)

    def test_starts_again(self) -> None:
        """A server that was stopped serves again."""
        wire = self.wire()
        wire.connect()
        port = wire.server.transport
        wire.stop()
        wire.server.makeConnection(port)  # type: ignore[arg-type]  # a fake
        self.check_talks(wire, wire.connect(at(1)))


class CookieTests(DtlsTestCase):
    """An address is proven by a returned cookie."""

    def hello_with_cookie(self, wire: Wire) -> bytes:
        """Intercept the ClientHello in which a client returns its cookie."""
        caught: list[bytes] = []

        def fate(number: int, datagram: bytes, to_server: bool) -> list[bytes]:
            hello = ClientHello.parse(datagram) if to_server else None
            if hello is not None and hello.cookie:
                caught.append(datagram)
                return []
            return [datagram]

        wire.fate = fate
        wire.connect()
        wire.fate = lambda number, datagram, to_server: [datagram]
        return caught[0]

    def test_nothing_is_kept(self) -> None:
        """A thousand addresses that only say hello get less than they sent, and leave nothing."""
        wire = self.wire()
        wire.client()
        (hello,) = wire.to_server()
        for i in range(1000):
            wire.inject(hello, at(i))
        answers = wire.from_server()
        self.assertEqual(len(answers), 1000)
        self.assertLess(max(map(len, answers)), len(hello))
        server = wire.server
        self.assertEqual(server.counts.challenged, 1000)
        self.assertEqual((server.sessions, server.handshakes), (0, 0))
        # The one that there is is the client's own.
        self.assertEqual(len(wire.clock.getDelayedCalls()), 1)

    def test_one_answer(self) -> None:
        """However much is in a datagram, it gets one answer."""
        wire = self.wire()
        wire.client()
        (hello,) = wire.to_server()
        wire.inject(hello * 5, at(1))
        self.assertEqual(len(wire.from_server()), 1)

    def test_replayed(self) -> None:
        """A cookie that comes from another address or another port is answered by a new one."""
        wire = self.wire()
        hello = self.hello_with_cookie(wire)
        sent = len(wire.from_server())
        for source in (at(9), (HERE[0], HERE[1] + 1)):
            wire.inject(hello, source)
        self.assertEqual(len(wire.from_server()), sent + 2)
        self.assertEqual(wire.server.handshakes, 0)
        wire.inject(hello)
        self.assertEqual(wire.server.handshakes, 1)

    def test_wrong(self) -> None:
        """A cookie with one bit flipped is none."""
        wire = self.wire()
        hello = self.hello_with_cookie(wire)
        found = ClientHello.parse(hello)
        assert found is not None
        flipped = bytes((found.cookie[0] ^ 1,)) + found.cookie[1:]
        wire.inject(hello.replace(found.cookie, flipped))
        self.assertEqual(wire.server.handshakes, 0)

    def test_after_rotation(self) -> None:
        """A cookie is good for a minute at least, and for two at most."""
        for minutes, kept in ((1.5, 1), (2.5, 0)):
            wire = self.wire()
            hello = self.hello_with_cookie(wire)
            stop(wire.client(at(1)).dtls)
            hello_of_another = wire.to_server()[-1]
            for _ in range(int(minutes * 4)):
                wire.clock.advance(COOKIE_LIFETIME / 4)
                wire.inject(hello_of_another, at(1))
            wire.clock.advance(minutes % 0.25)
            wire.inject(hello)
            self.assertEqual(wire.server.handshakes, kept)

    def test_stale_cookie_is_renewed(self) -> None:
        """A client whose cookie is too old gets another one."""
        wire = self.wire()
        hello = self.hello_with_cookie(wire)
        wire.clock.advance(3 * COOKIE_LIFETIME)
        sent = len(wire.from_server())
        wire.inject(hello)
        (answer,) = wire.from_server()[sent:]
        self.assertEqual(answer[13], 3)

    def test_fragments(self) -> None:
        """A ClientHello in fragments is answered by its first, and put together of all."""
        for cut in (60, 100, 150):
            wire = self.wire()

            def fate(number: int, datagram: bytes, to_server: bool, cut: int = cut) -> list[bytes]:
                if to_server and ClientHello.parse(datagram) is not None:
                    return fragments(datagram, cut)
                return [renumbered(datagram)] if to_server else [datagram]

            wire.fate = fate
            self.check_talks(wire, wire.connect())
            # The second fragment of the ClientHello without a cookie belongs to no handshake.
            self.assertEqual(wire.server.counts.stray, 1)

    def test_returns(self) -> None:
        """A client that begins anew at its address has a new session, and the old one is over."""
        wire = self.wire()
        first = wire.connect()
        self.check_talks(wire, first)
        assert isinstance(wire.inner, Inner)
        old = wire.inner.got[0][1]
        second = wire.connect()
        self.check_talks(wire, second)
        self.assertEqual(wire.ended, [(old, End.CONNECTION_LOST)])
        self.assertEqual(wire.server.sessions, 1)
        new = wire.inner.got[-1][1]
        self.assertNotEqual(old, new)
        self.assertEqual(tuple(old), tuple(new))
        wire.server.write(b"for the first", old)
        self.assertEqual(wire.server.counts.dropped, 1)

    def test_forged_return(self) -> None:
        """A ClientHello without its cookie does nothing to the session at its address."""
        wire = self.wire()
        client = wire.connect()
        wire.client(at(1))
        hello = wire.to_server()[-1]
        for _ in range(100):
            wire.inject(hello)
        wire.run()
        self.assertEqual(wire.server.counts.challenged, 2 + 100)
        self.check_talks(wire, client)
        self.assertEqual(wire.ended, [])


class GarbageTests(DtlsTestCase):
    """Stray datagrams; all examples of a test share a wire with one session."""

    def setUp(self) -> None:
        super().setUp()
        self.shared = self.wire()
        self.client = self.shared.connect()

    @settings(max_examples=300)
    @given(st.binary(max_size=300))
    def test_of_strangers(self, noise: bytes) -> None:
        """What is no ClientHello is dropped and counted, with no answer."""
        wire = self.shared
        before, sent = wire.server.counts.stray, len(wire.carried)
        wire.inject(noise, at(7))
        self.assertEqual(wire.server.counts.stray, before + 1)
        self.assertEqual(len(wire.carried), sent)
        self.assertEqual(wire.server.handshakes, 0)

    @settings(max_examples=300)
    @given(CHANGES)
    def test_in_a_session(self, change: _Change) -> None:
        """A session outlives whatever comes from its address, and is answered after it."""
        wire = self.shared
        wire.inject(mutated(change, wire.carried))
        wire.run()
        self.assertEqual(wire.server.sessions, 1)
        self.check_talks(wire, self.client)

    @settings(max_examples=200)
    @given(CHANGES, st.integers(1, 8))
    def test_in_a_handshake(self, change: _Change, number: int) -> None:
        """A handshake that is disturbed goes on or fails, and leaves nothing."""
        wire = Wire(self.files)
        noise = mutated(change, self.shared.carried[:8])
        wire.fate = lambda count, datagram, to_server: (
            [noise, datagram] if count == number and to_server else [datagram]
        )
        client = wire.connect()
        self.assertLessEqual(wire.server.sessions + wire.server.handshakes, 1)
        stop(client.dtls)
        wire.stop()
        self.check_end(wire)

    def test_unprotected_alert(self) -> None:
        """An alert that anybody can send does not end a session."""
        wire = self.wire()
        client = wire.connect()
        stray = wire.server.counts.stray
        for description in (0, 40):
            for level in (1, 2):
                alert = bytes((21, 0xFE, 0xFD, *bytes(8), 0, 2, level, description))
                wire.inject(alert)
        self.assertEqual(wire.server.counts.stray, stray + 4)
        self.check_talks(wire, client)

    def test_too_long(self) -> None:
        """A datagram longer than any record is passed over."""
        wire = self.wire()
        client = wire.connect()
        wire.inject(b"\x17\xfe\xfd\0\1" + bytes(60_000))
        self.check_talks(wire, client)


class BoundTests(DtlsTestCase):
    """What there may be at once, and for how long."""

    def half(self, wire: Wire, source: Source) -> Client:
        """Start a client, and drop what is sent to it after its cookie."""
        wire.fate = lambda number, datagram, to_server: (
            [datagram] if to_server or datagram[13] == 3 else []
        )
        client = wire.client(source)
        wire.run()
        wire.fate = lambda number, datagram, to_server: [datagram]
        return client

    def test_handshakes(self) -> None:
        """One more handshake than may be is refused; it comes in when another one is over."""
        wire = self.wire(max_handshakes=3)
        for i in range(3):
            self.half(wire, at(i))
        self.assertEqual(wire.server.handshakes, 3)
        late = wire.connect(at(3))
        self.assertEqual(wire.server.handshakes, 3)
        self.assertFalse(late.connected)
        self.assertEqual(wire.server.counts.ended[End.TOO_MANY_HANDSHAKES], 1)
        wire.clock.advance(wire.server.settings.handshake_timeout)
        self.assertEqual(wire.server.handshakes, 0)
        self.assertTrue(wire.connect(at(4)).connected)

    def test_handshakes_per_address(self) -> None:
        """One address, of IPv6 one network, has a share of the handshakes."""
        wire = self.wire(max_handshakes_per_address=2)
        for port in range(3):
            self.half(wire, ("198.51.100.1", 1000 + port))
        for i in range(3):
            self.half(wire, (f"2001:db8::{i + 1}", 1000))
        self.assertEqual(wire.server.handshakes, 4)
        self.assertEqual(wire.server.counts.ended[End.TOO_MANY_HANDSHAKES], 2)
        self.assertTrue(wire.connect(at(1)).connected)

    def test_handshake_is_over(self) -> None:
        """What a session took as a handshake is free when it is established, however it ends."""
        wire = self.wire(max_handshakes=1, max_handshakes_per_address=1)
        for i in range(5):
            wire.connect((HERE[0], 1000 + i))
        wire.connect((HERE[0], 1000), ca="", verify=False)
        self.assertEqual(wire.server.sessions, 5)
        self.assertEqual(wire.server.counts.established, 6)
        self.assertEqual(len(wire.server._per_address), 0)

    def test_handshake_bytes(self) -> None:
        """A peer that sends more than it may before it is done is no longer listened to."""
        wire = self.wire(max_handshake_bytes=1024)
        self.half(wire, HERE)
        # Of a session that is not there, and so passed over.
        datagram = bytes((23, 0xFE, 0xFD, 0, 9, *bytes(6), 0, 100)) + bytes(100)
        for _ in range((1024 - len(wire.to_server()[-1])) // len(datagram)):
            wire.inject(datagram)
        self.assertEqual(wire.server.handshakes, 1)
        wire.inject(datagram)
        self.assertEqual(wire.server.handshakes, 0)
        self.assertEqual(wire.server.counts.ended[End.HANDSHAKE_FAILED], 1)

    def test_handshake_timeout(self) -> None:
        """A handshake that is not over in its time is given up."""
        wire = self.wire(handshake_timeout=5.0)
        self.half(wire, HERE)
        wire.clock.advance(4.9)
        self.assertEqual(wire.server.handshakes, 1)
        wire.clock.advance(0.1)
        self.assertEqual(wire.server.handshakes, 0)
        self.assertEqual(wire.server.counts.ended[End.HANDSHAKE_TIMEOUT], 1)

    def test_sessions(self) -> None:
        """With one session too many the one that was silent for longest is ended, and told."""
        wire = self.wire(max_sessions=3)
        clients = [wire.connect(at(i)) for i in range(3)]
        self.check_talks(wire, clients[0])
        fourth = wire.connect(at(3))
        self.assertEqual([bool(client.lost) for client in clients], [False, True, False])
        self.assertIsInstance(clients[1].lost[0], DtlsEnded)
        self.assertEqual([end for _, end in wire.ended], [End.TOO_MANY_CONNECTIONS])
        self.assertEqual(wire.server.sessions, 3)
        self.check_talks(wire, fourth)

    def test_sessions_of_a_user(self) -> None:
        """A user with one session too many loses the one that was silent for longest."""
        settings = DtlsSettings(certificate=self.files.server, client_ca=self.files.ca)
        wire = Wire(self.files, settings, session_limit=lambda user: 2 if user == "ann" else None)
        self.addCleanup(self.check_end, wire)
        ann = self.files.write("ann", user="ann")
        bob = self.files.write("bob", user="bob")
        bobs = [wire.connect(at(10 + i), certificate=bob) for i in range(3)]
        anns = [wire.connect(at(i), certificate=ann) for i in range(3)]
        self.assertEqual([bool(client.lost) for client in anns], [True, False, False])
        self.assertEqual([bool(client.lost) for client in bobs], [False, False, False])
        self.assertEqual([end for _, end in wire.ended], [End.USER_LIMIT])

    def test_user_at_its_limit(self) -> None:
        """A user who has as many as it may takes no place of others, though there is none left."""
        settings = DtlsSettings(
            certificate=self.files.server,
            client_ca=self.files.ca,
            client_certificate="optional",
            max_sessions=3,
        )
        wire = Wire(self.files, settings, session_limit=lambda user: 2)
        self.addCleanup(self.check_end, wire)
        ann = self.files.write("ann", user="ann")
        other = wire.connect()
        anns = [wire.connect(at(i), certificate=ann) for i in range(2)]
        self.check_talks(wire, anns[0])
        anns.append(wire.connect(at(2), certificate=ann))
        self.assertEqual([bool(client.lost) for client in anns], [False, True, False])
        self.assertEqual([end for _, end in wire.ended], [End.USER_LIMIT])
        self.check_talks(wire, other)
        self.assertEqual(wire.server.sessions, 3)

    def test_user_that_cannot_be_looked_up(self) -> None:
        """If the limit of a user cannot be read, the handshake ends by its timeout."""

        def session_limit(user: str) -> int | None:
            raise LookupError(user)

        settings = DtlsSettings(certificate=self.files.server, client_ca=self.files.ca)
        wire = Wire(self.files, settings, session_limit=session_limit)
        self.addCleanup(self.check_end, wire)
        wire.client(certificate=self.files.write("ann", user="ann"))
        self.assertRaises(LookupError, wire.run)
        self.assertEqual((wire.server.sessions, wire.server.handshakes), (0, 1))
        wire.clock.advance(settings.handshake_timeout)
        self.assertEqual(wire.server.handshakes, 0)

    def test_idle(self) -> None:
        """A session that was silent for its time is ended, and told; one that speaks is not."""
        wire = self.wire(idle_timeout=60.0)
        silent, busy = wire.connect(at(0)), wire.connect(at(1))
        for _ in range(3):
            wire.clock.advance(19.9)
            self.check_talks(wire, busy)
        self.assertEqual(wire.server.sessions, 2)
        wire.clock.advance(0.4)
        wire.run()
        self.assertIsInstance(silent.lost[0], DtlsEnded)
        self.assertEqual([end for _, end in wire.ended], [End.IDLE_TIMEOUT])
        self.check_talks(wire, busy)

    def test_forged_is_no_sign_of_life(self) -> None:
        """What others send from a session's address does not keep it."""
        wire = self.wire(idle_timeout=60.0)
        wire.connect()
        wire.clock.advance(59)
        wire.inject(bytes((23, 0xFE, 0xFD, 0, 1, *bytes(5), 9, 0, 30)) + bytes(30))
        wire.clock.advance(1.1)
        self.assertEqual([end for _, end in wire.ended], [End.IDLE_TIMEOUT])

    def test_one_timer(self) -> None:
        """However many sessions and handshakes there are, one timer runs; without any, none."""
        wire = self.wire()
        self.assertEqual(wire.clock.getDelayedCalls(), [])
        for i in range(20):
            wire.connect(at(i))
            stop(self.half(wire, at(100 + i)).dtls)
        self.assertEqual(len(wire.clock.getDelayedCalls()), 1)
        for i in range(20):
            wire._clients[at(i)].dtls.close()
        wire.run()
        wire.clock.advance(wire.server.settings.handshake_timeout)
        self.assertEqual(wire.clock.getDelayedCalls(), [])

    def test_records(self) -> None:
        """Of a datagram the first records are received, as many as the limit says, either way."""
        wire = self.wire()
        client = wire.connect()
        for count in (MAX_RECORDS, MAX_RECORDS + 1):
            wire.fate = lambda number, datagram, to_server: []
            for i in range(count):
                client.say(b"%d" % i)
            wire.fate = lambda number, datagram, to_server: [datagram]
            assert isinstance(wire.inner, Inner)
            del wire.inner.got[:], client.inner.got[:]
            wire.inject(b"".join(wire.to_server()[-count:]))
            expected = [b"%d" % i for i in range(MAX_RECORDS)]
            self.assertEqual([payload for payload, _ in wire.inner.got], expected)
            wire.run()
            answers = wire.from_server()[-MAX_RECORDS:]
            self.assertEqual(client.heard, [b"echo " + payload for payload in expected])
            # The same records once more: duplicates are ignored.
            client.dtls.datagramReceived(b"".join(answers), SERVER)
            self.assertEqual(len(client.heard), MAX_RECORDS)

    def test_no_renegotiation(self) -> None:
        """A client cannot renegotiate: its ClientHello gets an alert, and no second handshake."""
        # Ours has the same option; this one is as OpenSSL makes it.
        self.patch(dtls_wire, "client_context", lambda settings: Context(DTLS_CLIENT_METHOD))
        wire = self.wire()
        client = wire.connect()
        connection = client.dtls._session._connection
        connection.renegotiate()
        with contextlib.suppress(WantReadError):
            connection.do_handshake()
        sent = len(wire.carried)
        client.dtls._flush()
        wire.run()
        # A ClientHello, and an alert, after which OpenSSL's client gives up.
        answers = [datagram for datagram, _, to in wire.carried[sent:] if to == HERE]
        self.assertEqual(len(answers), 1)
        self.assertLess(len(answers[0]), 100)
        self.assertEqual(wire.server.handshakes, 0)


class MtuTests(DtlsTestCase):
    """No datagram is longer than it may be."""

    def test_handshake(self) -> None:
        """A handshake with certificates on both sides keeps to the smallest MTU."""
        wire = self.wire(mtu=256, client_ca=self.files.ca)
        client = wire.connect(mtu=256, certificate=self.files.write("ann", user="ann"))
        self.check_talks(wire, client)
        self.assertLessEqual(max(len(datagram) for datagram, _, _ in wire.carried), 256)

    def test_datagrams_share(self) -> None:
        """Small messages of one flight share a datagram."""
        wire = self.wire(mtu=1232)
        wire.connect()
        self.assertLess(len(wire.from_server()), 4)

    def test_payload(self) -> None:
        """The longest payload fits the MTU to the byte; longer ones and empty ones are refused."""
        wire = self.wire(mtu=300)
        client = wire.connect(mtu=300)
        self.check_talks(wire, client)
        assert isinstance(wire.inner, Inner)
        peer = wire.inner.got[0][1]
        # What is as long as may be cannot be sent back with a word in front.
        wire.inner.echo = False
        most = client.dtls.max_payload
        for write in (client.dtls.write, wire.server.write):
            write(bytes(most), peer)
            self.assertEqual(len(wire.carried[-1][0]), 300)
            wire.run()
            sent = len(wire.carried)
            for wrong in (bytes(most + 1), b""):
                self.assertRaises(MessageLengthError, write, wrong, peer)
            self.assertEqual(len(wire.carried), sent)


class LossTests(DtlsTestCase):
    """
    Handshakes over a wire that loses, doubles and reorders.

    All run side by side, as OpenSSL waits a second of real time before it sends again.
    """

    def test_each_datagram(self) -> None:
        """Whichever datagram of a handshake is lost, it comes to its end."""
        ca = self.files.ca
        certificate = self.files.write("ann", user="ann")
        wires = []
        for lost in range(1, 16):
            wire = self.wire(client_ca=ca, mtu=512)
            wire.fate = lambda number, datagram, to_server, lost=lost: (  # type: ignore[misc]
                [] if number == lost else [datagram]
            )
            wire.client(certificate=certificate, mtu=512)
            wires.append(wire)

        def done() -> bool:
            return all(wire._clients[HERE].connected and wire.server.sessions for wire in wires)

        self.wait(wires, done)
        for wire in wires:
            wire.fate = lambda number, datagram, to_server: [datagram]
            self.check_talks(wire, wire._clients[HERE])

    def test_any(self) -> None:
        """With a tenth lost, a tenth doubled, and any order, every handshake comes to its end."""
        wire = self.wire(mtu=512, max_handshakes_per_address=100)
        chance = random.Random(7)

        def fate(number: int, datagram: bytes, to_server: bool) -> list[bytes]:
            # Later ones get through: OpenSSL waits 1, 2, 4, 8 seconds, and then time is over.
            if number < 200 and chance.random() < 0.1:
                return []
            return [datagram] * (1 + (chance.random() < 0.1))

        wire.fate = fate
        clients = [wire.client(at(i), mtu=512) for i in range(30)]
        wire.run_until(lambda: all(client.connected for client in clients), chance)
        wire.fate = lambda number, datagram, to_server: [datagram]
        wire.run()
        for client in clients:
            self.assertTrue(client.connected)
            self.check_talks(wire, client)
        self.assertEqual((wire.server.sessions, wire.server.handshakes), (30, 0))

    def wait(self, wires: list[Wire], done: Callable[[], bool]) -> None:
        """Advance the clocks of all wires."""
        first, *others = wires

        def all_done() -> bool:
            for wire in others:
                wire.clock.advance(first.clock.seconds() - wire.clock.seconds())
                wire.run()
            return done()

        first.run_until(all_done)


def fragments(datagram: bytes, cut: int) -> list[bytes]:
    """Return the two fragments of a handshake message, each a datagram of one record."""
    header, body = datagram[13:25], datagram[25:]
    number = int.from_bytes(datagram[5:11], "big")
    made = []
    for i, (start, end) in enumerate(((0, cut), (cut, len(body)))):
        message = header[:6] + start.to_bytes(3, "big") + (end - start).to_bytes(3, "big")
        message += body[start:end]
        numbers = (number * 2 + i).to_bytes(6, "big")
        made.append(datagram[:5] + numbers + len(message).to_bytes(2, "big") + message)
    return made


def renumbered(datagram: bytes) -> bytes:
    """Double the numbers of all records that are not encrypted, so that fragments have room."""
    made = b""
    while datagram:
        end = 13 + int.from_bytes(datagram[11:13], "big")
        number = datagram[5:11]
        if datagram[3:5] == b"\0\0":
            number = (int.from_bytes(number, "big") * 2).to_bytes(6, "big")
        made += datagram[:5] + number + datagram[11:end]
        datagram = datagram[end:]
    return made


def mutated(change: _Change, carried: list[tuple[bytes, Source, Source]]) -> bytes:
    """Return noise, or an earlier datagram: complete, truncated, changed, or with more appended."""
    what, which, at, value, noise = change
    datagram = carried[which % len(carried)][0]
    at %= len(datagram)
    return {
        "noise": noise,
        "known": datagram,
        "cut": datagram[: at + 1],
        "changed": datagram[:at] + bytes((value,)) + datagram[at + 1 :],
        "more": datagram + noise,
    }[what]
