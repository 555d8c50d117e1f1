"""Tests of :mod:`twisted_net.http.content_coding`."""

from __future__ import annotations

import gzip
import zlib
from importlib import import_module
from typing import Any, cast
from unittest import SkipTest
from unittest.mock import Mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from tests.http.fakes import Gatherer, HttpTestCase, Source, canned
from twisted_net.http.bodies import BodyResponse, BufferedResponse, collect, response_fields
from twisted_net.http.call import Deadline
from twisted_net.http.content_coding import (
    ACCEPTED,
    CHUNK,
    DECODERS,
    FREE_MEMBERS,
    INPUT_CHUNK,
    MAX_LISTED,
    MEMBER_SIZE,
    decode_response,
    with_accepted_codings,
)
from twisted_net.http.errors import BadResponse, BodyTooLarge, ConnectionBroken, FetchTimeout
from twisted_net.http.fields import NO_FIELDS, HeaderFields
from twisted_net.http.request import OutgoingRequest
from twisted_net.http.urls import parse_target
from twisted_net.turns.paced_reads import Pace

CLOCK = Clock()
PACE = Pace.of(cast(IReactorTime, CLOCK))


def decoded(response: BodyResponse, limit: int, deadline: Deadline | None = None) -> BodyResponse:
    """Return a response decoded in the turns of the clock."""
    return decode_response(response, limit, PACE, deadline)


def settle() -> None:
    """Turn until nothing is left to do."""
    while CLOCK.getDelayedCalls():
        CLOCK.advance(0.0)


TEXT = b"".join(b"line %d\n" % i for i in range(30_000))


def compressors() -> dict[str, Any]:
    """Return the compressor of each coding whose package is installed."""
    found: dict[str, Any] = {}
    for coding, names in (("br", ["brotli"]), ("zstd", ["compression.zstd", "backports.zstd"])):
        for name in names:
            try:
                found.setdefault(coding, import_module(name).compress)
            except ImportError:
                continue
    return found


class OptionalCodingTests(HttpTestCase):
    """Brotli and zstd are decoded where their packages are installed."""

    def setUp(self) -> None:
        self.compressors = compressors()
        if not self.compressors:
            raise SkipTest("neither brotli nor zstd is installed")

    def receive(self, coding: str, body: bytes, limit: int = 10**7) -> Gatherer:
        """Return the receiver of a decoded body."""
        gatherer = Gatherer()
        response = canned(200, body, [("Content-Encoding", coding)])
        decoded(response, limit).deliverBody(gatherer)
        settle()
        return gatherer

    def test_accepted(self) -> None:
        """They are requested only if they can be decoded."""
        asked = ACCEPTED.split(", ")
        self.assertEqual(asked[:2], ["gzip", "deflate"])
        self.assertEqual(set(asked[2:]), set(self.compressors))
        always = {"gzip", "x-gzip", "deflate"}
        self.assertEqual(DECODERS.keys() - always, set(self.compressors))

    def test_whole(self) -> None:
        """A body is decoded, alone and inside another coding."""
        for coding, compress in self.compressors.items():
            for body in (b"", b"x", TEXT):
                gatherer = self.receive(coding, compress(body))
                self.assertEqual(gatherer.body, body)
            twice = compress(compress(TEXT))
            self.assertEqual(self.receive(f"{coding}, {coding}", twice).body, TEXT)

    def test_bomb(self) -> None:
        """A compression bomb ends at the limit, with at most one more piece decompressed."""
        for coding, compress in self.compressors.items():
            gatherer = self.receive(coding, compress(b"\0" * 50_000_000), limit=100_000)
            assert gatherer.reason is not None
            self.assertIsInstance(gatherer.reason.value, BodyTooLarge)
            self.assertTrue(len(gatherer.body) <= 100_000)

    def test_damaged(self) -> None:
        """A body that is malformed, ends early or goes on after its end is refused."""
        for coding, compress in self.compressors.items():
            whole = compress(TEXT)
            for body in (b"\xff" * 50, whole[:-5], whole + b"more"):
                gatherer = self.receive(coding, body)
                assert gatherer.reason is not None
                self.assertIsInstance(gatherer.reason.value, BadResponse, (coding, body[:9]))

    def test_empty(self) -> None:
        """An empty body is complete."""
        for coding in self.compressors:
            gatherer = self.receive(coding, b"")
            assert gatherer.reason is not None
            self.assertEqual(gatherer.body, b"")


def deflated(data: bytes, bits: int) -> bytes:
    """Compress with zlib."""
    compressor = zlib.compressobj(wbits=bits)
    return compressor.compress(data) + compressor.flush()


class AcceptedCodingsTests(HttpTestCase):
    """:func:`with_accepted_codings` asks for the codings that can be decoded."""

    def test_nothing_else(self) -> None:
        """Requests without fields get the same ones, which are then encoded once."""
        request = OutgoingRequest("GET", parse_target("http://h/"), NO_FIELDS)
        fields = with_accepted_codings(request).fields
        self.assertEqual(fields.pairs, (("Accept-Encoding", ACCEPTED),))
        self.assertIs(with_accepted_codings(request).fields, fields)


class AtOnceTests(HttpTestCase):
    """A small body in memory is decoded at once, with the outcome of one that comes in pieces."""

    def outcome(self, response: BodyResponse, limit: int) -> object:
        """Return the decoded body and its end, or the error."""
        gatherer = Gatherer()
        decoded(response, limit).deliverBody(gatherer)
        settle()
        assert gatherer.reason is not None
        if gatherer.reason.check(ResponseDone, PotentialDataLoss):
            return gatherer.body, gatherer.reason.type
        return str(gatherer.reason.value)

    def bodies(self, coding: str) -> list[bytes]:
        """Return bodies, whole and damaged."""
        compress: Any = {"gzip": gzip.compress, "deflate": zlib.compress, **compressors()}[coding]
        made = [compress(TEXT[:length]) for length in (1, 999, 99_999)]
        made += [compress(bytes(length)) for length in (CHUNK - 1, CHUNK, 10**6)]
        made += [body[:-5] for body in made] + [body + b"more" for body in made]
        made += [b"", b"\xff" * 50, made[0] * 2, made[0] * 100]
        return made

    def test_same(self) -> None:
        """Bodies, errors and limits are those of pieces, for each coding."""
        for coding in {"gzip", "deflate", *compressors()}:
            for body in self.bodies(coding):
                for limit in (0, 998, 999, 10**9):
                    for complete in (True, False):
                        fields = [("Content-Encoding", coding), ("X", "y")]
                        reason = None if complete else Failure(PotentialDataLoss())
                        slow = self.outcome(canned(200, body, fields, reason), limit)
                        whole = BufferedResponse(
                            200, b"OK", HeaderFields(fields), body, complete=complete
                        )
                        self.assertEqual(self.outcome(whole, limit), slow, (coding, body[:20]))

    def test_in_memory(self) -> None:
        """It is in memory, too, and has the fields of one that is decoded."""
        body = gzip.compress(b"abc" * 1000)
        fields = [("Content-Encoding", "gzip"), ("Content-Length", "9"), ("X", "y")]
        made = decoded(BufferedResponse(404, b"No", HeaderFields(fields), body, minor=0), 3000)
        assert isinstance(made, BufferedResponse)
        self.assertEqual(made.body, b"abc" * 1000)
        self.assertEqual((made.code, made.phrase, made.version), (404, b"No", (b"HTTP", 1, 0)))
        self.assertEqual(made.fields.pairs, (("X", "y"),))
        self.assertEqual(CLOCK.getDelayedCalls(), [])

    def test_large(self) -> None:
        """One that is large, or becomes so, is decoded in turns."""
        for body in (gzip.compress(TEXT), gzip.compress(bytes(CHUNK))):
            fields = HeaderFields([("Content-Encoding", "gzip")])
            made = decoded(BufferedResponse(200, b"OK", fields, body), 10**6)
            self.assertNotIsInstance(made, BufferedResponse)


class DecodeResponseTests(HttpTestCase):
    """:func:`decode_response` decodes gzip and deflate."""

    def decode(self, coding: str, body: bytes, limit: int = 10**6, cut: int = 10**9) -> bytes:
        """Decode a body that arrives in pieces of *cut* bytes."""
        source = Source([("Content-Encoding", coding), ("Content-Length", "9"), ("X", "y")])
        response = decoded(source.response, limit)
        reading = collect(response)
        for i in range(0, len(body), cut):
            source.send(body[i : i + cut])
        source.end(ResponseDone())
        settle()
        content, _ = self.successResultOf(reading)
        self.assertEqual(dict(response_fields(response)), {"x": "y"})
        return content

    def test_codings(self) -> None:
        """gzip, deflate with and without its zlib wrapper, alone and nested."""
        text = b"hello, world; " * 50
        for coding, body in (
            ("gzip", gzip.compress(text)),
            ("X-GZIP", gzip.compress(text)),
            ("deflate", deflated(text, 15)),
            ("deflate", deflated(text, -15)),
            ("deflate, gzip", gzip.compress(deflated(text, 15))),
            ("gzip", gzip.compress(text[:99]) + gzip.compress(text[99:])),
            ("gzip", gzip.compress(text) + b"\0" * 20),
            ("deflate", deflated(text, 15) + b"junk"),
        ):
            for cut in (1, 7, 10**6):
                with self.subTest(coding=coding, cut=cut):
                    self.assertEqual(self.decode(coding, body, cut=cut), text)

    def test_empty(self) -> None:
        """An empty body is empty, whatever its Content-Encoding."""
        self.assertEqual(self.decode("gzip", b""), b"")
        self.assertEqual(self.decode("gzip", gzip.compress(b"")), b"")
        self.assertEqual(self.decode("deflate", deflated(b"", 15)), b"")

    @given(st.binary(max_size=300_000), st.integers(1, 100_000))
    def test_any_body(self, data: bytes, cut: int) -> None:
        """Any body is decoded, however it is cut."""
        self.assertEqual(self.decode("gzip", gzip.compress(data, 1), cut=cut), data)

    def test_all_in_one_full_piece(self) -> None:
        """Output that the decompressor holds back with all its input used up is not lost."""
        for size in (65_535, 65_536, 65_537, 131_072, 131_330):
            data = b"a" * size
            self.assertEqual(self.decode("gzip", gzip.compress(data)), data)

    def test_unknown(self) -> None:
        """An unknown coding is left, with all codings inside it."""
        response = canned(body=b"abc", headers=[("Content-Encoding", "compress")])
        self.assertIs(decoded(response, 10), response)
        body = gzip.compress(b"inner")
        response = canned(body=body, headers=[("Content-Encoding", "compress, gzip")])
        response = decoded(response, 10)
        self.assertEqual(response_fields(response)["content-encoding"], "compress")
        self.assertEqual(self.successResultOf(collect(response))[0], b"inner")

    def test_nothing_to_do(self) -> None:
        """A body without a coding, and an empty one, are unchanged."""
        for response in (canned(body=b"x"), canned(headers=[("Content-Encoding", "gzip")])):
            self.assertIs(decoded(response, 10), response)

    def test_bomb(self) -> None:
        """A body that exceeds the limit ends there, with at most one more piece decompressed."""
        bomb = gzip.compress(b"\0" * 20_000_000)
        for coding, body in (("gzip", bomb), ("gzip, gzip", gzip.compress(bomb))):
            with self.subTest(coding=coding):
                source = Source([("Content-Encoding", coding)])
                gatherer = Gatherer()
                decoded(source.response, 100_000).deliverBody(gatherer)
                source.send(body)
                source.send(b"more")
                source.end(ResponseDone())
                settle()
                assert gatherer.reason is not None
                error = cast(BodyTooLarge, gatherer.reason.value)
                self.assertEqual(error.details(), {"limit": 100_000})
                self.assertIn("decompressed", str(error))
                self.assertLessEqual(len(gatherer.body), 100_000)
                self.assertEqual(source.aborted, 1)

    def test_receiver_that_has_enough(self) -> None:
        """A body that ends while a piece is delivered has no more pieces."""
        source = Source([("Content-Encoding", "gzip")])

        class Enough(Gatherer):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                source.end(ConnectionLost())
                settle()

        gatherer = Enough()
        decoded(source.response, 10**6).deliverBody(gatherer)
        source.send(gzip.compress(b"\0" * 500_000))
        self.assertEqual(len(gatherer.body), 65_536)

    def test_receiver_that_fails(self) -> None:
        """An error of the receiver is its own, and not damage of the body."""
        for coding, compress in {"gzip": gzip.compress, **compressors()}.items():
            for error in (EOFError, zlib.error):
                with self.subTest(coding=coding, error=error):
                    source = Source([("Content-Encoding", coding)])
                    gatherer = Gatherer()
                    self.patch(gatherer, "dataReceived", Mock(side_effect=error))
                    decoded(source.response, 10**6).deliverBody(gatherer)
                    self.assertRaises(error, source.send, compress(b"hello"))
                    self.assertEqual((gatherer.reason, source.aborted), (None, 0))

    def test_at_the_limit(self) -> None:
        """A body of exactly the limit is allowed."""
        self.assertEqual(self.decode("gzip", gzip.compress(b"x" * 1000), limit=1000), b"x" * 1000)

    def test_too_many_codings(self) -> None:
        """Too many codings are refused."""
        source = Source([("Content-Encoding", "gzip, gzip, gzip"), ("Content-Encoding", "gzip")])
        error = self.assertRaises(BadResponse, decoded, source.response, 10)
        self.assertIn("more than 3 codings", str(error))

    def test_many_listed(self) -> None:
        """A list of very many is refused before its members are looked at, empty ones too."""
        for coding in ("gzip", ""):
            source = Source([("Content-Encoding", ", ".join([coding] * (MAX_LISTED + 1)))])
            self.assertRaises(BadResponse, decoded, source.response, 10)
            self.assertEqual(source.aborted, 1)
        self.assertEqual(source.aborted, 1)

    def test_damaged(self) -> None:
        """A body that is malformed, or ends early, is an error."""
        whole = gzip.compress(b"hello" * 100)
        for coding, body, message in (
            ("gzip", b"not gzip at all", "gzip body is damaged"),
            ("gzip", whole[:-8] + b"12345678", "gzip body is damaged"),
            ("gzip", whole[:-9], "gzip body ends early"),
            ("deflate", b"\xff\xff\xff", "deflate body is damaged"),
        ):
            with self.subTest(message=message):
                source = Source([("Content-Encoding", coding)])
                gatherer = Gatherer()
                decoded(source.response, 10_000).deliverBody(gatherer)
                source.send(body)
                source.end(ResponseDone())
                settle()
                assert gatherer.reason is not None
                self.assertIsInstance(gatherer.reason.value, BadResponse)
                self.assertIn(message, str(gatherer.reason.value))

    def test_broken(self) -> None:
        """A connection that breaks is reported as such."""
        source = Source([("Content-Encoding", "gzip")])
        reading = collect(decoded(source.response, 100))
        source.send(gzip.compress(b"x")[:5])
        source.end(ConnectionBroken("body", "x"))
        settle()
        self.failureResultOf(reading, ConnectionBroken)

    def test_many_members(self) -> None:
        """The input of zlib is linear in the body, however many members it has."""
        fed = 0
        whole = zlib.decompressobj

        class Counting:
            def __init__(self, wbits: int) -> None:
                self._inner = whole(wbits)

            def decompress(self, data: bytes, limit: int) -> bytes:
                nonlocal fed
                fed += len(data)
                return self._inner.decompress(data, limit)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._inner, name)

        self.patch(zlib, "decompressobj", Counting)
        member = gzip.compress(b"x" * MEMBER_SIZE)
        for members in (2_000, 8_000):
            fed = 0
            body = self.decode("gzip", member * members + gzip.compress(b"x"))
            self.assertEqual(len(body), MEMBER_SIZE * members + 1)
            # Each member is found with no more input than one chunk.
            self.assertLessEqual(fed, (members + 10) * INPUT_CHUNK)

    def test_empty_members(self) -> None:
        """Of members without content a body may have a number; more need content."""
        empty = gzip.compress(b"")
        self.assertEqual(
            self.decode("gzip", empty * (FREE_MEMBERS - 1) + gzip.compress(b"x")), b"x"
        )
        source = Source([("Content-Encoding", "gzip")])
        reading = collect(decoded(source.response, 100))
        source.send(empty * (FREE_MEMBERS + 1))
        settle()
        error = self.failureResultOf(reading, BadResponse).value
        self.assertIn("too many members", str(error))
        self.assertEqual(source.aborted, 1)


class TurnTests(HttpTestCase):
    """A body is decompressed in the turns of all, and its connection waits meanwhile."""

    def begin(self, deadline: Deadline | None = None) -> tuple[Source, Gatherer]:
        """Send a body that takes many turns; return where it comes from, and who gets it."""
        source = Source([("Content-Encoding", "gzip")])
        gatherer = Gatherer()
        decoded(source.response, 10**8, deadline).deliverBody(gatherer)
        source.send(gzip.compress(bytes(400 * CHUNK)))
        return source, gatherer

    def test_turns(self) -> None:
        """What is sent at once is decompressed in many turns, and then the source is read on."""
        source, gatherer = self.begin()
        self.assertLess(len(gatherer.body), 100 * CHUNK)
        self.assertEqual(source.calls, ["pause"])
        settle()
        self.assertEqual(len(gatherer.body), 400 * CHUNK)
        self.assertEqual(source.calls, ["pause", "resume"])

    def test_end(self) -> None:
        """A body that ends before it is decompressed ends after it."""
        source, gatherer = self.begin()
        source.end(ResponseDone())
        self.assertIs(gatherer.reason, None)
        settle()
        assert gatherer.reason is not None
        self.assertEqual(len(gatherer.body), 400 * CHUNK)
        self.assertTrue(gatherer.reason.check(ResponseDone))

    def test_paused(self) -> None:
        """A receiver that pauses gets nothing more until it resumes, then all and the end."""
        source = Source([("Content-Encoding", "gzip")])

        class Pausing(Gatherer):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                cast(Any, self.transport).pauseProducing()

        gatherer = Pausing()
        decoded(source.response, 10**8).deliverBody(gatherer)
        source.send(gzip.compress(bytes(3 * CHUNK)))
        source.end(ResponseDone())
        for pieces in (1, 2, 3):
            settle()
            self.assertEqual(len(gatherer.body), pieces * CHUNK)
            self.assertIs(gatherer.reason, None)
            cast(Any, gatherer.transport).resumeProducing()
        settle()
        self.assertIsNot(gatherer.reason, None)

    def test_aborted(self) -> None:
        """A receiver that has enough of a body that has ended hears of no normal end."""
        source, gatherer = self.begin()
        source.end(ResponseDone())
        before = len(gatherer.body)
        cast(Any, gatherer.transport).abortConnection()
        settle()
        self.assertEqual(len(gatherer.body), before)
        assert gatherer.reason is not None
        self.assertTrue(gatherer.reason.check(ConnectionAborted))

    def test_deadline(self) -> None:
        """The deadline ends a body that is still being decompressed."""
        source, gatherer = self.begin(Deadline(CLOCK.seconds() + 1.0, 5.0))
        source.end(ResponseDone())
        CLOCK.advance(1.0)
        settle()
        assert gatherer.reason is not None
        self.assertIsInstance(gatherer.reason.value, FetchTimeout)
        self.assertLess(len(gatherer.body), 200 * CHUNK)
