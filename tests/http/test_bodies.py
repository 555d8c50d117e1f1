"""Tests of :mod:`twisted_net.http.bodies`."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from treq import client as _treq  # registers the producers of files
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer, IResponse

from tests.http.fakes import Gatherer, HttpTestCase, Source, canned
from twisted_net.http.bodies import (
    BodyResponse,
    BodyTransport,
    BodyWatchdog,
    BytesProducer,
    Deadline,
    body_producer,
    collect,
    discard,
    response_fields,
)
from twisted_net.http.decoding import decode_response
from twisted_net.http.errors import BadResponse, BodyTooLarge, ConnectionBroken, FetchTimeout

__all__ = ["_treq"]


class ProducerTests(HttpTestCase):
    """:class:`BytesProducer` sends its bytes as often as it is asked to."""

    def test_again(self) -> None:
        """A second time as the first."""
        producer = BytesProducer(b"abc")
        self.assertEqual(producer.length, 3)
        for _ in range(2):
            transport = StringTransport()
            done = producer.startProducing(cast(IConsumer, transport))
            self.successResultOf(done)
            self.assertEqual(transport.value(), b"abc")
        producer.pauseProducing()
        producer.resumeProducing()
        producer.stopProducing()

    def test_choice(self) -> None:
        """Bytes of any kind get one; files get the one that treq has for them."""
        for data in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
            self.assertIsInstance(body_producer(data), BytesProducer)
        producer = body_producer(io.BytesIO(b"abc"))
        self.assertTrue(IBodyProducer.providedBy(producer))
        self.assertNotIsInstance(producer, BytesProducer)
        self.assertRaises(TypeError, body_producer, 3)


class CollectTests(HttpTestCase):
    """:func:`collect` reads a body whole."""

    def test_whole(self) -> None:
        """Its bytes and the reason of its end."""
        body, reason = self.successResultOf(collect(canned(body=b"abc")))
        self.assertEqual(body, b"abc")
        self.assertTrue(reason.check(ResponseDone))

    def test_ends_with_the_connection(self) -> None:
        """A body that ends with its connection counts as whole."""
        ended = Failure(PotentialDataLoss())
        body, reason = self.successResultOf(collect(canned(body=b"abc", reason=ended)))
        self.assertEqual((body, reason), (b"abc", ended))

    def test_broken(self) -> None:
        """Any other end is an error."""
        broken = Failure(ConnectionBroken("body", "x"))
        self.failureResultOf(collect(canned(body=b"a", reason=broken)), ConnectionBroken)

    def test_cancelled(self) -> None:
        """Cancelling drops the connection; what then comes is ignored."""
        source = Source()
        reading = collect(source.response)
        source.send(b"abc")
        reading.cancel()
        self.assertEqual(source.aborted, 1)
        self.failureResultOf(reading)
        source.end(ResponseDone())

    def test_discard(self) -> None:
        """A body that nobody wants is dropped, without an error; one that is empty is left."""
        source = Source()
        discard(source.response)
        self.assertEqual(source.aborted, 1)
        discard(canned(body=b""))
        discard(canned(body=b"abc"))

    def test_all_at_hand_can_be_paused(self) -> None:
        """A body that is there at once takes a pause for what it is; one that comes is paused."""
        source = Pausable()
        for delivering in (None, source):
            transport = BodyTransport(delivering, source.told.clear)
            transport.pauseProducing()
            transport.resumeProducing()
            self.assertEqual(source.told, [] if delivering is None else ["pause", "resume"])
        transport.loseConnection()
        self.assertEqual(source.told, [])


class Pausable:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        """Enough."""
        self.told.append("pause")

    def resumeProducing(self) -> None:
        """More."""
        self.told.append("resume")


class BodyWatchTests(HttpTestCase):
    """:class:`BodyWatchdog` ends a body that passes its limits."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.source = Source()
        self.dropped = 0
        self.gatherer = Gatherer()

    def watch(
        self, limit: int = 100, deadline: float | None = None, silence: float | None = None
    ) -> BodyWatchdog:
        """Put the source under watch."""

        def drop(_: BodyWatchdog) -> None:
            self.dropped += 1

        watch = BodyWatchdog(
            self.clock,
            self.source.response,
            drop,
            limit=limit,
            deadline=None if deadline is None else Deadline(deadline, 30.0),
            silence=silence,
            translate=lambda failure: Failure(ConnectionBroken("body", "translated")),
        )
        watch.start()
        return watch

    def error(self) -> Any:
        """Give the error that the body ended with."""
        assert self.gatherer.reason is not None
        return self.gatherer.reason.value

    def test_passes(self) -> None:
        """A body within its limits passes unchanged, and leaves no timer."""
        self.watch(deadline=10.0, silence=1.0).response().deliverBody(self.gatherer)
        self.source.send(b"ab")
        self.source.send(b"c")
        self.source.end(ResponseDone())
        self.assertEqual(self.gatherer.body, b"abc")
        self.assertIsInstance(self.error(), ResponseDone)
        self.assertEqual((self.dropped, self.clock.getDelayedCalls()), (0, []))

    def test_failure_is_translated(self) -> None:
        """A broken connection is told in the words of this package."""
        self.watch().response().deliverBody(self.gatherer)
        self.source.end(ConnectionLost())
        self.assertIn("translated", str(self.error()))

    def test_limit(self) -> None:
        """The limit itself passes; one byte more ends body and connection, and nothing follows."""
        self.watch(limit=3).response().deliverBody(self.gatherer)
        self.source.send(b"abc")
        self.source.send(b"d")
        self.source.send(b"e")
        self.source.end(ConnectionLost())
        self.assertEqual(self.gatherer.body, b"abc")
        self.assertIsInstance(self.error(), BodyTooLarge)
        self.assertEqual(self.dropped, 1)

    def test_deadline(self) -> None:
        """At the deadline the body ends, though bytes still come."""
        self.watch(deadline=2.0).response().deliverBody(self.gatherer)
        self.clock.advance(1.9)
        self.source.send(b"a")
        self.clock.advance(0.1)
        self.assertEqual(self.error().details(), {"phase": "body", "limit": 30.0, "total": True})
        self.assertEqual((self.dropped, self.clock.getDelayedCalls()), (1, []))

    def test_deadline_with_nobody_there(self) -> None:
        """A body that nobody asked for is dropped at the deadline; who asks then is told."""
        response = self.watch(deadline=2.0).response()
        self.clock.advance(2.0)
        self.assertEqual(self.dropped, 1)
        response.deliverBody(self.gatherer)
        self.assertIsInstance(self.error(), FetchTimeout)

    def test_silence(self) -> None:
        """A silence over the limit ends the body; shorter ones do not."""
        self.watch(silence=1.0).response().deliverBody(self.gatherer)
        for _ in range(3):
            self.clock.advance(0.9)
            self.source.send(b"a")
        self.clock.advance(0.9)
        self.assertIsNone(self.gatherer.reason)
        self.clock.advance(0.1)
        self.assertEqual(self.error().details(), {"phase": "body", "limit": 1.0, "total": False})
        self.assertTrue(self.error().transient)

    def test_pause(self) -> None:
        """While the receiver wants nothing, silence is no fault; afterwards it counts anew."""
        self.watch(silence=1.0).response().deliverBody(self.gatherer)
        transport = cast(Any, self.gatherer.transport)
        transport.pauseProducing()
        for _ in range(5):
            self.clock.advance(0.9)
        transport.resumeProducing()
        self.clock.advance(0.9)
        self.assertIsNone(self.gatherer.reason)
        self.clock.advance(1.0)
        self.assertIsInstance(self.error(), FetchTimeout)
        self.assertEqual(self.source.calls, ["pause", "resume"])

    def test_receiver_drops(self) -> None:
        """The receiver may end the connection, by any of its names."""
        self.watch().response().deliverBody(self.gatherer)
        transport = cast(Any, self.gatherer.transport)
        transport.abortConnection()
        transport.loseConnection()
        transport.stopProducing()
        self.assertEqual(self.dropped, 3)

    def test_source_done(self) -> None:
        """Once all has come there is nothing to wait for, whether or not it is asked for."""
        self.watch(deadline=2.0).source_done()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_time_limits(self) -> None:
        """Without limits of time there is no timer."""
        self.watch()
        self.assertEqual(self.clock.getDelayedCalls(), [])


def deflated(data: bytes, bits: int) -> bytes:
    """Compress with zlib."""
    compressor = zlib.compressobj(wbits=bits)
    return compressor.compress(data) + compressor.flush()


class DecodedTests(HttpTestCase):
    """:func:`decode_response` undoes what ``Content-Encoding`` names."""

    def decode(self, coding: str, body: bytes, limit: int = 10**6, cut: int = 10**9) -> bytes:
        """Decode a body that comes in pieces of *cut* bytes."""
        source = Source([("Content-Encoding", coding), ("Content-Length", "9"), ("X", "y")])
        response = decode_response(source.response, limit)
        reading = collect(response)
        for i in range(0, len(body), cut):
            source.send(body[i : i + cut])
        source.end(ResponseDone())
        content, _ = self.successResultOf(reading)
        self.assertEqual(dict(response_fields(response)), {"x": "y"})
        return content

    def test_codings(self) -> None:
        """gzip, deflate as the RFC has it and as some servers send it, alone and nested."""
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
        """An empty body is empty, whatever its coding is said to be."""
        self.assertEqual(self.decode("gzip", b""), b"")
        self.assertEqual(self.decode("gzip", gzip.compress(b"")), b"")
        self.assertEqual(self.decode("deflate", deflated(b"", 15)), b"")

    @given(st.binary(max_size=300_000), st.integers(1, 100_000))
    def test_any_body(self, data: bytes, cut: int) -> None:
        """Any body comes back, however it is cut."""
        self.assertEqual(self.decode("gzip", gzip.compress(data, 1), cut=cut), data)

    def test_all_in_one_full_piece(self) -> None:
        """Output that the decompressor holds back with all its input used up is not lost."""
        for size in (65_535, 65_536, 65_537, 131_072, 131_330):
            data = b"a" * size
            self.assertEqual(self.decode("gzip", gzip.compress(data)), data)

    def test_unknown(self) -> None:
        """A coding that is unknown stays, with all that is inside it."""
        response = canned(body=b"abc", headers=[("Content-Encoding", "compress")])
        self.assertIs(decode_response(response, 10), response)
        body = gzip.compress(b"inner")
        response = canned(body=body, headers=[("Content-Encoding", "compress, gzip")])
        response = decode_response(response, 10)
        self.assertEqual(response_fields(response)["content-encoding"], "compress")
        self.assertEqual(self.successResultOf(collect(response))[0], b"inner")

    def test_nothing_to_do(self) -> None:
        """A body without coding, and one that is empty, are left as they are."""
        for response in (canned(body=b"x"), canned(headers=[("Content-Encoding", "gzip")])):
            self.assertIs(decode_response(response, 10), response)

    def test_bomb(self) -> None:
        """A body that grows over the limit ends there, and holds no more than a piece beyond."""
        bomb = gzip.compress(b"\0" * 20_000_000)
        for coding, body in (("gzip", bomb), ("gzip, gzip", gzip.compress(bomb))):
            with self.subTest(coding=coding):
                source = Source([("Content-Encoding", coding)])
                gatherer = Gatherer()
                decode_response(source.response, 100_000).deliverBody(gatherer)
                source.send(body)
                source.send(b"more")
                source.end(ResponseDone())
                assert gatherer.reason is not None
                error = cast(BodyTooLarge, gatherer.reason.value)
                self.assertEqual(error.details(), {"limit": 100_000})
                self.assertIn("decompressed", str(error))
                self.assertLessEqual(len(gatherer.body), 100_000)
                self.assertEqual(source.aborted, 1)

    def test_receiver_that_has_enough(self) -> None:
        """A body that ends while a piece of it is delivered has no more pieces."""
        source = Source([("Content-Encoding", "gzip")])

        class Enough(Gatherer):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                source.end(ConnectionLost())

        gatherer = Enough()
        decode_response(source.response, 10**6).deliverBody(gatherer)
        source.send(gzip.compress(b"\0" * 500_000))
        self.assertEqual(len(gatherer.body), 65_536)

    def test_at_the_limit(self) -> None:
        """A body of exactly the limit passes."""
        self.assertEqual(self.decode("gzip", gzip.compress(b"x" * 1000), limit=1000), b"x" * 1000)

    def test_too_many_codings(self) -> None:
        """More codings than anybody uses are refused."""
        source = Source([("Content-Encoding", "gzip, gzip, gzip"), ("Content-Encoding", "gzip")])
        error = self.assertRaises(BadResponse, decode_response, source.response, 10)
        self.assertIn("more than 3 codings", str(error))
        self.assertEqual(source.aborted, 1)

    def test_damaged(self) -> None:
        """A body that is not what it is said to be, or ends early, is an error."""
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
                decode_response(source.response, 10_000).deliverBody(gatherer)
                source.send(body)
                source.end(ResponseDone())
                assert gatherer.reason is not None
                self.assertIsInstance(gatherer.reason.value, BadResponse)
                self.assertIn(message, str(gatherer.reason.value))

    def test_broken(self) -> None:
        """A connection that breaks is told as that."""
        source = Source([("Content-Encoding", "gzip")])
        reading = collect(decode_response(source.response, 100))
        source.send(gzip.compress(b"x")[:5])
        source.end(ConnectionBroken("body", "x"))
        self.failureResultOf(reading, ConnectionBroken)


class BodyResponseTests(HttpTestCase):
    """:class:`BodyResponse` is a response in all else."""

    def test_previous(self) -> None:
        """It keeps what came before it."""
        first, second = canned(302), canned(200)
        second.setPreviousResponse(first)
        copy = BodyResponse.like(second, second.deliverBody)
        self.assertIs(copy.previousResponse, first)
        self.assertTrue(IResponse.providedBy(copy))
