"""Bodies on their way: sent again, watched, decompressed, and read whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IDelayedCall, IProtocol, IReactorTime, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IClientRequest, IResponse
from typing_extensions import override
from zope.interface import implementer

from twisted_net.errors import FetchError
from twisted_net.http.errors import BadResponse, BodyTooLarge, FetchTimeout
from twisted_net.http.fields import HeaderFields
from twisted_net.http.whole_response import Whole

_HTTP_1_1 = (b"HTTP", 1, 1)

CHUNK = 64 * 2**10
"""Bytes that are decompressed at a time."""


@frozen(slots=True)
class Deadline:
    """
    The end of the time for a whole call.

    :param at: by the reactor's clock.
    :param total: the seconds that were allowed, for the message when they are over.
    """

    at: float
    total: float

    def exceeded(self, phase: str) -> FetchTimeout:
        """Give the error for a call that is over time."""
        return FetchTimeout(phase, self.total, total=True)


@implementer(IBodyProducer)
class BytesProducer:
    """A request body that is all there, and so can be sent as often as needed."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing to pause: all was written at once."""

    def resumeProducing(self) -> None:
        """Nothing to resume."""

    def stopProducing(self) -> None:
        """Nothing to stop."""


def body_producer(data: Any) -> IBodyProducer:  # Any: whatever has an adapter to IBodyProducer
    """
    Give what produces *data* as a request body: :class:`BytesProducer` for bytes.

    treq's own producer for bytes runs on the global reactor, and only once.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        return BytesProducer(bytes(data))
    return IBodyProducer(data)


@implementer(IResponse)
class BodyResponse:
    """
    A response whose body comes by way of a function.

    :param deliver: called once, with the protocol that is to have the body.
    """

    def __init__(
        self,
        version: tuple[bytes, int, int],
        code: int,
        phrase: bytes,
        headers: Headers,
        length: Any,  # Any: a number, or Twisted's UNKNOWN_LENGTH, which is a str
        request: IClientRequest | None,
        deliver: Callable[[IProtocol], None],
    ) -> None:
        self.version = version
        self.code = code
        self.phrase = phrase
        self.headers = headers
        self.length = length
        self.request = request
        self.previousResponse: IResponse | None = None
        self._deliver = deliver

    @classmethod
    def like(
        cls,
        response: IResponse,
        deliver: Callable[[IProtocol], None],
        *,
        headers: Headers | None = None,
        length: Any = None,  # Any: as above
    ) -> BodyResponse:
        """Give *response* with another body, and as told with another header or length."""
        made = cls(
            response.version,
            response.code,
            response.phrase,
            response.headers if headers is None else headers,
            response.length if length is None else length,
            response.request,
            deliver,
        )
        made.previousResponse = response.previousResponse
        return made

    def deliverBody(self, protocol: IProtocol) -> None:
        self._deliver(protocol)

    def setPreviousResponse(self, response: IResponse) -> None:
        self.previousResponse = response


class BufferedResponse(BodyResponse):
    """A response whose body came with it; :attr:`body` is all of it."""

    def __init__(self, whole: Whole) -> None:
        headers = Headers()
        for name, value in whole.fields:
            headers.addRawHeader(name, value)
        self.body = whole.body
        BodyResponse.__init__(
            self,
            _HTTP_1_1,
            whole.code,
            whole.phrase,
            headers,
            len(whole.body),
            None,
            deliver_bytes(whole.body),
        )


def buffered_response(code: int, phrase: bytes, headers: Headers, body: bytes) -> BodyResponse:
    """Give a response that was not on a wire, or is not as it was there."""
    return BodyResponse(_HTTP_1_1, code, phrase, headers, len(body), None, deliver_bytes(body))


def header_fields(headers: Headers) -> HeaderFields:
    """Give the fields of a header."""
    return HeaderFields(
        (name, value) for name, values in headers.getAllRawHeaders() for value in values
    )


def response_fields(response: IResponse) -> HeaderFields:
    """Give the header fields of a response."""
    return header_fields(response.headers)


def deliver_bytes(body: bytes, reason: Failure | None = None) -> Callable[[IProtocol], None]:
    """Give a function that delivers *body* at once, and then *reason*: by default, all is there."""

    def deliver(protocol: IProtocol) -> None:
        protocol.makeConnection(cast(ITransport, BodyTransport(None, lambda: None)))
        if body:
            protocol.dataReceived(body)
        protocol.connectionLost(reason or Failure(ResponseDone("all of it was at hand")))

    return deliver


class BodyTransport:
    """
    What the receiver of a body may do to its source: pause, resume and end it.

    :param source: the transport that Twisted delivers the body with; None where all is at hand.
    :param abort: drops the connection.
    """

    disconnecting = False

    def __init__(self, source: Any, abort: Callable[[], None]) -> None:  # Any: no interface has it
        self._source = source
        self.abortConnection = abort
        self.loseConnection = abort
        self.stopProducing = abort

    def pauseProducing(self) -> None:
        if self._source is not None:
            self._source.pauseProducing()

    def resumeProducing(self) -> None:
        if self._source is not None:
            self._source.resumeProducing()


def is_complete(reason: Failure) -> bool:
    """Say whether a body that ended for *reason* is all there, as far as HTTP can tell."""
    return reason.check(ResponseDone, PotentialDataLoss) is not None


class BodyRelay(Protocol):
    """Hands a body on to *receiver*; once :meth:`fail` was called, nothing more."""

    def __init__(self, receiver: IProtocol) -> None:
        self._receiver = receiver
        self._over = False

    @override
    def connectionMade(self) -> None:
        self._receiver.makeConnection(cast(ITransport, self.transport))

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.finish(reason)

    def finish(self, reason: Failure) -> None:
        """Tell the receiver how the body ended, the first time that it does."""
        if not self._over:
            self._over = True
            self._receiver.connectionLost(reason)

    def fail(self, error: FetchError) -> None:
        """End the body with *error*, and the connection with it."""
        self.finish(Failure(error))
        cast(BodyTransport, self.transport).abortConnection()


class BodyWatchdog:
    """
    Holds a response to its limits, from its header to the end of its body.

    The time runs from the start, so that a response whose body nobody asks for ends too. While the
    receiver has paused the body, silence is not held against the server.

    :param abort: drops the connection, if it still is this response's.
    :param limit: most bytes of the body, as they are sent.
    :param translate: makes an error of this package of the failure of a connection.
    """

    def __init__(
        self,
        clock: IReactorTime,
        response: IResponse,
        abort: Callable[[BodyWatchdog], None],
        *,
        limit: int,
        deadline: Deadline | None,
        silence: float | None,
        translate: Callable[[Failure], Failure],
    ) -> None:
        self._clock = clock
        self._response = response
        self._abort = abort
        self._limit = limit
        self._deadline = deadline
        self._silence = silence
        self._translate = translate
        self._heard = clock.seconds()
        self._paused = True
        self._timer: IDelayedCall | None = None
        self._relay: _WatchdogRelay | None = None
        self._error: FetchTimeout | None = None

    def start(self) -> None:
        """Begin to watch the time."""
        self._set_timer()

    def source_done(self) -> None:
        """Note that the connection has nothing more for this response: there is no wait now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def response(self) -> BodyResponse:
        """Give the response under watch."""
        return BodyResponse.like(self._response, self._deliver)

    def received(self, total: int) -> FetchError | None:
        """Note that the body has reached *total* bytes; give the error if this is too much."""
        self._heard = self._clock.seconds()
        return BodyTooLarge(self._limit) if total > self._limit else None

    def ended(self, reason: Failure) -> Failure:
        """Note the end of the body; give the reason as this package puts it."""
        self.source_done()
        if is_complete(reason) or reason.check(FetchError) is not None:
            return reason
        return self._translate(reason)

    def pause(self, paused: bool) -> None:
        """Note that the receiver wants no bytes, or wants them again."""
        self._paused = paused
        self._heard = self._clock.seconds()

    def drop(self) -> None:
        """End the connection before the end of the body."""
        self._abort(self)

    def _deliver(self, receiver: IProtocol) -> None:
        if self._error is not None:
            deliver_bytes(b"", Failure(self._error))(receiver)
            return
        self.pause(False)
        self._relay = _WatchdogRelay(receiver, self)
        self._response.deliverBody(self._relay)

    def _due(self) -> float | None:
        """When time is over if nothing more is heard."""
        times = [] if self._deadline is None else [self._deadline.at]
        if self._silence is not None:
            times.append(self._heard + self._silence)
        return min(times, default=None)

    def _set_timer(self) -> None:
        due = self._due()
        if due is not None:
            self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._check)

    def _check(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if self._deadline is not None and now >= self._deadline.at:
            self._expire(self._deadline.exceeded("body"))
        elif self._silence is not None and not self._paused and now >= self._heard + self._silence:
            self._expire(FetchTimeout("body", self._silence))
        else:
            if self._paused:
                self._heard = now
            self._set_timer()

    def _expire(self, error: FetchTimeout) -> None:
        self._error = error
        if self._relay is None:
            self.drop()
        else:
            self._relay.fail(error)


class _WatchdogRelay(BodyRelay):
    """Hands a body on under the eyes of a :class:`BodyWatchdog`."""

    def __init__(self, receiver: IProtocol, watch: BodyWatchdog) -> None:
        super().__init__(receiver)
        self._watch = watch
        self._total = 0

    @override
    def makeConnection(self, transport: ITransport) -> None:
        watched = _WatchdogTransport(transport, self._watch)
        Protocol.makeConnection(self, cast(ITransport, watched))

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self._total += len(data)
        error = self._watch.received(self._total)
        if error is None:
            self._receiver.dataReceived(data)
        else:
            self.fail(error)

    @override
    def finish(self, reason: Failure) -> None:
        super().finish(self._watch.ended(reason) if not self._over else reason)


class _WatchdogTransport(BodyTransport):
    """Tells the watch of pauses, whose silence is not the server's."""

    def __init__(self, source: ITransport, watch: BodyWatchdog) -> None:
        super().__init__(source, watch.drop)
        self._watch = watch

    @override
    def pauseProducing(self) -> None:
        self._watch.pause(True)
        super().pauseProducing()

    @override
    def resumeProducing(self) -> None:
        self._watch.pause(False)
        super().resumeProducing()


class BodyCollector(Protocol):
    """
    Gathers a body.

    :ivar done: fires with the body and the reason of its end, or fails with an error of this
        package; cancelling it drops the connection.
    """

    def __init__(self) -> None:
        self.done: Deferred[tuple[bytes, Failure]] = Deferred(lambda _: self._cancel())
        self._chunks: list[bytes] = []

    @override
    def dataReceived(self, data: bytes) -> None:
        self._chunks.append(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if is_complete(reason):
            self.done.callback((b"".join(self._chunks), reason))
        else:
            self.done.errback(reason)

    def _cancel(self) -> None:
        transport = cast(BodyTransport, self.transport)
        transport.abortConnection()


def collect(response: IResponse) -> Deferred[tuple[bytes, Failure]]:
    """
    Read the body of a response whole.

    :returns: fires with the body and the reason of its end (``ResponseDone``, or
        ``PotentialDataLoss`` for one that ended with its connection).
    """
    collector = BodyCollector()
    response.deliverBody(collector)
    return collector.done


def discard(response: IResponse) -> None:
    """Let go of a response whose body nobody wants; its connection is dropped with it."""
    if response.length != 0:
        body = collect(response)
        body.addErrback(lambda failure: None)  # a body that is thrown away may end as it likes
        body.cancel()


WINDOW_BITS = {
    b"gzip": 16 + zlib.MAX_WBITS,
    b"x-gzip": 16 + zlib.MAX_WBITS,
    b"deflate": zlib.MAX_WBITS,
}
"""The codings that :class:`Inflator` undoes, as zlib knows them."""


class Inflator(BodyRelay):
    """Undoes one coding, piece by piece, so that it never holds more than a piece."""

    def __init__(self, receiver: IProtocol, coding: bytes, limit: int) -> None:
        super().__init__(receiver)
        self._coding = coding.decode()
        self._bits = WINDOW_BITS[coding]
        self._limit = limit
        self._total = 0
        self._begun = False
        self._after = b""
        self._inflate = zlib.decompressobj(self._bits)

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        if not self._begun and data:
            self._begun = True
            # RFC 9110 §8.4.1.2: some servers send deflate without its zlib wrapper, whose first
            # byte always has 8 as its low half.
            if self._coding == "deflate" and data[0] & 0x0F != 8:
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            self._feed(data)
        except zlib.error:
            self.fail(BadResponse(f"its {self._coding} body is damaged"))

    def _feed(self, data: bytes) -> None:
        while not self._over:
            if self._inflate.eof:
                # A gzip body may have several members (RFC 1952 §2.2); what follows a deflate
                # body, or is no gzip member, is padding.
                data = self._after + data
                self._after = data if len(data) < 2 else b""
                if self._bits <= zlib.MAX_WBITS or data[:2] != b"\x1f\x8b":
                    return
                self._inflate = zlib.decompressobj(self._bits)
            piece = self._inflate.decompress(data, CHUNK)
            self._total += len(piece)
            if self._total > self._limit:
                self.fail(BodyTooLarge(self._limit, decoded=True))
                return
            if piece:
                self._receiver.dataReceived(piece)
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            # A full piece may leave output inside the decompressor, its input all used up.
            if not data and len(piece) < CHUNK:
                return

    @override
    def finish(self, reason: Failure) -> None:
        if not self._over and is_complete(reason) and self._begun and not self._inflate.eof:
            reason = Failure(BadResponse(f"its {self._coding} body ends early"))
        super().finish(reason)
