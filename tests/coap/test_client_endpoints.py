"""Tests of :mod:`twisted_net.coap.client_endpoints`."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.udp import Port
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.client_endpoints import ClientEndpoint, EndpointPool
from twisted_net.coap.codec import CoapMessage, Code, Type
from twisted_net.coap.exchange import OutgoingMessage, Peer
from twisted_net.coap.settings import CoapClientSettings

SERVER = ("192.0.2.1", 5683)

HERE = "127.0.0.1"


class SocketReactor(MemoryReactorClock):
    """A reactor that opens real sockets, and reads what a test says."""

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192
    ) -> Port:
        """Listen as Twisted does."""
        reactor: Any = self  # Any: it is no reactor to mypy
        opened = Port(port, protocol, interface, maxPacketSize, reactor)
        opened.startListening()
        return opened


class FloodTests(SynchronousTestCase):
    """What a server sends is read in the turns of all."""

    @contextmanager
    def opened(self) -> Iterator[tuple[SocketReactor, ClientEndpoint]]:
        """Open the endpoint of a client, for the block."""
        reactor = SocketReactor()
        pool = EndpointPool(cast(Any, reactor), CoapClientSettings(), None)
        endpoint = pool._plain_endpoint(False)
        try:
            yield reactor, endpoint
        finally:
            endpoint.close()
            reactor.advance(0)
            self.assertEqual(reactor.getReaders(), [])

    def test_read_in_turns(self) -> None:
        """However many datagrams a server sends, and be they empty, few are read at once."""
        for datagram in (b"", b"\x50\x45\x00\x01"):
            with (
                self.opened() as (reactor, endpoint),
                socket.socket(type=socket.SOCK_DGRAM) as sock,
            ):
                assert endpoint.port is not None
                address: Any = endpoint.port.getHost()  # Any: it says IAddress
                to = HERE, address.port
                for _ in range(100):
                    sock.sendto(datagram, to)
                (reader,) = reactor.getReaders()
                reader.doRead()
                self.assertTrue(1 <= endpoint.layer.counts.received <= 64)

    def test_errors(self) -> None:
        """A datagram that the kernel rejects raises its error, by which the call ends at once."""
        with self.opened() as (_, endpoint):
            transport: Any = endpoint.transport
            with self.assertRaises(OSError):
                transport.write(b"x", ("255.255.255.255", 9))


class SilentSinceTests(SynchronousTestCase):
    """:meth:`ClientEndpoint.silent_since` recognises a server that has lost its sessions."""

    def setUp(self) -> None:
        # Any: this endpoint only reads the clock.
        self.endpoint = ClientEndpoint(cast(Any, Clock()), CoapClientSettings())
        message = CoapMessage(Type.CON, Code.GET, 1, b"a", ())
        self.outgoing = OutgoingMessage(Peer(SERVER, 1, 0.0), message, 5.0, 0.0, False)
        self.outgoing.retransmissions = 1

    def test_silent(self) -> None:
        """A datagram that came before, or with the same clock reading, breaks no silence."""
        for last in (float("-inf"), 4.0, 5.0):
            self.endpoint.last_received = last
            self.assertTrue(self.endpoint.silent_since(self.outgoing), last)

    def test_heard(self) -> None:
        """A datagram that came later does."""
        self.endpoint.last_received = 5.001
        self.assertFalse(self.endpoint.silent_since(self.outgoing))

    def test_not_retransmitted(self) -> None:
        """A message that was sent once says nothing yet."""
        self.outgoing.retransmissions = 0
        self.assertFalse(self.endpoint.silent_since(self.outgoing))
