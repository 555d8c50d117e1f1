"""HTTP connections: name look-up, address checks, connecting, directly or through a proxy."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM
from math import inf
from typing import Any, cast

from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.web.iweb import IPolicyForHTTPS
from typing_extensions import override

from twisted_net.errors import TooBusy
from twisted_net.http.calls.outcomes import result_of
from twisted_net.http.errors import (
    CannotConnect,
    LookupsBusy,
    NameNotFound,
    OutOfResources,
    ProxyFailed,
)
from twisted_net.http.h1.tcp_endpoint import TcpEndpoint
from twisted_net.http.h1.tls_sessions import Resumption, TlsSessions
from twisted_net.http.h1.tls_transport import ClientTlsFactory, TlsEndpoint
from twisted_net.http.h1.wire import Wire
from twisted_net.http.happy_eyeballs import connect_first, interleave
from twisted_net.http.proxies import Proxy, ProxyRoutes, connect_request, route_of
from twisted_net.http.ssrf_guard import SsrfGuard
from twisted_net.http.tunnel import Tunnel
from twisted_net.http.urls import HttpTarget
from twisted_net.net.addresses import is_numeric
from twisted_net.net.name_lookups import AddressCollector
from twisted_net.net.reactor import Reactor
from twisted_net.net.steady_clock import steady
from twisted_net.net.tls_policy import TlsPolicy
from twisted_net.turns.paced_reads import Pace

MAX_ADDRESSES = 64
"""
Limit of the addresses of one host that are tried; within the time for connecting, if one is slow.

As many in all are open beside each other at most, and those of large services are fewer.
"""


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
        self._tls_policy = policy = tls_policy or TlsPolicy()
        # Any other policy may change what it accepts.
        resumable = isinstance(policy, TlsPolicy) and policy.resumable
        self._sessions = TlsSessions(steady(reactor).seconds) if resumable else None
        self._pace = Pace.of(reactor)
        self._routes = routes

    def forward_proxy(self, target: HttpTarget) -> Proxy | None:
        """Return the proxy that gets whole requests to *target*; None for any other route."""
        if self._guard is not None or target.scheme != "http":
            return None
        return route_of(self._routes, target)

    async def connect(
        self, target: HttpTarget, make: Callable[[], Wire], within: float = inf
    ) -> Wire:
        """
        Return an open connection to *target*; see :meth:`.ConnectionPool.connect`.

        :param make: makes a wire for it.
        :param within: seconds after which the caller cancels it.
        """
        factory = _ProtocolFactory(make)
        within = min(within, self._timeout)
        proxy = route_of(self._routes, target)
        if proxy is not None:
            return await self._connect_through(proxy, target, factory, within)
        addresses = await self._checked_addresses(target)
        endpoints = [self._endpoint(target, address) for address in addresses]
        try:
            protocol = await result_of(connect_first(self._reactor, endpoints, factory, within))
        except (ConnectError, ConnectionClosed, OSError) as error:
            _check_shortage(error)
            raise CannotConnect(target.host, target.port, _reason(error)) from error
        return cast(Wire, protocol)

    async def _connect_through(
        self, proxy: Proxy, target: HttpTarget, factory: Factory, within: float
    ) -> Wire:
        if self.forward_proxy(target) is not None:
            connection = await self._connect_to_proxy(proxy, target.host, factory, within)
            return cast(Wire, connection)
        guarded = self._guard is not None
        hosts = await self._checked_addresses(target) if guarded else [target.host]
        first_error: ProxyFailed | None = None
        for host in hosts:
            tunnels = _ProtocolFactory(lambda: Tunnel(target.host))
            protocol = await self._connect_to_proxy(proxy, target.host, tunnels, within)
            tunnel = cast(Tunnel, protocol)
            try:
                await result_of(tunnel.open(connect_request(proxy, host, target.port)))
            except ProxyFailed as error:
                if not error.transient:
                    raise
                # The proxy may reach another address of the host.
                first_error = first_error or error.with_traceback(None)
                continue
            try:
                return self._connect_in_tunnel(tunnel, target, factory)
            except BaseException:
                # A policy of the user's cannot make the TLS of this host.
                tunnel.abort_connection()
                raise
        assert first_error is not None
        raise first_error

    def _connect_in_tunnel(self, tunnel: Tunnel, target: HttpTarget, factory: Factory) -> Wire:
        """Attach a connection, with TLS for ``https``, to a tunnel that is open."""
        if target.scheme == "http":
            connection = factory.buildProtocol(cast(Any, None))  # Any: the address is not used
            assert connection is not None
            tunnel.attach(connection)
            return cast(Wire, connection)
        secure = ClientTlsFactory(factory, *self._tls(target)).buildProtocol(None)
        assert secure is not None
        wire = secure.wrappedProtocol
        tunnel.attach(secure)
        return cast(Wire, wire)

    async def _connect_to_proxy(
        self, proxy: Proxy, host: str, factory: Factory, within: float
    ) -> IProtocol:
        """Connect to a proxy, on the route to *host*."""
        addresses = (await self._addresses(proxy.host, proxy.port))[:MAX_ADDRESSES]
        if not addresses:
            raise ProxyFailed(host, "its name has no address")
        endpoints = [self._plain_endpoint(address, proxy.port) for address in addresses]
        try:
            return await result_of(connect_first(self._reactor, endpoints, factory, within))
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
            found: list[str] = await result_of(collector.found)
        except TooBusy as error:
            raise LookupsBusy(host) from error
        except RuntimeError as error:
            # There is no thread to look it up in.
            raise OutOfResources(str(error)) from error
        return interleave(found)

    def _plain_endpoint(self, address: str, port: int) -> IStreamClientEndpoint:
        return TcpEndpoint(self._reactor, address, port, self._timeout)

    def _endpoint(self, target: HttpTarget, address: str) -> IStreamClientEndpoint:
        endpoint = self._plain_endpoint(address, target.port)
        if target.scheme == "http":
            return endpoint
        return TlsEndpoint(endpoint, *self._tls(target))

    def _tls(
        self, target: HttpTarget
    ) -> tuple[IOpenSSLClientConnectionCreator, Pace, Resumption | None]:
        """Return what a connection with TLS to the host of *target* needs."""
        name, port = target.server_name, target.port
        creator = self._tls_policy.creatorForNetloc(name.encode(), port)
        sessions = self._sessions
        resumption = None if sessions is None else Resumption(sessions, (name, port))
        return creator, self._pace, resumption


class _ProtocolFactory(Factory):
    noisy = False

    def __init__(self, make: Callable[[], Wire | Tunnel]) -> None:
        self._make = make

    @override
    def buildProtocol(self, addr: IAddress | None) -> Wire | Tunnel:
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
