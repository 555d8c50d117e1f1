"""Connecting over HTTP: name look-up, address checks, connecting, the pool of idle connections."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from errno import EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IProtocol,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.web.client import HostnameCachingHTTPSPolicy
from twisted.web.iweb import IPolicyForHTTPS
from typing_extensions import override

from twisted_net.errors import TooBusy
from twisted_net.http.concurrency import ConcurrencyLimiter
from twisted_net.http.errors import (
    CannotConnect,
    ClientClosed,
    LookupsBusy,
    NameNotFound,
    OutOfResources,
    ProxyFailed,
)
from twisted_net.http.h1.connection import HttpConnection
from twisted_net.http.happy_eyeballs import connect_first, interleave
from twisted_net.http.proxies import Proxy, ProxyRoutes, connect_request, route_of
from twisted_net.http.settings import HttpSettings
from twisted_net.http.ssrf_guard import SsrfGuard
from twisted_net.http.tunnel import Tunnel
from twisted_net.http.urls import HttpTarget, Origin
from twisted_net.net.addresses import is_numeric
from twisted_net.net.name_lookups import AddressCollector
from twisted_net.net.reactor import Reactor
from twisted_net.net.system_trust import SystemTrust
from twisted_net.turns.paced_reads import Pace
from twisted_net.turns.paced_tls import PacedTlsEndpoint, paced_tls_factory, within_tls

MAX_ADDRESSES = 64
"""
Limit of the addresses of one host that are tried; within the time for connecting, if one is slow.

As many in all are open beside each other at most, and those of large services are fewer.
"""


class ConnectionPool:
    """
    Keeps idle connections for reuse, and knows all open ones.

    It never sends a request twice: that is decided by the retry policy.

    :param connector: makes the connections.
    :ivar pace: the turns in which they read.
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
        self.pace = Pace.of(clock)

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
        if self._closed:
            # Its last bytes were read in a later turn.
            connection.abort_connection()
            return
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
        if self._guard is not None or target.scheme != "http":
            return None
        return route_of(self._routes, target)

    async def connect(self, target: HttpTarget, factory: Factory) -> HttpConnection:
        """Return an open connection to *target*; see :meth:`ConnectionPool.connect`."""
        proxy = route_of(self._routes, target)
        if proxy is not None:
            return await self._connect_through(proxy, target, factory)
        addresses = await self._checked_addresses(target)
        endpoints = [self._endpoint(target, address) for address in addresses]
        try:
            protocol = await connect_first(self._reactor, endpoints, factory, self._timeout)
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
        creator = self._tls_policy.creatorForNetloc(target.server_name.encode(), target.port)
        secure = paced_tls_factory(creator, factory, self._reactor)
        paced = secure.buildProtocol(cast(Any, None))  # Any: as above
        assert paced is not None
        tunnel.attach(paced)
        return cast(HttpConnection, within_tls(paced))

    async def _connect_to_proxy(self, proxy: Proxy, host: str, factory: Factory) -> IProtocol:
        """Connect to a proxy, on the route to *host*."""
        addresses = (await self._addresses(proxy.host, proxy.port))[:MAX_ADDRESSES]
        if not addresses:
            raise ProxyFailed(host, "its name has no address")
        endpoints = [self._plain_endpoint(address, proxy.port) for address in addresses]
        try:
            return await connect_first(self._reactor, endpoints, factory, self._timeout)
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
        collector = AddressCollector()
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
        creator = self._tls_policy.creatorForNetloc(target.server_name.encode(), target.port)
        return PacedTlsEndpoint(endpoint, creator, self._reactor)


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
