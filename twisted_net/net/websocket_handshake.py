"""WebSocket handshake, the server's side (RFC 6455 §4.2): reads the request, and answers it."""

from __future__ import annotations

import base64
import hashlib
import re
from http import HTTPStatus

from attrs import frozen

from twisted_net.errors import BadHandshake

MAX_REQUEST = 16_384
"""Bytes of the longest request: browsers send cookies of up to 4 KiB each."""

MAX_FIELDS = 128
"""Fields of a request, by their lines; browsers send some 20. 16 KiB of them took 4.5 ms."""

VERSION = b"13"
"""The version of the protocol (§4.1); another one is told that this is spoken here (§4.4)."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # §1.3
_METHOD = b"GET "
_NO_REQUEST = "this is a WebSocket; its handshake is a GET request of HTTP 1.1 or later"
_END = re.compile(rb"\n\r?\n")
_REQUEST_LINE = re.compile(rb"GET (?:/|https?://|wss?://)[\x21\x22\x24-\x7e]* HTTP/1\.([0-9])\r\n")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_HOST = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\])(?::[0-9]*)?"
)
# 22 characters hold 132 bits, of which 16 bytes are the first 128; the others may be anything, as
# they are in the RFC's own example (§4.1).
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")


@frozen
class HandshakeRequest:
    """
    A valid request of a client.

    :param key: its ``Sec-WebSocket-Key``; the answer proves that it was read.
    :param origins: the values of its ``Origin`` fields; one from a browser, else none.
    :param rest: bytes that followed it, which are frames.
    """

    key: bytes
    origins: tuple[str, ...]
    rest: bytes


class RequestReader:
    """
    Reads the request of a client (§4.2.1), in time linear in its length however it is cut.

    It keeps :data:`MAX_REQUEST` bytes, and the piece that exceeds these.
    """

    __slots__ = ("_data", "_fields_begin")

    def __init__(self) -> None:
        self._data = bytearray()
        self._fields_begin = 0  # once the first line is complete, and right

    def feed(self, data: bytes) -> HandshakeRequest | None:
        """
        Take the next bytes.

        :return: the request if it is complete.
        :raises BadHandshake: as soon as no continuation can make it valid.
        """
        searched = max(self._fields_begin - 1, len(self._data) - 2, 0)
        self._data += data
        if not self._fields_begin:
            if not self._data.startswith(_METHOD[: len(self._data)]):
                raise _bad(_NO_REQUEST)
            end = self._data.find(b"\n", searched, MAX_REQUEST)
            if end >= 0:
                _check_request_line(bytes(self._data[: end + 1]))
                searched, self._fields_begin = end, end + 1
        if self._fields_begin:
            found = _END.search(self._data, searched, MAX_REQUEST)
            if found is not None:
                head = bytes(self._data[self._fields_begin : found.start() + 1])
                return _check_fields(_parse_fields(head), bytes(self._data[found.end() :]))
        if len(self._data) >= MAX_REQUEST:
            raise BadHandshake(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the request is longer than {MAX_REQUEST} bytes",
            )
        return None


def _check_fields(fields: dict[bytes, list[bytes]], rest: bytes) -> HandshakeRequest:
    if not _HOST.fullmatch(_only(fields, b"host")):
        raise _bad("Host is not a host with or without a port")
    if b"websocket" not in _list(fields, b"upgrade"):
        raise _bad("Upgrade does not name websocket")
    if b"upgrade" not in _list(fields, b"connection"):
        raise _bad("Connection does not name Upgrade")
    if _only(fields, b"sec-websocket-version") != VERSION:
        raise BadHandshake(HTTPStatus.UPGRADE_REQUIRED, "only version 13 of WebSocket is spoken")
    key = _only(fields, b"sec-websocket-key")
    if not _KEY.fullmatch(key):
        raise _bad("Sec-WebSocket-Key is not 16 bytes in base64")
    if b"transfer-encoding" in fields or set(fields.get(b"content-length", ())) - {b"0"}:
        # It would be taken for frames.
        raise _bad("the request has a body")
    origins = tuple(value.decode("latin-1") for value in fields.get(b"origin", ()))
    return HandshakeRequest(key, origins, rest)


def encode_acceptance(request: HandshakeRequest) -> bytes:
    """Encode the answer that accepts a request (§4.2.2)."""
    accept = base64.b64encode(hashlib.sha1(request.key + _GUID).digest())
    return _encode_head(
        HTTPStatus.SWITCHING_PROTOCOLS,
        {b"Upgrade": b"websocket", b"Connection": b"Upgrade", b"Sec-WebSocket-Accept": accept},
    )


def encode_refusal(error: BadHandshake) -> bytes:
    """Encode the answer that refuses a request; its body is the reason."""
    body = f"{error}\n".encode()
    fields = {b"Connection": b"close"}
    if error.status == HTTPStatus.UPGRADE_REQUIRED:
        # RFC 9110 §15.5.22 and RFC 6455 §4.4.
        fields = {
            b"Connection": b"Upgrade, close",
            b"Upgrade": b"websocket",
            b"Sec-WebSocket-Version": VERSION,
        }
    fields[b"Content-Type"] = b"text/plain; charset=utf-8"
    fields[b"Content-Length"] = b"%d" % len(body)
    return _encode_head(HTTPStatus(error.status), fields) + body


def _check_request_line(line: bytes) -> None:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise _bad(_NO_REQUEST)
    if match[1] == b"0":
        raise _bad("the version of HTTP is lower than 1.1")


def _parse_fields(head: bytes) -> dict[bytes, list[bytes]]:
    """Parse lines into the values of each field, by its name in lower case (RFC 9112 §5)."""
    fields: dict[bytes, list[bytes]] = {}
    if head.count(b"\n") > MAX_FIELDS:
        raise BadHandshake(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the request has more than {MAX_FIELDS} fields",
        )
    for line in head.split(b"\n")[:-1]:
        name, colon, value = line.removesuffix(b"\r").partition(b":")
        if not (colon and line.endswith(b"\r") and _TOKEN.fullmatch(name)):
            raise _bad("a line of the request is not a name, a colon and a value")
        if not _VALUE.fullmatch(value):
            raise _bad("a field of the request has a control character")
        fields.setdefault(name.lower(), []).append(value.strip(b" \t"))
    return fields


def _only(fields: dict[bytes, list[bytes]], name: bytes) -> bytes:
    """Return the value of a field that must be there once."""
    values = fields.get(name, ())
    if len(values) != 1:
        shown = name.decode().title().replace("Websocket", "WebSocket")
        raise _bad(f"the request has {len(values) or 'no'} fields {shown}, not one")
    return values[0]


def _list(fields: dict[bytes, list[bytes]], name: bytes) -> set[bytes]:
    """Return the items of a field that is a list, in lower case; it may be in several lines."""
    return {
        item.strip(b" \t").lower() for value in fields.get(name, ()) for item in value.split(b",")
    }


def _bad(reason: str) -> BadHandshake:
    return BadHandshake(HTTPStatus.BAD_REQUEST, reason)


def _encode_head(status: HTTPStatus, fields: dict[bytes, bytes]) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in fields.items()]
    return b"\r\n".join([*lines, b"", b""])
