"""Tests of :mod:`twisted_net.http.h1.exchange` and :mod:`twisted_net.http.h1.wire`."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from tests.http.fakes import Gatherer
from tests.http.pools import PoolTestCase
from twisted_net.errors import FetchError
from twisted_net.http.bodies import (
    BodyResponse,
    BufferedResponse,
    BytesProducer,
    collect,
    response_fields,
)
from twisted_net.http.call import Deadline
from twisted_net.http.calls.upload import PieceProducer
from twisted_net.http.errors import BadResponse, BodyTooLarge, ConnectionBroken, FetchTimeout
from twisted_net.http.h1.exchange import MAX_KEPT, ExchangeLimits
from twisted_net.http.h1.wire import CLOSE_TIMEOUT
from twisted_net.turns.turn_scheduler import next_turn

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"


class ExchangeTestCase(PoolTestCase):
    """A wire in a reactor in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.wire, self.server = self.open()

    def ask(
        self,
        *,
        headers: float | None = None,
        silence: float | None = None,
        deadline: float | None = None,
        max_body: int = 100,
    ) -> Deferred[BodyResponse]:
        """Send a request."""
        until = None if deadline is None else Deadline(deadline, 30.0)
        limits = ExchangeLimits(headers, silence, until, max_body)
        return self.wire.send("GET", HEAD, None, limits)

    def begin(self, sent: bytes = BEGUN, **limits: Any) -> Gatherer:
        """Send a request, answer with a part of a body, and return what gathers it."""
        asking = self.ask(**limits)
        self.server.send(sent)
        gatherer = Gatherer()
        self.successResultOf(asking).deliverBody(gatherer)
        return gatherer

    def error(self, gatherer: Gatherer) -> Any:
        """Return the error with which a body ended."""
        assert gatherer.reason is not None
        return gatherer.reason.value


class ResponseTests(ExchangeTestCase):
    """What becomes of a response."""

    def test_whole(self) -> None:
        """One that has come at once is in memory, and the wire is idle before it is known."""
        asking = self.ask()
        idle: list[object] = []

        def answered(response: BodyResponse) -> BodyResponse:
            idle.append(self.take_idle())
            return response

        asking.addCallback(answered)
        self.server.send(OK)
        response = self.successResultOf(asking)
        assert isinstance(response, BufferedResponse)
        self.assertEqual((response.code, response.phrase, response.body), (200, b"OK", b"abc"))
        self.assertEqual(idle, [self.wire])

    def test_at_every_cut(self) -> None:
        """The same comes of it, however it is cut; the wire is used again."""
        for cut in range(1, len(OK)):
            wire, server = self.open()
            asking = wire.send("GET", HEAD, None, ExchangeLimits(None, None, None, 100))
            server.send(OK[:cut])
            server.send(OK[cut:])
            collected = self.successResultOf(collect(self.successResultOf(asking)))
            self.assertEqual(collected[0], b"abc")
            self.assertIs(self.take_idle(), wire)

    def test_not_used_again(self) -> None:
        """The wire ends after a response that closes it, or that something follows."""
        for answer in (
            OK.replace(b"\r\n", b"\r\nConnection: Close\r\n", 1),
            OK + b"HTTP/1.1 200 OK\r\n",
            OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ):
            wire, server = self.open()
            asking = wire.send("GET", HEAD, None, ExchangeLimits(None, None, None, 100))
            server.send(answer)
            self.successResultOf(asking)
            self.assertTrue(server.transport.ended)
            self.assertIsNone(self.take_idle())

    def test_fields_of_the_connection(self) -> None:
        """Those of the connection are not shown (RFC 9110 §7.6.1); the length is, in one form."""
        hidden = b"Keep-Alive: x\r\nProxy-Connection: x\r\nTE: x\r\nUpgrade: x\r\nX-End: y\r\n"
        for method, more, expected in (
            ("GET", b"Content-Length: 0", ["X-End", "Content-Length"]),
            ("GET", b"Connection: Keep-Alive\r\nContent-Length: 3", ["X-End", "Content-Length"]),
            ("GET", b"Content-Length: 03\r\nContent-Length: 03", ["X-End", "Content-Length"]),
            ("GET", b"Connection: close\r\nTransfer-Encoding: chunked", ["X-End"]),
            ("GET", b"Connection: close, X-Hop\r\nX-Hop: a", ["X-End", "Connection", "X-Hop"]),
            ("HEAD", b"Connection: close\r\nContent-Length: 3", ["X-End", "Content-Length"]),
        ):
            with self.subTest(more=more):
                wire, server = self.open()
                asking = wire.send(method, HEAD, None, ExchangeLimits(None, None, None, 100))
                server.send(b"HTTP/1.1 200 OK\r\n" + hidden + more + b"\r\n\r\n")
                fields = response_fields(self.successResultOf(asking))
                self.assertEqual([name for name, _ in fields.pairs], expected)
                self.assertIn(fields.get("content-length"), ("0", "3", None))
                server.close()

    def test_until_close(self) -> None:
        """A body that ends with its connection is complete if that is closed, and not if lost."""
        gatherer = self.begin(b"HTTP/1.1 200 OK\r\n\r\nabc")
        self.server.close()
        self.assertEqual(gatherer.body, b"abc")
        self.assertIsInstance(self.error(gatherer), PotentialDataLoss)
        self.wire, self.server = self.open()
        gatherer = self.begin(b"HTTP/1.1 200 OK\r\n\r\nabc")
        self.server.close(ConnectionLost())
        self.assertIsInstance(self.error(gatherer), ConnectionBroken)

    def test_bad(self) -> None:
        """What is no response drops the connection; so does a body that turns out to be wrong."""
        asking = self.ask()
        self.server.send(b"hello\r\n")
        self.failureResultOf(asking, BadResponse)
        self.assertTrue(self.server.transport.ended)
        self.wire, self.server = self.open()
        gatherer = self.begin(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        self.server.send(b"1\r\nb\r\nx\r\n")
        self.assertEqual(gatherer.body, b"ab")
        self.assertIsInstance(self.error(gatherer), BadResponse)
        self.assertTrue(self.server.transport.ended)

    def test_too_large(self) -> None:
        """The limit is allowed; one byte more ends body and connection, and nothing follows."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        gatherer = self.begin(head, max_body=3)
        self.server.send(b"3\r\nabc\r\n")
        self.server.send(b"1\r\nd\r\n")
        self.server.send(b"1\r\ne\r\n")
        self.assertEqual(gatherer.body, b"abc")
        self.assertIsInstance(self.error(gatherer), BodyTooLarge)
        self.assertTrue(self.server.transport.ended)

    def test_lost(self) -> None:
        """A connection that is lost is an error, with what came before it."""
        asking = self.ask()
        self.server.close()
        self.failureResultOf(asking, ConnectionBroken)
        self.wire, self.server = self.open()
        gatherer = self.begin()
        self.server.close()
        self.assertEqual(gatherer.body, b"abc")
        self.assertIsInstance(self.error(gatherer), ConnectionBroken)

    def test_many_small_chunks(self) -> None:
        """They are read in turns, in which the connection is not."""
        count = 20_000
        body = b"1\r\na\r\n" * count + b"0\r\n\r\n"
        gatherer = self.begin(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", max_body=10**6
        )
        self.server.send(body)
        self.assertLess(len(gatherer.body), count)
        self.assertEqual(self.server.transport.producerState, "paused")
        self.reactor.advance(0)
        self.assertEqual(gatherer.body, b"a" * count)
        self.assertEqual(self.server.transport.producerState, "producing")
        self.assertIsInstance(self.error(gatherer), ResponseDone)
        self.assertIs(self.take_idle(), self.wire)

    def test_small_in_a_long_turn(self) -> None:
        """A small response in a long turn waits for its own, and the connection is read on."""
        for cut in range(1, len(OK)):
            with self.subTest(cut=cut):
                self.pool.turns.mark_busy()
                asking = self.ask()
                self.server.send(OK[:cut])
                self.assertEqual(self.server.transport.producerState, "producing")
                # What follows does not overtake it, although there is time now.
                self.pool.turns.busy = False
                self.server.send(OK[cut:])
                self.assertNoResult(asking)
                self.reactor.advance(0)
                response = self.successResultOf(asking)
                assert isinstance(response, BufferedResponse)
                self.assertEqual(response.body, b"abc")
                self.assertEqual(self.server.transport.producerState, "producing")
                self.assertIs(self.take_idle(), self.wire)

    def test_within_a_turn(self) -> None:
        """A response that comes in a turn, as of TLS, waits for no other one; it counts there."""
        asking, turns = self.ask(), self.pool.turns
        self.patch(turns, "spend", lambda began, ended: self.fail("counted twice"))
        taken = next_turn(turns).addCallback(lambda _: self.server.send(OK))
        taken.addCallback(lambda _: self.assertEqual(turns._waiting, {}))
        self.reactor.advance(0)
        self.successResultOf(taken)
        response = self.successResultOf(asking)
        assert isinstance(response, BufferedResponse)
        self.assertEqual(response.body, b"abc")

    def test_large_in_a_long_turn(self) -> None:
        """For a large one the connection is not read until its turn comes."""
        self.pool.turns.mark_busy()
        self.ask()
        self.server.send(BEGUN + bytes(MAX_KEPT))
        self.assertEqual(self.server.transport.producerState, "paused")


class ReceiverTests(ExchangeTestCase):
    """What the receiver of a body may do."""

    def test_nobody_there(self) -> None:
        """Without a receiver the connection is not read on."""
        self.ask()
        paused: list[str] = []
        self.patch(self.server.transport, "pauseProducing", lambda: paused.append("pause"))
        self.server.send(BEGUN)
        self.assertEqual(paused, ["pause"])

    def test_pause(self) -> None:
        """A receiver that pauses gets nothing; the connection is not read; then all comes."""
        gatherer = self.begin()
        transport = cast(Any, gatherer.transport)
        calls: list[str] = []
        self.patch(self.server.transport, "pauseProducing", lambda: calls.append("pause"))
        self.patch(self.server.transport, "resumeProducing", lambda: calls.append("resume"))
        transport.pauseProducing()
        self.server.send(b"def")
        self.assertEqual((gatherer.body, calls), (b"abc", ["pause"]))
        transport.resumeProducing()
        self.assertEqual((gatherer.body, calls), (b"abcdef", ["pause", "resume"]))
        transport.pauseProducing()
        self.server.send(b"ghi")
        self.assertIsNone(gatherer.reason)
        # All of it has come: the wire is free, whenever the receiver takes it.
        self.assertIs(self.take_idle(), self.wire)
        self.assertEqual(calls, ["pause", "resume", "pause", "resume"])
        transport.resumeProducing()
        self.assertEqual(gatherer.body, b"abcdefghi")
        self.assertIsInstance(self.error(gatherer), ResponseDone)

    def test_abort(self) -> None:
        """One that drops the body, in each of three ways, drops the connection."""
        for name in ("abortConnection", "loseConnection", "stopProducing"):
            self.wire, self.server = self.open()
            gatherer = self.begin()
            getattr(gatherer.transport, name)()
            self.assertTrue(self.server.transport.ended)
            self.server.send(b"d")
            self.reactor.advance(0)
            self.assertEqual(gatherer.body, b"abc")
            self.assertIsInstance(self.error(gatherer), ConnectionBroken)

    def test_failure_in_a_turn(self) -> None:
        """One that fails in a turn loses its connection, as one that fails as bytes arrive."""
        gatherer = self.begin(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", max_body=10**6
        )
        self.server.send(b"1\r\na\r\n" * 20_000)

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        self.patch(gatherer, "dataReceived", fail)
        with self.assertRaises(ZeroDivisionError):
            self.reactor.advance(0)
        self.reactor.advance(0)
        self.assertTrue(self.server.transport.ended)
        self.assertIsInstance(self.error(gatherer), ConnectionBroken)

    def test_abort_of_what_has_come(self) -> None:
        """One that drops parts of a body that has come whole does not hear that it was whole."""
        chunk = b"258\r\n" + b"x" * 600 + b"\r\n"
        gatherer = self.begin(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk, max_body=10**6
        )
        received = gatherer.dataReceived

        def leave(data: bytes) -> None:
            received(data)
            cast(Any, gatherer.transport).abortConnection()

        self.patch(gatherer, "dataReceived", leave)
        self.server.send(chunk * 3 + b"0\r\n\r\n")
        self.assertEqual(len(gatherer.body), 1200)
        self.assertIsInstance(self.error(gatherer), ConnectionBroken)
        self.assertIs(self.take_idle(), self.wire)

    def test_abort_in_a_pause(self) -> None:
        """The same holds for one that pauses first; one that drops nothing hears of the end."""
        for pieces in (0, 1):
            self.wire, self.server = self.open()
            gatherer = self.begin()
            transport = cast(Any, gatherer.transport)
            self.server.send(b"d" * (6 - pieces))
            transport.pauseProducing()
            self.server.send(b"e" * pieces)
            transport.abortConnection()
            expected = ConnectionBroken if pieces else ResponseDone
            self.assertIsInstance(self.error(gatherer), expected)

    def test_abort_after_the_loss(self) -> None:
        """One that leaves while what came before the loss is still parsed hears of the end."""
        gatherer = self.begin(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", max_body=10**6
        )
        self.server.send(b"1\r\na\r\n" * 20_000)
        self.server.close()
        self.assertIsNone(gatherer.reason)
        cast(Any, gatherer.transport).abortConnection()
        self.assertIsInstance(self.error(gatherer), ConnectionBroken)
        self.reactor.advance(0)

    def test_cancel(self) -> None:
        """A request that is cancelled drops the connection."""
        asking = self.ask(deadline=9.0)
        asking.cancel()
        self.failureResultOf(asking)
        self.assertTrue(self.server.transport.ended)
        self.reactor.advance(0)
        self.assertEqual(len(self.pool.timeouts), 0)


class TimeTests(ExchangeTestCase):
    """The time limits of an exchange."""

    def test_headers(self) -> None:
        """A server that does not answer."""
        asking = self.ask(headers=2.0, deadline=9.0)
        self.reactor.advance(1.9)
        self.assertNoResult(asking)
        self.reactor.advance(0.2)
        error = self.failureResultOf(asking, FetchTimeout).value
        self.assertEqual(error.details(), {"phase": "headers", "limit": 2.0, "total": False})
        self.assertTrue(self.server.transport.ended)

    def test_dripped_header(self) -> None:
        """A header that comes byte by byte, and interim responses, have the same time for all."""
        for piece in (b"HTTP/1.1 200 OK\r\nX: abcdefghij", b"HTTP/1.1 102 X\r\n\r\n" * 2):
            self.wire, self.server = self.open()
            asking = self.ask(headers=2.0)
            for at in range(19):
                self.server.send(piece[at : at + 1])
                self.reactor.advance(0.1)
                self.assertNoResult(asking)
            self.reactor.advance(0.2)
            self.failureResultOf(asking, FetchTimeout)

    def test_deadline(self) -> None:
        """At the deadline the body ends, though bytes still arrive."""
        gatherer = self.begin(deadline=2.0)
        self.reactor.advance(1.9)
        self.server.send(b"d")
        self.reactor.advance(0.1)
        error = self.error(gatherer)
        self.assertEqual(error.details(), {"phase": "body", "limit": 30.0, "total": True})
        self.assertEqual(gatherer.body, b"abcd")

    def test_deadline_with_nobody_there(self) -> None:
        """A body that is not read is dropped at the deadline; reading it later raises the error."""
        asking = self.ask(deadline=2.0)
        self.server.send(BEGUN)
        response = self.successResultOf(asking)
        self.reactor.advance(2.0)
        self.assertTrue(self.server.transport.ended)
        gatherer = Gatherer()
        response.deliverBody(gatherer)
        self.assertEqual(gatherer.body, b"abc")
        self.assertIsInstance(self.error(gatherer), FetchTimeout)

    def test_silence(self) -> None:
        """A silence over the limit ends the body; shorter ones do not."""
        gatherer = self.begin(silence=1.0)
        for _ in range(3):
            self.reactor.advance(0.9)
            self.server.send(b"d")
        self.reactor.advance(0.9)
        self.assertIsNone(gatherer.reason)
        self.reactor.advance(0.2)
        error = self.error(gatherer)
        self.assertEqual(error.details(), {"phase": "body", "limit": 1.0, "total": False})
        self.assertTrue(error.transient)

    def test_pause(self) -> None:
        """Silence during a pause does not count; after it the time starts again."""
        gatherer = self.begin(silence=1.0)
        transport = cast(Any, gatherer.transport)
        transport.pauseProducing()
        for _ in range(5):
            self.reactor.advance(0.9)
        transport.resumeProducing()
        self.reactor.advance(0.9)
        self.assertIsNone(gatherer.reason)
        self.reactor.advance(1.0)
        self.assertIsInstance(self.error(gatherer), FetchTimeout)

    def test_slow_end(self) -> None:
        """An idle wire that is closed is dropped if its peer does not close it too."""
        self.patch(self.server.transport, "loseConnection", lambda: None)
        self.wire.close()
        self.reactor.advance(CLOSE_TIMEOUT)
        self.assertTrue(self.server.transport.ended)


@implementer(IBodyProducer)
class Producer:
    """A body that is written by a test."""

    def __init__(self, length: Any = UNKNOWN_LENGTH) -> None:
        self.length = length
        self.calls: list[str] = []
        self.done: Deferred[None] = Deferred()

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self.write = consumer.write
        return self.done

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class UploadTests(ExchangeTestCase):
    """The body of a request."""

    def send(self, body: Any, headers: float | None = None) -> Deferred[BodyResponse]:
        """Send a request with a body."""
        return self.wire.send("POST", HEAD, body, ExchangeLimits(headers, None, None, 100))

    def test_bytes(self) -> None:
        """One in memory is sent behind the head, whatever its length."""
        for size in (0, 3, 10**5):
            self.wire, self.server = self.open()
            self.send(BytesProducer(b"x" * size))
            self.assertEqual(self.server.received(), HEAD + b"x" * size)

    def test_length(self) -> None:
        """One with a length is sent as it is written."""
        body = Producer(3)
        asking = self.send(body)
        body.write(b"ab")
        body.write(b"")
        body.write(b"c")
        body.done.callback(None)
        self.assertEqual(self.server.received(), HEAD + b"abc")
        self.server.send(OK)
        self.successResultOf(asking)
        self.assertEqual(body.calls, [])
        self.assertIs(self.take_idle(), self.wire)

    def test_chunks(self) -> None:
        """One without a length is sent in chunks; an empty write does not end it."""
        body = Producer()
        self.send(body)
        for part in (b"ab", b"", b"c" * 16):
            body.write(part)
        body.done.callback(None)
        sent = self.server.received()
        self.assertEqual(sent, HEAD + b"2\r\nab\r\n10\r\n" + b"c" * 16 + b"\r\n0\r\n\r\n")

    def test_wrong_length(self) -> None:
        """One that is longer or shorter than its length is its caller's error."""
        for written in (b"ab", b"abcd"):
            self.wire, self.server = self.open()
            body = Producer(3)
            asking = self.send(body)
            body.write(written)
            if not body.calls:
                body.done.callback(None)
            self.failureResultOf(asking, ValueError)
            self.assertTrue(self.server.transport.ended)

    def test_producer_fails(self) -> None:
        """What a producer fails with is the error of the request."""
        body = Producer()
        asking = self.send(body)
        body.done.errback(KeyError("x"))
        self.failureResultOf(asking, KeyError)
        self.assertTrue(self.server.transport.ended)

    def test_early_answer(self) -> None:
        """An answer that is complete before the body is sent stops it, and ends the connection."""
        body = Producer()
        asking = self.send(body)
        self.server.send(OK)
        self.assertEqual(self.successResultOf(asking).code, 200)
        self.assertEqual(body.calls, ["stop"])
        self.assertTrue(self.server.transport.ended)
        body.write(b"x")
        body.done.callback(None)

    def take_slowly(self) -> Any:  # Any: a transport in memory
        """Let the server take what is written piece by piece, as its test says."""
        transport = cast(Any, self.server.transport)
        write = transport.write

        def fill(data: bytes) -> None:
            write(data)
            if transport.producer is not None:
                transport.producer.pauseProducing()

        self.patch(transport, "write", fill)
        return transport

    def test_lost_before(self) -> None:
        """A connection that is lost already stops the producer, which then does not start."""
        transport = cast(Any, self.server.transport)
        register = transport.registerProducer

        def stop(producer: Any, streaming: bool) -> None:
            register(producer, streaming)
            producer.stopProducing()

        self.patch(transport, "registerProducer", stop)
        self.send(PieceProducer(iter(lambda: b"x", b"")))
        self.assertEqual(self.server.received(), HEAD)
        body = PieceProducer([b"x"])
        body.stopProducing()
        self.assertNoResult(body.startProducing(cast(Any, None)))

    def test_early_answer_to_bytes(self) -> None:
        """The connection ends, too, while the server has not taken all of a body in memory."""
        self.take_slowly()
        asking = self.send(BytesProducer(b"x" * 10**5))
        self.server.send(OK)
        self.assertEqual(self.successResultOf(asking).code, 200)
        self.assertTrue(self.server.transport.ended)
        self.assertIsNone(self.take_idle())

    def test_bytes_taken_slowly(self) -> None:
        """The time for the header counts from when some of a large body was last taken."""
        transport = self.take_slowly()
        content = bytes(range(256)) * 1024
        asking = self.send(BytesProducer(content), headers=1.0)
        began = self.reactor.seconds()
        while transport.producer is not None:
            self.reactor.advance(0.9)
            self.assertNoResult(asking)
            transport.producer.resumeProducing()
        self.assertGreater(self.reactor.seconds() - began, 3.0)
        self.assertEqual(self.server.received(), HEAD + content)
        self.server.send(OK)
        self.successResultOf(asking)

    def test_taken_late(self) -> None:
        """It is sent when the server has taken all; its producer hears nothing after its end."""
        body = Producer()
        asking = self.send(body, headers=1.0)
        upload = cast(Any, self.server.transport).producer
        body.write(b"x")
        upload.pauseProducing()
        body.done.callback(None)
        self.reactor.advance(0.9)
        upload.resumeProducing()
        self.assertIsNone(self.server.transport.producer)
        self.reactor.advance(0.9)
        self.assertNoResult(asking)
        self.server.send(OK)
        self.successResultOf(asking)
        self.assertIs(self.take_idle(), self.wire)
        self.assertEqual(body.calls, ["pause"])

    def test_cancelled_when_all_is_written(self) -> None:
        """Its producer hears nothing after its end, then either."""
        body = Producer()
        asking = self.send(body)
        upload = cast(Any, self.server.transport).producer
        upload.pauseProducing()
        body.done.callback(None)
        asking.cancel()
        self.failureResultOf(asking)
        self.reactor.advance(0)
        self.assertEqual(body.calls, ["pause"])

    def test_lost(self) -> None:
        """A connection that is lost stops it."""
        body = Producer()
        asking = self.send(body)
        self.server.close()
        self.failureResultOf(asking, FetchError)
        self.assertEqual(body.calls, ["stop"])

    def test_time(self) -> None:
        """The time for the header counts from what was last written of the body."""
        body = Producer()
        asking = self.send(body, headers=1.0)
        for _ in range(3):
            self.reactor.advance(0.9)
            body.write(b"x")
        self.assertNoResult(asking)
        self.reactor.advance(1.1)
        self.failureResultOf(asking, FetchTimeout)
        self.assertEqual(body.calls, ["stop"])
