"""Tests for :mod:`twisted_net.coap.client_response`."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.client_response import CoapResponse, Observation
from twisted_net.coap.codec import Code, Option
from twisted_net.coap.exchange import OutgoingMessage


class CoapResponseTests(SynchronousTestCase):
    """:class:`CoapResponse` holds a whole response."""

    def test_options(self) -> None:
        """Format and age are read from the options."""
        response = CoapResponse(69, b"[1]", ((12, b"\x32"), (14, b"\x05")))
        self.assertEqual((response.content_format, response.max_age), (50, 5))
        self.assertEqual(response.json(), [1])
        self.assertIsNone(CoapResponse(69, b"").content_format)

    def test_long_numbers(self) -> None:
        """A number of more than four bytes counts as none (RFC 7252 §5.4.3)."""
        response = CoapResponse(69, b"", ((12, b"\0\0\0\0\x32"), (14, b"\xff" * 9000)))
        self.assertIsNone(response.content_format)
        self.assertEqual(response.max_age, 60)
        self.assertEqual(CoapResponse(69, b"", ((14, b"\xff" * 4),)).max_age, 2**32 - 1)

    def test_bad_json(self) -> None:
        """Whatever a server sends in place of JSON is a ValueError."""
        for payload in (b"", b"nope", b"\xff", b"NaN", b"[" * 100_000, b"[" * 900 + b"]" * 900):
            with self.subTest(payload=payload[:20]):
                self.assertRaises(ValueError, CoapResponse(69, payload).json)


class ObservationTests(SynchronousTestCase):
    """:class:`Observation` keeps states until they are iterated over, within limits."""

    def kept(self, limit: int, max_bytes: int, *sizes: int) -> tuple[list[int], int]:
        """Add states of these sizes, and return those that were kept, and how many were not."""

        async def collect() -> list[int]:
            return [len(state.payload) for state in [each async for each in observation]]

        async def deregister(outgoing: OutgoingMessage) -> None:
            raise NotImplementedError

        observation = Observation(limit, max_bytes, lambda outgoing: None, deregister)
        for size in sizes:
            observation.put(CoapResponse(Code.CONTENT, bytes(size - 1), ((Option.ETAG, b"e"),)))
        observation.cancel()
        states = self.successResultOf(Deferred.fromCoroutine(collect()))
        self.assertEqual(observation._bytes, 0)
        return [size + 1 for size in states], observation.skipped

    def test_number(self) -> None:
        """Over their number the oldest are dropped."""
        self.assertEqual(self.kept(2, 100, 1, 2), ([1, 2], 0))
        self.assertEqual(self.kept(2, 100, 1, 2, 3), ([2, 3], 1))

    def test_bytes(self) -> None:
        """Over their bytes, those of options too, the oldest are dropped; one is always kept."""
        self.assertEqual(self.kept(9, 100, 50, 50), ([50, 50], 0))
        self.assertEqual(self.kept(9, 100, 50, 51), ([51], 1))
        self.assertEqual(self.kept(9, 100, 20, 20, 20, 61), ([20, 61], 2))
        self.assertEqual(self.kept(9, 100, 20, 101), ([101], 1))
        self.assertEqual(self.kept(9, 100, 101, 20), ([20], 1))
