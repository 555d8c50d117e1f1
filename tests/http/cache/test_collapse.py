"""Tests of :mod:`twisted_net.http.cache.collapse` and of how the caching layer flies them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.http.fakes import FakeAgent, Gatherer, HttpTestCase, Source, canned
from twisted_net.http.bodies import collect, response_fields
from twisted_net.http.cache.agent import CachingAgent
from twisted_net.http.cache.collapse import (
    MAX_UNSTORABLE_KEYS,
    UNSTORABLE_SECONDS,
    RequestCollapser,
    UnstorableKeys,
    is_caller_specific,
)
from twisted_net.http.cache.rules import Rules
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.cache.stores import MemoryStore
from twisted_net.http.call import Call, Deadline
from twisted_net.http.errors import BodyTooLarge, ConnectionBroken, FetchTimeout
from twisted_net.http.retry.settings import RetryPolicy

URL = b"http://1.2.3.4/p?q"
FRESH = ("Cache-Control", "max-age=60")


class CollapseTestCase(HttpTestCase):
    """Callers of one cache, whose server answers when the test says so."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = 1_795_305_600.0
        self.store = MemoryStore()
        self.rules = Rules(CacheSettings(max_object=100))
        self.collapser = RequestCollapser(self.clock)
        self.fake = FakeAgent([])
        self.cancelled = 0

    def held(self) -> Deferred[IResponse]:
        """Let the server answer the next request later, with what the test gives."""

        def cancel(waiting: Deferred[IResponse]) -> None:
            self.cancelled += 1

        answer: Deferred[IResponse] = Deferred(cancel)
        self.fake.answers.append(answer)
        return answer

    def ask(
        self, method: bytes = b"GET", deadline: Deadline | None = None, **fields: str
    ) -> Deferred[IResponse]:
        """Let one more caller ask."""
        call = Call(deadline, RetryPolicy(), None, 0)
        agent = CachingAgent(
            self.fake,
            self.store,
            self.rules,
            call=call,
            wall=lambda: self.wall,
            collapser=self.collapser,
        )
        headers = Headers({name.replace("_", "-"): [value] for name, value in fields.items()})
        return agent.request(method, URL, headers)

    def body(self, asking: Deferred[IResponse]) -> bytes:
        """Read a body that is there."""
        return self.successResultOf(collect(self.successResultOf(asking)))[0]

    def status(self, asking: Deferred[IResponse]) -> str:
        """Give where a response says that it came from."""
        return response_fields(self.successResultOf(asking))["cache-status"]


class CollapseTests(CollapseTestCase):
    """However many ask for the same at once, one request goes out."""

    def test_hundred(self) -> None:
        """A hundred callers of one cold URL make one request."""
        answer = self.held()
        callers = [self.ask() for _ in range(100)]
        self.assertEqual(len(self.fake.sent), 1)
        answer.callback(canned(200, b"abc", [FRESH]))
        self.assertIn("collapsed", self.status(callers.pop()))
        self.assertNotIn("collapsed", self.status(callers.pop(0)))
        self.assertEqual({self.body(caller) for caller in callers}, {b"abc"})
        self.assertEqual(len(self.fake.sent), 1)

    def test_not_stored(self) -> None:
        """An answer that is for one alone lets the others go out together, at once."""
        answer = self.held()
        callers = [self.ask() for _ in range(3)]
        self.fake.answers += [canned(200, b"2"), canned(200, b"3")]
        answer.callback(canned(200, b"1", [("Cache-Control", "no-store")]))
        self.assertEqual([self.body(caller) for caller in callers], [b"1", b"2", b"3"])

    def test_vary(self) -> None:
        """Callers whom ``Vary`` parts get their own, one request for each kind."""
        answer, other = self.held(), self.held()
        callers = [self.ask(accept_language=each) for each in ("en", "de", "de", "en")]
        varying = [FRESH, ("Vary", "Accept-Language")]
        answer.callback(canned(200, b"en", varying))
        self.assertEqual(self.body(callers[0]), b"en")
        self.assertEqual(self.body(callers[3]), b"en")
        other.callback(canned(200, b"de", varying))
        self.assertEqual([self.body(each) for each in callers[1:3]], [b"de", b"de"])
        self.assertEqual(len(self.fake.sent), 2)

    def test_users(self) -> None:
        """Nobody waits for the request of another user."""
        self.held(), self.held()
        self.ask(authorization="1")
        self.ask(authorization="2")
        self.assertEqual(len(self.fake.sent), 2)

    def test_own_terms(self) -> None:
        """Who says more than what it wants is not answered by another's request."""
        for _ in range(4):
            self.held()
        self.ask()
        self.ask(cache_control="no-cache")
        self.ask(range="bytes=0-1")
        self.ask(b"HEAD")
        self.assertEqual(len(self.fake.sent), 4)

    def test_revalidation(self) -> None:
        """A stale answer is asked about once."""
        self.fake.answers.append(canned(200, b"abc", [FRESH, ("ETag", '"x"')]))
        self.body(self.ask())
        self.wall += 60
        answer = self.held()
        callers = [self.ask() for _ in range(3)]
        answer.callback(canned(304, b"", [FRESH]))
        self.assertEqual({self.body(caller) for caller in callers}, {b"abc"})
        self.assertEqual(len(self.fake.sent), 2)


class InVainTests(CollapseTestCase):
    """Nobody waits for what is not stored, once that is known."""

    def learn(self, *fields: tuple[str, str], code: int = 200, body: bytes = b"x") -> None:
        """Let one caller have such an answer; from here on, the server holds its answers."""
        self.fake.answers.append(canned(code, body, fields))
        self.body(self.ask())
        self.fake.sent.clear()
        self.later = [self.held() for _ in range(4)]

    def test_no_store(self) -> None:
        """The first time they wait; later each asks at once, and has an answer of its own."""
        self.learn(("Cache-Control", "no-store"))
        callers = [self.ask() for _ in range(3)]
        self.assertEqual(len(self.fake.sent), 3)
        for number in (2, 0, 1):
            self.later[number].callback(canned(200, b"%d" % number))
        self.assertEqual([self.body(each) for each in callers], [b"0", b"1", b"2"])

    def test_too_long(self) -> None:
        """So it is with a body over the limit."""
        self.learn(FRESH, body=b"x" * 101)
        self.ask(), self.ask()
        self.assertEqual(len(self.fake.sent), 2)

    def test_error(self) -> None:
        """An error tells nothing of the answer that comes when it is over."""
        self.learn(code=503)
        self.ask(), self.ask()
        self.assertEqual(len(self.fake.sent), 1)

    def test_time(self) -> None:
        """It is not remembered for ever."""
        self.learn(("Cache-Control", "no-store"))
        self.clock.advance(UNSTORABLE_SECONDS)
        self.ask(), self.ask()
        self.assertEqual(len(self.fake.sent), 1)

    def test_storable_again(self) -> None:
        """The first answer that can be stored ends it, as soon as its header is there."""
        self.learn(("Cache-Control", "no-store"))
        first = self.ask()
        source = Source([FRESH])
        self.later[0].callback(source.response)
        self.fake.sent.clear()
        self.ask(), self.ask()
        self.assertEqual(len(self.fake.sent), 1)
        reading = collect(self.successResultOf(first))
        source.send(b"abc")
        source.end(ResponseDone())
        self.assertEqual(self.successResultOf(reading)[0], b"abc")
        self.assertEqual(self.body(self.ask()), b"abc")

    def test_other_rules(self) -> None:
        """What cannot be stored by the rules of one call may be by those of another."""
        self.learn()
        self.rules = self.rules.with_default_ttl(60.0)
        self.ask(), self.ask()
        self.assertEqual(len(self.fake.sent), 1)

    def test_write_meanwhile(self) -> None:
        """What was asked for before a POST succeeded is not stored after it either."""
        self.learn(("Cache-Control", "no-store"))
        self.fake.answers.insert(1, canned(200))
        first = self.ask()
        self.successResultOf(self.ask(b"POST"))
        self.later[0].callback(canned(200, b"old", [FRESH]))
        self.assertEqual(self.body(first), b"old")
        self.assertEqual(self.store.entries, 0)

    def test_leave_and_close(self) -> None:
        """A caller who leaves ends its own request; closing ends the rest."""
        self.learn(("Cache-Control", "no-store"))
        first, second = self.ask(), self.ask()
        first.cancel()
        self.assertEqual(self.cancelled, 1)
        self.assertNoResult(second)
        self.collapser.close()
        for caller in (first, second):
            self.failureResultOf(caller, CancelledError)
        self.assertEqual(self.cancelled, 2)

    def test_without_a_clock(self) -> None:
        """Nothing is remembered where there is no clock to forget it by."""
        self.collapser = RequestCollapser()
        self.learn(("Cache-Control", "no-store"))
        self.ask(), self.ask()
        self.assertEqual(len(self.fake.sent), 1)


class FailureTests(CollapseTestCase):
    """A request that fails, and callers who leave."""

    def test_error_of_the_server(self) -> None:
        """It is the error of all who waited."""
        answer = self.held()
        callers = [self.ask(), self.ask()]
        answer.errback(ConnectionBroken("headers", "x"))
        for caller in callers:
            self.failureResultOf(caller, ConnectionBroken)
        self.assertEqual(len(self.fake.sent), 1)

    def test_error_of_one_caller(self) -> None:
        """An error by the terms of one caller is not that of the next, who asks itself."""
        answer = self.held()
        callers = [self.ask(), self.ask(), self.ask()]
        self.fake.answers.append(canned(200, b"abc", [FRESH]))
        answer.errback(FetchTimeout("headers", 1.0, total=True))
        self.failureResultOf(callers[0], FetchTimeout)
        self.assertEqual(self.body(callers[1]), b"abc")
        self.assertEqual(self.body(callers[2]), b"abc")
        self.assertEqual(len(self.fake.sent), 2)

    def test_whose_error(self) -> None:
        """Limits that a call brings are its own."""
        self.assertTrue(is_caller_specific(BodyTooLarge(1)))
        self.assertTrue(is_caller_specific(FetchTimeout("body", 1.0, total=True)))
        self.assertFalse(is_caller_specific(FetchTimeout("headers", 1.0)))

    def test_first_caller_leaves(self) -> None:
        """The request goes on for those who wait, and its body is read for them."""
        answer = self.held()
        first, second = self.ask(), self.ask()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        answer.callback(canned(200, b"abc", [FRESH]))
        self.assertEqual(self.body(second), b"abc")

    def test_first_caller_leaves_an_answer_for_itself(self) -> None:
        """An answer that nobody is given is let go of."""
        answer = self.held()
        first, second = self.ask(), self.ask()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        source = Source([("Cache-Control", "no-store")])
        self.fake.answers.append(canned(200, b"2"))
        answer.callback(source.response)
        self.assertEqual(source.aborted, 1)
        source.end(ResponseDone())
        self.assertEqual(self.body(second), b"2")

    def test_bug_that_nobody_sees(self) -> None:
        """A bug that the first caller is not there to see is logged; the others ask again."""
        answer = self.held()
        first, second = self.ask(), self.ask()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.fake.answers.append(canned(200, b"abc"))
        answer.errback(ZeroDivisionError())
        self.assertEqual(self.body(second), b"abc")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_all_leave(self) -> None:
        """When nobody waits any more, the request is cancelled."""
        self.held()
        first, second = self.ask(), self.ask()
        first.cancel()
        self.assertEqual(self.cancelled, 0)
        second.cancel()
        self.assertEqual(self.cancelled, 1)
        for caller in (first, second):
            self.failureResultOf(caller, CancelledError)
        self.held()
        self.ask()
        self.assertEqual(len(self.fake.sent), 2)

    def test_deadline_of_one_who_waits(self) -> None:
        """It ends the wait of that caller alone."""
        answer = self.held()
        first, second = self.ask(), self.ask(deadline=Deadline(5.0, 5.0))
        third = self.ask(deadline=Deadline(9.0, 9.0))
        self.clock.advance(5)
        error = self.failureResultOf(second, FetchTimeout).value
        self.assertTrue(error.total)
        answer.callback(canned(200, b"abc", [FRESH]))
        self.assertEqual(self.body(first), b"abc")
        self.assertEqual(self.body(third), b"abc")
        self.assert_quiet(self.clock)

    def test_cancel_one_who_waits(self) -> None:
        """It leaves no timer."""
        self.held()
        first, second = self.ask(), self.ask(deadline=Deadline(5.0, 5.0))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertNoResult(first)
        self.assert_quiet(self.clock)

    def test_close(self) -> None:
        """What is under way ends."""
        self.held()
        first = self.ask()
        self.collapser.close()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.cancelled, 1)

    def test_write_meanwhile(self) -> None:
        """What was asked for before a POST succeeded is not stored after it."""
        answer = self.held()
        first = self.ask()
        self.fake.answers.append(canned(200))
        self.successResultOf(self.ask(b"POST"))
        answer.callback(canned(200, b"old", [FRESH]))
        self.assertEqual(self.body(first), b"old")
        self.assertEqual(self.store.entries, 0)


class BodyOfManyTests(CollapseTestCase):
    """A body that some wait for while another reads it."""

    def setUp(self) -> None:
        super().setUp()
        self.source = Source([FRESH, ("ETag", '"x"')])
        self.reader = Gatherer()

    def start(self, *, reading: bool = True) -> Deferred[IResponse]:  # type: ignore[override]
        """Let the first caller have the header, and read the body."""
        self.fake.answers.append(self.source.response)
        response = self.successResultOf(self.ask())
        if reading:
            response.deliverBody(self.reader)
        return self.ask()

    def test_wait(self) -> None:
        """Who comes while it is read waits for its end."""
        second = self.start()
        self.source.send(b"ab")
        self.assertEqual(self.reader.body, b"ab")
        self.source.send(b"c")
        self.source.end(ResponseDone())
        self.assertEqual(self.body(second), b"abc")

    def test_reader_who_does_not_read(self) -> None:
        """Nobody has to wait for a reader who does not begin."""
        second = self.start(reading=False)
        self.source.send(b"abc")
        self.source.end(ResponseDone())
        self.assertEqual(self.body(second), b"abc")

    def test_reader_who_pauses(self) -> None:
        """Nor for one who pauses; it has all when it goes on."""
        second = self.start()
        transport: Any = self.reader.transport
        transport.pauseProducing()
        self.source.send(b"abc")
        self.source.end(ResponseDone())
        self.assertEqual((self.reader.body, self.reader.reason), (b"", None))
        self.assertEqual(self.body(second), b"abc")
        transport.resumeProducing()
        self.assertEqual(self.reader.body, b"abc")
        assert self.reader.reason is not None
        self.reader.reason.trap(ResponseDone)

    def test_reader_who_leaves(self) -> None:
        """Its end is not that of the others."""
        second = self.start()
        transport: Any = self.reader.transport
        self.source.send(b"ab")
        transport.abortConnection()
        assert self.reader.reason is not None
        self.reader.reason.trap(ConnectionBroken)
        self.assertEqual(self.source.aborted, 0)
        self.source.send(b"c")
        self.source.end(ResponseDone())
        self.assertEqual(self.body(second), b"abc")

    def test_all_leave(self) -> None:
        """Once those who waited have left too, the body ends."""
        second = self.start()
        transport: Any = self.reader.transport
        transport.abortConnection()
        self.assertEqual(self.source.aborted, 0)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.source.aborted, 1)

    def test_too_large(self) -> None:
        """Over the limit it is the reader's alone; the others ask themselves."""
        second = self.start()
        self.fake.answers.append(canned(200, b"small"))
        self.source.send(b"x" * 101)
        self.assertEqual(self.body(second), b"small")
        transport: Any = self.reader.transport
        transport.pauseProducing()
        self.source.send(b"y")
        self.assertEqual(self.source.calls, ["pause"])
        transport.resumeProducing()
        self.assertEqual(self.source.calls, ["pause", "resume"])
        self.source.end(ResponseDone())
        self.assertEqual(len(self.reader.body), 102)
        self.assertEqual(self.store.entries, 0)

    def test_too_large_and_left(self) -> None:
        """A body that nobody reads and that is not kept ends."""
        second = self.start()
        transport: Any = self.reader.transport
        transport.abortConnection()
        self.fake.answers.append(canned(200, b"small"))
        self.source.send(b"x" * 101)
        self.assertEqual(self.source.aborted, 1)
        self.assertEqual(self.body(second), b"small")

    def test_breaks_off(self) -> None:
        """The others ask for what is missing."""
        second = self.start()
        self.source.send(b"abc")
        self.fake.answers.append(
            canned(206, b"d" * 96, [FRESH, ("ETag", '"x"'), ("Content-Range", "bytes 3-98/99")])
        )
        self.source.end(ConnectionBroken("body", "x"))
        self.assertEqual(self.body(second), b"abc" + b"d" * 96)
        self.assertEqual(self.fake.sent[1].header("range"), ["bytes=3-"])
        self.assertEqual(self.fake.sent[1].header("if-range"), ['"x"'])


class AsideTests(CollapseTestCase):
    """RFC 5861 §3: a stale answer is served while the server is asked by the side."""

    def setUp(self) -> None:
        super().setUp()
        text = "max-age=60, stale-while-revalidate=60"
        self.fields = [("Cache-Control", text), ("ETag", '"x"')]
        self.fake.answers.append(canned(200, b"old", self.fields))
        self.body(self.ask())
        self.wall += 70

    def test_confirmed(self) -> None:
        """A 304 makes it fresh for the next."""
        answer = self.held()
        self.assertEqual(self.body(self.ask()), b"old")
        self.assertEqual(self.body(self.ask()), b"old")
        self.assertEqual(len(self.fake.sent), 2)
        self.assertEqual(self.fake.sent[1].header("if-none-match"), ['"x"'])
        answer.callback(canned(304, b"", self.fields))
        self.assertIn("hit; ttl=60", self.status(self.ask()))

    def test_replaced(self) -> None:
        """A new body is read and stored."""
        answer = self.held()
        self.assertEqual(self.body(self.ask(range="bytes=0-0")), b"o")
        self.assertEqual(self.fake.sent[1].header("range"), [])
        source = Source(self.fields)
        answer.callback(source.response)
        source.send(b"new")
        source.end(ResponseDone())
        self.assertEqual(self.body(self.ask()), b"new")

    def test_not_stored(self) -> None:
        """An answer that is not stored is let go of."""
        answer = self.held()
        self.body(self.ask())
        source = Source([("Cache-Control", "no-store")])
        answer.callback(source.response)
        self.assertEqual(source.aborted, 1)
        self.assertEqual(self.store.entries, 0)

    def test_fails(self) -> None:
        """Its failure is nobody's; the next stale answer asks again."""
        self.fake.answers.append(ConnectionBroken("headers", "x"))
        self.assertEqual(self.body(self.ask()), b"old")
        self.held()
        self.assertEqual(self.body(self.ask()), b"old")
        self.assertEqual(len(self.fake.sent), 3)

    def test_bug(self) -> None:
        """A bug is logged."""
        self.fake.answers.append(ZeroDivisionError())
        self.assertEqual(self.body(self.ask()), b"old")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_head(self) -> None:
        """HEAD asks nothing by the side."""
        self.successResultOf(self.ask(b"HEAD"))
        self.assertEqual(len(self.fake.sent), 1)

    def test_close(self) -> None:
        """The cache owns it, and ends it."""
        self.held()
        self.body(self.ask())
        self.collapser.close()
        self.assertEqual(self.cancelled, 1)


class UnstorableKeysTests(SynchronousTestCase):
    """:class:`UnstorableKeys` remembers so many keys for so long."""

    def test_time(self) -> None:
        """A key is remembered from its note on until its time is over, and then not kept."""
        found = UnstorableKeys()
        self.assertFalse(found.includes("a", 5.0))
        found.add("a", 5.0)
        self.assertTrue(found.includes("a", 5.0))
        self.assertTrue(found.includes("a", 4.9 + UNSTORABLE_SECONDS))
        self.assertFalse(found.includes("b", 5.0))
        self.assertFalse(found.includes("a", 5.0 + UNSTORABLE_SECONDS))
        self.assertEqual(len(found), 0)

    def test_noted_again(self) -> None:
        """Its time runs from the last note."""
        found = UnstorableKeys(seconds=10.0)
        found.add("a", 0.0)
        found.add("a", 9.0)
        self.assertTrue(found.includes("a", 18.0))
        self.assertEqual(len(found), 1)

    def test_discard(self) -> None:
        """What could be stored is forgotten at once, and what is not there costs nothing."""
        found = UnstorableKeys()
        found.add("a", 0.0)
        found.discard("a")
        found.discard("b")
        self.assertFalse(found.includes("a", 0.0))

    def test_limit(self) -> None:
        """At the limit the key that was noted longest ago is forgotten."""
        found = UnstorableKeys(max_keys=2)
        for key in ("a", "b", "a", "c"):
            found.add(key, 0.0)
        self.assertEqual([found.includes(key, 0.0) for key in "abc"], [True, False, True])

    def test_default_limit(self) -> None:
        """However many keys strangers make up, so many are kept."""
        found = UnstorableKeys()
        for key in range(MAX_UNSTORABLE_KEYS + 5):
            found.add(key, 0.0)
        self.assertEqual(len(found), MAX_UNSTORABLE_KEYS)
