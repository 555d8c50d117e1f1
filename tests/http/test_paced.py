"""What a server sends is parsed, decrypted and decoded in the turns of all."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from tests.http.fakes import HttpTestCase, ServerSide
from twisted_net.http.client import Client
from twisted_net.http.errors import BadResponse, ConnectionBroken, FetchTimeout
from twisted_net.http.h1.chunked import CHUNKS_PER_CALL, OVERHEAD_RATIO, OVERHEAD_RESERVE
from twisted_net.http.response import Response
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import HttpSettings
from twisted_net.turns.turn_scheduler import turns_of

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
TURN = CHUNKS_PER_CALL + 1
"""Chunks that are more than are decoded as they arrive."""


class PacedTests(HttpTestCase):
    """A response of many small pieces is parsed in turns, within its limits."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        settings = HttpSettings(timeout=30.0, retry=RetryPolicy(retries=0))
        self.client = Client(cast(Any, self.reactor), settings)  # Any: reactors have no one type
        self.outcome: list[Response | Failure] = []
        asked = Deferred.fromCoroutine(self.client.get("http://1.2.3.4/"))
        asked.addBoth(self.outcome.append)
        self.reactor.advance(0.0)
        self.wire = ServerSide(self.reactor)

    def error(self) -> BaseException:
        """Return the error of the call."""
        (failure,) = self.outcome
        assert isinstance(failure, Failure)
        assert failure.value is not None
        return failure.value

    def response(self) -> Response:
        """Return the response of the call."""
        (response,) = self.outcome
        assert isinstance(response, Response)
        return response

    def test_turns(self) -> None:
        """A read of many chunks ends in a later turn; until then the connection is not read."""
        chunks = b"3\r\nabc\r\n" * TURN
        self.wire.send(CHUNKED + chunks + LAST)
        self.assertEqual(self.outcome, [])
        self.assertEqual(self.wire.transport.producerState, "paused")
        self.reactor.advance(0.0)
        self.assertEqual(self.response().body, b"abc" * TURN)
        self.assertEqual(self.wire.transport.producerState, "producing")

    def test_complete(self) -> None:
        """A response that arrives complete waits for its turn where others wait; else not."""
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
        for busy in (True, False):
            self.setUp()
            if busy:
                turns_of(self.reactor).mark_busy()
            self.wire.send(whole)
            self.assertEqual(len(self.outcome), not busy)
            self.reactor.advance(0.0)
            self.assertEqual(self.response().body, b"hi")

    def test_closed(self) -> None:
        """A server that closes after its last byte has sent a whole response all the same."""
        self.wire.send(CHUNKED + b"3\r\nabc\r\n" * TURN + LAST)
        self.wire.close()
        self.assertEqual(self.outcome, [])
        self.reactor.advance(0.0)
        self.assertEqual(self.response().body, b"abc" * TURN)

    def test_cut_off(self) -> None:
        """One that closes before it has not."""
        self.wire.send(CHUNKED + b"3\r\nabc\r\n" * TURN)
        self.wire.close()
        self.reactor.advance(0.0)
        self.assertIsInstance(self.error(), ConnectionBroken)

    def test_followed(self) -> None:
        """What follows a response in the same read is no response to the next request."""
        self.wire.send(CHUNKED + b"3\r\nabc\r\n" * TURN + LAST + b"HTTP/1.1 200 OK\r\n" * TURN)
        self.reactor.advance(0.0)
        self.assertEqual(self.response().body, b"abc" * TURN)
        self.assertTrue(self.wire.transport.ended)

    def test_deadline(self) -> None:
        """The deadline ends a response that has come and is not parsed yet."""
        self.wire.send(CHUNKED + b"3\r\nabc\r\n" * TURN * 2)
        self.reactor.advance(30.0)
        self.assertIsInstance(self.error(), FetchTimeout)
        self.assertTrue(self.wire.transport.ended)

    def test_framing(self) -> None:
        """A body whose chunks are tiny ends with an error; with enough in them it does not."""
        size, chunk = OVERHEAD_RESERVE + 40_000, b"1\r\nx\r\n"
        self.assertGreater(len(chunk), 2 + OVERHEAD_RATIO)
        self.wire.send(CHUNKED)
        for _ in range(size // len(chunk) // 1000 * 4):
            self.wire.send(chunk * 1000)
            self.reactor.advance(0.0)
        self.assertIsInstance(self.error(), BadResponse)
        self.assertIn("chunks are too small", str(self.error()))
        self.assertTrue(self.wire.transport.ended)

    def test_little_framing(self) -> None:
        """Chunks of three bytes are enough, however many they are."""
        self.wire.send(CHUNKED)
        for _ in range(100):
            self.wire.send(b"3\r\nabc\r\n" * 1000)
            self.reactor.advance(0.0)
        self.wire.send(LAST)
        self.assertEqual(len(self.response().body), 300_000)
