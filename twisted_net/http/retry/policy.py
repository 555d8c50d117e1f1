"""When a failed HTTP request is made again, and after how long a wait."""

from __future__ import annotations

import re

from attrs import frozen

from twisted_net.http.dates import parse_date
from twisted_net.http.retry.settings import RetryPolicy

_SECONDS = re.compile(r"[0-9]+")


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


def may_repeat(policy: RetryPolicy, method: str, *, idempotency_key: bool) -> bool:
    """
    Say whether a request may be made again after the server may have acted on it.

    :param method: in capitals.
    :param idempotency_key: whether the request carries the field of that name, by which the
        server can tell a repetition from a second request.
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
    Give the seconds to wait before the next call, or None where it is time to give up.

    It is time when all retries are used, or when the wait would not end before the total
    time does: sleeping through the rest of it helps nobody.

    :param made: calls made so far, all of them failed; at least 1.
    :param chance: a number drawn evenly from 0 to 1.
    :param floor: what ``Retry-After`` asks for, in seconds.
    :param remaining: seconds left of the total time; None where there is no such limit.
    """
    if made > policy.retries:
        return None
    # min() first: 2.0 ** 1024 would overflow.
    drawn = chance * min(policy.cap, policy.base * 2.0 ** min(made - 1, 64))
    wait = drawn + (floor or 0.0)
    if remaining is None or wait < remaining:
        return wait
    # The server's own wish fits, only the jitter on top of it does not.
    return floor if floor is not None and floor < remaining else None


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
