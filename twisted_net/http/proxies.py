"""Proxies: which requests use one, ``NO_PROXY`` rules, and CONNECT messages (RFC 9110 §9.3.6)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from attrs import field, frozen
from typing_extensions import override

from twisted_net.http.errors import InvalidURL, ProxyFailed
from twisted_net.http.host_patterns import NamePattern, parse_pattern
from twisted_net.http.urls import (
    HttpTarget,
    encode_url,
    parse_target,
    split_credentials,
)
from twisted_net.net.addresses import format_address, parse_ip

ENVIRONMENT = "environment"
"""The value of a proxy setting that means ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``."""

MAX_CONNECT_HEAD = 16 * 2**10
"""Limit of the header of a proxy's response to CONNECT, in bytes."""

_ENTRY = re.compile(r"(?P<host>\[[^\]]+\]|[^:]+)(?::(?P<port>[0-9]{1,5}))?")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_SOCKS = re.compile(r"socks[0-9a-z]*://", re.IGNORECASE)
_END = re.compile(rb"\r?\n\r?\n")


@frozen(slots=True)
class Proxy:
    """
    A proxy that is connected to without TLS.

    :param authorization: the value of ``Proxy-Authorization``: a secret.
    """

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


def parse_proxy(url: str) -> Proxy:
    """
    Parse a proxy's URL, ``http://[user:password@]host[:port]``; the scheme is optional.

    :raises ValueError: for any other text. Its message does not contain the text, which may have a
        password.
    """
    if _SOCKS.match(url) is not None:
        raise ValueError("a proxy's URL must begin with http://: SOCKS proxies are not supported")
    plain, credentials = split_credentials(url if "://" in url else f"http://{url}")
    try:
        target = parse_target(encode_url(plain))
    except InvalidURL:
        raise ValueError("a proxy's URL must be like http://user:password@host:port") from None
    if target.scheme != "http":
        raise ValueError("a proxy's URL must begin with http://: it is connected to without TLS")
    if target.path != "/":
        raise ValueError("a proxy's URL must end after its host and port")
    if credentials is None:
        return Proxy(target.host, target.port)
    if ":" in credentials[0]:
        raise ValueError("the user name in a proxy's URL must not contain a colon (RFC 7617)")
    token = base64.b64encode(":".join(credentials).encode()).decode()
    return Proxy(target.host, target.port, f"Basic {token}")


@frozen(slots=True)
class RoutedTarget(HttpTarget):
    """
    A target that is reached by a route of its own, whatever the routes of the client are.

    :param proxy: the proxy on the route; None for a direct connection.
    :ivar origin: has the route, too: a connection never stands for another one.
    """

    proxy: Proxy | None

    @override
    def __attrs_post_init__(self) -> None:
        # Not super(): attrs makes another class of this one, for its slots.
        HttpTarget.__attrs_post_init__(self)
        origin = (self.scheme, self.host, self.port, self.proxy)
        object.__setattr__(self, "origin", origin)


class ProxyBypass:
    """
    The hosts that are reached without a proxy.

    An entry is a host name, which matches all names below it too; ``.example.org`` or
    ``*.example.org``, which match only the names below; an address; a network (``10.0.0.0/8``); or
    ``*`` for every host. All but a network may have a port (``example.org:8080``, ``[::1]:80``) and
    then match that port only. Names are not looked up: networks match URLs with an address.

    :raises ValueError: for an entry that is none of these.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._rules = [_BypassRule.parse(entry) for entry in entries if entry.strip()]

    def covers(self, host: str, port: int) -> bool:
        """
        Return whether *host* is reached without a proxy.

        :param host: in canonical form, as in
            :attr:`~twisted_net.http.urls.HttpTarget.host`.
        """
        host = host.rstrip(".")
        return any(rule.covers(host, port) for rule in self._rules)


# Each request asks for each network; to find out that a name is no address takes 6 us.
@lru_cache(maxsize=1024)
def _address(host: str) -> IPv4Address | IPv6Address | None:
    return parse_ip(host)


class _BypassRule:
    """One entry: a network, a name, or everything."""

    def __init__(self, text: str, port: int | None) -> None:
        self.port = port
        self.pattern = None if text == "*" else parse_pattern(text)
        # Its names may have the domain's own, unlike those of an egress policy.
        self.exact = not text.startswith((".", "*"))

    @classmethod
    def parse(cls, entry: str) -> _BypassRule:
        text = entry.strip()
        try:
            if "/" in text or (text.count(":") > 1 and not text.startswith("[")):
                return cls(text, None)
            match = _ENTRY.fullmatch(text)
            if match is None:
                raise ValueError
            return cls(match["host"], int(match["port"]) if match["port"] else None)
        except ValueError:
            raise ValueError(f"{entry!r} is not a host, an address or a network") from None

    def covers(self, host: str, port: int) -> bool:
        if self.port is not None and port != self.port:
            return False
        pattern = self.pattern
        if pattern is None:
            return True
        if not isinstance(pattern, NamePattern):
            address = _address(host)
            return address is not None and address in pattern
        return (self.exact and host == pattern.name) or host.endswith(f".{pattern.name}")


@frozen
class ProxyRoutes:
    """
    The routes of requests: for each origin one, which never changes.

    :param http: the proxy for ``http`` URLs, if any.
    :param https: the proxy for ``https`` URLs, if any.
    """

    http: Proxy | None
    https: Proxy | None
    bypass: ProxyBypass

    def proxy_for(self, target: HttpTarget) -> Proxy | None:
        """Return the proxy on the route to *target*, or None for a direct connection."""
        proxy = self.https if target.scheme == "https" else self.http
        if proxy is None or self.bypass.covers(target.host, target.port):
            return None
        return proxy


def route_of(routes: ProxyRoutes | None, target: HttpTarget) -> Proxy | None:
    """Return the proxy on the route to *target*; None for a direct connection."""
    if isinstance(target, RoutedTarget):
        return target.proxy
    return None if routes is None else routes.proxy_for(target)


def find_proxy_routes(
    proxy: str | None, no_proxy: Iterable[str], environ: Mapping[str, str]
) -> ProxyRoutes | None:
    """
    Return the routes according to settings; None if all connections are direct.

    :param proxy: a URL for all requests, or :data:`ENVIRONMENT`.
    :param environ: read in the latter case only. ``http_proxy``, ``https_proxy`` and ``no_proxy``
        have precedence over the names in capitals, and ``HTTP_PROXY`` is not read in a CGI script,
        where any client could set it (CVE-2016-5385). Entries of ``NO_PROXY`` that are not valid
        here are ignored, since other programs have other rules.
    :raises ValueError: for an invalid proxy URL or an invalid entry of *no_proxy*.
    """
    if proxy is None:
        return None
    if proxy != ENVIRONMENT:
        always = parse_proxy(proxy)
        return ProxyRoutes(always, always, ProxyBypass(no_proxy))
    names = ["http_proxy"] if "REQUEST_METHOD" in environ else ["http_proxy", "HTTP_PROXY"]
    http = _variable(environ, names)
    https = _variable(environ, ["https_proxy", "HTTPS_PROXY"])
    listed = environ.get("no_proxy", environ.get("NO_PROXY", "")).split(",")
    if http is None and https is None:
        return None
    return ProxyRoutes(http, https, ProxyBypass([*no_proxy, *filter(_is_rule, listed)]))


def _variable(environ: Mapping[str, str], names: Iterable[str]) -> Proxy | None:
    """Return the proxy of the first variable that is set; None if it is empty."""
    for name in names:
        if name in environ:
            try:
                return parse_proxy(environ[name]) if environ[name] else None
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return None


def _is_rule(entry: str) -> bool:
    try:
        ProxyBypass([entry])
    except ValueError:
        return False
    return True


def connect_request(proxy: Proxy, host: str, port: int) -> bytes:
    """Return the request for a tunnel to *host*, which contains the proxy's credentials."""
    authority = format_address(host, port)
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode()


def tunnel_opened(response: bytes, host: str) -> bool:
    """
    Return whether a proxy has opened a tunnel, or False if its response is not complete.

    :param response: all that it has sent so far.
    :param host: to which the tunnel leads.
    :raises ProxyFailed: if it refuses, or sends anything that is not exactly one response.
    """
    total = len(response)
    while True:
        end = _END.search(response)
        if end is None:
            if total > MAX_CONNECT_HEAD:
                raise ProxyFailed(host, f"its response is larger than {MAX_CONNECT_HEAD} bytes")
            return False
        found = _STATUS.match(response)
        if found is None:
            raise ProxyFailed(host, "its response is not HTTP")
        status = int(found[1])
        rest = response[end.end() :]
        if status >= 300:
            raise proxy_refusal(host, status)
        if status >= 200:
            break
        response = rest  # an interim response: the final one follows it
    if rest:
        # The server sends nothing before a request, so these bytes are not the server's.
        raise ProxyFailed(host, "it sent data before any request")
    return True


def proxy_refusal(host: str, status: int, *, unsent: bool = True) -> ProxyFailed:
    """Return the error for the status of a proxy that refuses a request to *host*."""
    reason = f"it answered with status {status}"
    if status == 407:
        reason += "; its credentials are missing or wrong"
    return ProxyFailed(host, reason, status=status, unsent=unsent)
