"""Several command servers with the same sessions, as the listeners of one service are."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Reactor
from twisted_net.commands.standard import standard_commands
from twisted_net.sessions import Sessions
from twisted_net.tcp.server import CommandFactory


async def _fetch(url: str) -> dict[str, object]:
    raise NotImplementedError(url)


class SharedSessionsTests(SynchronousTestCase):
    """Two :class:`CommandFactory` over the same :class:`Sessions`."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.sessions = Sessions(self.reactor.seconds)
        self.first, self.second = (
            CommandFactory(self.reactor, standard_commands(_fetch), sessions=self.sessions)
            for _ in range(2)
        )

    def test_one_registry(self) -> None:
        """A broadcast of one server's client reaches the clients of the other."""
        asking = self.reactor.connect(self.first)
        other = self.reactor.connect(self.second)
        self.reactor.settle()
        asking.send(b"BROADCAST hello\n")
        self.reactor.settle()
        self.assertEqual(other.answers()[0]["message"], "hello")
        self.assertEqual(len(self.sessions), 2)

    def test_drain_of_one(self) -> None:
        """Draining one server tells and ends its own clients alone."""
        gone = self.reactor.connect(self.first)
        stays = self.reactor.connect(self.second)
        drained = self.first.drain(10)
        self.reactor.settle()
        self.successResultOf(drained)
        self.assertEqual(gone.answers()[0]["event"], "shutdown")
        self.assertEqual(stays.received(), b"")
        stays.send(b"PING\n")
        self.reactor.settle()
        self.assertEqual(stays.answers()[0]["result"], "PONG")
