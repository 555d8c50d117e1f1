"""Where a redirect leads, and what of the request may go along."""

from __future__ import annotations

from attrs import frozen

from twisted_net.http.urls import join, parse_target

CREDENTIALS = ("authorization", "cookie", "proxy-authorization")
"""Request fields that stay behind when a redirect leads to another origin."""

_KEEPS_METHOD = frozenset({307, 308})
_BECOMES_GET = frozenset({301, 302, 303})


@frozen(slots=True)
class Redirect:
    """
    The request that follows a redirect.

    :param with_body: whether the body goes along; if not, its describing fields do not either.
    :param with_credentials: whether fields of :data:`CREDENTIALS` go along.
    """

    method: str
    url: str
    with_body: bool
    with_credentials: bool


def parse_redirect(method: str, url: str, status: int, location: str | None) -> Redirect | None:
    """
    Give the request that a response asks for, or None where it is no redirect.

    301 and 302 turn POST into GET as every browser does, 303 all but HEAD, 307 and 308 nothing
    (RFC 9110 §15.4).

    :param url: of the request that was answered, absolute.
    :raises InvalidURL: where ``Location`` is none that may be requested; one with a user name or
        password is not (RFC 9110 §4.2.4).
    """
    if location is None or status not in _KEEPS_METHOD | _BECOMES_GET:
        return None
    target = parse_target(join(url, location))
    keeps = (
        status in _KEEPS_METHOD or method in ("GET", "HEAD") or (status != 303 and method != "POST")
    )
    return Redirect(
        method=method if keeps else "GET",
        url=target.url,
        with_body=keeps,
        with_credentials=target.origin == parse_target(url).origin,
    )
