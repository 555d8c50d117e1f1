"""Which requests go through which proxy, and what is said to a proxy (RFC 9110 §9.3.6)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network

from attrs import field, frozen

from twisted_net.http.errors import InvalidURL, ProxyFailed
from twisted_net.http.urls import HttpTarget, parse_target, split_credentials
from twisted_net.net.addresses import format_address

ENVIRONMENT = "environment"
"""What stands for a proxy's URL where ``HTTP_PROXY`` and its like are to be read."""

MAX_ANSWER = 16 * 2**10
"""Bytes after which the header of a proxy's answer to CONNECT must be over."""

_ENTRY = re.compile(r"(?P<host>\[[^\]]+\]|[^:]+)(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"(?:\*\.|\.)?[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_END = re.compile(rb"\r?\n\r?\n")


@frozen(slots=True)
class Proxy:
    """
    A proxy that is spoken to in plain HTTP.

    :param authorization: the value of ``Proxy-Authorization``: a secret.
    """

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


def parse_proxy(url: str) -> Proxy:
    """
    Read a proxy's URL, ``http://[user:password@]host[:port]``; the scheme may be left out.

    :raises ValueError: for any other text, which the message does not repeat: it may hold a
        password.
    """
    plain, credentials = split_credentials(url if "://" in url else f"http://{url}")
    try:
        target = parse_target(plain)
    except InvalidURL:
        raise ValueError("a proxy's URL must be like http://user:password@host:port") from None
    if target.scheme != "http":
        raise ValueError("a proxy's URL must begin with http://: it is spoken to without TLS")
    if target.path != "/":
        raise ValueError("a proxy's URL must end after its host and port")
    if credentials is None:
        return Proxy(target.host, target.port)
    if ":" in credentials[0]:
        raise ValueError("the user name in a proxy's URL must not hold a colon (RFC 7617)")
    token = base64.b64encode(":".join(credentials).encode()).decode()
    return Proxy(target.host, target.port, f"Basic {token}")


class ProxyBypass:
    """
    The hosts that are reached without a proxy.

    An entry is a host name, which stands for all names below it too; ``.example.org`` or
    ``*.example.org`` for the names below alone; an address; a network (``10.0.0.0/8``); or ``*``
    for everything. A port may follow all but a network (``example.org:8080``, ``[::1]:80``): then
    only that port is meant. Names are not looked up: networks match hosts that the URL gives as
    addresses.

    :raises ValueError: for an entry that is none of these.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._rules = [_Rule.of(entry) for entry in entries if entry.strip()]

    def covers(self, host: str, port: int) -> bool:
        """
        Say whether *host* is among them.

        :param host: in lower case; an IPv6 address without brackets.
        """
        return any(rule.covers(host.rstrip("."), port) for rule in self._rules)


class _Rule:
    """One entry; *network*, *name* and *below* are what it may match."""

    def __init__(self, text: str, port: int | None) -> None:
        self.port = port
        self.network = None
        self.everything = text == "*"
        self.name = text.lstrip("*").lstrip(".")
        self.exact = not text.startswith((".", "*"))
        try:
            self.network = ip_network(text)
        except ValueError:
            if "/" in text or (not self.everything and _NAME.fullmatch(text) is None):
                raise ValueError(f"{text!r} is not a host, an address or a network") from None

    @classmethod
    def of(cls, entry: str) -> _Rule:
        text = entry.strip().lower().rstrip(".")
        if "/" in text or (text.count(":") > 1 and not text.startswith("[")):
            return cls(text, None)
        match = _ENTRY.fullmatch(text)
        if match is None:
            raise ValueError(f"{entry!r} is not a host, an address or a network")
        return cls(match["host"].strip("[]"), int(match["port"]) if match["port"] else None)

    def covers(self, host: str, port: int) -> bool:
        if self.port is not None and port != self.port:
            return False
        if self.everything:
            return True
        if self.network is not None:
            try:
                return ip_address(host) in self.network
            except ValueError:
                return False
        return (self.exact and host == self.name) or host.endswith(f".{self.name}")


@frozen
class ProxyRoutes:
    """
    The way that requests go: one for each origin, which does not change.

    :param http: the proxy for ``http`` URLs, if any; :param https: for ``https`` ones.
    """

    http: Proxy | None
    https: Proxy | None
    bypass: ProxyBypass

    def proxy_for(self, target: HttpTarget) -> Proxy | None:
        """Give the proxy on the way to *target*; None where there is none."""
        proxy = self.https if target.scheme == "https" else self.http
        if proxy is None or self.bypass.covers(target.host, target.port):
            return None
        return proxy


def find_proxy_routes(
    proxy: str | None, no_proxy: Iterable[str], environ: Mapping[str, str]
) -> ProxyRoutes | None:
    """
    Give the routes that settings name; None where all requests go straight to their servers.

    :param proxy: a URL for all requests, or :data:`ENVIRONMENT`.
    :param environ: looked at in the latter case only. ``http_proxy``, ``https_proxy`` and
        ``no_proxy`` win over the names in capitals, and ``HTTP_PROXY`` is not read in a CGI
        script, where any client could set it (CVE-2016-5385). What is no rule in ``NO_PROXY`` is
        passed over, since other programs know other rules.
    :raises ValueError: for a URL that is no proxy's, and a rule in *no_proxy* that is none.
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
    """Give the proxy of the first variable that is set; none if it is empty."""
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
    """Give the request for a tunnel to *host*, which holds the proxy's credentials."""
    authority = format_address(host, port)
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode()


def tunnel_opened(answer: bytes, host: str) -> bool:
    """
    Say whether a proxy has opened the tunnel that it was asked for; False: not yet.

    :param answer: all that it has sent so far.
    :param host: to which the tunnel leads.
    :raises ProxyFailed: where it refuses, or sends what is no answer, or more than one.
    """
    total = len(answer)
    while True:
        end = _END.search(answer)
        if end is None:
            if total > MAX_ANSWER:
                raise ProxyFailed(host, f"its answer is larger than {MAX_ANSWER} bytes")
            return False
        found = _STATUS.match(answer)
        if found is None:
            raise ProxyFailed(host, "its answer is not HTTP")
        status = int(found[1])
        rest = answer[end.end() :]
        if status >= 300:
            raise proxy_refusal(host, status)
        if status >= 200:
            break
        answer = rest  # an interim response: the answer comes after it
    if rest:
        # The server behind speaks only when spoken to: this came from somebody else.
        raise ProxyFailed(host, "it sent data before it was asked for any")
    return True


def proxy_refusal(host: str, status: int, *, unsent: bool = True) -> ProxyFailed:
    """Give the error for what a proxy answered instead of leading to *host*."""
    reason = f"it answered with status {status}"
    if status == 407:
        reason += "; its credentials are missing or wrong"
    return ProxyFailed(host, reason, status=status, unsent=unsent)
