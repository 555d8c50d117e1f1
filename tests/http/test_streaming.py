"""Tests of :mod:`twisted_net.http.streaming`, and of the client's ``stream()``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from tests.http.fakes import FakeAgent, HttpTestCase, ServerSide, Source, canned
from twisted_net.http.bodies import BodyResponse
from twisted_net.http.calls.server_sent_events import ServerSentEvent
from twisted_net.http.client import Client
from twisted_net.http.errors import (
    BadStatus,
    BodyItemTooLong,
    BodyMismatch,
    BodyTooLarge,
    ClientClosed,
    ConnectionBroken,
    FetchTimeout,
)
from twisted_net.http.fields import HeaderFields
from twisted_net.http.streaming import READ_AHEAD, SLICE, StreamedResponse
from twisted_net.turns.paced_reads import Pace
from twisted_net.turns.turn_scheduler import TurnScheduler

URL = "http://1.2.3.4/"


class StreamedResponseTests(HttpTestCase):
    """:class:`StreamedResponse` yields the body as it arrives."""

    def setUp(self) -> None:
        self.source = Source()
        self.response = self.streamed(self.source.response)

    def streamed(self, response: IResponse) -> StreamedResponse:
        """Return a streamed response."""
        return StreamedResponse(
            response, method="GET", url=URL, headers=HeaderFields(), attempts=1, age=None
        )

    async def pieces(self) -> list[bytes]:
        """Read the whole body."""
        return [piece async for piece in self.response]

    def test_read_after_close(self) -> None:
        """Reading after the end of the block is a mistake, not an empty body."""
        self.source.send(b"ab")
        for complete in (False, True):
            self.response.close()
            failed = self.failureResultOf(self.start(self.response.read()), RuntimeError)
            self.assertIn("closed: read its body within the async with", str(failed.value))
            if not complete:
                self.source.end(ResponseDone())

    def test_pieces(self) -> None:
        """Each piece is returned when it arrives, whether the reader waits already or not."""
        self.source.send(b"ab")
        reading = self.start(self.pieces())
        self.source.send(b"cd")
        self.assertNoResult(reading)
        self.source.end(ResponseDone())
        self.assertEqual(self.successResultOf(reading), [b"ab", b"cd"])
        self.assertEqual(self.run_now(self.response.read()), b"")

    def test_at_hand(self) -> None:
        """A body in memory, or an empty one, is returned at once."""
        for body in (b"", b"abc"):
            self.assertEqual(self.run_now(self.streamed(canned(200, body)).read()), body)

    def test_end_of_connection(self) -> None:
        """A body without a length ends with its connection."""
        self.source.send(b"ab")
        self.source.end(PotentialDataLoss())
        self.assertEqual(self.run_now(self.response.read()), b"ab")

    def test_breaks_off(self) -> None:
        """The bytes that arrived are returned, then the error is raised."""
        self.source.send(b"ab")
        reading = self.start(self.pieces())
        self.source.end(ConnectionBroken("body", "x"))
        self.failureResultOf(reading, ConnectionBroken)
        self.failureResultOf(self.start(self.response.read()), ConnectionBroken)

    def test_back_pressure(self) -> None:
        """With a full buffer the server is paused, until all of it has been read."""
        half = b"x" * (READ_AHEAD // 2)
        self.source.send(half)
        self.assertEqual(self.source.calls, [])
        self.source.send(half)
        self.source.send(b"y")
        self.assertEqual(self.source.calls, ["pause"])
        body = self.response.__aiter__()
        for expected in (half, half):
            self.assertEqual(self.run_now(body.__anext__()), expected)  # type: ignore[arg-type]  # an awaitable of asyncio's kind
        self.assertEqual(self.source.calls, ["pause"])
        self.assertEqual(self.run_now(body.__anext__()), b"y")  # type: ignore[arg-type]  # likewise
        self.assertEqual(self.source.calls, ["pause", "resume"])

    def test_paused_at_the_end(self) -> None:
        """A body that ends during a pause is returned whole; nothing is resumed."""
        self.source.send(b"x" * READ_AHEAD)
        self.source.end(ResponseDone())
        self.assertEqual(len(self.run_now(self.response.read())), READ_AHEAD)
        self.assertEqual(self.source.calls, ["pause"])

    def test_one_reader(self) -> None:
        """A concurrent reader raises RuntimeError; after a cancelled one another may read."""
        first = self.start(self.response.read())
        self.failureResultOf(self.start(self.response.read()), RuntimeError)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second = self.start(self.response.read())
        self.source.end(ResponseDone())
        self.assertEqual(self.successResultOf(second), b"")

    def test_close(self) -> None:
        """Closing drops the connection, unless the body is complete."""
        self.response.close()
        self.assertEqual(self.source.aborted, 1)
        self.setUp()
        self.source.end(ResponseDone())
        self.response.close()
        self.assertEqual(self.source.aborted, 0)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"


class StreamTests(HttpTestCase):
    """:meth:`Client.stream` returns a response before its body."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.client = Client(self.clock)
        self.seen: list[Any] = []

    async def read(self, **options: Any) -> None:
        """Stream the page, and record all pieces."""
        async with self.client.stream("get", URL, **options) as response:
            self.seen.append((response.method, response.url, response.status, response.ok))
            self.seen.append((response.attempts, response.from_cache, response.reason))
            async for piece in response:
                self.seen.append(piece)

    def test_in_pieces(self) -> None:
        """The header comes first, then each piece; the connection is kept."""
        reading = self.start(self.read())
        wire = ServerSide(self.clock)
        wire.send(HEAD)
        self.assertEqual(self.seen, [("GET", URL, 200, True), (1, False, "OK")])
        wire.send(b"abc")
        self.assertEqual(self.seen[2:], [b"abc"])
        wire.send(b"def")
        self.successResultOf(reading)
        self.assertFalse(wire.transport.ended)

    def test_left_early(self) -> None:
        """Leaving the block drops the rest of the body."""

        async def peek() -> None:
            async with self.client.stream("GET", URL):
                pass

        reading = self.start(peek())
        wire = ServerSide(self.clock)
        wire.send(HEAD + b"abc")
        self.successResultOf(reading)
        self.assertTrue(wire.transport.ended)

    def test_limits(self) -> None:
        """Time and size are limited while the body is read, too."""
        for late, error in ((True, FetchTimeout), (False, BodyTooLarge)):
            reading = self.start(self.read(timeout=2.0, max_body=5))
            wire = ServerSide(self.clock)
            wire.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
            if late:
                self.clock.advance(2.0)
            else:
                wire.send(b"def")
            self.failureResultOf(reading, error)

    def test_closed(self) -> None:
        """Closing the client ends a stream; a closed client starts none."""
        reading = self.start(self.read())
        ServerSide(self.clock)
        self.start(self.client.close())
        self.clock.advance(0)
        self.failureResultOf(reading, ClientClosed)
        self.failureResultOf(self.start(self.read()), ClientClosed)

    def test_cancelled(self) -> None:
        """Cancelling raises CancelledError."""
        reading = self.start(self.read())
        ServerSide(self.clock)
        reading.cancel()
        self.failureResultOf(reading, CancelledError)

    def test_broken_begin_is_retried(self) -> None:
        """A failure before the header is retried."""
        waiting: Deferred[IResponse] = Deferred()
        fake = FakeAgent([canned(503), waiting])
        self.client = Client(self.clock, agent=fake, chance=lambda: 1.0)
        reading = self.start(self.read())
        self.clock.advance(0.5)
        waiting.callback(canned(200, b"abc"))
        self.successResultOf(reading)
        self.assertEqual(self.seen[1:], [(2, False, "Reason"), b"abc"])


class TextTests(HttpTestCase):
    """Lines and events of a streamed response."""

    def setUp(self) -> None:
        self.source = Source()
        self.seen: list[Any] = []

    def streamed(self, kind: str, status: int = 200, pace: Pace | None = None) -> StreamedResponse:
        """Return a streamed response."""
        source = BodyResponse.like(self.source.response, self.source.response.deliverBody)
        source.code = status
        fields = HeaderFields([("Content-Type", kind)])
        return StreamedResponse(
            source, method="GET", url=URL, headers=fields, attempts=1, age=None, pace=pace
        )

    def collecting(self, items: AsyncIterator[Any]) -> Deferred[None]:
        """Start to read items."""

        async def collect() -> None:
            async for item in items:
                self.seen.append(item)

        return self.start(collect())

    def test_lines(self) -> None:
        """Each line is there when its end is, in its charset; the last one at the end."""
        reading = self.collecting(self.streamed("text/plain; charset=latin-1").iter_lines())
        self.source.send(b"\xe4\nb")
        self.assertEqual(self.seen, ["ä"])
        self.source.send(b"c\r\nd")
        self.source.end(ResponseDone())
        self.successResultOf(reading)
        self.assertEqual(self.seen, ["ä", "bc", "d"])

    def test_other_encoding(self) -> None:
        """A caller may name another charset."""
        lines = self.streamed("text/plain; charset=latin-1").iter_lines(encoding="utf-16le")
        reading = self.collecting(lines)
        self.source.send("ü\n".encode("utf-16-le"))
        self.source.end(ResponseDone())
        self.successResultOf(reading)
        self.assertEqual(self.seen, ["ü"])

    def test_long_line(self) -> None:
        """A line over the limit ends the reading."""
        reading = self.collecting(self.streamed("text/plain").iter_lines(max_line=3))
        self.source.send(b"a\nbcdef")
        said = str(self.failureResultOf(reading, BodyItemTooLong).value)
        self.assertEqual(said, "the response has a line of more than 3 characters")
        self.assertEqual(self.seen, ["a"])
        said = str(BodyItemTooLong("event", 3))
        self.assertEqual(said, "the response has an event of more than 3 bytes")

    def test_broken(self) -> None:
        """A body that breaks off raises, after what was complete; what was not is not there."""
        for items in ("iter_lines", "events"):
            self.setUp()
            reading = self.collecting(getattr(self.streamed("text/event-stream"), items)())
            self.source.send(b"data: 1\n\ndata: 2")
            self.source.end(ConnectionBroken("body", "x"))
            self.failureResultOf(reading, ConnectionBroken)
            self.assertEqual(len(self.seen), 2 if items == "iter_lines" else 1)

    def test_events(self) -> None:
        """Each event is there when its empty line is."""
        reading = self.collecting(self.streamed("Text/Event-Stream; charset=utf-8").events())
        self.source.send(b"event: add\ndata: 1\n")
        self.assertEqual(self.seen, [])
        self.source.send(b"\ndata: 2\n\ndata: 3\n")
        self.assertEqual(self.seen, [ServerSentEvent("add", "1"), ServerSentEvent("message", "2")])
        self.source.end(ResponseDone())
        self.successResultOf(reading)
        self.assertEqual(len(self.seen), 2)

    def test_turns(self) -> None:
        """What takes long to parse leaves turns to others, and goes on in its own."""
        for items in ("iter_lines", "events"):
            self.setUp()
            clock = Clock()
            pace = Pace(TurnScheduler(clock), map(float, range(1000)).__next__)
            response = self.streamed("text/event-stream", pace=pace)
            reading = self.collecting(getattr(response, items)())
            self.source.send(b"data:\n\n" * SLICE)
            self.source.end(ResponseDone())
            turns = 0
            while not reading.called:
                before = len(self.seen)
                # Not advance(), which makes the calls of later turns, too.
                clock.calls.pop().func()
                turns += 1
                self.assertLessEqual(len(self.seen) - before, SLICE)
            self.successResultOf(reading)
            self.assertGreaterEqual(turns, 7)
            self.assertEqual(len(self.seen), (2 if items == "iter_lines" else 1) * SLICE)

    def test_no_events(self) -> None:
        """Another type or status has no events."""
        for kind, status, error, said in (
            ("text/html", 200, BodyMismatch, "is of type text/html, not text/event-stream"),
            ("", 200, BodyMismatch, "is of type none, not text/event-stream"),
            ("text/event-stream", 204 + 100, BadStatus, "answered 304"),
        ):
            reading = self.collecting(self.streamed(kind, status).events())
            self.assertIn(said, str(self.failureResultOf(reading, error).value))

    def test_refused(self) -> None:
        """Limits and charsets that are none say so."""
        response = self.streamed("text/event-stream")
        for items, error, said in (
            (response.iter_lines(max_line=0), ValueError, "max_line must be 1 or more, not 0"),
            (response.events(max_event=0), ValueError, "max_event must be 1 or more, not 0"),
            (
                response.events(max_event=True),
                TypeError,
                "max_event must be an integer, not true or false",
            ),
            (response.iter_lines(encoding="rot13"), ValueError, "is no charset of the web"),
        ):
            self.assertIn(said, str(self.failureResultOf(self.collecting(items), error).value))
