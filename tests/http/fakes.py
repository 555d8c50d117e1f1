"""Fakes of servers, connections and resolvers, for tests without a reactor."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from errno import EWOULDBLOCK
from socket import MSG_PEEK
from typing import Any, TypeVar, cast

from attrs import define, field, frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IConsumer,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IResolutionReceiver,
)
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from typing_extensions import override
from zope.interface import implementer

from twisted_net.http.bodies import BodyResponse, deliver_bytes

_T = TypeVar("_T")


def canned(
    code: int = 200,
    body: bytes = b"",
    headers: Sequence[tuple[str, str]] = (),
    reason: Failure | None = None,
) -> BodyResponse:
    """Return a response in memory."""
    made = Headers()
    for name, value in headers:
        made.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
    deliver = deliver_bytes(body, reason)
    return BodyResponse((b"HTTP", 1, 1), code, b"Reason", made, len(body), None, deliver)


@frozen
class Sent:
    """A request that a :class:`FakeAgent` received."""

    method: bytes
    uri: bytes
    headers: Headers
    body: bytes | None

    def header(self, name: str) -> list[str]:
        """Return the values of one field."""
        return [value.decode("latin-1") for value in self.headers.getRawHeaders(name.encode(), [])]


@define
@implementer(IAgent)
class FakeAgent:
    """Answers each request with the next of *answers*: a response, an error, or a Deferred."""

    answers: list[Any]  # Any: as described
    sent: list[Sent] = field(factory=list)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        body = None
        if bodyProducer is not None:
            transport = StringTransport()
            bodyProducer.startProducing(cast(IConsumer, transport))
            body = transport.value()
        self.sent.append(Sent(method, uri, (headers or Headers()).copy(), body))
        answer = self.answers.pop(0)
        if isinstance(answer, Deferred):
            return answer
        return fail(answer) if isinstance(answer, BaseException) else succeed(answer)


class Gatherer(Protocol):
    """Receives a body, and how it ended."""

    def __init__(self) -> None:
        self.body = b""
        self.reason: Failure | None = None

    @override
    def dataReceived(self, data: bytes) -> None:
        self.body += data

    @override
    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        assert self.reason is None
        self.reason = reason


class Source:
    """A response whose body the test sends."""

    def __init__(self, headers: list[tuple[str, str]] | None = None) -> None:
        self.aborted = 0
        self.calls: list[str] = []
        self.receiver: Any = None
        self.response = BodyResponse.like(canned(headers=headers or []), self._deliver, length=99)

    def _deliver(self, receiver: Any) -> None:
        self.receiver = receiver
        receiver.makeConnection(self)

    def send(self, data: bytes) -> None:
        """Send some of the body."""
        self.receiver.dataReceived(data)

    def end(self, reason: Exception) -> None:
        """End the body."""
        self.receiver.connectionLost(Failure(reason))

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def abortConnection(self) -> None:
        self.aborted += 1


class MemoryTransport(StringTransport):
    """A connection whose protocol is informed of its end one turn later, like a real one's."""

    protocol: IProtocol
    reactor: MemoryReactorClock
    ended = False
    unread: bytes | None = None  # what the kernel has: nothing, bytes, or the end

    def getHandle(self) -> MemoryTransport:
        """Return what stands for the socket."""
        return self

    def recv(self, size: int, flags: int) -> bytes:
        """Look at what waits in the kernel."""
        assert flags == MSG_PEEK
        if self.unread is None:
            raise BlockingIOError(EWOULDBLOCK, "nothing waits")
        return self.unread[:size]

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing."""

    @override
    def abortConnection(self) -> None:
        self._end_soon(ConnectionAborted())

    @override
    def loseConnection(self) -> None:
        self._end_soon(ConnectionDone())

    def end(self, reason: Exception) -> None:
        """Lose the connection, unless it is lost already."""
        self.ended = True
        self.protocol.connectionLost(Failure(reason))

    def _end_soon(self, reason: Exception) -> None:
        if not self.ended:
            self.ended = True
            self.reactor.callLater(0, self.end, reason)


class ServerSide:
    """The server's side of one connection that was opened in a ``MemoryReactorClock``."""

    def __init__(self, reactor: MemoryReactorClock, index: int = -1) -> None:
        self.host, self.port, factory = reactor.tcpClients[index][:3]
        protocol = factory.buildProtocol(cast(IAddress, None))
        assert protocol is not None
        self._protocol: IProtocol = protocol
        self.transport = MemoryTransport()
        self.transport.protocol = protocol
        self.transport.reactor = reactor
        self._protocol.makeConnection(self.transport)

    def received(self) -> bytes:
        """Return what the client has sent since the last call."""
        data = bytes(self.transport.value())
        self.transport.clear()
        return data

    def send(self, data: bytes) -> None:
        """Send *data* to the client."""
        self._protocol.dataReceived(data)

    def close(self, reason: Exception | None = None) -> None:
        """Close the connection as a server does, or for *reason*."""
        self.transport.end(reason or ConnectionDone())


def refuse(reactor: MemoryReactorClock, reason: Exception, index: int = -1) -> None:
    """Fail an attempt to connect."""
    factory = reactor.tcpClients[index][2]
    factory.clientConnectionFailed(cast(IConnector, None), Failure(reason))


@implementer(IHostnameResolver)
class FakeResolver:
    """
    Finds the addresses of *names*, and none for others.

    :ivar asked: the names looked up.
    :ivar held: while this is a list, answers wait in it to be called.
    """

    def __init__(self, names: dict[str, list[str]]) -> None:
        self._names = names
        self.asked: list[str] = []
        self.held: list[Any] | None = None  # Any: functions without arguments

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self.asked.append(hostName)

        def answer() -> None:
            resolutionReceiver.resolutionBegan(cast(IHostResolution, None))
            for address in self._names.get(hostName, []):
                kind = IPv6Address if ":" in address else IPv4Address
                resolutionReceiver.addressResolved(kind("TCP", address, portNumber))
            resolutionReceiver.resolutionComplete()

        if self.held is None:
            answer()
        else:
            self.held.append(answer)
        return cast(IHostResolution, None)


class HttpTestCase(SynchronousTestCase):
    """Runs coroutines without a reactor."""

    def start(self, coroutine: Coroutine[Any, Any, _T]) -> Deferred[_T]:
        """Start a coroutine."""
        return Deferred.fromCoroutine(coroutine)

    def assert_quiet(self, reactor: Any) -> None:  # Any: a Clock, or a reactor in memory
        """Fail if a timer is running, after dropped connections have ended."""
        reactor.advance(0)
        self.assertEqual(reactor.getDelayedCalls(), [])

    def run_now(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine that does not wait."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))


class Immediately:
    """Runs the iterator of a ``FileBodyProducer`` at once."""

    def cooperate(self, iterator: Any) -> Any:
        """Run it."""
        task = self
        task.done = Deferred.fromCoroutine(run(iterator))  # type: ignore[attr-defined]  # a fake
        return task

    def whenDone(self) -> Deferred[Any]:
        """Return its outcome."""
        return self.done  # type: ignore[attr-defined, no-any-return]  # a fake


async def run(iterator: Any) -> None:
    """Exhaust an iterator."""
    for _ in iterator:
        pass
