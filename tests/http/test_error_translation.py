"""Tests of :mod:`twisted_net.http.error_translation`."""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from tests.http.fakes import HttpTestCase
from twisted_net.http.error_translation import translate_error
from twisted_net.http.errors import BodyTooLarge, ConnectionBroken, TLSFailed


class TranslateErrorTests(HttpTestCase):
    """:func:`translate_error` finds the cause."""

    def wrapped(self, *causes: Exception) -> BaseException:
        """Wrap errors as Twisted does, twice, and translate."""
        inner = ResponseFailed([Failure(cause) for cause in causes])
        return translate_error(ResponseNeverReceived([Failure(inner)]), "h", "headers")

    def test_tls(self) -> None:
        """A failed handshake is reported with OpenSSL's reason."""
        error = self.wrapped(SSL.Error([("SSL routines", "", "certificate verify failed")]))
        self.assertIsInstance(error, TLSFailed)
        self.assertEqual(str(error), "no secure connection to h: certificate verify failed")
        self.assertEqual(error.details(), {"host": "h"})  # type: ignore[attr-defined]  # checked
        self.assertIn("SysCallError", str(self.wrapped(SSL.SysCallError())))
        self.assertIn("eof", str(self.wrapped(SSL.SysCallError(-1, "eof"))))

    def test_other_host(self) -> None:
        """A certificate of another host is reported as such."""
        self.assertIn("for another host", str(self.wrapped(VerificationError(errors=[]))))

    def test_own_errors(self) -> None:
        """Errors of this package, and cancellation, are returned unchanged."""
        for error in (BodyTooLarge(1), CancelledError()):
            self.assertIs(self.wrapped(error), error)

    def test_no_reason(self) -> None:
        """A connection that ended without a reason gets one."""
        for error in (self.wrapped(OSError()), self.wrapped()):
            self.assertIsInstance(error, ConnectionBroken)
            self.assertIn("it was closed", str(error))
