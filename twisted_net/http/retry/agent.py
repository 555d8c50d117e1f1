"""
The retry layer: an ``IAgent`` that retries failed requests, within a budget and a breaker.

It decides nothing: :mod:`twisted_net.http.retry.policy`, :mod:`twisted_net.http.retry.budget` and
:mod:`twisted_net.http.retry.circuit_breaker` do. It passes time, chance and outcomes to them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.iweb import IAgent, IResponse
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import FetchError
from twisted_net.http.agent_layer import AgentLayer, AgentRequest
from twisted_net.http.bodies import (
    BodyCollector,
    BodyResponse,
    BufferedResponse,
    BytesProducer,
    deliver_bytes,
    discard,
)
from twisted_net.http.call import Call
from twisted_net.http.calls.outcomes import result_of, started
from twisted_net.http.dates import parse_date
from twisted_net.http.errors import CircuitOpen, FetchTimeout
from twisted_net.http.per_origin import PerOrigin
from twisted_net.http.retry.budget import REWARD, RetryBudget
from twisted_net.http.retry.circuit_breaker import CircuitBreaker, CircuitState
from twisted_net.http.retry.hedging import hedge
from twisted_net.http.retry.policy import Attempt, may_repeat, parse_retry_after, retry_delay
from twisted_net.http.retry.settings import BudgetSettings, CircuitBreakerSettings, RetryPolicy
from twisted_net.http.urls import parse_target
from twisted_net.net.characters import printable
from twisted_net.net.redaction import redact_url
from twisted_net.net.steady_clock import steady

log = Logger()

HEDGED = frozenset({b"GET", b"HEAD"})
"""Methods that may be hedged: two requests at a time are harmless."""


def log_attempt(attempt: Attempt) -> None:
    """
    Log one attempt: at info level one that is retried, at debug level any other.

    A :class:`RetryAgent` does not report to this function an attempt whose response it returns.
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


@check_arguments
class OriginRecovery:
    """
    The retry budgets and circuit breakers of all origins.

    :param max_origins: limit of origins that have one of each.
    """

    def __init__(
        self,
        budget: BudgetSettings | None = None,
        breaker: CircuitBreakerSettings | None = None,
        max_origins: int = 1000,
    ) -> None:
        budget_settings = budget or BudgetSettings()
        breaker_settings = breaker or CircuitBreakerSettings()
        self.budgets = PerOrigin(lambda: RetryBudget(budget_settings), max_origins)
        self.breakers = PerOrigin(lambda: CircuitBreaker(breaker_settings), max_origins)


@define(eq=False)
class _AttemptOutcome:
    """The outcome of one attempt: a response or an error."""

    number: int
    began: float
    seconds: float = 0.0
    response: IResponse | None = None
    error: FetchError | None = None

    def failed(self, policy: RetryPolicy) -> bool:
        """Return whether it counts as failed by the policy."""
        if self.response is not None:
            return self.response.code in policy.statuses
        return self.error is not None and self.error.transient


@check_arguments
class RetryAgent(AgentLayer):
    """
    Retries failed requests, by a policy.

    An attempt has failed with an error that is transient, or a status that the policy lists. The
    last response is returned as it is, whatever its status; the last error is raised. A request
    whose body cannot be sent twice is not retried.

    There is no retry where the budget of the origin has too few tokens, or the circuit breaker
    would reject it: the last response or error is returned at once, without a useless delay. If
    the breaker rejects the first attempt, the request fails with
    :class:`~twisted_net.http.errors.CircuitOpen`.

    :param call: the terms of the call; by default the policy and no deadline.
    :param recovery: the budgets and breakers; by default new ones.
    :param report: called with each attempt, when it is over.
    """

    def __init__(
        self,
        agent: IAgent,
        clock: IReactorTime,
        policy: RetryPolicy,
        *,
        call: Call | None = None,
        recovery: OriginRecovery | None = None,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
        report: Callable[[Attempt], None] = log_attempt,
    ) -> None:
        self._agent = agent
        self._clock = steady(clock)
        self._policy = policy
        self._call = call or Call(None, policy, None, 0)
        self._recovery = recovery or OriginRecovery()
        self._chance = chance
        self._wall = wall
        self._report = report

    @override
    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        return started(_RetryLoop(self, request).response())


class _RetryLoop:
    """One request with its retries."""

    def __init__(self, layer: RetryAgent, request: AgentRequest) -> None:
        self._layer = layer
        self._clock = layer._clock
        self._call = layer._call
        self._policy = layer._policy
        self._request = request
        self._number = 0

    async def response(self) -> IResponse:
        """Make attempts until one is final; return its response."""
        target = parse_target(self._request.uri.decode("latin-1"))
        if self._call.overrides is not None:
            # What a proxy of this call does says nothing of other routes.
            target = self._call.overrides.target(target)
        self._host = target.host
        self._breaker = self._layer._recovery.breakers.get(target.origin)
        self._budget = self._layer._recovery.budgets.get(target.origin)
        began = self._clock.seconds()
        paid = REWARD
        hedged = (
            self._policy.hedge_after is not None
            and self._request.method in HEDGED
            and self._request.producer is None
        )
        while True:
            outcome = await (self._hedged() if hedged else self._attempt())
            wait, cost = self._next(outcome)
            self._report_attempt(outcome, wait)
            if wait is None:
                if not outcome.failed(self._policy) and outcome.response is not None:
                    self._budget.refund(paid)
                self._call.delay = outcome.began - began
                return _result(outcome)
            if outcome.response is not None:
                discard(outcome.response)
            try:
                await result_of(deferLater(self._clock, wait))
            except CancelledError:
                self._budget.refund(cost)
                raise
            paid = cost

    async def _attempt(self) -> _AttemptOutcome:
        """
        Make one attempt; errors of the server and the network are in the outcome.

        :raises CircuitOpen: if the circuit breaker rejects it.
        """
        now = self._clock.seconds()
        ticket = self._breaker.acquire(now)
        if ticket is None:
            raise CircuitOpen(self._host, self._breaker.retry_after(now))
        self._number += 1
        self._call.attempts += 1
        self._call.broken = None
        outcome = _AttemptOutcome(self._number, now)
        healthy: bool | None = None
        try:
            response = await result_of(self._request.send(self._layer._agent))
            if (
                self._call.buffer_body
                and response.length != 0
                and not isinstance(response, BufferedResponse)
            ):
                response = await self._buffered(response)
            outcome.response = response
            healthy = response.code < 500 or response.code not in self._policy.statuses
        except FetchError as error:
            # This frame is in its traceback, and keeps the outcome.
            outcome.error = error.with_traceback(None)
            healthy = _origin_health(error)
        except CancelledError:
            outcome.seconds = self._clock.seconds() - now
            self._report_attempt(outcome, None)
            raise
        finally:
            end = self._clock.seconds()
            outcome.seconds = end - now
            self._breaker.release(ticket, healthy, end)
        return outcome

    async def _buffered(self, response: IResponse) -> IResponse:
        """Return a response with its body in memory; if it breaks off, keep what came of it."""
        collector = BodyCollector()
        response.deliverBody(collector)
        try:
            body, reason = await result_of(collector.done)
        except FetchError:
            self._call.broken = response, collector.received()
            raise
        return BodyResponse.like(response, deliver_bytes(body, reason))

    async def _hedged(self) -> _AttemptOutcome:
        """Make an attempt, and a second one beside it if the first takes too long."""
        delay = self._policy.hedge_after
        assert delay is not None

        def good(outcome: _AttemptOutcome, last: bool) -> bool:
            if not outcome.failed(self._policy):
                return True
            if not last:
                # The other one may still succeed; the response of this one is not used.
                self._report_attempt(outcome, None)
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
        if not outcome.failed(self._policy) or not self._may_repeat(error):
            return None, 0
        floor = None if response is None else _retry_after(response, self._layer._wall())
        now = self._clock.seconds()
        deadline = self._call.deadline
        remaining = None if deadline is None else deadline.at - now
        wait = retry_delay(
            self._policy, self._number, self._layer._chance(), floor=floor, remaining=remaining
        )
        if wait is None or self._breaker.retry_after(now) > wait:
            return None, 0
        throttled = floor is not None or (response is not None and response.code == 429)
        cost = self._budget.acquire(throttled=throttled)
        return (None, 0) if cost is None else (wait, cost)

    def _may_repeat(self, error: FetchError | None) -> bool:
        """Return whether the request can be sent twice, and may be."""
        if not (
            self._request.producer is None or isinstance(self._request.producer, BytesProducer)
        ):
            return False
        if error is not None and error.unsent:
            return True
        if self._call.idempotent is not None:
            return self._call.idempotent
        key = self._request.headers.hasHeader(b"idempotency-key")
        return may_repeat(self._policy, self._request.method.decode("ascii"), idempotency_key=key)

    def _report_attempt(self, outcome: _AttemptOutcome, wait: float | None) -> None:
        report = self._layer._report
        if report is log_attempt and wait is None and outcome.response is not None:
            # A filtered event costs as much as a tenth of the request.
            return
        error: object = outcome.error
        if outcome.response is None and error is None:
            error = "it was cancelled"
        report(
            Attempt(
                method=self._request.method.decode("ascii"),
                url=redact_url(self._request.uri.decode("latin-1")),
                number=outcome.number,
                seconds=outcome.seconds,
                status=None if outcome.response is None else outcome.response.code,
                error=None if error is None else str(error),
                wait=wait,
            )
        )


def _retry_after(response: IResponse, wall: float) -> float | None:
    """
    Return the seconds that ``Retry-After`` of a response asks for; None without a valid one.

    A date counts from the ``Date`` of the same response: it is by the same clock, and ours may be
    wrong. A response that has an ``Age`` was made long before it was received.
    """
    lines = response.headers.getRawHeaders(b"retry-after")
    if not lines:
        return None
    dates = response.headers.getRawHeaders(b"date")
    made = None
    if dates and not response.headers.hasHeader(b"age"):
        made = parse_date(dates[0].decode("latin-1").strip(), wall)
    return parse_retry_after(lines[0].decode("latin-1"), wall if made is None else made)


def _result(outcome: _AttemptOutcome) -> IResponse:
    if outcome.response is not None:
        return outcome.response
    assert outcome.error is not None
    raise outcome.error.with_traceback(None)


def _origin_health(error: FetchError) -> bool | None:
    """Return False for an error that shows a failing origin, None for one that shows nothing."""
    if isinstance(error, FetchTimeout):
        return None if error.phase == "queue" else False
    return False if error.transient else None
