"""Tests of :mod:`twisted_net.net.tls_policy`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import Authority, write_pair
from twisted_net.config.tls import ClientTlsSettings
from twisted_net.errors import ConfigError
from twisted_net.net.tls_policy import TlsPolicy, check_tls_files


class Refusals:
    """Stands for the protocol of a connection, and keeps what it is told."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def failVerification(self, reason: Failure) -> None:
        """Keep the reason."""
        self.errors.append(cast(BaseException, reason.value))


class PolicyCase(SynchronousTestCase):
    """Has an authority, and certificates that it has issued."""

    def setUp(self) -> None:
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.authority = Authority()
        self.ca = str(self.authority.write(self.folder / "ca.pem"))

    def pair(self, *hosts: str, **options: Any) -> str:
        """Issue a certificate; return its file, which has the key, too."""
        file = self.folder / f"{len(list(self.folder.iterdir()))}.pem"
        return str(write_pair(file, self.authority.issue(*hosts, **options)))


class TlsPolicyTests(PolicyCase):
    """:class:`TlsPolicy` accepts the servers that its settings trust, by their names."""

    def shake(
        self,
        settings: ClientTlsSettings,
        pair: str,
        name: bytes = b"a.test",
        client_ca: str | None = None,
    ) -> tuple[SSL.Connection, list[BaseException]]:
        """Shake hands; return the server's side, and what the client has refused it for."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate_chain_file(pair)
        context.use_privatekey_file(pair)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        server, refusals = SSL.Connection(context, None), Refusals()
        server.set_accept_state()
        creator = TlsPolicy(settings).creatorForNetloc(name, 443)
        client = creator.clientConnectionForTLS(cast(Any, refusals))  # Any: stands for it
        client.set_connect_state()
        errors = refusals.errors
        for _ in range(4):
            for one, other in ((client, server), (server, client)):
                try:
                    one.do_handshake()
                except SSL.WantReadError:
                    pass
                except SSL.Error as error:
                    errors.append(error)
                    return server, errors
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(one.bio_read(2**16))
        return server, errors

    def test_trusted(self) -> None:
        """A certificate of its authority is accepted for each of its names and addresses."""
        pair = self.pair("a.test", "*.b.test", "127.0.0.1", "::1")
        for name in (b"a.test", b"x.b.test", b"127.0.0.1", b"::1"):
            server, errors = self.shake(ClientTlsSettings(ca=self.ca), pair, name)
            self.assertEqual(errors, [])
            numeric = name in (b"127.0.0.1", b"::1")
            self.assertEqual(server.get_servername(), None if numeric else name)

    def test_other_name(self) -> None:
        """A certificate for another name, another address, or for none at all, is refused."""
        for pair, name in (
            (self.pair("b.test"), b"a.test"),
            (self.pair("127.0.0.2"), b"127.0.0.1"),
            (self.pair("127.0.0.1"), b"a.test"),
            (self.pair(common_names=("a.test",)), b"a.test"),
        ):
            _, errors = self.shake(ClientTlsSettings(ca=self.ca), pair, name)
            self.assertIsInstance(errors[0], VerificationError)

    def test_unreadable_names(self) -> None:
        """A certificate with a name of a kind that cannot be read is refused, without an error."""
        x400 = bytes.fromhex("3000")
        dns = b"a.test"
        names = bytes([0xA3, len(x400)]) + x400 + bytes([0x82, len(dns)]) + dns
        pair = self.pair(encoded_names=bytes([0x30, len(names)]) + names)
        _, errors = self.shake(ClientTlsSettings(ca=self.ca), pair)
        self.assertIsInstance(errors[0], VerificationError)

    def test_name_like_a_number(self) -> None:
        """A host whose name Python would read as a number has no certificate that is for it."""
        settings, pair = ClientTlsSettings(ca=self.ca), self.pair("1_000", "*.test")
        _, errors = self.shake(settings, pair, b"1_000")
        self.assertIsInstance(errors[0], VerificationError)

    def test_other_authority(self) -> None:
        """Certificates of other authorities are refused: the file replaces those of the system."""
        other = str(Authority().write(self.folder / "other.pem"))
        for settings in (ClientTlsSettings(ca=other), ClientTlsSettings()):
            _, errors = self.shake(settings, self.pair("a.test"))
            self.assertIn("certificate verify failed", str(errors[0]))

    def test_expired(self) -> None:
        """A certificate that has expired is refused."""
        _, errors = self.shake(ClientTlsSettings(ca=self.ca), self.pair("a.test", days=-1))
        self.assertIn("certificate verify failed", str(errors[0]))

    def test_not_verified(self) -> None:
        """With verify=False all are accepted, which the log says once."""
        with capturedLogs() as events:
            server, errors = self.shake(ClientTlsSettings(verify=False), self.pair("b.test"))
        self.assertEqual((errors, server.get_servername()), ([], b"a.test"))
        (event,) = events
        self.assertIn("are not verified", str(formatEvent(event)))

    def test_client_certificate(self) -> None:
        """A certificate of its own is sent to a server that asks for one; its key may be apart."""
        server_pair, settings = self.pair("a.test"), ClientTlsSettings(ca=self.ca)
        chain, key = self.authority.issue(common_names=("ada",))
        (self.folder / "me.crt").write_bytes(chain)
        (self.folder / "me.key").write_bytes(key)
        for settings in (
            ClientTlsSettings(ca=self.ca, certificate=self.pair(common_names=("ada",))),
            ClientTlsSettings(
                ca=self.ca,
                certificate=str(self.folder / "me.crt"),
                key=str(self.folder / "me.key"),
            ),
        ):
            server, errors = self.shake(settings, server_pair, client_ca=self.ca)
            self.assertEqual(errors, [])
            certificate = server.get_peer_certificate(as_cryptography=True)
            assert certificate is not None
            self.assertIn("ada", certificate.subject.rfc4514_string())
        server, errors = self.shake(ClientTlsSettings(ca=self.ca), server_pair, client_ca=self.ca)
        self.assertEqual(len(errors), 1)


class FilesTests(PolicyCase):
    """Files that cannot be used are mistakes, all at once, with the setting that names each."""

    def test_mistakes(self) -> None:
        """A file may be missing, have no certificate, or a key of another one."""
        empty = self.folder / "empty.pem"
        empty.write_bytes(b"")
        chain, _ = self.authority.issue("a.test")
        (self.folder / "chain.pem").write_bytes(chain)
        pair = self.pair("b.test")
        for settings, said in (
            (ClientTlsSettings(ca="/none"), ["tls.ca: /none: No such file or directory"]),
            (
                ClientTlsSettings(ca=str(empty), certificate="/none"),
                [f"tls.ca: {empty}: there is no certificate", "tls.certificate: /none: No such"],
            ),
            (
                ClientTlsSettings(certificate=self.ca),
                [f"tls.certificate: {self.ca}: there is no key"],
            ),
            (ClientTlsSettings(certificate=pair, key="/none"), ["tls.key: /none: No such"]),
            (
                ClientTlsSettings(certificate=str(empty), key=pair),
                [f"tls.certificate: {empty}: there is no certificate"],
            ),
            (
                ClientTlsSettings(certificate=str(self.folder / "chain.pem"), key=pair),
                [f"tls.key: {pair}: this key is not the certificate's"],
            ),
        ):
            mistakes = self.assertRaises(ConfigError, TlsPolicy, settings).mistakes
            self.assertEqual(len(mistakes), len(said))
            for mistake, beginning in zip(mistakes, said, strict=True):
                self.assertTrue(mistake.startswith(beginning), mistake)
            checked = self.assertRaises(ConfigError, check_tls_files, settings, "http").mistakes
            self.assertEqual(checked, [f"http.{mistake}" for mistake in mistakes])

    def test_none(self) -> None:
        """Settings that name usable files, or none, are no mistake."""
        check_tls_files(ClientTlsSettings(), "http")
        check_tls_files(ClientTlsSettings(ca=self.ca, certificate=self.pair()), "http")


del PolicyCase
