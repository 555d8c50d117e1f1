"""
What those need who test code that uses this package: an HTTP server in memory, and its time.

No socket, no reactor, no waiting: an hour of retries, breakers and caches passes in milliseconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar, cast

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

from twisted_net.errors import FetchError
from twisted_net.http.bodies import BodyResponse, deliver_bytes, header_fields
from twisted_net.http.client import Client
from twisted_net.http.dates import format_date
from twisted_net.http.fields import HeaderFields
from twisted_net.http.settings import HttpSettings

T = TypeVar("T")

START_TIME = 1_795_305_600.0
"""The time of day at which a :class:`MemoryWeb` begins: 2026-11-22T00:00:00+00:00."""


@frozen
class RecordedRequest:
    """
    A request as the server in memory gets it, after caches and before any network.

    :param url: absolute.
    :param body: as it is sent; b"" where there is none.
    :param at: seconds since the beginning.
    """

    method: str
    url: str
    headers: HeaderFields
    body: bytes
    at: float


@frozen
class StubResponse:
    """
    What the server in memory sends.

    :param headers: name to value; a ``Date`` of now is added where there is none.
    :param delay: seconds that pass before the header is there.
    :param error: breaks the body off after :attr:`body`.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(factory=dict)
    delay: float = 0.0
    error: FetchError | None = None


Handler = Callable[[RecordedRequest], StubResponse | FetchError]


@implementer(IAgent)
class MemoryWeb:
    """
    A client whose every request a function answers, and the clock that both go by::

        def answer(request):
            return StubResponse(503) if len(web.requests) < 3 else StubResponse(200, b"hello")

        web = MemoryWeb(answer)
        response = web.run(web.client.get("http://api.example/"))
        assert (response.body, response.attempts) == (b"hello", 3)

    Retries, budgets, breakers, hedges, redirects, the cache and the total time are those of any
    client; connections and their timeouts are not there. Waits are drawn at their longest.

    :param handler: gives the answer to a request, or the error that it fails with.
    :param layers: further arguments of the client.
    :ivar client: makes the requests.
    :ivar clock: its time; ``web.clock.advance(3600)`` lets an hour pass.
    :ivar requests: those that were not answered by the cache, oldest first.
    """

    def __init__(
        self,
        handler: Handler,
        settings: HttpSettings | None = None,
        **layers: Any,  # Any: as HTTPAgent types them
    ) -> None:
        self._handler = handler
        self.clock = MemoryReactorClock()
        self.requests: list[RecordedRequest] = []
        layers = {"chance": lambda: 1.0, "wall": self.wall, "agent": self, **layers}
        self.client = Client(self.clock, settings, **layers)

    def wall(self) -> float:
        """Give the time of day, in seconds since 1970."""
        return START_TIME + self.clock.seconds()

    def run(self, call: Coroutine[Any, Any, T] | Awaitable[T], *, limit: float = 86_400.0) -> T:
        """
        Run a call to its end, letting time pass as it waits, and give its result.

        :param limit: the most seconds of the clock that may pass.
        :raises TimeoutError: where they have passed, or the call waits for something that no
            passing of time brings.
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
                    "the call waits for nothing that time will bring"
                    if due is None
                    else f"the call is not over after {limit:g} seconds"
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
        request = RecordedRequest(
            method.decode("ascii"),
            uri.decode("ascii"),
            header_fields(headers or Headers()),
            transport.value(),
            self.clock.seconds(),
        )
        self.requests.append(request)
        answer = self._handler(request)
        if isinstance(answer, FetchError):
            return fail(answer)
        if not answer.delay:
            return succeed(self._response(answer, request))
        answered: Deferred[IResponse] = Deferred(lambda _: timer.cancel())
        timer = self.clock.callLater(
            answer.delay, lambda: answered.callback(self._response(answer, request))
        )
        return answered

    def _response(self, answer: StubResponse, request: RecordedRequest) -> IResponse:
        headers = Headers()
        for name, value in _with_date(answer.headers, format_date(self.wall())):
            headers.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
        body = b"" if request.method == "HEAD" else answer.body
        reason = Failure(answer.error or ResponseDone("all of it was at hand"))
        phrase = RESPONSES.get(answer.status, b"")
        return BodyResponse(
            (b"HTTP", 1, 1),
            answer.status,
            phrase,
            headers,
            len(body) + (answer.error is not None),
            None,
            deliver_bytes(body, reason),
        )


def _with_date(headers: Mapping[str, str], date: str) -> Iterable[tuple[str, str]]:
    if not any(name.lower() == "date" for name in headers):
        yield "Date", date
    yield from headers.items()


async def _awaited(call: Awaitable[T]) -> T:
    return await call
