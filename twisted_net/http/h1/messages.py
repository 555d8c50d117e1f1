"""
Responses of HTTP/1.1 from bytes (RFC 9112), however they are cut.

This is strict where readers that differ could take one response for another: in the end of the
head, the framing of the body, and what follows it. A response that it refuses is never cached, nor
is its connection used again. Requests are in ``requests.py``.
"""

from __future__ import annotations

from collections import deque

from twisted_net.errors import FetchError
from twisted_net.http.errors import BadResponse, BodyTooLarge, ConnectionBroken
from twisted_net.http.h1.chunked import LAST_CHUNK, ChunkedDecoder
from twisted_net.http.h1.heads import (
    CHUNKED,
    MAX_HEAD_LINES,
    UNTIL_CLOSE,
    HeadAssembler,
    ResponseHead,
    framed_head,
    parse_lines,
    parse_response_head,
)
from twisted_net.http.h1.plain_heads import plain_head

MAX_INTERIM_RESPONSES = 100
"""
Interim responses before a response.

A server may send a 102 from time to time while it works: at one in 20 s, as long as RFC 2518 §10.1
lets a client wait without one, these last half an hour.
"""

HEADS_PER_CALL = 16
"""Heads that one call reads: an interim response takes 5 us or more, so it is 0.1 ms of them."""

_UNLIMITED = 2**62
"""More bytes than any body has."""


def read_whole(data: bytes, max_head: int, max_body: int) -> tuple[ResponseHead, bytes] | None:
    """
    Return the head and the body of the response to a GET or POST, if that is all that was read.

    :param data: what was read first.
    :param max_head: bytes of the head, as for :class:`ResponseReader`.
    :param max_body: bytes of the body as it is sent.
    :return: None for a response that takes more to be read, as one that comes in pieces, follows
        an interim response, or has a trailer section; and for one with something behind it.
    :raises BadResponse: if it is wrong.
    :raises BodyTooLarge: if its chunks are too large.
    """
    end = data.find(b"\r\n\r\n") + 4
    # A plain one has few lines, and none that ends otherwise.
    plain = plain_head(data[:end]) if 4 <= end <= max_head else None
    if plain is not None:
        head = framed_head(*plain, strict=True, method="GET")
    else:
        end = _head_end(data, 0, max_head)
        if not end:
            return None
        head = parse_lines(data[:end], "GET")
    if head.status < 200:
        return None
    if head.length == CHUNKED:
        if not data.endswith(LAST_CHUNK):
            return None
        decoder, pieces = ChunkedDecoder(max_body, max_head), list[bytes]()
        end = decoder.decode(data, end, pieces)
        whole = decoder.complete and end == len(data)
        return (head, b"".join(pieces)) if whole else None
    if head.length != len(data) - end or head.length > max_body:
        return None
    return head, data[end:]


def _head_end(data: bytes, position: int, max_head: int) -> int:
    """
    Return where a head ends that begins at *position*; 0 if it has to be read line by line.

    Then it is incomplete, or too long, or an empty line ends with LF alone.
    """
    end = data.find(b"\n\r\n", position) + 3
    if (
        2 < end <= position + max_head
        and data.find(b"\n\n", position, end) < 0
        and data.count(b"\n", position, end) <= MAX_HEAD_LINES
    ):
        return end
    return 0


class ResponseReader:
    """
    Reads the response to one request.

    :meth:`feed` takes what the connection has read. It does a bounded amount of work; while it
    returns True, :meth:`advance` does more, and the connection should not be read: what it has read
    is kept. In between, :attr:`head` and :meth:`take_body` have what there is so far.

    After an error there is nothing more to read, and the connection must be closed; the parts of
    the body before it can still be taken. What is returned and raised does not depend on how the
    bytes are cut.

    :param method: of the request, in upper case.
    :param max_head: bytes of a head, and of a trailer section; of all interim responses, too.
    :param max_body: bytes of the body as it is sent; None for no limit.
    :param close: whether the request has ``Connection: close``.
    :ivar head: the head of the final response, or None before it.
    :ivar complete: whether the response has been read to its end.
    :ivar surplus: what was read after the response, and does not belong to it.
    :ivar continued: whether one of the interim responses so far was a 100.
    """

    __slots__ = (
        "_data",
        "_decoder",
        "_end",
        "_error",
        "_interim_bytes",
        "_interim_lines",
        "_interim_responses",
        "_left",
        "_length",
        "_max_body",
        "_max_head",
        "_method",
        "_open",
        "_partial",
        "_pieces",
        "_position",
        "_queue",
        "complete",
        "continued",
        "head",
        "surplus",
    )

    def __init__(
        self,
        method: str = "GET",
        *,
        max_head: int = 64 * 2**10,
        max_body: int | None = None,
        close: bool = False,
    ) -> None:
        self._method = method
        self._max_head = max_head
        self._max_body = max_body
        self._open = not close  # as far as is known
        self.head: ResponseHead | None = None
        self.complete = False
        self.surplus = b""
        self.continued = False
        self._interim_responses = self._interim_bytes = self._interim_lines = 0
        self._partial: HeadAssembler | None = None
        self._decoder: ChunkedDecoder | None = None
        self._length = 0  # of the body, as in its head
        self._left = 0  # bytes of a body that is not in chunks: to come, or that may come
        self._pieces: list[bytes] = []
        # What has come and was not read: all from the position on, and then the queue.
        self._data: bytes | None = None
        self._position = 0
        self._queue: deque[bytes] | None = None
        self._end: str | None = None  # why the connection ended, when it has; "" if cleanly
        self._error: FetchError | None = None

    @property
    def reusable(self) -> bool:
        """Whether the connection may be used for another request."""
        # What was not looked at yet does not belong to the response either.
        return self.complete and self._open and not self.surplus and self._data is None

    @property
    def phase(self) -> str:
        """What is to come, as errors name it: ``headers`` or ``body``."""
        return "headers" if self.head is None else "body"

    def take_body(self) -> list[bytes]:
        """Return the parts of the body that were read since the last call, oldest first."""
        pieces = self._pieces
        self._pieces = []
        return pieces

    def feed(self, data: bytes) -> bool:
        """
        Take the next bytes of the connection, and read some of them.

        :return: whether :meth:`advance` has more to do.
        :raises BadResponse: if they are no response, or one that may be taken for another.
        :raises BodyTooLarge: if the body is to become larger than its limit.
        """
        if self._error is not None:
            raise self._error
        if self._data is None:
            return self._go_on(data, 0)
        if self._queue is None:
            self._queue = deque()
        self._queue.append(data)
        return True

    def advance(self) -> bool:
        """
        Go on with what :meth:`feed` has left, as it does.

        :return: whether there is still more to do.
        :raises ConnectionBroken: as :meth:`end`, where that had to wait.
        """
        if self._error is not None:
            raise self._error
        return self._data is not None and self._go_on(self._data, self._position)

    def end(self, reason: str | None = None) -> bool:
        """
        Note that nothing more comes, since the connection has ended.

        :param reason: why; None if the server closed it cleanly, which alone ends a body without a
            length. Over TLS that takes a close_notify (RFC 9112 §9.8).
        :return: whether :meth:`advance` has more to do.
        :raises BadResponse: if what has come does not begin as a response does.
        :raises ConnectionBroken: if the response is not complete.
        """
        if self._error is not None:
            raise self._error
        self._end = reason or ""
        self._open = False
        if self._data is None:
            self._finish()
        return self._data is not None

    def _go_on(self, data: bytes, position: int) -> bool:
        """Read some bytes from *position* on, keep the others, and return whether there are any."""
        try:
            if self.head is None:
                position = self._read_heads(data, position)
            if self.head is not None and position < len(data):
                position = self._read_body(data, position)
        except FetchError as error:
            self._error = error
            raise
        if position < len(data):
            self._data, self._position = data, position
            return True
        self._data = None
        if self._queue:
            self._data, self._position = self._queue.popleft(), 0
            return True
        if self._end is not None:
            self._finish()
        return False

    def _read_heads(self, data: bytes, position: int) -> int:
        """Read heads up to the final one, and return where the last one ends."""
        for _ in range(HEADS_PER_CALL):
            section = None
            if self._partial is None:
                end = _head_end(data, position, self._max_head)
                if end:
                    section, position = data[position:end], end
            if section is None:
                section, position = self._read_partial_head(data, position)
                if section is None:
                    break
            head = parse_response_head(section, self._method)
            if not head.persistent:
                self._open = False
            if head.status >= 200:
                self._begin_body(head)
                break
            self._note_interim(head, section)
        return position

    def _read_partial_head(self, data: bytes, position: int) -> tuple[bytes | None, int]:
        """Read a head that comes in pieces; return it if it is complete, and where that ends."""
        if self._partial is None:
            self._partial = HeadAssembler(self._max_head)
        section, position = self._partial.take(data, position)
        if section is not None:
            self._partial = None
        return section, position

    def _note_interim(self, head: ResponseHead, section: bytes) -> None:
        """Check an interim response, and count it."""
        if head.status == 101:
            raise BadResponse("it switches protocols, which was not asked for")
        if head.status == 100:
            self.continued = True
        self._interim_responses += 1
        self._interim_bytes += len(section)
        self._interim_lines += section.count(b"\n")
        if self._interim_responses > MAX_INTERIM_RESPONSES:
            raise BadResponse(f"more than {MAX_INTERIM_RESPONSES} interim responses precede it")
        if self._interim_bytes > self._max_head:
            raise BadResponse(f"its interim responses are larger than {self._max_head} bytes")
        if self._interim_lines > MAX_HEAD_LINES:
            raise BadResponse(f"its interim responses have more than {MAX_HEAD_LINES} lines")

    def _begin_body(self, head: ResponseHead) -> None:
        self.head = head
        self._length = length = head.length
        if length == 0:
            self.complete = True
            if self._method == "CONNECT" and 200 <= head.status < 300:
                self._open = False  # what follows is no HTTP
        elif length == CHUNKED:
            self._decoder = ChunkedDecoder(self._max_body, self._max_head)
        elif length == UNTIL_CLOSE:
            self._left = _UNLIMITED if self._max_body is None else self._max_body
        elif self._max_body is not None and length > self._max_body:
            raise BodyTooLarge(self._max_body)
        else:
            self._left = length

    def _read_body(self, data: bytes, position: int) -> int:
        """Read a part of the body, and what follows it; return up to where."""
        size = len(data)
        if not self.complete:
            if self._decoder is not None:
                position = self._decoder.decode(data, position, self._pieces)
                self.complete = self._decoder.complete
                if not self.complete:
                    return position
            else:
                end = position + self._left
                if self._left:
                    self._pieces.append(data[position:end])
                self._left = max(end - size, 0)
                if end > size:
                    return size
                if self._length == UNTIL_CLOSE:
                    if end < size:
                        raise BodyTooLarge(self._max_body or 0)
                    return size
                self.complete = True
                position = end
        if position < size:
            self.surplus += data[position:]
        return size

    def _finish(self) -> None:
        """Complete a body that ends with the connection; anything else is broken."""
        if self.complete:
            return
        try:
            if self.head is None:
                if self._partial is not None:
                    self._partial.end()
            elif self._length == UNTIL_CLOSE and not self._end:
                self.complete = True
                return
            reason = self._end or "the server closed it"
            raise ConnectionBroken(self.phase, f"{reason} {self._progress()}")
        except FetchError as error:
            self._error = error
            raise

    def _progress(self) -> str:
        """Return how far the response has come."""
        if self.head is None:
            if self._partial:
                return f"within a header, after {len(self._partial)} bytes of it"
            return "before the response"
        if self._length > 0:
            return f"after {self._length - self._left} of {self._length} bytes"
        return "before the last chunk" if self._decoder is not None else "within the body"
