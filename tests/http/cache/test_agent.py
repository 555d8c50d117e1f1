"""Tests of :mod:`twisted_net.http.cache.agent`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from tests.http.fakes import FakeAgent, Gatherer, HttpTestCase, Source, canned
from twisted_net.http.bodies import BufferedResponse, collect, response_fields
from twisted_net.http.cache.agent import CachingAgent
from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.rules import Rules
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.cache.stores import MemoryStore
from twisted_net.http.call import Call
from twisted_net.http.dates import format_date
from twisted_net.http.errors import ConnectionBroken, InvalidURL
from twisted_net.http.fields import HeaderFields
from twisted_net.http.retry.settings import RetryPolicy

URL = b"http://1.2.3.4/p?q"
FRESH = ("Cache-Control", "max-age=60")


class CachingTests(HttpTestCase):
    """:class:`CachingAgent` asks the server only where it must."""

    def setUp(self) -> None:
        self.wall = 1_795_305_600.0
        self.now: float | None = None
        self.store = MemoryStore()
        self.fake = FakeAgent([])
        self.call = Call(None, RetryPolicy(), None, 0)
        self.agent = self.make()

    def make(self, store: Any = None, **settings: Any) -> CachingAgent:
        """Return an agent with this cache."""
        rules = Rules(CacheSettings(**settings))
        return CachingAgent(
            self.fake,
            store or self.store,
            rules,
            call=self.call,
            wall=lambda: self.wall,
            now=lambda: self.wall if self.now is None else self.now,
        )

    def get(
        self,
        answer: Any = None,
        method: bytes = b"GET",
        agent: IAgent | None = None,
        **headers: str,
    ) -> tuple[int, bytes, int]:
        """Make a request; return status, body, and the number of forwarded requests so far."""
        if answer is not None:
            self.fake.answers.append(answer)
        sent = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})
        asking = (agent or self.agent).request(method, URL, sent)
        self.response = self.successResultOf(asking)
        body, _ = self.successResultOf(collect(self.response))
        return self.response.code, body, len(self.fake.sent)

    def test_hit(self) -> None:
        """The second request is served from the store, with the response's age."""
        self.assertEqual(self.get(canned(200, b"abc", [FRESH])), (200, b"abc", 1))
        self.assertIsNone(self.call.age)
        self.wall += 5.5
        self.assertEqual(self.get(), (200, b"abc", 1))
        self.assertEqual(self.call.age, 5.5)
        self.assertEqual(response_fields(self.response)["age"], "5")
        self.assertEqual(self.response.phrase, b"Reason")

    def test_host(self) -> None:
        """``Host`` of the caller is part of the key, unless it is that of the URL."""
        self.get(canned(200, b"own", [FRESH]))
        self.assertEqual(self.get(canned(200, b"a", [FRESH]), host="a.example"), (200, b"a", 2))
        self.assertEqual(self.get(canned(200, b"b", [FRESH]), host="b.example"), (200, b"b", 3))
        self.assertEqual(self.get(host="a.example"), (200, b"a", 3))
        for host in ("1.2.3.4", "1.2.3.4:80", "0x1.2.772"):
            self.assertEqual(self.get(host=host), (200, b"own", 3))
        self.assertEqual(self.get(), (200, b"own", 3))
        self.agent = self.make(shared=True)
        self.assertEqual(self.get(canned(200, b"c", [FRESH]), host="c.example"), (200, b"c", 4))
        self.assertEqual(self.get(canned(200, b"d", [FRESH]), host="d.example"), (200, b"d", 5))

    def test_in_memory(self) -> None:
        """A body that is in memory, and known to be all, is stored before it is read."""
        for complete in (True, False):
            self.setUp()
            answer = BufferedResponse(200, b"OK", HeaderFields([FRESH]), b"abc", complete=complete)
            self.fake.answers.append(answer)
            self.successResultOf(self.agent.request(b"GET", URL))
            again = None if complete else canned(200, b"new", [FRESH])
            self.assertEqual(self.get(again), (200, b"abc", 1) if complete else (200, b"new", 2))

    def test_new_vary(self) -> None:
        """A 304 or a response to HEAD with another Vary narrows what is selected (§4.1)."""
        for method in (b"GET", b"HEAD"):
            with self.subTest(method=method):
                self.setUp()
                self.get(canned(200, b"abc", [FRESH, ("ETag", '"x"')]), x="1")
                self.assertEqual(self.get(x="2"), (200, b"abc", 1))
                self.wall += 70
                code = 304 if method == b"GET" else 200
                update = canned(code, b"", [FRESH, ("ETag", '"x"'), ("Vary", "X")])
                self.get(update, method, x="1")
                self.assertEqual(self.get(x="1"), (200, b"abc", 2))
                other = canned(200, b"two", [FRESH, ("Vary", "X")])
                self.assertEqual(self.get(other, x="2"), (200, b"two", 3))
                self.assertEqual(self.get(x="1"), (200, b"abc", 3))

    def test_unknown_request_directives(self) -> None:
        """A request with them is collapsed with others, as one without directives is."""
        answer: Deferred[Any] = Deferred()
        self.fake.answers.append(answer)
        sent = Headers({"Cache-Control": ["x"]})
        asking = [self.agent.request(b"GET", URL, sent) for _ in range(2)]
        answer.callback(canned(200, b"abc", [FRESH]))
        for response in asking:
            self.successResultOf(collect(self.successResultOf(response)))
        self.assertEqual(len(self.fake.sent), 1)

    def test_clock_steps(self) -> None:
        """Ages are by the clock of the cache, whatever the wall clock does before and after."""
        for step in (-3600.0, 3600.0):
            self.setUp()
            self.now = 1_795_305_600.0
            dated = [FRESH, ("Date", format_date(self.wall - 10))]
            self.get(canned(200, b"abc", dated))
            self.wall += step
            self.now += 5.5
            self.assertEqual(self.get(), (200, b"abc", 1))
            self.assertEqual(self.call.age, 15.5)
            self.now += 45.0
            dated = [FRESH, ("Date", format_date(self.wall))]
            self.assertEqual(self.get(canned(200, b"new", dated)), (200, b"new", 2))
            self.now += 1.0
            self.assertEqual(self.get(), (200, b"new", 2))
            self.assertEqual(self.call.age, 1.0)

    def test_step_during_a_request(self) -> None:
        """A step of the wall clock while a response is awaited adds nothing to its age."""
        for step in (-3600.0, 3600.0):
            self.setUp()
            self.now = 1_795_305_600.0
            answer: Deferred[Any] = Deferred()
            self.fake.answers.append(answer)
            asking = self.agent.request(b"GET", URL)
            self.wall += step
            self.now += 2.0
            answer.callback(canned(200, b"abc", [FRESH]))
            self.successResultOf(collect(self.successResultOf(asking)))
            self.assertEqual(self.get(), (200, b"abc", 1))
            self.assertEqual(self.call.age, 2.0)

    def test_hits_do_not_share_headers(self) -> None:
        """Changes by one caller to its headers do not affect the next caller."""
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
        """A response without a body is stored too."""
        self.get(canned(204, b"", [FRESH]))
        self.assertEqual(self.get(), (204, b"", 1))

    def test_revalidate(self) -> None:
        """A stale response is validated; a 304 makes it fresh, and its stored body is served."""
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
        """A response other than 304 replaces it."""
        self.get(canned(200, b"abc", [FRESH, ("ETag", '"x"')]))
        self.wall += 60
        self.assertEqual(self.get(canned(200, b"new", [FRESH])), (200, b"new", 2))
        self.assertIsNone(self.call.age)
        self.assertEqual(self.get(), (200, b"new", 2))

    def test_callers_own_condition(self) -> None:
        """A 304 to the caller's own condition is returned to the caller."""
        self.assertEqual(self.get(canned(304), If_None_Match='"x"'), (304, b"", 1))

    def test_only_if_cached(self) -> None:
        """With nothing stored the response is 504, and no request is forwarded."""
        self.assertEqual(self.get(Cache_Control="only-if-cached"), (504, b"", 0))

    def test_invalidation(self) -> None:
        """A successful POST removes the stored response."""
        self.get(canned(200, b"abc", [FRESH]))
        self.get(canned(500), b"POST")
        self.assertEqual(self.get(), (200, b"abc", 2))
        self.get(canned(200), b"POST")
        self.assertEqual(self.get(canned(200, b"new")), (200, b"new", 4))

    def test_broken_body(self) -> None:
        """A body that breaks off, or may have, is not stored."""
        for reason in (ConnectionBroken("body", "x"), PotentialDataLoss()):
            answer = canned(200, b"ab", [FRESH], Failure(reason))
            self.fake.answers.append(answer)
            response = self.successResultOf(self.agent.request(b"GET", URL))
            response.deliverBody(Gatherer())
            self.assertEqual(self.store.entries, 0)

    def test_too_large(self) -> None:
        """A body over the limit is passed on and not stored."""
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
        """A body that is never read is never stored."""
        self.fake.answers.append(canned(200, b"abc", [FRESH]))
        self.successResultOf(self.agent.request(b"GET", URL))
        self.assertEqual(self.store.entries, 0)

    def test_users(self) -> None:
        """A response to one user is not served to another."""
        self.get(canned(200, b"one", [FRESH]), Authorization="1")
        self.assertEqual(
            self.get(canned(200, b"two", [FRESH]), Authorization="2"), (200, b"two", 2)
        )
        self.assertEqual(self.get(Authorization="1"), (200, b"one", 2))

    def test_slow_store(self) -> None:
        """A store may return an awaitable."""
        inner = self.store

        class Slow(MemoryStore):
            def get(self, key: str) -> Any:
                return succeed(inner.get(key))

            def put(self, key: str, entry: Entry) -> None:
                inner.put(key, entry)

        agent = self.make(Slow())
        self.get(canned(200, b"abc", [FRESH]), agent=agent)
        self.assertEqual(self.get(agent=agent), (200, b"abc", 1))

    def test_waiting_store(self) -> None:
        """A caller who is cancelled while the store reads cancels the read, and nothing is sent."""
        reading: Deferred[list[Entry]] = Deferred()

        class Waiting(MemoryStore):
            def get(self, key: str) -> Any:
                return reading

        asked = self.make(Waiting()).request(b"GET", URL)
        self.assertNoResult(asked)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertTrue(reading.called)
        self.assertEqual(self.fake.sent, [])

    def test_cancelled_with_a_part(self) -> None:
        """A caller who leaves while the store looks up parts drops the new one."""

        class Waiting(MemoryStore):
            waits = False

            def get(self, key: str) -> Any:
                return Deferred() if self.waits else ()

        store = Waiting()
        source = Source([FRESH, ("ETag", '"a"'), ("Content-Range", "bytes 0-98/200")])
        source.response.code = 206
        answer: Deferred[Any] = Deferred()
        self.fake.answers.append(answer)
        asking = self.make(store).request(b"GET", URL, Headers({"Range": ["bytes=0-98"]}))
        store.waits = True
        answer.callback(source.response)
        self.assertNoResult(asking)
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(source.aborted, 1)

    def test_coroutine_of_a_store(self) -> None:
        """The awaitable may be a coroutine."""
        inner = self.store

        class Slow(MemoryStore):
            async def get(self, key: str) -> Any:  # type: ignore[override]  # as Store has it
                return inner.get(key)

        self.get(canned(200, b"abc", [FRESH]))
        self.assertEqual(self.get(agent=self.make(Slow())), (200, b"abc", 1))

    def test_alone(self) -> None:
        """It works without a call."""
        agent = CachingAgent(self.fake, self.store, Rules(CacheSettings()), now=lambda: self.wall)
        self.assertEqual(self.get(canned(200, b"abc"), agent=agent), (200, b"abc", 1))

    def test_caller_has_it(self) -> None:
        """A condition of the caller is evaluated on the stored response."""
        self.get(canned(200, b"abc", [FRESH, ("ETag", '"x"')]))
        self.assertEqual(self.get(If_None_Match='"x"'), (304, b"", 1))
        self.assertEqual(self.get(If_None_Match='"y"'), (200, b"abc", 1))

    def test_caller_has_a_newer_one(self) -> None:
        """A 304 about the caller's copy is returned to it, and does not change the store."""
        self.get(canned(200, b"abc", [FRESH, ("ETag", '"x"')]))
        self.wall += 60
        answer = canned(304, b"", [FRESH, ("ETag", '"y"')])
        self.assertEqual(self.get(answer, If_None_Match='"y"'), (304, b"", 2))
        self.assertEqual(self.fake.sent[1].header("if-none-match"), ['"x", "y"'])
        self.assertEqual(self.store.get(URL.decode())[0].response_time, self.wall - 60)

    def test_cache_status(self) -> None:
        """RFC 9211: ``Cache-Status`` follows the members of caches before this one."""
        upstream = ("Cache-Status", "edge; hit")
        self.get(canned(200, b"abc", [FRESH, ("ETag", '"x"'), upstream]))
        self.assertEqual(
            self.response.headers.getRawHeaders("cache-status"),
            ["edge; hit", "twisted_net; fwd=uri-miss; fwd-status=200; stored"],
        )
        self.wall += 5
        self.get()
        self.assertEqual(
            self.response.headers.getRawHeaders("cache-status"),
            ["edge; hit", "twisted_net; hit; ttl=55"],
        )
        self.wall += 60
        self.get(canned(304, b"", [FRESH]))
        self.assertEqual(
            self.response.headers.getRawHeaders("cache-status", [])[-1],
            "twisted_net; fwd=stale; fwd-status=304",
        )

    def test_stale_if_error(self) -> None:
        """RFC 5861 §4: within its window, a stale response is served in place of an error."""
        self.get(canned(200, b"abc", [("Cache-Control", "max-age=60, stale-if-error=60")]))
        self.wall += 70
        self.assertEqual(self.get(canned(503, b"sorry")), (200, b"abc", 2))
        self.assertEqual(self.get(ConnectionBroken("headers", "x")), (200, b"abc", 3))
        self.assertEqual(self.call.age, 70.0)
        self.wall += 60
        self.assertEqual(self.get(canned(503, b"sorry")), (503, b"sorry", 4))
        self.fake.answers.append(ConnectionBroken("headers", "x"))
        self.failureResultOf(self.agent.request(b"GET", URL), ConnectionBroken)

    def test_withdrawn(self) -> None:
        """After a newer response that must not be stored, the older one is not served."""
        self.get(canned(200, b"old", [FRESH]))
        no_store = [("Cache-Control", "no-store")]
        self.get(canned(200, b"new", no_store), Cache_Control="no-cache")
        self.assertEqual(self.get(canned(200, b"new", no_store)), (200, b"new", 3))

    def test_304_that_forbids(self) -> None:
        """A response that a 304 forbids to store is served once more, and removed."""
        self.get(canned(200, b"abc", [FRESH, ("ETag", '"x"')]))
        self.wall += 60
        answer = canned(304, b"", [("Cache-Control", "no-store")])
        self.assertEqual(self.get(answer), (200, b"abc", 2))
        self.assertEqual(self.store.entries, 0)

    def test_head_freshens(self) -> None:
        """A response to HEAD freshens a stored response, or removes it."""
        self.get(canned(200, b"abc", [FRESH, ("ETag", '"x"')]))
        self.wall += 60
        self.get(canned(200, b"", [FRESH, ("ETag", '"x"')]), b"HEAD")
        self.assertEqual(self.get(), (200, b"abc", 2))
        self.wall += 60
        self.get(canned(200, b"", [FRESH, ("ETag", '"y"')]), b"HEAD")
        self.assertEqual(self.store.entries, 0)
        self.get(canned(500), b"HEAD")

    def test_parts(self) -> None:
        """Partial responses are stored, combined, and served."""
        tag = ("ETag", '"x"')
        first = canned(206, b"abc", [FRESH, tag, ("Content-Range", "bytes 0-2/6")])
        self.assertEqual(self.get(first, Range="bytes=0-2"), (206, b"abc", 1))
        self.assertEqual(self.get(Range="bytes=1-2"), (206, b"bc", 1))
        rest = canned(206, b"def", [FRESH, tag, ("Content-Range", "bytes 3-5/6")])
        self.assertEqual(self.get(rest), (200, b"abcdef", 2))
        self.assertEqual(self.fake.sent[1].header("range"), ["bytes=3-"])
        self.assertEqual(self.get(), (200, b"abcdef", 2))

    def test_part_of_wrong_length(self) -> None:
        """A partial body of another length than ``Content-Range`` states is not stored."""
        wrong = canned(206, b"ab", [FRESH, ("Content-Range", "bytes 0-2/6")])
        self.get(wrong, Range="bytes=0-2")
        self.assertEqual(self.store.entries, 0)

    def test_caller_has_one_of_several(self) -> None:
        """A 304 to the tags of both sides validates the stored response only if it has its tag."""
        self.get(canned(200, b"abc", [FRESH, ("ETag", '"x"')]))
        self.wall += 60
        for fields, code in (([], 304), ([("ETag", 'W/"y"')], 304), ([("ETag", '"x"')], 200)):
            answer = canned(304, b"", fields)
            self.assertEqual(self.get(answer, If_None_Match='"y"')[0], code)
        self.wall += 60
        self.assertEqual(self.get(canned(304), If_None_Match='"x", *')[0], 304)
        self.assertEqual(self.get()[0], 200)

    def test_tags_against_a_date(self) -> None:
        """If the stored response has only a date, just the caller's tags are forwarded."""
        modified = ("Last-Modified", "Sun, 22 Nov 2026 00:00:00 GMT")
        self.get(canned(200, b"abc", [FRESH, modified]))
        self.wall += 60
        self.assertEqual(self.get(canned(304), If_None_Match='"y"'), (304, b"", 2))
        self.assertEqual(self.fake.sent[1].header("if-modified-since"), [])
        self.assertEqual(self.store.get(URL.decode())[0].response_time, self.wall - 60)

    def test_another_end(self) -> None:
        """A remainder that does not fit the stored part removes it, and all is requested."""
        for answer in (
            canned(206, b"ef", [FRESH, ("ETag", '"x"'), ("Content-Range", "bytes 4-5/6")]),
            canned(206, b"def", [FRESH, ("ETag", '"y"'), ("Content-Range", "bytes 3-5/6")]),
            canned(206, b"--x", [FRESH, ("Content-Type", "multipart/byteranges")]),
            canned(416, b"no", [("Content-Range", "bytes */3")]),
        ):
            self.store.remove(URL.decode())
            first = canned(206, b"abc", [FRESH, ("ETag", '"x"'), ("Content-Range", "bytes 0-2/6")])
            self.get(first, Range="bytes=0-2")
            self.fake.answers += [answer]
            self.assertEqual(self.get_two(canned(200, b"ABCDEF")), b"ABCDEF")

    def get_two(self, last: Any) -> bytes:
        """Make a request with one more response from the server; return its body."""
        self.fake.answers.append(last)
        asking = self.agent.request(b"GET", URL)
        return self.successResultOf(collect(self.successResultOf(asking)))[0]

    def test_content_length(self) -> None:
        """The ``Content-Length`` that Twisted's parser removes is restored, except for HEAD."""
        self.get(canned(200, b"abc"))
        self.assertEqual(response_fields(self.response)["content-length"], "3")
        self.get(canned(200, b""), b"HEAD")
        self.assertNotIn("content-length", response_fields(self.response))

    def test_bad_url(self) -> None:
        """An invalid URL fails the request's Deferred; nothing is raised."""
        self.failureResultOf(self.agent.request(b"GET", b"nonsense"), InvalidURL)

    def test_background_agent(self) -> None:
        """A background revalidation uses an agent of its own."""
        other = FakeAgent([canned(304, b"", [FRESH])])
        self.agent = CachingAgent(
            self.fake,
            self.store,
            Rules(CacheSettings()),
            wall=lambda: self.wall,
            now=lambda: self.wall,
            background_agent=lambda: (other, self.call),
        )
        text = "max-age=60, stale-while-revalidate=60"
        self.get(canned(200, b"abc", [("Cache-Control", text), ("ETag", '"x"')]))
        self.wall += 70
        self.assertEqual(self.get(), (200, b"abc", 1))
        self.assertEqual(len(other.sent), 1)
