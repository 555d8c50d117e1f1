"""Tests of :mod:`twisted_net.http.cache.collapse` and of its use by the cache."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.comparisons import compared_deferreds
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
        """Let the server answer the next request later, with what the test fires."""

        def cancel(waiting: Deferred[IResponse]) -> None:
            self.cancelled += 1

        answer: Deferred[IResponse] = Deferred(cancel)
        self.fake.answers.append(answer)
        return answer

    def ask(
        self,
        method: bytes = b"GET",
        deadline: Deadline | None = None,
        *,
        buffer_body: bool = False,
        **fields: str,
    ) -> Deferred[IResponse]:
        """Make the request of one more caller."""
        call = Call(deadline, RetryPolicy(), None, 0, buffer_body=buffer_body)
        agent = CachingAgent(
            self.fake,
            self.store,
            self.rules,
            call=call,
            wall=lambda: self.wall,
            now=lambda: self.wall,
            collapser=self.collapser,
        )
        headers = Headers({name.replace("_", "-"): [value] for name, value in fields.items()})
        return agent.request(method, URL, headers)

    def body(self, asking: Deferred[IResponse]) -> bytes:
        """Read a body that has been received."""
        return self.successResultOf(collect(self.successResultOf(asking)))[0]

    def status(self, asking: Deferred[IResponse]) -> str:
        """Return the ``Cache-Status`` of a response."""
        return response_fields(self.successResultOf(asking))["cache-status"]


class CollapseTests(CollapseTestCase):
    """Equal requests at the same time are collapsed into one."""

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
        """If the response must not be stored, the others are forwarded together, at once."""
        answer = self.held()
        callers = [self.ask() for _ in range(3)]
        self.fake.answers += [canned(200, b"2"), canned(200, b"3")]
        answer.callback(canned(200, b"1", [("Cache-Control", "no-store")]))
        self.assertEqual([self.body(caller) for caller in callers], [b"1", b"2", b"3"])

    def test_late(self) -> None:
        """A response that is stale when it comes, and was fresh when it was sent, is for all."""
        for value, requests in (("max-age=60", 1), ("max-age=0", 3), ("no-cache", 3)):
            self.setUp()
            answer = self.held()
            callers = [self.ask() for _ in range(3)]
            self.fake.answers += [canned(200, b"2"), canned(200, b"3"), canned(200, b"4")]
            self.wall += 100.0
            answer.callback(canned(200, b"1", [("Cache-Control", value)]))
            bodies = [self.body(caller) for caller in callers]
            self.assertEqual(bodies, [b"1"] * 3 if requests == 1 else [b"1", b"2", b"3"])
            self.assertEqual(len(self.fake.sent), requests)
            # It is not for those who come later.
            self.ask()
            self.assertEqual(len(self.fake.sent), requests + 1)

    def test_late_and_old(self) -> None:
        """One that was stale when it was sent is not, nor is what was stored before."""
        answer = self.held()
        callers = [self.ask() for _ in range(2)]
        self.fake.answers.append(canned(200, b"2"))
        self.wall += 100.0
        answer.callback(canned(200, b"1", [("Cache-Control", "max-age=60"), ("Age", "60")]))
        self.assertEqual([self.body(caller) for caller in callers], [b"1", b"2"])

    def test_vary(self) -> None:
        """Callers with different variants get theirs, with one request for each variant."""
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
        """A caller does not wait for the request of another user."""
        self.held(), self.held()
        self.ask(authorization="1")
        self.ask(authorization="2")
        self.assertEqual(len(self.fake.sent), 2)

    def test_cache_relevant_fields(self) -> None:
        """A request with cache-relevant fields is not collapsed."""
        for _ in range(4):
            self.held()
        self.ask()
        self.ask(cache_control="no-cache")
        self.ask(range="bytes=0-1")
        self.ask(b"HEAD")
        self.assertEqual(len(self.fake.sent), 4)

    def test_revalidation(self) -> None:
        """A stale response is validated once for all callers."""
        self.fake.answers.append(canned(200, b"abc", [FRESH, ("ETag", '"x"')]))
        self.body(self.ask())
        self.wall += 60
        answer = self.held()
        callers = [self.ask() for _ in range(3)]
        answer.callback(canned(304, b"", [FRESH]))
        self.assertEqual({self.body(caller) for caller in callers}, {b"abc"})
        self.assertEqual(len(self.fake.sent), 2)

    def test_one_ends_another(self) -> None:
        """A caller that has its response may cancel one that waits for the same."""
        answer = self.held()
        asking = [self.ask() for _ in range(3)]

        def end_other(response: IResponse) -> IResponse:
            asking[2].cancel()
            return response

        asking[1].addCallback(end_other)
        answer.callback(canned(200, b"abc", [FRESH]))
        self.assertEqual([self.body(one) for one in asking[:2]], [b"abc", b"abc"])
        self.failureResultOf(asking[2], CancelledError)

    def test_any_of_many(self) -> None:
        """One of many leaves without a look at the others."""
        answer = self.held()
        asking = [self.ask() for _ in range(50)]
        with compared_deferreds() as compared:
            for one in reversed(asking[2:]):
                one.cancel()
                self.failureResultOf(one, CancelledError)
        self.assertEqual(compared, [])
        answer.callback(canned(200, b"abc", [FRESH]))
        self.assertEqual([self.body(one) for one in asking[:2]], [b"abc", b"abc"])


class UnstorableTests(CollapseTestCase):
    """Requests are not collapsed while their responses are known not to be storable."""

    def learn(self, *fields: tuple[str, str], code: int = 200, body: bytes = b"x") -> None:
        """Let one caller get such a response; later ones are held by the server."""
        self.fake.answers.append(canned(code, body, fields))
        self.body(self.ask())
        self.fake.sent.clear()
        self.later = [self.held() for _ in range(4)]

    def test_no_store(self) -> None:
        """The first time they wait; later each request is forwarded at once."""
        self.learn(("Cache-Control", "no-store"))
        callers = [self.ask() for _ in range(3)]
        self.assertEqual(len(self.fake.sent), 3)
        for number in (2, 0, 1):
            self.later[number].callback(canned(200, b"%d" % number))
        self.assertEqual([self.body(each) for each in callers], [b"0", b"1", b"2"])

    def test_too_long(self) -> None:
        """The same holds for a body over the limit."""
        self.learn(FRESH, body=b"x" * 101)
        self.ask(), self.ask()
        self.assertEqual(len(self.fake.sent), 2)

    def test_error(self) -> None:
        """An error does not mark the key as unstorable."""
        self.learn(code=503)
        self.ask(), self.ask()
        self.assertEqual(len(self.fake.sent), 1)

    def test_time(self) -> None:
        """The key is forgotten after its time."""
        self.learn(("Cache-Control", "no-store"))
        self.clock.advance(UNSTORABLE_SECONDS)
        self.ask(), self.ask()
        self.assertEqual(len(self.fake.sent), 1)

    def test_step_back(self) -> None:
        """If its clock is set back, the key is forgotten at once."""
        self.learn(("Cache-Control", "no-store"))
        self.clock.rightNow -= 3600.0
        self.ask(), self.ask()
        self.assertEqual(len(self.fake.sent), 1)

    def test_storable_again(self) -> None:
        """A storable response ends it, as soon as its header is received."""
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
        """A key is remembered for the rules of the call: by another's it may be storable."""
        self.learn()
        rules = self.rules
        for self.rules in (rules.with_default_ttl(60.0), rules.with_stale_if_error(60.0)):
            self.fake.sent.clear()
            for caller in (self.ask(), self.ask()):
                caller.addErrback(lambda _: None)
            self.assertEqual(len(self.fake.sent), 1)
            self.collapser.close()

    def test_write_meanwhile(self) -> None:
        """A response requested before a successful POST is not stored after it either."""
        self.learn(("Cache-Control", "no-store"))
        self.fake.answers.insert(1, canned(200))
        first = self.ask()
        self.successResultOf(self.ask(b"POST"))
        self.later[0].callback(canned(200, b"old", [FRESH]))
        self.assertEqual(self.body(first), b"old")
        self.assertEqual(self.store.entries, 0)

    def test_leave_and_close(self) -> None:
        """A caller that leaves cancels its own request; closing cancels the rest."""
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
        """Without a clock no key is remembered."""
        self.collapser = RequestCollapser()
        self.learn(("Cache-Control", "no-store"))
        self.ask(), self.ask()
        self.assertEqual(len(self.fake.sent), 1)


class StaleIfErrorTests(CollapseTestCase):
    """RFC 5861 §4: callers who may be served stale wait for one request, and share its failure."""

    directive = "stale-if-error=100"

    def age(self, *fields: tuple[str, str]) -> None:
        """Store a response, and let it become stale."""
        self.fake.answers.append(canned(200, b"old", fields or [FRESH]))
        self.body(self.ask())
        self.wall += 70
        self.fake.sent.clear()

    def got(self, callers: list[Deferred[IResponse]]) -> tuple[set[bytes], int]:
        """Give the bodies that callers have got, and how many requests were sent for them."""
        return {self.body(caller) for caller in callers}, len(self.fake.sent)

    def test_hundred(self) -> None:
        """A hundred requests with the directive make one, with plain ones among them."""
        answer = self.held()
        callers = [self.ask(cache_control=self.directive) for _ in range(100)]
        callers += [self.ask(), self.ask(cache_control=f"x, {self.directive}")]
        self.assertEqual(len(self.fake.sent), 1)
        answer.callback(canned(200, b"abc", [FRESH]))
        self.assertEqual({self.body(caller) for caller in callers}, {b"abc"})
        self.assertEqual(len(self.fake.sent), 1)

    def test_other_directives(self) -> None:
        """Beside one that says how fresh the response must be, it does not let requests share."""
        self.held(), self.held()
        for _ in range(2):
            self.ask(cache_control=f"max-age=0, {self.directive}")
        self.assertEqual(len(self.fake.sent), 2)

    def test_no_connection(self) -> None:
        """A server that cannot be reached gets one request for all."""
        self.age()
        answer = self.held()
        callers = [self.ask(cache_control=self.directive) for _ in range(100)]
        answer.errback(ConnectionBroken("headers", "x"))
        self.assertIn("collapsed", self.status(callers.pop()))
        self.assertEqual(self.got(callers), ({b"old"}, 1))

    def test_status(self) -> None:
        """So does one that answers 503."""
        self.age()
        answer = self.held()
        callers = [self.ask(cache_control=self.directive) for _ in range(100)]
        answer.callback(canned(503, b"sorry"))
        said = "twisted_net; fwd=stale; fwd-status=503; collapsed"
        self.assertEqual(self.status(callers.pop()), said)
        self.assertEqual(self.got(callers), ({b"old"}, 1))

    def test_said_by_the_response(self) -> None:
        """The same holds where the stored response allows it."""
        self.age(("Cache-Control", "max-age=60, stale-if-error=60"))
        answer = self.held()
        callers = [self.ask() for _ in range(3)]
        answer.callback(canned(503, b"sorry"))
        self.assertEqual(self.got(callers), ({b"old"}, 1))

    def test_setting(self) -> None:
        """The setting allows it for all requests, and a call for its own."""
        for rules in (
            Rules(CacheSettings(stale_if_error=100.0)),
            Rules(CacheSettings()).with_stale_if_error(100.0),
        ):
            self.setUp()
            self.rules = rules
            self.age()
            answer = self.held()
            callers = [self.ask() for _ in range(3)]
            answer.callback(canned(503, b"sorry"))
            self.assertEqual(self.got(callers), ({b"old"}, 1))

    def test_each_by_its_own_request(self) -> None:
        """A caller who does not allow it gets the error, whoever made the request."""
        for first in (self.directive, "x"):
            self.setUp()
            self.age()
            answer = self.held()
            callers = [self.ask(cache_control=each) for each in (first, "x", self.directive)]
            answer.errback(ConnectionBroken("headers", "x"))
            self.failureResultOf(callers[1], ConnectionBroken)
            if first == "x":
                self.failureResultOf(callers[0], ConnectionBroken)
            else:
                self.assertEqual(self.body(callers[0]), b"old")
            self.assertEqual(self.body(callers[2]), b"old")
            self.assertEqual(len(self.fake.sent), 1)

    def test_status_for_others(self) -> None:
        """A caller who does not allow it makes its own request after a 503, as of any such one."""
        self.age()
        answer = self.held()
        callers = [self.ask(cache_control=each) for each in (self.directive, "x")]
        self.fake.answers.append(canned(503, b"2"))
        answer.callback(canned(503, b"1"))
        self.assertEqual([self.body(each) for each in callers], [b"old", b"2"])

    def test_fresh_meanwhile(self) -> None:
        """A response that has become fresh while they waited is no stale one, and no error."""
        self.age(FRESH, ("ETag", '"x"'))
        answer = self.held()
        callers = [self.ask(), self.ask()]
        self.fake.answers.append(canned(200, b"", [FRESH, ("ETag", '"x"')]))
        self.successResultOf(self.ask(b"HEAD"))
        answer.errback(ConnectionBroken("headers", "x"))
        self.failureResultOf(callers[0], ConnectionBroken)
        self.assertIn("ttl=60", self.status(callers[1]))

    def test_out_of_time(self) -> None:
        """Callers whose time ends while the server is silent get it, too."""
        self.age()
        self.held()
        now = self.clock.seconds()
        callers = [
            self.ask(deadline=Deadline(now + total, total), cache_control=self.directive)
            for total in (5.0, 5.0, 9.0)
        ]
        self.clock.advance(5.0)
        self.assertEqual(self.body(callers[1]), b"old")
        self.assertNoResult(callers[2])
        self.clock.advance(4.0)
        self.assertEqual(self.body(callers[2]), b"old")
        self.assertEqual(len(self.fake.sent), 1)

    def test_out_of_time_alone(self) -> None:
        """So does the first of them, for whom the request is made, while it goes on for others."""
        self.age()
        answer = self.held()
        now = self.clock.seconds()
        callers = [
            self.ask(
                deadline=Deadline(now + total, total),
                buffer_body=True,
                cache_control=self.directive,
            )
            for total in (5.0, 9.0)
        ]
        self.clock.advance(5.0)
        self.assertEqual(self.body(callers[0]), b"old")
        answer.callback(canned(200, b"new", [FRESH]))
        self.assertEqual(self.body(callers[1]), b"new")


class FailureTests(CollapseTestCase):
    """A request that fails, and callers that leave."""

    def test_error_of_the_server(self) -> None:
        """An error of the server is raised for all callers."""
        answer = self.held()
        callers = [self.ask(), self.ask()]
        answer.errback(ConnectionBroken("headers", "x"))
        for caller in callers:
            self.failureResultOf(caller, ConnectionBroken)
        self.assertEqual(len(self.fake.sent), 1)

    def test_error_of_one_caller(self) -> None:
        """An error due to one caller's limits is its own; the next caller's request is sent."""
        answer = self.held()
        callers = [self.ask(), self.ask(), self.ask()]
        self.fake.answers.append(canned(200, b"abc", [FRESH]))
        answer.errback(FetchTimeout("headers", 1.0, total=True))
        self.failureResultOf(callers[0], FetchTimeout)
        self.assertEqual(self.body(callers[1]), b"abc")
        self.assertEqual(self.body(callers[2]), b"abc")
        self.assertEqual(len(self.fake.sent), 2)

    def test_whose_error(self) -> None:
        """Only errors due to a call's own limits are specific to its caller."""
        self.assertTrue(is_caller_specific(BodyTooLarge(1)))
        self.assertTrue(is_caller_specific(FetchTimeout("body", 1.0, total=True)))
        self.assertFalse(is_caller_specific(FetchTimeout("headers", 1.0)))

    def test_first_caller_leaves(self) -> None:
        """The request goes on for those that wait, and its body is read for them."""
        answer = self.held()
        first, second = self.ask(), self.ask()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        answer.callback(canned(200, b"abc", [FRESH]))
        self.assertEqual(self.body(second), b"abc")

    def test_first_caller_leaves_an_answer_for_itself(self) -> None:
        """A response without a caller is discarded."""
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
        """A bug is logged if its caller has left; the others' requests are sent."""
        answer = self.held()
        first, second = self.ask(), self.ask()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.fake.answers.append(canned(200, b"abc"))
        answer.errback(ZeroDivisionError())
        self.assertEqual(self.body(second), b"abc")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_all_leave(self) -> None:
        """When no caller waits any more, the request is cancelled."""
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
        """Its timer is cancelled too."""
        self.held()
        first, second = self.ask(), self.ask(deadline=Deadline(5.0, 5.0))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertNoResult(first)
        self.assert_quiet(self.clock)

    def test_close(self) -> None:
        """Closing cancels the requests in progress."""
        self.held()
        first = self.ask()
        self.collapser.close()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.cancelled, 1)

    def test_write_meanwhile(self) -> None:
        """A response requested before a successful POST is not stored after it."""
        answer = self.held()
        first = self.ask()
        self.fake.answers.append(canned(200))
        self.successResultOf(self.ask(b"POST"))
        answer.callback(canned(200, b"old", [FRESH]))
        self.assertEqual(self.body(first), b"old")
        self.assertEqual(self.store.entries, 0)


class WaitForBodyTests(CollapseTestCase):
    """A body that other callers wait for while one reads it."""

    def setUp(self) -> None:
        super().setUp()
        self.source = Source([FRESH, ("ETag", '"x"')])
        self.reader = Gatherer()

    def start(self, *, reading: bool = True) -> Deferred[IResponse]:  # type: ignore[override]
        """Let the first caller receive the header, and read the body."""
        self.fake.answers.append(self.source.response)
        response = self.successResultOf(self.ask())
        if reading:
            response.deliverBody(self.reader)
        return self.ask()

    def test_wait(self) -> None:
        """A caller that comes while it is read waits for its end."""
        second = self.start()
        self.source.send(b"ab")
        self.assertEqual(self.reader.body, b"ab")
        self.source.send(b"c")
        self.source.end(ResponseDone())
        self.assertEqual(self.body(second), b"abc")

    def test_reader_who_does_not_read(self) -> None:
        """The others do not wait for a reader that does not begin."""
        second = self.start(reading=False)
        self.source.send(b"abc")
        self.source.end(ResponseDone())
        self.assertEqual(self.body(second), b"abc")

    def test_reader_who_pauses(self) -> None:
        """Nor for one that pauses; it gets all when it resumes."""
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
        """The others still get their responses."""
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
        """Once the waiting callers have left too, the body is aborted."""
        second = self.start()
        transport: Any = self.reader.transport
        transport.abortConnection()
        self.assertEqual(self.source.aborted, 0)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.source.aborted, 1)

    def test_too_large(self) -> None:
        """A body over the limit is the reader's alone; the others' requests are sent."""
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
        """A body without a reader that is not stored is aborted."""
        second = self.start()
        transport: Any = self.reader.transport
        transport.abortConnection()
        self.fake.answers.append(canned(200, b"small"))
        self.source.send(b"x" * 101)
        self.assertEqual(self.source.aborted, 1)
        self.assertEqual(self.body(second), b"small")

    def test_breaks_off(self) -> None:
        """The others request the remainder."""
        second = self.start()
        self.source.send(b"abc")
        self.fake.answers.append(
            canned(206, b"d" * 96, [FRESH, ("ETag", '"x"'), ("Content-Range", "bytes 3-98/99")])
        )
        self.source.end(ConnectionBroken("body", "x"))
        self.assertEqual(self.body(second), b"abc" + b"d" * 96)
        self.assertEqual(self.fake.sent[1].header("range"), ["bytes=3-"])
        self.assertEqual(self.fake.sent[1].header("if-range"), ['"x"'])


class BackgroundTests(CollapseTestCase):
    """RFC 5861 §3: a stale response is served while it is validated in the background."""

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
        """A response that is not stored is discarded."""
        answer = self.held()
        self.body(self.ask())
        source = Source([("Cache-Control", "no-store")])
        answer.callback(source.response)
        self.assertEqual(source.aborted, 1)
        self.assertEqual(self.store.entries, 0)

    def test_fails(self) -> None:
        """Its failure is ignored; the next stale response is validated again."""
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
        """HEAD starts no background revalidation."""
        self.successResultOf(self.ask(b"HEAD"))
        self.assertEqual(len(self.fake.sent), 1)

    def test_close(self) -> None:
        """Closing the cache cancels it."""
        self.held()
        self.body(self.ask())
        self.collapser.close()
        self.assertEqual(self.cancelled, 1)


class UnstorableKeysTests(SynchronousTestCase):
    """:class:`UnstorableKeys` remembers a limited number of keys for a limited time."""

    def test_time(self) -> None:
        """A key is remembered until its time is over, and then dropped."""
        found = UnstorableKeys()
        self.assertFalse(found.includes("a", 5.0))
        found.add("a", 5.0)
        self.assertTrue(found.includes("a", 5.0))
        self.assertTrue(found.includes("a", 4.9 + UNSTORABLE_SECONDS))
        self.assertFalse(found.includes("b", 5.0))
        self.assertFalse(found.includes("a", 5.0 + UNSTORABLE_SECONDS))
        self.assertEqual(len(found), 0)

    def test_noted_again(self) -> None:
        """Its time runs from the last ``add``."""
        found = UnstorableKeys(seconds=10.0)
        found.add("a", 0.0)
        found.add("a", 9.0)
        self.assertTrue(found.includes("a", 18.0))
        self.assertEqual(len(found), 1)

    def test_discard(self) -> None:
        """A discarded key is forgotten at once; an unknown one is ignored."""
        found = UnstorableKeys()
        found.add("a", 0.0)
        found.discard("a")
        found.discard("b")
        self.assertFalse(found.includes("a", 0.0))

    def test_limit(self) -> None:
        """Over the limit the key that was added longest ago is dropped."""
        found = UnstorableKeys(max_keys=2)
        for key in ("a", "b", "a", "c"):
            found.add(key, 0.0)
        self.assertEqual([found.includes(key, 0.0) for key in "abc"], [True, False, True])

    def test_default_limit(self) -> None:
        """The number of keys has a limit by default."""
        found = UnstorableKeys()
        for key in range(MAX_UNSTORABLE_KEYS + 5):
            found.add(key, 0.0)
        self.assertEqual(len(found), MAX_UNSTORABLE_KEYS)
