"""Tests of :mod:`twisted_net.http.content_coding`, with the packages that compress."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from unittest import SkipTest

from tests.http.fakes import Gatherer, HttpTestCase, canned
from twisted_net.http.content_coding import DECODERS
from twisted_net.http.decoding import ACCEPTED, decode_response
from twisted_net.http.errors import BadResponse, BodyTooLarge

TEXT = b"".join(b"line %d\n" % i for i in range(30_000))


def compressors() -> dict[str, Any]:
    """Give what compresses for each coding that is there."""
    found: dict[str, Any] = {}
    for coding, names in (("br", ["brotli"]), ("zstd", ["compression.zstd", "backports.zstd"])):
        for name in names:
            try:
                found.setdefault(coding, import_module(name).compress)
            except ImportError:
                continue
    return found


class CodingTests(HttpTestCase):
    """Brotli and zstd are undone where their packages are installed."""

    def setUp(self) -> None:
        self.compressors = compressors()
        if not self.compressors:
            raise SkipTest("neither brotli nor zstd is installed")

    def receive(self, coding: str, body: bytes, limit: int = 10**7) -> Gatherer:
        """Give what comes of a body."""
        gatherer = Gatherer()
        response = canned(200, body, [("Content-Encoding", coding)])
        decode_response(response, limit).deliverBody(gatherer)
        return gatherer

    def test_accepted(self) -> None:
        """They are asked for if they can be undone, and only then."""
        asked = ACCEPTED.split(", ")
        self.assertEqual(asked[:2], ["gzip", "deflate"])
        self.assertEqual(set(asked[2:]), set(self.compressors))
        self.assertEqual({coding.decode() for coding in DECODERS}, set(self.compressors))

    def test_whole(self) -> None:
        """A body is what it was, alone and inside another coding."""
        for coding, compress in self.compressors.items():
            for body in (b"", b"x", TEXT):
                gatherer = self.receive(coding, compress(body))
                self.assertEqual(gatherer.body, body)
            twice = compress(compress(TEXT))
            self.assertEqual(self.receive(f"{coding}, {coding}", twice).body, TEXT)

    def test_bomb(self) -> None:
        """A bomb ends at the limit, with little more than a piece beyond it made."""
        for coding, compress in self.compressors.items():
            gatherer = self.receive(coding, compress(b"\0" * 50_000_000), limit=100_000)
            assert gatherer.reason is not None
            self.assertIsInstance(gatherer.reason.value, BodyTooLarge)
            self.assertTrue(len(gatherer.body) <= 100_000)

    def test_damaged(self) -> None:
        """What is none, ends early or goes on after its end is told as such."""
        for coding, compress in self.compressors.items():
            whole = compress(TEXT)
            for body in (b"\xff" * 50, whole[:-5], whole + b"more"):
                gatherer = self.receive(coding, body)
                assert gatherer.reason is not None
                self.assertIsInstance(gatherer.reason.value, BadResponse, (coding, body[:9]))

    def test_empty(self) -> None:
        """A body of nothing is one."""
        for coding in self.compressors:
            gatherer = self.receive(coding, b"")
            assert gatherer.reason is not None
            self.assertEqual(gatherer.body, b"")
