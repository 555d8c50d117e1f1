"""Streamed response: its body is an asynchronous iterator, with backpressure to the server."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from typing_extensions import override

from twisted_net.http.bodies import BodyTransport, is_complete
from twisted_net.http.fields import HeaderFields

READ_AHEAD = 64 * 2**10
"""Bytes buffered for the reader. While the buffer is full, the server is not read."""


class StreamedResponse:
    """
    A response with its header, whose body is read by iteration.

    ``async for piece in response`` yields the body, decompressed, in pieces of at least one byte.
    While the reader does not ask for the next piece, at most :data:`READ_AHEAD` bytes and those of
    one read from the network are buffered. A body that breaks off raises a
    :class:`~twisted_net.errors.FetchError`, after the bytes that came before.

    :param method: of the last request, after redirects.
    :param url: of the last request.
    :param age: seconds since the origin sent or validated it, if it comes from the cache.
    :param attempts: requests that this call made over the network.
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
    ) -> None:
        self.method = method
        self.url = url
        self.status: int = response.code
        self.reason = response.phrase.decode("latin-1")
        self.headers = headers
        self.attempts = attempts
        self.age = age
        self._buffer = _BodyBuffer()
        response.deliverBody(self._buffer)

    @property
    def from_cache(self) -> bool:
        """Whether the body comes from the cache."""
        return self.age is not None

    @property
    def ok(self) -> bool:
        """Whether the status is one of success, 200 to 299."""
        return 200 <= self.status < 300

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            piece = await self._buffer.next()
            if not piece:
                return
            yield piece

    async def read(self) -> bytes:
        """Read the rest of the body."""
        return b"".join([piece async for piece in self])

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
