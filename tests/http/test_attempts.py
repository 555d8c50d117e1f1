"""Tests of :mod:`twisted_net.http.attempts`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.web.client import FileBodyProducer
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from typing_extensions import override

from tests.http.fakes import (
    Gatherer,
    HttpTestCase,
    Immediately,
    ServerSide,
    refuse,
)
from twisted_net.errors import FetchError
from twisted_net.http.agent_edge import AgentEdge
from twisted_net.http.attempts import Attempts
from twisted_net.http.bodies import BodyResponse, BytesProducer, collect
from twisted_net.http.call import Call, Deadline
from twisted_net.http.calls.upload import PieceProducer
from twisted_net.http.connector import Connector
from twisted_net.http.errors import (
    AddressRefused,
    BadResponse,
    BodyTooLarge,
    CannotConnect,
    ClientClosed,
    ConnectionBroken,
    FetchTimeout,
    InvalidURL,
    OriginBusy,
)
from twisted_net.http.pool import ConnectionPool
from twisted_net.http.request import OutgoingRequest
from twisted_net.http.settings import EgressPolicy, HttpSettings
from twisted_net.http.ssrf_guard import SsrfGuard

URL = b"http://1.2.3.4/p?q"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


class AttemptEdge(AgentEdge):
    """Single attempts by the terms of one call."""

    def __init__(self, attempts: Attempts, call: Call) -> None:
        self._attempts = attempts
        self.call = call

    def within(self, deadline: Deadline | None, max_body: int) -> AttemptEdge:
        """Return the same with other terms."""
        return AttemptEdge(self._attempts, Call(deadline, max_body=max_body))

    @override
    async def respond(self, request: OutgoingRequest) -> BodyResponse:
        return await self._attempts.send(request, self.call)


class AttemptTestCase(HttpTestCase):
    """Attempts in a reactor in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.agent = self.make_agent()

    def make_agent(self, guard: SsrfGuard | None = None, **settings: Any) -> AttemptEdge:
        """Return an agent, and keep its pool."""
        made = HttpSettings(**settings)
        connector = Connector(self.reactor, timeout=made.connect_timeout, guard=guard)
        self.pool = ConnectionPool(self.reactor, connector, made)
        attempts = Attempts(self.reactor, self.pool, made, guard=guard)
        return AttemptEdge(attempts, Call(max_body=made.max_body))

    def ask(self, agent: AttemptEdge | None = None) -> tuple[Deferred[IResponse], ServerSide]:
        """Make a request, and return the server's side of its connection."""
        asking = (agent or self.agent).request(b"GET", URL)
        return asking, ServerSide(self.reactor)

    def error(self, failing: Deferred[Any], kind: type[FetchError]) -> FetchError:
        """Return the error of a failed request."""
        error = self.failureResultOf(failing, kind).value
        assert isinstance(error, kind)
        return error


class AttemptTests(AttemptTestCase):
    """:class:`Attempts` make one request."""

    def test_request(self) -> None:
        """The bytes sent, and the response."""
        asking, wire = self.ask()
        self.assertEqual(wire.received(), b"GET /p?q HTTP/1.1\r\nHost: 1.2.3.4\r\n\r\n")
        wire.send(OK)
        response = self.successResultOf(asking)
        self.assertEqual(self.successResultOf(collect(response))[0], b"abc")

    def test_framing_is_ours(self) -> None:
        """Content-Length is that of the body, in spite of the caller's; Host is the caller's."""
        headers = Headers({"Content-Length": ["99"], "Transfer-Encoding": ["x"], "Host": ["h"]})
        self.agent.request(b"POST", URL, headers, BytesProducer(b"abc"))
        sent = ServerSide(self.reactor).received()
        self.assertEqual(sent, b"POST /p?q HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        self.assertTrue(headers.hasHeader("transfer-encoding"))

    def test_reuse(self) -> None:
        """A second request uses the same connection."""
        asking, wire = self.ask()
        wire.send(OK)
        self.successResultOf(collect(self.successResultOf(asking)))
        wire.received()
        asking = self.agent.request(b"GET", URL)
        self.assertEqual(len(self.reactor.tcpClients), 1)
        self.assertIn(b"GET /p?q", wire.received())
        wire.send(OK)
        self.successResultOf(asking)

    def test_bad_url(self) -> None:
        """A URL that is not plain ASCII is refused."""
        for url in (b"ftp://a/", b"http://a/\xe9", b"http://me:pw@a/"):
            self.error(self.agent.request(b"GET", url), InvalidURL)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_guard(self) -> None:
        """With a guard, the URL and the address are checked."""
        agent = self.make_agent(SsrfGuard(EgressPolicy(schemes=("http",))))
        self.error(agent.request(b"GET", b"https://1.1.1.1/"), AddressRefused)
        self.error(agent.request(b"GET", b"http://127.0.0.1/"), AddressRefused)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_bad_method(self) -> None:
        """A method that is not a token raises ValueError, before there is a connection."""
        asking = self.agent.request(b"GET /\r\n", URL)
        self.failureResultOf(asking, ValueError)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_head_and_empty(self) -> None:
        """A response without a body has no watchdog."""
        for method, answer in (
            (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
            (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
            (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ):
            agent = self.make_agent()
            asking = agent.within(Deadline(99.0, 99.0), 10).request(method, URL)
            ServerSide(self.reactor).send(answer)
            self.assertEqual(self.successResultOf(asking).length, 0)
            closing = self.pool.close()
            self.assert_quiet(self.reactor)
            self.successResultOf(closing)


class AttemptTimeTests(AttemptTestCase):
    """Each phase has its timeout, and all of them together the deadline."""

    def assert_timed_out(
        self, asking: Deferred[Any], phase: str, limit: float, total: bool
    ) -> None:
        """Check the error of a call that has timed out."""
        error = self.error(asking, FetchTimeout)
        # The others are named by the agent.
        url = {"url": URL.decode()} if phase == "body" else {}
        self.assertEqual(error.details(), {**url, "phase": phase, "limit": limit, "total": total})
        self.assertEqual(error.transient, not total)
        self.assertEqual(error.unsent, phase == "connect")
        self.assert_quiet(self.reactor)

    def test_connect(self) -> None:
        """Connecting ends at its timeout."""
        agent = self.make_agent(connect_timeout=2.0)
        asking = agent.request(b"GET", URL)
        self.reactor.advance(2.0)
        self.assert_timed_out(asking, "connect", 2.0, False)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)

    def test_connect_until_deadline(self) -> None:
        """The deadline may come first."""
        asking = self.agent.within(Deadline(1.0, 1.5), 10).request(b"GET", URL)
        self.reactor.advance(1.0)
        self.assert_timed_out(asking, "connect", 1.5, True)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)

    def test_deadline_is_over(self) -> None:
        """After the deadline no connection is made."""
        self.reactor.advance(5.0)
        asking = self.agent.within(Deadline(1.0, 1.0), 10).request(b"GET", URL)
        self.reactor.advance(0)
        self.assert_timed_out(asking, "connect", 1.0, True)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_headers(self) -> None:
        """The header has its own timeout, after which the connection is dropped."""
        asking, wire = self.ask(self.make_agent(headers_timeout=3.0))
        wire.send(b"HTTP/1.1 200")
        self.reactor.advance(3.0)
        self.assert_timed_out(asking, "headers", 3.0, False)
        self.assertTrue(wire.transport.ended)

    def test_headers_until_deadline(self) -> None:
        """Interim responses do not extend the deadline."""
        asking, wire = self.ask(self.agent.within(Deadline(4.0, 4.0), 10))
        for _ in range(4):
            wire.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            self.reactor.advance(1.0)
        self.assert_timed_out(asking, "headers", 4.0, True)
        self.assertTrue(wire.transport.ended)

    def test_body(self) -> None:
        """The deadline covers the body."""
        asking, wire = self.ask(self.agent.within(Deadline(5.0, 5.0), 10))
        wire.send(OK[:-1])
        reading = collect(self.successResultOf(asking))
        self.reactor.advance(5.0)
        self.assert_timed_out(reading, "body", 5.0, True)
        self.assertTrue(wire.transport.ended)

    def test_silence_in_the_body(self) -> None:
        """A body that is silent for longer than its timeout fails."""
        asking, wire = self.ask(self.make_agent(silence_timeout=2.0))
        wire.send(OK[:-2])
        reading = collect(self.successResultOf(asking))
        self.reactor.advance(1.5)
        wire.send(b"b")
        self.reactor.advance(2.0)
        self.assert_timed_out(reading, "body", 2.0, False)

    def test_body_that_nobody_reads(self) -> None:
        """A response whose body is not read is dropped at the deadline."""
        asking, wire = self.ask(self.agent.within(Deadline(5.0, 5.0), 10))
        wire.send(OK[:-1])
        self.successResultOf(asking)
        self.reactor.advance(5.0)
        self.assertTrue(wire.transport.ended)
        self.assert_quiet(self.reactor)

    def test_unread_body_of_a_reused_connection(self) -> None:
        """The deadline of a complete response does not end the next one on its connection."""
        first, wire = self.ask(self.agent.within(Deadline(5.0, 5.0), 10))
        wire.send(OK)
        response = self.successResultOf(first)
        second = self.agent.request(b"GET", URL)
        self.reactor.advance(5.0)
        self.assertFalse(wire.transport.ended)
        wire.send(OK)
        self.successResultOf(second)
        self.assertEqual(self.successResultOf(collect(response))[0], b"abc")

    def test_drop_after_the_end(self) -> None:
        """Dropping a complete body does not end the next response on its connection."""
        asking, wire = self.ask()
        gatherer = Gatherer()
        wire.send(OK[:-1])
        self.successResultOf(asking).deliverBody(gatherer)
        wire.send(OK[-1:])
        cast(Any, gatherer.transport).abortConnection()
        self.assertFalse(wire.transport.ended)

    def test_answer_before_the_request_is_whole(self) -> None:
        """A server may respond before it has read the request; no timer is left."""
        producing: Deferred[None] = Deferred()

        class Slow(BytesProducer):
            def startProducing(self, consumer: Any) -> Deferred[None]:
                return producing

        agent = self.agent.within(Deadline(5.0, 5.0), 10)
        asking = agent.request(b"POST", URL, None, Slow(b"abc"))
        wire = ServerSide(self.reactor)
        wire.send(OK)
        response = self.successResultOf(asking)
        self.assertEqual(self.successResultOf(collect(response))[0], b"abc")
        self.assertTrue(wire.transport.ended)
        self.pool.close()
        self.assert_quiet(self.reactor)

    def test_lost_before_it_is_read(self) -> None:
        """A connection that is lost before the body is read leaves no timer."""
        asking, wire = self.ask(self.agent.within(Deadline(5.0, 5.0), 10))
        wire.send(OK[:-1])
        response = self.successResultOf(asking)
        wire.close()
        self.error(collect(response), ConnectionBroken)
        self.pool.close()
        self.assert_quiet(self.reactor)

    def test_cancel(self) -> None:
        """Cancelling raises CancelledError in each phase, and leaves no connection and no timer."""
        asking = self.agent.request(b"GET", URL)
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        asking, wire = self.ask()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertTrue(wire.transport.ended)
        asking, wire = self.ask()
        wire.send(OK[:-1])
        reading = collect(self.successResultOf(asking))
        reading.cancel()
        self.failureResultOf(reading)
        self.assertTrue(wire.transport.ended)
        self.assert_quiet(self.reactor)


class QueueTests(AttemptTestCase):
    """Requests to one origin wait for a slot."""

    def setUp(self) -> None:
        super().setUp()
        self.agent = self.make_agent(max_per_origin=1, max_queued=1, queue_timeout=3.0)

    def test_turn(self) -> None:
        """The next request is sent when the one before has ended, over the same connection."""
        first, wire = self.ask()
        second = self.agent.request(b"GET", URL)
        wire.received()
        wire.send(OK)
        self.successResultOf(first)
        self.assertEqual(wire.received(), b"")
        self.reactor.advance(0)
        self.assertIn(b"GET /p?q", wire.received())
        wire.send(OK)
        self.successResultOf(second)

    def test_body_keeps_its_turn(self) -> None:
        """A response holds its slot until its body ends or its connection is lost."""
        first, wire = self.ask()
        wire.send(OK[:-1])
        self.successResultOf(first)
        second = self.agent.request(b"GET", URL)
        self.reactor.advance(0)
        self.assertNoResult(second)
        wire.close()
        self.reactor.advance(0)
        self.assertEqual(len(self.reactor.tcpClients), 2)
        ServerSide(self.reactor).send(OK)
        self.successResultOf(second)

    def test_full(self) -> None:
        """A full queue refuses; the wait has a timeout; a failed connection releases its slot."""
        first = self.agent.request(b"GET", URL)
        second = self.agent.request(b"GET", URL)
        self.error(self.agent.request(b"GET", URL), OriginBusy)
        self.reactor.advance(3.0)
        error = self.error(second, FetchTimeout)
        self.assertEqual(error.details(), {"phase": "queue", "limit": 3.0, "total": False})
        self.assertTrue(error.unsent and not error.transient)
        third = self.agent.request(b"GET", URL)
        refuse(self.reactor, ConnectError("no"))
        self.error(first, CannotConnect)
        self.reactor.advance(0)
        ServerSide(self.reactor).send(OK)
        self.successResultOf(third)

    def test_close(self) -> None:
        """Closing fails the requests that wait."""
        running, _ = self.ask()
        waiting = self.agent.request(b"GET", URL)
        self.pool.close()
        self.error(waiting, ClientClosed)
        self.assert_quiet(self.reactor)
        self.error(running, ConnectionBroken)


class NextRequestTests(AttemptTestCase):
    """A caller makes its next request as soon as it hears of the end of the one before."""

    def setUp(self) -> None:
        super().setUp()
        # No place to wait in: the slot must be free by then.
        self.agent = self.make_agent(max_per_origin=1, max_queued=0)

    def then(self, first: Deferred[Any]) -> list[Deferred[IResponse]]:
        """Let a request follow, and return the list that will have it."""
        following: list[Deferred[IResponse]] = []

        def ask_again(result: object) -> None:
            following.append(self.agent.request(b"GET", URL))

        first.addBoth(ask_again)
        return following

    def assert_answered(self, following: list[Deferred[IResponse]]) -> None:
        """Check that the request is sent on a connection that works."""
        self.reactor.advance(0)
        self.assertNoResult(following[0])
        ServerSide(self.reactor).send(OK)
        self.successResultOf(following[0])

    def test_after_a_failure(self) -> None:
        """The slot of a connection that is lost is free by then."""
        for data in (b"", b"HTTP/1.1 200 OK\r\nX"):
            with self.subTest(data=data):
                asking, wire = self.ask()
                following = self.then(asking)
                wire.send(data)
                wire.close(ConnectionLost())
                self.assert_answered(following)
                self.setUp()

    def test_within_a_body(self) -> None:
        """The same for a body that was cut off."""
        for data in (OK[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"):
            with self.subTest(data=data):
                asking, wire = self.ask()
                wire.send(data)
                following = self.then(collect(self.successResultOf(asking)))
                wire.close()
                self.assert_answered(following)
                self.setUp()

    def test_after_a_body(self) -> None:
        """After a body that ended well, the same connection is used again."""
        for data in (
            [OK],
            [OK[:-1], OK[-1:]],
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", b"c\r\n0\r\n\r\n"],
        ):
            with self.subTest(data=data):
                asking, wire = self.ask()
                wire.send(data[0])
                reading = collect(self.successResultOf(asking))
                following = self.then(reading)
                wire.received()
                for piece in data[1:]:
                    wire.send(piece)
                self.reactor.advance(0)
                self.assertNoResult(following[0])
                self.assertEqual(len(self.reactor.tcpClients), 1)
                wire.send(OK)
                self.successResultOf(following[0])
                self.setUp()


class AttemptFailureTests(AttemptTestCase):
    """Failures are errors of this package."""

    def test_refused(self) -> None:
        """Without a connection nothing was sent, and the error is transient."""
        asking = self.agent.request(b"GET", URL)
        refuse(self.reactor, ConnectError("no"))
        error = self.error(asking, CannotConnect)
        self.assertTrue(error.transient and error.unsent)
        self.assert_quiet(self.reactor)

    def test_closed_before_a_response(self) -> None:
        """The connection ended before the header."""
        for data in (b"", b"HTTP/1.1 200 OK\r\nX"):
            asking, wire = self.ask()
            wire.send(data)
            wire.close(ConnectionLost())
            error = self.error(asking, ConnectionBroken)
            self.assertEqual(error.details(), {"phase": "headers"})
            self.assertTrue(error.transient and not error.unsent)

    def test_half_a_body(self) -> None:
        """The connection ended within the body, of known length or in chunks."""
        for data in (OK[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"):
            asking, wire = self.ask()
            wire.send(data)
            reading = collect(self.successResultOf(asking))
            wire.close()
            error = self.error(reading, ConnectionBroken)
        self.assertEqual(error.details(), {"url": URL.decode(), "phase": "body"})

    def test_body_until_the_end(self) -> None:
        """A body without a length is complete when its connection ends."""
        asking, wire = self.ask()
        wire.send(b"HTTP/1.0 200 OK\r\n\r\nabc")
        reading = collect(self.successResultOf(asking))
        wire.close()
        body, reason = self.successResultOf(reading)
        self.assertEqual(body, b"abc")
        self.assertTrue(reason.check(PotentialDataLoss))

    def test_no_http(self) -> None:
        """A response that is not HTTP is not transient."""
        for data in (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/x 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: magic\r\n\r\n",
        ):
            with self.subTest(data=data):
                asking, wire = self.ask()
                wire.send(data)
                self.assertFalse(self.error(asking, BadResponse).transient)
                self.assertTrue(wire.transport.ended)

    def test_damaged_chunks(self) -> None:
        """Malformed chunks end the body."""
        asking, wire = self.ask()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        reading = collect(self.successResultOf(asking))
        wire.send(b"zz\r\n")
        self.failureResultOf(reading, FetchError)

    def test_endless_header(self) -> None:
        """A header over its limit is refused, whatever it contains."""
        for piece, what in (
            (b"X-Y: z\r\n", "header is"),
            (b"\r\nHTTP/1.1 100 Continue\r\n", "interim responses are"),
        ):
            with self.subTest(piece=piece):
                agent = self.make_agent(max_head=1024)
                asking, wire = self.ask(agent)
                wire.send(b"HTTP/1.1 100 Continue\r\n")
                for _ in range(200):
                    if wire.transport.ended:
                        break
                    wire.send(piece)
                self.reactor.advance(0)
                error = self.error(asking, BadResponse)
                self.assertIn(f"its {what} larger than 1024 bytes", str(error))

    def test_length_over_the_limit(self) -> None:
        """A body with too large a Content-Length is refused at once."""
        asking, wire = self.ask(self.agent.within(None, 2))
        wire.send(OK[:-1])
        self.assertEqual(self.error(asking, BodyTooLarge).details(), {"limit": 2})
        self.assertTrue(wire.transport.ended)

    def test_whole_body_over_the_limit(self) -> None:
        """One that arrived with its header is refused too."""
        asking, wire = self.ask(self.agent.within(None, 2))
        wire.send(OK)
        self.assertEqual(self.error(asking, BodyTooLarge).details(), {"limit": 2})
        self.assertTrue(wire.transport.ended)

    def test_body_over_the_limit(self) -> None:
        """A body without a length is refused at the limit."""
        asking, wire = self.ask(self.agent.within(None, 4))
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        gatherer = Gatherer()
        self.successResultOf(asking).deliverBody(gatherer)
        for _ in range(3):
            wire.send(b"2\r\nab\r\n")
        assert gatherer.reason is not None
        self.assertIsInstance(gatherer.reason.value, BodyTooLarge)
        self.assertEqual(gatherer.body, b"abab")
        self.assertTrue(wire.transport.ended)

    def test_request_body_fails(self) -> None:
        """An error of the body producer is raised unchanged."""

        class Broken(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise ZeroDivisionError

        producer = FileBodyProducer(Broken(b"abc"), cooperator=Immediately())
        asking = self.agent.request(b"POST", URL, None, producer)
        wire = ServerSide(self.reactor)
        self.failureResultOf(asking, ZeroDivisionError)
        self.assertTrue(wire.transport.ended)


class ExpectTests(AttemptTestCase):
    """A body whose request has ``Expect: 100-continue`` waits (RFC 9110 §10.1.1)."""

    agree = b"HTTP/1.1 100 Continue\r\n\r\n"
    refuse = b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"

    def post(
        self,
        body: IBodyProducer | None = None,
        agent: AttemptEdge | None = None,
        expect: str = "100-Continue",
    ) -> tuple[Deferred[IResponse], ServerSide, bytes]:
        """Make a request; return the server's side, and what it has got so far."""
        self.taken = 0
        agent = agent or self.agent
        self.call = agent.call
        asking = agent.request(
            b"POST", URL, Headers({"Expect": [expect]}), body or BytesProducer(b"abc")
        )
        wire = ServerSide(self.reactor)
        return asking, wire, wire.received()

    def pieces(self) -> PieceProducer:
        """Return a body that can be sent once, in chunks; each piece that is taken is counted."""

        def take() -> Iterator[bytes]:
            for piece in (b"ab", b"c"):
                self.taken += 1
                yield piece

        return PieceProducer(take())

    def test_agreed(self) -> None:
        """A 100 lets it go, and nothing else that precedes the response."""
        for body, sent in (
            (BytesProducer(b"abc"), b"abc"),
            (self.pieces(), b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
        ):
            asking, wire, head = self.post(body)
            self.assertTrue(head.endswith(b"\r\n\r\n"), head)
            self.assertEqual(head.count(b"Expect: 100-Continue\r\n"), 1)
            wire.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            self.assertEqual((wire.received(), self.taken), (b"", 0))
            for each in (self.agree[:9], self.agree[9:], self.agree):
                wire.send(each)
            self.assertEqual(wire.received(), sent)
            wire.send(OK)
            self.successResultOf(asking)
            self.assertFalse(wire.transport.ended)
            self.assertFalse(self.call.body_unsent)
            wire.close()

    def test_silent(self) -> None:
        """It is sent after a second without a word, or another time that is set."""
        for agent, seconds in ((self.agent, 1.0), (self.make_agent(continue_timeout=5.0), 5.0)):
            asking, wire, _ = self.post(agent=agent)
            self.reactor.advance(seconds - 0.1)
            self.assertEqual(wire.received(), b"")
            self.reactor.advance(0.1)
            self.assertEqual(wire.received(), b"abc")
            wire.send(self.agree + OK)
            self.assertEqual(self.successResultOf(asking).code, 200)
            self.assertEqual(wire.received(), b"")
            self.assertFalse(wire.transport.ended)

    def test_refused(self) -> None:
        """After a final status it is not sent at all, and the connection is not used again."""
        for answer in (OK, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"):
            for cut in (1, len(answer)):
                asking, wire, _ = self.post(self.pieces())
                wire.send(answer[:cut])
                wire.send(answer[cut:])
                self.assertIn(self.successResultOf(asking).code, (200, 413))
                self.reactor.advance(2)
                self.assertEqual((wire.received(), self.taken), (b"", 0))
                self.assertTrue(wire.transport.ended)
                self.assertTrue(self.call.body_unsent)

    def test_slow_body_of_a_refusal(self) -> None:
        """So it is while the body of that response is still to come."""
        asking, wire, _ = self.post()
        wire.send(OK[:-1])
        reading = collect(self.successResultOf(asking))
        self.reactor.advance(2)
        wire.send(OK[-1:])
        self.assertEqual(self.successResultOf(reading)[0], b"abc")
        self.assertEqual(wire.received(), b"")
        self.assertTrue(wire.transport.ended)

    def test_agreed_and_answered(self) -> None:
        """A response right behind the 100 has not waited for the body either."""
        asking, wire, _ = self.post()
        wire.send(self.agree + OK)
        self.assertEqual(self.successResultOf(asking).code, 200)
        self.assertEqual(wire.received(), b"")
        self.assertTrue(wire.transport.ended)

    def test_not_understood(self) -> None:
        """A 417 is answered once, by the same request without it."""
        for body in (BytesProducer(b"abc"), self.pieces()):
            asking, wire, _ = self.post(body)
            attempts = self.call.attempts
            wire.send(self.refuse)
            self.assertTrue(wire.transport.ended)
            again = ServerSide(self.reactor)
            sent = again.received()
            self.assertNotIn(b"Expect", sent)
            self.assertIn(b"c", sent.partition(b"\r\n\r\n")[2])
            again.send(self.refuse)
            self.assertEqual(self.successResultOf(asking).code, 417)
            self.assertEqual(self.call.attempts, attempts + 1)
            self.assertFalse(self.call.body_unsent)
            again.close()

    def test_not_understood_in_the_only_slot(self) -> None:
        """So it is where the origin takes one request at a time."""
        asking, wire, _ = self.post(agent=self.make_agent(max_per_origin=1))
        wire.send(self.refuse)
        self.reactor.advance(0)
        self.reactor.advance(0)
        again = ServerSide(self.reactor)
        again.send(OK)
        self.assertEqual(self.successResultOf(asking).code, 200)

    def test_not_understood_too_late(self) -> None:
        """One that was sent, and cannot be sent twice, is not; the caller gets the 417."""
        asking, wire, _ = self.post(self.pieces())
        self.reactor.advance(1)
        wire.send(self.refuse)
        self.assertEqual(self.successResultOf(asking).code, 417)
        self.assertFalse(self.call.body_unsent)

    def test_without_a_body(self) -> None:
        """Without one there is nothing to wait for, and nothing to expect."""
        for body in (None, BytesProducer(b"")):
            self.agent.request(b"POST", URL, Headers({"Expect": ["100-continue"]}), body)
            self.assertNotIn(b"Expect", ServerSide(self.reactor).received())

    def test_other_expectations(self) -> None:
        """Another expectation is the caller's own; beside it this one counts as well."""
        _, _, sent = self.post(expect="x")
        self.assertTrue(sent.endswith(b"\r\n\r\nabc"), sent)
        self.assertIn(b"Expect: x\r\n", sent)
        _, _, sent = self.post(expect="x, 100-continue")
        self.assertTrue(sent.endswith(b"\r\n\r\n"), sent)

    def test_time(self) -> None:
        """The wait is in the time of the call; the limit of the header counts after it."""
        asking, wire, _ = self.post(agent=self.agent.within(Deadline(0.5, 0.5), 10))
        self.reactor.advance(0.5)
        self.error(asking, FetchTimeout)
        self.assertEqual(wire.received(), b"")
        asking, wire, _ = self.post(agent=self.make_agent(headers_timeout=0.5))
        self.reactor.advance(1.0)
        self.assertEqual(wire.received(), b"abc")
        self.reactor.advance(0.4)
        self.assertNoResult(asking)
        self.reactor.advance(0.1)
        self.error(asking, FetchTimeout)

    def test_lost(self) -> None:
        """A connection that is lost, or a caller that leaves, ends it."""
        asking, wire, _ = self.post(self.pieces())
        wire.close()
        self.error(asking, ConnectionBroken)
        self.assertTrue(self.call.body_unsent)
        asking, wire, _ = self.post(self.pieces())
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.taken, 0)
        self.pool.close()
        self.assert_quiet(self.reactor)

    def test_failing_body(self) -> None:
        """An error of the producer is raised unchanged, whenever it begins."""

        def fail() -> Iterator[bytes]:
            yield b"a"
            raise ZeroDivisionError

        for agrees in (True, False):
            asking, wire, _ = self.post(PieceProducer(fail()))
            if agrees:
                wire.send(self.agree)
            else:
                self.reactor.advance(1)
            self.failureResultOf(asking, ZeroDivisionError)
            self.assertTrue(wire.transport.ended)
        self.pool.close()
        self.assert_quiet(self.reactor)

    def test_large(self) -> None:
        """A large body in memory waits, too."""
        asking, wire, _ = self.post(BytesProducer(b"x" * 300_000))
        self.assertEqual(wire.received(), b"")
        wire.send(self.agree)
        self.assertEqual(wire.received(), b"x" * 300_000)
        wire.send(OK)
        self.successResultOf(asking)
        self.assertFalse(wire.transport.ended)
