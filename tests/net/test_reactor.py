"""Tests of :mod:`twisted_net.net.reactor`."""

from __future__ import annotations

from twisted.internet.base import ReactorBase
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.reactor import DatagramReactor, Reactor, ServiceReactor, ThreadedReactor


def members(*protocols: type) -> list[str]:
    """The names that these protocols ask for."""
    return [name for protocol in protocols for name in vars(protocol) if not name.startswith("_")]


class ReactorTests(SynchronousTestCase):
    """The protocols ask for what reactors have; mypy compares the signatures."""

    def test_real(self) -> None:
        """Twisted's own reactors have every member, and are the types that are asked for."""
        for name in members(Reactor, DatagramReactor, ThreadedReactor):
            self.assertTrue(hasattr(EPollReactor, name), name)
        self.assertTrue(issubclass(EPollReactor, ReactorBase))

        def accepted(reactor: EPollReactor) -> ServiceReactor:
            return reactor

        self.assertIsNotNone(accepted)

    def test_memory(self) -> None:
        """So has the reactor in memory, but for sockets of UDP and threads."""
        reactor: Reactor = MemoryReactorClock()
        for name in members(Reactor):
            self.assertTrue(hasattr(reactor, name), name)

    def test_asked(self) -> None:
        """The list of members that this looks at is not empty."""
        self.assertIn("callLater", members(Reactor))
        self.assertEqual(members(DatagramReactor), ["listenUDP"])
