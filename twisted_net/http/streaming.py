"""Streamed response: its body is an asynchronous iterator, with backpressure to the server."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from typing_extensions import override

from twisted_net.config.type_checks import shown
from twisted_net.http.bodies import BodyTransport, is_complete
from twisted_net.http.calls.lines import MAX_LINE, LineDecoder
from twisted_net.http.calls.outcomes import result_of
from twisted_net.http.calls.server_sent_events import MAX_EVENT, EventParser, ServerSentEvent
from twisted_net.http.calls.synonyms import STREAM_SYNONYMS, with_synonyms
from twisted_net.http.errors import BadStatus, BodyMismatch
from twisted_net.http.fields import HeaderFields
from twisted_net.http.response import NO_TRACE, AnyResponse, Trace, checked_codec
from twisted_net.net.characters import printable
from twisted_net.net.redaction import redact_url
from twisted_net.turns.paced_reads import Pace
from twisted_net.turns.turn_scheduler import next_turn

SLICE = 1024
"""Bytes that are parsed at a time: each may be a line of its own, which takes a microsecond."""

TURN_TIME = 0.001
"""Seconds of parsing after which others have their turns of the reactor."""

READ_AHEAD = 64 * 2**10
"""Bytes buffered for the reader. While the buffer is full, the server is not read."""


@with_synonyms(STREAM_SYNONYMS)
class StreamedResponse(AnyResponse):
    """
    A response with its header, whose body is read by iteration.

    ``async for piece in response`` yields the body, decompressed, in pieces of at least one byte.
    While the reader does not ask for the next piece, at most :data:`READ_AHEAD` bytes and those of
    one read from the network are buffered. A body that breaks off raises a
    :class:`~twisted_net.errors.FetchError`, after the bytes that came before; reading after
    :meth:`close` raises a ``RuntimeError``.

    :param method: of the last request, after redirects.
    :param url: of the last request.
    :param age: seconds since the origin sent or validated it, if it comes from the cache.
    :param attempts: requests that this call made over the network.
    :param pace: the turns in which lines and events are parsed; None to parse without a pause.
    """

    def __init__(
        self,
        response: IResponse,
        *,
        method: str,
        url: str,
        headers: HeaderFields,
        attempts: int,
        age: float | None,
        trace: Trace = NO_TRACE,
        pace: Pace | None = None,
    ) -> None:
        self.method = method
        self.url = url
        self.status: int = response.code
        self.reason = response.phrase.decode("latin-1")
        self.headers = headers
        self.attempts = attempts
        self.age = age
        self.trace = trace
        self._pace = pace
        self._buffer = _BodyBuffer()
        response.deliverBody(self._buffer)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            piece = await result_of(self._buffer.next())
            if not piece:
                return
            yield piece

    async def _slices(self) -> AsyncIterator[bytes]:
        """Iterate over the body in small pieces; where they take long, others have their turns."""
        pace = self._pace
        began = 0.0 if pace is None else pace.seconds()
        async for piece in self:
            for data in slices(piece):
                yield data
                if pace is not None and pace.seconds() - began >= TURN_TIME:
                    await result_of(next_turn(pace.turns))
                    began = pace.seconds()

    async def read(self) -> bytes:
        """Read the rest of the body."""
        return b"".join([piece async for piece in self])

    async def iter_lines(
        self, *, encoding: str | None = None, max_line: int = MAX_LINE
    ) -> AsyncIterator[str]:
        """
        Iterate over the lines of the body as text, without their ends.

        A line ends with a line feed, with or without a carriage return before it. Bytes that cannot
        be decoded become U+FFFD.

        :param encoding: a charset of the web; None for :attr:`encoding`, before which a byte order
            mark decides.
        :param max_line: limit of the characters of a line.
        :raises BodyItemTooLong: for a line over the limit; the lines before it come first.
        :raises TypeError, ValueError: for another charset, or a limit that is none.
        """
        checked_limit(max_line, "max_line")
        codec = self.encoding if encoding is None else checked_codec(encoding)
        lines = LineDecoder(codec, max_line, by_mark=encoding is None)
        async for piece in self._slices():
            for line in lines.feed(piece):
                yield line
        for line in lines.feed(b"", final=True):
            yield line

    async def events(self, *, max_event: int = MAX_EVENT) -> AsyncIterator[ServerSentEvent]:
        """
        Iterate over the server-sent events of the body (WHATWG HTML §9.2), until it ends.

        It does not connect again. Pass ``timeout=None`` for a stream that lasts, and
        ``headers={"Accept": "text/event-stream"}``; ``silence`` of :class:`Timeouts` ends one
        that says nothing, and ``max_body`` one that has said too much.

        :param max_event: limit of the bytes of an event.
        :raises BadStatus: for any status but 200 to 299.
        :raises BodyMismatch: for a content type other than ``text/event-stream``.
        :raises BodyItemTooLong: for an event over the limit; the events before it come first.
        :raises TypeError, ValueError: for a limit that is none.
        """
        checked_limit(max_event, "max_event")
        self.raise_for_status()
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            raise BodyMismatch(
                f"the body from {redact_url(self.url)} is of type {printable(kind) or 'none'}, not"
                " text/event-stream"
            )
        parser = EventParser(max_event)
        async for piece in self._slices():
            for event in parser.feed(piece):
                yield event

    def raise_for_status(self) -> StreamedResponse:
        """
        Return this response if its status is one of success.

        :raises BadStatus: for any status but 200 to 299; without an excerpt of the body.
        """
        if self.ok:
            return self
        raise BadStatus(self.status, self.reason, redact_url(self.url), self.headers, "")

    def close(self) -> None:
        """Drop the rest of the body, and its connection if there is one."""
        self._buffer.close()


class _BodyBuffer(Protocol):
    """Buffers the body until it is read."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._end: Failure | None = None
        self._reading: Deferred[bytes] | None = None
        self._closed = False

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._reading is not None:
            reading, self._reading = self._reading, None
            reading.callback(data)
            return
        self._pieces.append(data)
        self._buffered += len(data)
        if self._buffered >= READ_AHEAD and not self._paused:
            self._paused = True
            self._source().pauseProducing()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end = reason
        if self._reading is not None:
            reading, self._reading = self._reading, None
            self._finish(reading)

    def next(self) -> Deferred[bytes]:
        """Return the next piece; b"" at the end. One reader at a time."""
        if self._reading is not None:
            raise RuntimeError("a body has one reader at a time")
        if self._closed:
            # Not the end of the body: the rest was dropped.
            raise RuntimeError("the response is closed: read its body within the async with")
        reading: Deferred[bytes] = Deferred(lambda _: self._cancel())
        if self._pieces:
            piece = self._pieces.popleft()
            self._buffered -= len(piece)
            if self._paused and not self._pieces:
                self._paused = False
                if self._end is None:
                    self._source().resumeProducing()
            reading.callback(piece)
        elif self._end is not None:
            self._finish(reading)
        else:
            self._reading = reading
        return reading

    def close(self) -> None:
        """Drop the rest."""
        self._closed = True
        self._pieces.clear()
        if self._end is None:
            self._source().abortConnection()

    def _finish(self, reading: Deferred[bytes]) -> None:
        assert self._end is not None
        if is_complete(self._end):
            reading.callback(b"")
        else:
            reading.errback(Failure(self._end.value))

    def _cancel(self) -> None:
        self._reading = None

    def _source(self) -> BodyTransport:
        # Every delivery of a body calls makeConnection with one of these.
        return cast(BodyTransport, self.transport)


def slices(piece: bytes) -> Iterator[bytes]:
    """Cut a piece of a body into what is parsed at a time."""
    return (piece[at : at + SLICE] for at in range(0, len(piece), SLICE))


def checked_limit(limit: int, name: str) -> None:
    """
    Check a limit that a caller passed.

    :raises TypeError: if it is no integer.
    :raises ValueError: if it is not 1 or more.
    """
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"{name} must be an integer, not {shown(limit)}")
    if limit < 1:
        raise ValueError(f"{name} must be 1 or more, not {limit}")
