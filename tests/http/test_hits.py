"""Tests of :mod:`twisted_net.http.hits`, the short way, against the long one."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.testing import MemoryReactorClock

from tests.http.fakes import FakeAgent, HttpTestCase, canned
from twisted_net.http.client import Client
from twisted_net.http.stores import MemoryStore

URL = "http://h.example/p?q=1"
FRESH = ("Cache-Control", "max-age=60")


class HitTests(HttpTestCase):
    """A hit by the short way is the hit that the layers give."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.fake = FakeAgent([])
        self.client = self.make()

    def make(self, **options: Any) -> Client:
        """Give a client whose wall clock is its clock."""
        return Client(self.clock, agent=self.fake, wall=self.clock.seconds, **options)

    def get(self, url: str = URL, **options: Any) -> Any:
        """GET it now."""
        return self.run_now(self.client.get(url, **options))

    def fill(self, body: bytes = b"abc", code: int = 200, *headers: tuple[str, str]) -> None:
        """Let one answer be stored."""
        self.fake.answers.append(canned(code, body, [FRESH, *headers]))
        self.get(allow_redirects=False)

    def test_same_response(self) -> None:
        """All members are equal, whichever way it went."""
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
        """A body over the limit of the call, and a redirect to follow, take the long way."""
        self.fill()
        self.assertEqual(self.get(max_body=3).body, b"abc")
        self.setUp()
        self.fill(b"", 301, ("Location", "/other"))
        self.assertEqual(self.get(allow_redirects=False).status, 301)
        self.fake.answers.append(canned(200, b"there"))
        self.assertEqual(self.get().body, b"there")

    def test_default_ttl(self) -> None:
        """A lifetime of the call counts."""
        self.fake.answers.append(canned(200, b"abc"))
        self.get(default_ttl=9.0)
        self.assertEqual(self.get(default_ttl=9.0).attempts, 0)
        self.clock.advance(9)
        self.fake.answers.append(canned(200, b"new"))
        self.assertEqual(self.get(default_ttl=9.0).body, b"new")

    def test_other_stores(self) -> None:
        """A store that is not in memory is asked by the layers alone."""
        inner = MemoryStore()

        class Slow(MemoryStore):
            def get(self, key: str) -> Any:
                return succeed(inner.get(key))

            def put(self, key: str, entry: Any) -> None:
                inner.put(key, entry)

        self.client = self.make(store=Slow())
        self.fill()
        self.assertEqual((self.get().body, len(self.fake.sent)), (b"abc", 1))
