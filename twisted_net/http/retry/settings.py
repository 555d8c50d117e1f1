"""Settings of retries, retry budgets and circuit breakers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from twisted_net.config.record import Record

IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
"""Idempotent methods (RFC 9110 §9.2.2)."""


MAX_RETRIES = 100
"""Limit of the retries of one call."""

MAX_HEDGE_AFTER = 3600
"""Longest time, in seconds, after which a second request may be sent."""


class RetryPolicy(Record, frozen=True):
    """
    Which failed requests are retried, how often, and after which delays.

    Three retries, so four attempts in all, a factor of 0.5 and these statuses are what the
    original client did. The delay before retry *n* is drawn evenly from 0 to
    ``base * 2**(n - 1)``, at most ``cap`` ("full jitter"), so that many clients do not retry in
    step: on average 0.25, 0.5 and 1 s. A server's ``Retry-After`` is the minimum delay, and the
    drawn one is added to it. The cap is a third of the default total timeout, so that no single
    delay uses it up.

    Hedging is off by default: it is for services whose slowest responses a second request would
    beat. A hedge costs as much of the retry budget as a retry and is never refunded, so that in
    the long run at most one call in fourteen makes a second request.
    """

    retries: Annotated[
        int, Meta(ge=0, le=MAX_RETRIES, description="limit of attempts after the first one failed")
    ] = 3
    base: Annotated[
        float, Meta(gt=0, le=3600, description="longest delay before the first retry, in seconds")
    ] = 0.5
    cap: Annotated[
        float, Meta(gt=0, le=86_400, description="longest delay that is drawn, in seconds")
    ] = 10.0
    statuses: Annotated[
        tuple[Annotated[int, Meta(ge=400, le=599)], ...],
        Meta(description="response statuses that count as failed"),
    ] = (429, 500, 502, 503, 504)
    methods: Annotated[
        tuple[str, ...],
        Meta(description="methods that may be retried; others only with an Idempotency-Key"),
    ] = IDEMPOTENT
    hedge_after: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=MAX_HEDGE_AFTER,
                description="seconds after which a second request is sent beside an unanswered GET"
                " or HEAD (hedging); none: never",
            ),
        ]
        | None
    ) = None


class BudgetSettings(Record, frozen=True):
    """
    The retry budget of one origin: its size and what a retry costs.

    The figures of the AWS SDKs (their retry behaviour of 2026): 500 tokens, 14 for a retry, 5
    after a throttling response, one refunded for each call that succeeds at once. While few calls
    fail, the budget never limits retries. When an origin fails altogether, some 35 retries are
    made, and then one for every fourteen successes, so that retries do not delay its recovery.
    """

    capacity: (
        Annotated[
            int,
            Meta(
                ge=0,
                description="tokens for retries to one origin; none: no limit",
            ),
        ]
        | None
    ) = 500
    retry_cost: Annotated[int, Meta(ge=0, description="tokens that a retry costs")] = 14
    throttled_cost: Annotated[
        int, Meta(ge=0, description="tokens for a retry after a throttling response")
    ] = 5


class CircuitBreakerSettings(Record, frozen=True):
    """
    When the circuit breaker of an origin opens, and for how long.

    Ten failures in a row are more than one call with its retries makes, so that a single call does
    not stop the others. A restart of a server takes some 10 s; after them one call at a time, a
    probe, finds out whether the origin is back. A probe that has not ended within its timeout no
    longer holds back the next one. A healthy origin answers within the floor of timeouts, and
    impatient callers alone do not stop the others.
    """

    failures: (
        Annotated[
            int,
            Meta(
                ge=1,
                description="failures in a row that open the circuit breaker of an origin;"
                " none: it never opens",
            ),
        ]
        | None
    ) = 10
    rest: Annotated[
        float,
        Meta(gt=0, le=86_400, description="how long a circuit breaker stays open, in seconds"),
    ] = 10.0
    probe_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="how long one probe after that holds back the next, in seconds",
        ),
    ] = 10.0
    timeout_floor: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="timeouts of calls that waited for the origin for less than this, in"
            " seconds, are no failures",
        ),
    ] = 5.0
