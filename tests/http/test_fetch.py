"""Tests of :mod:`twisted_net.http.fetch`."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from tests.http.fakes import FakeAgent, HttpTestCase, ServerSide, canned
from twisted_net.errors import TooBusy
from twisted_net.http.client import Client
from twisted_net.http.errors import AddressRefused, BodyTooLarge, ClientClosed
from twisted_net.http.fetch import LARGE_BODY, MAX_CONTAINERS, MAX_VALUES, Fetcher
from twisted_net.http.settings import FetchSettings, HttpSettings

URL = "http://h.example/"


class FetcherTests(HttpTestCase):
    """:class:`Fetcher` describes the response of a URL."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.fake = FakeAgent([])
        self.fetcher = Fetcher(Client(self.reactor, agent=self.fake), FetchSettings())

    def fetch(self, body: bytes, *headers: tuple[str, str], status: int = 200) -> dict[str, Any]:
        """Fetch a response with this body and header."""
        self.fake.answers.append(canned(status, body, headers))
        fetching = Deferred.fromCoroutine(self.fetcher.fetch(URL))
        self.reactor.advance(0.0)
        found = self.successResultOf(fetching)
        json.dumps(found)  # it must be valid JSON
        return found

    def content(self, body: bytes, kind: str | None) -> tuple[str, Any]:
        """Return kind and body of the result."""
        found = self.fetch(body, *([] if kind is None else [("Content-Type", kind)]))
        return found["kind"], found["body"]

    def test_members(self) -> None:
        """All members, with the header fields of the settings."""
        found = self.fetch(
            b"hi", ("Content-Type", "text/plain"), ("X-Secret", "1"), ("ETag", '"e"')
        )
        self.assertEqual(
            found,
            {
                "status": 200,
                "headers": {
                    "content-type": "text/plain",
                    "content-length": "2",
                    "etag": '"e"',
                },
                "kind": "text",
                "body": "hi",
                "from_cache": False,
                "elapsed": 0.0,
            },
        )

    def test_large(self) -> None:
        """A large body is decoded in a turn of its own, of those that all connections share."""
        body = b'["' + b"x" * LARGE_BODY + b'"]'
        self.fake.answers.append(canned(200, body, [("Content-Type", "application/json")]))
        fetching = Deferred.fromCoroutine(self.fetcher.fetch(URL))
        self.assertNoResult(fetching)
        self.reactor.advance(0.0)
        self.assertEqual(self.successResultOf(fetching)["kind"], "json")

    def test_too_many(self) -> None:
        """So many run at a time; none of those for whom they run keeps all places."""
        owner = "ann"
        client = Client(self.reactor, agent=self.fake)
        self.fetcher = Fetcher(client, FetchSettings(max_running=4), lambda: owner)

        def begin() -> Deferred[dict[str, object]]:
            self.fake.answers.append(Deferred())
            return Deferred.fromCoroutine(self.fetcher.fetch(URL + str(len(self.fake.sent))))

        first, second = begin(), begin()
        error = self.failureResultOf(begin(), TooBusy).value
        self.assertEqual(error.details(), {"limit": 2})
        self.fake.answers.pop()
        owner = "bob"
        third = begin()
        self.failureResultOf(begin(), TooBusy)
        self.fake.answers.pop()
        owner = ""
        begin()
        error = self.failureResultOf(begin(), TooBusy).value
        self.assertEqual(str(error), "busy: 4 fetches are pending; try again later")
        self.fake.answers.pop()
        for call in (first, second, third):
            call.cancel()
            self.failureResultOf(call)
        owner = "ann"
        self.assertEqual(self.fetch(b"hi")["body"], "hi")

    def test_headers_shown(self) -> None:
        """Which fields are shown is a setting, in any case."""
        settings = FetchSettings(headers=("X-A",))
        self.fetcher = Fetcher(Client(self.reactor, agent=self.fake), settings)
        found = self.fetch(b"", ("x-a", "1"), ("x-a", "2"), ("etag", "x"))
        self.assertEqual(found["headers"], {"x-a": "1, 2"})

    def test_any_status(self) -> None:
        """A status of failure is a result."""
        self.assertEqual(self.fetch(b"no", status=404)["status"], 404)

    def test_accepts_anything(self) -> None:
        """It accepts any content type."""
        self.fetch(b"")
        self.assertEqual(self.fake.sent[0].header("accept"), ["*/*"])

    def test_cache(self) -> None:
        """The second response may come from the cache."""
        self.assertFalse(self.fetch(b"x", ("Cache-Control", "max-age=9"))["from_cache"])
        self.assertTrue(self.run_now(self.fetcher.fetch(URL))["from_cache"])

    def test_kinds(self) -> None:
        """JSON and text are recognised; all else is base64."""
        for body, kind, expected in (
            (b'{"a":[1]}', "application/json", ("json", {"a": [1]})),
            (b"[1]", "application/problem+JSON; charset=utf-8", ("json", [1])),
            (b"null", "application/json", ("json", None)),
            (b"{nope", "application/json", ("text", "{nope")),
            (b"[" * 900 + b"]" * 900, "application/json", ("text", "[" * 900 + "]" * 900)),
            (b"[" * 100_000, "application/json", ("text", "[" * 100_000)),
            (b'{"a":NaN}', "application/json", ("text", '{"a":NaN}')),
            (b'"\\ud800"', "application/json", ("text", '"\\ud800"')),
            (b"\xff{", "application/json", ("base64", "/3s=")),
            (b"<p>", "text/html", ("text", "<p>")),
            (b"<x/>", "application/xml", ("text", "<x/>")),
            (b"\xfc", "text/plain; charset=latin-1", ("text", "ü")),
            (b"\xfc", "text/plain", ("base64", "/A==")),
            (b"plain", None, ("text", "plain")),
            (b"\x00\xff", None, ("base64", "AP8=")),
            (b"abc", "image/png", ("base64", "YWJj")),
            (b"", "image/png", ("base64", "")),
            (b"", None, ("text", "")),
        ):
            with self.subTest(body=body, kind=kind):
                self.assertEqual(self.content(body, kind), expected)

    def test_many_containers(self) -> None:
        """JSON of as many arrays and objects as the limit says is decoded, other JSON is text."""
        for count, kind in ((MAX_CONTAINERS, "json"), (MAX_CONTAINERS + 1, "text")):
            body = b"[" + b",".join([b"[]", b"{}"] * (count // 2))[: 3 * (count - 1) - 1] + b"]"
            found = self.fetch(body, ("Content-Type", "application/json"))
            self.assertEqual(body.count(b"[") + body.count(b"{"), count)
            self.assertEqual(found["kind"], kind)

    def test_many_values(self) -> None:
        """So it is with the values; commas in strings are none."""
        for body, kind in (
            (b"[" + b",".join([b"1"] * (MAX_VALUES - 1)) + b"]", "json"),
            (b"[" + b",".join([b"1"] * (MAX_VALUES + 1)) + b"]", "text"),
            (b'["' + b"," * 2 * MAX_VALUES + b'"]', "json"),
        ):
            found = self.fetch(body, ("Content-Type", "application/json"))
            self.assertEqual(found["kind"], kind)

    def test_guarded(self) -> None:
        """A guarded one reaches public addresses only, and what the settings allow."""
        fetcher = Fetcher.guarded(self.reactor)
        for url in ("http://127.0.0.1/", "http://169.254.169.254/", "http://localhost/"):
            failing = self.start(fetcher.fetch(url))
            self.failureResultOf(failing, AddressRefused)
        self.assertEqual(self.reactor.tcpClients, [])
        fetcher = Fetcher.guarded(self.reactor, HttpSettings(), FetchSettings(allow=("127.0.0.1",)))
        fetching = self.start(fetcher.fetch("http://127.0.0.1:8080/"))
        ServerSide(self.reactor).send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        self.assertEqual(self.successResultOf(fetching)["body"], "hi")
        closing = self.start(fetcher.close())
        self.reactor.advance(0)
        self.successResultOf(closing)
        self.failureResultOf(self.start(fetcher.fetch(URL)), ClientClosed)

    def test_too_large(self) -> None:
        """A body over the limit of the settings is refused."""
        settings = FetchSettings(public=True, ports=(), max_body=3)
        fetcher = Fetcher.guarded(self.reactor, None, settings)
        fetching = self.start(fetcher.fetch("http://1.1.1.1/"))
        ServerSide(self.reactor).send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd")
        self.failureResultOf(fetching, BodyTooLarge)
