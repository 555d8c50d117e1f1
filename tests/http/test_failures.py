"""Tests of :mod:`twisted_net.http.failures`."""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web import _newclient

from tests.http.fakes import HttpTestCase
from twisted_net.http.errors import BodyTooLarge, ConnectionBroken, TLSFailed
from twisted_net.http.failures import translate_error


class TranslatedTests(HttpTestCase):
    """:func:`translate_error` finds the cause."""

    def wrapped(self, *causes: Exception) -> BaseException:
        """Wrap errors as Twisted does, twice, and translate."""
        inner = _newclient.ResponseFailed([Failure(cause) for cause in causes])
        return translate_error(_newclient.ResponseNeverReceived([Failure(inner)]), "h", "headers")

    def test_tls(self) -> None:
        """A handshake that failed is told with OpenSSL's reason."""
        error = self.wrapped(SSL.Error([("SSL routines", "", "certificate verify failed")]))
        self.assertIsInstance(error, TLSFailed)
        self.assertEqual(str(error), "no secure connection to h: certificate verify failed")
        self.assertEqual(error.details(), {"host": "h"})  # type: ignore[attr-defined]  # checked
        self.assertIn("SysCallError", str(self.wrapped(SSL.SysCallError())))
        self.assertIn("eof", str(self.wrapped(SSL.SysCallError(-1, "eof"))))

    def test_other_host(self) -> None:
        """A certificate of another host is told as that."""
        self.assertIn("for another host", str(self.wrapped(VerificationError(errors=[]))))

    def test_own_errors(self) -> None:
        """Errors of this package, and cancelling, come through."""
        for error in (BodyTooLarge(1), CancelledError()):
            self.assertIs(self.wrapped(error), error)

    def test_no_words(self) -> None:
        """An end without a reason is told all the same."""
        for error in (self.wrapped(OSError()), self.wrapped()):
            self.assertIsInstance(error, ConnectionBroken)
            self.assertIn("it was closed", str(error))
