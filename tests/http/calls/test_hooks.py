"""Tests of :mod:`twisted_net.http.calls.hooks`, through the client."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.http.fakes import canned
from tests.http.test_client import FRESH, URL, ClientTestCase, redirect
from twisted_net.http.calls.http_request import HttpRequest
from twisted_net.http.errors import FetchTimeout
from twisted_net.http.response import Response
from twisted_net.http.streaming import StreamedResponse


class RequestHookTests(ClientTestCase):
    """Hooks for requests."""

    def test_each(self) -> None:
        """They are called in order, with each request, also with one that the cache answers."""
        seen: list[str] = []

        def first(request: HttpRequest) -> None:
            seen.append(request.url)
            request.headers["X-Hop"] = str(len(seen))

        def second(request: HttpRequest) -> None:
            request.headers["X-Hop"] += "!"

        client = self.make(on_request=[first, second])
        self.answer(redirect(302, "/x"), canned(200, b"", [FRESH]))
        for _ in range(2):
            self.run_now(client.get(URL, allow_redirects=True))
            self.answer(redirect(302, "/x"))
        self.assertEqual(seen, [URL, "http://h.example/x"] * 2)
        self.assertEqual(self.fake.sent[1].header("x-hop"), ["2!"])
        self.assertEqual(len(self.fake.sent), 3)

    def test_credentials(self) -> None:
        """What a hook adds as credentials is not sent to another origin."""

        def add(request: HttpRequest) -> None:
            request.headers["Authorization"] = request.headers["X-Key"] = "k"

        client = self.make(on_request=add)
        self.answer(redirect(302, "http://other.example/"), canned(200))
        self.run_now(client.get(URL))
        first, second = self.fake.sent
        self.assertEqual(
            (first.header("authorization"), second.header("authorization")), (["k"], [])
        )
        self.assertEqual(second.header("x-key"), ["k"])

    def test_retries(self) -> None:
        """A request that is retried is as it was."""
        seen: list[HttpRequest] = []
        client = self.make(on_request=seen.append)
        self.answer(canned(503), canned(200))
        asking = self.start(client.get(URL))
        self.clock.advance(1.0)
        self.assertEqual((self.successResultOf(asking).attempts, len(seen)), (2, 1))

    def test_failure(self) -> None:
        """What one raises is raised by the call."""

        async def fail(request: HttpRequest) -> None:
            raise LookupError

        client = self.make(on_request=fail)
        self.failureResultOf(self.start(client.get(URL)), LookupError)
        self.failureResultOf(self.start(client.stream("GET", URL).__aenter__()), LookupError)
        self.assertEqual(self.fake.sent, [])


class ResponseHookTests(ClientTestCase):
    """Hooks for responses."""

    def test_each(self) -> None:
        """They are called with the last response of each call, also with one from the cache."""
        seen: list[Response | StreamedResponse] = []
        client = self.make(on_response=seen.append)
        self.answer(redirect(302, "/x"), canned(200, b"x", [FRESH]))
        response = self.run_now(client.get(URL))
        again = self.run_now(client.get("http://h.example/x"))
        streamed = self.run_now(client.stream("GET", "http://h.example/x").__aenter__())
        self.assertEqual([id(one) for one in seen], [id(response), id(again), id(streamed)])
        self.assertEqual((again.attempts, streamed.attempts), (0, 0))

    def test_raise_for_status(self) -> None:
        """A hook may raise for a status, or whatever it wants; a streamed response is closed."""
        client = self.make(on_response=lambda response: response.raise_for_status())
        self.answer(canned(404), canned(404))
        self.assertIn("answered 404", str(self.failureResultOf(self.start(client.get(URL))).value))
        streaming = self.start(client.stream("GET", URL).__aenter__())
        self.assertIn("answered 404", str(self.failureResultOf(streaming).value))

    def test_deadline(self) -> None:
        """A coroutine function is awaited, within the time of the call."""
        held: Deferred[None] = Deferred()

        async def wait(response: Any) -> None:
            await held

        client = self.make(on_response=wait)
        self.answer(canned(200), canned(200))
        asking = self.start(client.get(URL, timeout=5.0))
        self.clock.advance(4.0)
        self.assertNoResult(asking)
        held.callback(None)
        self.assertEqual(self.successResultOf(asking).status, 200)
        held = Deferred()
        asking = self.start(client.get(URL, timeout=5.0))
        self.clock.advance(5.0)
        self.assertEqual(self.failureResultOf(asking, FetchTimeout).value.phase, "hook")
        held = Deferred()
        self.answer(canned(200))
        asking = self.start(client.get(URL, timeout=None))
        asking.addErrback(lambda _: None)
        asking.cancel()
        self.assert_quiet(self.clock)
