"""coap and coaps URIs, and the options that stand for them (RFC 7252 §6)."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes, urlsplit

from attrs import frozen

from twisted_net.coap.codec import Option, encode_uint
from twisted_net.coap.errors import InvalidCoapURI
from twisted_net.coap.settings import DEFAULT_PORT
from twisted_net.dtls.settings import DEFAULT_PORT as SECURE_PORT
from twisted_net.net.addresses import is_numeric


@frozen
class Target:
    """
    Where a request goes, and for what.

    :param host: a name, or a numeric address without brackets.
    :param numeric: whether it is an address.
    :param secure: whether over DTLS.
    :param options: Uri-Host (of a name), Uri-Port (where it is not the usual), Uri-Path, Uri-Query.
    """

    host: str
    port: int
    numeric: bool
    secure: bool
    options: tuple[tuple[int, bytes], ...]


def parse_uri(uri: str) -> Target:
    """
    Take a ``coap`` or ``coaps`` URI apart (RFC 7252 §6.4).

    :raises InvalidCoapURI: for another scheme, no host, a fragment, user names, or a part that
        is longer than an option can be.
    """
    try:
        parts = urlsplit(uri)
        usual = SECURE_PORT if parts.scheme == "coaps" else DEFAULT_PORT
        port = usual if parts.port is None else parts.port
    except ValueError as error:
        raise InvalidCoapURI(uri, str(error)) from None
    if parts.scheme not in ("coap", "coaps"):
        raise InvalidCoapURI(uri, "its scheme is neither coap nor coaps")
    if not parts.hostname or not port:
        raise InvalidCoapURI(uri, "it names no host, or port 0")
    if parts.fragment or "@" in parts.netloc:
        raise InvalidCoapURI(uri, "it has a fragment or a user, which CoAP has not")
    host = unquote_to_bytes(parts.hostname).decode(errors="replace").lower()
    numeric = is_numeric(host)
    options: list[tuple[int, bytes]] = []
    if not numeric:
        options.append((Option.URI_HOST, host.encode()))
    if port != usual:
        options.append((Option.URI_PORT, encode_uint(port)))
    if parts.path not in ("", "/"):
        segments = parts.path.removeprefix("/").split("/")
        options += [(Option.URI_PATH, unquote_to_bytes(segment)) for segment in segments]
    if parts.query:
        queries = parts.query.split("&")
        options += [(Option.URI_QUERY, unquote_to_bytes(query)) for query in queries]
    for _, value in options:
        if len(value) > 255:
            raise InvalidCoapURI(uri, "a part of it is longer than 255 bytes")
    return Target(host, port, numeric, parts.scheme == "coaps", tuple(options))
