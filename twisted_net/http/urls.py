"""URLs: strict parsing into a target, credentials, reference resolution."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote, urljoin

from attrs import frozen

from twisted_net.http.errors import InvalidURL
from twisted_net.net.addresses import format_address
from twisted_net.net.redaction import redact_url

MAX_URL = 8000
"""Longest URL requested, in characters: RFC 9110 §4.1 recommends to support at least this."""

_DEFAULT_PORTS = {"http": 80, "https": 443}

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?"
)
# Percent-encoded host names, IPv6 zones and backslashes are refused: URL parsers differ in which
# part of such a URL is the host.
_HOST = re.compile(
    r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]*))?"
)
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_USERINFO = re.compile(r"(?P<start>[A-Za-z][A-Za-z0-9+.-]*://)(?P<userinfo>[^/?#]*)@")


@frozen(slots=True)
class HttpTarget:
    """
    Where a request goes, in canonical form.

    :param scheme: in lower case.
    :param host: in lower case; an IPv6 address without its brackets.
    :param port: that of the URL, or else the default of the scheme.
    :param path: path and query, as in the request line; never empty.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what shares connections and may share credentials."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Host and port for the ``Host`` field, without the port if it is the scheme's default."""
        full = format_address(self.host, self.port)
        return full.rpartition(":")[0] if self.port == _DEFAULT_PORTS.get(self.scheme) else full

    @property
    def url(self) -> str:
        """The URL in canonical form: equal for spellings that differ in case or default port."""
        return f"{self.scheme}://{self.authority}{self.path}"


@lru_cache(maxsize=1024)
def parse_target(url: str) -> HttpTarget:
    """
    Parse an absolute ``http`` or ``https`` URL in ASCII; its fragment is dropped.

    :raises InvalidURL: for any other text. A user name or password in it is refused too (RFC 9110
        §4.2.4): :func:`split_credentials` removes them first.
    """
    if len(url) > MAX_URL:
        raise _refusal(url, f"it is longer than {MAX_URL} characters")
    match = _URL.fullmatch(url)
    if match is None or _VISIBLE.fullmatch(url) is None:
        raise _refusal(url, "it is not an absolute URL in plain ASCII")
    scheme = match["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise _refusal(url, "its scheme is neither http nor https")
    if "@" in match["authority"]:
        raise _refusal(url, "a user name or password is not allowed here")
    found = _HOST.fullmatch(match["authority"])
    if found is None:
        raise _refusal(url, "its host or port is malformed")
    port = int(found["port"][:6]) if found["port"] else _DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65_535:
        raise _refusal(url, "its port is not one from 1 to 65535")
    return HttpTarget(
        scheme=scheme,
        host=found["host"].strip("[]").lower(),
        port=port,
        path=(match["path"] or "/") + (match["query"] or ""),
    )


def split_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return a URL without user name and password, and both decoded; None if it has none."""
    match = _USERINFO.match(url)
    if match is None:
        return url, None
    user, _, password = match["userinfo"].partition(":")
    return match["start"] + url[match.end() :], (unquote(user), unquote(password))


def join(base: str, reference: str) -> str:
    """
    Resolve *reference* against the URL *base* (RFC 3986 §5).

    :raises InvalidURL: if it is malformed.
    """
    try:
        return urljoin(base, reference)
    except ValueError:
        # Its message may contain the user name and password.
        raise _refusal(reference, "its host is malformed") from None


def _refusal(url: str, reason: str) -> InvalidURL:
    return InvalidURL(redact_url(url), reason)
