"""HTTP connections: name look-up, address checks, connecting, the pool of idle connections."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from errno import EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM
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
from twisted.web.client import HostnameCachingHTTPSPolicy, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS, IResponse
from typing_extensions import override
from zope.interface import implementer

from twisted_net.errors import FetchError, TooBusy
from twisted_net.http.agent_layer import AgentRequest
from twisted_net.http.bodies import BodyWatchdog, BufferedResponse
from twisted_net.http.concurrency import ConcurrencyLimiter
from twisted_net.http.errors import (
    BadResponse,
    CannotConnect,
    ClientClosed,
    LookupsBusy,
    NameNotFound,
    OutOfResources,
    ProxyFailed,
)
from twisted_net.http.happy_eyeballs import connect_first, interleave
from twisted_net.http.per_origin import Origin
from twisted_net.http.proxies import Proxy, ProxyRoutes, connect_request
from twisted_net.http.response_parser import HeadLimit, parse_complete_response
from twisted_net.http.settings import HttpSettings
from twisted_net.http.ssrf_guard import SsrfGuard
from twisted_net.http.tunnel import Tunnel
from twisted_net.http.urls import HttpTarget
from twisted_net.net.addresses import is_numeric
from twisted_net.net.reactor import Reactor
from twisted_net.net.system_trust import SystemTrust
from twisted_net.twisted_internals import ClientRequest, HTTP11ClientProtocol, http_client_changes

# As Headers.getAllRawHeaders() spells them.
_FRAMING = (b"Content-Length", b"Transfer-Encoding")

_PARSER_IS_KNOWN = not http_client_changes()

MAX_ADDRESSES = 8
"""Limit of the addresses of one host that are tried."""


class HttpConnection(HTTP11ClientProtocol):
    """
    One connection to a server. It reports to its pool when it is idle and when it is lost.

    :ivar holds_slot: whether it holds the slot of a request, which the pool releases when the
        connection is idle or lost.
    :ivar abort_reason: why it was dropped, if it was for what the server sent.
    :ivar watchdog: enforces the limits of the response that is being received.
    :ivar proxy: the proxy that gets whole requests; None where they are sent to the server itself,
        directly or in a tunnel.
    """

    def __init__(
        self, pool: ConnectionPool, origin: Origin, max_head: int, proxy: Proxy | None = None
    ) -> None:
        HTTP11ClientProtocol.__init__(self, self._became_idle)
        self._pool = pool
        self._max_head = max_head
        self._head: HeadLimit | None = None
        # The request that waits for the first bytes of its response, which Twisted's parser does
        # not know of yet; and what the parser does for it afterwards.
        self._waiting: Deferred[IResponse] | None = None
        self._parsing: Deferred[IResponse] | None = None
        self._sent: tuple[bytes, bytes, Headers] | None = None
        self.origin = origin
        self.proxy = proxy
        self.holds_slot = False
        self.abort_reason: FetchError | None = None
        self.watchdog: BodyWatchdog | None = None

    @override
    def connectionMade(self) -> None:
        super().connectionMade()
        self._pool.add(self)

    def send_request(self, request: AgentRequest, target: HttpTarget) -> Deferred[IResponse]:
        """
        Send a request to *target*; the result is that of :meth:`request`.

        A missing ``Host`` is added, and framing fields are replaced by those of the body.
        The response to a GET that arrives complete in one read is a
        :class:`~twisted_net.http.bodies.BufferedResponse`, without the work of Twisted's parser.
        """
        method, headers = request.method, request.headers
        proxy = self.proxy
        path = (target.path if proxy is None else target.url).encode()
        if proxy is not None and proxy.authorization is not None:
            headers = headers.copy()
            headers.setRawHeaders(b"proxy-authorization", [proxy.authorization.encode()])
        if request.producer is not None or method != b"GET" or not _PARSER_IS_KNOWN:
            framed = _framed(headers, target)
            return self.request(
                ClientRequest(method, path, framed, request.producer, persistent=True)
            )
        lines = [b"GET ", path, b" HTTP/1.1\r\n"]
        if not headers.hasHeader(b"host"):
            lines += (b"Host: ", target.authority.encode(), b"\r\n")
        for name, values in headers.getAllRawHeaders():
            if name not in _FRAMING:
                for value in values:
                    lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        self._sent = (method, path, headers)
        self._parsing = None
        waiting: Deferred[IResponse] = Deferred(self._cancel_request)
        self._waiting = waiting
        cast(ITransport, self.transport).write(b"".join(lines))
        return waiting

    def _cancel_request(self, _: Deferred[IResponse]) -> None:
        if self._parsing is not None:
            self._parsing.cancel()
        else:
            self._waiting = None
            self.abort_connection()

    def _first_bytes(self, data: bytes) -> None:
        """Take the first bytes of a response: all of it, or else pass them to Twisted's parser."""
        waiting, sent = self._waiting, self._sent
        assert waiting is not None
        assert sent is not None
        self._waiting = self._sent = None
        parsed = parse_complete_response(data, self._max_head)
        if parsed is not None:
            response = BufferedResponse(parsed)
            self._became_idle(self)
            waiting.callback(response)
            return
        method, path, headers = sent
        # Any: Twisted's Request has no types.
        request: ClientRequest = cast(Any, _SentRequest)(
            method, path, headers, None, persistent=True
        )
        self._parsing = self.request(request)
        self._parsing.chainDeferred(waiting)
        self.dataReceived(data)

    @override
    def request(self, request: ClientRequest) -> Deferred[IResponse]:
        head = self._head = HeadLimit(self._max_head)

        def head_received(result: IResponse | Failure) -> IResponse | Failure:
            if self._head is head:
                self._head = None
            return result

        return cast("Deferred[IResponse]", super().request(request).addBoth(head_received))

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._waiting is not None:
            self._first_bytes(data)
            return
        if self.state == "QUIESCENT":
            # No request was sent: an error page before the server closes, or an attack.
            self._pool.drop(self)
            return
        head, rest = self._head, b""
        if head is not None:
            data, rest = head.cut(data)
        HTTP11ClientProtocol.dataReceived(self, data)
        if head is not None and self._head is head:
            # The parser limits a line, but neither the lines of a header nor interim responses.
            try:
                head.check(rest)
            except BadResponse as error:
                self.abort_reason = error
                self.abort_connection()
        elif rest and self._head is None and self.state in ("WAITING", "TRANSMITTING"):
            HTTP11ClientProtocol.dataReceived(self, rest)
        elif rest:
            # The response has ended: these bytes must not be the answer to the next request.
            self._pool.drop(self)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # First: a caller that hears of the loss may make its next request at once.
        self._pool.release_slot_of(self)
        HTTP11ClientProtocol.connectionLost(self, reason)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.errback(Failure(ResponseNeverReceived([reason])))
        self._stop_watchdog()
        self._pool.remove(self)

    def start_watchdog(self, watchdog: BodyWatchdog) -> None:
        """Start to enforce the limits of a body, unless it has been received already."""
        if self.state in ("WAITING", "TRANSMITTING"):
            self.watchdog = watchdog
            watchdog.start()

    def abort_response(self, watchdog: BodyWatchdog) -> None:
        """Drop the connection, unless the response of *watchdog* has been received."""
        if self.watchdog is watchdog:
            self.abort_connection()

    def abort_connection(self) -> None:
        """Drop the connection at once: a silent server might never answer a TLS close."""
        cast(Any, self.transport).abortConnection()  # Any: of TCP and TLS, in no common interface

    def _became_idle(self, _: HTTP11ClientProtocol) -> None:
        self._stop_watchdog()
        self._pool.put_idle(self)

    def _stop_watchdog(self) -> None:
        if self.watchdog is not None:
            self.watchdog.source_done()
            self.watchdog = None


class _SentRequest(ClientRequest):
    """A request that has been sent, for the parser to know which response to expect."""

    @override
    def writeTo(self, transport: ITransport) -> Deferred[None]:
        return succeed(None)


def _framed(headers: Headers, target: HttpTarget) -> Headers:
    """Return a header with ``Host`` and without framing fields, which the body adds itself."""
    framed = headers.copy()
    for name in _FRAMING:
        framed.removeHeader(name)
    if not framed.hasHeader(b"host"):
        framed.setRawHeaders(b"host", [target.authority.encode()])
    return framed


class ConnectionPool:
    """
    Keeps idle connections for reuse, and knows all open ones.

    It never sends a request twice: that is decided by the retry policy.

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
        self._limiter = ConcurrencyLimiter(clock, settings.max_per_origin, settings.max_queued)

    def acquire_slot(self, origin: Origin) -> Deferred[None] | None:
        """
        Acquire a slot for a request to *origin*, the first step of a request.

        A connection takes the slot over (:attr:`HttpConnection.holds_slot`). Without a connection
        it is released by :meth:`release_slot`. See :meth:`ConcurrencyLimiter.acquire`.
        """
        return self._limiter.acquire(origin)

    def release_slot(self, origin: Origin) -> None:
        """Release a slot that no connection has taken over."""
        self._limiter.release(origin)

    def take_idle(self, origin: Origin) -> HttpConnection | None:
        """Return the idle connection to *origin* that was used last; None if there is none."""
        of_origin = self._idle_by_origin.get(origin)
        if not of_origin:
            return None
        connection = of_origin[-1]
        self._remove_idle(connection)
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
        proxy = self._connector.forward_proxy(target)
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
        """Note that a connection is lost."""
        self._open.discard(connection)
        self._remove_idle(connection)
        self.release_slot_of(connection)
        if not self._open:
            waiting, self._closing = self._closing, []
            for done in waiting:
                done.callback(None)

    def put_idle(self, connection: HttpConnection) -> None:
        """Keep an idle connection, or close one where the limits are reached."""
        self.release_slot_of(connection)
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
        """Close a connection, which is not reused."""
        self._remove_idle(connection)
        connection.abort_connection()

    def close(self) -> Deferred[None]:
        """Drop all connections, idle or not; fires when the last one is lost."""
        self._closed = True
        self._limiter.close()
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

    def release_slot_of(self, connection: HttpConnection) -> None:
        """Release the slot that a connection holds, if it holds one."""
        if connection.holds_slot:
            connection.holds_slot = False
            self._limiter.release(connection.origin)

    def _remove_idle(self, connection: HttpConnection) -> None:
        if self._idle.pop(connection, None) is None:
            return
        of_origin = self._idle_by_origin[connection.origin]
        of_origin.remove(connection)
        if not of_origin:
            del self._idle_by_origin[connection.origin]


class Connector:
    """
    Looks up a host, checks its addresses, and connects to exactly those.

    The route to an origin never changes, so that a connection that is kept for it never stands for
    another route. A proxy that looks up names itself could reach addresses that no guard has seen.
    So with a guard even plain ``http`` requests use a tunnel, and the tunnel leads to an address
    that was looked up and checked here. The proxy's own address belongs to the operator and is
    not checked.

    :param reactor: connects, and looks up names unless *resolver* does.
    :param guard: refuses addresses; None allows all.
    :param tls_policy: says which certificates are trusted; by default those of the system.
    :param routes: which requests use a proxy; None for none.
    """

    def __init__(
        self,
        reactor: Reactor,
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
        self._tls_policy = tls_policy or HostnameCachingHTTPSPolicy(SystemTrust())
        self._routes = routes

    def forward_proxy(self, target: HttpTarget) -> Proxy | None:
        """Return the proxy that gets whole requests to *target*; None for any other route."""
        if self._routes is None or self._guard is not None or target.scheme != "http":
            return None
        return self._routes.proxy_for(target)

    async def connect(self, target: HttpTarget, factory: Factory) -> HttpConnection:
        """Return an open connection to *target*; see :meth:`ConnectionPool.connect`."""
        proxy = None if self._routes is None else self._routes.proxy_for(target)
        if proxy is not None:
            return await self._connect_through(proxy, target, factory)
        addresses = await self._checked_addresses(target)
        endpoints = [self._endpoint(target, address) for address in addresses]
        try:
            protocol = await connect_first(self._reactor, endpoints, factory)
        except (ConnectError, ConnectionClosed, OSError) as error:
            _check_shortage(error)
            raise CannotConnect(target.host, target.port, _reason(error)) from error
        return cast(HttpConnection, protocol)

    async def _connect_through(
        self, proxy: Proxy, target: HttpTarget, factory: Factory
    ) -> HttpConnection:
        if self.forward_proxy(target) is not None:
            connection = await self._connect_to_proxy(proxy, target.host, factory)
            return cast(HttpConnection, connection)
        guarded = self._guard is not None
        hosts = await self._checked_addresses(target) if guarded else [target.host]
        first_error: ProxyFailed | None = None
        for host in hosts:
            tunnels = _ConnectionFactory(lambda: Tunnel(target.host))
            tunnel = cast(Tunnel, await self._connect_to_proxy(proxy, target.host, tunnels))
            try:
                await tunnel.open(connect_request(proxy, host, target.port))
            except ProxyFailed as error:
                if not error.transient:
                    raise
                # The proxy may reach another address of the host.
                first_error = first_error or error
                continue
            return self._connect_in_tunnel(tunnel, target, factory)
        assert first_error is not None
        raise first_error

    def _connect_in_tunnel(
        self, tunnel: Tunnel, target: HttpTarget, factory: Factory
    ) -> HttpConnection:
        """Attach a connection, with TLS for ``https``, to a tunnel that is open."""
        if target.scheme == "http":
            connection = factory.buildProtocol(cast(Any, None))  # Any: the address is not used
            assert connection is not None
            tunnel.attach(connection)
            return cast(HttpConnection, connection)
        creator = self._tls_policy.creatorForNetloc(target.host.encode(), target.port)
        secure = TLSMemoryBIOFactory(creator, True, factory, self._reactor)
        wrapper = secure.buildProtocol(cast(Any, None))  # Any: as above
        assert wrapper is not None
        tunnel.attach(wrapper)
        return cast(HttpConnection, wrapper.wrappedProtocol)

    async def _connect_to_proxy(self, proxy: Proxy, host: str, factory: Factory) -> IProtocol:
        """Connect to a proxy, on the route to *host*."""
        addresses = (await self._addresses(proxy.host, proxy.port))[:MAX_ADDRESSES]
        if not addresses:
            raise ProxyFailed(host, "its name has no address")
        endpoints = [self._plain_endpoint(address, proxy.port) for address in addresses]
        try:
            return await connect_first(self._reactor, endpoints, factory)
        except (ConnectError, ConnectionClosed, OSError) as error:
            _check_shortage(error)
            raise ProxyFailed(host, _reason(error)) from error

    async def _checked_addresses(self, target: HttpTarget) -> list[str]:
        """Return the addresses to try; the guard has checked all addresses of the host."""
        addresses = await self._addresses(target.host, target.port)
        if not addresses:
            raise NameNotFound(target.host)
        if self._guard is not None:
            self._guard.check_addresses(target.host, target.port, addresses)
        return addresses[:MAX_ADDRESSES]

    async def _addresses(self, host: str, port: int) -> list[str]:
        if is_numeric(host):
            return [host]
        collector = _AddressCollector()
        resolver = self._reactor.nameResolver if self._resolver is None else self._resolver
        resolver.resolveHostName(collector, host, port)
        try:
            return interleave(await collector.found)
        except TooBusy as error:
            raise LookupsBusy(host) from error
        except RuntimeError as error:
            # There is no thread to look it up in.
            raise OutOfResources(str(error)) from error

    def _plain_endpoint(self, address: str, port: int) -> IStreamClientEndpoint:
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        return kind(self._reactor, address, port, self._timeout)

    def _endpoint(self, target: HttpTarget, address: str) -> IStreamClientEndpoint:
        endpoint = self._plain_endpoint(address, target.port)
        if target.scheme == "http":
            return endpoint
        creator = self._tls_policy.creatorForNetloc(target.host.encode(), target.port)
        # Without a clock it would use the global reactor.
        return wrapClientTLS(creator, endpoint, clock=self._reactor)


@implementer(IResolutionReceiver)
class _AddressCollector:
    """
    Collects the addresses of a name; drops those that come after the look-up was cancelled.

    :ivar found: fires with them.
    """

    def __init__(self) -> None:
        self.found: Deferred[list[str]] = Deferred(lambda _: self._cancel())
        self._addresses: list[str] = []
        self._resolution: IHostResolution | None = None

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        self._resolution = resolution

    def addressResolved(self, address: IAddress) -> None:
        host = cast(Any, address).host  # Any: IPv4Address and IPv6Address share no interface
        if host not in self._addresses:
            self._addresses.append(host)

    def resolutionComplete(self) -> None:
        if not self.found.called:
            self.found.callback(self._addresses)

    def resolution_failed(self, error: BaseException) -> None:
        """Take the error of a :class:`~twisted_net.net.name_lookups.NameLookups`."""
        if not self.found.called:
            self.found.errback(error)

    def _cancel(self) -> None:
        if self._resolution is not None:
            # Twisted's own cannot be cancelled.
            with suppress(NotImplementedError):
                self._resolution.cancel()


class _ConnectionFactory(Factory):
    noisy = False

    def __init__(self, make: Callable[[], HttpConnection | Tunnel]) -> None:
        self._make = make

    @override
    def buildProtocol(self, addr: IAddress | None) -> HttpConnection | Tunnel:
        return self._make()


_SHORTAGES = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL})


def _check_shortage(error: BaseException) -> None:
    """
    Check whether a connection failed for want of something on this machine.

    :raises OutOfResources: if it did.
    """
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    if number in _SHORTAGES:
        raise OutOfResources(os.strerror(number)) from error


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).rstrip(".")
