"""HTTP bodies: producers for requests; relaying, time and size limits, collection for responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

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
from twisted_net.http.call import Deadline
from twisted_net.http.errors import BadResponse, BodyTooLarge, FetchTimeout
from twisted_net.http.fields import HeaderFields
from twisted_net.http.response_parser import ParsedResponse

FRAMING_RATIO, FRAMING_RESERVE = 2, 65_536
"""
Bytes that may frame each byte of a body, and all of it besides: chunk sizes and trailers.

Chunks of three bytes are framed by five; each takes some 6 us, whatever is in it.
"""

_HTTP_1_1 = (b"HTTP", 1, 1)


@implementer(IBodyProducer)
class BytesProducer:
    """A request body in memory, which can be sent any number of times."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: all was written at once."""

    def resumeProducing(self) -> None:
        """Do nothing."""

    def stopProducing(self) -> None:
        """Do nothing."""


def body_producer(data: Any) -> IBodyProducer:  # Any: anything with an adapter to IBodyProducer
    """
    Return a producer of *data* as a request body: :class:`BytesProducer` for bytes.

    treq's own producer for bytes uses the global reactor, and can be sent only once.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        return BytesProducer(bytes(data))
    return IBodyProducer(data)


@implementer(IResponse)
class BodyResponse:
    """
    A response whose body is delivered by a function.

    :param deliver: called once, with the protocol that receives the body.
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
        """Return a copy of *response* with another body, and the header and length given."""
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
    """A response that is in memory as a whole; :attr:`body` is its body."""

    def __init__(self, parsed: ParsedResponse) -> None:
        headers = Headers()
        for name, value in parsed.fields:
            headers.addRawHeader(name, value)
        self.body = parsed.body
        BodyResponse.__init__(
            self,
            _HTTP_1_1,
            parsed.code,
            parsed.phrase,
            headers,
            len(parsed.body),
            None,
            deliver_bytes(parsed.body),
        )


def buffered_response(code: int, phrase: bytes, headers: Headers, body: bytes) -> BodyResponse:
    """Return a response with a body in memory, as if it had been received so."""
    return BodyResponse(_HTTP_1_1, code, phrase, headers, len(body), None, deliver_bytes(body))


def header_fields(headers: Headers) -> HeaderFields:
    """Return the fields of Twisted's *headers*."""
    return HeaderFields(
        (name, value) for name, values in headers.getAllRawHeaders() for value in values
    )


def response_fields(response: IResponse) -> HeaderFields:
    """Return the header fields of a response."""
    return header_fields(response.headers)


def deliver_bytes(body: bytes, reason: Failure | None = None) -> Callable[[IProtocol], None]:
    """Return a function that delivers *body* at once and then *reason*, by default a normal end."""

    def deliver(protocol: IProtocol) -> None:
        protocol.makeConnection(cast(ITransport, BodyTransport(None, lambda: None)))
        if body:
            protocol.dataReceived(body)
        protocol.connectionLost(reason or Failure(ResponseDone("the body was in memory")))

    return deliver


class BodyTransport:
    """
    The transport of a body's receiver: it can pause, resume and abort the source of the body.

    :param source: the transport with which Twisted delivers the body; None for a body in memory.
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
    """Whether a body that ended for *reason* is complete, as far as HTTP can tell."""
    return reason.check(ResponseDone, PotentialDataLoss) is not None


class BodyRelay(Protocol):
    """Relays a body to *receiver*, until :meth:`fail` is called."""

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
        """End the body of the receiver; only the first call has an effect."""
        if not self._over:
            self._over = True
            self._receiver.connectionLost(reason)

    def fail(self, error: FetchError) -> None:
        """End the body with *error*, and drop its connection."""
        self.finish(Failure(error))
        cast(BodyTransport, self.transport).abortConnection()


class BodyWatchdog:
    """
    Enforces the limits of a response: deadline, silence of the server, and bytes of the body.

    The time runs from :meth:`start` on, so that a response whose body is never read ends too. The
    silence of a server does not count while the receiver has paused the body.

    :param abort: drops the connection, if it is still used by this response.
    :param limit: bytes of the body, as they are sent.
    :param translate: turns the failure of a connection into one of this package.
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
        self._last_received = clock.seconds()
        self._paused = True
        self._timer: IDelayedCall | None = None
        self._relay: _WatchdogRelay | None = None
        self._error: FetchError | None = None
        self._framed = 0

    def start(self) -> None:
        """Start the timer."""
        self._set_timer()

    def source_done(self) -> None:
        """Stop the timer: the connection has received all of this response."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def response(self) -> BodyResponse:
        """Return the response with its limits."""
        return BodyResponse.like(self._response, self._deliver)

    def received(self, total: int) -> FetchError | None:
        """Note a body of *total* bytes so far; return an error if they exceed the limit."""
        self._last_received = self._clock.seconds()
        return BodyTooLarge(self._limit) if total > self._limit else None

    def framed(self, size: int) -> None:
        """Note that so many bytes came, of the body and of what frames it; end it at the limit."""
        self._framed += size
        relay = self._relay
        # While nobody reads the body, it is not known how many of them are of it.
        if relay is not None:
            allowed = FRAMING_RESERVE + (1 + FRAMING_RATIO) * relay.total
            if self._framed > allowed:
                self._expire(BadResponse("its body comes in too many pieces"))

    def ended(self, reason: Failure) -> Failure:
        """Note the end of the body; return the reason, translated into an error of this package."""
        self.source_done()
        if is_complete(reason) or reason.check(FetchError) is not None:
            return reason
        return self._translate(reason)

    def pause(self, paused: bool) -> None:
        """Note that the receiver has paused the body, or resumed it."""
        self._paused = paused
        self._last_received = self._clock.seconds()

    def drop(self) -> None:
        """Drop the connection before the end of the body."""
        self._abort(self)

    def _deliver(self, receiver: IProtocol) -> None:
        if self._error is not None:
            deliver_bytes(b"", Failure(self._error))(receiver)
            return
        self.pause(False)
        self._relay = _WatchdogRelay(receiver, self)
        self._response.deliverBody(self._relay)

    def _due(self) -> float | None:
        """The time at which the response expires if nothing more is received; None for never."""
        times = [] if self._deadline is None else [self._deadline.at]
        if self._silence is not None:
            times.append(self._last_received + self._silence)
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
            return
        if self._paused:
            self._last_received = now
        if self._silence is not None and now >= self._last_received + self._silence:
            self._expire(FetchTimeout("body", self._silence))
        else:
            self._set_timer()

    def _expire(self, error: FetchError) -> None:
        self._error = error
        if self._relay is None:
            self.drop()
        else:
            self._relay.fail(error)


class _WatchdogRelay(BodyRelay):
    """Relays a body within the limits of a :class:`BodyWatchdog`."""

    def __init__(self, receiver: IProtocol, watchdog: BodyWatchdog) -> None:
        super().__init__(receiver)
        self._watchdog = watchdog
        self.total = 0

    @override
    def makeConnection(self, transport: ITransport) -> None:
        watched = _WatchdogTransport(transport, self._watchdog)
        Protocol.makeConnection(self, cast(ITransport, watched))

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self.total += len(data)
        error = self._watchdog.received(self.total)
        if error is None:
            self._receiver.dataReceived(data)
        else:
            self.fail(error)

    @override
    def finish(self, reason: Failure) -> None:
        super().finish(self._watchdog.ended(reason) if not self._over else reason)


class _WatchdogTransport(BodyTransport):
    """Reports pauses to the watchdog, since the silence during a pause is not the server's."""

    def __init__(self, source: ITransport, watchdog: BodyWatchdog) -> None:
        super().__init__(source, watchdog.drop)
        self._watchdog = watchdog

    @override
    def pauseProducing(self) -> None:
        self._watchdog.pause(True)
        super().pauseProducing()

    @override
    def resumeProducing(self) -> None:
        self._watchdog.pause(False)
        super().resumeProducing()


class BodyCollector(Protocol):
    """
    Collects a body in memory.

    :ivar done: fires with the body and the reason of its end, or fails with an error of this
        package. Cancelling it drops the connection.
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
            self.done.callback((self.received(), reason))
        else:
            self.done.errback(reason)

    def received(self) -> bytes:
        """Return what has been received so far."""
        return b"".join(self._chunks)

    def _cancel(self) -> None:
        transport = cast(BodyTransport, self.transport)
        transport.abortConnection()


def collect(response: IResponse) -> Deferred[tuple[bytes, Failure]]:
    """
    Read the whole body of a response.

    :return: fires with the body and the reason of its end (``ResponseDone``, or
        ``PotentialDataLoss`` for a body that ended with its connection).
    """
    collector = BodyCollector()
    response.deliverBody(collector)
    return collector.done


def discard(response: IResponse) -> None:
    """Discard a response without reading its body; this drops its connection."""
    if response.length != 0:
        body = collect(response)
        body.addErrback(lambda failure: None)  # how a discarded body ends does not matter
        body.cancel()
