"""A response whose body is read piece by piece, no faster than its reader takes it."""

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

AHEAD = 64 * 2**10
"""Bytes that are read ahead of the reader; with as many waiting, the server is not read."""


class StreamedResponse:
    """
    A response with its header, whose body comes as it is iterated over.

    ``async for piece in response`` gives the body, decompressed, in pieces of any size but 0. While
    nobody asks for the next piece, no more than :data:`AHEAD` bytes and what one read from the
    network holds are kept. Iterating raises a :class:`~twisted_net.errors.FetchError` where the
    body breaks off; what came before it has been given.

    :param method: of the last request, after redirects; :param url: likewise.
    :param age: seconds since the origin made or confirmed it, where it came from the cache.
    :param attempts: requests that went over the network.
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
        self._reader = _Reader()
        response.deliverBody(self._reader)

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
            piece = await self._reader.next()
            if not piece:
                return
            yield piece

    async def read(self) -> bytes:
        """Give the rest of the body."""
        return b"".join([piece async for piece in self])

    def close(self) -> None:
        """Let go of the rest of the body, and of the connection if there is any."""
        self._reader.close()


class _Reader(Protocol):
    """Keeps what has come until it is asked for."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._end: Failure | None = None
        self._asked: Deferred[bytes] | None = None

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._asked is not None:
            asked, self._asked = self._asked, None
            asked.callback(data)
            return
        self._pieces.append(data)
        self._held += len(data)
        if self._held >= AHEAD and not self._paused:
            self._paused = True
            self._source().pauseProducing()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end = reason
        if self._asked is not None:
            asked, self._asked = self._asked, None
            self._finish(asked)

    def next(self) -> Deferred[bytes]:
        """Give the next piece; b"" at the end. One reader at a time."""
        if self._asked is not None:
            raise RuntimeError("a body has one reader at a time")
        asked: Deferred[bytes] = Deferred(lambda _: self._forget())
        if self._pieces:
            piece = self._pieces.popleft()
            self._held -= len(piece)
            if self._paused and not self._pieces:
                self._paused = False
                if self._end is None:
                    self._source().resumeProducing()
            asked.callback(piece)
        elif self._end is not None:
            self._finish(asked)
        else:
            self._asked = asked
        return asked

    def close(self) -> None:
        """Drop the rest."""
        self._pieces.clear()
        if self._end is None:
            self._source().abortConnection()

    def _finish(self, asked: Deferred[bytes]) -> None:
        assert self._end is not None
        if is_complete(self._end):
            asked.callback(b"")
        else:
            asked.errback(Failure(self._end.value))

    def _forget(self) -> None:
        self._asked = None

    def _source(self) -> BodyTransport:
        # What delivers a body has given makeConnection one of these.
        return cast(BodyTransport, self.transport)
