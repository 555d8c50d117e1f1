"""The retry policy: which failed requests are retried, and after which delay."""

from __future__ import annotations

import re

from attrs import frozen

from twisted_net.http.dates import parse_date
from twisted_net.http.retry.settings import RetryPolicy

_SECONDS = re.compile(r"[0-9]+")


@frozen(slots=True)
class Attempt:
    """
    One attempt of a call, as reported for logs and metrics; it has no credentials.

    :param url: without user name, password or secret parameters.
    :param number: 1 for the first.
    :param seconds: from its start to its end.
    :param status: of the response; None without one.
    :param error: what went wrong; None with a response.
    :param wait: seconds until the next attempt; None if this was the last.
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
        """The status, or the error."""
        return self.error if self.error is not None else str(self.status)


def may_repeat(policy: RetryPolicy, method: str, *, idempotency_key: bool) -> bool:
    """
    Return whether a request may be retried although the server may have acted on it.

    :param method: in capitals.
    :param idempotency_key: whether the request has an ``Idempotency-Key``, by which the server
        can distinguish a retry from a second request.
    """
    return idempotency_key or method in policy.methods


def retry_delay(
    policy: RetryPolicy,
    made: int,
    chance: float,
    *,
    floor: float | None = None,
    remaining: float | None = None,
) -> float | None:
    """
    Return the seconds to wait before the next attempt, or None to give up.

    It gives up after all retries, and where the delay would not end before the deadline: waiting
    until then would be useless.

    :param made: attempts so far, all of them failed; at least 1.
    :param chance: a number drawn evenly from 0 to 1.
    :param floor: seconds that ``Retry-After`` asks for; None without it.
    :param remaining: seconds until the deadline; None without one.
    """
    if made > policy.retries:
        return None
    # min() first: 2.0 ** 1024 would overflow.
    drawn = chance * min(policy.cap, policy.base * 2.0 ** min(made - 1, 64))
    wait = drawn + (floor or 0.0)
    if remaining is None or wait < remaining:
        return wait
    # Retry-After alone fits, only with the jitter on top of it the delay would be too long.
    return floor if floor is not None and floor < remaining else None


def parse_retry_after(value: str | None, wall: float) -> float | None:
    """
    Parse ``Retry-After`` (RFC 9110 §10.2.3); return seconds.

    A date in the past is 0. A malformed field is None, as if it were absent.

    :param wall: the time of day, in seconds since 1970.
    """
    if value is None:
        return None
    value = value.strip(" \t")
    if _SECONDS.fullmatch(value):
        # More digits mean "never".
        return float(value) if len(value) <= 15 else float("inf")
    moment = parse_date(value, wall)
    return None if moment is None else max(0.0, moment - wall)
