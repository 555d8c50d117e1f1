"""Tests of :class:`twisted_net.turns.broadcast_scheduler.BroadcastScheduler`."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Reactor
from twisted_net.errors import TooBusy
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.turns.broadcast_scheduler import BroadcastScheduler

STEPS = 3


class BroadcastSchedulerTests(SynchronousTestCase):
    """:class:`BroadcastScheduler`."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.memory = MemoryLedger(5000)
        self.scheduler = BroadcastScheduler(
            self.reactor, limit=4, max_bytes=100, memory=self.memory
        )
        self.log: list[str] = []

    def steps(self, name: str, count: int) -> Iterator[int]:
        """Return steps that are logged."""
        for i in range(count):
            self.log.append(f"{name}{i}")
            yield i

    def send(
        self, name: str, sender: str = "a", size: int = 1, count: int = STEPS
    ) -> Deferred[list[int]]:
        """Send an event."""
        return self.scheduler(self.steps(name, count), sender, size)

    def settle(self) -> None:
        """Let all events be sent."""
        self.reactor.settle()

    def order(self) -> list[str]:
        """Return the names of the events in the order in which they began."""
        return [entry[:-1] for entry in self.log if entry.endswith("0")]

    def test_one_after_the_other(self) -> None:
        """The first step is made at once, each other one in a turn of its own; then the next."""
        first, second = self.send("x"), self.send("y")
        self.assertEqual(self.log, ["x0"])
        self.reactor.turn()
        self.assertEqual(self.log, ["x0", "x1"])
        self.settle()
        self.assertEqual(self.log, ["x0", "x1", "x2", "y0", "y1", "y2"])
        self.assertEqual(self.successResultOf(first), [0, 1, 2])
        self.assertEqual(self.successResultOf(second), [0, 1, 2])
        self.assertEqual((len(self.scheduler), self.memory.total), (0, 0))

    def test_turns(self) -> None:
        """Senders take turns, whoever sends most; the events of each keep their order."""
        for name in ("a1", "a2", "a3"):
            self.send(name)
        self.send("b1", "b")
        self.settle()
        self.assertEqual(self.order(), ["a1", "a2", "b1", "a3"])

    def test_cancelled(self) -> None:
        """A cancelled event that waits is dropped with its bytes; one that has begun goes on."""
        events = [self.send(name) for name in ("x", "y", "z")]
        for event in events[:2]:
            event.cancel()
            self.failureResultOf(event, CancelledError)
        self.assertEqual((len(self.scheduler), self.memory.total), (2, 2))
        self.settle()
        self.assertEqual(self.order(), ["x", "z"])
        self.assertEqual(self.log[:STEPS], ["x0", "x1", "x2"])
        self.assertEqual((len(self.scheduler), self.memory.total), (0, 0))

    def test_number(self) -> None:
        """At the limit the newest of the sender that has most is refused."""
        sent = [self.send(name) for name in ("a1", "a2", "a3", "a4")]
        refused = self.failureResultOf(self.send("a5"), TooBusy).value
        self.assertEqual(refused.details(), {"limit": 4})
        self.send("b1", "b")
        self.failureResultOf(sent[3], TooBusy)
        self.settle()
        self.assertEqual(self.order(), ["a1", "a2", "b1", "a3"])
        self.assertEqual((len(self.scheduler), self.memory.total), (0, 0))

    def test_bytes(self) -> None:
        """So it is where they have too many bytes."""
        sent = [self.send("a1", size=40), self.send("a2", size=30), self.send("a3", size=30)]
        refused = self.failureResultOf(self.send("a4", size=1), TooBusy).value
        self.assertEqual(refused.details(), {"limit": 100})
        self.send("b1", "b", size=20)
        self.failureResultOf(sent[2], TooBusy)
        self.assertEqual(self.memory.total, 90)
        self.settle()
        self.assertEqual(self.order(), ["a1", "a2", "b1"])
        self.assertEqual(self.memory.total, 0)

    def test_relief(self) -> None:
        """Where all clients hold too much, the largest that waits is refused; one alone is sent."""
        other: MemoryAccount[int] = self.memory.account("other")
        alone = self.send("x", size=80)
        other.set(1, 5000)
        self.settle()
        self.assertEqual(self.successResultOf(alone), [0, 1, 2])
        other.set(1, 0)
        self.send("y", size=20)
        large, small = self.send("z", size=50), self.send("w", size=30)
        other.set(1, 4940)
        refused = self.failureResultOf(large, TooBusy).value
        self.assertEqual(refused.details(), {"limit": 5000})
        self.assertIn("5000 bytes of all memory are pending", str(refused))
        other.set(1, 0)
        self.settle()
        self.assertEqual(self.successResultOf(small), [0, 1, 2])
        self.assertEqual((len(self.scheduler), self.memory.total), (0, 0))

    def test_exactly(self) -> None:
        """As many bytes as may wait may wait."""
        self.send("x", size=60)
        self.send("y", size=40)
        self.assertEqual(self.memory.total, 100)
        self.settle()
        self.assertEqual(self.order(), ["x", "y"])

    def test_large(self) -> None:
        """A single event is taken, whatever its size; while it is there, no other is."""
        self.send("x", size=1000)
        self.failureResultOf(self.send("y", "b"), TooBusy)
        self.settle()
        self.assertEqual(self.order(), ["x"])

    def test_fails(self) -> None:
        """The failure of a step is that of its event; the next one is sent."""

        def broken() -> Iterator[int]:
            yield 1
            raise RuntimeError

        failed = self.scheduler(broken(), "a", 1)
        self.send("x")
        self.settle()
        self.failureResultOf(failed, RuntimeError)
        self.assertEqual(self.order(), ["x"])

    def test_no_steps(self) -> None:
        """Any number of events without steps is done without depth."""
        self.scheduler = BroadcastScheduler(self.reactor, limit=10_000)
        self.send("x")
        empty = [self.send("y", count=0) for _ in range(5000)]
        self.settle()
        for event in empty:
            self.assertEqual(self.successResultOf(event), [])

    def test_sends_again(self) -> None:
        """Who is refused may send again at once, and is refused again."""
        codes: list[str] = []

        def again(failure: object) -> None:
            if len(codes) < 3:
                codes.append("busy")
                self.send("again").addErrback(again)

        for name in ("a1", "a2", "a3", "a4", "a5"):
            self.send(name).addErrback(again)
        self.assertEqual(codes, ["busy"] * 3)
        self.assertEqual(len(self.scheduler), 4)
