"""Cookies: a jar with bounds, those of one call, and those that a response sets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from typing import Any, cast
from urllib.parse import urlsplit

from hyperlink import EncodedURL
from treq.cookies import IndexableCookieJar, scoped_cookie
from typing_extensions import override

from twisted_net.http.urls import encode_url, parse_target

MAX_COOKIE = 4096
"""Bytes of a cookie's name and value; a longer one is not kept (RFC 6265 §6.1)."""

MAX_PER_DOMAIN = 50
"""Cookies that are kept of one domain (RFC 6265 §6.1)."""

MAX_COOKIES = 3000
"""Cookies that are kept in all (RFC 6265 §6.1)."""

MAX_LINES = 64
"""
Cookies that one response may set; others are ignored.

The standard library takes some 100 us for one, and 6 us for each of its attributes.
"""

MAX_ATTRIBUTES = 16
"""Attributes of a cookie; one with more is ignored."""

_Key = tuple[str, str, str]


class BoundedCookieJar(IndexableCookieJar):
    """
    A cookie jar that strangers cannot fill: beyond a bound the cookie set longest ago is dropped.

    The bounds are :data:`MAX_COOKIE`, :data:`MAX_PER_DOMAIN` and :data:`MAX_COOKIES`. A cookie for
    a whole country (``Domain=co.uk``) is refused; the list of all public suffixes is not known.
    """

    def __init__(self) -> None:
        super().__init__(DefaultCookiePolicy(strict_domain=True))
        self._set: OrderedDict[_Key, None] = OrderedDict()
        self._by_domain: dict[str, OrderedDict[_Key, None]] = {}

    @override
    def set_cookie(self, cookie: Cookie) -> None:
        if len(cookie.name) + len(cookie.value or "") > MAX_COOKIE:
            return
        key = (cookie.domain, cookie.path, cookie.name)
        self._forget(key)
        super().set_cookie(cookie)
        self._set[key] = None
        of_domain = self._by_domain.setdefault(cookie.domain, OrderedDict())
        of_domain[key] = None
        if len(of_domain) > MAX_PER_DOMAIN:
            self.clear(*next(iter(of_domain)))
        if len(self._set) > MAX_COOKIES:
            self.clear(*next(iter(self._set)))

    @override
    def clear(
        self, domain: str | None = None, path: str | None = None, name: str | None = None
    ) -> None:
        super().clear(domain, path, name)
        if domain is not None and path is not None and name is not None:
            self._forget((domain, path, name))
            return
        for key in [
            key for key in self._set if domain in (None, key[0]) and path in (None, key[1])
        ]:
            self._forget(key)

    def _forget(self, key: _Key) -> None:
        if key in self._set:
            del self._set[key]
            of_domain = self._by_domain[key[0]]
            del of_domain[key]
            if not of_domain:
                del self._by_domain[key[0]]


class CallCookies:
    """
    The cookies of one call: those of the client's jar, and those of this call only.

    :param kept: the client's jar; None for one that ends with the call.
    :param url: to whose origin *own* are sent.
    :raises InvalidURL: if *own* has cookies and *url* cannot be requested.
    :param own: those of this call, by name; they replace others of the same name.
    """

    def __init__(self, kept: CookieJar | None, url: str, own: Mapping[str, str] | None) -> None:
        self._jar = IndexableCookieJar() if kept is None else kept
        self._own = IndexableCookieJar() if own else None
        if self._own is not None:
            target = parse_target(encode_url(url))
            origin = EncodedURL(target.scheme, target.host, port=target.port)
            for name, value in (own or {}).items():
                # As on the wire, where UTF-8 is read as Latin-1.
                self._own.set_cookie(scoped_cookie(origin, _wire(name), _wire(value)))

    def header(self, url: str) -> str | None:
        """Return the value of ``Cookie`` for a request to *url*; None for none."""
        kept = _cookie_header(self._jar, url)
        own = None if self._own is None else _cookie_header(self._own, url)
        if own is None or kept is None:
            return own or kept
        pairs = [*_cookie_pairs(kept), *_cookie_pairs(own)]
        return "; ".join(dict(pairs).values())

    def store(self, url: str, lines: list[str]) -> None:
        """Store the cookies of a response to *url*, from its lines of ``Set-Cookie``."""
        lines = [
            line for line in lines if len(line) <= MAX_COOKIE and line.count(";") <= MAX_ATTRIBUTES
        ][:MAX_LINES]
        self._jar.extract_cookies(cast(Any, _JarResponse(lines)), cast(Any, _JarRequest(url)))
        if self._own is not None:
            # What the server sets now is newer than what the caller passed.
            newer = set_cookies(lines)
            for cookie in list(self._own):
                if cookie.name in newer:
                    self._own.clear(cookie.domain, cookie.path, cookie.name)


def set_cookies(lines: Iterable[str]) -> dict[str, str]:
    """Return the cookies that lines of ``Set-Cookie`` set, by name (RFC 6265 §5.2)."""
    found: dict[str, str] = {}
    for line in lines:
        pair = line.partition(";")[0]
        name, equals, value = pair.partition("=")
        if equals and name.strip():
            found[name.strip()] = value.strip()
    return found


def check_cookies(cookies: Mapping[str, str], label: str) -> None:
    """
    Check the cookies of a call (RFC 6265 §4.1.1).

    :param label: of the argument, for messages.
    :raises TypeError: for a name or value that is not text.
    :raises ValueError: for characters that end a cookie.
    """
    for name, value in cookies.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"{label}: a cookie must be a name and a value, both text")
        if not name or not name.isprintable() or not _NAME_ENDS.isdisjoint(name):
            raise ValueError(f"{label}: {name[:40]!r} is no name of a cookie")
        if not (value.isprintable() or not value) or ";" in value:
            raise ValueError(
                f"{label}: the value of {name} must have no semicolon and no control character"
            )


_NAME_ENDS = frozenset('=;, \t"')


def _wire(text: str) -> str:
    return text.encode().decode("latin-1")


def _cookie_header(jar: CookieJar, url: str) -> str | None:
    request = _JarRequest(url)
    jar.add_cookie_header(cast(Any, request))
    return request.cookie


def _cookie_pairs(header: str) -> list[tuple[str, str]]:
    return [(pair.partition("=")[0], pair) for pair in header.split("; ")]


class _JarRequest:
    """A request as the standard library's cookie jar wants it."""

    unverifiable = False

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        self.type = parts.scheme
        self.host = parts.netloc
        self.origin_req_host = parts.hostname or ""
        self.cookie: str | None = None

    def get_full_url(self) -> str:
        return self._url

    def has_header(self, name: str) -> bool:
        return False

    def get_header(self, name: str, default: str | None = None) -> str | None:
        return default

    def header_items(self) -> list[tuple[str, str]]:
        return []

    def add_unredirected_header(self, name: str, value: str) -> None:
        if name == "Cookie":
            self.cookie = value


class _JarResponse:
    """A response as the standard library's cookie jar wants it."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def info(self) -> _JarResponse:
        return self

    def get_all(self, name: str, default: list[str]) -> list[str]:
        return self._lines if name == "Set-Cookie" else default
