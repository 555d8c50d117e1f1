"""
The layer that makes failed requests again, within a budget and behind a circuit breaker.

It decides nothing: :mod:`twisted_net.http.retry.policy`, :mod:`twisted_net.http.retry.budget` and
:mod:`twisted_net.http.retry.circuit_breaker` do. It carries time, chance and outcomes to them.
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
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from twisted_net.errors import FetchError
from twisted_net.http.bodies import (
    BodyResponse,
    BufferedResponse,
    BytesProducer,
    collect,
    deliver_bytes,
    discard,
)
from twisted_net.http.call import Call
from twisted_net.http.errors import CircuitOpen, FetchTimeout
from twisted_net.http.per_origin import PerOrigin
from twisted_net.http.retry.budget import REWARD, RetryBudget
from twisted_net.http.retry.circuit_breaker import Breaker, State
from twisted_net.http.retry.hedging import first_good
from twisted_net.http.retry.policy import Attempt, may_repeat, parse_retry_after, retry_delay
from twisted_net.http.retry.settings import BreakerSettings, BudgetSettings, RetryPolicy
from twisted_net.http.urls import parse_target, redact

log = Logger()

HEDGED = frozenset({b"GET", b"HEAD"})
"""Methods of which two requests at a time do no harm, if the policy wants that."""


def log_attempt(attempt: Attempt) -> None:
    """
    Log one attempt: a failed one that is repeated as news, any other for debugging.

    An agent that reports to this function leaves out the attempts whose response is the answer.
    """
    emit = log.debug if attempt.wait is None else log.info
    emit(
        "{method} {url} attempt {number}: {outcome} after {seconds:.3f} s{next}",
        method=attempt.method,
        url=attempt.url,
        number=attempt.number,
        outcome=attempt.outcome,
        seconds=attempt.seconds,
        wait=attempt.wait,
        next="" if attempt.wait is None else f"; the next one in {attempt.wait:.3f} s",
    )


class Recovery:
    """
    What an agent remembers of origins that fail: their budgets and breakers.

    :param max_origins: most origins of which it is remembered.
    """

    def __init__(
        self,
        budget: BudgetSettings | None = None,
        breaker: BreakerSettings | None = None,
        max_origins: int = 1000,
    ) -> None:
        budget_settings = budget or BudgetSettings()
        breaker_settings = breaker or BreakerSettings()
        self.budgets = PerOrigin(lambda: RetryBudget(budget_settings), max_origins)
        self.breakers = PerOrigin(lambda: Breaker(breaker_settings), max_origins)


@define(eq=False)
class _Outcome:
    """What one attempt came to: a response, or an error."""

    number: int
    sent: float
    seconds: float = 0.0
    response: IResponse | None = None
    error: FetchError | None = None

    def failed(self, policy: RetryPolicy) -> bool:
        """Whether the policy would have it made again."""
        if self.response is not None:
            return self.response.code in policy.statuses
        return self.error is not None and self.error.transient


@implementer(IAgent)
class RetryAgent:
    """
    Makes a failed request again, as a policy has it.

    Failed are: an error that says of itself that it is transient, and a status that the policy
    lists. The last response is given as it is, whatever its status; the last error is raised. A
    request whose body cannot be sent twice is made once.

    No retry is made for which the budget of the origin has no tokens, or which would meet an open
    breaker: what there is then is given at once, not after a wait for nothing. A request that
    meets an open breaker first fails with :class:`~twisted_net.http.errors.CircuitOpen`.

    :param call: the terms of the call; without, the policy and no deadline.
    :param recovery: the budgets and breakers; by default new ones.
    :param report: is told of each attempt, when it is over.
    """

    def __init__(
        self,
        agent: IAgent,
        clock: IReactorTime,
        policy: RetryPolicy,
        *,
        call: Call | None = None,
        recovery: Recovery | None = None,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
        report: Callable[[Attempt], None] = log_attempt,
    ) -> None:
        self._agent = agent
        self._clock = clock
        self._policy = policy
        self._call = call or Call(None, policy, None, 0)
        self._recovery = recovery or Recovery()
        self._chance = chance
        self._wall = wall
        self._report = report

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        run = _Run(self, method, uri, headers, bodyProducer)
        return Deferred.fromCoroutine(run.response())


class _Run:
    """One request with its retries."""

    def __init__(
        self,
        layer: RetryAgent,
        method: bytes,
        uri: bytes,
        headers: Headers | None,
        producer: IBodyProducer | None,
    ) -> None:
        self._layer = layer
        self._clock = layer._clock
        self._call = layer._call
        self._policy = layer._policy
        self._method = method
        self._uri = uri
        self._headers = headers
        self._producer = producer
        self._number = 0

    async def response(self) -> IResponse:
        """Give the response in the end."""
        target = parse_target(self._uri.decode("latin-1"))
        self._host = target.host
        self._breaker = self._layer._recovery.breakers.of(target.origin)
        self._budget = self._layer._recovery.budgets.of(target.origin)
        paid = REWARD
        hedged = (
            self._policy.hedge_after is not None
            and self._method in HEDGED
            and self._producer is None
        )
        while True:
            outcome = await (self._hedged() if hedged else self._attempt())
            wait, cost = self._next(outcome)
            self._tell(outcome, wait)
            if wait is None:
                if not outcome.failed(self._policy) and outcome.response is not None:
                    self._budget.refund(paid)
                self._call.sent = outcome.sent
                return _given(outcome)
            if outcome.response is not None:
                discard(outcome.response)
            try:
                await deferLater(self._clock, wait)
            except CancelledError:
                self._budget.refund(cost)
                raise
            paid = cost

    async def _attempt(self) -> _Outcome:
        """Make one attempt; only bugs, and an open breaker, are raised."""
        now = self._clock.seconds()
        ticket = self._breaker.begin(now)
        if ticket is None:
            raise CircuitOpen(self._host, self._breaker.wait(now))
        self._number += 1
        self._call.attempts += 1
        outcome = _Outcome(self._number, self._layer._wall())
        healthy: bool | None = None
        try:
            response = await self._layer._agent.request(
                self._method, self._uri, self._headers, self._producer
            )
            if (
                self._call.buffer_body
                and response.length != 0
                and not isinstance(response, BufferedResponse)
            ):
                body, reason = await collect(response)
                response = BodyResponse.like(response, deliver_bytes(body, reason))
            outcome.response = response
            healthy = response.code < 500 or response.code not in self._policy.statuses
        except FetchError as error:
            outcome.error = error
            healthy = _verdict(error)
        except CancelledError:
            outcome.seconds = self._clock.seconds() - now
            self._tell(outcome, None)
            raise
        finally:
            end = self._clock.seconds()
            outcome.seconds = end - now
            self._breaker.end(ticket, healthy, end)
        return outcome

    async def _hedged(self) -> _Outcome:
        """Make one attempt, and a second one beside it when the first takes too long."""
        delay = self._policy.hedge_after
        assert delay is not None

        def good(outcome: _Outcome, last: bool) -> bool:
            if not outcome.failed(self._policy):
                return True
            if not last:
                # The other one may still succeed; of this one nothing is used any more.
                self._tell(outcome, None)
                if outcome.response is not None:
                    discard(outcome.response)
            return False

        return await first_good(
            self._clock,
            lambda: Deferred.fromCoroutine(self._attempt()),
            delay,
            lambda: self._breaker.state is State.CLOSED and self._budget.reserve() is not None,
            good,
        )

    def _next(self, outcome: _Outcome) -> tuple[float | None, int]:
        """Give the wait for the next attempt and what it costs; None where there is none."""
        response, error = outcome.response, outcome.error
        if not outcome.failed(self._policy) or not self._may_repeat(error):
            return None, 0
        floor = None
        if response is not None:
            lines = response.headers.getRawHeaders(b"retry-after", [])
            if lines:
                floor = parse_retry_after(lines[0].decode("latin-1"), self._layer._wall())
        now = self._clock.seconds()
        deadline = self._call.deadline
        remaining = None if deadline is None else deadline.at - now
        wait = retry_delay(
            self._policy, self._number, self._layer._chance(), floor=floor, remaining=remaining
        )
        if wait is None or self._breaker.wait(now) > wait:
            return None, 0
        throttled = floor is not None or (response is not None and response.code == 429)
        cost = self._budget.reserve(throttled=throttled)
        return (None, 0) if cost is None else (wait, cost)

    def _may_repeat(self, error: FetchError | None) -> bool:
        """Whether the request can be made twice, and may."""
        if not (self._producer is None or isinstance(self._producer, BytesProducer)):
            return False
        if error is not None and error.unsent:
            return True
        if self._call.idempotent is not None:
            return self._call.idempotent
        key = self._headers is not None and self._headers.hasHeader(b"idempotency-key")
        return may_repeat(self._policy, self._method.decode("ascii"), idempotency_key=key)

    def _tell(self, outcome: _Outcome, wait: float | None) -> None:
        report = self._layer._report
        if report is log_attempt and wait is None and outcome.response is not None:
            # An event that is filtered out costs as much as a tenth of the request.
            return
        error: object = outcome.error
        if outcome.response is None and error is None:
            error = "it was cancelled"
        report(
            Attempt(
                method=self._method.decode("ascii"),
                url=redact(self._uri.decode("latin-1")),
                number=outcome.number,
                seconds=outcome.seconds,
                status=None if outcome.response is None else outcome.response.code,
                error=None if error is None else str(error),
                wait=wait,
            )
        )


def _given(outcome: _Outcome) -> IResponse:
    if outcome.response is not None:
        return outcome.response
    assert outcome.error is not None
    raise outcome.error


def _verdict(error: FetchError) -> bool | None:
    """Whether an error speaks against its origin; None where it says nothing of it."""
    if isinstance(error, FetchTimeout):
        return None if error.phase == "queue" else False
    return False if error.transient else None
