"""A client of the command server: awaitable calls, events, and a connection that is kept up."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twisted_net.errors import (
    AnswerLost,
    BadAnswer,
    CallError,
    CallRefused,
    CallTimeout,
    NotConnected,
    TooManyCalls,
)
from twisted_net.net.reactor import Reactor
from twisted_net.tcp.limits import ClientSettings
from twisted_net.tcp.pipeline import Answer, Pipeline, encode_request

CLOSE_TIMEOUT = 2.0
"""Seconds after which :meth:`CommandClient.close` no longer waits for the last bytes to leave."""


def server_endpoint(
    reactor: Reactor,
    host: str,
    port: int,
    tls: IOpenSSLClientConnectionCreator | None = None,
) -> IStreamClientEndpoint:
    """
    Give the endpoint of a server by its name or address.

    :param tls: such as ``twisted.internet.ssl.optionsForClientTLS(host)``; plain TCP if None.
    """
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, host, port)
    return endpoint if tls is None else wrapClientTLS(tls, endpoint)


class _Call:
    """One call: what to send, and who waits. Nobody waits once the result has fired."""

    __slots__ = ("command", "line", "result", "sent")

    def __init__(self, command: str, line: bytes) -> None:
        self.command = command
        self.line = line
        self.sent = False
        # A call that is cancelled keeps its place: its answer is still to come.
        self.result: Deferred[Answer] = Deferred()


@implementer(IHandshakeListener)
class _Connection(Protocol):
    """
    One connection to the server, from its first to its last byte.

    :ivar ready: fires when requests may be sent, or when it is clear that none ever will be.
    :ivar lost: fires when nothing is left of it; *reason* then says why.
    """

    transport: ITCPTransport

    def __init__(self, client: CommandClient, max_line: int) -> None:
        self._client = client
        self.pipeline: Pipeline[_Call] = Pipeline(max_line)
        self.ready: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.gone = False
        self.reason = ""

    @override
    def connectionMade(self) -> None:
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:  # a UNIX socket has none
            set_no_delay(True)
        if not ISSLTransport.providedBy(self.transport):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """The server has proved who it is, as far as it was to."""
        if not self.ready.called:
            self.ready.callback(None)

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._over():
            return
        try:
            for call, answer in self.pipeline.receive(data):
                if call is None:
                    self._client.event(self, answer)
                elif not call.result.called:
                    call.result.callback(answer)
                if self._over():
                    return
        except BadAnswer as error:
            self.give_up(str(error))

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        self.reason = self.reason or reason.getErrorMessage()
        for call in self.pipeline.lost():
            if not call.result.called:
                call.result.errback(AnswerLost(call.command, self.reason))
        self.handshakeCompleted()
        self.lost.callback(None)

    def _over(self) -> bool:
        return bool(self.reason)

    def send(self, call: _Call) -> None:
        """Send a call; its result fires in any case."""
        call.sent = True
        self.pipeline.expect(call.command, call)
        self.transport.write(call.line)

    def give_up(self, reason: str) -> None:
        """End the connection now; what still comes belongs to nobody."""
        if not self.reason:
            self.reason = reason
            self.transport.abortConnection()


class CommandClient:
    """
    A client of one command server, which is connected again whenever the connection is lost.

    Calls may be made at any time and at once: they are sent as they are made, without waiting for
    each other, and each gets its own answer. What is called without a connection is sent with
    the next one. No call is ever sent twice.

    A client is an async context, too: it is connected at its beginning and closed at its end.

    :param reactor: whose time it uses; any that Twisted has.
    :param endpoint: where the server is; :func:`server_endpoint` makes one.
    :param credentials: the words after AUTH, a token or a name and a password; sent first on each
        connection. None are sent where it is empty.
    :param chance: gives numbers drawn evenly from 0 to 1, for the waits between connections.
    :ivar reconnections: connections that were made after the first one.
    :ivar dropped: events that were dropped since nobody took them in time.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        settings: ClientSettings | None = None,
        credentials: Sequence[str] = (),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings or ClientSettings()
        self.reconnections = 0
        self.dropped = 0
        self._reactor = reactor
        self._endpoint = endpoint
        self._hello = encode_request(["AUTH", *credentials]) if credentials else b""
        self._chance = chance
        self._connection: _Connection | None = None  # logged in
        self._greeting: _Connection | None = None  # connected, not yet logged in
        self._connecting: Deferred[Any] | None = None  # Any: endpoints give any protocol
        self._unsent: deque[_Call] = deque()
        self._patterns: dict[str, tuple[str, ...]] = {}
        self._events: deque[Answer] = deque()
        self._takers: deque[Deferred[None]] = deque()
        self._running: Deferred[None] | None = None
        self._closed = False
        self._trouble = "not connected yet"

    async def __aenter__(self) -> CommandClient:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether calls are sent at once."""
        return self._connection is not None

    async def connect(self) -> None:
        """
        Connect and log in; from then on the connection is kept up.

        :raises NotConnected: where this first time fails; the client is closed then.
        :raises CallRefused: where the server refuses the credentials, likewise.
        """
        assert self._running is None, "a client starts once"
        try:
            connection = await self._connected()
        except CallError:
            self._closed = True
            self._fail_unsent()
            self._wake_takers()
            raise
        self._running = Deferred.fromCoroutine(self._keep_up(connection))

    def start(self) -> None:
        """Begin to connect, and try until it succeeds; calls wait for it meanwhile."""
        assert self._running is None, "a client starts once"
        self._running = Deferred.fromCoroutine(self._keep_up(None))

    async def close(self) -> None:
        """
        End the connection, and all that waits: calls fail, and the events end. Twice is as once.

        Nothing of the client is left in the reactor when it returns.
        """
        self._closed = True
        self._trouble = "the client was closed"
        connection = self._connection or self._greeting
        if connection is not None:
            await self._ended(connection)
        elif self._connecting is not None:
            self._connecting.cancel()
        running, self._running = self._running, None
        if running is not None:
            # It waits to connect again, or has come to its end.
            running.cancel()
            await running

    async def call(self, command: str, *arguments: str, timeout: float | None = None) -> Answer:
        """
        Have the server run a command, and give its answer.

        :param timeout: seconds, in place of ``call_timeout``.
        :return: the answer, all its members: ``result``, or those of the command.
        :raises CallRefused: where the server answers with an error.
        :raises AnswerLost: where the connection is lost meanwhile: it may or may not have run.
        :raises CallTimeout: where no answer comes in time; likewise.
        :raises NotConnected: where it could not be sent in time, or the client was closed.
        :raises TooManyCalls: where ``max_calls`` wait already.
        :raises ValueError: for words that no line can carry.
        """
        call = _Call(command, encode_request([command, *arguments]))
        limit = self.settings.call_timeout if timeout is None else timeout
        waiting = len(self._unsent) + len(self._connection.pipeline if self._connection else ())
        if self._closed:
            raise NotConnected(self._trouble)
        if waiting >= self.settings.max_calls:
            raise TooManyCalls(self.settings.max_calls)
        if self._connection is not None:
            self._connection.send(call)
        else:
            self._unsent.append(call)
        return await self._answer(call, limit)

    async def subscribe(self, pattern: str, when_slow: str | None = None) -> Answer:
        """
        Get the messages of the topics that fit a pattern, as events, also on later connections.

        :raises CallError: as :meth:`call` does; the pattern is not kept then.
        """
        words = (pattern,) if when_slow is None else (pattern, when_slow)
        answer = await self.call("SUBSCRIBE", *words)
        self._patterns[pattern] = words
        return answer

    async def unsubscribe(self, pattern: str) -> Answer:
        """Get them no more, also where the call itself fails: a later connection lacks them."""
        self._patterns.pop(pattern, None)
        return await self.call("UNSUBSCRIBE", pattern)

    async def events(self) -> AsyncIterator[Answer]:
        """
        Go through the events as they come; it ends when the client is closed.

        They are those of the server, and two of the client's own: ``reconnected``, since messages
        may have been missed, with the ``reason`` why the last connection was lost; and
        ``unsubscribed``, with the ``pattern`` and the ``code``, where the server refused a
        pattern on a new connection. Where several go through them, each event goes to one.
        """
        while True:
            while self._events:
                yield self._events.popleft()
            if self._closed:
                return
            taker: Deferred[None] = Deferred()
            self._takers.append(taker)
            try:
                await taker
            finally:
                if taker in self._takers:
                    self._takers.remove(taker)

    def event(self, connection: _Connection, event: Answer) -> None:
        """Take in an event, as far as there is room; for the connection's own use."""
        if len(self._events) >= self.settings.max_events:
            self.dropped += 1
            if self.settings.when_full == "drop_oldest":
                self._events.popleft()
            else:
                if self.settings.when_full == "disconnect":
                    connection.give_up("events came faster than they were taken")
                return
        self._events.append(event)
        if self._takers:
            self._takers.popleft().callback(None)

    # --- one connection after the other ---

    async def _keep_up(self, connection: _Connection | None) -> None:
        """Stay connected until closed."""
        failures = 0
        settings = self.settings
        try:
            while not self._over():
                began = self._reactor.seconds()
                try:
                    if connection is None:
                        connection = await self._connected()
                    await connection.lost
                    self._trouble = connection.reason
                except CallError as error:
                    self._trouble = str(error)
                connection = self._connection = None
                if self._over():
                    return
                if self._reactor.seconds() - began >= settings.reconnect_cap:
                    failures = 0
                most = min(
                    settings.reconnect_cap, settings.reconnect_base * 2.0 ** min(failures, 64)
                )
                failures += 1
                await deferLater(self._reactor, self._chance() * most)
        except CancelledError:
            assert self._closed  # nobody else has the Deferred of this
        finally:
            self._fail_unsent()
            self._wake_takers()

    async def _connected(self) -> _Connection:
        """
        Connect, log in, subscribe again, and send what waits.

        :raises NotConnected: where it fails.
        :raises CallRefused: where the server refuses the credentials.
        """
        settings = self.settings
        factory = Factory.forProtocol(lambda: _Connection(self, settings.max_line))
        factory.noisy = False
        deadline = self._reactor.seconds() + settings.connect_timeout
        too_long = f"no connection in {settings.connect_timeout:g} seconds"
        self._connecting = self._endpoint.connect(factory)
        self._connecting.addTimeout(settings.connect_timeout, self._reactor)
        try:
            connection = await self._connecting
        except DeferredTimeout:
            raise NotConnected(too_long) from None
        except CancelledError:
            if self._closed:
                raise NotConnected(self._trouble) from None
            raise
        # Whatever an endpoint fails with is a reason for its user to read.
        except Exception as error:
            raise NotConnected(str(error) or type(error).__name__) from error
        finally:
            self._connecting = None
        # TLS wraps the factory, and gives our own protocol all the same.
        assert isinstance(connection, _Connection)
        self._greeting = connection
        left = max(deadline - self._reactor.seconds(), 0.0)
        limit = self._reactor.callLater(left, connection.give_up, too_long)
        try:
            await self._greet(connection)
        except BaseException:
            await self._ended(connection)
            raise
        finally:
            self._greeting = None
            if limit.active():
                limit.cancel()
        self._connection = connection
        connection.lost.addCallback(self._disconnected)
        self._take_up(connection)
        return connection

    async def _greet(self, connection: _Connection) -> None:
        """
        Wait for TLS, and log in.

        :raises CallError: as :meth:`_connected` does.
        """
        await connection.ready
        if self._hello and not connection.gone:
            hello = _Call("AUTH", self._hello)
            connection.send(hello)
            try:
                _refuse(await hello.result)
            except AnswerLost as error:
                raise NotConnected(error.reason) from None
        if connection.gone or connection.reason:
            raise NotConnected(connection.reason)

    def _disconnected(self, result: None) -> None:
        # At once, so that no call is sent to a connection that is lost.
        self._connection = None

    def _take_up(self, connection: _Connection) -> None:
        """Do on a new connection what was done on those before, then send what waits."""
        if self._trouble != "not connected yet":
            self.reconnections += 1
            self.event(connection, {"event": "reconnected", "reason": self._trouble})
        for pattern, words in self._patterns.items():
            call = _Call("SUBSCRIBE", encode_request(["SUBSCRIBE", *words]))
            call.result.addCallbacks(
                self._resubscribed, lambda failure: None, (connection, pattern)
            )
            connection.send(call)
        while self._unsent:
            call = self._unsent.popleft()
            if not call.result.called:
                connection.send(call)

    def _resubscribed(self, answer: Answer, connection: _Connection, pattern: str) -> None:
        if "code" in answer:
            self._patterns.pop(pattern, None)
            self.event(
                connection,
                {"event": "unsubscribed", "pattern": pattern, "code": answer["code"]},
            )

    async def _answer(self, call: _Call, limit: float) -> Answer:
        """Wait for the result of a call, and tell an answer from an error."""
        call.result.addTimeout(limit, self._reactor)
        try:
            answer = await call.result
        except DeferredTimeout:
            self._forget(call)
            if call.sent:
                raise CallTimeout(call.command, limit) from None
            raise NotConnected(self._trouble) from None
        except CancelledError:
            self._forget(call)
            raise
        return _refuse(answer)

    def _forget(self, call: _Call) -> None:
        """Do not send a call that nobody waits for."""
        if not call.sent and call in self._unsent:
            self._unsent.remove(call)

    def _end(self, connection: _Connection) -> None:
        """End a connection, and see to it that it comes to its end."""
        connection.reason = connection.reason or self._trouble
        connection.transport.loseConnection()
        if not connection.gone:
            limit = self._reactor.callLater(CLOSE_TIMEOUT, connection.transport.abortConnection)
            connection.lost.addBoth(lambda _: limit.cancel() if limit.active() else None)

    async def _ended(self, connection: _Connection) -> None:
        """End a connection, and wait until it has."""
        if not connection.gone:
            self._end(connection)
            ended: Deferred[None] = Deferred()
            connection.lost.addCallback(lambda _: ended.callback(None))
            await ended

    def _over(self) -> bool:
        return self._closed

    def _fail_unsent(self) -> None:
        while self._unsent:
            call = self._unsent.popleft()
            if not call.result.called:
                call.result.errback(NotConnected(self._trouble))

    def _wake_takers(self) -> None:
        while self._takers:
            self._takers.popleft().callback(None)


def _refuse(answer: Answer) -> Answer:
    """
    Give an answer back that is none of refusal.

    :raises CallRefused: for one that is.
    """
    if "error" in answer and "code" in answer:
        raise CallRefused(answer)
    return answer
