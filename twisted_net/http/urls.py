"""URLs: encoding, strict parsing into a target, credentials, resolution of references."""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import lru_cache
from urllib.parse import quote, unquote

from attrs import field, frozen

from twisted_net.http.errors import InvalidURL
from twisted_net.net.addresses import format_address
from twisted_net.net.host_names import canonical_host
from twisted_net.net.redaction import redact_url

MAX_URL = 8000
"""Longest URL requested, in characters: RFC 9110 §4.1 recommends to support at least this."""

Origin = tuple[str, str, int] | tuple[str, str, int, Hashable]
"""Scheme, host and port, and the route where a request has one of its own."""

_DEFAULT_PORTS = {"http": 80, "https": 443}

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?",
    re.DOTALL,
)
# RFC 3986 appendix B, without the fragment.
_REFERENCE = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?P<authority>[^/?]*))?"
    r"(?P<path>[^?]*)(?P<query>\?.*)?",
    re.DOTALL,
)
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
# URLs that percent-encoding does not change.
_ENCODED = re.compile(
    r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?/[A-Za-z0-9._~/=&-]*(?:\?[A-Za-z0-9._~/=&-]+)?"
)
# What stays as it is in a path; "%" too, as it is encoded already or of no meaning.
_IN_PATH = "!$%&'()*+,/:;=@~"
_IN_QUERY = _IN_PATH + "?"
_ALL_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
# A backslash ends the authority for browsers, but not by RFC 3986: a URL with it is refused.
_USERINFO = re.compile(r"(?P<start>[A-Za-z][A-Za-z0-9+.-]*://)(?P<userinfo>[^/?#\\]*)@")


@frozen(slots=True)
class HttpTarget:
    """
    Where a request goes, in canonical form.

    :param scheme: in lower case.
    :param host: as :func:`~twisted_net.net.host_names.canonical_host` returns it.
    :param port: that of the URL, or else the default of the scheme.
    :param path: path and query, as in the request line, without dot segments; never empty. A ``?``
        without a query is kept (RFC 3986 §6.2.3).
    :ivar origin: scheme, host and port: what shares connections and may share credentials.
    :ivar authority: host and port for the ``Host`` field, without the port if it is the scheme's
        default.
    :ivar url: the URL in canonical form: equal for spellings that differ in case or default port.
    """

    scheme: str
    host: str
    port: int
    path: str
    origin: Origin = field(init=False, eq=False, repr=False)
    authority: str = field(init=False, eq=False, repr=False)
    url: str = field(init=False, eq=False, repr=False)

    @property
    def server_name(self) -> str:
        """The host for TLS, in SNI and certificates: without its final dot (RFC 6066 §3)."""
        return self.host.removesuffix(".")

    def __attrs_post_init__(self) -> None:
        # Once for each URL, which most programs request more than once.
        authority = format_address(self.host, self.port)
        if self.port == _DEFAULT_PORTS.get(self.scheme):
            authority = authority.rpartition(":")[0]
        object.__setattr__(self, "origin", (self.scheme, self.host, self.port))
        object.__setattr__(self, "authority", authority)
        object.__setattr__(self, "url", f"{self.scheme}://{authority}{self.path}")


@lru_cache(maxsize=1024)
def parse_target(url: str) -> HttpTarget:
    """
    Parse an absolute ``http`` or ``https`` URL in ASCII; its fragment is dropped.

    Dot segments are removed from the path (RFC 3986 §5.2.4), percent-encoded ones too, as in the
    URL standard of WHATWG.

    :raises InvalidURL: for any other text. A user name or password in it is refused too (RFC 9110
        §4.2.4): :func:`split_credentials` removes them first.
    """
    url = url.partition("#")[0]
    if len(url) > MAX_URL:
        raise _refusal(url, f"it is longer than {MAX_URL} characters")
    match = _URL.fullmatch(url)
    if match is None or _VISIBLE.fullmatch(url) is None:
        raise _refusal(url, "it is not an absolute URL in plain ASCII")
    scheme = match["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise _refusal(url, "its scheme is neither http nor https")
    host, port = _host_and_port(url, match["authority"])
    return HttpTarget(
        scheme=scheme,
        host=host,
        port=_DEFAULT_PORTS[scheme] if port is None else port,
        path=_without_dot_segments(match["path"] or "/") + (match["query"] or ""),
    )


@lru_cache(maxsize=1024)
def encode_url(url: str) -> str:
    """
    Percent-encode an absolute URL (UTF-8) where it is not in ASCII, its host by IDNA (RFC 5891).

    The URL is one for :func:`parse_target`: spaces around it and the fragment are dropped.

    :raises InvalidURL: if it is too long, is not an absolute URL, or its host is none.
    """
    if len(url) <= MAX_URL and _ENCODED.fullmatch(url) is not None:
        return url
    url = url.partition("#")[0].strip(" ")
    if len(url) > MAX_URL:
        # Encoding makes it no shorter.
        raise _refusal(url, f"it is longer than {MAX_URL} characters")
    match = _URL.fullmatch(url)
    if match is None:
        raise _refusal(url, "it is not an absolute URL, which begins with http:// or https://")
    if match["scheme"].lower() not in _DEFAULT_PORTS:
        # First: those of files and others have no host.
        raise _refusal(url, "its scheme is neither http nor https")
    host, port = _host_and_port(url, match["authority"])
    authority = f"[{host}]" if ":" in host else host
    if port is not None:
        authority += f":{port}"
    try:
        path = quote(match["path"] or "/", _IN_PATH)
        query = quote(match["query"] or "", _IN_QUERY)
    except UnicodeEncodeError:
        raise _refusal(url, "it contains a surrogate, which is no character") from None
    return f"{match['scheme']}://{authority}{path}{query}"


def split_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return a URL without user name and password, and both decoded; None if it has none."""
    match = _USERINFO.match(url)
    if match is None:
        return url, None
    user, _, password = match["userinfo"].partition(":")
    return match["start"] + url[match.end() :], (unquote(user), unquote(password))


def join(base: str, reference: str) -> str:
    """
    Resolve *reference* against *base* (RFC 3986 §5.2); the fragment is dropped.

    A reference with the scheme of *base* and no authority is a relative one, as in browsers.

    :param base: an absolute URL.
    """
    of_base = _URL.fullmatch(base.partition("#")[0])
    match = _REFERENCE.fullmatch(reference.partition("#")[0])
    assert of_base is not None
    assert match is not None  # as every text does
    scheme, path, query = match["scheme"] or of_base["scheme"], match["path"], match["query"] or ""
    if match["authority"] is not None:
        return f"{scheme}://{match['authority']}{path}{query}"
    if scheme.lower() != of_base["scheme"].lower():
        return f"{scheme}:{path}{query}"
    base_path = of_base["path"] or "/"
    if not path:
        path, query = base_path, query or of_base["query"] or ""
    elif not path.startswith("/"):
        path = base_path[: base_path.rindex("/") + 1] + path
    return f"{scheme}://{of_base['authority']}{_without_dot_segments(path)}{query}"


def resolve(base: str, reference: str) -> HttpTarget:
    """
    Return the target of ``Location`` or ``Content-Location`` in the response to a request.

    Octets that are not ASCII, and spaces, are percent-encoded: many servers send them so. As UTF-8
    they are decoded for the host.

    :param base: the URL of the request.
    :param reference: the value of the field, decoded as Latin-1.
    :raises InvalidURL: if it cannot be requested.
    """
    return parse_target(encode_url(join(base, _as_text(reference))))


def _as_text(value: str) -> str:
    """Return a field value with its UTF-8 decoded; if it is none, its octets percent-encoded."""
    if value.isascii():
        return value
    try:
        octets = value.encode("latin-1")
    except UnicodeEncodeError:
        return value  # it was not decoded as Latin-1
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return quote(octets, _ALL_VISIBLE)


# Most URLs of a program have a few hosts; to read an address takes a quarter of the time for a URL.
_canonical_host = lru_cache(maxsize=1024)(canonical_host)


def _host_and_port(url: str, authority: str) -> tuple[str, int | None]:
    """Return the host of an authority in canonical form, and its port or None (RFC 3986 §3.2)."""
    if "@" in authority:
        raise _refusal(url, "a user name or password is not allowed here")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise _refusal(url, "its host or port is malformed")
    try:
        host = _canonical_host(match["host"])
    except ValueError as error:
        raise _refusal(url, str(error)) from None
    if not match["port"]:
        return host, None
    # The zeros may be thousands; Python takes quadratic time for the digits after them.
    digits = match["port"].lstrip("0")
    if not digits or len(digits) > 5 or int(digits) > 65_535:
        raise _refusal(url, "its port is not one from 1 to 65535")
    return host, int(digits)


def _without_dot_segments(path: str) -> str:
    """Return a path that begins with ``/`` without dot segments (RFC 3986 §5.2.4)."""
    if _DOT_SEGMENT.search(path) is None:
        return path
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        folded = segment.lower().replace("%2e", ".")
        if folded not in (".", ".."):
            kept.append(segment)
            continue
        if folded == ".." and kept:
            kept.pop()
    if folded in (".", ".."):
        kept.append("")  # the last of them is a folder
    return "/" + "/".join(kept)


def _refusal(url: str, reason: str) -> InvalidURL:
    # A surrogate cannot be written to a log.
    return InvalidURL(redact_url(url).encode(errors="backslashreplace").decode(), reason)
