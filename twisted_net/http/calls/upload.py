"""Request bodies that are sent once: from iterators, asynchronous iterators and files."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from twisted_net.config.type_checks import shown
from twisted_net.http.bodies import BytesProducer
from twisted_net.http.calls.http_request import encoded_text
from twisted_net.http.calls.outcomes import result_of, started

PIECE = 64 * 2**10
"""Bytes of a body that are read from a file, or sent from memory, at a time."""


class ReadableFile(Protocol):
    """A file: what has ``read(size)``."""

    def read(self, size: int, /) -> Any:  # Any: bytes, or text from a file of text
        """Return the next bytes; b"" at the end."""


@implementer(IBodyProducer)
class PieceProducer:
    """
    A request body from pieces, each taken when the connection can take it.

    Pieces are bytes, or text, which is sent as UTF-8. It is sent once. An exception of the
    iterator ends the request, and is raised by its call.

    :param pieces: an iterable or an asynchronous one; its iterator is closed if it is not used up.
    :param length: bytes in all; None if that is not known: the body is then sent in chunks
        (RFC 9112 §7.1).
    """

    def __init__(
        self, pieces: Iterable[object] | AsyncIterable[object], length: int | None = None
    ) -> None:
        self.length: Any = UNKNOWN_LENGTH if length is None else length  # Any: as Twisted has it
        self._pieces = pieces
        self._resumed: Deferred[None] | None = None
        self._paused = False
        self._sending: Deferred[None] | None = None
        self._stopped = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        if self._stopped:
            return Deferred()
        sending = self._sending = started(self._send(consumer))
        # After stopProducing it is not to fire (IBodyProducer).
        done: Deferred[None] = Deferred(lambda _: sending.cancel())

        def ended(outcome: Any) -> None:  # Any: None or a Failure
            if not self._stopped:
                done.callback(outcome)

        sending.addBoth(ended)
        return done

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if self._resumed is not None:
            resumed, self._resumed = self._resumed, None
            resumed.callback(None)

    def stopProducing(self) -> None:
        self._stopped = True
        if self._sending is not None:
            self._sending.cancel()

    async def _send(self, consumer: IConsumer) -> None:
        pieces = _pieces(self._pieces)
        sent = 0
        try:
            async for piece in pieces:
                sent += len(piece)
                if self.length is not UNKNOWN_LENGTH and sent > self.length:
                    raise ValueError("data: the file has grown while it was sent")
                # An empty chunk would be the end of the body.
                if piece:
                    consumer.write(piece)
                if self._paused:
                    await self._resume()
            if self.length is not UNKNOWN_LENGTH and sent < self.length:
                raise ValueError("data: the file has shrunk while it was sent")
        finally:
            await pieces.aclose()

    async def _resume(self) -> None:
        self._resumed = Deferred(lambda _: setattr(self, "_resumed", None))
        await result_of(self._resumed)


def in_pieces(body: IBodyProducer) -> IBodyProducer:
    """
    Return what sends a body in one attempt.

    A large one in memory is sent as the server takes it, since a time limit is for its silence and
    not for the whole, and since progress is to be seen.
    """
    if type(body) is not BytesProducer or body.length <= PIECE:
        return body
    content = body.content
    cut = (content[at : at + PIECE] for at in range(0, len(content), PIECE))
    return PieceProducer(cut, len(content))


async def _pieces(pieces: Iterable[object] | AsyncIterable[object]) -> Any:  # Any: see below
    """Yield the pieces as bytes; an asynchronous generator, which mypy would call an iterator."""
    if isinstance(pieces, AsyncIterable):
        source: AsyncIterator[object] = aiter(pieces)
        try:
            async for piece in source:
                yield _encoded(piece)
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()
        return
    iterator: Iterator[object] = iter(pieces)
    try:
        for piece in iterator:
            yield _encoded(piece)
    finally:
        closing = getattr(iterator, "close", None)
        if closing is not None:
            closing()


def _encoded(piece: object) -> bytes:
    if isinstance(piece, str):
        return encoded_text(piece, "data: a piece")
    if isinstance(piece, bytes | bytearray | memoryview):
        return bytes(piece)
    raise TypeError(f"data: its pieces must be bytes or text, not {shown(piece)}")


def check_readable(file: object, label: str) -> None:
    """
    Check that a file can be read, as far as it says so itself.

    :param label: what it is, for messages.
    :raises ValueError: for one that is closed, or open for writing only.
    """
    if getattr(file, "closed", False) is True:
        raise ValueError(f"{label} is a closed file")
    # Of Python's own files only: others may have a read() and say nothing of it.
    if isinstance(file, io.FileIO | io.BufferedWriter | io.TextIOWrapper) and not file.readable():
        raise ValueError(f"{label} is a file that is not open for reading")


def file_pieces(file: ReadableFile) -> Iterator[object]:
    """Iterate over the rest of a file, in pieces of at most :data:`PIECE` bytes."""
    while piece := file.read(PIECE):
        yield piece


def file_length(file: Any) -> int | None:  # Any: a file of any kind
    """Return the bytes that are left in a file; None where that cannot be known."""
    try:
        at = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(at)
    except (OSError, AttributeError, ValueError):
        # A pipe, or what has only read().
        return None
    # A file of text is read as characters: its bytes are not counted.
    return None if hasattr(file, "encoding") or not isinstance(end, int) else end - at


@implementer(IBodyProducer)
class CountedProducer:
    """
    Another producer, whose bytes are counted.

    :param sent: called with the bytes sent so far, after each piece.
    """

    def __init__(self, producer: IBodyProducer, sent: Callable[[int], None]) -> None:
        self.length = producer.length
        self._producer = in_pieces(producer)
        self._sent = sent

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        counting: Any = _CountingConsumer(consumer, self._sent)  # Any: not of Twisted's classes
        started: Deferred[None] = self._producer.startProducing(counting)
        return started

    def pauseProducing(self) -> None:
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        self._producer.stopProducing()


@implementer(IConsumer)
class _CountingConsumer:
    def __init__(self, consumer: IConsumer, sent: Callable[[int], None]) -> None:
        self._consumer = consumer
        self._sent = sent
        self._total = 0

    def write(self, data: bytes) -> None:
        self._consumer.write(data)
        self._total += len(data)
        self._sent(self._total)

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # Any: as IConsumer
        self._consumer.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._consumer.unregisterProducer()
