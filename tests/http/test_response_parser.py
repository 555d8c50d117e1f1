"""Tests of :mod:`twisted_net.http.response_parser`, against Twisted's own parser."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgent

from tests.http.fakes import HttpTestCase, Wire
from tests.runaway import MEGABYTE, ended_if_runaway
from twisted_net.errors import FetchError
from twisted_net.http.agent import AttemptAgent
from twisted_net.http.bodies import BufferedResponse, collect, response_fields
from twisted_net.http.client import Client
from twisted_net.http.connector import ConnectionPool, Connector
from twisted_net.http.errors import BadResponse
from twisted_net.http.h1 import connection as connections
from twisted_net.http.response import Response
from twisted_net.http.response_parser import (
    MAX_HEAD_LINES,
    HeadLimit,
    ParsedResponse,
    parse_complete_response,
)
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import HttpSettings

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A:  b \r\n\r\nok"

LINES = (
    *(b"X: y", b"x:", b"Set-Cookie: a=b", b"Set-Cookie: c=d", b"X-L: \xfc", b"X: a\tb"),
    *(b"Content-Length: 3", b"Content-Length:3", b"content-length: 5", b"X", b" fold", b": x"),
    *(b"Connection: close", b"Transfer-Encoding: chunked", b"X:\ty "),
)


class ReadWholeTests(HttpTestCase):
    """:func:`parse_complete_response` parses complete responses, and refuses all else."""

    def test_whole(self) -> None:
        """Status, reason, fields in order, body."""
        self.assertEqual(
            parse_complete_response(OK, 999), ParsedResponse(200, b"OK", [(b"X-A", b"b")], b"ok")
        )
        empty = parse_complete_response(b"HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n", 999)
        self.assertEqual(empty, ParsedResponse(500, b"", [], b""))

    def test_every_cut(self) -> None:
        """A part of a response, or more than one, returns None."""
        for cut in range(len(OK)):
            self.assertIsNone(parse_complete_response(OK[:cut], 999), cut)
        self.assertIsNone(parse_complete_response(OK + b"x", 999))

    def test_limit(self) -> None:
        """A header over the limit returns None."""
        head = len(OK) - 2
        self.assertIsNotNone(parse_complete_response(OK, head))
        self.assertIsNone(parse_complete_response(OK, head - 1))

    def test_linear(self) -> None:
        """A header line of a megabyte takes time linear in its length."""
        for start, part, end in (
            (b"X:", b" ", b"a\tb"),
            (b"X:", b"\t", b"\x00"),
            (b"X: a", b" ", b"\t"),
            (b"X", b"x", b" "),
            (b"X", b" ", b":"),
        ):
            line = start + part * MEGABYTE + end
            data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + line + b"\r\n\r\nok"
            with self.subTest(start=start, part=part, end=end), ended_if_runaway():
                self.assertIsNone(parse_complete_response(data, len(data)))

    def test_left_to_the_parser(self) -> None:
        """Anything ambiguous returns None."""
        for head in (
            b"HTTP/1.0 200 OK\r\nContent-Length: 2",
            b"HTTP/1.1 100 Continue\r\nContent-Length: 2",
            b"HTTP/1.1 204 No\r\nContent-Length: 2",
            b"HTTP/1.1 304 No\r\nContent-Length: 2",
            b"HTTP/1.1 600 No\r\nContent-Length: 2",
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2",
            b"HTTP/1.1 200 OK\r\nContent-Length: +2",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0000000000000002",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nUpgrade: x",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\r\n folded",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX : a",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\x00",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\nY: b",
        ):
            self.assertIsNone(parse_complete_response(head + b"\r\n\r\nok", 999), head)

    @given(
        st.sampled_from([b"200 OK", b"404 ", b"500 a b", b"200", b"99 x", b"204 No"]),
        st.lists(st.sampled_from(LINES), max_size=5),
        st.sampled_from([b"abc", b"", b"abcde", b"0\r\n\r\n"]),
    )
    def test_agrees_with_the_parser(self, status: bytes, fields: list[bytes], body: bytes) -> None:
        """Its result is that of Twisted's parser."""
        data = b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", body])
        short = self.answer(data)
        never = lambda data, limit: None  # noqa: E731 - a stand-in for parse_complete_response
        self.patch(connections, "parse_complete_response", never)
        try:
            long = self.answer(data)
        finally:
            self.patch(connections, "parse_complete_response", parse_complete_response)
        self.assertEqual(short, long)

    def answer(self, data: bytes) -> Any:
        """Return what an agent makes of *data*: the response, or the type of its error."""
        reactor = MemoryReactorClock()
        settings = HttpSettings()
        pool = ConnectionPool(reactor, Connector(reactor, timeout=9.0), settings)
        agent: IAgent = AttemptAgent(reactor, pool, settings)
        asking = agent.request(b"GET", b"http://1.2.3.4/")
        wire = Wire(reactor)
        wire.send(data)
        if not wire.transport.ended:
            wire.close()
        reading = asking.addCallback(self.read)
        outcome: list[Any] = []
        reading.addBoth(outcome.append)
        found = outcome[0] if outcome else "nothing"
        if hasattr(found, "value"):
            assert isinstance(found.value, FetchError)
            return type(found.value)
        return found

    async def noted(self, response: Any) -> Any:
        """Return all attributes of a response."""
        body, _ = await collect(response)
        fields = response_fields(response)
        lines = {name: fields.get_all(name) for name in fields}
        return response.code, response.phrase, response.version, lines, body

    def read(self, response: Any) -> Any:
        """Read a response to its end."""
        return self.start(self.noted(response))


class WholeResponseTests(HttpTestCase):
    """:class:`BufferedResponse` is a response like any other."""

    def test_body(self) -> None:
        """Its body is in memory, and is delivered too."""
        whole = parse_complete_response(OK, 999)
        assert whole is not None
        response = BufferedResponse(whole)
        self.assertEqual((response.body, response.length), (b"ok", 2))
        self.assertEqual(self.successResultOf(collect(response))[0], b"ok")


class HeadLimitTests(SynchronousTestCase):
    """:class:`HeadLimit` counts lines and bytes, however they are cut."""

    @given(st.lists(st.integers(0, 3 * MAX_HEAD_LINES), max_size=4), st.integers(-2, 2))
    def test_any_cut(self, cuts: list[int], more: int) -> None:
        """What may be parsed ends with the last line that the limit allows."""
        lines = MAX_HEAD_LINES + more
        stream = b"a\n" * lines + b"b"
        limit = HeadLimit(10_000)
        parsed, left = b"", b""
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True):
            data, rest = limit.cut(stream[start:end])
            parsed, left = parsed + data, left + rest
        self.assertEqual(parsed.count(b"\n"), min(lines, MAX_HEAD_LINES))
        self.assertEqual(parsed + left, stream)

    def test_bytes(self) -> None:
        """As many bytes as the limit says are accepted, and one more is not."""
        limit = HeadLimit(10)
        limit.check(limit.cut(b"a" * 10)[1])
        error = self.assertRaises(BadResponse, limit.check, limit.cut(b"a")[1])
        self.assertIn("its header is larger than 10 bytes", str(error))


class HeaderTests(SynchronousTestCase):
    """A response whose header has too many lines is refused, and others are read as they are."""

    def begin(self, *pieces: bytes) -> Deferred[Response]:
        """Make a request that a server answers in these pieces."""
        reactor = MemoryReactorClock()
        client = Client(reactor, HttpSettings(timeout=9.0, retry=RetryPolicy(retries=0)))
        asked = Deferred.fromCoroutine(client.get("http://192.0.2.1/"))
        reactor.advance(0)
        wire = Wire(reactor)
        for piece in pieces:
            wire.send(piece)
            reactor.advance(0)
        self.wire = wire
        return asked

    def get(self, *pieces: bytes) -> Response:
        """Return the response that a server sends in these pieces."""
        return self.successResultOf(self.begin(*pieces))

    def refused(self, *pieces: bytes) -> None:
        """See that a response is refused, and its connection dropped."""
        error = self.failureResultOf(self.begin(*pieces), BadResponse).value
        self.assertIn("its header has more than 256 lines", str(error))
        self.assertTrue(self.wire.transport.ended)

    def test_fields(self) -> None:
        """The status line, the fields and the empty line count."""
        for end in (
            b"Content-Length: 1\r\n\r\nx",
            b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        ):
            fields = [b"A%d: b\r\n" % i for i in range(MAX_HEAD_LINES - 3)]
            response = self.get(b"HTTP/1.1 200 OK\r\n" + b"".join(fields) + end)
            self.assertEqual((response.body, len(response.headers) >= len(fields)), (b"x", True))
            self.refused(b"HTTP/1.1 200 OK\r\n" + b"".join([*fields, b"B: c\r\n"]) + end)

    def test_interim(self) -> None:
        """Interim responses count with the final one, in one piece or several."""
        end = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
        interim = b"HTTP/1.1 100 Continue\r\n\r\n"
        count = (MAX_HEAD_LINES - 3) // 2
        self.assertEqual(self.get(interim * count + end).body, b"x")
        self.assertEqual(self.get(*[interim] * count, end).body, b"x")
        self.refused(interim * (count + 1) + end)
        self.refused(*[interim] * (count + 1), end)

    def test_lines_of_the_body(self) -> None:
        """Lines of a body that comes with its header do not count."""
        body = b"line\n" * 1000
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nConnection: close\r\n\r\n"
        self.assertEqual(self.get(head + body).body, body)
        self.assertEqual(self.get(head + body[:2500], body[2500:]).body, body)

    def test_lines_behind_the_response(self) -> None:
        """What follows a response is not taken for the next one: the connection is dropped."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        self.assertEqual(self.get(head + b"\n" * 1000).body, b"")
        self.assertTrue(self.wire.transport.ended)
