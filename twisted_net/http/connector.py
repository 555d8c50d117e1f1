"""Connections to HTTP servers: how they are made, checked, kept for reuse, and ended."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol, Request, ResponseNeverReceived
from twisted.web.client import BrowserLikePolicyForHTTPS, HostnameCachingHTTPSPolicy
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IPolicyForHTTPS, IResponse
from typing_extensions import override
from zope.interface import implementer

from twisted_net.errors import FetchError
from twisted_net.http.bodies import BodyWatchdog, BufferedResponse
from twisted_net.http.concurrency import ConcurrencyLimiter
from twisted_net.http.errors import (
    BadResponse,
    CannotConnect,
    ClientClosed,
    NameNotFound,
    ProxyFailed,
)
from twisted_net.http.per_origin import Origin
from twisted_net.http.proxies import Proxy, ProxyRoutes, connect_request
from twisted_net.http.settings import HttpSettings
from twisted_net.http.ssrf_guard import SsrfGuard
from twisted_net.http.tunnel import Tunnel
from twisted_net.http.urls import HttpTarget
from twisted_net.http.whole_response import read_whole
from twisted_net.net.addresses import is_numeric

# As Twisted spells them in what Headers gives out.
_FRAMING = (b"Content-Length", b"Transfer-Encoding")

MAX_ADDRESSES = 8
"""Most addresses of one host that are tried."""

STAGGER = 0.25
"""Seconds after which the next address is tried beside the last one (RFC 8305 §5)."""


class HttpConnection(HTTP11ClientProtocol):
    """
    One connection to a server, which tells its pool when it is idle and when it is lost.

    :ivar busy: whether it has the slot of a request, to give back when it is idle or gone.
    :ivar reused: whether it has brought a response before.
    :ivar refusal: why it was dropped, where it was dropped for what the server sent.
    :ivar watch: holds the response that is now on its way to its limits.
    :ivar proxy: to which requests are sent whole; None where they go to the server itself,
        straight or in a tunnel.
    """

    def __init__(
        self, pool: ConnectionPool, origin: Origin, max_head: int, proxy: Proxy | None = None
    ) -> None:
        HTTP11ClientProtocol.__init__(self, self._rest)
        self._pool = pool
        self._max_head = max_head
        self._head: int | None = None
        # The request whose answer has not begun, where Twisted's parser does not know of it yet.
        self._waiting: Deferred[IResponse] | None = None
        self._sent: tuple[bytes, bytes, Headers] | None = None
        self.origin = origin
        self.proxy = proxy
        self.busy = False
        self.reused = False
        self.refusal: FetchError | None = None
        self.watch: BodyWatchdog | None = None

    @override
    def connectionMade(self) -> None:
        super().connectionMade()
        self._pool.add(self)

    def fetch(
        self, method: bytes, target: HttpTarget, headers: Headers, producer: IBodyProducer | None
    ) -> Deferred[IResponse]:
        """
        Send a request; give its response as :meth:`request` does.

        The header gets a ``Host`` where it has none, and no framing but what the body needs.
        The answer to a plain GET that comes whole in one piece is a
        :class:`~twisted_net.http.bodies.BufferedResponse`, and does not pass through Twisted's
        parser.
        """
        proxy = self.proxy
        path = (target.path if proxy is None else target.url).encode()
        if proxy is not None and proxy.authorization is not None:
            headers = headers.copy()
            headers.setRawHeaders(b"proxy-authorization", [proxy.authorization.encode()])
        if producer is not None or method != b"GET":
            framed = _framed(headers, target)
            return self.request(Request(method, path, framed, producer, persistent=True))
        lines = [b"GET ", path, b" HTTP/1.1\r\n"]
        if not headers.hasHeader(b"host"):
            lines += (b"Host: ", target.authority.encode(), b"\r\n")
        for name, values in headers.getAllRawHeaders():
            if name not in _FRAMING:
                for value in values:
                    lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        self._sent = (method, path, headers)
        waiting: Deferred[IResponse] = Deferred(self._give_up)
        self._waiting = waiting
        cast(ITransport, self.transport).write(b"".join(lines))
        return waiting

    def _give_up(self, _: Deferred[IResponse]) -> None:
        """End a request that was cancelled before any of its answer was there."""
        self._waiting = None
        self.abort_connection()

    def _answer(self, data: bytes) -> None:
        """Take the first bytes of an answer: all of it, or else they are for Twisted's parser."""
        waiting, sent = self._waiting, self._sent
        assert waiting is not None
        assert sent is not None
        self._waiting = self._sent = None
        whole = read_whole(data, self._max_head)
        if whole is not None:
            response = BufferedResponse(whole)
            self._rest(self)
            waiting.callback(response)
            return
        method, path, headers = sent
        request: Request = cast(Any, _SentRequest)(method, path, headers, None, persistent=True)
        parsed = self.request(request)  # Any, above: Twisted's Request has no types
        # Who cancels now cancels what the parser does.
        waiting._canceller = lambda _: parsed.cancel()
        parsed.chainDeferred(waiting)
        self.dataReceived(data)

    @override
    def request(self, request: Request) -> Deferred[IResponse]:
        self._head = 0

        def answered(result: IResponse | Failure) -> IResponse | Failure:
            self._head = None
            return result

        return cast("Deferred[IResponse]", super().request(request).addBoth(answered))

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._waiting is not None:
            self._answer(data)
            return
        if self.state == "QUIESCENT":
            # Nothing was asked: an error page before the server closes, or an attack.
            self._pool.drop(self)
            return
        HTTP11ClientProtocol.dataReceived(self, data)
        # The parser bounds a line, but neither their number nor that of interim responses.
        if self._head is not None:
            self._head += len(data)
            if self._head > self._max_head:
                self.refusal = BadResponse(f"its header is larger than {self._max_head} bytes")
                self.abort_connection()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        HTTP11ClientProtocol.connectionLost(self, reason)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.errback(Failure(ResponseNeverReceived([reason])))
        self._release()
        self._pool.remove(self)

    def begin(self, watch: BodyWatchdog) -> None:
        """Let *watch* hold the body that is about to come to its limits."""
        if self.state in ("WAITING", "TRANSMITTING"):
            self.watch = watch
            watch.start()

    def end(self, watch: BodyWatchdog) -> None:
        """Drop the connection, unless it has done with the response of *watch*."""
        if self.watch is watch:
            self.abort_connection()

    def abort_connection(self) -> None:
        """Drop the connection without a farewell, which a silent server might never answer."""
        cast(Any, self.transport).abortConnection()  # Any: of TCP and TLS, in no common interface

    def _rest(self, _: HTTP11ClientProtocol) -> None:
        self.reused = True
        self._release()
        self._pool.put(self)

    def _release(self) -> None:
        if self.watch is not None:
            self.watch.source_done()
            self.watch = None


class _SentRequest(Request):
    """A request that is on its way already, for the parser to know what is answered."""

    @override
    def writeTo(self, transport: ITransport) -> Deferred[None]:
        return succeed(None)


def _framed(headers: Headers, target: HttpTarget) -> Headers:
    """Give a header with a ``Host``, and without framing: the body brings its own."""
    framed = headers.copy()
    for name in _FRAMING:
        framed.removeHeader(name)
    if not framed.hasHeader(b"host"):
        framed.setRawHeaders(b"host", [target.authority.encode()])
    return framed


class ConnectionPool:
    """
    Keeps connections that may serve another request, and knows all that are open.

    It never sends a request twice: who wants that has a policy for it.

    :param connector: makes the connections.
    """

    def __init__(self, clock: IReactorTime, connector: Connector, settings: HttpSettings) -> None:
        self._clock = clock
        self._connector = connector
        self._settings = settings
        self._open: set[HttpConnection] = set()
        self._idle: OrderedDict[HttpConnection, float] = OrderedDict()
        self._idle_by_origin: dict[Origin, list[HttpConnection]] = {}
        self._timer: IDelayedCall | None = None
        self._closed = False
        self._closing: list[Deferred[None]] = []
        self._slots = ConcurrencyLimiter(clock, settings.max_per_origin, settings.max_queued)

    def turn(self, origin: Origin) -> Deferred[None] | None:
        """
        Take a slot for a request to *origin*, before anything else is done for it.

        :attr:`HttpConnection.busy` says that a connection has it; whoever gets no connection gives
        it back with :meth:`give_up`. See :meth:`ConcurrencyLimiter.take`.
        """
        return self._slots.take(origin)

    def give_up(self, origin: Origin) -> None:
        """Give back a slot that no connection has taken over."""
        self._slots.give_back(origin)

    def take(self, origin: Origin) -> HttpConnection | None:
        """Give an idle connection to *origin*, the one used last; None where there is none."""
        of_origin = self._idle_by_origin.get(origin)
        if not of_origin:
            return None
        connection = of_origin[-1]
        self._forget(connection)
        return connection

    def connect(self, target: HttpTarget) -> Deferred[HttpConnection]:
        """
        Make a new connection.

        Cancelling stops it. It fails with ``AddressRefused``, ``NameNotFound``, ``CannotConnect``,
        ``ProxyFailed`` or ``ClientClosed`` of :mod:`twisted_net.http.errors`.
        """
        return Deferred.fromCoroutine(self._connect(target))

    async def _connect(self, target: HttpTarget) -> HttpConnection:
        if self._closed:
            raise ClientClosed
        proxy = self._connector.forwarder(target)
        factory = _ConnectionFactory(
            lambda: HttpConnection(self, target.origin, self._settings.max_head, proxy)
        )
        return await self._connector.connect(target, factory)

    def add(self, connection: HttpConnection) -> None:
        """Note that a connection is open."""
        self._open.add(connection)
        if self._closed:
            connection.abort_connection()

    def remove(self, connection: HttpConnection) -> None:
        """Note that a connection is gone."""
        self._open.discard(connection)
        self._forget(connection)
        self._rest(connection)
        if not self._open:
            waiting, self._closing = self._closing, []
            for done in waiting:
                done.callback(None)

    def put(self, connection: HttpConnection) -> None:
        """Keep a connection that has done its work, or close it where there are enough."""
        self._rest(connection)
        of_origin = self._idle_by_origin.setdefault(connection.origin, [])
        of_origin.append(connection)
        self._idle[connection] = self._clock.seconds() + self._settings.idle_timeout
        if len(of_origin) > self._settings.idle_per_origin:
            self.drop(of_origin[0])
        elif len(self._idle) > self._settings.max_idle:
            self.drop(next(iter(self._idle)))
        if self._timer is None and self._idle:
            self._timer = self._clock.callLater(self._settings.idle_timeout, self._sweep)

    def drop(self, connection: HttpConnection) -> None:
        """Close a connection, which is not given out any more."""
        self._forget(connection)
        connection.abort_connection()

    def close(self) -> Deferred[None]:
        """Drop all connections, idle or not; fires when the last one is gone."""
        self._closed = True
        self._slots.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._open:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._closing.append(done)
        for connection in list(self._open):
            connection.abort_connection()
        return done

    def _sweep(self) -> None:
        """Close what has been idle for too long: one timer for all, and none per request."""
        self._timer = None
        now = self._clock.seconds()
        while self._idle:
            connection, until = next(iter(self._idle.items()))
            if until > now:
                self._timer = self._clock.callLater(until - now, self._sweep)
                return
            self.drop(connection)

    def _rest(self, connection: HttpConnection) -> None:
        if connection.busy:
            connection.busy = False
            self._slots.give_back(connection.origin)

    def _forget(self, connection: HttpConnection) -> None:
        if self._idle.pop(connection, None) is None:
            return
        of_origin = self._idle_by_origin[connection.origin]
        of_origin.remove(connection)
        if not of_origin:
            del self._idle_by_origin[connection.origin]


class Connector:
    """
    Looks a host up, checks what was found, and connects to exactly that.

    The way to an origin is always the same, so that a connection kept for it never stands for
    another way. A proxy looks names up itself, where no guard could see the addresses. So with a
    guard even a plain ``http`` request goes through a tunnel, and that to an address which was
    looked up and checked here. The proxy's own address is the operator's, and is not checked.

    :param reactor: connects, and looks names up unless *resolver* does.
    :param guard: refuses addresses; None lets all pass.
    :param tls_policy: says which certificates are trusted; by default the system's.
    :param routes: which requests go through a proxy; None for none.
    """

    def __init__(
        self,
        reactor: Any,  # Any: IReactorTCP, IReactorTime, IReactorPluggableNameResolver in one
        *,
        timeout: float,
        guard: SsrfGuard | None = None,
        resolver: IHostnameResolver | None = None,
        tls_policy: IPolicyForHTTPS | None = None,
        routes: ProxyRoutes | None = None,
    ) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._guard = guard
        self._resolver = resolver
        self._tls_policy = tls_policy or HostnameCachingHTTPSPolicy(BrowserLikePolicyForHTTPS())
        self._routes = routes

    def forwarder(self, target: HttpTarget) -> Proxy | None:
        """Give the proxy to which requests to *target* are sent whole; None for any other way."""
        if self._routes is None or self._guard is not None or target.scheme != "http":
            return None
        return self._routes.proxy_for(target)

    async def connect(self, target: HttpTarget, factory: Factory) -> HttpConnection:
        """Give an open connection to *target*; see :meth:`ConnectionPool.connect`."""
        proxy = None if self._routes is None else self._routes.proxy_for(target)
        if proxy is not None:
            return await self._connect_through(proxy, target, factory)
        addresses = await self._checked_addresses(target)
        endpoints = [self._endpoint(target, address) for address in addresses]
        try:
            protocol = await connect_first(self._reactor, endpoints, factory)
        except (ConnectError, ConnectionClosed, OSError) as error:
            raise CannotConnect(target.host, target.port, _short(error)) from error
        return cast(HttpConnection, protocol)

    async def _connect_through(
        self, proxy: Proxy, target: HttpTarget, factory: Factory
    ) -> HttpConnection:
        if self.forwarder(target) is not None:
            return cast(HttpConnection, await self._reach(proxy, target.host, factory))
        guarded = self._guard is not None
        hosts = await self._checked_addresses(target) if guarded else [target.host]
        failed: ProxyFailed | None = None
        for host in hosts:
            tunnels = _ConnectionFactory(lambda: Tunnel(target.host))
            tunnel = cast(Tunnel, await self._reach(proxy, target.host, tunnels))
            try:
                await tunnel.open(connect_request(proxy, host, target.port))
            except ProxyFailed as error:
                if not error.transient:
                    raise
                failed = failed or error  # the proxy may reach another address of the host
                continue
            return self._enter(tunnel, target, factory)
        assert failed is not None
        raise failed

    def _enter(self, tunnel: Tunnel, target: HttpTarget, factory: Factory) -> HttpConnection:
        """Put a connection, in TLS where the URL says so, into a tunnel that is open."""
        if target.scheme == "http":
            connection = factory.buildProtocol(cast(Any, None))  # Any: it has no use for it
            assert connection is not None
            tunnel.carry(connection)
            return cast(HttpConnection, connection)
        creator = self._tls_policy.creatorForNetloc(target.host.encode(), target.port)
        secure = TLSMemoryBIOFactory(creator, True, factory, self._reactor)
        wrapper = secure.buildProtocol(cast(Any, None))  # Any: as above
        assert wrapper is not None
        tunnel.carry(wrapper)
        return cast(HttpConnection, wrapper.wrappedProtocol)

    async def _reach(self, proxy: Proxy, host: str, factory: Factory) -> IProtocol:
        """Connect to a proxy, on the way to *host*."""
        addresses = (await self._addresses(proxy.host, proxy.port))[:MAX_ADDRESSES]
        if not addresses:
            raise ProxyFailed(host, "its name has no address")
        endpoints = [self._plain_endpoint(address, proxy.port) for address in addresses]
        try:
            return await connect_first(self._reactor, endpoints, factory)
        except (ConnectError, ConnectionClosed, OSError) as error:
            raise ProxyFailed(host, _short(error)) from error

    async def _checked_addresses(self, target: HttpTarget) -> list[str]:
        """Give the addresses of a host that are to be tried; the guard has seen all it has."""
        addresses = await self._addresses(target.host, target.port)
        if not addresses:
            raise NameNotFound(target.host)
        if self._guard is not None:
            self._guard.check_addresses(target.host, target.port, addresses)
        return addresses[:MAX_ADDRESSES]

    async def _addresses(self, host: str, port: int) -> list[str]:
        if is_numeric(host):
            return [host]
        found: Deferred[list[str]] = Deferred()
        resolver = self._resolver or self._reactor.nameResolver
        resolver.resolveHostName(_Receiver(found), host, port)
        return interleave(await found)

    def _plain_endpoint(self, address: str, port: int) -> IStreamClientEndpoint:
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        return kind(self._reactor, address, port, self._timeout)

    def _endpoint(self, target: HttpTarget, address: str) -> IStreamClientEndpoint:
        endpoint = self._plain_endpoint(address, target.port)
        if target.scheme == "http":
            return endpoint
        creator = self._tls_policy.creatorForNetloc(target.host.encode(), target.port)
        # The clock is given, or it would be the global reactor.
        return wrapClientTLS(creator, endpoint, clock=self._reactor)


def connect_first(
    clock: IReactorTime, endpoints: Sequence[IStreamClientEndpoint], factory: Factory
) -> Deferred[IProtocol]:
    """
    Connect to the first of some endpoints that answers ("happy eyeballs", RFC 8305).

    Each is tried when the one before has failed, or has not answered for :data:`STAGGER` seconds.
    Fails as the first one did if all fail. Cancelling stops all.

    :param endpoints: at least one, the best first.
    """
    race = _Race(clock, endpoints, factory)
    race.start_next()
    return race.winner


class _Race:
    def __init__(
        self, clock: IReactorTime, endpoints: Sequence[IStreamClientEndpoint], factory: Factory
    ) -> None:
        self._clock = clock
        self._left = list(endpoints)
        self._factory = factory
        self._pending: list[Deferred[IProtocol]] = []
        self._first_failure: Failure | None = None
        self._timer: IDelayedCall | None = None
        self._over = False
        self.winner: Deferred[IProtocol] = Deferred(lambda _: self._stop())

    def start_next(self) -> None:
        self._stop_timer()
        if not self._left:
            if not self._pending and self._first_failure is not None:
                self._over = True
                self.winner.errback(self._first_failure)
            return
        attempt = self._left.pop(0).connect(self._factory)
        self._pending.append(attempt)
        if self._left:
            self._timer = self._clock.callLater(STAGGER, self._next_is_due)
        attempt.addCallbacks(self._won, self._lost, callbackArgs=(attempt,), errbackArgs=(attempt,))

    def _next_is_due(self) -> None:
        self._timer = None
        self.start_next()

    def _won(self, protocol: IProtocol, attempt: Deferred[IProtocol]) -> None:
        self._pending.remove(attempt)
        if self._over:
            # Two answered within one turn, and cancelling came too late for this one.
            cast("HttpConnection | Tunnel", protocol).abort_connection()
            return
        self._stop()
        self.winner.callback(protocol)

    def _lost(self, failure: Failure, attempt: Deferred[IProtocol]) -> None:
        self._pending.remove(attempt)
        if self._over:
            return
        self._first_failure = self._first_failure or failure
        self.start_next()

    def _stop(self) -> None:
        self._over = True
        self._stop_timer()
        for attempt in list(self._pending):
            attempt.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@implementer(IResolutionReceiver)
class _Receiver:
    """Gathers the addresses of a name; what comes after it was given up is dropped."""

    def __init__(self, found: Deferred[list[str]]) -> None:
        self._found = found
        self._addresses: list[str] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        """Nothing to do: the system's resolver cannot be stopped."""

    def addressResolved(self, address: IAddress) -> None:
        host = cast(Any, address).host  # Any: IPv4Address and IPv6Address share no interface
        if host not in self._addresses:
            self._addresses.append(host)

    def resolutionComplete(self) -> None:
        if not self._found.called:
            self._found.callback(self._addresses)


class _ConnectionFactory(Factory):
    noisy = False

    def __init__(self, make: Callable[[], HttpConnection | Tunnel]) -> None:
        self._make = make

    @override
    def buildProtocol(self, addr: IAddress | None) -> HttpConnection | Tunnel:
        return self._make()


def interleave(addresses: Sequence[str]) -> list[str]:
    """Put addresses of both families in turn, beginning with the family of the first one."""
    first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    second = [address for address in addresses if address not in first]
    mixed: list[str] = []
    for i in range(max(len(first), len(second))):
        mixed += first[i : i + 1] + second[i : i + 1]
    return mixed


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__).rstrip(".")
