"""Tests of :mod:`twisted_net.http.agent`."""

from __future__ import annotations

import io
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.web.client import FileBodyProducer
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.http.fakes import (
    FakeAgent,
    Gatherer,
    HttpTestCase,
    Immediately,
    ServerSide,
    canned,
    refuse,
)
from twisted_net.errors import FetchError
from twisted_net.http.agent import (
    AttemptAgent,
    DecodingAgent,
    HTTPAgent,
)
from twisted_net.http.bodies import BytesProducer, collect, response_fields
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.cache.stores import MemoryStore
from twisted_net.http.call import Deadline
from twisted_net.http.connector import Connector
from twisted_net.http.content_coding import ACCEPTED
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
from twisted_net.http.settings import EgressPolicy, HttpSettings
from twisted_net.http.ssrf_guard import SsrfGuard
from twisted_net.turns.paced_reads import Pace

URL = b"http://1.2.3.4/p?q"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


class AttemptTestCase(HttpTestCase):
    """An agent in a reactor in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.agent = self.make_agent()

    def make_agent(self, guard: SsrfGuard | None = None, **settings: Any) -> AttemptAgent:
        """Return an agent, and keep its pool."""
        made = HttpSettings(**settings)
        connector = Connector(self.reactor, timeout=made.connect_timeout, guard=guard)
        self.pool = ConnectionPool(self.reactor, connector, made)
        return AttemptAgent(self.reactor, self.pool, made, guard=guard)

    def ask(self, agent: AttemptAgent | None = None) -> tuple[Deferred[IResponse], ServerSide]:
        """Make a request, and return the server's side of its connection."""
        asking = (agent or self.agent).request(b"GET", URL)
        return asking, ServerSide(self.reactor)

    def error(self, failing: Deferred[Any], kind: type[FetchError]) -> FetchError:
        """Return the error of a failed request."""
        error = self.failureResultOf(failing, kind).value
        assert isinstance(error, kind)
        return error


class AttemptTests(AttemptTestCase):
    """:class:`AttemptAgent` makes one request."""

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
        self.assertEqual(error.details(), {"phase": phase, "limit": limit, "total": total})
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
            self.assertEqual(self.error(reading, ConnectionBroken).details(), {"phase": "body"})

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


FRESH = ("Cache-Control", "max-age=60")


class DecodingTests(HttpTestCase):
    """:class:`DecodingAgent` requests the codings that it can decode."""

    def accepted(self, *lines: str) -> list[str]:
        """Return the Accept-Encoding that is sent for these lines of the caller."""
        fake = FakeAgent([canned(200)])
        headers = Headers({"Accept-Encoding": list(lines)}) if lines else None
        agent = DecodingAgent(fake, 10, Pace.of(MemoryReactorClock()))
        self.successResultOf(agent.request(b"GET", URL, headers))
        return fake.sent[0].header("accept-encoding")

    def test_accept_encoding(self) -> None:
        """Its own codings, unless the caller names others; the line that treq adds is ignored."""
        self.assertEqual(self.accepted(), [ACCEPTED])
        self.assertEqual(self.accepted("gzip"), [ACCEPTED])
        self.assertEqual(self.accepted("identity", "gzip"), ["identity"])
        self.assertEqual(self.accepted("identity"), ["identity"])

    def test_range(self) -> None:
        """With ``Range`` no coding is asked for, unless the caller does (RFC 9110 §14.2)."""
        for lines, expected in (
            ([], ["identity"]),
            ([ACCEPTED], ["identity"]),
            (["gzip"], ["identity"]),
            (["br"], ["br"]),
        ):
            fake = FakeAgent([canned(200)])
            headers = Headers({"Range": ["bytes=0-1"], "Accept-Encoding": lines})
            agent = DecodingAgent(fake, 10, Pace.of(MemoryReactorClock()))
            self.successResultOf(agent.request(b"GET", URL, headers))
            self.assertEqual(fake.sent[0].header("accept-encoding"), expected)

    def test_part(self) -> None:
        """The part of a 206 is returned as it is, with its coding."""
        fake = FakeAgent([canned(206, b"\x1f\x8b", [("Content-Encoding", "gzip")])])
        agent = DecodingAgent(fake, 10, Pace.of(MemoryReactorClock()))
        response = self.successResultOf(agent.request(b"GET", URL))
        self.assertEqual(response_fields(response)["content-encoding"], "gzip")
        self.assertEqual(self.successResultOf(collect(response))[0], b"\x1f\x8b")


class HTTPAgentTests(HttpTestCase):
    """:class:`HTTPAgent` combines all layers."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def test_request(self) -> None:
        """It makes requests within the timeout of the settings, and caches responses."""
        agent = HTTPAgent(self.reactor, HttpSettings(timeout=5.0))
        asking = agent.request(b"GET", URL)
        wire = ServerSide(self.reactor)
        self.assertIn(f"Accept-Encoding: {ACCEPTED}".encode(), wire.received())
        wire.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nContent-Length: 1\r\n\r\nx")
        self.successResultOf(collect(self.successResultOf(asking)))
        response = self.successResultOf(agent.request(b"GET", URL))
        self.assertIn("age", response_fields(response))
        closing = Deferred.fromCoroutine(agent.close())
        self.reactor.advance(0)
        self.successResultOf(closing)
        self.failureResultOf(agent.request(b"GET", b"http://1.2.3.4/other"), ClientClosed)
        self.assert_quiet(self.reactor)

    def test_fields_of_the_connection(self) -> None:
        """Fields that ``Connection`` lists are neither stored (RFC 9111 §3.1) nor shown."""
        agent = HTTPAgent(self.reactor)
        asking = agent.request(b"GET", URL)
        ServerSide(self.reactor).send(
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nConnection: X-Hop, close\r\n"
            b"X-Hop: a\r\nX-End: b\r\nContent-Length: 1\r\n\r\nx"
        )
        response = self.successResultOf(asking)
        self.successResultOf(collect(response))
        kept = self.successResultOf(agent.request(b"GET", URL))
        self.assertIn("age", response_fields(kept))
        for fields in (response_fields(response), response_fields(kept)):
            self.assertIn("x-end", fields)
            self.assertNotIn("x-hop", fields)
            self.assertNotIn("connection", fields)

    def test_malformed_options_of_the_connection(self) -> None:
        """What is no option is not shown, and does no harm."""
        for value in (b"close;x=y", b'"a", X-Hop', b"\xe9"):
            self.setUp()
            asking = HTTPAgent(self.reactor).request(b"GET", URL)
            ServerSide(self.reactor).send(
                b"HTTP/1.1 200 OK\r\nConnection: %b\r\nX-Hop: a\r\nContent-Length: 1\r\n\r\nx"
                % value
            )
            self.assertNotIn("connection", response_fields(self.successResultOf(asking)))

    def test_directives_of_the_connection(self) -> None:
        """A cache obeys what forbids to store even if it is for this connection alone."""
        agent = HTTPAgent(self.reactor)
        asking = agent.request(b"GET", URL)
        head = b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nConnection: Cache-Control\r\n"
        head += b"Expires: Fri, 01 Jan 2100 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
        ServerSide(self.reactor).send(head)
        response = self.successResultOf(asking)
        self.assertNotIn("cache-control", response_fields(response))
        again = agent.request(b"GET", URL)
        self.assertNoResult(again)
        again.cancel()
        self.failureResultOf(again, CancelledError)

    def test_total_time(self) -> None:
        """The timeout is that of the whole request."""
        agent = HTTPAgent(self.reactor, HttpSettings(timeout=5.0))
        asking = agent.request(b"GET", URL)
        ServerSide(self.reactor)
        self.reactor.advance(5.0)
        self.assertTrue(self.failureResultOf(asking, FetchTimeout).value.total)

    def test_no_cache(self) -> None:
        """Without a cache nothing is stored."""
        settings = HttpSettings(cache=CacheSettings(enabled=False))
        fake = FakeAgent([canned(200, b"x", [FRESH])] * 2)
        agent = HTTPAgent(self.reactor, settings, agent=fake)
        for _ in range(2):
            self.successResultOf(collect(self.successResultOf(agent.request(b"GET", URL))))
        self.assertEqual(len(fake.sent), 2)

    def test_age_after_retries(self) -> None:
        """The wait before an attempt does not age its response (RFC 9111 §4.2.3)."""
        fresh = ("Cache-Control", "max-age=60, stale-while-revalidate=60")
        fake = FakeAgent([])
        agent = HTTPAgent(
            self.reactor, agent=fake, chance=lambda: 0.0, wall=lambda: 1e9 + self.reactor.seconds()
        )

        def age() -> str:
            response = self.successResultOf(agent.request(b"GET", URL))
            self.successResultOf(collect(response))
            return response_fields(response)["age"]

        again = canned(503, b"", [("Retry-After", "20")])
        fake.answers = [again, canned(200, b"x", [fresh])]
        asking = agent.request(b"GET", URL)
        self.reactor.advance(20)
        self.successResultOf(collect(self.successResultOf(asking)))
        self.reactor.advance(3)
        self.assertEqual(age(), "3")
        # Nor does the wait of a background revalidation.
        self.reactor.advance(60)
        fake.answers = [again, canned(200, b"x", [fresh])]
        self.assertEqual(age(), "63")
        self.reactor.advance(20)
        self.assertEqual(fake.answers, [])
        self.assertEqual(age(), "0")

    def test_guard(self) -> None:
        """With an egress policy, destinations are checked."""
        agent = HTTPAgent(self.reactor, egress=EgressPolicy())
        self.failureResultOf(agent.request(b"GET", b"http://127.0.0.1/"), AddressRefused)

    def test_store_that_closes_slowly(self) -> None:
        """Closing waits for the store."""
        closing: Deferred[None] = Deferred()

        class Slow(MemoryStore):
            def close(self) -> Any:
                return closing

        closed = Deferred.fromCoroutine(HTTPAgent(self.reactor, store=Slow()).close())
        self.assertNoResult(closed)
        closing.callback(None)
        self.successResultOf(closed)
