"""Commands of those who leave are cancelled some in each turn, and others are served between."""

from __future__ import annotations

import gc
import weakref
from functools import partial

from twisted.internet.address import IPv4Address
from twisted.python import failure
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.kinds import KINDS
from tests.tcp.memory import Connection, Reactor
from tests.tcp.server_case import ServerTestCase
from tests.tcp.test_ends import KindsTestCase
from twisted_net.commands import cancellations
from twisted_net.commands.cancellations import FEW, Cancellable, Cancellations
from twisted_net.turns.steps import CANCELLED_AT_ONCE

WAITING = 64
"""Commands that each client has waiting: ``tcp.max_pending``."""


class Waiter:
    """Something that is cancelled; may fail by that."""

    def __init__(self, log: list[int], number: int, *, fails: bool = False) -> None:
        self._log = log
        self._number = number
        self._fails = fails

    def cancel(self) -> None:
        """Note it."""
        self._log.append(self._number)
        if self._fails:
            raise ZeroDivisionError("a bug")


class CancellationsTests(SynchronousTestCase):
    """:class:`Cancellations` cancels at a bounded pace."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.log: list[int] = []
        self.done = 0
        self.cancellations = Cancellations(self.reactor, self._done)

    def _done(self) -> None:
        self.done += 1

    def add(self, count: int) -> None:
        """Let a client leave that has so many commands."""
        waiters: list[Cancellable] = [Waiter(self.log, i) for i in range(count)]
        self.cancellations.add(waiters)

    def test_few(self) -> None:
        """A few are cancelled at once, though others wait."""
        self.add(3 * CANCELLED_AT_ONCE)
        self.log.clear()
        self.add(FEW)
        self.assertEqual(self.log, list(range(FEW)))

    def test_many(self) -> None:
        """So many are cancelled in each turn, in order, and then that is told."""
        for _ in range(3):
            self.add(CANCELLED_AT_ONCE)
        found = [len(self.log)]
        while self.cancellations.busy:
            self.assertEqual(self.done, 0)
            self.reactor.turn()
            found.append(len(self.log))
        size = CANCELLED_AT_ONCE
        self.assertEqual(found, [size, 2 * size, 3 * size, 3 * size])
        self.assertEqual(self.log, list(range(size)) * 3)
        self.assertEqual((self.reactor.getDelayedCalls(), self.done), ([], 1))

    def test_bounded(self) -> None:
        """Where too many wait, those of one more client are cancelled at once."""
        self.patch(cancellations, "MAX_LEFT", 4 * CANCELLED_AT_ONCE)
        self.add(4 * CANCELLED_AT_ONCE)
        self.log.clear()
        self.add(2 * CANCELLED_AT_ONCE)
        self.assertEqual(len(self.log), 2 * CANCELLED_AT_ONCE)

    def test_stop(self) -> None:
        """All that are left are cancelled, and no call is."""
        self.add(3 * CANCELLED_AT_ONCE)
        self.cancellations.stop()
        self.assertEqual(len(self.log), 3 * CANCELLED_AT_ONCE)
        self.assertEqual((self.cancellations.busy, self.reactor.getDelayedCalls()), (False, []))

    def test_failure(self) -> None:
        """One that fails is logged, and the others follow."""
        for count in (FEW, 3 * FEW):
            waiters: list[Cancellable] = [Waiter(self.log, i, fails=i == 1) for i in range(count)]
            self.cancellations.add(waiters)
            self.reactor.settle()
            self.assertEqual(self.log, list(range(count)))
            self.log.clear()
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.done, 1)


class ManyLeaveTests(ServerTestCase):
    """Many leave in one turn, each with many commands that wait."""

    COUNT = 20

    def setUp(self) -> None:
        super().setUp()
        self.other = self.connect(peer=IPv4Address("TCP", "192.0.2.9", 1))
        self.clients = [self.connect(b"WAIT x\n" * WAITING) for _ in range(self.COUNT)]
        self.cancelled: list[int] = []

    def reset_all(self) -> None:
        """Let them leave."""
        for client in self.clients:
            client.reset()

    def count(self) -> int:
        """Return how many commands were cancelled so far."""
        return self.handlers.log.count("cancelled x")

    def test_one(self) -> None:
        """To end a connection makes one Failure for each command, and one for the connection."""
        before = failure.count
        self.clients[0].reset()
        self.assertEqual(self.count(), WAITING)
        self.assertLessEqual(failure.count - before, WAITING + 1)
        self.leave(self.other, *self.clients)

    def test_served_between(self) -> None:
        """So many are cancelled in each turn; others' commands and timers run between."""
        timed: list[int] = []
        self.reset_all()
        self.assertEqual(self.count(), CANCELLED_AT_ONCE)
        self.reactor.callLater(0, lambda: timed.append(self.count()))
        self.other.send(b"CLIENTS\nPING\nSOON x\n")
        before = self.count()
        turns = 0
        while self.reactor.turn():
            self.assertLessEqual(self.count() - before, CANCELLED_AT_ONCE)
            before = self.count()
            turns += 1
            if turns == 4:
                clients, ping, soon = self.other.answers()
                self.assertEqual(clients["count"], 1)
                self.assertEqual((ping["result"], soon["result"]), ("PONG", "x"))
                self.assertLess(self.count(), 8 * CANCELLED_AT_ONCE)
        self.assertEqual(self.count(), self.COUNT * WAITING)
        self.assertLessEqual(timed[0], 2 * CANCELLED_AT_ONCE)
        self.leave(self.other)
        self.assert_over(connection_lost=self.COUNT, client_closed=1)

    def test_ended_meanwhile(self) -> None:
        """A command that ends by itself before its turn is not cancelled, and answers nobody."""
        self.reset_all()
        self.handlers.waits[-1].callback("late")
        self.handlers.waits[-2].errback(ZeroDivisionError("late"))
        self.reactor.settle()
        self.assertEqual(self.count(), self.COUNT * WAITING - 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.leave(self.other)

    def test_released(self) -> None:
        """What they waited for is freed without the garbage collector, and they are by it."""
        commands = [weakref.ref(wait) for wait in self.handlers.waits]
        self.handlers.waits.clear()
        self.handlers.words.clear()
        gc.disable()
        self.addCleanup(gc.enable)
        self.reset_all()
        self.reactor.settle()
        self.assertEqual({ref() for ref in commands}, {None})
        # The connections of these tests refer to their protocols, and these to them.
        protocols = [weakref.ref(client.protocol) for client in self.clients]
        self.clients.clear()
        gc.collect()
        self.assertEqual({ref() for ref in protocols}, {None})
        self.leave(self.other)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_drain(self) -> None:
        """A drain waits until all are cancelled, and leaves nothing to do."""
        self.leave(self.other)
        drained = self.factory.drain(9)
        self.reset_all()
        while self.count() < self.COUNT * WAITING:
            self.assertNoResult(drained)
            self.reactor.turn()
        self.reactor.turn()
        self.successResultOf(drained)
        self.assert_over(connection_lost=self.COUNT, client_closed=1)

    def test_drain_in_time(self) -> None:
        """So does one whose time is over before."""
        drained = self.factory.drain(1)
        self.reactor.pass_time(0.9)
        self.assertNoResult(drained)
        self.reactor.pass_time(0.2)
        self.successResultOf(drained)
        self.assertEqual(self.count(), self.COUNT * WAITING)
        self.assertEqual(self.reactor.connections, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class KindsTests(KindsTestCase):
    """It is so over every kind of listener."""

    def test_all(self) -> None:
        """Ten leave: some commands are cancelled in each turn, all in the end."""
        for name, kind in KINDS.items():
            case = self.case(kind)
            clients = [case.door.client() for _ in range(10)]
            for client in clients:
                client.send(*[b"WAIT x"] * 16)
                client.settle()
            with self.subTest(kind=name):
                self.check_paced([client.connection for client in clients], case.handlers.log)
                self.assertEqual(case.reactor.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def check_paced(self, connections: list[Connection], log: list[str]) -> None:
        """Let them leave, and look at each turn."""
        count = partial(log.count, "cancelled x")
        reactor = connections[0]._reactor
        for connection in connections:
            connection.reset()
        before = count()
        self.assertLessEqual(before, CANCELLED_AT_ONCE)
        while reactor.turn() or before != count():
            self.assertLessEqual(count() - before, CANCELLED_AT_ONCE)
            before = count()
        self.assertEqual(before, 160)
