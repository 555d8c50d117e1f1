"""Tests of :mod:`twisted_net.http.cache_agent`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import succeed
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from tests.http.fakes import FakeAgent, Gatherer, HttpTestCase, Source, canned
from twisted_net.errors import ConnectionBroken
from twisted_net.http.bodies import collect, response_fields
from twisted_net.http.cache_agent import CachingAgent
from twisted_net.http.caching import CacheSettings, Entry, Rules
from twisted_net.http.calls import Call
from twisted_net.http.retrying import RetryPolicy
from twisted_net.http.stores import MemoryStore

URL = b"http://1.2.3.4/p?q"
FRESH = ("Cache-Control", "max-age=60")


class CachingTests(HttpTestCase):
    """:class:`CachingAgent` asks the server only where it must."""

    def setUp(self) -> None:
        self.wall = 1_795_305_600.0
        self.store = MemoryStore()
        self.fake = FakeAgent([])
        self.call = Call(None, RetryPolicy(), None, 0)
        self.agent = self.make()

    def make(self, store: Any = None, **settings: Any) -> CachingAgent:
        """Give an agent with this cache."""
        rules = Rules(CacheSettings(**settings))
        return CachingAgent(
            self.fake, store or self.store, rules, call=self.call, wall=lambda: self.wall
        )

    def get(
        self,
        answer: Any = None,
        method: bytes = b"GET",
        agent: IAgent | None = None,
        **headers: str,
    ) -> tuple[int, bytes, int]:
        """Make a request; give status, body, and how many requests went out so far."""
        if answer is not None:
            self.fake.answers.append(answer)
        sent = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})
        asking = (agent or self.agent).request(method, URL, sent)
        self.response = self.successResultOf(asking)
        body, _ = self.successResultOf(collect(self.response))
        return self.response.code, body, len(self.fake.sent)

    def test_hit(self) -> None:
        """The second request is answered from the store, with its age."""
        self.assertEqual(self.get(canned(200, b"abc", [FRESH])), (200, b"abc", 1))
        self.assertIsNone(self.call.age)
        self.wall += 5.5
        self.assertEqual(self.get(), (200, b"abc", 1))
        self.assertEqual(self.call.age, 5.5)
        self.assertEqual(response_fields(self.response)["age"], "5")
        self.assertEqual(self.response.phrase, b"Reason")

    def test_hits_do_not_share_headers(self) -> None:
        """What one caller does to its headers does not reach the next."""
        self.get(canned(200, b"abc", [FRESH]))
        self.get()
        self.response.headers.setRawHeaders("cache-control", ["spoilt"])
        self.get()
        self.assertEqual(response_fields(self.response)["cache-control"], "max-age=60")

    def test_head(self) -> None:
        """HEAD is answered without a body."""
        self.get(canned(200, b"abc", [FRESH]))
        self.assertEqual(self.get(method=b"HEAD"), (200, b"", 1))

    def test_empty(self) -> None:
        """An answer without a body is kept too."""
        self.get(canned(204, b"", [FRESH]))
        self.assertEqual(self.get(), (204, b"", 1))

    def test_revalidate(self) -> None:
        """A stale one is asked about; 304 makes it fresh, and the caller sees what was stored."""
        self.get(canned(200, b"abc", [FRESH, ("ETag", '"x"')]))
        self.wall += 60
        answer = canned(304, b"", [FRESH, ("X-New", "1")])
        self.assertEqual(self.get(answer, X_Own="1"), (200, b"abc", 2))
        self.assertEqual(self.fake.sent[1].header("if-none-match"), ['"x"'])
        self.assertEqual(self.fake.sent[1].header("x-own"), ["1"])
        self.assertEqual(response_fields(self.response)["x-new"], "1")
        self.assertEqual(self.call.age, 0.0)
        self.assertEqual(self.get(), (200, b"abc", 2))

    def test_replaced(self) -> None:
        """Another answer than 304 takes its place."""
        self.get(canned(200, b"abc", [FRESH, ("ETag", '"x"')]))
        self.wall += 60
        self.assertEqual(self.get(canned(200, b"new", [FRESH])), (200, b"new", 2))
        self.assertIsNone(self.call.age)
        self.assertEqual(self.get(), (200, b"new", 2))

    def test_callers_own_condition(self) -> None:
        """304 to a condition of the caller is the caller's."""
        self.assertEqual(self.get(canned(304), If_None_Match='"x"'), (304, b"", 1))

    def test_only_if_cached(self) -> None:
        """Nothing stored: 504, and nothing goes out."""
        self.assertEqual(self.get(Cache_Control="only-if-cached"), (504, b"", 0))

    def test_invalidation(self) -> None:
        """A POST that did not fail removes what is stored."""
        self.get(canned(200, b"abc", [FRESH]))
        self.get(canned(500), b"POST")
        self.assertEqual(self.get(), (200, b"abc", 2))
        self.get(canned(200), b"POST")
        self.assertEqual(self.get(canned(200, b"new")), (200, b"new", 4))

    def test_broken_body(self) -> None:
        """A body that breaks off, or of which nobody knows whether it did, is not kept."""
        for reason in (ConnectionBroken("body", "x"), PotentialDataLoss()):
            answer = canned(200, b"ab", [FRESH], Failure(reason))
            self.fake.answers.append(answer)
            response = self.successResultOf(self.agent.request(b"GET", URL))
            response.deliverBody(Gatherer())
            self.assertEqual(self.store.entries, 0)

    def test_too_large(self) -> None:
        """A body over the limit passes and is not kept."""
        agent = self.make(max_object=2)
        self.assertEqual(self.get(canned(200, b"abc", [FRESH]), agent=agent), (200, b"abc", 1))
        self.assertEqual(self.store.entries, 0)
        source = Source([FRESH])
        self.fake.answers.append(source.response)
        reading = collect(self.successResultOf(agent.request(b"GET", URL)))
        for piece in (b"ab", b"c", b"d"):
            source.send(piece)
        source.end(ResponseDone())
        self.assertEqual(self.successResultOf(reading)[0], b"abcd")
        self.assertEqual(self.store.entries, 0)

    def test_not_read(self) -> None:
        """What is never read is never kept."""
        self.fake.answers.append(canned(200, b"abc", [FRESH]))
        self.successResultOf(self.agent.request(b"GET", URL))
        self.assertEqual(self.store.entries, 0)

    def test_users(self) -> None:
        """One user's answer is not another's."""
        self.get(canned(200, b"one", [FRESH]), Authorization="1")
        self.assertEqual(
            self.get(canned(200, b"two", [FRESH]), Authorization="2"), (200, b"two", 2)
        )
        self.assertEqual(self.get(Authorization="1"), (200, b"one", 2))

    def test_slow_store(self) -> None:
        """A store may answer later."""
        inner = self.store

        class Slow(MemoryStore):
            def get(self, key: str) -> Any:
                return succeed(inner.get(key))

            def put(self, key: str, entry: Entry) -> None:
                inner.put(key, entry)

        agent = self.make(Slow())
        self.get(canned(200, b"abc", [FRESH]), agent=agent)
        self.assertEqual(self.get(agent=agent), (200, b"abc", 1))

    def test_alone(self) -> None:
        """It needs no call to serve."""
        agent = CachingAgent(self.fake, self.store, Rules(CacheSettings()))
        self.assertEqual(self.get(canned(200, b"abc"), agent=agent), (200, b"abc", 1))
