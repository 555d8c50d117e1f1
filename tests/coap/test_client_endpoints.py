"""Tests of :mod:`twisted_net.coap.client_endpoints`."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.client_endpoints import ClientEndpoint
from twisted_net.coap.codec import CoapMessage, Code, Type
from twisted_net.coap.exchange import OutgoingMessage, Peer
from twisted_net.coap.settings import CoapClientSettings

SERVER = ("192.0.2.1", 5683)


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
