"""What a reader makes of a stream that is cut in any way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from attrs import frozen

from twisted_net.errors import FetchError
from twisted_net.http.h1.messages import ResponseReader

CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 5\r\n"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"


def response(
    fields: bytes = LENGTH, body: bytes = b"hello", start: bytes = b"HTTP/1.1 200 OK"
) -> bytes:
    """Return a response of these parts."""
    return start + b"\r\n" + fields + b"\r\n" + body


@frozen
class Outcome:
    """
    What has been read of a stream.

    :param error: the class and the message of what was raised.
    :param status: None before the head.
    """

    error: tuple[type[FetchError], str] | None = None
    status: int | None = None
    reason: str = ""
    pairs: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    complete: bool = False
    reusable: bool = False
    surplus: bytes = b""
    continued: bool = False


def read(
    pieces: Iterable[bytes], *, ends: str | None = None, stays: bool = False, **options: Any
) -> Outcome:
    """
    Read a stream in pieces.

    :param ends: why the connection ends; None for a clean end.
    :param stays: whether the connection does not end.
    :param options: those of the reader; Any: they have several types.
    """
    reader = ResponseReader(**options)
    error = None
    body = []
    try:
        for piece in pieces:
            more = reader.feed(piece)
            body += reader.take_body()
            while more:
                more = reader.advance()
                body += reader.take_body()
        if not stays:
            before = reader.reusable
            reader.end(ends)
    except FetchError as raised:
        error = (type(raised), str(raised))
        before = False
    body += reader.take_body()
    head = reader.head
    return Outcome(
        error,
        None if head is None else head.status,
        "" if head is None else head.reason,
        () if head is None else head.fields.pairs,
        b"".join(body),
        reader.complete,
        reader.reusable if stays else before,
        reader.surplus,
        reader.continued,
    )


def cuts(stream: bytes) -> Iterator[list[bytes]]:
    """Yield a stream in one piece, in two in every way, and in pieces of some sizes."""
    yield [stream]
    for i in range(1, len(stream)):
        yield [stream[:i], stream[i:]]
    for size in (1, 2, 3, 7):
        yield [stream[i : i + size] for i in range(0, len(stream), size)]
