"""The settings of TLS are checked where they are made."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.config.tls import ClientTlsSettings, TlsSettings


class TlsSettingsTests(SynchronousTestCase):
    """:class:`TlsSettings`."""

    def refused(self, **settings: str) -> str:
        """Give the reason for which settings are refused."""
        return str(self.assertRaises(ValueError, TlsSettings, **settings))

    def test_enabled(self) -> None:
        """There is TLS where there is a certificate or a folder of them."""
        self.assertFalse(TlsSettings().enabled)
        self.assertTrue(TlsSettings(certificate="a.pem").enabled)
        self.assertTrue(TlsSettings(folder="/etc/tls").enabled)

    def test_contradictions(self) -> None:
        """A key or an authority without a certificate is a mistake."""
        self.assertIn("key is set", self.refused(key="a.pem"))
        self.assertIn("key is set", self.refused(key="a.pem", folder="/etc/tls"))
        self.assertIn("client_ca is set", self.refused(client_ca="a.pem"))


class ClientTlsSettingsTests(SynchronousTestCase):
    """:class:`ClientTlsSettings`."""

    def test_contradictions(self) -> None:
        """A key without a certificate is a mistake, and authorities for what is not verified."""
        refused = self.assertRaises(ValueError, ClientTlsSettings, key="a.pem")
        self.assertIn("key is set without certificate", str(refused))
        refused = self.assertRaises(ValueError, ClientTlsSettings, ca="a.pem", verify=False)
        self.assertIn("ca has no effect, as verify is false", str(refused))
