"""Settings of retries, retry budgets and circuit breakers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from twisted_net.config.record import Record

IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
"""Methods that may be repeated without more effect than once (RFC 9110 §9.2.2)."""


class RetryPolicy(Record, frozen=True):
    """
    How often, and how patiently, a failed request is made again.

    Three retries, so four calls in all, a factor of 0.5 and these statuses are what the original
    client did. The wait before retry *n* is drawn evenly from 0 to ``base * 2**(n - 1)``, at most
    ``cap`` ("full jitter"), so that many clients do not come back in step: on average 0.25, 0.5
    and 1 s. A server's ``Retry-After`` is the least wait, and the drawn one is added to it.
    The cap is a third of the usual total time, so that one wait cannot eat it.

    Hedging is left off: it is for services whose slowest answers a second request would beat.
    Each hedge costs what a retry does and is never refunded, so that in the long run no more than
    one call in fourteen makes a second request.
    """

    retries: Annotated[
        int, Meta(ge=0, le=100, description="calls made after the first one has failed")
    ] = 3
    base: Annotated[
        float, Meta(gt=0, le=3600, description="longest wait before the first retry, in seconds")
    ] = 0.5
    cap: Annotated[
        float, Meta(gt=0, le=86_400, description="longest wait that is drawn, in seconds")
    ] = 10.0
    statuses: Annotated[
        tuple[Annotated[int, Meta(ge=400, le=599)], ...],
        Meta(description="answers that count as failed"),
    ] = (429, 500, 502, 503, 504)
    methods: Annotated[
        tuple[str, ...],
        Meta(description="methods that may be repeated; others only with an Idempotency-Key"),
    ] = IDEMPOTENT
    hedge_after: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=3600,
                description="seconds after which an unanswered GET or HEAD is sent a second time"
                " beside the first; none: never",
            ),
        ]
        | None
    ) = None


class BudgetSettings(Record, frozen=True):
    """
    What retries to one origin cost.

    The figures of the AWS SDKs (their retry behaviour of 2026): 500 tokens, 14 for a retry, 5
    after an answer that asks for patience, one back for each call that succeeds at once. While all
    goes well the budget is never felt; when an origin fails altogether, some 35 retries are made
    and then one for every fourteen successes, so that its recovery is not drowned in retries.
    """

    capacity: (
        Annotated[
            int,
            Meta(ge=0, description="tokens for retries to one origin; none: retries are free"),
        ]
        | None
    ) = 500
    retry_cost: Annotated[int, Meta(ge=0, description="tokens that a retry costs")] = 14
    throttled_cost: Annotated[
        int, Meta(ge=0, description="tokens for a retry after an answer that asks for patience")
    ] = 5


class BreakerSettings(Record, frozen=True):
    """
    When an origin is left alone, and for how long.

    Ten failures in a row are more than one call with its retries makes, so that one unlucky call
    does not stop the others. 10 s are a restart; after them one call at a time tries whether the
    origin is back. Such a probe that has not come to an end within its time no longer keeps the
    next one waiting.
    """

    failures: (
        Annotated[
            int,
            Meta(
                ge=1,
                description="failures in a row after which an origin is left alone; none: never",
            ),
        ]
        | None
    ) = 10
    rest: Annotated[
        float,
        Meta(gt=0, le=86_400, description="how long an origin is left alone, in seconds"),
    ] = 10.0
    probe_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="how long one probe after that keeps the next waiting, in seconds",
        ),
    ] = 10.0
