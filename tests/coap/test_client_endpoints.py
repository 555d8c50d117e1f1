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
from twisted_net.coap.errors import CoapHostUnreachable
from twisted_net.coap.exchange import OutgoingMessage, Peer
from twisted_net.coap.settings import CoapClientSettings
from twisted_net.net.addresses import Source

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

    def test_nobody_listens(self) -> None:
        """The error says at which port nobody listens: the servers of a host are many."""
        heard: list[object] = []
        with self.opened() as (reactor, endpoint):
            message = CoapMessage(Type.CON, Code.GET, 1, b"a", [])
            outgoing = endpoint.layer.send_request(message, SERVER, reactor.seconds(), 0.5)
            endpoint.waiting.add(outgoing, heard.append)
            endpoint.refused(SERVER)
        self.assertEqual(
            [str(error) for error in heard],
            ["cannot reach 192.0.2.1: nobody listens at port 5683"],
        )


class ReportTests(SynchronousTestCase):
    """:meth:`ClientEndpoint.report` tells what the kernel says of its own datagram."""

    def test_error_of_another_port(self) -> None:
        """A report is no failure if its host has refused, meanwhile, what went to another port."""
        endpoint = ClientEndpoint(cast(Any, Clock()), CoapClientSettings())
        refused: list[Source] = []

        class Transport:
            def write(self, datagram: bytes, addr: Source) -> None:
                endpoint.refused(refused.pop())

        endpoint.transport = cast(Any, Transport())
        refused.append((SERVER[0], 1))
        endpoint.report(CoapMessage(Type.NON, Code.POST), SERVER)
        refused.append(SERVER)
        report = CoapMessage(Type.NON, Code.POST)
        self.assertRaises(CoapHostUnreachable, endpoint.report, report, SERVER)
        self.assertEqual(refused, [])


class Address(tuple[str, int]):
    """An address that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Address.compared += 1
        return super().__eq__(other)

    __hash__ = tuple.__hash__


class WaitingCallsTests(SynchronousTestCase):
    """:class:`WaitingCalls` of a client that asks many servers."""

    def setUp(self) -> None:
        self.endpoint = ClientEndpoint(cast(Any, Clock()), CoapClientSettings())
        self.ended: list[object] = []

    def ask(self, server: Source) -> OutgoingMessage:
        """Wait for the response to a message."""
        message = CoapMessage(Type.CON, Code.GET, token=b"%d" % len(self.endpoint.waiting))
        outgoing = self.endpoint.layer.send_request(message, server, 0.0, 0.0)
        self.endpoint.waiting.add(outgoing, self.ended.append)
        return outgoing

    def test_refused(self) -> None:
        """A server that refuses ends its own calls; those to others are not looked through."""
        for number in range(1000):
            self.ask(cast(Source, Address(("192.0.2.9", number + 1))))
        self.ask(SERVER)
        self.ask(SERVER)
        Address.compared = 0
        self.endpoint.refused(SERVER)
        self.assertEqual([type(each) for each in self.ended], [CoapHostUnreachable] * 2)
        self.assertTrue(Address.compared <= 10, Address.compared)
        self.assertEqual(len(self.endpoint.waiting), 1000)

    def test_table(self) -> None:
        """A message is there until it is taken, and nothing is left of its server then."""
        waiting = self.endpoint.waiting
        first, second = self.ask(SERVER), self.ask(SERVER)
        self.assertEqual(waiting.at(SERVER), [first, second])
        self.assertIn(first, waiting)
        self.assertIsNotNone(waiting.pop(first))
        self.assertNotIn(first, waiting)
        self.assertIsNone(waiting.pop(first))
        self.assertIsNone(waiting.get(first))
        self.assertTrue(waiting)
        self.assertEqual(len(waiting.pop_all()), 1)
        self.assertEqual((bool(waiting), waiting.at(SERVER)), (False, []))
        self.assertIsNone(waiting.pop(second))


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
