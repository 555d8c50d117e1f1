"""What a request by an unsafe method makes invalid: RFC 9111 §4.4."""

from __future__ import annotations

from twisted_net.http.errors import InvalidURL
from twisted_net.http.fields import HeaderFields
from twisted_net.http.urls import join, parse_target

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 §9.2.1)."""


def invalidated(method: str, key: str, status: int, fields: HeaderFields) -> list[str]:
    """
    Give the keys whose entries a response makes invalid.

    A request by an unsafe method that did not fail changes its target, and what ``Location`` and
    ``Content-Location`` name if they are of the same origin.

    :param key: the URL of the request, in canonical form.
    """
    if method in SAFE or not 200 <= status < 400:
        return []
    keys = [key]
    origin = parse_target(key).origin
    for name in ("location", "content-location"):
        reference = fields.first(name)
        if reference is None:
            continue
        try:
            target = parse_target(join(key, reference))
        except InvalidURL:
            continue
        if target.origin == origin and target.url not in keys:
            keys.append(target.url)
    return keys
