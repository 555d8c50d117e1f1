"""Tests of broadcasts to many clients of :mod:`twisted_net.tcp.server`."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Connection, Reactor
from twisted_net.commands.standard import standard_commands
from twisted_net.reasons import Refusal
from twisted_net.tcp.server import CommandFactory
from twisted_net.turns.broadcast_scheduler import MAX_WAITING
from twisted_net.turns.steps import CLIENTS_AT_ONCE


class BroadcastTests(SynchronousTestCase):
    """``BROADCAST`` to many clients leaves room for the others."""

    CLIENTS = 2 * CLIENTS_AT_ONCE + 10

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.factory = CommandFactory(self.reactor, standard_commands())
        self.addCleanup(self.factory.abort)
        self.clients = [self.reactor.connect(self.factory) for _ in range(self.CLIENTS)]
        self.first, self.last = self.clients[0], self.clients[-1]

    def got(self, connection: Connection) -> list[str]:
        """Take what a client has got: the words of broadcasts, or the names of commands."""
        return [answer.get("message") or answer["command"] for answer in connection.answers()]

    def reached(self) -> int:
        """Count the clients that have been written to."""
        return sum(bool(client.writes) for client in self.clients)

    def test_turns(self) -> None:
        """So many get it in each turn, and who asks meanwhile is answered meanwhile."""
        self.last.send(b"BROADCAST one\n")
        self.reactor.turn()
        self.assertEqual(self.reached(), CLIENTS_AT_ONCE)
        self.clients[-2].send(b"PING\n")
        self.reactor.turn()
        self.assertEqual(self.reached(), 2 * CLIENTS_AT_ONCE + 1)
        self.assertEqual(self.got(self.clients[-2]), ["PING"])
        self.reactor.settle()
        self.assertEqual(self.got(self.clients[-2]), ["one"])
        event, answer = self.last.answers()
        self.assertEqual((event["message"], answer["delivered"]), ("one", self.CLIENTS))
        self.assertEqual(answer["failed"], 0)

    def test_order(self) -> None:
        """Of two, everybody gets the first one first; answers keep their order too."""
        self.first.send(b"BROADCAST one\nECHO x\n")
        self.last.send(b"BROADCAST two\n")
        self.reactor.settle()
        self.assertEqual(self.got(self.first), ["one", "two", "BROADCAST", "ECHO"])
        self.assertEqual(self.got(self.last), ["one", "two", "BROADCAST"])
        for client in self.clients[1:-1]:
            self.assertEqual(self.got(client), ["one", "two"])

    def test_order_of_few(self) -> None:
        """So few are left that one turn reaches them all: they get the first one first, too."""
        self.first.send(b"BROADCAST one\n")
        self.reactor.turn()
        for client in self.clients[:-CLIENTS_AT_ONCE]:
            client.reset()
        self.last.send(b"BROADCAST two\n")
        self.reactor.settle()
        for client in self.clients[-CLIENTS_AT_ONCE:-1]:
            self.assertEqual(self.got(client), ["one", "two"])
        self.assertEqual(self.got(self.last), ["one", "two", "BROADCAST"])

    def test_left(self) -> None:
        """One whose client has left goes on; those who leave meanwhile are reported as failures."""
        self.first.send(b"BROADCAST one\n")
        self.clients[1].send(b"BROADCAST two\n")
        self.reactor.turn()
        self.first.reset()
        self.last.reset()
        self.reactor.settle()
        for client in self.clients[2:-1]:
            self.assertEqual(self.got(client), ["one", "two"])
        *_, answer = self.clients[1].answers()
        self.assertEqual((answer["delivered"], answer["failed"]), (self.CLIENTS - 2, 0))
        self.assertEqual(self.factory.sessions.counters.undelivered, 1)

    def test_left_before(self) -> None:
        """What a client that has left asked for is dropped, unless it had begun to go out."""
        self.first.send(b"BROADCAST one\nBROADCAST two\nBROADCAST three\n")
        self.last.send(b"BROADCAST four\n")
        self.reactor.turn()
        self.first.reset()
        self.reactor.settle()
        for client in self.clients[1:-1]:
            self.assertEqual(self.got(client), ["one", "four"])
        self.assertEqual(self.got(self.last), ["one", "four", "BROADCAST"])

    def test_too_many(self) -> None:
        """Those over the bound are answered with ``busy``; the others are all sent."""
        per_client = self.factory.limits.max_pending
        asking = self.clients[: MAX_WAITING // per_client + 1]
        for client in asking:
            client.send(b"BROADCAST x\n" * per_client)
        self.reactor.settle()
        codes = Counter(
            answer.get("code", "sent")
            for client in asking
            for answer in client.answers()
            if "command" in answer
        )
        surplus = per_client * len(asking) - MAX_WAITING
        self.assertEqual(codes, {"sent": MAX_WAITING, "busy": surplus})
        self.assertEqual(self.factory.sessions.counters.refusals[Refusal.BUSY], surplus)

    def test_aborted(self) -> None:
        """A server that ends all connections meanwhile has nothing left to do soon."""
        self.first.send(b"BROADCAST one\n")
        self.reactor.turn()
        self.factory.abort()
        self.reactor.settle()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
