"""Tests of :mod:`twisted_net.net.certificates`."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import NOW, Authority, write_pair
from twisted_net.config.tls import TlsSettings
from twisted_net.errors import ConfigError
from twisted_net.net.certificates import DAY, NAMELESS, Certificates, identity_in, user_of

AUTHORITY = Authority()


class CertificatesTests(SynchronousTestCase):
    """:class:`Certificates`."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.now = NOW.timestamp()
        self.logged = EventLoggingObserver()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)

    def certificates(self, **settings: Any) -> Certificates:  # Any: fields of the record
        """Make certificates out of settings, where a Path is as good as its name."""
        words: dict[str, Any] = {  # Any: as above
            name: str(value) if isinstance(value, Path) else value
            for name, value in settings.items()
        }
        return Certificates(TlsSettings(**words), lambda: self.now)

    def write(self, name: str, *hosts: str, days: float = 90) -> Path:
        """Write a certificate and its key into one file of the folder."""
        return write_pair(self.folder / name, AUTHORITY.issue(*(hosts or (name,)), days=days))

    def shown(self, certificates: Certificates, host: str | None) -> str | None:
        """Shake hands as a client that asks for *host*, and give the host in the certificate."""
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        if host is not None:
            client.set_tlsext_host_name(host.encode())
        client.set_connect_state()
        server = certificates.serverConnectionForTLS(None)  # type: ignore[arg-type]  # unused
        server.set_accept_state()
        try:
            for _ in range(4):
                for one, other in ((client, server), (server, client)):
                    with contextlib.suppress(SSL.WantReadError):
                        one.do_handshake()
                    with contextlib.suppress(SSL.WantReadError):
                        other.bio_write(one.bio_read(65_536))
        except SSL.Error:
            return None
        shown = client.get_peer_certificate(as_cryptography=True)
        assert shown is not None
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)[0]

    def texts(self) -> list[str]:
        """Return what was logged."""
        return [formatEvent(event) for event in self.logged]

    def mistakes(self, **settings: Any) -> list[str]:  # Any: as above
        """Return what is wrong with settings, without the name of the folder."""
        error = self.assertRaises(ConfigError, self.certificates, **settings)
        return [line.replace(str(self.folder), "") for line in error.mistakes]

    # --- contexts ---

    def test_buffers(self) -> None:
        """OpenSSL releases the buffers of idle connections, whichever context they have."""
        pair = self.write("default.pem", "default.test")
        self.write("a.test.pem", "a.test")
        ca = AUTHORITY.write(self.folder / "ca")
        for certificates in (
            self.certificates(certificate=pair),
            self.certificates(folder=self.folder),
            self.certificates(certificate=pair, folder=self.folder, client_ca=ca),
            Certificates(
                TlsSettings(certificate=str(pair)),
                lambda: self.now,
                lambda: SSL.Context(SSL.TLS_SERVER_METHOD),
            ),
        ):
            sources = [certificates._fallback, *certificates._sources.values()]
            for source in sources:
                # The call returns the modes that are set.
                self.assertTrue(source.context.set_mode(0) & SSL.MODE_RELEASE_BUFFERS)

    # --- which one ---

    def test_one_for_all(self) -> None:
        """A single certificate is shown to everybody."""
        certificates = self.certificates(certificate=self.write("one.pem", "a.test"))
        for host in (None, "a.test", "b.test"):
            self.assertEqual(self.shown(certificates, host), "a.test")

    def test_key_of_its_own(self) -> None:
        """The key may be in another file than the certificate."""
        chain, key = AUTHORITY.issue("a.test")
        (self.folder / "chain").write_bytes(chain)
        (self.folder / "key").write_bytes(key)
        certificates = self.certificates(certificate=self.folder / "chain", key=self.folder / "key")
        self.assertEqual(self.shown(certificates, None), "a.test")

    def test_by_host(self) -> None:
        """A folder's certificate is chosen by host, then by wildcard, then the default is taken."""
        for name in ("a.test", "*.a.test", "default"):
            self.write(f"{name}.pem", name.replace("default", "default.test"))
        certificates = self.certificates(folder=self.folder)
        for host, expected in {
            "a.test": "a.test",
            "A.TEST": "a.test",
            "x.a.test": "*.a.test",
            "x.y.a.test": "default.test",
            "b.test": "default.test",
            "test": "default.test",
            None: "default.test",
        }.items():
            with self.subTest(host=host):
                self.assertEqual(self.shown(certificates, host), expected)

    def test_live_folder(self) -> None:
        """A folder per host is read as certbot writes it."""
        for host in ("a.test", "default"):
            (self.folder / host).mkdir()
            chain, key = AUTHORITY.issue(host)
            (self.folder / host / "fullchain.pem").write_bytes(chain)
            (self.folder / host / "privkey.pem").write_bytes(key)
        (self.folder / "README").write_text("certbot writes one")
        certificates = self.certificates(folder=self.folder)
        self.assertEqual(self.shown(certificates, "a.test"), "a.test")
        self.assertEqual(self.shown(certificates, "b.test"), "default")

    def test_folder_and_certificate(self) -> None:
        """Where both are set the certificate is the default for the folder."""
        single = write_pair(self.folder.parent / f"{self.folder.name}.pem", AUTHORITY.issue("one"))
        self.addCleanup(single.unlink)
        self.write("a.test.pem", "a.test")
        certificates = self.certificates(folder=self.folder, certificate=single)
        self.assertEqual(self.shown(certificates, "a.test"), "a.test")
        self.assertEqual(self.shown(certificates, "b.test"), "one")

    def test_no_default(self) -> None:
        """Without a default, a client that asks for no known host is refused."""
        self.write("a.test.pem", "a.test")
        certificates = self.certificates(folder=self.folder)
        self.assertEqual(self.shown(certificates, "a.test"), "a.test")
        self.assertIsNone(self.shown(certificates, "b.test"))
        self.assertIsNone(self.shown(certificates, None))

    def test_names_that_are_no_hosts(self) -> None:
        """What is no host name is never part of a file's name."""
        self.write("default.pem", "default.test")
        outside = write_pair(
            self.folder.parent / f"{self.folder.name}.pem", AUTHORITY.issue("outside")
        )
        self.addCleanup(outside.unlink)
        certificates = self.certificates(folder=self.folder)
        for host in (f"../{self.folder.name}", "..", "a/../b", "*.test", "a b", "x" * 250 + ".ab"):
            with self.subTest(host=host[:20]):
                self.assertEqual(self.shown(certificates, host), "default.test")

    # --- renewal ---

    def test_renewal(self) -> None:
        """The next handshake shows what is in the files now, by host and by default."""
        self.write("a.test.pem", "a.test")
        self.write("default.pem", "old.test")
        certificates = self.certificates(folder=self.folder)
        self.assertEqual(self.shown(certificates, "a.test"), "a.test")
        self.assertEqual(self.shown(certificates, None), "old.test")
        self.write("a.test.pem", "new.a.test")
        self.write("default.pem", "new.test")
        self.assertEqual(self.shown(certificates, "a.test"), "new.a.test")
        self.assertEqual(self.shown(certificates, None), "new.test")

    def test_new_and_gone(self) -> None:
        """A host may be added and taken away while it runs."""
        self.write("default.pem", "default.test")
        certificates = self.certificates(folder=self.folder)
        self.assertEqual(self.shown(certificates, "a.test"), "default.test")
        file = self.write("a.test.pem", "a.test")
        self.assertEqual(self.shown(certificates, "a.test"), "a.test")
        self.assertEqual(len(certificates.seconds_left()), 2)
        file.unlink()
        self.assertEqual(self.shown(certificates, "a.test"), "default.test")
        self.assertEqual(len(certificates.seconds_left()), 1)

    def test_half_of_a_renewal(self) -> None:
        """Between the chain and its key being replaced the old pair is shown; told once."""
        chain_file, key_file = self.folder / "chain", self.folder / "key"
        chain, key = AUTHORITY.issue("old.test")
        chain_file.write_bytes(chain)
        key_file.write_bytes(key)
        certificates = self.certificates(certificate=chain_file, key=key_file)
        chain, key = AUTHORITY.issue("new.test")
        chain_file.write_bytes(chain)
        self.assertEqual(self.shown(certificates, None), "old.test")
        self.assertEqual(self.shown(certificates, None), "old.test")
        (warning,) = self.texts()
        self.assertIn("the previous certificate stays in use", warning)
        key_file.write_bytes(key)
        self.assertEqual(self.shown(certificates, None), "new.test")

    def test_files_that_vanish(self) -> None:
        """A single certificate whose file is gone is shown on."""
        file = self.write("one.pem", "a.test")
        certificates = self.certificates(certificate=file)
        file.unlink()
        self.assertEqual(self.shown(certificates, None), "a.test")

    def test_new_file_that_is_none(self) -> None:
        """A new host whose file cannot be used is served by default, with a warning."""
        self.write("default.pem", "default.test")
        certificates = self.certificates(folder=self.folder)
        (self.folder / "a.test.pem").write_text("half")
        self.assertEqual(self.shown(certificates, "a.test"), "default.test")
        self.assertIn("no certificate for a.test", self.texts()[0])

    # --- ends ---

    def test_seconds_left(self) -> None:
        """It tells for how long each is valid; of two for one host, the shorter time."""
        self.write("a.test.pem", "a.test", days=20)
        self.write("b.test.pem", "a.test", days=30)
        self.write("default.pem", "default.test", days=40)
        left = self.certificates(folder=self.folder).seconds_left()
        self.assertEqual(left, {"a.test": 20 * DAY, "default.test": 40 * DAY})

    def test_certificate_without_hosts(self) -> None:
        """One without a host goes by its subject."""
        file = write_pair(self.folder / "x.pem", AUTHORITY.issue(common_names=("me",)))
        self.assertEqual(list(self.certificates(certificate=file).seconds_left()), ["CN=me"])

    def test_warning(self) -> None:
        """Two weeks before its end, and each day from then on, it is logged."""
        certificates = self.certificates(certificate=self.write("a.pem", "a.test", days=15))
        self.assertEqual(self.texts(), [])
        for day, texts in [(0.5, 0), (1.5, 1), (1.6, 1), (2.6, 2), (16.5, 3)]:
            self.now = NOW.timestamp() + day * DAY
            self.shown(certificates, None)
            self.assertEqual(len(self.texts()), texts, day)
        self.now = NOW.timestamp()
        self.shown(certificates, None)
        self.now += 1.5 * DAY
        self.shown(certificates, None)
        self.assertEqual(len(self.texts()), 4, "after a step back")
        self.assertIn("a.test is valid for 13.5 more days", self.texts()[0])
        self.assertIn("valid for -1.5 more days", self.texts()[2])

    def test_warning_at_the_start(self) -> None:
        """One that is past already is told at the start."""
        self.certificates(certificate=self.write("a.pem", "a.test", days=-1))
        self.assertIn("valid for -1.0 more days", self.texts()[0])

    # --- mistakes ---

    def test_mistakes(self) -> None:
        """Files that cannot be used are named, each with what is wrong."""
        (self.folder / "text").write_text("no PEM")
        chain, _ = AUTHORITY.issue("a.test")
        (self.folder / "chain").write_bytes(chain)
        (self.folder / "other").write_bytes(AUTHORITY.issue("a.test")[1])
        locked = b"".join(AUTHORITY.issue("a.test", password=b"secret"))
        (self.folder / "locked").write_bytes(locked)
        (self.folder / "key").write_bytes(AUTHORITY.issue("a.test")[1])
        other_kind = Ed25519PrivateKey.generate()
        (self.folder / "other_kind").write_bytes(
            other_kind.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        no_key = "there is no key in it, in PEM and without a passphrase"
        for certificate, key_name, expected in [
            ("nowhere", "", "/nowhere: No such file or directory"),
            ("text", "", "/text: there is no certificate in it, in PEM"),
            ("key", "chain", "/key: there is no certificate in it, in PEM"),
            ("chain", "", f"/chain: {no_key}"),
            ("chain", "text", f"/text: {no_key}"),
            ("chain", "nowhere", "/nowhere: No such file or directory"),
            ("chain", "other", "/other: this key is not the certificate's"),
            ("chain", "other_kind", "/other_kind: this key is not the certificate's"),
            ("locked", "", f"/locked: {no_key}"),
        ]:
            with self.subTest(certificate=certificate, key=key_name):
                settings = {"certificate": self.folder / certificate}
                if key_name:
                    settings["key"] = self.folder / key_name
                self.assertEqual(self.mistakes(**settings), [expected])

    def test_mistakes_in_a_folder(self) -> None:
        """All mistakes of a folder come at once; one without certificates is one too."""
        self.assertEqual(self.mistakes(folder=self.folder), [": there is no certificate in it"])
        self.assertEqual(
            self.mistakes(folder=self.folder / "no"), ["/no: No such file or directory"]
        )
        self.write("c.test.pem", "c.test")
        for name in ("a.pem", "b.pem"):
            (self.folder / name).write_text("no PEM")
        self.assertEqual(len(self.mistakes(folder=self.folder)), 2)

    def test_mistakes_in_the_authorities(self) -> None:
        """The file of those who sign clients' certificates must be there."""
        file = self.write("a.pem", "a.test")
        (self.folder / "text").write_text("no PEM")
        self.assertEqual(
            self.mistakes(certificate=file, client_ca=self.folder / "no"),
            ["/no: No such file or directory"],
        )
        self.assertEqual(len(self.mistakes(certificate=file, client_ca=self.folder / "text")), 1)
        self.assertEqual(len(self.mistakes(folder=self.folder, client_ca=self.folder / "no")), 1)


class UserOfTests(SynchronousTestCase):
    """:func:`user_of` finds the user in a client's certificate."""

    def user(self, *common_names: str) -> str | None:
        """Return the user of a certificate with these names."""
        chain, _ = AUTHORITY.issue("a.test", common_names=common_names)
        return user_of(x509.load_pem_x509_certificates(chain)[0])

    def test_user(self) -> None:
        """The one common name is the user."""
        self.assertEqual(self.user("ada"), "ada")
        self.assertEqual(self.user("Ada Lovelace"), "Ada Lovelace")
        self.assertEqual(self.user("x" * 64), "x" * 64)

    def test_nobody(self) -> None:
        """No name, two names, or an unprintable one is no user."""
        for names in ((), ("ada", "admin"), ("ada\nadmin",), ("\u202eada",)):
            with self.subTest(names=names):
                self.assertIsNone(self.user(*names))

    def test_identity(self) -> None:
        """A certificate without a user's name is another thing than no certificate."""
        for names, identity in ((("ada",), "ada"), ((), NAMELESS), (("ada", "admin"), NAMELESS)):
            chain, _ = AUTHORITY.issue("a.test", common_names=names)
            certificate = x509.load_pem_x509_certificates(chain)[0]
            self.assertEqual(identity_in(certificate), identity)
        self.assertIsNone(identity_in(None))


class FilesTests(SynchronousTestCase):
    """What tests of this module stand on."""

    def test_write_in_one_step(self) -> None:
        """A pair is never seen half written."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        write_pair(folder / "a.pem", (b"1", b"2"))
        self.assertEqual(os.listdir(folder), ["a.pem"])
