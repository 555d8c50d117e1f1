"""Tee of a response body: stores it while its reader receives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.interfaces import IProtocol, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import IResponse
from typing_extensions import override

from twisted_net.http.bodies import BodyTransport
from twisted_net.http.errors import ConnectionBroken


class BodyTee(Protocol):
    """
    Receives a body, collects it for the store, and delivers it to a reader at the reader's pace.

    While the body is collected, a reader that pauses does not pause the source, since the bytes
    are kept anyway. Once the body is too large for the store, they are not, and a reader that
    pauses pauses the source as usual. The bytes are in memory once: the reader gets the same
    chunks that are collected.

    :param store: called at the end of a collected body with its bytes and whether it is complete.
    :param fits: returns whether a body of so many bytes may be stored.
    :param has_waiters: returns whether to read the body to its end after its reader has left.
    :param on_end: called once the body is stored, or known not to be.
    :ivar reader_left: whether its reader has left.
    """

    def __init__(
        self,
        response: IResponse,
        *,
        store: Callable[[bytes, bool], None],
        fits: Callable[[int], bool],
        has_waiters: Callable[[], bool],
        on_end: Callable[[], None],
    ) -> None:
        self._response = response
        self._store = store
        self._fits = fits
        self._has_waiters = has_waiters
        self._on_end = on_end
        self._reader: IProtocol | None = None
        self._started = self._collecting = False
        self._source_paused = self._reader_paused = self.reader_left = False
        self._chunks: list[bytes] = []
        self._delivered = 0
        self._length = 0
        self._end: Failure | None = None

    def start(self) -> None:
        """Receive the body, whether there is a reader or not; once started, do nothing."""
        if not self._started:
            self._started = self._collecting = True
            self._response.deliverBody(self)

    def deliver(self, reader: IProtocol) -> None:
        """Deliver the body to *reader*, as ``IResponse.deliverBody`` does."""
        self._reader = reader
        reader.makeConnection(cast(ITransport, _TeeTransport(self)))
        self.start()
        self._flush()

    def abort(self) -> None:
        """End the body here; the bytes received so far are stored if they are of use."""
        self.reader_left = True
        if not self._started:
            self._started = True
            self._response.deliverBody(self)
        transport = self.transport
        if self._end is None and transport is not None:
            cast(BodyTransport, transport).abortConnection()

    def detach_reader(self) -> None:
        """Disconnect the reader; the body goes on only if others wait for it."""
        self.reader_left = True
        if self._collecting and self._has_waiters() and self._end is None:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.connectionLost(Failure(ConnectionBroken("body", "its reader has left")))
            return
        self.abort()

    def pause(self, paused: bool) -> None:
        """Pause or resume the delivery to the reader."""
        self._reader_paused = paused
        if not paused:
            self._flush()

    @override
    def dataReceived(self, data: bytes) -> None:
        self._length += len(data)
        self._chunks.append(data)
        if self._collecting and not self._fits(self._length):
            self._collecting = False
            self._on_end()
            if self.reader_left:
                self.abort()
        self._flush()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end = reason
        if self._collecting:
            self._collecting = False
            # PotentialDataLoss: a body that ends with its connection may be incomplete.
            self._store(b"".join(self._chunks), reason.check(ResponseDone) is not None)
        self._on_end()
        # They may refer to what refers to this.
        del self._store, self._has_waiters, self._on_end
        self._flush()

    def _flush(self) -> None:
        """Deliver the chunks that the reader has not received, until it pauses."""
        while (
            self._reader is not None
            and not self._reader_paused
            and self._delivered < len(self._chunks)
        ):
            self._delivered += 1
            self._reader.dataReceived(self._chunks[self._delivered - 1])
        if not self._collecting and self._delivered:
            del self._chunks[: self._delivered]
            self._delivered = 0
        behind = self._delivered < len(self._chunks)
        if self._end is not None:
            if not behind and self._reader is not None:
                reader, self._reader = self._reader, None
                reader.connectionLost(self._end)
        elif (behind and not self._collecting) != self._source_paused:
            self._source_paused = not self._source_paused
            transport = cast(BodyTransport, self.transport)
            (transport.pauseProducing if self._source_paused else transport.resumeProducing)()


class _TeeTransport(BodyTransport):
    """The transport of the reader of a :class:`BodyTee`."""

    def __init__(self, tee: BodyTee) -> None:
        super().__init__(None, tee.detach_reader)
        self._tee = tee

    @override
    def pauseProducing(self) -> None:
        self._tee.pause(True)

    @override
    def resumeProducing(self) -> None:
        self._tee.pause(False)
