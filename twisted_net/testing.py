"""
Test tools for code that uses the HTTP client: a client with a server in memory, and its clock.

There are no sockets, no reactor and no waits: an hour of retries, circuit breakers and caches takes
milliseconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar, cast

import msgspec
from attrs import field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import RESPONSES
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from twisted_net.config.tls import ClientTlsSettings
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import FetchError
from twisted_net.http.bodies import BodyResponse, deliver_bytes, header_fields
from twisted_net.http.client import Client
from twisted_net.http.dates import format_date
from twisted_net.http.fields import HeaderFields
from twisted_net.http.settings import HttpSettings

T = TypeVar("T")

START_TIME = 1_795_305_600.0
"""The time of day at which a :class:`MemoryWeb` starts: 2026-11-22T00:00:00+00:00."""


@frozen
class RecordedRequest:
    """
    A request that the server in memory has received: one that no cache has answered.

    :param url: absolute.
    :param body: as it is sent; b"" if there is none.
    :param at: seconds since the start.
    """

    method: str
    url: str
    headers: HeaderFields
    body: bytes
    at: float


@check_arguments
@frozen
class StubResponse:
    """
    A response of the server in memory.

    :param headers: name to value; the current ``Date`` is added if it is missing.
    :param delay: seconds until the header arrives.
    :param error: breaks off the body after :attr:`body`.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(factory=dict)
    delay: float = 0.0
    error: FetchError | None = None


Handler = Callable[[RecordedRequest], StubResponse | FetchError]


@check_arguments
@implementer(IAgent)
class MemoryWeb:
    """
    A client whose requests are answered by a function, and the clock of both::

        def answer(request):
            return StubResponse(503) if len(web.requests) < 3 else StubResponse(200, b"hello")

        web = MemoryWeb(answer)
        response = web.run(web.client.get("http://api.example/"))
        assert (response.body, response.attempts) == (b"hello", 3)

    Retries, budgets, circuit breakers, hedging, redirects, the cache and the total timeout work as
    in any client; there are no connections, and none of their timeouts. Random waits have their
    greatest length.

    :param handler: returns the response to a request, or the error that it fails with.
    :param settings: may be those of the program itself: ``tls`` and ``proxy`` are not used, nor
        files read.
    :param arguments: further arguments of the client.
    :ivar client: makes the requests.
    :ivar clock: its time; ``web.clock.advance(3600)`` lets an hour pass.
    :ivar requests: those that the cache has not answered, oldest first.
    """

    def __init__(
        self,
        handler: Handler,
        settings: HttpSettings | None = None,
        **arguments: Any,  # Any: as HTTPAgent types them
    ) -> None:
        self._handler = handler
        self.clock = MemoryReactorClock()
        self.requests: list[RecordedRequest] = []
        if settings is not None:
            settings = msgspec.structs.replace(settings, tls=ClientTlsSettings(), proxy=None)
        arguments = {"chance": lambda: 1.0, "wall": self.wall, "agent": self, **arguments}
        self.client = Client(self.clock, settings, **arguments)

    def wall(self) -> float:
        """Return the time of day, in seconds since 1970."""
        return START_TIME + self.clock.seconds()

    def run(self, call: Coroutine[Any, Any, T] | Awaitable[T], *, limit: float = 86_400.0) -> T:
        """
        Run a call to its end, advancing the clock while it waits, and return its result.

        :param limit: seconds that may pass on the clock.
        :raises TimeoutError: if they have passed, or the call waits without a timer.
        """
        done = Deferred.fromCoroutine(_awaited(call))
        outcome: list[Any] = []  # Any: the result, or a Failure
        done.addBoth(outcome.append)
        end = self.clock.seconds() + limit
        while not outcome:
            due = min((timer.getTime() for timer in self.clock.getDelayedCalls()), default=None)
            if due is None or due > end:
                done.cancel()
                raise TimeoutError(
                    "the call waits, and no timer is running"
                    if due is None
                    else f"the call has not ended after {limit:g} seconds"
                )
            self.clock.advance(max(0.0, due - self.clock.seconds()))
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return cast(T, outcome[0])

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        transport = StringTransport()
        if bodyProducer is not None:
            bodyProducer.startProducing(cast(IConsumer, transport))
        recorded = RecordedRequest(
            method.decode("ascii"),
            uri.decode("ascii"),
            header_fields(headers or Headers()),
            transport.value(),
            self.clock.seconds(),
        )
        self.requests.append(recorded)
        stub = self._handler(recorded)
        if isinstance(stub, FetchError):
            return fail(stub)
        if not stub.delay:
            return succeed(self._response(stub, recorded))
        response: Deferred[IResponse] = Deferred(lambda _: timer.cancel())
        timer = self.clock.callLater(
            stub.delay, lambda: response.callback(self._response(stub, recorded))
        )
        return response

    def _response(self, stub: StubResponse, request: RecordedRequest) -> IResponse:
        headers = Headers()
        for name, value in _with_date(stub.headers, format_date(self.wall())):
            headers.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
        body = b"" if request.method == "HEAD" else stub.body
        reason = Failure(stub.error or ResponseDone("the body was in memory"))
        phrase = RESPONSES.get(stub.status, b"")
        return BodyResponse(
            (b"HTTP", 1, 1),
            stub.status,
            phrase,
            headers,
            len(body) + (stub.error is not None),
            None,
            deliver_bytes(body, reason),
        )


def _with_date(headers: Mapping[str, str], date: str) -> Iterable[tuple[str, str]]:
    if not any(name.lower() == "date" for name in headers):
        yield "Date", date
    yield from headers.items()


async def _awaited(call: Awaitable[T]) -> T:
    return await call
