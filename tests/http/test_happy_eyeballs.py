"""Tests of :mod:`twisted_net.http.happy_eyeballs`."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol

from tests.http.fakes import ServerSide, refuse
from tests.http.pools import PoolTestCase
from twisted_net.http.errors import CannotConnect
from twisted_net.http.happy_eyeballs import STAGGER, connect_first, interleave
from twisted_net.http.urls import parse_target


class HappyEyeballsTests(PoolTestCase):
    """Several addresses are tried in turn, according to RFC 8305."""

    def test_in_turn(self) -> None:
        """Families alternate; each has a quarter of a second before the next."""
        connecting = self.pool.connect(parse_target("http://both.example/"))
        self.assertEqual(self.hosts(), ["1.1.1.1"])
        self.reactor.advance(STAGGER)
        self.assertEqual(self.hosts(), ["1.1.1.1", "2606::1"])
        ServerSide(self.reactor, 1)
        self.successResultOf(connecting)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assert_quiet(self.reactor)

    def test_failure_starts_the_next(self) -> None:
        """The next is tried at once when one fails; if all fail, the first error is raised."""
        connecting = self.pool.connect(parse_target("http://both.example/"))
        for i in range(4):
            self.assertEqual(len(self.hosts()), i + 1)
            refuse(self.reactor, ConnectError(f"reason {i}"))
        error = self.failureResultOf(connecting, CannotConnect).value
        self.assertIn("reason 0", str(error))
        self.assert_quiet(self.reactor)

    def test_last_ones_pending(self) -> None:
        """A failure while another attempt is running does not end the race."""
        connecting = self.pool.connect(parse_target("http://both.example/"))
        self.reactor.advance(STAGGER)
        for _ in range(2):
            refuse(self.reactor, ConnectError())
        refuse(self.reactor, ConnectError())
        self.assertNoResult(connecting)
        ServerSide(self.reactor, 0)
        self.successResultOf(connecting)

    def test_two_at_once(self) -> None:
        """Of two that connect in the same turn the second is dropped."""

        class Stubborn:
            def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
                attempt: Deferred[IProtocol] = Deferred(lambda _: attempt.callback(second))
                return attempt

        second, wire = self.open()
        endpoints = [TCP4ClientEndpoint(self.reactor, "1.1.1.1", 80), Stubborn()]
        factory: Any = Factory.forProtocol(Protocol)  # Any: of the narrower type that mypy infers
        racing = connect_first(
            self.reactor, cast(Any, endpoints), factory, 10.0
        )  # Any: one is a fake
        self.reactor.advance(STAGGER)
        ServerSide(self.reactor)
        self.assertIsInstance(self.successResultOf(racing), Protocol)
        self.assertTrue(wire.transport.ended)

    def test_cancel(self) -> None:
        """Cancelling stops all attempts, and the timer."""
        connecting = self.pool.connect(parse_target("http://both.example/"))
        self.reactor.advance(STAGGER)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(all(c.stoppedConnecting for c in self.reactor.connectors))
        self.assert_quiet(self.reactor)

    def test_interleave(self) -> None:
        """The family of the first address is first."""
        self.assertEqual(interleave(["::1", "1", "2", "::2"]), ["::1", "1", "::2", "2"])
        self.assertEqual(interleave(["1", "2"]), ["1", "2"])
        self.assertEqual(interleave([]), [])
