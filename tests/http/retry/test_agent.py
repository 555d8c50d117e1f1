"""Tests of :mod:`twisted_net.http.retry.agent`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse

from tests.http.fakes import FakeAgent, HttpTestCase, Immediately, Source, canned
from twisted_net.http.bodies import BytesProducer, collect
from twisted_net.http.call import Call, Deadline
from twisted_net.http.dates import format_date
from twisted_net.http.errors import (
    AddressRefused,
    BodyTooLarge,
    CannotConnect,
    CircuitOpen,
    ConnectionBroken,
    FetchTimeout,
    InvalidURL,
    OriginBusy,
    TLSFailed,
)
from twisted_net.http.origins import OriginTable
from twisted_net.http.retry.agent import RetryAgent
from twisted_net.http.retry.circuit_breaker import CircuitState
from twisted_net.http.retry.policy import Attempt
from twisted_net.http.retry.retrier import log_attempt, origin_health
from twisted_net.http.retry.settings import BudgetSettings, CircuitBreakerSettings, RetryPolicy
from twisted_net.http.settings import HttpSettings

ORIGIN = ("http", "h", 80)


class RetryTestCase(HttpTestCase):
    """A retrying agent over one with the responses that the test sets."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.reports: list[Attempt] = []
        self.origins = OriginTable(self.clock, HttpSettings())

    def make(
        self,
        answers: Sequence[Any],
        policy: RetryPolicy | None = None,
        call: Call | None = None,
        chance: float = 1.0,
    ) -> RetryAgent:
        """Return the agent; ``self.fake`` is the one below."""
        self.fake = FakeAgent(list(answers))
        return RetryAgent(
            self.fake,
            self.clock,
            policy or RetryPolicy(),
            call=call,
            origins=self.origins,
            chance=lambda: chance,
            wall=lambda: 1_795_305_600.0 + self.clock.seconds(),
            report=self.reports.append,
        )

    def ask(
        self,
        answers: Sequence[Any],
        *,
        method: bytes = b"GET",
        headers: dict[str, list[str]] | None = None,
        producer: IBodyProducer | None = None,
        call: Call | None = None,
        policy: RetryPolicy | None = None,
    ) -> Deferred[IResponse]:
        """Make a request."""
        agent = self.make(answers, policy, call)
        return agent.request(method, b"http://h/?token=t", Headers(headers or {}), producer)

    def call(self, **terms: Any) -> Call:
        """Return the terms of a call."""
        return Call(
            **({"deadline": None, "retry": RetryPolicy(), "rules": None, "max_body": 9} | terms)
        )


class RetryTests(RetryTestCase):
    """:class:`RetryAgent` retries where that may help."""

    def test_status(self) -> None:
        """The delays grow; the first response with none of the statuses is returned."""
        asking = self.ask([canned(503), canned(429), canned(200)])
        self.clock.advance(0.4)
        self.assertEqual(len(self.fake.sent), 1)
        self.clock.advance(0.1)
        self.assertEqual(len(self.fake.sent), 2)
        self.clock.advance(0.9)
        self.assertNoResult(asking)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(asking).code, 200)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time_of_the_last(self) -> None:
        """``Call.delay`` is how long after the request the attempt of the response began."""
        call = self.call()
        answer: Deferred[IResponse] = Deferred()
        self.ask([canned(503), answer], call=call)
        self.assertEqual(call.delay, 0.0)
        self.clock.advance(0.5)
        self.clock.advance(7)
        answer.callback(canned(200))
        self.assertEqual(call.delay, 0.5)

    def test_last_response(self) -> None:
        """When all attempts have failed, the last response is returned."""
        asking = self.ask([canned(503)] * 4)
        self.clock.pump([0.5, 1.0, 2.0])
        self.assertEqual(self.successResultOf(asking).code, 503)
        self.assertEqual(len(self.fake.sent), 4)

    def test_other_statuses(self) -> None:
        """Others are returned at once."""
        for code in (200, 301, 400, 404, 501):
            self.assertEqual(self.successResultOf(self.ask([canned(code)])).code, code)

    def test_errors(self) -> None:
        """Transient errors are retried; the last one is raised."""
        asking = self.ask([CannotConnect("h", 80, f"reason {i}") for i in range(4)])
        self.clock.pump([0.5, 1.0, 2.0])
        self.assertIn("reason 3", str(self.failureResultOf(asking, CannotConnect).value))

    def test_errors_that_stay(self) -> None:
        """Others are raised at once."""
        for error in (
            InvalidURL("u", "r"),
            AddressRefused("h", "r"),
            BodyTooLarge(1),
            TLSFailed("h", "r"),
            FetchTimeout("body", 30.0, total=True),
        ):
            self.failureResultOf(self.ask([error]), type(error))

    def test_bugs(self) -> None:
        """Other exceptions are raised at once."""
        self.failureResultOf(self.ask([ZeroDivisionError()]), ZeroDivisionError)

    def test_post(self) -> None:
        """A POST is not retried once it may have arrived."""
        for answer in (canned(503), ConnectionBroken("headers", "x")):
            asking = self.ask([answer], method=b"POST")
            self.assertEqual(self.clock.getDelayedCalls(), [])
            (self.failureResultOf if isinstance(answer, Exception) else self.successResultOf)(
                asking
            )

    def test_post_that_was_not_sent(self) -> None:
        """A POST is retried if certainly nothing was sent."""
        for error in (CannotConnect("h", 1, "x"), FetchTimeout("connect", 1.0)):
            asking = self.ask([error, canned(200)], method=b"POST")
            self.clock.advance(0.5)
            self.assertEqual(self.successResultOf(asking).code, 200)

    def test_post_with_a_key(self) -> None:
        """It is with an Idempotency-Key, or if the policy or the caller allows it."""
        for options in (
            {"headers": {"Idempotency-Key": ["k"]}},
            {"policy": RetryPolicy(methods=("POST",))},
            {"call": self.call(idempotent=True)},
        ):
            asking = self.ask([canned(503), canned(200)], method=b"POST", **options)
            self.clock.advance(0.5)
            self.assertEqual(self.successResultOf(asking).code, 200)

    def test_get_by_the_callers_word(self) -> None:
        """A caller may also forbid to retry a GET."""
        asking = self.ask([canned(503)], call=self.call(idempotent=False))
        self.assertEqual(self.successResultOf(asking).code, 503)

    def test_body_again(self) -> None:
        """A body of bytes is sent again in full."""
        asking = self.ask([canned(503), canned(200)], method=b"PUT", producer=BytesProducer(b"abc"))
        self.clock.advance(0.5)
        self.successResultOf(asking)
        self.assertEqual([sent.body for sent in self.fake.sent], [b"abc", b"abc"])

    def test_body_from_a_file(self) -> None:
        """A body that was read from a file is not sent a second time, empty."""
        producer = FileBodyProducer(io.BytesIO(b"abc"), cooperator=Immediately())
        asking = self.ask([canned(503)], method=b"PUT", producer=producer)
        self.assertEqual(self.successResultOf(asking).code, 503)

    def test_retry_after(self) -> None:
        """``Retry-After`` is the minimum delay, in seconds or as a date."""
        for value in ("7", format_date(1_795_305_600.0 + self.clock.seconds() + 7)):
            asking = self.ask([canned(503, headers=[("Retry-After", value)]), canned(200)])
            self.clock.advance(7.4)
            self.assertNoResult(asking)
            self.clock.advance(0.1)
            self.successResultOf(asking)
            self.setUp()

    def test_retry_after_of_another_clock(self) -> None:
        """A date counts from the ``Date`` of the same response, whichever clock is wrong."""
        for skew in (-3600.0, 3600.0):
            made = 1_795_305_600.0 + self.clock.seconds() + skew
            fields = [("Date", format_date(made)), ("Retry-After", format_date(made + 7))]
            asking = self.ask([canned(503, headers=fields), canned(200)])
            self.clock.advance(7.4)
            self.assertNoResult(asking)
            self.clock.advance(0.1)
            self.assertEqual(self.successResultOf(asking).code, 200)
            self.setUp()

    def test_retry_after_through_a_cache(self) -> None:
        """It counts from now where the response has an age: its ``Date`` was long ago."""
        made = 1_795_305_600.0 + self.clock.seconds()
        fields = [
            ("Date", format_date(made - 60)),
            ("Age", "60"),
            ("Retry-After", format_date(made + 7)),
        ]
        asking = self.ask([canned(503, headers=fields), canned(200)])
        self.clock.advance(7.4)
        self.assertNoResult(asking)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(asking).code, 200)

    def test_malformed_retry_after(self) -> None:
        """A malformed ``Retry-After`` is ignored."""
        asking = self.ask([canned(503, headers=[("Retry-After", "soon")]), canned(200)])
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(asking).code, 200)

    def test_retry_after_past_the_deadline(self) -> None:
        """A ``Retry-After`` past the deadline ends it now, with that response."""
        call = self.call(deadline=Deadline(30.0, 30.0))
        asking = self.ask([canned(503, headers=[("Retry-After", "31")])], call=call)
        self.assertEqual(self.successResultOf(asking).code, 503)

    def test_deadline(self) -> None:
        """A delay that would end after the deadline is not begun."""
        call = self.call(deadline=Deadline(0.5, 0.5))
        self.assertEqual(self.successResultOf(self.ask([canned(503)], call=call)).code, 503)

    def test_cancel(self) -> None:
        """Cancelling ends the delay."""
        asking = self.ask([canned(503), canned(200)])
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.fake.sent), 1)

    def test_whole(self) -> None:
        """If bodies are read inside the attempt, one that breaks off is retried."""
        broken = Failure(ConnectionBroken("body", "x"))
        answers = [canned(200, b"ab", reason=broken), canned(200, b"abc")]
        asking = self.ask(answers, call=self.call(buffer_body=True))
        self.clock.advance(0.5)
        body, _ = self.successResultOf(collect(self.successResultOf(asking)))
        self.assertEqual(body, b"abc")

    def test_reports(self) -> None:
        """Each attempt is reported, without secrets, and counted."""
        call = self.call()
        self.ask([canned(503, b"x"), CannotConnect("h", 80, "x"), canned(200)], call=call)
        self.clock.pump([0.5, 1.0])
        self.assertEqual(
            [(a.number, a.status, a.error, a.wait) for a in self.reports],
            [
                (1, 503, None, 0.5),
                (2, None, "cannot connect to h port 80: x", 1.0),
                (3, 200, None, None),
            ],
        )
        self.assertEqual({a.url for a in self.reports}, {"http://h/?token=***"})
        self.assertEqual(call.attempts, 3)


class BudgetTests(RetryTestCase):
    """Retries cost tokens of their origin's budget."""

    def tokens(self) -> int:
        """Return the available tokens."""
        return self.origins.get(ORIGIN).budget.tokens

    def budget(self, capacity: int) -> None:
        """Begin with so many tokens."""
        self.origins = OriginTable(
            self.clock, HttpSettings(budget=BudgetSettings(capacity=capacity))
        )

    def test_acquired_when_the_delay_begins(self) -> None:
        """A retry acquires tokens before its delay; they are refunded if it succeeds."""
        asking = self.ask([canned(503), canned(200)])
        self.assertEqual(self.tokens(), 486)
        self.clock.advance(0.5)
        self.successResultOf(asking)
        self.assertEqual(self.tokens(), 500)

    def test_failures_are_not_refunded(self) -> None:
        """Tokens of failed retries are not refunded; a throttling response costs less."""
        self.ask([canned(503)] * 4)
        self.clock.pump([0.5, 1.0, 2.0])
        self.assertEqual(self.tokens(), 500 - 3 * 14)
        self.ask([canned(429), canned(503, headers=[("Retry-After", "1")]), canned(404)])
        self.clock.pump([0.5, 2.0])
        self.assertEqual(self.tokens(), 500 - 3 * 14 - 5)

    def test_success_refills(self) -> None:
        """A call that succeeds at once refunds one token."""
        self.budget(20)
        self.origins.get(ORIGIN).budget.tokens = 3
        self.successResultOf(self.ask([canned(404)]))
        self.assertEqual(self.tokens(), 4)
        self.failureResultOf(self.ask([TLSFailed("h", "x")]))
        self.assertEqual(self.tokens(), 4)

    def test_empty(self) -> None:
        """Without tokens the failure is final at once."""
        self.budget(20)
        asking = self.ask([canned(503)] * 4)
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(asking).code, 503)
        self.assertEqual((len(self.fake.sent), self.tokens()), (2, 6))

    def test_cancelled_wait(self) -> None:
        """A retry that was never made is refunded."""
        asking = self.ask([canned(503), canned(200)])
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.tokens(), 500)

    def test_many_waiting(self) -> None:
        """Concurrent failures share one budget."""
        self.origins = OriginTable(
            self.clock,
            HttpSettings(
                budget=BudgetSettings(capacity=100), breaker=CircuitBreakerSettings(failures=None)
            ),
        )
        asking = [self.ask([canned(503), canned(200)]) for _ in range(20)]
        self.assertEqual(len(self.clock.getDelayedCalls()), 7)
        self.clock.advance(0.5)
        codes = [self.successResultOf(one).code for one in asking]
        self.assertEqual((codes.count(200), codes.count(503)), (7, 13))


class BreakerTests(RetryTestCase):
    """Requests to an origin are rejected after repeated failures."""

    def setUp(self) -> None:
        super().setUp()
        breaker = CircuitBreakerSettings(failures=2, rest=10.0, probe_timeout=4.0)
        self.origins = OriginTable(self.clock, HttpSettings(breaker=breaker))
        self.breaker = self.origins.get(ORIGIN).breaker

    def test_resilience4j_retries_through_an_open_breaker(self) -> None:
        """The failure that opened it is final, without another delay."""
        asking = self.ask([canned(503)] * 4)
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(asking).code, 503)
        self.assertEqual((len(self.fake.sent), self.breaker.state), (2, CircuitState.OPEN))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        error = self.failureResultOf(self.ask([]), CircuitOpen).value
        self.assertEqual(error.details(), {"host": "h", "retry_in": 10.0})
        self.assertFalse(error.transient)

    def test_recovery(self) -> None:
        """After its open time one call probes; others are rejected until that ends."""
        self.test_resilience4j_retries_through_an_open_breaker()
        self.clock.advance(10.0)
        waiting: Deferred[IResponse] = Deferred()
        probe = self.ask([waiting])
        self.failureResultOf(self.ask([]), CircuitOpen)
        waiting.callback(canned(200))
        self.successResultOf(probe)
        self.successResultOf(self.ask([canned(200)]))

    def test_probes_that_hang(self) -> None:
        """A probe that never ends is replaced after its timeout; a cancelled one at once."""
        self.test_resilience4j_retries_through_an_open_breaker()
        self.clock.advance(10.0)
        hanging = self.ask([Deferred()])
        self.clock.advance(4.0)
        self.successResultOf(self.ask([canned(404)]))
        self.assertEqual(self.breaker.state, CircuitState.CLOSED)
        hanging.cancel()
        self.failureResultOf(hanging, CancelledError)
        self.assertEqual(self.breaker.state, CircuitState.CLOSED)

    def test_a_wait_that_is_long_enough(self) -> None:
        """A retry after the open time is the probe."""
        asking = self.ask([canned(503, headers=[("Retry-After", "11")])] * 2 + [canned(200)])
        self.clock.advance(11.5)
        self.assertEqual(self.breaker.state, CircuitState.OPEN)
        self.clock.advance(12.0)
        self.assertEqual(self.successResultOf(asking).code, 200)

    def test_what_counts(self) -> None:
        """Failures of the origin count; responses, our own refusals, and bugs do not."""
        for answer in (
            canned(429),
            canned(404),
            canned(501),
            AddressRefused("h", "x"),
            OriginBusy("h", 1, 1),
            FetchTimeout("queue", 1.0),
            BodyTooLarge(1),
            ZeroDivisionError(),
        ):
            for _ in range(3):
                self.ask([answer], policy=RetryPolicy(retries=0)).addErrback(lambda failure: None)
            self.assertEqual(self.breaker.state, CircuitState.CLOSED, answer)
        bad: Any  # Any: as FakeAgent takes it
        for bad in (
            canned(502),
            CannotConnect("h", 80, "x"),
            ConnectionBroken("body", "x"),
            FetchTimeout("headers", 9.0, total=True),
        ):
            self.setUp()
            for _ in range(2):
                self.ask([bad], policy=RetryPolicy(retries=0)).addErrback(lambda failure: None)
            self.assertEqual(self.breaker.state, CircuitState.OPEN, bad)

    def test_timeouts(self) -> None:
        """One counts if the origin was waited for as long as the floor, or the client's limit."""
        for limit, waited, counts in (
            (None, 4.9, False),
            (None, 5.0, True),
            (2.0, 1.9, False),
            (2.0, 2.0, True),
            (9.0, 4.9, False),
        ):
            settings = HttpSettings(headers_timeout=limit)
            for total in (False, True):
                error = FetchTimeout("headers", 9.0, total=total, waited=waited)
                self.assertEqual(origin_health(error, settings), False if counts else None)
        for phase in ("queue", "retry", "hook"):
            self.assertIsNone(origin_health(FetchTimeout(phase, 99.0), HttpSettings()))

    def test_other_origins(self) -> None:
        """Each origin has its own."""
        self.ask([canned(503)] * 2, policy=RetryPolicy(retries=1))
        self.clock.advance(0.5)
        self.fake.answers.append(canned(200))
        agent = self.make([canned(200)])
        answered = agent.request(b"GET", b"http://other/")
        self.assertEqual(self.successResultOf(answered).code, 200)


class HedgeTests(RetryTestCase):
    """A slow GET or HEAD is sent a second time, if the policy asks for it."""

    policy = RetryPolicy(hedge_after=1.0, retries=0)

    def setUp(self) -> None:
        super().setUp()
        self.cancelled: list[Deferred[IResponse]] = []

    def waiting(self) -> Deferred[IResponse]:
        """Return a response that the test fires."""
        return Deferred(self.cancelled.append)

    def test_first_is_fast(self) -> None:
        """Without a slow response there is no second request, and no timer is left."""
        self.successResultOf(self.ask([canned(200)], policy=self.policy))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_second_wins(self) -> None:
        """The first good response counts; the other request is cancelled and reported."""
        slow = self.waiting()
        call = self.call()
        asking = self.ask([slow, canned(200)], policy=self.policy, call=call)
        self.clock.advance(0.9)
        self.assertEqual(len(self.fake.sent), 1)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(asking).code, 200)
        self.assertEqual(self.cancelled, [slow])
        told = [(a.number, a.outcome, a.seconds) for a in self.reports]
        self.assertEqual(told, [(1, "it was cancelled", 1.0), (2, "200", 0.0)])
        self.assertEqual(call.attempts, 2)

    def test_first_wins(self) -> None:
        """The first may still be faster."""
        first, second = self.waiting(), self.waiting()
        asking = self.ask([first, second], policy=self.policy)
        self.clock.advance(1.0)
        first.callback(canned(204))
        self.assertEqual(self.successResultOf(asking).code, 204)
        self.assertEqual(self.cancelled, [second])

    def test_bad_answer_waits_for_the_other(self) -> None:
        """A failure is not final while the other may still succeed; its body is discarded."""
        slow = self.waiting()
        source = Source()
        source.response.code = 503
        asking = self.ask([slow, source.response], policy=self.policy)
        self.clock.advance(1.0)
        self.assertNoResult(asking)
        self.assertEqual(source.aborted, 1)
        slow.callback(canned(200))
        self.assertEqual(self.successResultOf(asking).code, 200)
        self.assertEqual([a.outcome for a in self.reports], ["503", "200"])

    def test_both_fail(self) -> None:
        """If both fail the last one is the outcome, and retries go on as usual."""
        slow = self.waiting()
        policy = RetryPolicy(hedge_after=1.0, retries=5)
        answers = [slow, ConnectionBroken("headers", "x"), canned(200)]
        asking = self.ask(answers, policy=policy)
        self.clock.advance(1.0)
        slow.errback(ConnectionBroken("headers", "y"))
        self.clock.advance(1.0)
        self.assertEqual(self.successResultOf(asking).code, 200)

    def test_charged_to_the_budget(self) -> None:
        """A hedge costs what a retry does and is not refunded; without tokens there is none."""
        self.origins = OriginTable(self.clock, HttpSettings(budget=BudgetSettings(capacity=15)))
        self.ask([self.waiting(), canned(200)], policy=self.policy)
        self.clock.advance(1.0)
        self.assertEqual(self.origins.get(ORIGIN).budget.tokens, 2)
        self.ask([self.waiting(), canned(200)], policy=self.policy)
        self.clock.advance(1.0)
        self.assertEqual(len(self.fake.sent), 1)

    def test_only_what_is_safe(self) -> None:
        """Other methods, and requests with a body, are never hedged."""
        for options in ({"method": b"PUT"}, {"producer": BytesProducer(b"x")}):
            self.ask([self.waiting()], policy=self.policy, **options)
            self.clock.advance(5.0)
            self.assertEqual(len(self.fake.sent), 1)
        self.ask([self.waiting(), self.waiting()], policy=self.policy, method=b"HEAD")
        self.clock.advance(1.0)
        self.assertEqual(len(self.fake.sent), 2)

    def test_not_beside_a_probe(self) -> None:
        """While the breaker is half open there is no hedge."""
        self.origins = OriginTable(
            self.clock, HttpSettings(breaker=CircuitBreakerSettings(failures=1, rest=10.0))
        )
        self.ask([canned(503)], policy=self.policy)
        self.clock.advance(10.0)
        self.ask([self.waiting(), canned(200)], policy=self.policy)
        self.clock.advance(2.0)
        self.assertEqual(len(self.fake.sent), 1)

    def test_cancel(self) -> None:
        """Cancelling cancels both, and the timer."""
        both = [self.waiting(), self.waiting()]
        asking = self.ask(both, policy=self.policy)
        self.clock.advance(1.0)
        asking.cancel()
        self.assertEqual(self.cancelled, both)
        self.failureResultOf(asking, CancelledError)
        asking = self.ask([self.waiting()], policy=self.policy)
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bug(self) -> None:
        """A bug in one ends both."""
        slow = self.waiting()
        asking = self.ask([slow, ZeroDivisionError()], policy=self.policy)
        self.clock.advance(1.0)
        self.failureResultOf(asking, ZeroDivisionError)
        self.assertEqual(self.cancelled, [slow])


class CommonMistakesTests(RetryTestCase):
    """Mistakes that other clients make."""

    def test_aiohttp_retry_resends_generator_bodies_empty(self) -> None:
        """A body that is read as it is sent is sent once; the failure is final."""
        producer = FileBodyProducer(io.BytesIO(b"abc"), cooperator=Immediately())
        asking = self.ask([canned(503), canned(200)], method=b"PUT", producer=producer)
        self.assertEqual(self.successResultOf(asking).code, 503)
        self.assertEqual([sent.body for sent in self.fake.sent], [b"abc"])

    def test_urllib3_raises_on_a_malformed_retry_after(self) -> None:
        """With a malformed ``Retry-After`` the drawn delay is used."""
        for value in ("soon", "1.5", "-3", "\xff", "", "9" * 5000 + "x"):
            asking = self.ask([canned(503, headers=[("Retry-After", value)]), canned(200)])
            self.clock.advance(0.5)
            self.assertEqual(self.successResultOf(asking).code, 200)

    def test_urllib3_waits_zero_before_the_first_retry(self) -> None:
        """The first retry has a delay too."""
        asking = self.ask([canned(503), canned(200)])
        self.clock.advance(0.49)
        self.assertNoResult(asking)
        self.assertEqual(len(self.fake.sent), 1)

    def test_go_retryablehttp_obeys_any_retry_after(self) -> None:
        """A ``Retry-After`` past the deadline means giving up now."""
        for value in ("3600", "9" * 400):
            call = self.call(deadline=Deadline(30.0, 30.0))
            answer = canned(429, headers=[("Retry-After", value)])
            self.assertEqual(self.successResultOf(self.ask([answer], call=call)).code, 429)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_go_retryablehttp_retries_post(self) -> None:
        """A POST that may have arrived is not retried."""
        asking = self.ask([canned(503), canned(200)], method=b"POST")
        self.assertEqual(self.successResultOf(asking).code, 503)

    def test_tenacity_oversleeps_its_deadline(self) -> None:
        """No delay ends after the deadline, by the reactor's clock."""
        call = self.call(deadline=Deadline(1.2, 1.2))
        asking = self.ask([canned(503)] * 4, call=call)
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(asking).code, 503)
        self.assertEqual(self.clock.seconds(), 0.5)

    def test_envoy_waits_for_a_retry_after_past_its_deadline(self) -> None:
        """A date past the deadline is not waited for either."""
        call = self.call(deadline=Deadline(5.0, 5.0))
        wish = format_date(1_795_305_600.0 + 60)
        asking = self.ask([canned(503, headers=[("Retry-After", wish)])], call=call)
        self.assertEqual(self.successResultOf(asking).code, 503)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LogAttemptTests(HttpTestCase):
    """:func:`log_attempt` logs retries at info level, and other attempts at debug level."""

    def test_levels(self) -> None:
        """An attempt that is retried is logged at info level."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        log_attempt(Attempt("GET", "http://h/", 1, 0.25, 503, None, 0.5))
        log_attempt(Attempt("GET", "http://h/", 2, 0.25, 200, None, None))
        self.assertEqual([e["log_level"] for e in events], [LogLevel.info, LogLevel.debug])
        text = events[0]["log_format"].format(**events[0])
        self.assertEqual(
            text, "GET http://h/ attempt 1: 503 after 0.250 s; the next one in 0.500 s"
        )
        text = events[1]["log_format"].format(**events[1])
        self.assertEqual(text, "GET http://h/ attempt 2: 200 after 0.250 s")
