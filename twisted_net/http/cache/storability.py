"""Storability: which responses a cache may store, by their directives (RFC 9111 §3)."""

from __future__ import annotations

from twisted_net.http.cache.directives import Directives, listed_fields, seconds
from twisted_net.http.cache.freshness import HEURISTICALLY_CACHEABLE
from twisted_net.http.errors import InvalidURL
from twisted_net.http.fields import HeaderFields
from twisted_net.http.urls import resolve

# For ``must-understand`` (RFC 9111 §5.2.2.3): the final statuses of RFC 9110 whose caching
# requirements this cache implements.
UNDERSTOOD = HEURISTICALLY_CACHEABLE | {302, 303, 307, 400, 401, 403, 406, 409, 500, 502, 503, 504}


def forbids_storing(response_directives: Directives, status: int) -> bool:
    """
    Return whether a response's directives forbid to store it (RFC 9111 §5.2.2.3, §5.2.2.5).

    With ``must-understand``, ``no-store`` is for caches that do not know the status code.
    """
    if "must-understand" in response_directives:
        return status not in UNDERSTOOD
    return "no-store" in response_directives


def storable_if_shared(request_fields: HeaderFields, response_directives: Directives) -> bool:
    """Return whether a shared cache may store a response (RFC 9111 §5.2.2.7, §3.5)."""
    private = "private" in response_directives
    if private and not listed_fields(response_directives["private"]):
        return False
    permits = {"public", "must-revalidate", "s-maxage"}
    return "authorization" not in request_fields or bool(response_directives.keys() & permits)


def requires_validation(response_directives: Directives) -> bool:
    """
    Return whether ``no-cache`` is for the whole response.

    One that is limited to some fields (§5.2.2.4) is obeyed by not storing these fields.
    """
    no_cache = "no-cache" in response_directives
    return no_cache and not listed_fields(response_directives["no-cache"])


def longest_stale_window(response_directives: Directives) -> float:
    """Return for how many seconds at most a response may be served stale (RFC 5861)."""
    return max(
        seconds(response_directives.get("stale-while-revalidate")),
        seconds(response_directives.get("stale-if-error")),
    )


def is_response_to_get(key: str, status: int, fields: HeaderFields) -> bool:
    """
    Return whether the response to a POST is one to a GET as well (RFC 9110 §9.3.3).

    It is if its ``Content-Location`` is the URL of the request.
    """
    location = fields.first("content-location")
    if status != 200 or location is None:
        return False
    try:
        return resolve(key, location).url == key
    except InvalidURL:
        return False
