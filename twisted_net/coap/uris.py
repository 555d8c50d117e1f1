"""``coap`` and ``coaps`` URIs: their parts as an address and as options (RFC 7252 §6)."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes, urlsplit

from attrs import frozen

from twisted_net.coap.codec import Option, encode_uint
from twisted_net.coap.errors import InvalidCoapURI
from twisted_net.coap.settings import DEFAULT_PORT, SECURE_PORT
from twisted_net.net.addresses import is_numeric


@frozen
class CoapURI:
    """
    A parsed URI.

    :param host: a name, or an IP address without brackets.
    :param numeric: whether the host is an IP address.
    :param secure: whether the scheme is ``coaps``: CoAP over DTLS.
    :param options: Uri-Host (if the host is a name), Uri-Port (if it is not the default of the
        scheme), Uri-Path, Uri-Query.
    """

    host: str
    port: int
    numeric: bool
    secure: bool
    options: tuple[tuple[int, bytes], ...]


def _segments(path: str) -> list[bytes]:
    """Return the segments of a path without dot segments; none for that of the root."""
    segments: list[bytes] = []
    segment = b""
    for segment in map(unquote_to_bytes, path.removeprefix("/").split("/")):
        if segment == b"..":
            del segments[-1:]
        elif segment != b".":
            segments.append(segment)
    if segment in (b".", b".."):
        segments.append(b"")
    return [] if segments == [b""] else segments


def parse_uri(uri: str) -> CoapURI:
    """
    Parse a ``coap`` or ``coaps`` URI (RFC 7252 §6.4).

    Dot segments are removed, as no Uri-Path is one (RFC 7252 §5.10.1, RFC 3986 §5.2.4).

    :raises InvalidCoapURI: for another scheme, a missing host, port 0, a fragment, user
        information, or a path segment, query argument or host over 255 bytes.
    """
    try:
        parts = urlsplit(uri)
        default = SECURE_PORT if parts.scheme == "coaps" else DEFAULT_PORT
        port = default if parts.port is None else parts.port
    except ValueError as error:
        raise InvalidCoapURI(uri, str(error)) from None
    if parts.scheme not in ("coap", "coaps"):
        raise InvalidCoapURI(uri, "its scheme is neither coap nor coaps")
    if not parts.hostname or not port:
        raise InvalidCoapURI(uri, "it has no host, or port 0")
    if parts.fragment or "@" in parts.netloc:
        raise InvalidCoapURI(uri, "it has a fragment or user information, which CoAP excludes")
    host = unquote_to_bytes(parts.hostname).decode(errors="replace").lower()
    numeric = is_numeric(host)
    options: list[tuple[int, bytes]] = []
    if not numeric:
        options.append((Option.URI_HOST, host.encode()))
    if port != default:
        options.append((Option.URI_PORT, encode_uint(port)))
    if parts.path not in ("", "/"):
        options += [(Option.URI_PATH, segment) for segment in _segments(parts.path)]
    if parts.query:
        queries = parts.query.split("&")
        options += [(Option.URI_QUERY, unquote_to_bytes(query)) for query in queries]
    for _, value in options:
        if len(value) > 255:
            raise InvalidCoapURI(uri, "a part of it is longer than 255 bytes")
    return CoapURI(host, port, numeric, parts.scheme == "coaps", tuple(options))
