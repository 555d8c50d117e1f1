"""Tests for :mod:`twisted_net.dtls.psk`, and of the pre-shared keys of either side."""

from __future__ import annotations

import os
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.dtls.dtls_wire import HERE, Client, Files, Inner, Wire, stop
from twisted_net import twisted_internals
from twisted_net.dtls.peer import SecurePeer
from twisted_net.dtls.psk import CIPHERS, MAX_KEY, MIN_KEY, SUITES, load_keys, offers_psk
from twisted_net.dtls.server import DtlsServer
from twisted_net.dtls.session import DtlsSession, client_context, server_context
from twisted_net.dtls.settings import DtlsClientSettings, DtlsSettings
from twisted_net.errors import ConfigError
from twisted_net.reasons import End

KEY = "00112233445566778899aabbccddeeff"
OTHER_KEY = "ff" * 32


class PskTestCase(SynchronousTestCase):
    """Has files of keys, and of certificates."""

    def setUp(self) -> None:
        self.files = Files()
        self.addCleanup(self.files.remove)


class KeyFileTests(PskTestCase):
    """:func:`load_keys`."""

    def load(self, text: str) -> dict[str, bytes]:
        """Load a file with this text."""
        path = self.files.folder / "keys.toml"
        path.write_text(text)
        return load_keys(str(path))

    def test_keys(self) -> None:
        """Each key is of one identity, and written in hexadecimal."""
        found = self.load(f'device-7 = "{KEY}"\n"\u00fc 1" = "{OTHER_KEY}"')
        self.assertEqual(
            found, {"device-7": bytes.fromhex(KEY), "\u00fc 1": bytes.fromhex(OTHER_KEY)}
        )

    def test_mistakes(self) -> None:
        """What is no key is named by its identity, and not shown."""
        for text, said in (
            ("", "it has no keys"),
            ("a = 1\nnonsense 5ec4e7", "it is not TOML"),
            ("a = 123", "the key of a is not text in hexadecimal"),
            ('a = "5ec4e7 x"', "the key of a is not text in hexadecimal"),
            (f'a = "{"5e" * (MIN_KEY - 1)}"', "the key of a has 15 bytes, not 16 to 64"),
            (f'a = "{"5e" * (MAX_KEY + 1)}"', "the key of a has 65 bytes, not 16 to 64"),
            (f'"" = "{KEY}"', "an identity has 1 to 128 bytes, and no NUL"),
            (f'"{"a" * 129}" = "{KEY}"', "an identity has 1 to 128 bytes, and no NUL"),
            (f'"a\\u0000b" = "{KEY}"', "an identity has 1 to 128 bytes, and no NUL"),
        ):
            with self.subTest(text=text):
                error = self.assertRaises(ConfigError, self.load, text)
                self.assertIn(said, error.mistakes[0])
                self.assertNotIn("5e", str(error).replace(str(self.files.folder), ""))
        missing = self.assertRaises(ConfigError, load_keys, "/nowhere/keys.toml")
        self.assertEqual(missing.mistakes, ["/nowhere/keys.toml: No such file or directory"])

    def test_limits(self) -> None:
        """The longest identity and keys of both ends of the range are taken."""
        longest = "a" * 128
        for size in (MIN_KEY, MAX_KEY):
            self.assertEqual(self.load(f'{longest} = "{"5e" * size}"'), {longest: b"\x5e" * size})


class SuitesTests(SynchronousTestCase):
    """Which ClientHellos are for pre-shared keys."""

    def test_offers(self) -> None:
        """One suite among others is enough; half of one is none."""
        self.assertTrue(offers_psk(bytes.fromhex("c02bc0a800ff")))
        for suites in ("", "c02b00ff", "2bc0a8ff", "c0"):
            self.assertFalse(offers_psk(bytes.fromhex(suites)))

    def test_numbers(self) -> None:
        """The numbers are those of the ciphers that OpenSSL gets by their names."""
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_cipher_list(CIPHERS)
        names = [name for name in SSL.Connection(context, None).get_cipher_list() if "PSK" in name]
        self.assertEqual(len(names), len(SUITES))


class SessionTests(PskTestCase):
    """Handshakes with pre-shared keys."""

    def setUp(self) -> None:
        super().setUp()
        keys = self.files.write_keys("server", **{"device-7": KEY, "device-8": OTHER_KEY})
        self.wire = Wire(
            self.files,
            DtlsSettings(
                certificate=self.files.server,
                client_ca=self.files.ca,
                client_certificate="optional",
                psk=keys,
                handshake_timeout=3.0,
            ),
        )
        self.addCleanup(stop, self.wire.server)

    def connect(self, identity: str, key: str) -> Client:
        """Connect a client that has this key."""
        return self.wire.connect(psk=self.files.write_keys("device", **{identity: key}))

    def peer(self, client: Client) -> SecurePeer:
        """Return the peer that says something to the server."""
        client.say(b"hello")
        self.wire.run()
        ((_, peer),) = self.wire.inner.got[-1:]  # type: ignore[attr-defined]  # it is an Inner
        assert isinstance(peer, SecurePeer)
        return peer

    def test_identity(self) -> None:
        """The peer is who has the key; both sides can send (RFC 4279 §2)."""
        for identity, key in (("device-7", KEY), ("device-8", OTHER_KEY)):
            client = self.connect(identity, key)
            self.assertTrue(client.connected)
            peer = self.peer(client)
            self.assertEqual((peer.identity, peer.credential), (identity, "pre-shared key"))
            self.assertEqual(client.heard, [b"echo hello"])
            client.dtls.close()
            self.wire.run()

    def test_refused(self) -> None:
        """Neither another identity's key nor an unknown identity connects."""
        for identity, key in (
            ("device-7", OTHER_KEY),
            ("device-9", KEY),
            ("device-8", "00" * 32),
        ):
            with self.subTest(identity=identity, key=key):
                client = self.connect(identity, key)
                self.wire.clock.advance(31)
                self.wire.run()
                self.assertFalse(client.connected)
                self.assertEqual(len(client.failures), 1)
        server = self.wire.server
        self.assertEqual((server.sessions, server.handshakes), (0, 0))
        self.assertEqual(server.counts.established, 0)

    def test_resumed(self) -> None:
        """No session is resumed, as the server would not learn whose key it was made with."""
        keys = self.files.write_keys("device", **{"device-7": KEY})
        first = self.connect("device-7", KEY).dtls._session._connection
        kept, context = first.get_session(), first.get_context()
        again = self.wire.client(("198.51.100.2", 40_000), start=False, psk=keys)
        connection = SSL.Connection(context, None)
        assert kept is not None
        connection.set_session(kept)
        again.dtls._session = DtlsSession(connection, 1232)
        self.wire.start(again)
        self.wire.run()
        self.assertTrue(again.connected)
        self.assertEqual(self.peer(again).identity, "device-7")

    def test_identity_of_a_failure(self) -> None:
        """The identity that a failed handshake has named is not that of the next session."""
        self.connect("device-7", OTHER_KEY)
        client = self.wire.connect(("198.51.100.2", 40_000))
        self.assertIsNone(self.peer(client).identity)

    def test_certificates_beside(self) -> None:
        """Clients with certificates, and with none, are served as before."""
        certificate = self.files.write("ann", user="ann")
        client = self.wire.connect(certificate=certificate)
        peer = self.peer(client)
        self.assertEqual((peer.identity, peer.credential), ("ann", "certificate"))
        client.dtls.close()
        self.wire.run()
        self.assertIsNone(self.peer(self.wire.connect()).identity)

    def test_server_without_keys(self) -> None:
        """A server without keys refuses them; its certificate is not accepted for a key."""
        self.wire = Wire(self.files)
        self.addCleanup(stop, self.wire.server)
        client = self.connect("device-7", KEY)
        self.assertFalse(client.connected)
        self.assertEqual(self.wire.server.counts.ended[End.HANDSHAKE_FAILED], 1)

    def test_readable_by_all(self) -> None:
        """A file of keys that all users of the machine can read is logged; a private one is not."""
        heard: list[LogEvent] = []
        observer = cast(ILogObserver, heard.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        path = self.files.write_keys("shown", device=KEY)
        for mode, sentences in (
            (0o600, []),
            (0o604, [f"{path} is readable by all users of this machine"]),
        ):
            os.chmod(path, mode)
            heard.clear()
            DtlsServer.make_psk(DtlsSettings(certificate=self.files.server, psk=path))
            self.assertEqual([formatEvent(event) for event in heard], sentences)

    def test_limit_of_a_user(self) -> None:
        """The sessions of an identity have the limit of that user."""
        self.wire.server._session_limit = lambda user: 1
        first = self.connect("device-7", KEY)
        second = self.wire.connect(
            ("198.51.100.2", 40_000), psk=self.files.write_keys("device", **{"device-7": KEY})
        )
        self.assertEqual((len(first.lost), second.connected), (1, True))
        self.assertEqual(self.wire.server.sessions, 1)
        self.assertEqual(self.wire.ended[0][1], End.USER_LIMIT)
        self.assertEqual(HERE, tuple(self.wire.ended[0][0]))


class SettingsTests(PskTestCase):
    """Settings that contradict each other, and versions without pre-shared keys."""

    def test_contradictions(self) -> None:
        """A key excludes certificates of a client; a server has one beside its keys."""
        fields: dict[str, Any]  # Any: of several types
        for fields in ({"ca": "x"}, {"certificate": "x"}, {"verify": False}):
            self.assertRaises(ValueError, DtlsClientSettings, psk="keys.toml", **fields)
        self.assertRaises(ValueError, DtlsSettings, psk="keys.toml")

    def test_not_loaded(self) -> None:
        """A server whose settings name keys that are not given says so, and how to give them."""
        settings = DtlsSettings(certificate=self.files.server, psk="keys.toml")
        certificates = DtlsServer.make_certificates(settings)
        with self.assertRaises(ValueError) as caught:
            DtlsServer(cast(Any, Clock()), Inner(echo=True), certificates, settings)
        self.assertEqual(
            str(caught.exception),
            "DtlsServer: settings.psk is keys.toml, but there is no argument psk;"
            " pass psk=DtlsServer.make_psk(settings)",
        )

    def test_one_key(self) -> None:
        """A client has one key."""
        two = self.files.write_keys("two", a=KEY, b=KEY)
        error = self.assertRaises(ConfigError, client_context, DtlsClientSettings(psk=two))
        self.assertIn("a client has one key, not 2", str(error))

    def test_other_versions(self) -> None:
        """Without what it leans on, a key is a mistake of the configuration, and no crash."""
        self.assertEqual(twisted_internals.psk_changes(), [])
        self.patch(twisted_internals, "_PSK", {"client": "int(*)(void)", "nobody": ""})
        changes = twisted_internals.psk_changes()
        self.assertEqual(
            changes, ["SSL_CTX_set_psk_client_callback", "SSL_CTX_set_psk_nobody_callback"]
        )
        settings = DtlsClientSettings(psk=self.files.write_keys("one", a=KEY))
        error = self.assertRaises(ConfigError, client_context, settings)
        self.assertIn("no pre-shared keys", str(error))

    def test_buffers(self) -> None:
        """The context of a key has the limits of the others."""
        settings = DtlsClientSettings(psk=self.files.write_keys("one", a=KEY))
        self.assertTrue(client_context(settings).set_mode(0) & SSL.MODE_RELEASE_BUFFERS)
        self.assertTrue(server_context().set_mode(0) & SSL.MODE_RELEASE_BUFFERS)
