"""Redirects (RFC 9110 §15.4): the next request, and what of the first one is repeated in it."""

from __future__ import annotations

from attrs import frozen

from twisted_net.http.urls import parse_target, resolve

ORIGIN_FIELDS = ("authorization", "cookie", "host", "proxy-authorization")
"""
Request fields that are removed when a redirect leads to another origin: credentials, and ``Host``.

They are for the first one (RFC 9110 §15.4, item 1).
"""

_KEEPS_METHOD = frozenset({307, 308})
_BECOMES_GET = frozenset({301, 302, 303})


@frozen(slots=True)
class Redirect:
    """
    The request that follows a redirect.

    :param with_body: whether it has the same body; if not, the fields that describe the body are
        removed too.
    :param same_origin: whether fields of :data:`ORIGIN_FIELDS` are kept.
    """

    method: str
    url: str
    with_body: bool
    same_origin: bool


def parse_redirect(method: str, url: str, status: int, location: str | None) -> Redirect | None:
    """
    Return the request that a response redirects to, or None if it is not a redirect.

    301 and 302 change POST into GET, as every browser does, 303 every method but HEAD, 307 and 308
    none (RFC 9110 §15.4).

    :param url: absolute URL of the request that was answered.
    :param location: decoded as Latin-1; see :func:`~twisted_net.http.urls.resolve`.
    :raises InvalidURL: if ``Location`` cannot be requested. A user name or password in it is
        refused (RFC 9110 §4.2.4).
    """
    if location is None or status not in _KEEPS_METHOD | _BECOMES_GET:
        return None
    target = resolve(url, location)
    keeps = (
        status in _KEEPS_METHOD or method in ("GET", "HEAD") or (status != 303 and method != "POST")
    )
    return Redirect(
        method=method if keeps else "GET",
        url=target.url,
        with_body=keeps,
        same_origin=target.origin == parse_target(url).origin,
    )
