"""Tests for :mod:`twisted_net.coap.client_response`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.client_response import CoapResponse


class CoapResponseTests(SynchronousTestCase):
    """:class:`CoapResponse` holds a whole response."""

    def test_options(self) -> None:
        """Format and age are read from the options."""
        response = CoapResponse(69, b"[1]", ((12, b"\x32"), (14, b"\x05")))
        self.assertEqual((response.content_format, response.max_age), (50, 5))
        self.assertEqual(response.json(), [1])
        self.assertIsNone(CoapResponse(69, b"").content_format)
