"""Tests of :mod:`twisted_net.testing`: the server in memory, and an hour in milliseconds."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.config.tls import ClientTlsSettings
from twisted_net.http.errors import CannotConnect, CircuitOpen, ConnectionBroken, FetchTimeout
from twisted_net.http.retry.settings import CircuitBreakerSettings, RetryPolicy
from twisted_net.http.settings import HttpSettings
from twisted_net.testing import START_TIME, MemoryWeb, RecordedRequest, StubResponse

URL = "http://api.example/"


def serving(*answers: Any, **arguments: Any) -> MemoryWeb:
    """Return a client that gets these responses in order, the last one again and again."""
    left = list(answers)
    return MemoryWeb(lambda _: left.pop(0) if len(left) > 1 else left[0], **arguments)


class MemoryWebTests(SynchronousTestCase):
    """:class:`MemoryWeb` is a client with a server and a clock of its own."""

    def test_settings_of_connections(self) -> None:
        """It takes the settings of a program with certificates, without their files, or a proxy."""
        for settings in (
            HttpSettings(tls=ClientTlsSettings(ca="/none", certificate="/none")),
            HttpSettings(tls=ClientTlsSettings(verify=False)),
            HttpSettings(proxy="http://proxy.example:3128", no_proxy=("localhost",)),
        ):
            web = serving(StubResponse(200, b"ok"), settings=settings)
            self.assertEqual(web.run(web.client.get("https://api.example/")).body, b"ok")

    def test_request(self) -> None:
        """The server records what is sent, and when."""
        web = serving(StubResponse(201, b"[1]"))
        web.clock.advance(5)
        self.assertEqual(web.run(web.client.post_json(URL, {"a": 1})), [1])
        (request,) = web.requests
        self.assertEqual((request.method, request.url, request.at), ("POST", URL, 5.0))
        self.assertEqual(request.body, b'{"a":1}')
        self.assertEqual(request.headers["content-type"], "application/json")

    def test_retries(self) -> None:
        """Waits advance the clock of the client."""
        web = serving(
            StubResponse(503, headers={"Retry-After": "20"}),
            CannotConnect("h", 1, "x"),
            StubResponse(),
        )
        response = web.run(web.client.get(URL))
        self.assertEqual((response.status, response.attempts), (200, 3))
        self.assertEqual([request.at for request in web.requests], [0.0, 20.5, 21.5])

    def test_cache_of_an_hour(self) -> None:
        """A response that is fresh for an hour is requested again after it."""
        web = serving(StubResponse(200, b"x", {"Cache-Control": "max-age=3600"}))
        web.run(web.client.get(URL))
        web.clock.advance(3599)
        hit = web.run(web.client.get(URL))
        self.assertEqual((hit.from_cache, hit.age), (True, 3599.0))
        web.clock.advance(1)
        self.assertFalse(web.run(web.client.get(URL)).from_cache)
        self.assertEqual(len(web.requests), 2)
        self.assertEqual(hit.headers["date"], "Sun, 22 Nov 2026 00:00:00 GMT")
        self.assertEqual(web.wall(), START_TIME + 3600)

    def test_breaker(self) -> None:
        """A circuit breaker opens, and allows a probe after its rest."""
        settings = HttpSettings(
            retry=RetryPolicy(retries=0), breaker=CircuitBreakerSettings(failures=2, rest=60.0)
        )
        web = serving(StubResponse(500), StubResponse(500), StubResponse(200), settings=settings)
        for _ in range(2):
            self.assertEqual(web.run(web.client.get(URL)).status, 500)
        self.assertRaises(CircuitOpen, web.run, web.client.get(URL))
        web.clock.advance(60)
        self.assertEqual(web.run(web.client.get(URL)).status, 200)

    def test_slow(self) -> None:
        """A delay advances the clock; a hedged request may overtake it."""
        web = serving(StubResponse(200, b"slow", delay=5.0), StubResponse(200, b"fast"))
        response = web.run(web.client.get(URL, hedge_after=1.0))
        self.assertEqual((response.body, response.elapsed), (b"fast", 1.0))
        self.assertEqual(web.clock.getDelayedCalls(), [])

    def test_broken_body(self) -> None:
        """A body may break off."""
        web = serving(
            StubResponse(200, b"ab", error=ConnectionBroken("body", "x")), StubResponse(200, b"abc")
        )
        self.assertEqual(web.run(web.client.get(URL)).body, b"abc")
        self.assertEqual(web.run(web.client.head(URL)).body, b"")

    def test_no_end(self) -> None:
        """A call that waits without a timer, or for too long, raises TimeoutError."""
        web = serving(StubResponse(delay=50.0))
        never: Deferred[None] = Deferred()
        self.assertRaises(TimeoutError, web.run, never)
        self.assertRaises(TimeoutError, web.run, web.client.get(URL), limit=1.0)

    def test_errors(self) -> None:
        """An error is raised unchanged."""
        web = MemoryWeb(self.refuse)
        self.assertRaises(CannotConnect, web.run, web.client.get(URL, retries=0))

    def refuse(self, request: RecordedRequest) -> CannotConnect | FetchTimeout:
        """Fail every request."""
        return CannotConnect("api.example", 80, "refused")
