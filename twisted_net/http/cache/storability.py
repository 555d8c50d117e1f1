"""What the words of a response allow to store: RFC 9111 §3."""

from __future__ import annotations

from twisted_net.http.cache.directives import Directives, named_fields, seconds
from twisted_net.http.cache.freshness import HEURISTICALLY_CACHEABLE
from twisted_net.http.errors import InvalidURL
from twisted_net.http.fields import HeaderFields
from twisted_net.http.urls import join, parse_target

# For ``must-understand`` (RFC 9111 §5.2.2.3): final statuses of RFC 9110 whose caching is done here
# as their sections want it.
UNDERSTOOD = HEURISTICALLY_CACHEABLE | {302, 303, 307, 400, 401, 403, 406, 409, 500, 502, 503, 504}


def forbids_storing(said: Directives, status: int) -> bool:
    """
    Say whether a response's own words forbid to store it (RFC 9111 §5.2.2.3, §5.2.2.5).

    With ``must-understand``, ``no-store`` is for caches that do not know the status.
    """
    if "must-understand" in said:
        return status not in UNDERSTOOD
    return "no-store" in said


def sharable(request_fields: HeaderFields, said: Directives) -> bool:
    """Say whether a response for one user may be stored for others."""
    if "private" in said and not named_fields(said["private"]):
        return False
    # RFC 9111 §3.5
    permits = {"public", "must-revalidate", "s-maxage"}
    return "authorization" not in request_fields or bool(said.keys() & permits)


def always_checked(said: Directives) -> bool:
    """
    Say whether there is a ``no-cache`` for all of the response.

    One for some fields only (§5.2.2.4) is met in that these are not stored.
    """
    return "no-cache" in said and not named_fields(said["no-cache"])


def stale_seconds(said: Directives) -> float:
    """Give the longest time for which it may be served stale (RFC 5861)."""
    return max(seconds(said.get("stale-while-revalidate")), seconds(said.get("stale-if-error")))


def answers_get(key: str, status: int, fields: HeaderFields) -> bool:
    """Say whether the response to a POST is one to GET as well (RFC 9110 §9.3.3)."""
    location = fields.first("content-location")
    if status != 200 or location is None:
        return False
    try:
        return parse_target(join(key, location)).url == key
    except InvalidURL:
        return False
