"""A web server that means harm: ``python -m benchmarks.hostile_origin``."""

from __future__ import annotations

import os
import socketserver
import zlib
from contextlib import suppress

from typing_extensions import override

ADDRESS = ("127.80.80.80", 8080)
"""Where it listens."""

SIZE = 250_000
"""Bytes of a body: as many as FETCH takes, nearly."""

_OK = b"HTTP/1.1 200 OK\r\n"
_EMPTY = b"Content-Length: 0\r\n\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def _with_body(fields: bytes, body: bytes) -> bytes:
    return _OK + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _gzip(data: bytes) -> bytes:
    return zlib.compress(data, wbits=31)


def _many(piece: bytes, size: int = SIZE) -> bytes:
    return piece * (size // len(piece))


PAGES: dict[str, bytes] = {
    # One byte in each.
    "chunks": _OK + _CHUNKED + b"1\r\nx\r\n" * SIZE + b"0\r\n\r\n",
    "members": _with_body(b"Content-Encoding: gzip\r\n", _many(_gzip(b""))),
    # Each of its bytes becomes a thousand.
    "bomb": _with_body(b"Content-Encoding: gzip\r\n", _gzip(bytes(100 * SIZE))),
    "trailers": _OK + _CHUNKED + b"0\r\n" + _many(b"X: y\r\n", 64_000) + b"\r\n",
    # As many lines, and as many bytes, as a header may have.
    "head": _OK + _many(b"X: " + b"y" * 250 + b"\r\n", 63_000) + _EMPTY,
    "quotes": _OK + b"Cache-Control: " + _many(b'a="', 16_000) + b"\r\n" + _EMPTY,
    "vary": _OK + b"Vary: " + _many(b"a,", 16_000) + b"\r\n" + _EMPTY,
    "charset": _with_body(b"Content-Type: text/plain; charset=punycode\r\n", _many(b"-a")),
    "undefined": _with_body(b"Content-Type: text/plain; charset=windows-1253\r\n", _many(b"\xd2")),
    "json": _with_body(
        b"Content-Type: application/json\r\n",
        b"[" + b"[]," * 9000 + _many(b"1,", SIZE - 30_000) + b"1]",
    ),
    "deep": _with_body(b"Content-Type: application/json\r\n", _many(b"[")),
}
"""What it sends, by the path that is asked for."""


class Handler(socketserver.BaseRequestHandler):
    """One connection: answers each request as it comes, until the client has had enough."""

    @override
    def handle(self) -> None:
        received = b""
        with suppress(OSError):
            while data := self.request.recv(65_536):
                received += data
                while b"\r\n\r\n" in received:
                    request, _, received = received.partition(b"\r\n\r\n")
                    path = request.split(b" ", 2)[1].decode("latin-1")
                    self.request.sendall(PAGES[path.strip("/").partition("?")[0]])


class Origin(socketserver.ThreadingTCPServer):
    """The server: a thread for each connection, in which it may wait for a client that does not."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024


def main() -> None:
    """Serve until the process is ended."""
    os.nice(10)
    with Origin(ADDRESS, Handler) as origin:
        print("ready", flush=True)
        origin.serve_forever()


if __name__ == "__main__":
    main()
