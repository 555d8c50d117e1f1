"""Which codings of a body are asked for, and how a response is given without them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IProtocol
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from twisted_net.http.bodies import WINDOW_BITS, BodyResponse, Inflator, discard
from twisted_net.http.content_coding import DECODERS, Decompressor
from twisted_net.http.errors import BadResponse
from twisted_net.http.fields import HeaderFields

ACCEPTED = ", ".join(["gzip", "deflate", *(coding.decode() for coding in DECODERS)])
"""The codings that :func:`decode_response` undoes, as ``Accept-Encoding`` names them."""

_ACCEPTED = [ACCEPTED.encode()]
_KNOWN = WINDOW_BITS.keys() | DECODERS.keys()
_MAX_CODINGS = 3
"""Most codings of one body; nobody but an attacker uses more."""


def accepted_codings(headers: Headers | None) -> list[bytes]:
    """Give the lines of ``Accept-Encoding`` for a request whose caller gave these headers."""
    lines = [] if headers is None else list(headers.getRawHeaders(b"accept-encoding", ()))
    if lines and lines != _ACCEPTED and lines[-1] == b"gzip":
        lines.pop()  # treq adds this line to whatever its caller wants
    return lines or _ACCEPTED


def fields_with_accept_encoding(headers: Headers | None) -> HeaderFields:
    """Give the fields of such a request, with :func:`accepted_codings` among them."""
    lines = [] if headers is None else headers.getAllRawHeaders()
    pairs = [
        (name, value) for name, values in lines if name != b"Accept-Encoding" for value in values
    ]
    return HeaderFields(
        [*pairs, *((b"Accept-Encoding", value) for value in accepted_codings(headers))]
    )


def decode_response(response: IResponse, limit: int) -> IResponse:
    """
    Give *response* with its body decompressed, by one coding inside the other too.

    gzip and deflate are always undone, brotli and zstd where their packages are installed. A
    coding that is unknown here ends the undoing; it stays in ``Content-Encoding``.

    :param limit: most bytes that the body may grow to; at this size it ends with
        :class:`~twisted_net.http.errors.BodyTooLarge`, before more is decompressed.
    :raises BadResponse: for more codings than :data:`_MAX_CODINGS`.
    """
    lines = response.headers.getRawHeaders(b"content-encoding", [])
    codings = [name.strip().lower() for name in b",".join(lines).split(b",") if name.strip()]
    if not codings or codings[-1] not in _KNOWN or response.length == 0:
        return response
    if len(codings) > _MAX_CODINGS:
        discard(response)
        raise BadResponse(f"its body has more than {_MAX_CODINGS} codings")
    inner: Callable[[IProtocol], None] = response.deliverBody
    while codings and codings[-1] in _KNOWN:
        inner = _undoing(inner, codings.pop(), limit)
    headers = response.headers.copy()
    headers.removeHeader(b"content-length")
    headers.removeHeader(b"content-encoding")
    if codings:
        headers.setRawHeaders(b"content-encoding", [b", ".join(codings)])
    return BodyResponse.like(response, inner, headers=headers, length=UNKNOWN_LENGTH)


def _undoing(
    deliver: Callable[[IProtocol], None], coding: bytes, limit: int
) -> Callable[[IProtocol], None]:
    kind = Decompressor if coding in DECODERS else Inflator
    return lambda receiver: deliver(kind(receiver, coding, limit))
