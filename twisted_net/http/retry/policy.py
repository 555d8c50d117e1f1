"""When a failed HTTP request is made again, and after how long a wait."""

from __future__ import annotations

import re
from typing import Annotated

from attrs import frozen
from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.http.dates import parse_date

IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
"""Methods that may be repeated without more effect than once (RFC 9110 §9.2.2)."""

_SECONDS = re.compile(r"[0-9]+")


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

    def repeatable(self, method: str, *, idempotency_key: bool) -> bool:
        """
        Say whether a request may be made again after the server may have acted on it.

        :param method: in capitals.
        :param idempotency_key: whether the request carries the field of that name, by which the
            server can tell a repetition from a second request.
        """
        return idempotency_key or method in self.methods

    def wait(
        self, made: int, chance: float, *, floor: float | None = None, left: float | None = None
    ) -> float | None:
        """
        Give the seconds to wait before the next call, or None where it is time to give up.

        It is time when all retries are used, or when the wait would not end before the total
        time does: sleeping through the rest of it helps nobody.

        :param made: calls made so far, all of them failed; at least 1.
        :param chance: a number drawn evenly from 0 to 1.
        :param floor: what ``Retry-After`` asks for, in seconds.
        :param left: seconds left of the total time; None where there is no such limit.
        """
        if made > self.retries:
            return None
        # min() first: 2.0 ** 1024 would overflow.
        drawn = chance * min(self.cap, self.base * 2.0 ** min(made - 1, 64))
        wait = drawn + (floor or 0.0)
        if left is None or wait < left:
            return wait
        # The server's own wish fits, only the jitter on top of it does not.
        return floor if floor is not None and floor < left else None


@frozen(slots=True)
class Attempt:
    """
    One call to a server, as it is reported for logs and metrics: no credential is in it.

    :param url: without user name, password or secret parameters.
    :param number: 1 for the first.
    :param seconds: from its start to its end.
    :param status: of the response; None where there was none.
    :param error: what went wrong; None where a response came.
    :param wait: seconds until the next attempt; None where this was the last.
    """

    method: str
    url: str
    number: int
    seconds: float
    status: int | None
    error: str | None
    wait: float | None

    @property
    def outcome(self) -> str:
        """The status, or what went wrong."""
        return self.error if self.error is not None else str(self.status)


def parse_retry_after(value: str | None, wall: float) -> float | None:
    """
    Give the seconds that a ``Retry-After`` field asks for (RFC 9110 §10.2.3).

    A date in the past asks for 0. A malformed field asks for nothing: None, as without it.
    """
    if value is None:
        return None
    value = value.strip(" \t")
    if _SECONDS.fullmatch(value):
        # So many digits mean "never"; Python refuses to convert some thousands of them.
        return float(value) if len(value) <= 15 else float("inf")
    moment = parse_date(value, wall)
    return None if moment is None else max(0.0, moment - wall)
