"""PROXY protocol on the server's side: a connection gets the addresses its proxy announces."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import directlyProvides, providedBy

from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import BadProxyHeader
from twisted_net.reasons import End
from twisted_net.tcp.handshakes import HandshakeFactory, Handshakes
from twisted_net.tcp.proxy_header import TrustedProxies, parse_header


@check_arguments
class ProxyFactory(HandshakeFactory):
    """
    Reads a PROXY header from each connection, and hands the rest to another factory.

    The protocol of *inner* is built when the header is complete, so that it has the real addresses
    from its ``connectionMade`` on, and can end either half of the connection. *inner* may itself be
    a factory for TLS.

    :param inner: its protocols get the connections.
    :param trusted: other peers are disconnected without an answer, and counted.
    :param handshakes: limits the headers that are waited for.
    """

    def __init__(
        self, inner: IProtocolFactory, trusted: TrustedProxies, handshakes: Handshakes
    ) -> None:
        super().__init__(inner, handshakes)
        self.trusted = trusted
        self._logged = False

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _ProxyProtocol(self)

    def log_untrusted(self, peer: object) -> None:
        """Log a peer that is refused as it is not trusted; the first alone, as many may come."""
        if not self._logged:
            self._logged = True
            self.log.warn(
                "{peer} is not a trusted proxy and is refused; further ones are only counted, "
                "as untrusted_proxy",
                peer=peer,
            )


class ProxiedTransport:
    """
    A transport with the addresses that a proxy announced.

    :param transport: the connection to the proxy.
    :ivar unproxied: the same.
    """

    def __init__(self, transport: Any, peer: IAddress, host: IAddress) -> None:  # Any: a transport
        self.unproxied = transport
        self._peer = peer
        self._host = host
        self.write = transport.write
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:  # Any: whatever the transport has
        return getattr(self.unproxied, name)

    def getPeer(self) -> IAddress:
        """Return the address of the client."""
        return self._peer

    def getHost(self) -> IAddress:
        """Return the address that the client connected to."""
        return self._host

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Set it on the connection to the proxy, unless that is a Unix socket."""
        if _host(self.unproxied.getPeer()) is not None:
            self.unproxied.setTcpNoDelay(enabled)


class _ProxyProtocol(Protocol):
    """The protocol of a connection until its header is complete."""

    transport: Any  # a TCP or Unix transport, whose protocol can be set

    def __init__(self, factory: ProxyFactory) -> None:
        self._factory = factory
        self._head = b""

    @override
    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self._factory.handshakes.began(self)
        if not self._factory.trusted.trusts(_host(peer)):
            self._factory.log_untrusted(peer)
            self._factory.handshakes.failed(self, End.UNTRUSTED_PROXY)

    @override
    def dataReceived(self, data: bytes) -> None:
        self._head += data
        try:
            header = parse_header(self._head)
        except BadProxyHeader as error:
            self._factory.log.debug("{peer}: {error}", peer=self.transport.getPeer(), error=error)
            self._factory.handshakes.failed(self)
            return
        if header is None:
            return
        self._factory.handshakes.succeeded(self)
        transport = self.transport
        peer = transport.getPeer()
        if header.source is not None and header.destination is not None:
            peer, host = _address(header.source), _address(header.destination)
            transport = ProxiedTransport(transport, peer, host)
        inner = self._factory.inner.buildProtocol(peer)
        if inner is None:
            self.abort()
            return
        # What follows goes to that protocol directly, not through this one.
        if getattr(self.transport, "wrappedProtocol", None) is self:
            self.transport.wrappedProtocol = inner  # TLS or another layer of an endpoint's
        else:
            self.transport.protocol = inner
        inner.makeConnection(transport)
        rest = self._head[header.length :]
        if rest:
            inner.dataReceived(rest)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.handshakes.lost(self)

    def abort(self) -> None:
        """End the connection now."""
        self.transport.abortConnection()


def _host(peer: object) -> str | None:
    """Return the address of a peer, or None if it is a Unix socket."""
    return peer.host if isinstance(peer, IPv4Address | IPv6Address) else None


def _address(end: tuple[str, int]) -> IPv4Address | IPv6Address:
    host, port = end
    kind = IPv6Address if ":" in host else IPv4Address
    return kind("TCP", host, port)
