"""Cache entries: stored responses and the requests that they are selected for."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from twisted_net.http.cache import validation
from twisted_net.http.cache.directives import MAX_DELTA_SECONDS, request_directives
from twisted_net.http.fields import HeaderFields

CACHE_CONDITIONS = ("if-none-match", "if-modified-since")
"""Conditions that a cache evaluates itself (RFC 9111 §4.3.2)."""

ORIGIN_CONDITIONS = ("if-match", "if-unmodified-since")
"""Conditions that only the origin server evaluates."""

CACHE_RELEVANT_FIELDS = (
    "cache-control",
    "pragma",
    "range",
    *CACHE_CONDITIONS,
    *ORIGIN_CONDITIONS,
)
"""A request with none of these fields gets any fresh stored response, unchanged."""

_NOT_OF_FRESHNESS = frozenset({"stale-if-error"})
_BESIDE_DIRECTIVES = ("range", *CACHE_CONDITIONS, *ORIGIN_CONDITIONS)


@frozen(slots=True)
class CacheRequest:
    """
    The parts of a request that a cache decides by.

    :param method: in capitals.
    :param key: the cache key: the URL in canonical form, as in
        :attr:`twisted_net.http.urls.HttpTarget.url`.
    """

    method: str
    key: str
    fields: HeaderFields

    @property
    def is_plain(self) -> bool:
        """
        Whether any fresh stored response answers it, unchanged.

        ``stale-if-error`` does not change that: it is about one that is not fresh.
        """
        if self.fields.has_none(CACHE_RELEVANT_FIELDS):
            return True
        return (
            self.fields.has_none(_BESIDE_DIRECTIVES)
            and request_directives(self.fields).keys() <= _NOT_OF_FRESHNESS
        )


@frozen(slots=True)
class ReceiptTimes:
    """
    When a response was requested and received, in seconds since 1970.

    :param request_time: by the clock of the cache.
    :param response_time: by the clock of the cache.
    :param wall: when it was received, by the wall clock, with which its dates are compared.
    """

    request_time: float
    response_time: float
    wall: float


@frozen(slots=True)
class Entry:
    """
    A stored response, with what the cache worked out when it was received.

    :param fields: without those of a single connection.
    :param body: the bytes as received, not decompressed.
    :param request_time: when its request was sent, in seconds since 1970 by the cache's clock.
    :param response_time: when it was received, likewise.
    :param explicit_lifetime: freshness lifetime in seconds as the server stated it; None where it
        stated none (RFC 9111 §4.2.1).
    :param initial_age: its age in seconds when it was received (§4.2.3,
        *corrected_initial_age*).
    :param vary: the request fields that it was selected by, in lower case, sorted.
    :param variant: digest of these fields in its request.
    :param no_cache: it must be validated before each use.
    :param must_revalidate: it must not be served stale.
    :param heuristic_lifetime: freshness lifetime in seconds for want of an explicit one (§4.2.2);
        None where neither a heuristic one nor ``default_ttl`` is allowed.
    :param immutable: it does not change while it is fresh (RFC 8246).
    :param stale_while_revalidate: for how many seconds past its lifetime it may be served while it
        is validated in the background (RFC 5861 §3).
    :param stale_if_error: the same, where the server fails (RFC 5861 §4).
    :param start: offset of :attr:`body` in the complete body.
    :param complete_length: length of the complete body where :attr:`body` is only a part of it;
        else None.
    """

    status: int
    reason: str
    fields: HeaderFields
    body: bytes = field(repr=False)
    request_time: float
    response_time: float
    explicit_lifetime: float | None
    initial_age: float
    vary: tuple[str, ...]
    variant: bytes
    no_cache: bool
    must_revalidate: bool
    heuristic_lifetime: float | None = 0.0
    immutable: bool = False
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    start: int = 0
    complete_length: int | None = None

    @property
    def size(self) -> int:
        """Bytes that it counts for in a store: body, fields, and a rough overhead of Python's."""
        return len(self.body) + sum(len(n) + len(v) + 150 for n, v in self.fields.pairs) + 500

    def age(self, now: float) -> float:
        """
        Return its *current_age* in seconds (RFC 9111 §4.2.3).

        It is :data:`~twisted_net.http.cache.directives.MAX_DELTA_SECONDS`, hence stale, if it was
        received after *now*: by a process whose clock was ahead, so that its age is not known.

        :param now: by the cache's clock.
        """
        resident = now - self.response_time
        return self.initial_age + resident if resident >= 0.0 else float(MAX_DELTA_SECONDS)

    @property
    def validators(self) -> list[tuple[str, str]]:
        """The condition fields that validate it at its server; none without a validator."""
        return validation.conditions(self.fields)


def replace_variant(stored: Iterable[Entry], entry: Entry, limit: int) -> tuple[Entry, ...]:
    """
    Return *stored* with *entry* as its newest, in place of the one for the same requests.

    :param limit: largest number of entries; the oldest beyond it are dropped.
    """
    others = [
        other for other in stored if (other.vary, other.variant) != (entry.vary, entry.variant)
    ]
    return (*others, entry)[-limit:]
