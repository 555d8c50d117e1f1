"""
TCP endpoint: connections to an address, which leave nothing in cycles.

Twisted's own endpoints leave, of each connection, a factory and a connector that refer to each
other: with all that the factory refers to, they stay until a collection of garbage, which stops all
clients. And their protocols get each piece that is read through one more call.
"""

from __future__ import annotations

from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError, NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IProtocol,
    IProtocolFactory,
    IReactorTCP,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer


@implementer(IStreamClientEndpoint)
@frozen
class TcpEndpoint:
    """
    Connects to an address.

    :param address: IPv4 or IPv6, no name.
    :param timeout: seconds for a connection.
    """

    reactor: IReactorTCP
    address: str
    port: int
    timeout: float

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        attempt = _ConnectionAttempt(protocolFactory)
        connected = attempt.connected
        self.reactor.connectTCP(self.address, self.port, attempt, cast(int, self.timeout))
        return connected


class _ConnectionAttempt(ClientFactory):
    """
    One attempt to connect.

    :ivar connected: fires with the protocol, when its connection is made.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self._connector: IConnector | None = None  # until the attempt is over
        self.connected: Deferred[IProtocol] = Deferred(self._cancel)

    @override
    def startedConnecting(self, connector: IConnector) -> None:
        self._connector = connector

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        self._connector = None
        protocol = self._factory.buildProtocol(cast(IAddress, addr))
        if protocol is None:
            self.connected.errback(NoProtocol())
            return None
        return _Arrival(protocol, self.connected)

    @override
    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._connector = None
        if not self.connected.called:
            self.connected.errback(reason)

    @override
    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        # They refer to each other.
        cast(Any, connector).transport = None  # Any: in no interface

    def _cancel(self, connected: Deferred[IProtocol]) -> None:
        connector, self._connector = self._connector, None
        assert connector is not None
        connected.errback(ConnectingCancelledError(connector.getDestination()))
        connector.stopConnecting()


class _Arrival(Protocol):
    """
    Stands for a protocol until its connection is made, and fires *connected* then.

    What transports pass to it later, in tests, it hands on.
    """

    def __init__(self, protocol: IProtocol, connected: Deferred[IProtocol]) -> None:
        self._protocol = protocol
        self._connected = connected

    @override
    def makeConnection(self, transport: ITransport) -> None:
        protocol = self._protocol
        try:
            protocol.makeConnection(transport)
        except BaseException:
            # A policy of the user's, say, cannot make the TLS of this host: the caller has to know.
            cast(Any, transport).abortConnection()  # Any: in no interface
            self._connected.errback()
            return
        cast(Any, transport).protocol = protocol  # Any: of a connection, in no interface
        self._connected.callback(protocol)

    @override
    def dataReceived(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._protocol.connectionLost(reason)
