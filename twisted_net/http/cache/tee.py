"""A body that is stored while it is read."""

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


class Recording(Protocol):
    """
    Takes a body from its source, keeps it, and hands it to a reader at the reader's own pace.

    A reader who pauses does not hold up the body while it is kept, since its bytes have a place
    anyway; once it is too large for the store, they have none, and a reader who pauses holds it
    up as ever. The bytes are in memory once: the reader is given the very chunks that are kept.

    :param keep: is given the whole body, or what came of it and False, once it has ended.
    :param fits: says whether a body of so many bytes may be kept.
    :param wanted: says whether it is to be read to its end although its reader has left.
    :param over: is called once it is stored, or known not to be.
    :ivar left: its reader has left.
    """

    def __init__(
        self,
        response: IResponse,
        *,
        keep: Callable[[bytes, bool], None],
        fits: Callable[[int], bool],
        wanted: Callable[[], bool],
        over: Callable[[], None],
    ) -> None:
        self._response = response
        self._keep = keep
        self._fits = fits
        self._wanted = wanted
        self._over = over
        self._receiver: IProtocol | None = None
        self._started = self._keeping = False
        self._held_up = self._paused = self.left = False
        self._chunks: list[bytes] = []
        self._given = 0
        self._total = 0
        self._end: Failure | None = None

    def pull(self) -> None:
        """Read on, whether there is a reader or not; the second time, nothing."""
        if not self._started:
            self._started = self._keeping = True
            self._response.deliverBody(self)

    def deliver(self, receiver: IProtocol) -> None:
        """Hand the body to *receiver*, as ``IResponse.deliverBody`` does."""
        self._receiver = receiver
        receiver.makeConnection(cast(ITransport, _Reading(self)))
        self.pull()
        self._give()

    def abort(self) -> None:
        """End it here; what came is kept if it is of use."""
        self.left = True
        if not self._started:
            self._started = True
            self._response.deliverBody(self)
        transport = self.transport
        if self._end is None and transport is not None:
            cast(BodyTransport, transport).abortConnection()

    def leave(self) -> None:
        """Let the reader go; the body goes on only if others wait for it."""
        self.left = True
        if self._keeping and self._wanted() and self._end is None:
            receiver, self._receiver = self._receiver, None
            if receiver is not None:
                receiver.connectionLost(Failure(ConnectionBroken("body", "its reader has left")))
            return
        self.abort()

    def pause(self, paused: bool) -> None:
        """Note that the reader wants no bytes, or wants them again."""
        self._paused = paused
        if not paused:
            self._give()

    @override
    def dataReceived(self, data: bytes) -> None:
        self._total += len(data)
        self._chunks.append(data)
        if self._keeping and not self._fits(self._total):
            self._keeping = False
            self._over()
            if self.left:
                self.abort()
        self._give()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end = reason
        if self._keeping:
            self._keeping = False
            # Of a body that ends with its connection nobody knows whether it is whole.
            self._keep(b"".join(self._chunks), reason.check(ResponseDone) is not None)
        self._over()
        self._give()

    def _give(self) -> None:
        """Hand on what the reader has not had, as far as it wants it."""
        while self._receiver is not None and not self._paused and self._given < len(self._chunks):
            self._given += 1
            self._receiver.dataReceived(self._chunks[self._given - 1])
        if not self._keeping and self._given:
            del self._chunks[: self._given]
            self._given = 0
        behind = self._given < len(self._chunks)
        if self._end is not None:
            if not behind and self._receiver is not None:
                receiver, self._receiver = self._receiver, None
                receiver.connectionLost(self._end)
        elif (behind and not self._keeping) != self._held_up:
            self._held_up = not self._held_up
            transport = cast(BodyTransport, self.transport)
            (transport.pauseProducing if self._held_up else transport.resumeProducing)()


class _Reading(BodyTransport):
    """What the reader of a recorded body may do to it."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(None, recording.leave)
        self._recording = recording

    @override
    def pauseProducing(self) -> None:
        self._recording.pause(True)

    @override
    def resumeProducing(self) -> None:
        self._recording.pause(False)
