"""Tests of :mod:`twisted_net.http.cache.memory_hit`, the fast path, compared with all steps."""

from __future__ import annotations

import gzip
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from typing_extensions import override

from tests.http.fakes import FakeAgent, HttpTestCase, canned
from twisted_net.http.agent import HTTPAgent
from twisted_net.http.agent_edge import AgentEdge
from twisted_net.http.bodies import BodyResponse, collect
from twisted_net.http.cache.memory_hit import Hit
from twisted_net.http.cache.stores import MemoryStore
from twisted_net.http.client import Client
from twisted_net.http.content_coding import ACCEPTED
from twisted_net.http.fields import HeaderFields
from twisted_net.http.request import OutgoingRequest

URL = "http://h.example/p?q=1"
FRESH = ("Cache-Control", "max-age=60")


class HitTests(HttpTestCase):
    """A hit by the fast path equals that of all steps."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.fake = FakeAgent([])
        self.client = self.make()

    def make(self, **options: Any) -> Client:
        """Return a client whose wall clock is its clock."""
        return Client(self.clock, agent=self.fake, wall=self.clock.seconds, **options)

    def get(self, url: str = URL, **options: Any) -> Any:
        """GET it now."""
        return self.run_now(self.client.get(url, **options))

    def fill(self, body: bytes = b"abc", code: int = 200, *headers: tuple[str, str]) -> None:
        """Let one response be stored."""
        self.fake.answers.append(canned(code, body, [FRESH, *headers]))
        self.get(allow_redirects=False)

    def test_same_response(self) -> None:
        """All members are equal by both ways."""
        self.fill(b"abc", 200, ("X-A", "1"), ("X-A", "2"))
        self.clock.advance(7)
        short, long = self.get(), self.get(headers={})
        for name in ("method", "url", "status", "reason", "body", "attempts", "age", "from_cache"):
            self.assertEqual(getattr(short, name), getattr(long, name), name)
        self.assertEqual(
            {name: short.headers.get_all(name) for name in short.headers},
            {name: long.headers.get_all(name) for name in long.headers},
        )
        self.assertEqual((short.age, short.headers["age"]), (7.0, "7"))
        self.assertEqual(len(self.fake.sent), 1)

    def test_vary(self) -> None:
        """The header that is sent by default decides which variant fits."""
        self.fill(b"abc", 200, ("Vary", "Accept, Accept-Encoding, User-Agent"))
        self.assertEqual(self.get().body, b"abc")
        self.fake.answers.append(canned(200, b"other"))
        self.assertEqual(self.get(headers={"Accept": "text/html"}).body, b"other")

    def test_limits(self) -> None:
        """A body over the limit of the call, and a redirect to follow, go through all steps."""
        self.fill()
        self.assertEqual(self.get(max_body=3).body, b"abc")
        self.setUp()
        self.fill(b"", 301, ("Location", "/other"))
        self.assertEqual(self.get(allow_redirects=False).status, 301)
        self.fake.answers.append(canned(200, b"there"))
        self.assertEqual(self.get().body, b"there")

    def test_default_ttl(self) -> None:
        """The ``default_ttl`` of the call counts."""
        self.fake.answers.append(canned(200, b"abc"))
        self.get(default_ttl=9.0)
        self.assertEqual(self.get(default_ttl=9.0).attempts, 0)
        self.clock.advance(9)
        self.fake.answers.append(canned(200, b"new"))
        self.assertEqual(self.get(default_ttl=9.0).body, b"new")

    def test_other_stores(self) -> None:
        """A store that is not in memory is used by the step of the cache alone."""
        inner = MemoryStore()

        class Slow(MemoryStore):
            def get(self, key: str) -> Any:
                return succeed(inner.get(key))

            def put(self, key: str, entry: Any) -> None:
                inner.put(key, entry)

        self.client = self.make(store=Slow())
        self.fill()
        self.assertEqual((self.get().body, len(self.fake.sent)), (b"abc", 1))

    def test_memory_of_a_file(self) -> None:
        """A store in a file is asked for what it has in memory; only without it, for the rest."""
        asked: list[str] = []

        class Tiered(MemoryStore):
            get_from_memory = MemoryStore.get

            def get(self, key: str) -> Any:
                asked.append(key)
                return succeed(MemoryStore.get(self, key))

        self.client = self.make(store=Tiered())
        self.fill()
        self.assertEqual((asked, len(self.fake.sent)), ([URL], 1))
        self.assertEqual((self.get().body, self.get().age), (b"abc", 0.0))
        self.assertEqual((asked, len(self.fake.sent)), ([URL], 1))


class AllSteps(AgentEdge):
    """An agent whose requests do not take the fast path."""

    def __init__(self, agent: HTTPAgent) -> None:
        self._agent = agent

    @override
    async def respond(self, request: OutgoingRequest) -> BodyResponse:
        return await self._agent.send(request, self._agent.new_call())


class AgentHitTests(HttpTestCase):
    """:class:`HTTPAgent` answers by the fast path as by all steps."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.fake = FakeAgent([])
        self.agent = HTTPAgent(self.clock, agent=self.fake, wall=self.clock.seconds)

    def get(self, agent: IAgent | None = None, /, **fields: str) -> tuple[Any, ...]:
        """GET it: all that the response has."""
        headers = Headers({name.replace("_", "-"): [value] for name, value in fields.items()})
        response = self.successResultOf(
            (agent or self.agent).request(b"GET", URL.encode(), headers)
        )
        body, reason = self.successResultOf(collect(response))
        return (
            response.version,
            response.code,
            response.phrase,
            response.length,
            list(response.headers.getAllRawHeaders()),
            body,
            reason.type,
        )

    def fill(self, *headers: tuple[str, str], body: bytes = b"abc", **fields: str) -> None:
        """Let one response be stored."""
        self.fake.answers.append(canned(200, body, [FRESH, *headers]))
        self.get(**fields)
        self.fake.sent.clear()

    def test_same_response(self) -> None:
        """All members are equal, those of the header as bytes."""
        self.fill(("X-A", "1"), ("x-a", "\xe9"), ("ETag", '"1"'))
        self.clock.advance(7)
        self.assertEqual(self.get(), self.get(AllSteps(self.agent)))
        self.assertIn((b"Age", [b"7"]), self.get()[4])
        self.assertEqual(self.fake.sent, [])

    def test_clock_steps(self) -> None:
        """Its age is by the steady clock; a process whose clock is behind asks the server."""
        wall = 1_795_305_600.0
        self.clock.advance(100.0)
        store = MemoryStore()

        def make(ahead: float) -> HTTPAgent:
            return HTTPAgent(self.clock, agent=self.fake, wall=lambda: wall + ahead, store=store)

        self.agent = make(0.0)
        self.fill()
        self.clock.advance(7.0)
        for step in (-3600.0, 7200.0):
            wall += step
            self.assertIn((b"Age", [b"7"]), self.get()[4])
        self.assertEqual(self.fake.sent, [])
        wall = 1_795_305_600.0
        for agent, requests in ((make(8.0), 0), (make(-1.0), 1)):
            self.fake.answers.append(canned(200, b"new"))
            self.get(agent)
            self.assertEqual(len(self.fake.sent), requests)
            self.fake.answers.clear()

    def test_headers_are_the_callers(self) -> None:
        """Changes by one caller to its header do not affect another."""
        self.fill()
        first = self.successResultOf(self.agent.request(b"GET", URL.encode()))
        first.headers.removeHeader(b"cache-control")
        self.assertIn((b"Cache-Control", [b"max-age=60"]), self.get()[4])

    def test_variant(self) -> None:
        """The variant is selected by the header as it would be sent."""
        self.fill(("Vary", "Accept, Accept-Encoding"), accept="a/b")
        for coding in ("gzip", ACCEPTED):
            self.assertEqual(self.get(accept="a/b", accept_encoding=coding)[5], b"abc")
        self.assertEqual(self.fake.sent, [])
        self.fake.answers = [canned(200, b"1"), canned(200, b"2")]
        self.assertEqual(self.get(accept="c/d")[5], b"1")
        self.assertEqual(self.get(accept="a/b", accept_encoding="identity")[5], b"2")

    def test_the_long_way(self) -> None:
        """A request with cache-relevant fields goes through all steps."""
        self.fill(("ETag", '"1"'))
        self.assertEqual(self.get(range="bytes=1-1")[5], b"b")
        self.assertEqual(self.get(if_none_match='"1"')[1], 304)
        self.fake.answers = [canned(200, b"new", [FRESH]), canned(200, b"made")]
        self.assertEqual(self.get(cache_control="no-cache")[5], b"new")
        posting = self.agent.request(b"POST", URL.encode())
        self.assertEqual(self.successResultOf(collect(self.successResultOf(posting)))[0], b"made")

    def test_compressed(self) -> None:
        """A body that is stored compressed is served decompressed."""
        self.fill(("Content-Encoding", "gzip"), body=gzip.compress(b"abc"))
        self.assertEqual(self.get()[5], b"abc")
        self.assertEqual(self.fake.sent, [])


class ResponseTests(HttpTestCase):
    """:meth:`Hit.response` returns an ``IResponse``."""

    def test_bytes(self) -> None:
        """Text is Latin-1, so that each byte is the one that came."""
        hit = Hit(299, "\xe9", HeaderFields([("x-a", "\xff"), ("X-A", "1")]), b"", 0.0)
        response = hit.response()
        self.assertEqual(response.phrase, b"\xe9")
        self.assertEqual(response.headers.getRawHeaders(b"X-A"), [b"\xff", b"1"])
        self.assertEqual(response.length, 0)

    def test_fields(self) -> None:
        """The header is in Twisted's form when that is asked for, and not before."""
        hit = Hit(200, "OK", HeaderFields([("x-a", "1")]), b"", 0.0)
        response = hit.response()
        self.assertIs(response.fields, hit.fields)
        self.assertEqual(response.headers.getRawHeaders(b"x-a"), [b"1"])
