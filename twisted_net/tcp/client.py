"""Client of the command server: awaitable calls, events, and automatic reconnection."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twisted_net.config.type_checks import check_arguments, checked_range, checked_seconds
from twisted_net.errors import (
    AnswerLost,
    BadAnswer,
    CallError,
    CallRefused,
    CallTimeout,
    NotConnected,
    TooManyCalls,
)
from twisted_net.net.reactor import AnyReactor, full_reactor
from twisted_net.net.steady_clock import steady
from twisted_net.net.tls_reason import tls_reason
from twisted_net.net.untrusted_json import decoded_size
from twisted_net.tcp.limits import ClientSettings
from twisted_net.tcp.pipeline import Answer, Pipeline, encode_request
from twisted_net.turns.paced_reads import LineCutter, Pace, PacedReads, PacedTransport

CLOSE_TIMEOUT = 2.0
"""Seconds for the last bytes to leave in :meth:`CommandClient.close`; then it aborts."""

OWN_EVENT_SIZE = 1024
"""Bytes that an event of the client's own counts as: an object of two or three short texts."""


@check_arguments
def server_endpoint(
    reactor: AnyReactor,
    host: str,
    port: int,
    tls: IOpenSSLClientConnectionCreator | None = None,
) -> IStreamClientEndpoint:
    """
    Return the endpoint of a server by its host name or address.

    :param tls: such as ``twisted.internet.ssl.optionsForClientTLS(host)``; plain TCP if None.
    :raises ValueError: for a port that is not from 1 to 65535.
    """
    checked_range(port, "port", 1, 65_535)
    # An address needs no look-up, which takes a thread of the reactor's pool: all may be busy.
    kind: Callable[..., IStreamClientEndpoint] = HostnameEndpoint
    if isIPAddress(host):
        kind = TCP4ClientEndpoint
    elif isIPv6Address(host):
        kind = TCP6ClientEndpoint
    endpoint: IStreamClientEndpoint = kind(full_reactor(reactor), host, port)
    return endpoint if tls is None else wrapClientTLS(tls, endpoint)


class _Call:
    """One call: its line, and the Deferred of its answer, which may fire before (timeout)."""

    __slots__ = ("command", "line", "result", "sent")

    def __init__(self, command: str, line: bytes) -> None:
        self.command = command
        self.line = line
        self.sent = False
        # A call that is cancelled keeps its place in the pipeline: its answer still arrives.
        self.result: Deferred[Answer] = Deferred()


@implementer(IHandshakeListener)
class _Connection(Protocol):
    """
    One connection to the server, which is read in the turns of all.

    :ivar ready: fires when requests may be sent, or when the connection is lost before.
    :ivar lost: fires when the connection is lost; *reason* then says why.
    """

    transport: ITCPTransport

    def __init__(self, client: CommandClient, settings: ClientSettings, pace: Pace) -> None:
        self._client = client
        self._pace = pace
        self.pipeline: Pipeline[_Call] = Pipeline(settings.max_line, settings.max_values)
        self.ready: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.gone = False
        self.reason = ""

    @override
    def makeConnection(self, transport: ITransport) -> None:
        below = cast(Any, transport)  # Any: in no common interface
        self._reads = PacedReads(
            self._pace, below, LineCutter(), self._receive, self._connection_lost
        )
        paced = cast(ITransport, PacedTransport(below, self._reads))
        Protocol.makeConnection(self, paced)

    @override
    def connectionMade(self) -> None:
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:  # a UNIX socket has none
            set_no_delay(True)
        if not ISSLTransport.providedBy(self.transport):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """The TLS handshake is done, if there was to be one."""
        if not self.ready.called:
            self.ready.callback(None)

    @override
    def dataReceived(self, data: bytes) -> None:
        if not self.over():
            self._reads.received(data)

    def _receive(self, data: bytes) -> None:
        """Take some of what has been read."""
        if self.over():
            return
        try:
            for call, answer in self.pipeline.receive(data):
                if call is None:
                    self._client.event(self, answer, decoded_size(self.pipeline.line))
                elif not call.result.called:
                    call.result.callback(answer)
                if self.over():
                    return
        except BadAnswer as error:
            self.abort(str(error))

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._reads.end(reason)

    def _connection_lost(self, reason: Failure) -> None:
        """All that was read has been taken."""
        # First: a call that is made within one of these callbacks must not be sent here.
        self.gone = True
        self.reason = self.reason or tls_reason(reason.value)
        for call in self.pipeline.lost():
            if not call.result.called:
                call.result.errback(AnswerLost(call.command, self.reason))
        self.handshakeCompleted()
        self.lost.callback(None)

    # Not a property: type checkers take for granted that it does not change meanwhile.
    def over(self) -> bool:
        """Whether it is lost, or about to be: nothing more is to be sent."""
        return bool(self.reason)

    def send(self, call: _Call) -> None:
        """Send a call; its result fires in every case, also if the connection is lost."""
        call.sent = True
        self.pipeline.expect(call.command, call)
        self.transport.write(call.line)

    def abort(self, reason: str) -> None:
        """Abort the connection; what still arrives is ignored."""
        if not self.reason:
            self.reason = reason
            self.transport.abortConnection()


@check_arguments
class CommandClient:
    """
    A client of one command server; it reconnects when the connection is lost.

    Any number of calls may be made at one time: each is sent at once, without waiting for the
    others (pipelining), and gets its own answer. Calls made without a connection are sent when
    there is one. No call is ever sent twice.

    A client is an async context manager: it connects at the beginning and closes at the end.

    :param reactor: any reactor of Twisted's; its time is used.
    :param endpoint: the server's; :func:`server_endpoint` makes one.
    :param credentials: the words after AUTH, a token or a name and a password; sent first on each
        connection. If it is empty, AUTH is not sent.
    :param chance: returns numbers drawn evenly from 0 to 1, for the waits between connections.
    :ivar reconnections: connections that were made after the first one.
    :ivar dropped: events that were dropped as they were not consumed in time.
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
        self._reactor = steady(reactor)
        self._pace = Pace.of(self._reactor)
        self._endpoint = endpoint
        self._auth_line = encode_request(["AUTH", *credentials]) if credentials else b""
        self._chance = chance
        self._connection: _Connection | None = None  # logged in
        self._authenticating: _Connection | None = None  # connected, not yet authenticated
        self._connecting: Deferred[Any] | None = None  # Any: endpoints fire with any protocol
        self._unsent: deque[_Call] = deque()
        self._patterns: dict[str, tuple[str, ...]] = {}
        self._events: deque[tuple[Answer, int]] = deque()
        self._event_bytes = 0
        self._event_waiters: deque[Deferred[None]] = deque()
        self._running: Deferred[None] | None = None
        self._begun = False
        self._closed = False
        self._failure = "not connected yet"

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
        return self._connection is not None and not self._connection.over()

    async def connect(self) -> None:
        """
        Connect and log in; from then on the client reconnects when it has to.

        :raises NotConnected: if this first connection fails; the client is closed then.
        :raises CallRefused: if the server refuses the credentials; the same.
        :raises RuntimeError: if it was started before.
        """
        self._begin()
        try:
            connection = await self._connected()
        except CancelledError:
            self._begun = False
            raise
        except CallError:
            self._closed = True
            self._fail_unsent()
            self._wake_event_waiters()
            raise
        self._running = Deferred.fromCoroutine(self._maintain(connection))

    def start(self) -> None:
        """
        Begin to connect, and retry until it succeeds; calls wait for it.

        :raises NotConnected: if the client was closed.
        :raises RuntimeError: if it was started before.
        """
        self._begin()
        self._running = Deferred.fromCoroutine(self._maintain(None))

    async def close(self) -> None:
        """
        End the connection; calls that wait fail, and the events end. Idempotent.

        When it returns, nothing of the client is left in the reactor.
        """
        self._closed = True
        self._failure = "the client was closed"
        connection = self._connection or self._authenticating
        if connection is not None:
            await self._ended(connection)
        elif self._connecting is not None:
            self._connecting.cancel()
        running, self._running = self._running, None
        if running is not None:
            # It waits to reconnect, or has ended.
            running.cancel()
            await running

    async def call(self, command: str, *arguments: str, timeout: float | None = None) -> Answer:
        """
        Call a command of the server.

        :param timeout: seconds, in place of ``call_timeout``.
        :return: all members of the answer: ``result``, or those of the command.
        :raises CallRefused: if the server answers with an error.
        :raises AnswerLost: if the connection is lost meanwhile: it may or may not have run.
        :raises CallTimeout: if no answer arrives in time; the same.
        :raises NotConnected: if it could not be sent in time, or the client was closed.
        :raises TooManyCalls: if ``max_calls`` wait already.
        :raises ValueError: for words that a line cannot carry, and for a negative *timeout*.
        """
        call = _Call(command, encode_request([command, *arguments]))
        limit = self.settings.call_timeout if timeout is None else checked_seconds(timeout)
        connection = self._connection
        waiting = len(self._unsent) + len(connection.pipeline if connection else ())
        if self._closed:
            raise NotConnected(self._failure)
        if waiting >= self.settings.max_calls:
            raise TooManyCalls(self.settings.max_calls)
        if connection is not None and not connection.over():
            connection.send(call)
        else:
            self._unsent.append(call)
        return await self._answer(call, limit)

    async def subscribe(self, pattern: str, when_slow: str | None = None) -> Answer:
        """
        Receive the messages of matching topics as events, also on later connections.

        :raises CallError: as :meth:`call` does; then the pattern is not subscribed again later.
        """
        words = (pattern,) if when_slow is None else (pattern, when_slow)
        answer = await self.call("SUBSCRIBE", *words)
        self._patterns[pattern] = words
        return answer

    async def unsubscribe(self, pattern: str) -> Answer:
        """Stop receiving them; even if the call fails, later connections do not subscribe again."""
        self._patterns.pop(pattern, None)
        return await self.call("UNSUBSCRIBE", pattern)

    async def events(self) -> AsyncIterator[Answer]:
        """
        Iterate over the events as they arrive, until the client is closed.

        They are the server's, and two of the client's own: ``reconnected``, as messages may have
        been missed, with the ``reason`` why the last connection was lost; and ``unsubscribed``,
        with the ``pattern`` and the ``code``, if the server refused a pattern on a new
        connection. If there are several iterators, each event goes to one of them.
        """
        while True:
            while self._events:
                yield self._take_event()
            if self._closed:
                return
            waiter: Deferred[None] = Deferred()
            self._event_waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._event_waiters:
                    self._event_waiters.remove(waiter)

    def event(self, connection: _Connection, event: Answer, size: int = OWN_EVENT_SIZE) -> None:
        """
        Queue an event if there is room; only the connection calls this.

        :param size: bytes that it takes in memory.
        """
        when_full = self.settings.when_full
        while not self._has_room(size):
            self.dropped += 1
            if when_full != "drop_oldest":
                if when_full == "disconnect":
                    connection.abort("events came faster than they were consumed")
                return
            self._take_event()
        self._events.append((event, size))
        self._event_bytes += size
        if self._event_waiters:
            self._event_waiters.popleft().callback(None)

    def _has_room(self, size: int) -> bool:
        """Whether an event may be queued: one alone in any case, so that none is never seen."""
        settings = self.settings
        return not self._events or (
            len(self._events) < settings.max_events
            and self._event_bytes + size <= settings.max_event_bytes
        )

    def _take_event(self) -> Answer:
        event, size = self._events.popleft()
        self._event_bytes -= size
        return event

    # --- one connection after another ---

    def _begin(self) -> None:
        if self._closed:
            raise NotConnected(self._failure)
        if self._begun:
            raise RuntimeError("this client is started already: connect() and start() do so once")
        self._begun = True

    async def _maintain(self, connection: _Connection | None) -> None:
        """Reconnect until closed."""
        failures = 0
        settings = self.settings
        try:
            while not self._over():
                began = self._reactor.seconds()
                try:
                    if connection is None:
                        connection = await self._connected()
                    await connection.lost
                    self._failure = connection.reason
                except CallError as error:
                    self._failure = str(error)
                connection = self._connection = None
                if self._over():
                    return
                if self._reactor.seconds() - began >= settings.reconnect_cap:
                    failures = 0
                longest = min(
                    settings.reconnect_cap, settings.reconnect_base * 2.0 ** min(failures, 64)
                )
                failures += 1
                await deferLater(self._reactor, self._chance() * longest)
        except CancelledError:
            assert self._closed  # close has the only reference to this Deferred
        finally:
            self._fail_unsent()
            self._wake_event_waiters()

    async def _connected(self) -> _Connection:
        """
        Connect, log in, subscribe again, and send the calls that wait.

        :raises NotConnected: if it fails.
        :raises CallRefused: if the server refuses the credentials.
        """
        settings = self.settings
        factory = Factory.forProtocol(lambda: _Connection(self, settings, self._pace))
        factory.noisy = False
        deadline = self._reactor.seconds() + settings.connect_timeout
        too_long = f"no connection in {settings.connect_timeout:g} seconds"
        self._connecting = self._endpoint.connect(factory)
        # HostnameEndpoint says that there is no such host when it is cancelled during its look-up.
        self._connecting.addTimeout(
            settings.connect_timeout, self._reactor, lambda _, __: Failure(DeferredTimeout())
        )
        try:
            connection = await self._connecting
        except DeferredTimeout:
            raise NotConnected(too_long) from None
        except CancelledError:
            if self._closed:
                raise NotConnected(self._failure) from None
            raise
        # An endpoint may fail with any exception; its text is shown to the caller.
        except Exception as error:
            if self._closed:
                raise NotConnected(self._failure) from error
            raise NotConnected(str(error) or type(error).__name__) from error
        finally:
            self._connecting = None
        # TLS wraps the factory, but the endpoint fires with our own protocol.
        assert isinstance(connection, _Connection)
        self._authenticating = connection
        left = max(deadline - self._reactor.seconds(), 0.0)
        limit = self._reactor.callLater(left, connection.abort, too_long)
        try:
            await self._authenticate(connection)
        except BaseException:
            await self._ended(connection)
            raise
        finally:
            self._authenticating = None
            if limit.active():
                limit.cancel()
        self._connection = connection
        self._resume(connection)
        return connection

    async def _authenticate(self, connection: _Connection) -> None:
        """
        Wait for TLS, and log in.

        :raises CallError: as :meth:`_connected` does.
        """
        await connection.ready
        if self._auth_line and not connection.gone:
            hello = _Call("AUTH", self._auth_line)
            connection.send(hello)
            try:
                _raise_refusal(await hello.result)
            except AnswerLost as error:
                raise NotConnected(error.reason) from None
        if connection.over():
            raise NotConnected(connection.reason)

    def _resume(self, connection: _Connection) -> None:
        """Subscribe again on a new connection, then send the calls that wait."""
        if self._failure != "not connected yet":
            self.reconnections += 1
            self.event(connection, {"event": "reconnected", "reason": self._failure})
            # It may have found no room, or have woken a consumer that closes the client.
            if connection.over():
                return
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
        """Wait for the result of a call, and raise it if it is an error."""
        call.result.addTimeout(limit, self._reactor)
        try:
            answer = await call.result
        except DeferredTimeout:
            self._discard_unsent(call)
            if call.sent:
                raise CallTimeout(call.command, limit) from None
            raise NotConnected(self._failure) from None
        except CancelledError:
            self._discard_unsent(call)
            raise
        return _raise_refusal(answer)

    def _discard_unsent(self, call: _Call) -> None:
        """Remove a call that was cancelled before it was sent."""
        if not call.sent and call in self._unsent:
            self._unsent.remove(call)

    def _end(self, connection: _Connection) -> None:
        """End a connection, and abort it if that takes too long."""
        connection.reason = connection.reason or self._failure
        connection.transport.loseConnection()
        if not connection.gone:
            limit = self._reactor.callLater(CLOSE_TIMEOUT, connection.transport.abortConnection)
            connection.lost.addBoth(lambda _: limit.cancel() if limit.active() else None)

    async def _ended(self, connection: _Connection) -> None:
        """End a connection, and wait until it is lost."""
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
                call.result.errback(NotConnected(self._failure))

    def _wake_event_waiters(self) -> None:
        while self._event_waiters:
            self._event_waiters.popleft().callback(None)


def _raise_refusal(answer: Answer) -> Answer:
    """
    Return an answer that is not an error.

    :raises CallRefused: for one that is.
    """
    if "error" in answer and "code" in answer:
        raise CallRefused(answer)
    return answer
