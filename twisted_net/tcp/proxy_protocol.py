"""Takes the PROXY header off a connection, which then has the address of the real client."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import directlyProvides, providedBy

from twisted_net.errors import BadProxyHeader
from twisted_net.reasons import End
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.proxy_header import TrustedProxies, parse_header


class ProxyFactory(Factory):
    """
    Reads a PROXY header from each connection, and hands the rest to another factory.

    That one builds its protocol when the header is whole, so that the protocol has the real
    addresses from its ``connectionMade`` on, and may end either half of the connection. It may
    itself be a factory for TLS.

    :param inner: whose protocols get the connections.
    :param trusted: the others are disconnected, without a word, and counted.
    :param handshakes: bounds the headers that are waited for.
    """

    noisy = False
    log = Logger()

    def __init__(
        self, inner: IProtocolFactory, trusted: TrustedProxies, handshakes: Handshakes
    ) -> None:
        self.inner = inner
        self.trusted = trusted
        self.handshakes = handshakes
        self._told = False

    @override
    def startFactory(self) -> None:
        self.inner.doStart()

    @override
    def stopFactory(self) -> None:
        self.inner.doStop()

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _ProxyProtocol(self)

    def tell_untrusted(self, peer: object) -> None:
        """Log that somebody is refused who is not trusted; the first alone, as many may come."""
        if not self._told:
            self._told = True
            self.log.warn(
                "{peer} is not among the trusted proxies and is refused; further ones are "
                "counted alone, as untrusted_proxy",
                peer=peer,
            )


class ProxiedTransport:
    """
    A transport whose ends are those that a proxy told of.

    :param transport: the proxy's connection.
    """

    def __init__(self, transport: Any, peer: IAddress, host: IAddress) -> None:  # Any: a transport
        self._transport = transport
        self._peer = peer
        self._host = host
        self.write = transport.write
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:  # Any: whatever the transport has
        return getattr(self._transport, name)

    def getPeer(self) -> IAddress:
        """Give the address of the client."""
        return self._peer

    def getHost(self) -> IAddress:
        """Give the address that the client connected to."""
        return self._host

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Set it on the proxy's connection; it may be a Unix socket, which has no such thing."""
        if _host(self._transport.getPeer()) is not None:
            self._transport.setTcpNoDelay(enabled)


class _ProxyProtocol(Protocol):
    """One connection, for as long as its header is not whole."""

    transport: Any  # a TCP or Unix transport, whose protocol can be set

    def __init__(self, factory: ProxyFactory) -> None:
        self._factory = factory
        self._head = b""

    @override
    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self._factory.handshakes.began(self)
        if not self._factory.trusted.trusts(_host(peer)):
            self._factory.tell_untrusted(peer)
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
        # All that follows is the other protocol's, without a detour over this one.
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
    """Give the address of a peer, or None for that of a Unix socket."""
    return peer.host if isinstance(peer, IPv4Address | IPv6Address) else None


def _address(end: tuple[str, int]) -> IPv4Address | IPv6Address:
    host, port = end
    kind = IPv6Address if ":" in host else IPv4Address
    return kind("TCP", host, port)
