"""Invalidation: which stored responses an unsafe request makes invalid (RFC 9111 §4.4)."""

from __future__ import annotations

from twisted_net.http.errors import InvalidURL
from twisted_net.http.fields import HeaderFields
from twisted_net.http.urls import parse_target, resolve

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Safe methods (RFC 9110 §9.2.1): they invalidate nothing."""


def invalidated_keys(method: str, key: str, status: int, fields: HeaderFields) -> list[str]:
    """
    Return the cache keys whose stored responses a response invalidates.

    A request with an unsafe method that succeeds invalidates its target URL, and those of
    ``Location`` and ``Content-Location`` if they are of the same origin.

    :param key: the URL of the request, in canonical form.
    """
    if method in SAFE_METHODS or not 200 <= status < 400:
        return []
    keys = [key]
    origin = parse_target(key).origin
    for name in ("location", "content-location"):
        reference = fields.first(name)
        if reference is None:
            continue
        try:
            target = resolve(key, reference)
        except InvalidURL:
            continue
        if target.origin == origin and target.url not in keys:
            keys.append(target.url)
    return keys
