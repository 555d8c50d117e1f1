"""Tests for :mod:`twisted_net.net.tls_reason`."""

from __future__ import annotations

from OpenSSL import SSL
from service_identity.exceptions import VerificationError
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.tls_reason import tls_reason


class TlsReasonTests(SynchronousTestCase):
    """:func:`tls_reason` is for a person."""

    def test_reasons(self) -> None:
        """Codes become words; other errors keep theirs."""
        error = SSL.Error([("SSL routines", "", "certificate verify failed")])
        self.assertEqual(tls_reason(error), "certificate verify failed")
        error = SSL.Error([("SSL routines", "", "wrong version number")])
        self.assertIn("the other side does not speak TLS", tls_reason(error))
        self.assertEqual(
            tls_reason(VerificationError(errors=[])), "its certificate is for another host"
        )
        for error in (SSL.Error(), SSL.Error([]), SSL.Error([("lib", "", "")])):
            self.assertEqual(tls_reason(error), "Error without a reason")
        self.assertEqual(tls_reason(ConnectionLost()), str(ConnectionLost()))
