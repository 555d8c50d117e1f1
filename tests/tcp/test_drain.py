"""A server that stops ends its clients a few at a time, and all of them in time."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Reactor
from tests.tcp.server_case import ServerTestCase
from twisted_net.reasons import End
from twisted_net.tcp.drain import STEP, TURNS_PER_BATCH, Drain
from twisted_net.turns.steps import CLIENTS_AT_ONCE, ENDS_AT_ONCE


class Client:
    """
    A connection.

    :ivar told: whether the end was announced to it.
    :ivar finished: when it was ended, in seconds; None before.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.told = False
        self.finished: float | None = None

    def announce(self) -> None:
        """Note that it was told."""
        assert not self.told
        self.told = True

    def finish(self, end: End) -> None:
        """Note the time."""
        assert end is End.DRAINED
        assert self.told
        assert self.finished is None
        self.finished = self._clock.seconds()


class DrainTests(SynchronousTestCase):
    """:class:`Drain`."""

    def setUp(self) -> None:
        self.clock = Clock()

    def drain(self, count: int, per_second: float, timeout: float) -> list[Client]:
        """Drain so many clients, and return them once all were ended or time is out."""
        clock = self.clock = Clock()
        clients = [Client(clock) for _ in range(count)]
        Drain(clock, clients, per_second, timeout, Client.announce).begin()
        clock.advance(0)
        while clock.getDelayedCalls():
            clock.advance(STEP)
        return clients

    def test_few_at_once(self) -> None:
        """As many as a step takes are ended at once, without any waiting."""
        clients = self.drain(100, per_second=2000, timeout=10)
        self.assertEqual({client.finished for client in clients}, {0.0})

    def test_spread(self) -> None:
        """More are spread at the rate that was asked, in their order."""
        clients = self.drain(1000, per_second=1000, timeout=10)
        times = [client.finished for client in clients]
        self.assertEqual(times, sorted(times, key=lambda time: time or 0.0))
        self.assertAlmostEqual(times[-1] or 0.0, 0.95)
        self.assertEqual(times.count(0.0), 50)

    @given(st.integers(0, 3000), st.floats(0.1, 1e6), st.floats(0, 60))
    def test_in_time(self, count: int, per_second: float, timeout: float) -> None:
        """All are ended within half of the time, and each once, whatever the rate."""
        for client in self.drain(count, per_second, timeout):
            assert client.finished is not None
            self.assertLessEqual(client.finished, timeout / 2 + STEP)

    def test_turns(self) -> None:
        """Many are told, and ended, a bounded number in each turn; each is told before."""
        reactor = Reactor()
        clients = [Client(reactor) for _ in range(1000)]
        Drain(reactor, clients, 10_000, 10, Client.announce).begin()
        told = finished = 0
        while finished < 500:
            for before, at_once, now in (
                (told, CLIENTS_AT_ONCE, sum(client.told for client in clients)),
                (finished, ENDS_AT_ONCE, sum(client.finished is not None for client in clients)),
            ):
                self.assertLessEqual(now - before, at_once)
            told = sum(client.told for client in clients)
            finished = sum(client.finished is not None for client in clients)
            reactor.turn()
        self.assertEqual(told, 1000)
        # The first batch is ended as it comes to its turn, the second one has its time.
        self.assertEqual(reactor.seconds(), 0)

    def test_bug(self) -> None:
        """A connection whose end fails is logged; those of the next batches end all the same."""
        clients = [Client(self.clock) for _ in range(10)]
        clients[0].finished = -1.0  # so that it fails
        Drain(self.clock, clients, 40, 10, Client.announce).begin()
        while self.clock.getDelayedCalls():
            self.clock.advance(STEP)
        gc.collect()  # an unhandled failure is logged when it is collected
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)
        self.assertNotIn(None, {client.finished for client in clients})

    def test_hurry(self) -> None:
        """If all have little time, more are ended in each turn; none before it is told."""
        reactor = Reactor()
        clients = [Client(reactor) for _ in range(5000)]
        Drain(reactor, clients, 10, 0.1, Client.announce).begin()
        turns = reactor.turns
        reactor.settle()
        self.assertNotIn(None, {client.finished for client in clients})
        self.assertLessEqual(reactor.turns - turns, TURNS_PER_BATCH + 2)

    def test_over_early(self) -> None:
        """If no connection is left, nothing is waited for, and no call remains."""
        clients = [Client(self.clock) for _ in range(10)]
        drain = Drain(self.clock, clients, 20, 10, Client.announce)
        aborted: list[None] = []
        first = drain.wait(10, lambda: aborted.append(None))
        second = drain.wait(5, lambda: aborted.append(None))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        drain.begin()
        drain.complete()
        self.successResultOf(first)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(aborted, [])

    def test_deadline(self) -> None:
        """At the deadline the connections are aborted, and those who wait still wait."""
        aborted: list[float] = []
        drain = Drain(self.clock, [Client(self.clock)], 20, 10, Client.announce)
        drain.begin()
        waiting = drain.wait(3, lambda: aborted.append(self.clock.seconds()))
        self.clock.advance(3)
        self.assertEqual(aborted, [3.0])
        self.assertNoResult(waiting)
        drain.complete()
        self.successResultOf(waiting)


class ServedMeanwhileTests(ServerTestCase):
    """Clients whose turn has not come are notified, and served until it does."""

    def test_served(self) -> None:
        """The last of three clients is answered while the first two go."""
        clients = [self.connect() for _ in range(3)]
        drained = self.factory.drain(10, per_second=1)
        self.reactor.settle()
        for client in clients:
            self.assertEqual(client.answers(), [{"event": "shutdown", "timeout": 10}])
        served = [client for client in clients if not client.gone]
        self.assertEqual(len(served), 2)
        for client in served:
            client.send(b"PING\n")
        self.reactor.settle()
        self.assertEqual([self.results(client) for client in served], [["PONG"], ["PONG"]])
        self.reactor.pass_time(5)
        self.successResultOf(drained)
        self.assert_over(drained=3)

    def test_gone_before_its_turn(self) -> None:
        """A client that leaves by itself meanwhile is counted as it left."""
        clients = [self.connect() for _ in range(3)]
        drained = self.factory.drain(10, per_second=1)
        self.reactor.settle()
        self.leave(*(client for client in clients if not client.gone))
        self.reactor.settle()
        self.successResultOf(drained)
        self.assert_over(drained=1, client_closed=2)
