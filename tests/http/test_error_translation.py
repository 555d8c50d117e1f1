"""Tests of :mod:`twisted_net.http.error_translation`."""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.error import ConnectionLost

from tests.http.fakes import HttpTestCase
from twisted_net.errors import FetchError
from twisted_net.http.error_translation import connection_error
from twisted_net.http.errors import ConnectionBroken, TLSFailed


class ConnectionErrorTests(HttpTestCase):
    """:func:`connection_error` says why a connection was lost."""

    def error(self, reason: Exception) -> FetchError:
        """Translate a reason."""
        return connection_error(reason, "h", "headers")

    def test_tls(self) -> None:
        """A failed handshake is reported with OpenSSL's reason."""
        error = self.error(SSL.Error([("SSL routines", "", "certificate verify failed")]))
        self.assertIsInstance(error, TLSFailed)
        self.assertEqual(str(error), "no secure connection to h: certificate verify failed")
        self.assertEqual(error.details(), {"host": "h"})
        self.assertIn("SysCallError", str(self.error(SSL.SysCallError())))
        self.assertIn("eof", str(self.error(SSL.SysCallError(-1, "eof"))))

    def test_other_host(self) -> None:
        """A certificate of another host is reported as such."""
        self.assertIn("for another host", str(self.error(VerificationError(errors=[]))))

    def test_broken(self) -> None:
        """Any other reason is that of a broken connection, which has one in any case."""
        for reason, said in (
            (
                ConnectionLost("x."),
                "lost in a non-clean fashion: x",
            ),
            (OSError(), "it was closed"),
        ):
            error = self.error(reason)
            self.assertIsInstance(error, ConnectionBroken)
            self.assertIn(said, str(error))
            self.assertFalse(str(error).endswith("."))
