"""Tests of :mod:`twisted_net.http.agent`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.web.http_headers import Headers

from tests.http.fakes import (
    FakeAgent,
    HttpTestCase,
    ServerSide,
    canned,
)
from twisted_net.errors import FetchError
from twisted_net.http.agent import HTTPAgent
from twisted_net.http.bodies import collect, response_fields
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.cache.stores import MemoryStore
from twisted_net.http.content_coding import ACCEPTED
from twisted_net.http.errors import (
    AddressRefused,
    ClientClosed,
    FetchTimeout,
    InvalidURL,
)
from twisted_net.http.retry import CircuitState
from twisted_net.http.settings import EgressPolicy, HttpSettings

URL = b"http://1.2.3.4/p?q"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


FRESH = ("Cache-Control", "max-age=60")


class DecodingTests(HttpTestCase):
    """:class:`HTTPAgent` requests the codings that it can decode."""

    def accepted(self, *lines: str) -> list[str]:
        """Return the Accept-Encoding that is sent for these lines of the caller."""
        fake = FakeAgent([canned(200)])
        headers = Headers({"Accept-Encoding": list(lines)}) if lines else None
        agent = HTTPAgent(MemoryReactorClock(), agent=fake)
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
            agent = HTTPAgent(MemoryReactorClock(), agent=fake)
            self.successResultOf(agent.request(b"GET", URL, headers))
            self.assertEqual(fake.sent[0].header("accept-encoding"), expected)

    def test_part(self) -> None:
        """The part of a 206 is returned as it is, with its coding."""
        fake = FakeAgent([canned(206, b"\x1f\x8b", [("Content-Encoding", "gzip")])])
        agent = HTTPAgent(MemoryReactorClock(), agent=fake)
        response = self.successResultOf(agent.request(b"GET", URL))
        self.assertEqual(response_fields(response)["content-encoding"], "gzip")
        self.assertEqual(self.successResultOf(collect(response))[0], b"\x1f\x8b")


class HTTPAgentTests(HttpTestCase):
    """:class:`HTTPAgent` combines all steps."""

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

    def test_close_between_attempts(self) -> None:
        """A request that waits for its next attempt ends, and leaves no timer."""
        for method in (b"GET", b"PUT"):
            fake = FakeAgent([canned(200), canned(503)])
            agent = HTTPAgent(self.reactor, agent=fake, chance=lambda: 1.0)
            # The first response cannot be stored, so that requests are not shared.
            self.successResultOf(agent.request(method, URL))
            asking = agent.request(method, URL)
            self.assertNoResult(asking)
            self.run_now(agent.close())
            self.failureResultOf(asking, CancelledError)
            self.assert_quiet(self.reactor)

    def test_close_in_each_phase(self) -> None:
        """A request ends in whatever phase it is, and leaves no timer; no other attempt follows."""
        for cached in (False, True):
            reactor = MemoryReactorClock()
            settings = HttpSettings(max_per_origin=1, cache=CacheSettings(enabled=cached))
            agent = HTTPAgent(reactor, settings)
            # Connecting; waiting for the header, for that of another caller, and in the queue.
            urls = (b"http://1.1.1.1/", URL, URL, b"http://1.2.3.4/queued")
            asking = [agent.request(b"GET", url) for url in urls]
            ServerSide(reactor, 1)
            connector: Any = reactor.connectors[0]
            closing = Deferred.fromCoroutine(agent.close())
            self.assertTrue(connector.stoppedConnecting)
            reactor.advance(0)
            self.successResultOf(closing)
            for one in asking:
                self.failureResultOf(one, FetchError, CancelledError)
            self.assertEqual(len(reactor.tcpClients), 2)
            self.assert_quiet(reactor)

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


class CircuitTests(HttpTestCase):
    """:meth:`HTTPAgent.circuit_state` shows the breakers to those who have no other client."""

    def test_url(self) -> None:
        """It takes a URL as text, as that of ``Client`` does."""
        agent = HTTPAgent(MemoryReactorClock())
        for url in ("http://1.2.3.4", "http://me:pw@H.example/a b?c#d"):
            self.assertIs(agent.circuit_state(url), CircuitState.CLOSED)

    def test_mistakes(self) -> None:
        """What is no URL is refused by name."""
        agent = HTTPAgent(MemoryReactorClock())
        with self.assertRaises(InvalidURL):
            agent.circuit_state("/path")
        wrong: Any = b"http://1.2.3.4"
        error = self.assertRaises(TypeError, agent.circuit_state, wrong)
        self.assertEqual(str(error), "HTTPAgent.circuit_state: url must be text, not bytes")
