"""
Heads of HTTP/1.1 requests, into bytes (RFC 9112 §3).

All that is sent is checked here: nothing that a caller passes can end its line, and become a field
or a request of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from twisted_net.http.fields import NO_FIELDS, TOKEN, EncodedFields, HeaderFields
from twisted_net.http.h1.heads import CHUNKED, has_close
from twisted_net.net.characters import printable

_TARGET = re.compile(r"[\x21-\x7e]++")
_NOT_IN_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")

_FRAMING = frozenset({"content-length", "transfer-encoding"})

# RFC 9110 §8.6: for these, no body is a body of no bytes.
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class RequestEncoder:
    """
    Encodes requests to one origin: what they have in common is checked and encoded once.

    :param host: the value of ``Host``: name or address, and the port unless it is the default.
    :param common: fields of all requests, but for those that have one of the same name.
    :raises ValueError: if one of them cannot be sent.
    """

    __slots__ = ("_common",)

    def __init__(self, host: str, common: Iterable[tuple[str, str]] = ()) -> None:
        self._common = _encoded(_checked([("Host", host), *common]))

    def encode(
        self,
        method: str,
        target: str,
        fields: HeaderFields = NO_FIELDS,
        *,
        length: int | None = None,
    ) -> tuple[bytes, bool]:
        """
        Encode the head of a request.

        ``Host`` comes first (RFC 9110 §7.2). The framing is that of the body: fields of that are
        left out.

        :param target: path and query, URL or authority, percent-encoded.
        :param fields: white space around a value is left out. What is made of them is kept in them.
        :param length: bytes of the body; :data:`~twisted_net.http.h1.heads.CHUNKED`; None if there
            is none.
        :return: the head, and whether it says that the connection is closed after the response.
        :raises ValueError: if it cannot be sent.
        """
        if TOKEN.fullmatch(method) is None:
            raise ValueError(f'"{printable(method)}" is not a method: it must be a token')
        if _TARGET.fullmatch(target) is None:
            # Not the target, whose query may have secrets.
            raise ValueError("the target of a request must be of visible ASCII characters")
        common, own = self._common, fields.encoded
        if own is None:
            own = fields.encoded = _encoded(_checked(fields.pairs))
        if own.names.isdisjoint(common.names):
            lines, closes = common.octets + own.octets, common.closes or own.closes
        else:
            every = [pair for pair in common.lines if pair[0].lower() not in own.names] + own.lines
            every.sort(key=lambda pair: pair[0].lower() != "host")
            _, _, lines, closes = _encoded(every)
        if length == CHUNKED:
            lines += b"Transfer-Encoding: chunked\r\n"
        elif length is not None or method in _WITH_BODY:
            lines += b"Content-Length: %d\r\n" % (length or 0)
        return f"{method} {target} HTTP/1.1\r\n".encode() + lines + b"\r\n", closes


def _checked(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return fields as they are sent, without those of the framing."""
    checked = []
    hosts = 0
    for name, value in fields:
        if TOKEN.fullmatch(name) is None:
            raise ValueError(f'"{printable(name)}" is not the name of a header field')
        wrong = _NOT_IN_VALUE.search(value)
        if wrong is not None:
            # Not the value, which may be a secret.
            character = printable(wrong[0])
            raise ValueError(f'the header field "{name}" cannot have the character {character}')
        lower = name.lower()
        hosts += lower == "host"
        if lower not in _FRAMING:
            checked.append((name, value.strip(" \t")))
    if hosts > 1:
        raise ValueError("a request has one Host")
    return checked


def _encoded(lines: list[tuple[str, str]]) -> EncodedFields:
    """Return fields that were checked as they are sent."""
    octets = "".join([f"{name}: {value}\r\n" for name, value in lines]).encode("latin-1")
    closes = any(name.lower() == "connection" and has_close(value) for name, value in lines)
    return EncodedFields(lines, frozenset([name.lower() for name, _ in lines]), octets, closes)
