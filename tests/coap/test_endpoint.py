"""Tests for :mod:`twisted_net.coap.endpoint`."""

from __future__ import annotations

from typing import cast

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.coap.coap_driver import Transport
from twisted_net.coap.codec import CoapMessage, Code, Type, encode_message
from twisted_net.coap.endpoint import CoapEndpoint
from twisted_net.coap.exchange import Event, IncomingMessage, MessageFailed
from twisted_net.coap.server import CoapServer
from twisted_net.coap.settings import TransmissionParameters
from twisted_net.commands.registry import Commands
from twisted_net.net.addresses import Source

PEER = ("192.0.2.1", 5683)
PARAMETERS = TransmissionParameters(ack_random_factor=1)
REQUEST = encode_message(CoapMessage(Type.CON, Code.GET, 1, b"t"))


class Endpoint(CoapEndpoint):
    """Keeps the events."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(cast(IReactorTime, clock), PARAMETERS, 0)
        self.events: list[tuple[Event, float]] = []

    def _handle_event(self, event: Event, now: float) -> None:
        self.events.append((event, now))


class Narrow(Transport):
    """Carries no datagram at all."""

    def write(self, datagram: bytes, addr: Source) -> None:
        raise MessageLengthError("too long")


class CoapEndpointTests(SynchronousTestCase):
    """:class:`CoapEndpoint` runs a message layer on a transport and a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.transport = Transport()
        self.endpoint.transport = self.transport  # type: ignore[assignment]  # a fake

    def send(self) -> None:
        """Send a request."""
        message = CoapMessage(Type.CON, Code.GET, token=b"q")
        self.endpoint.layer.send_request(message, PEER, self.clock.seconds(), 0)
        self.endpoint.flush()

    def test_receive(self) -> None:
        """A datagram becomes an event; without a transport it is ignored."""
        self.clock.advance(5)
        self.endpoint.datagramReceived(REQUEST, PEER)
        ((event, now),) = self.endpoint.events
        assert isinstance(event, IncomingMessage)
        self.assertEqual((event.source, event.group, now), (PEER, False, 5))
        self.endpoint.transport = None
        self.endpoint.datagramReceived(encode_message(CoapMessage(0, 1, 2)), PEER)
        self.assertEqual(len(self.endpoint.events), 1)

    def test_group(self) -> None:
        """A confirmable request to a group is ignored, as the message layer has it."""
        self.endpoint.receive(REQUEST, PEER, group=True)
        self.assertEqual(self.endpoint.events, [])

    def test_timer(self) -> None:
        """One delayed call retransmits, and reports what failed."""
        self.send()
        for wait, sent in ((0, 1), (2, 2), (4, 3), (8, 4), (16, 5)):
            self.clock.advance(wait)
            self.assertEqual(len(self.transport.written), sent)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(32)
        ((event, now),) = self.endpoint.events
        self.assertIsInstance(event, MessageFailed)
        self.assertEqual(now, 62)
        # What is left is the end of the peer's lifetime.
        self.clock.advance(PARAMETERS.exchange_lifetime - 62)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_earlier_timer(self) -> None:
        """What is due earlier moves the delayed call; what is due later does not."""
        self.send()
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime(), 2)
        # Its empty acknowledgement is due after 0.1 s.
        self.endpoint.receive(REQUEST, PEER)
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime(), 0.1)
        self.send()
        self.assertEqual(self.clock.getDelayedCalls(), [call])

    def test_stop(self) -> None:
        """The delayed call ends with the transport."""
        self.send()
        self.endpoint.stopProtocol()
        self.endpoint.stopProtocol()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_long(self) -> None:
        """A datagram that the transport cannot carry raises; a server drops and counts it."""
        self.endpoint.transport = Narrow()  # type: ignore[assignment]  # a fake
        self.assertRaises(MessageLengthError, self.send)
        server = CoapServer(cast(IReactorTime, self.clock), Commands())
        server.transport = Narrow()  # type: ignore[assignment]  # a fake
        server.receive(REQUEST, PEER)
        self.assertEqual(server.datagrams.dropped, 1)
        server.stopProtocol()
