"""HTTP bodies: producers for requests; relaying and collection for responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IProtocol, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IClientRequest, IResponse
from typing_extensions import override
from zope.interface import implementer

from twisted_net.errors import FetchError
from twisted_net.http.fields import HeaderFields


@implementer(IBodyProducer)
class BytesProducer:
    """A request body in memory, which can be sent any number of times."""

    def __init__(self, body: bytes) -> None:
        self.content = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self.content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: all was written at once."""

    def resumeProducing(self) -> None:
        """Do nothing."""

    def stopProducing(self) -> None:
        """Do nothing."""


@implementer(IResponse)
class BodyResponse:
    """
    A response whose body is delivered by a function.

    :param headers: in either form; it is converted when the other one is asked for.
    :param deliver: called once, with the protocol that receives the body.
    """

    request: IClientRequest | None = None
    previousResponse: IResponse | None = None

    def __init__(
        self,
        version: tuple[bytes, int, int],
        code: int,
        phrase: bytes,
        headers: Headers | HeaderFields,
        length: Any,  # Any: a number, or Twisted's UNKNOWN_LENGTH, which is a str
        request: IClientRequest | None,
        deliver: Callable[[IProtocol], None],
    ) -> None:
        self.version = version
        self.code = code
        self.phrase = phrase
        self._headers = headers
        self.length = length
        self.request = request
        self._deliver = deliver

    @property
    def headers(self) -> Headers:
        """The header as Twisted has it."""
        found = self._headers
        if isinstance(found, HeaderFields):
            found = self._headers = twisted_headers(found)
        return found

    @property
    def fields(self) -> HeaderFields:
        """The header as the rest of this package has it."""
        found = self._headers
        if not isinstance(found, HeaderFields):
            found = self._headers = header_fields(found)
        return found

    @fields.setter
    def fields(self, fields: HeaderFields) -> None:
        self._headers = fields

    @classmethod
    def like(
        cls,
        response: IResponse,
        deliver: Callable[[IProtocol], None],
        *,
        fields: HeaderFields | None = None,
        length: Any = None,  # Any: as above
    ) -> BodyResponse:
        """Return a copy of *response* with another body, and the header and length given."""
        made = BodyResponse(
            response.version,
            response.code,
            response.phrase,
            response_fields(response) if fields is None else fields,
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
    """
    A response that is in memory as a whole.

    :ivar body: its body.
    :ivar complete: whether that is known to be all of it; not if it ended with its connection.
    """

    def __init__(
        self,
        code: int,
        phrase: bytes,
        headers: Headers | HeaderFields,
        body: bytes,
        *,
        minor: int = 1,
        complete: bool = True,
    ) -> None:
        # As BodyResponse does, whose call would take as long again.
        self.version = (b"HTTP", 1, minor)
        self.code = code
        self.phrase = phrase
        self._headers = headers
        self.length = len(body)
        self.body = body
        self.complete = complete

    @override
    def deliverBody(self, protocol: IProtocol) -> None:
        deliver_bytes(self.body, None if self.complete else Failure(PotentialDataLoss()))(protocol)


def header_fields(headers: Headers) -> HeaderFields:
    """Return the fields of Twisted's *headers*."""
    return HeaderFields(
        (name, value) for name, values in headers.getAllRawHeaders() for value in values
    )


def twisted_headers(fields: HeaderFields) -> Headers:
    """Return *fields* as Twisted has them."""
    headers = Headers()
    for name, value in fields.pairs:
        # As bytes: text would be encoded as UTF-8.
        headers.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
    return headers


def response_fields(response: IResponse) -> HeaderFields:
    """Return the header fields of a response."""
    if isinstance(response, BodyResponse):
        return response.fields
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


class BodyCollector(Protocol):
    """
    Collects a body in memory.

    :ivar done: fires with the body and the reason of its end, or fails with an error of this
        package. Cancelling it drops the connection.
    """

    def __init__(self) -> None:
        self.done: Deferred[tuple[bytes, Failure]] = Deferred(lambda _: self._cancel())
        self._chunks: list[bytes] = []
        self._cancelled = False

    @override
    def dataReceived(self, data: bytes) -> None:
        self._chunks.append(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called or self._cancelled:
            return
        if is_complete(reason):
            self.done.callback((self.received(), reason))
        else:
            self.done.errback(reason)

    def received(self) -> bytes:
        """Return what has been received so far."""
        return b"".join(self._chunks)

    def _cancel(self) -> None:
        self._cancelled = True
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
