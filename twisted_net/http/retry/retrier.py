"""
Retries: the step of a call that makes attempts until one is final, within a budget and a breaker.

It decides nothing: :mod:`twisted_net.http.retry.policy`, :mod:`twisted_net.http.retry.budget` and
:mod:`twisted_net.http.retry.circuit_breaker` do. It passes time, chance and outcomes to them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from twisted_net.errors import FetchError
from twisted_net.http.bodies import (
    BodyCollector,
    BodyResponse,
    BufferedResponse,
    BytesProducer,
    discard,
)
from twisted_net.http.call import Call
from twisted_net.http.calls.outcomes import result_of, started
from twisted_net.http.dates import parse_date
from twisted_net.http.errors import CircuitOpen, FetchTimeout, UrlNamed
from twisted_net.http.origins import OriginState, OriginTable
from twisted_net.http.request import OutgoingRequest, Send
from twisted_net.http.retry.budget import REWARD
from twisted_net.http.retry.circuit_breaker import CircuitState
from twisted_net.http.retry.hedging import hedge
from twisted_net.http.retry.policy import Attempt, may_repeat, parse_retry_after, retry_delay
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import HttpSettings
from twisted_net.net.characters import printable
from twisted_net.net.redaction import redact_url

log = Logger()

HEDGED = frozenset({"GET", "HEAD"})
"""Methods that may be hedged: two requests at a time are harmless."""


def log_attempt(attempt: Attempt) -> None:
    """
    Log one attempt: at info level one that is retried, at debug level any other.

    A :class:`Retrier` does not report to this function an attempt whose response it returns.
    """
    emit = log.debug if attempt.wait is None else log.info
    emit(
        "{method} {url} attempt {number}: {outcome} after {seconds:.3f} s{next}",
        method=attempt.method,
        url=printable(attempt.url),
        number=attempt.number,
        outcome=printable(attempt.outcome),
        seconds=attempt.seconds,
        wait=attempt.wait,
        next="" if attempt.wait is None else f"; the next one in {attempt.wait:.3f} s",
    )


@define(eq=False)
class _AttemptOutcome:
    """The outcome of one attempt: a response or an error."""

    number: int
    began: float
    seconds: float = 0.0
    response: BodyResponse | None = None
    error: FetchError | None = None

    def failed(self, policy: RetryPolicy) -> bool:
        """Return whether it counts as failed by the policy."""
        if self.response is not None:
            return self.response.code in policy.statuses
        return self.error is not None and self.error.transient


class Retrier:
    """
    Retries failed requests, by a policy.

    An attempt has failed with an error that is transient, or a status that the policy lists. The
    last response is returned as it is, whatever its status; the last error is raised. A request
    whose body cannot be sent twice is not retried.

    There is no retry where the budget of the origin has too few tokens, or the circuit breaker
    would reject it: the last response or error is returned at once, without a useless delay. If
    the breaker rejects the first attempt, the request fails with
    :class:`~twisted_net.http.errors.CircuitOpen`.

    :param attempt: makes one attempt.
    :param clock: a steady one.
    :param origins: has the budgets and breakers.
    :param report: called with each attempt, when it is over.
    :ivar closed: whether no more attempts follow those that are being made.
    """

    def __init__(
        self,
        attempt: Send,
        clock: IReactorTime,
        origins: OriginTable,
        *,
        chance: Callable[[], float],
        wall: Callable[[], float],
        report: Callable[[Attempt], None],
    ) -> None:
        self.attempt = attempt
        self.clock = clock
        self.origins = origins
        self.chance = chance
        self.wall = wall
        self.report = report
        self.closed = False
        self._delays: set[Deferred[None]] = set()

    async def delay(self, seconds: float) -> None:
        """Wait between two attempts."""
        waiting: Deferred[None] = deferLater(self.clock, seconds)
        self._delays.add(waiting)
        try:
            await result_of(waiting)
        finally:
            self._delays.discard(waiting)

    def close(self) -> None:
        """Cancel the requests that wait between two attempts; none is tried again any more."""
        self.closed = True
        for waiting in list(self._delays):
            waiting.cancel()

    def send(
        self, request: OutgoingRequest, call: Call, policy: RetryPolicy
    ) -> Awaitable[BodyResponse]:
        """Make attempts until one is final; return its response."""
        return RetryLoop(self, request, call, policy).response()

    def go_on(
        self, request: OutgoingRequest, call: Call, origin: OriginState, begun: BegunAttempt
    ) -> Coroutine[Any, Any, BodyResponse]:
        """Do as :meth:`send` does, after its first attempt has begun."""
        return RetryLoop(self, request, call, call.retry, origin).response(begun)

    def succeed(
        self,
        request: OutgoingRequest,
        call: Call,
        origin: OriginState,
        began: float,
        ticket: int,
        response: BodyResponse,
        end: float,
    ) -> None:
        """
        Do as :meth:`send` does, after its first attempt has brought a response.

        :param began: when that was.
        :param ticket: of the circuit breaker.
        :param response: with none of the statuses for which the policy of *call* makes another.
        :param end: when it came.
        """
        origin.breaker.release(ticket, True, end)
        origin.log_circuit()
        origin.budget.refund(REWARD)
        if self.report is not log_attempt:
            outcome = _AttemptOutcome(1, began, end - began, response)
            RetryLoop(self, request, call, call.retry, origin).report_attempt(outcome, None)


def buffered(response: BodyResponse, call: Call) -> Deferred[BodyResponse]:
    """
    Return a response with its body in memory.

    If it breaks off with an error of this package, the call has what came of it.
    """
    collector = BodyCollector()

    def end(ended: tuple[bytes, Failure] | Failure) -> BufferedResponse | Failure:
        if isinstance(ended, Failure):
            if ended.check(FetchError) is not None:
                call.broken = response, collector.received()
            return ended
        body, reason = ended
        return BufferedResponse(
            response.code,
            response.phrase,
            response.fields,
            body,
            minor=response.version[2],
            complete=reason.check(ResponseDone) is not None,
        )

    response.deliverBody(collector)
    return collector.done.addBoth(end)


@define(eq=False)
class BegunAttempt:
    """
    An attempt that has begun.

    :param at: when it began.
    :param ticket: of the circuit breaker.
    :param answered: fires with its response, or fails, where it is on its way already.
    """

    at: float
    ticket: int
    answered: Deferred[BodyResponse] | None = None


class RetryLoop:
    """One request with its retries."""

    def __init__(
        self,
        retrier: Retrier,
        request: OutgoingRequest,
        call: Call,
        policy: RetryPolicy,
        origin: OriginState | None = None,
    ) -> None:
        self._retrier = retrier
        self._clock = retrier.clock
        self._call = call
        self._policy = policy
        self._request = request
        self._number = 0
        target = request.target
        if call.overrides is not None:
            # What a proxy of this call does says nothing of other routes.
            target = call.overrides.target(target)
        self._host = target.host
        if origin is None:
            origin = retrier.origins.get(target.origin)
        self._origin = origin
        self._breaker = origin.breaker
        self._budget = origin.budget

    def _begin(self) -> BegunAttempt:
        now = self._clock.seconds()
        ticket = self._breaker.acquire(now)
        if ticket is None:
            raise CircuitOpen(self._host, self._breaker.retry_after(now))
        self._origin.log_circuit()
        self._number += 1
        self._call.attempts += 1
        self._call.broken = None
        return BegunAttempt(now, ticket)

    async def response(self, begun: BegunAttempt | None = None) -> BodyResponse:
        """
        Make attempts until one is final; return its response.

        :param begun: the first of them, if it has begun; the call has counted it.
        """
        began = self._clock.seconds()
        if begun is not None:
            began, self._number = begun.at, 1
        paid = REWARD
        hedged = (
            self._policy.hedge_after is not None
            and self._request.method in HEDGED
            and self._request.producer is None
        )
        while True:
            outcome = await (self._hedged() if hedged else self._attempt(begun))
            begun = None
            wait, cost = self._next(outcome)
            self.report_attempt(outcome, wait)
            if wait is None:
                if not outcome.failed(self._policy) and outcome.response is not None:
                    self._budget.refund(paid)
                self._call.delay = outcome.began - began
                return _result(outcome)
            if outcome.response is not None:
                discard(outcome.response)
            try:
                await self._retrier.delay(wait)
            except CancelledError:
                self._budget.refund(cost)
                raise
            paid = cost

    async def _attempt(self, begun: BegunAttempt | None = None) -> _AttemptOutcome:
        """
        Make one attempt; errors of the server and the network are in the outcome.

        :raises CircuitOpen: if the circuit breaker rejects it.
        """
        if begun is None:
            begun = self._begin()
        now = begun.at
        outcome = _AttemptOutcome(self._number, now)
        healthy: bool | None = None
        try:
            if begun.answered is None:
                response = await self._retrier.attempt(self._request, self._call)
            else:
                response = await result_of(begun.answered)
            if (
                self._call.buffer_body
                and response.length != 0
                and not isinstance(response, BufferedResponse)
            ):
                response = await result_of(buffered(response, self._call))
            outcome.response = response
            healthy = response.code < 500 or response.code not in self._policy.statuses
        except FetchError as error:
            # This frame is in its traceback, and keeps the outcome.
            outcome.error = error.with_traceback(None)
            healthy = origin_health(error, self._retrier.origins.settings)
        except CancelledError:
            outcome.seconds = self._clock.seconds() - now
            self.report_attempt(outcome, None)
            raise
        finally:
            end = self._clock.seconds()
            outcome.seconds = end - now
            self._breaker.release(begun.ticket, healthy, end)
            self._origin.log_circuit()
        return outcome

    async def _hedged(self) -> _AttemptOutcome:
        """Make an attempt, and a second one beside it if the first takes too long."""
        delay = self._policy.hedge_after
        assert delay is not None

        def good(outcome: _AttemptOutcome, last: bool) -> bool:
            if not outcome.failed(self._policy):
                return True
            if not last:
                # The other one may still succeed; the response of this one is not used.
                self.report_attempt(outcome, None)
                if outcome.response is not None:
                    discard(outcome.response)
            return False

        return await result_of(
            hedge(
                self._clock,
                lambda: started(self._attempt()),
                delay,
                lambda: (
                    self._breaker.state is CircuitState.CLOSED
                    and self._budget.acquire() is not None
                ),
                good,
            )
        )

    def _next(self, outcome: _AttemptOutcome) -> tuple[float | None, int]:
        """Return the delay before the next attempt, None for none, and its cost in tokens."""
        response, error = outcome.response, outcome.error
        again = outcome.failed(self._policy) and not self._retrier.closed
        if not (again and self._may_repeat(error)):
            return None, 0
        floor = None if response is None else _retry_after(response, self._retrier.wall())
        now = self._clock.seconds()
        deadline = self._call.deadline
        remaining = None if deadline is None else deadline.at - now
        wait = retry_delay(
            self._policy, self._number, self._retrier.chance(), floor=floor, remaining=remaining
        )
        if wait is None or self._breaker.retry_after(now) > wait:
            return None, 0
        throttled = floor is not None or (response is not None and response.code == 429)
        cost = self._budget.acquire(throttled=throttled)
        return (None, 0) if cost is None else (wait, cost)

    def _may_repeat(self, error: FetchError | None) -> bool:
        """Return whether the request can be sent twice, and may be."""
        producer = self._request.producer
        if not (producer is None or isinstance(producer, BytesProducer) or self._call.body_unsent):
            return False
        if error is not None and error.unsent:
            return True
        if self._call.idempotent is not None:
            return self._call.idempotent
        key = "idempotency-key" in self._request.fields
        return may_repeat(self._policy, self._request.method, idempotency_key=key)

    def report_attempt(self, outcome: _AttemptOutcome, wait: float | None) -> None:
        """Report an attempt, and the seconds until the next one; None if there is none."""
        report = self._retrier.report
        if report is log_attempt and wait is None and outcome.response is not None:
            # A filtered event costs as much as a tenth of the request.
            return
        error: object = outcome.error
        if isinstance(error, UrlNamed):
            error = error.message  # beside the URL
        if outcome.response is None and error is None:
            error = "it was cancelled"
        report(
            Attempt(
                method=self._request.method,
                url=redact_url(self._request.target.url),
                number=outcome.number,
                seconds=outcome.seconds,
                status=None if outcome.response is None else outcome.response.code,
                error=None if error is None else str(error),
                wait=wait,
            )
        )


def _retry_after(response: BodyResponse, wall: float) -> float | None:
    """
    Return the seconds that ``Retry-After`` of a response asks for; None without a valid one.

    A date counts from the ``Date`` of the same response: it is by the same clock, and ours may be
    wrong. A response that has an ``Age`` was made long before it was received.
    """
    fields = response.fields
    retry_after = fields.first("retry-after")
    if retry_after is None:
        return None
    date = None if "age" in fields else fields.first("date")
    made = None if date is None else parse_date(date.strip(), wall)
    return parse_retry_after(retry_after, wall if made is None else made)


def _result(outcome: _AttemptOutcome) -> BodyResponse:
    if outcome.response is not None:
        return outcome.response
    assert outcome.error is not None
    raise outcome.error.with_traceback(None)


def origin_health(error: FetchError, settings: HttpSettings) -> bool | None:
    """
    Return False for an error that shows a failing origin, None for one that shows nothing.

    A timeout does if the origin alone was waited for, at least as long as the floor of the breaker
    or the client's own limit of that phase: a caller who waits for less has said nothing of it, and
    so has one whose time ended in a queue.
    """
    if not isinstance(error, FetchTimeout):
        return False if error.transient else None
    limits = {
        "connect": settings.connect_timeout,
        "headers": settings.headers_timeout,
        "body": settings.silence_timeout,
    }
    if error.phase not in limits:
        return None
    limit = limits[error.phase]
    floor = settings.breaker.timeout_floor
    return False if error.waited >= (floor if limit is None else min(floor, limit)) else None
