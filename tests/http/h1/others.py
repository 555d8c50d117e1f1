"""What other parsers make of a response: h11, and aiohttp's."""

from __future__ import annotations

from typing import Any

import h11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser
from attrs import frozen

from tests.http.h1.streams import read


@frozen
class Verdict:
    """
    What a parser has made of a stream that answers a GET and then ends.

    :param status: of a response that is complete; None if it is malformed or cut.
    :param error: why it is not complete.
    """

    status: int | None = None
    body: bytes = b""
    error: str = ""

    def agrees(self, other: Verdict) -> bool:
        """Whether two parsers have made the same of it."""
        return (self.status, self.body) == (other.status, other.body)


def ours(*pieces: bytes) -> Verdict:
    """Return the verdict of our reader."""
    outcome = read(pieces, max_body=2**30)
    if outcome.error is not None:
        return Verdict(error=outcome.error[1])
    return Verdict(outcome.status, outcome.body)


def of_h11(stream: bytes) -> Verdict:
    """Return the verdict of h11."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    status, body = None, b""
    try:
        for piece in (stream, b""):
            connection.receive_data(piece)
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return Verdict(status, body)
                elif isinstance(event, h11.ConnectionClosed):
                    return Verdict(error="the connection was closed")
    except h11.RemoteProtocolError as error:
        return Verdict(error=str(error))
    return Verdict(error="more data is needed")


def of_aiohttp(stream: bytes) -> Verdict:
    """Return the verdict of aiohttp's parser, which the bytes reach one by one."""
    loop: Any = _Loop()  # Any: a loop, as far as it is used
    parser: Any = HttpResponseParser(  # Any: of Cython
        BaseProtocol(loop),
        loop,
        2**30,
        max_line_size=2**16,
        max_field_size=2**16,
        max_headers=254,
        read_until_eof=True,
        auto_decompress=False,
    )
    found: Any = None  # Any: a message and its stream
    try:
        for i in range(len(stream)):
            messages, upgraded, _ = parser.feed_data(stream[i : i + 1])
            if upgraded:
                return Verdict(error="the protocol is switched")
            for message, content in messages:
                if message.code >= 200 or message.code == 101:
                    found = message, content
            if found is not None and found[1].is_eof():
                break
        else:
            parser.feed_eof()
    except (HttpProcessingError, ValueError, AssertionError) as error:
        return Verdict(error=repr(error))
    if found is None or not found[1].is_eof():
        return Verdict(error="more data is needed")
    if found[1].exception() is not None:
        return Verdict(error=repr(found[1].exception()))
    return Verdict(found[0].code, found[1].read_nowait(-1))


class _Loop:
    """An event loop, as far as a parser asks one."""

    def get_debug(self) -> bool:
        """Return whether it is being debugged."""
        return False
