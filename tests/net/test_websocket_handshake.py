"""Requests for a WebSocket: right ones, wrong ones, and every cut of both (RFC 6455 §4.2)."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.errors import BadHandshake
from twisted_net.net.websocket_handshake import (
    MAX_FIELDS,
    MAX_REQUEST,
    HandshakeRequest,
    RequestReader,
    encode_acceptance,
    encode_refusal,
)

EXAMPLE = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Origin: http://example.com\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
"""The request of §1.3."""

LINE, HOST = b"GET /chat HTTP/1.1\r\n", b"Host: server.example.com\r\n"
UPGRADE, CONNECTION = b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"


def changed(before: bytes, after: bytes) -> bytes:
    """Return the example with a part of it replaced."""
    assert before in EXAMPLE
    return EXAMPLE.replace(before, after)


RIGHT = (
    EXAMPLE,
    changed(LINE, b"GET / HTTP/1.1\r\n"),
    changed(LINE, b"GET /?a=b&c=%20d HTTP/1.2\r\n"),
    changed(LINE, b"GET http://server.example.com/chat HTTP/1.1\r\n"),
    changed(HOST, b"host:server.example.com:8888\r\n"),
    changed(HOST, b"Host: [2001:db8::1]:8888\r\n"),
    changed(HOST, b"Host: 192.0.2.1\t \r\n"),
    changed(HOST, b"Host: my_service\r\n"),
    changed(UPGRADE, b"UPGRADE: WebSocket\r\n"),
    changed(UPGRADE, b"Upgrade: h2c, websocket\r\n"),
    changed(CONNECTION, b"Connection: keep-alive, upgrade\r\n"),
    changed(CONNECTION, b"Connection: keep-alive\r\nConnection: ,UPGRADE,\r\n"),
    changed(KEY, b"sec-websocket-key:   dGhlIHNhbXBsZSBub25jZQ==  \r\n"),
    # The example of §4.1, whose last bits are not zero.
    changed(KEY, b"Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC==\r\n"),
    changed(KEY, b"Sec-WebSocket-Key: ++//++//++//++//++//++==\r\n"),
    changed(VERSION, VERSION + b"Sec-WebSocket-Protocol: more\r\nX: \xff\xfe\t\r\nEmpty:\r\n"),
    changed(VERSION, VERSION + b"Content-Length: 0\r\n"),
    changed(b"\r\n\r\n", b"\r\nCookie: " + b"x" * 8000 + b"\r\n\r\n"),
)
"""Requests that are accepted."""

WRONG: dict[bytes, tuple[int, str]] = {
    b"PING\n": (400, "GET request"),
    b"\x16\x03\x01\x02\x00": (400, "GET request"),
    b"\r\n" + EXAMPLE: (400, "GET request"),
    changed(LINE, b"GET /chat HTTP/1.0\r\n"): (400, "lower than 1.1"),
    changed(LINE, b"GET /chat HTTP/0.9\r\n"): (400, "GET request"),
    changed(LINE, b"GET /chat HTTP/2.0\r\n"): (400, "GET request"),
    changed(LINE, b"GET /chat HTTP/1.10\r\n"): (400, "GET request"),
    changed(LINE, b"GET /chat http/1.1\r\n"): (400, "GET request"),
    changed(LINE, b"GET /chat\r\n"): (400, "GET request"),
    changed(LINE, b"GET /chat HTTP/1.1\n"): (400, "GET request"),
    changed(LINE, b"GET /chat HTTP/1.1 \r\n"): (400, "GET request"),
    changed(LINE, b"GET  /chat HTTP/1.1\r\n"): (400, "GET request"),
    changed(LINE, b"GET chat HTTP/1.1\r\n"): (400, "GET request"),
    changed(LINE, b"GET * HTTP/1.1\r\n"): (400, "GET request"),
    changed(LINE, b"GET /chat#part HTTP/1.1\r\n"): (400, "GET request"),
    changed(LINE, b"GET /ch\x00at HTTP/1.1\r\n"): (400, "GET request"),
    changed(LINE, b"GET /ch\xe4t HTTP/1.1\r\n"): (400, "GET request"),
    changed(LINE, b"get /chat HTTP/1.1\r\n"): (400, "GET request"),
    changed(LINE, b"POST /chat HTTP/1.1\r\n"): (400, "GET request"),
    changed(LINE, b"CONNECT /chat HTTP/1.1\r\n"): (400, "GET request"),
    changed(HOST, b""): (400, "no fields Host"),
    changed(HOST, HOST + HOST): (400, "2 fields Host"),
    changed(HOST, HOST + b"HOST: other.example.com\r\n"): (400, "2 fields Host"),
    changed(HOST, b"Host:\r\n"): (400, "Host is not"),
    changed(HOST, b"Host: a b\r\n"): (400, "Host is not"),
    changed(HOST, b"Host: a.test, b.test/\r\n"): (400, "Host is not"),
    changed(HOST, b"Host: user@a.test\r\n"): (400, "Host is not"),
    changed(HOST, b"Host: \xff\xfe\r\n"): (400, "Host is not"),
    changed(HOST, b"Host: a.test:x\r\n"): (400, "Host is not"),
    changed(UPGRADE, b""): (400, "Upgrade does not"),
    changed(UPGRADE, b"Upgrade: websockets\r\n"): (400, "Upgrade does not"),
    changed(UPGRADE, b"Upgrade: h2c\r\n"): (400, "Upgrade does not"),
    changed(CONNECTION, b""): (400, "Connection does not"),
    changed(CONNECTION, b"Connection: keep-alive\r\n"): (400, "Connection does not"),
    changed(CONNECTION, b"Connection: not upgrade\r\n"): (400, "Connection does not"),
    changed(KEY, b""): (400, "no fields Sec-WebSocket-Key"),
    changed(KEY, KEY + KEY): (400, "2 fields Sec-WebSocket-Key"),
    changed(KEY, b"Sec-WebSocket-Key:\r\n"): (400, "16 bytes"),
    changed(KEY, b"Sec-WebSocket-Key: x\r\n"): (400, "16 bytes"),
    changed(KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n"): (400, "16 bytes"),
    changed(KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n"): (400, "16 bytes"),
    changed(KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTE=\r\n"): (400, "16 bytes"),
    changed(KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n"): (400, "16 bytes"),
    changed(KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25-_Q==\r\n"): (400, "16 bytes"),
    changed(KEY, b"Sec-WebSocket-Key: dGhlIHNhbXBs ZSBub25jZQ==\r\n"): (400, "16 bytes"),
    changed(KEY, KEY[:-2] + b", dGhlIHNhbXBsZSBub25jZQ==\r\n"): (400, "16 bytes"),
    changed(VERSION, b""): (400, "no fields Sec-WebSocket-Version"),
    changed(VERSION, VERSION + VERSION): (400, "2 fields Sec-WebSocket-Version"),
    changed(VERSION, b"Sec-WebSocket-Version: 8\r\n"): (426, "version 13"),
    changed(VERSION, b"Sec-WebSocket-Version: 13, 8\r\n"): (426, "version 13"),
    changed(VERSION, b"Sec-WebSocket-Version: 013\r\n"): (426, "version 13"),
    changed(VERSION, b"Sec-WebSocket-Version:\r\n"): (426, "version 13"),
    changed(VERSION, VERSION + b"Content-Length: 5\r\n"): (400, "a body"),
    changed(VERSION, VERSION + b"Content-Length: 0\r\nContent-Length: 5\r\n"): (400, "a body"),
    changed(VERSION, VERSION + b"Transfer-Encoding: chunked\r\n"): (400, "a body"),
    changed(VERSION, VERSION + b"No colon\r\n"): (400, "a name, a colon"),
    changed(VERSION, VERSION + b"Space : x\r\n"): (400, "a name, a colon"),
    changed(VERSION, VERSION + b" folded\r\n"): (400, "a name, a colon"),
    changed(VERSION, VERSION + b": x\r\n"): (400, "a name, a colon"),
    changed(VERSION, VERSION + b"X: y\n"): (400, "a name, a colon"),
    changed(VERSION, VERSION + b"X: a\rb\r\n"): (400, "control character"),
    changed(VERSION, VERSION + b"X: a\x00b\r\n"): (400, "control character"),
    changed(VERSION, VERSION + b"X: a\x7fb\r\n"): (400, "control character"),
    changed(b"\r\n\r\n", b"\r\nX: " + b"x" * MAX_REQUEST + b"\r\n\r\n"): (431, "longer than"),
    b"GET /" + b"x" * MAX_REQUEST: (431, "longer than"),
}
"""Requests that are refused, with the status and some words of the reason."""


def read(*pieces: bytes) -> HandshakeRequest | None:
    """Read a request that comes in pieces."""
    reader = RequestReader()
    for piece in pieces[:-1]:
        assert reader.feed(piece) is None
    return reader.feed(pieces[-1])


class RequestTests(SynchronousTestCase):
    """:class:`RequestReader`."""

    def test_right(self) -> None:
        """A request is accepted, and what follows it is kept."""
        for data in RIGHT:
            with self.subTest(data=data[:200]):
                request = read(data + b"\x81\x00")
                assert request is not None
                self.assertEqual((len(request.key), request.rest), (24, b"\x81\x00"))
                self.assertEqual(request.origins, ("http://example.com",))

    def test_wrong(self) -> None:
        """Anything else is refused, and the reason says what it is; it holds no bytes of theirs."""
        for data, (status, reason) in WRONG.items():
            with self.subTest(data=data[:200]):
                error = self.assertRaises(BadHandshake, read, data)
                self.assertEqual(error.status, status)
                self.assertIn(reason, str(error))
                self.assertLess(len(str(error)), 100)

    def test_any_cut(self) -> None:
        """However a request is cut, it is read alike."""
        for data in (EXAMPLE, EXAMPLE + b"\x81\x00", *list(WRONG)[3:40]):
            try:
                whole: object = read(data)
            except BadHandshake as error:
                whole = str(error)
            for cut in range(len(data)):
                try:
                    reader = RequestReader()
                    first = reader.feed(data[:cut])
                    found: object = first or reader.feed(data[cut:])
                except BadHandshake as error:
                    found = str(error)
                if isinstance(found, HandshakeRequest) and isinstance(whole, HandshakeRequest):
                    self.assertEqual(found.key, whole.key)
                else:
                    self.assertEqual(found, whole)

    def test_byte_by_byte(self) -> None:
        """Nothing is decided before its last byte."""
        reader = RequestReader()
        for i in range(len(EXAMPLE) - 1):
            self.assertIsNone(reader.feed(EXAMPLE[i : i + 1]))
        self.assertIsNotNone(reader.feed(EXAMPLE[-1:]))

    def test_at_once(self) -> None:
        """What cannot become a request is refused at the byte that says so."""
        for data in (b"P", b"GEX", b"\x16", b"GET x\r\n", b"GET / HTTP/1.0\r\n", b"\n"):
            self.assertRaises(BadHandshake, read, data)
            if data[:-1]:
                self.assertIsNone(read(data[:-1]))

    def test_limit(self) -> None:
        """A request of the limit is read, and one more byte is refused."""
        room = MAX_REQUEST - len(EXAMPLE) - len("X: \r\n")
        for size in (room, room + 1):
            data = changed(VERSION, VERSION + b"X: " + b"x" * size + b"\r\n")
            if len(data) <= MAX_REQUEST:
                self.assertIsNotNone(read(data + b"frames" * 9000))
            else:
                self.assertRaises(BadHandshake, read, data)

    def test_fields(self) -> None:
        """As many fields are accepted as the limit says; one more is refused."""
        room = MAX_FIELDS - EXAMPLE.count(b"\r\n") + 2  # the first line and the empty one
        for count in (room, room + 1):
            data = EXAMPLE[:-2] + b"X: y\r\n" * count + b"\r\n"
            if count == room:
                self.assertIsNotNone(read(data))
            else:
                error = self.assertRaises(BadHandshake, read, data)
                self.assertEqual(
                    (error.status, str(error)), (431, "the request has more than 128 fields")
                )

    def test_limit_without_an_end(self) -> None:
        """Once so many bytes have come, no end is waited for."""
        self.assertIsNone(read(b"GET /".ljust(MAX_REQUEST - 1, b"x")))
        self.assertRaises(BadHandshake, read, b"GET /".ljust(MAX_REQUEST, b"x"))

    def test_origins(self) -> None:
        """All origins are returned, none if there is none."""
        origin = b"Origin: http://example.com\r\n"
        for fields, origins in (
            (b"", ()),
            (origin + b"origin: null\r\n", ("http://example.com", "null")),
        ):
            request = read(changed(origin, fields))
            assert request is not None
            self.assertEqual(request.origins, origins)

    @given(st.binary(max_size=60), st.integers(0, len(EXAMPLE)))
    def test_anything(self, data: bytes, at: int) -> None:
        """Whatever stands in a request, it is accepted, refused or waited for."""
        with contextlib.suppress(BadHandshake):
            self.assertIsInstance(read(EXAMPLE[:at] + data + EXAMPLE[at:]), HandshakeRequest | None)


class AnswerTests(SynchronousTestCase):
    """:func:`encode_acceptance` and :func:`encode_refusal`."""

    def test_acceptance(self) -> None:
        """The answer to the example is that of §1.3."""
        request = read(EXAMPLE)
        assert request is not None
        self.assertEqual(
            encode_acceptance(request),
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )

    def test_refusal(self) -> None:
        """The reason is the body, and the connection ends."""
        self.assertEqual(
            encode_refusal(BadHandshake(403, "no")),
            b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\r\nno\n",
        )

    def test_another_version(self) -> None:
        """A client of another version is told which one is spoken (§4.4, RFC 9110 §15.5.22)."""
        head, _, body = encode_refusal(BadHandshake(426, "no")).partition(b"\r\n\r\n")
        self.assertEqual(body, b"no\n")
        lines = head.split(b"\r\n")
        self.assertEqual(lines[0], b"HTTP/1.1 426 Upgrade Required")
        for line in (
            b"Sec-WebSocket-Version: 13",
            b"Upgrade: websocket",
            b"Connection: Upgrade, close",
        ):
            self.assertIn(line, lines)
