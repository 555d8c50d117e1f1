"""Responses constructed from stored ones: all of it, a range, or 304 (RFC 9111 §4, §4.3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from twisted_net.http.cache import ranges, validation
from twisted_net.http.cache.entry import (
    CACHE_CONDITIONS,
    CACHE_RELEVANT_FIELDS,
    CacheRequest,
    Entry,
)
from twisted_net.http.cache.rules import Decision, Rules, Serve, Unsatisfiable
from twisted_net.http.fields import HeaderFields


@frozen(slots=True)
class ServedResponse:
    """A response out of the cache; :attr:`fields` include ``Age``."""

    status: int
    reason: str
    fields: HeaderFields
    body: bytes = field(repr=False)


def construct_response(request: CacheRequest, entry: Entry, age: float) -> ServedResponse:
    """
    Return the response to *request* from a stored one: all of it, a range, or 304.

    :param age: in seconds, as in :class:`~twisted_net.http.cache.rules.Serve`.
    """
    fields = request.fields
    served = entry.fields.replaced([("Age", str(int(age)))])
    body = entry.body if request.method == "GET" else b""
    if fields.has_none(CACHE_RELEVANT_FIELDS) or entry.status not in (200, 206):
        return ServedResponse(entry.status, entry.reason, served, body)
    if not fields.has_none(CACHE_CONDITIONS) and validation.unmodified(
        fields, entry.fields, entry.response_time
    ):
        return ServedResponse(304, "Not Modified", served.without(("content-length",)), b"")
    # A range is for GET alone (RFC 9110 §14.2).
    if request.method == "GET" and ranges.range_applies(fields, entry.fields, entry.response_time):
        requested = ranges.parse_range(fields["range"])
        length = len(entry.body) if entry.complete_length is None else entry.complete_length
        if requested is not None:
            return _range_response(requested.within(length), entry, length, served)
    return ServedResponse(entry.status, entry.reason, served, body)


def _range_response(
    found: tuple[int, int] | None, entry: Entry, length: int, served: HeaderFields
) -> ServedResponse:
    """Return a 206 with the bytes *found*, or 416 for None."""
    if found is None:
        fields = HeaderFields([("Content-Range", f"bytes */{length}"), ("Content-Length", "0")])
        return ServedResponse(416, "Range Not Satisfiable", fields, b"")
    first, end = found
    served = served.replaced(
        [
            ("Content-Range", f"bytes {first}-{end - 1}/{length}"),
            ("Content-Length", str(end - first)),
        ]
    )
    body = entry.body[first - entry.start : end - entry.start]
    return ServedResponse(206, "Partial Content", served, body)


def lookup_after_wait(
    rules: Rules, request: CacheRequest, stored: Sequence[Entry], now: float, asked_at: float
) -> Decision:
    """
    Decide as :meth:`Rules.lookup` does, for a plain request that has waited for another's response.

    It is served that response if its server has sent it fresh, as are all for whom it was
    requested (RFC 9111 §4). A response that comes late counts as that much older (§4.2.3); if it
    is stale by then, each of those who wait would request it again, just when all are late.

    :param asked_at: when the request was made.
    """
    decision = rules.lookup(request, stored, now)
    if isinstance(decision, (Serve, Unsatisfiable)):
        return decision
    entry = decision.entry
    if (
        entry is None
        or entry.response_time < asked_at
        or entry.no_cache
        or entry.complete_length is not None
    ):
        return decision
    lifetime, age = rules.lifetime(request.key, entry), entry.age(now)
    delay = entry.response_time - entry.request_time
    if lifetime <= entry.initial_age - delay or lifetime <= 0.0:
        return decision
    return Serve(entry, age, lifetime - age)
