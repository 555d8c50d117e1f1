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

    def test_bad_json(self) -> None:
        """Whatever a server sends in place of JSON is a ValueError."""
        for payload in (b"", b"nope", b"\xff", b"NaN", b"[" * 100_000, b"[" * 900 + b"]" * 900):
            with self.subTest(payload=payload[:20]):
                self.assertRaises(ValueError, CoapResponse(69, payload).json)
