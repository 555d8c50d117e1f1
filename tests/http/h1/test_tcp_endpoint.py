"""Tests of :mod:`twisted_net.http.h1.tcp_endpoint`."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectingCancelledError, NoProtocol
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.http.fakes import Gatherer, ServerSide, refuse
from twisted_net.http.h1.tcp_endpoint import TcpEndpoint


class TcpEndpointTests(SynchronousTestCase):
    """:class:`TcpEndpoint` connects to an address."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def connect(self, protocol: type[Protocol] = Gatherer) -> Deferred[IProtocol]:
        """Start an attempt."""
        endpoint = TcpEndpoint(self.reactor, "1.1.1.1", 80, 5.0)
        return endpoint.connect(Factory.forProtocol(protocol))

    def test_connected(self) -> None:
        """It fires with the protocol, which is then that of the connection itself."""
        connecting = self.connect()
        self.assertEqual(self.reactor.tcpClients[0][:2], ("1.1.1.1", 80))
        self.assertEqual(self.reactor.tcpClients[0][3], 5.0)
        self.assertNoResult(connecting)
        server = ServerSide(self.reactor)
        protocol = cast(Gatherer, self.successResultOf(connecting))
        self.assertIs(server.transport.protocol, protocol)
        self.assertIs(protocol.transport, server.transport)
        server.send(b"abc")
        self.assertEqual(protocol.body, b"abc")
        server.close()
        self.assertIsNotNone(protocol.reason)

    def test_refused(self) -> None:
        """A server that refuses is an error."""
        connecting = self.connect()
        refuse(self.reactor, ConnectError())
        self.failureResultOf(connecting, ConnectError)

    def test_cancelled(self) -> None:
        """Cancelling stops the attempt, whose end nobody hears of any more."""
        connecting = self.connect()
        connector: Any = self.reactor.connectors[0]
        connecting.cancel()
        self.failureResultOf(connecting, ConnectingCancelledError)
        self.assertTrue(connector.stoppedConnecting)
        refuse(self.reactor, ConnectError())

    def test_no_protocol(self) -> None:
        """A factory may make none."""
        connecting = self.connect(cast(Any, lambda: None))
        factory: Any = self.reactor.tcpClients[0][2]
        self.patch(Factory, "buildProtocol", lambda self, addr: None)
        self.assertIsNone(factory.buildProtocol(None))
        self.failureResultOf(connecting, NoProtocol)

    def test_failing_protocol(self) -> None:
        """The error of a protocol that cannot take its connection is that of the attempt."""

        class Failing(Protocol):
            @override
            def connectionMade(self) -> None:
                raise ValueError("no such name")

        connecting = self.connect(Failing)
        server = ServerSide(self.reactor)
        self.failureResultOf(connecting, ValueError)
        self.reactor.advance(0.0)
        self.assertTrue(server.transport.ended)

    def test_lost(self) -> None:
        """What was needed to connect is let go when the connection is lost."""
        self.connect()
        connector: Any = self.reactor.connectors[0]
        connector.transport = object()
        self.reactor.tcpClients[0][2].clientConnectionLost(connector, cast(Any, None))
        self.assertIsNone(connector.transport)
