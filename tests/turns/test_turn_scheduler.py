"""Tests of :mod:`twisted_net.turns.turn_scheduler`, alone and within a command server."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from weakref import ref

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Reactor
from twisted_net.commands.registry import Commands
from twisted_net.commands.standard import standard_commands
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory
from twisted_net.turns.step_scheduler import StepScheduler
from twisted_net.turns.turn_scheduler import (
    FREE_LINES,
    LONG_RUN,
    TURN_BUDGET,
    TurnScheduler,
    next_turn,
    turns_of,
)


class Runner:
    """Does what it is told in its turn, and counts them."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self.turns = 0

    def take_turn(self) -> None:
        """Do it."""
        self.turns += 1
        self._work()


class TurnSchedulerTests(SynchronousTestCase):
    """:class:`TurnScheduler` gives each a turn, in order, within a budget."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.turns = TurnScheduler(self.reactor)

    def test_once_each(self) -> None:
        """Who asks again in its turn comes after the others, in another turn of the reactor."""
        runner = Runner(lambda: self.turns.add(runner))
        self.turns.add(runner)
        self.turns.add(runner)
        for turn in range(1, 4):
            self.reactor.turn()
            self.assertEqual(runner.turns, turn)
        self.turns.discard(runner)
        self.turns.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """A server that stops takes no turn from the connections of others, and leaves no call."""
        runner = Runner(lambda: None)
        self.turns.add(runner)
        self.turns.stop()
        self.reactor.turn()
        self.assertEqual(runner.turns, 1)
        self.turns.mark_busy()
        self.turns.stop()
        self.assertEqual((self.turns.busy, self.reactor.getDelayedCalls()), (False, []))

    def test_shared(self) -> None:
        """All servers of a reactor share one, which goes with them; another reactor has its own."""
        turns = turns_of(self.reactor)
        self.assertIs(turns_of(self.reactor), turns)
        self.assertIsNot(turns_of(Reactor()), turns)
        servers = [CommandFactory(self.reactor, standard_commands()) for _ in range(2)]
        self.assertEqual({id(server.turns) for server in servers}, {id(turns)})
        kept = ref(turns)
        del turns, servers
        gc.collect()
        self.assertIsNone(kept())

    def test_time(self) -> None:
        """After the time for all, those that are left wait for the next turn of the reactor."""
        runners = [Runner(lambda: self.spend(TURN_BUDGET / 2)) for _ in range(5)]
        for runner in runners:
            self.turns.add(runner)
        for served in (2, 4, 5):
            self.assertTrue(self.turns.busy)
            self.reactor.turn()
            self.assertEqual(
                [runner.turns for runner in runners], [1] * served + [0] * (5 - served)
            )
        self.assertFalse(self.turns.busy)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_running(self) -> None:
        """Within a turn it is known that time is limited, and after one that fails it is not."""
        running: list[bool] = []

        def work() -> None:
            running.append(self.turns.running)
            raise ZeroDivisionError

        self.turns.add(Runner(work))
        self.assertRaises(ZeroDivisionError, self.reactor.turn)
        self.assertEqual((running, self.turns.running), ([True], False))

    def spend(self, seconds: float) -> None:
        """Advance the clock within a turn."""
        self.reactor.rightNow += seconds

    def test_discard(self) -> None:
        """Who is gone has no turn, also if another's turn has ended it."""
        second = Runner(lambda: None)
        first = Runner(lambda: self.turns.discard(second))
        self.turns.add(first)
        self.turns.add(second)
        self.reactor.turn()
        self.assertEqual((first.turns, second.turns), (1, 0))

    def test_failure(self) -> None:
        """A turn that fails takes none from the others."""
        self.turns.add(Runner(lambda: 1 // 0))
        other = Runner(lambda: None)
        self.turns.add(other)
        self.assertRaises(ZeroDivisionError, self.reactor.turn)
        self.reactor.turn()
        self.assertEqual(other.turns, 1)

    def test_mark_busy(self) -> None:
        """A long turn makes it busy until the next, and no longer."""
        self.turns.mark_busy()
        self.assertTrue(self.turns.busy)
        self.reactor.turn()
        self.assertFalse(self.turns.busy)


class StepSchedulerTests(SynchronousTestCase):
    """:class:`StepScheduler` does a step in each turn."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.schedule = StepScheduler(self.reactor)
        self.done: list[str] = []

    def work(self, name: str, steps: int) -> Iterator[int]:
        """Do some steps, and record each."""
        for step in range(steps):
            self.done.append(f"{name}{step}")
            yield step

    def test_a_step_a_turn(self) -> None:
        """The first is done now, and what all have given is there at the end."""
        result = self.schedule(self.work("a", 2))
        self.assertEqual(self.done, ["a0"])
        self.reactor.turn()
        self.assertEqual(self.done, ["a0", "a1"])
        self.assertNoResult(result)
        self.reactor.turn()
        self.assertEqual(self.successResultOf(result), [0, 1])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_step(self) -> None:
        """What has nothing to wait for is done at once."""
        self.assertEqual(self.successResultOf(self.schedule(self.work("a", 0))), [])

    def test_one_after_the_other(self) -> None:
        """The second begins when the first has ended, and a failure is its own."""

        def fails() -> Iterator[int]:
            yield 0
            raise ZeroDivisionError

        results = [
            self.schedule(steps) for steps in (self.work("a", 2), fails(), self.work("b", 2))
        ]
        done = []
        while self.reactor.turn():
            done.append(len(self.done))
        self.assertEqual(self.done, ["a0", "a1", "b0", "b1"])
        # Never two steps in one turn, where one begins as another ends too.
        self.assertTrue(all(after - before <= 1 for before, after in pairwise([1, *done])))
        self.assertEqual(self.successResultOf(results[0]), [0, 1])
        self.failureResultOf(results[1], ZeroDivisionError)
        self.assertEqual(self.successResultOf(results[2]), [0, 1])

    def test_cancelled(self) -> None:
        """The caller gets CancelledError, and the steps run to their end."""
        result = self.schedule(self.work("a", 3))
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.reactor.settle()
        self.assertEqual(self.done, ["a0", "a1", "a2"])

    def test_stop(self) -> None:
        """What is left is dropped at once; those who wait get what was done, and it is usable."""
        results = [self.schedule(self.work("a", 3)), self.schedule(self.work("b", 3))]
        self.reactor.turn()
        self.schedule.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual([self.successResultOf(result) for result in results], [[0, 1], []])
        self.assertEqual(self.done, ["a0", "a1"])
        self.schedule.stop()
        self.schedule(self.work("c", 1))
        self.assertEqual(self.done[2:], ["c0"])
        self.schedule.stop()

    def test_stop_within_a_step(self) -> None:
        """A step may stop all of them: it is the last one, and its generator cleans up."""

        def stops() -> Iterator[int]:
            try:
                self.schedule.stop()
                yield 0
                raise AssertionError
            finally:
                self.done.append("cleaned")

        self.schedule(stops())
        self.schedule(self.work("a", 1))
        self.assertEqual(self.done, ["cleaned", "a0"])
        self.schedule.stop()

    def test_added_within_a_step(self) -> None:
        """What a step adds comes after it, in another turn."""

        def adds() -> Iterator[int]:
            self.schedule(self.work("b", 1))
            self.done.append("a0")
            yield 0

        self.schedule(adds())
        self.assertEqual(self.done, ["a0"])
        self.reactor.settle()
        self.assertEqual(self.done, ["a0", "b0"])


class SharedTurnTests(SynchronousTestCase):
    """What many clients ask for in one turn of the reactor delays one who asks for little."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.commands: Commands = standard_commands()
        self.commands.command("WORK")(self.work)
        self.factory = CommandFactory(self.reactor, self.commands, Limits())
        self.spent = 0.0
        self.work_time = 0.004

    def work(self) -> str:
        """Take 4 ms, or what a test says."""
        self.spent += self.work_time
        self.reactor.rightNow += self.work_time
        return "done"

    def test_few_lines(self) -> None:
        """While a hundred have much to run, a few lines are answered as they come."""
        for _ in range(100):
            self.reactor.connect(self.factory).send(b"WORK\n" * 50)
        self.reactor.turn()
        client = self.reactor.connect(self.factory)
        for _ in range(5):
            begun = self.spent
            client.send(b"PING\n" * FREE_LINES)
            self.reactor.turn()
            self.assertEqual(len(client.answers()), FREE_LINES)
            # What was under way, and one of those that waited.
            self.assertLess(self.spent - begun, 0.009)
        self.factory.abort()

    def test_first_turn(self) -> None:
        """A hundred long requests that come at once do not run at once but for the first time."""
        clients = [self.reactor.connect(self.factory) for _ in range(100)]
        for client in clients:
            client.protocol.dataReceived(b"WORK\n")
        first = self.spent
        self.reactor.settle()
        for client in clients:
            client.protocol.dataReceived(b"WORK\n")
        # All were slow before, so that all but the first wait.
        self.assertLess(self.spent - first, 0.005)
        self.reactor.settle()
        self.assertEqual(
            [
                [json.loads(line)["result"] for line in client.writes[1][1].splitlines()]
                for client in clients
            ],
            [["done"]] * 100,
        )
        self.factory.abort()

    def test_rather_long_lines(self) -> None:
        """Who asked for what takes a fifth of a turn waits for one; a small command does not."""
        self.work_time = 2 * LONG_RUN
        others = [self.reactor.connect(self.factory) for _ in range(100)]
        client = self.reactor.connect(self.factory)
        for answered in range(3):  # The first command of a connection, and later ones.
            for other in others:
                other.protocol.dataReceived(b"WORK\n")
            self.reactor.settle()
            before = self.spent
            self.factory.turns.mark_busy()
            for other in others:
                other.protocol.dataReceived(b"WORK\n")
            client.protocol.dataReceived(b"PING\n")
            self.assertEqual((self.spent, len(client.writes)), (before, answered + 1))
            self.reactor.settle()
            self.assertEqual([len(other.answers()) for other in others], [2] * 100)
        # A small one makes it one of those again who need not wait.
        for waits in (True, False):
            self.factory.turns.mark_busy()
            before = len(others[0].writes)
            others[0].protocol.dataReceived(b"PING\n")
            self.assertEqual(len(others[0].writes) - before, 0 if waits else 1)
            self.reactor.settle()
        self.factory.abort()

    def test_small_one_that_ran_at_once(self) -> None:
        """Whoever has last asked for little, in a turn that was not long, is not slow."""
        self.work_time = 2 * LONG_RUN
        client = self.reactor.connect(self.factory)
        for line in (b"PING\n", b"WORK\n", b"PING\n"):  # The first shows that it speaks this.
            client.protocol.dataReceived(line)
        self.assertEqual(len(client.writes), 3)
        self.factory.turns.mark_busy()
        client.protocol.dataReceived(b"PING\n")
        self.assertEqual(len(client.writes), 4)
        self.factory.abort()

    def test_many_rather_long_lines(self) -> None:
        """Lines of many clients, each a third of a turn, make that turn a long one."""
        self.work_time = 0.0004
        clients = [self.reactor.connect(self.factory) for _ in range(100)]
        for line in (b"PING\n", b"WORK\n", b"WORK\n"):
            before = self.spent
            for client in clients:
                client.protocol.dataReceived(line)
            if line == b"WORK\n" and before:
                self.assertLess(self.spent - before, 3 * self.work_time + 1e-9)
            self.reactor.settle()
        self.assertEqual([len(client.answers()) for client in clients], [3] * 100)
        self.factory.abort()

    def test_short_lines(self) -> None:
        """Of the shortest lines only some are cut; the rest counts, and is bounded, as bytes."""
        clients = [self.reactor.connect(self.factory) for _ in range(10)]
        for client in clients:
            client.protocol.dataReceived(b"no\n" * 20_000)
        pending = sum(int(str(one.figures()["pending"])) for one in self.factory.sessions)
        self.assertLess(pending, 10 * 300)
        self.assertGreater(self.factory.guard.buffers.total, 9 * 59_000)
        self.reactor.settle()
        self.assertEqual(self.factory.guard.buffers.total, 0)
        self.assertEqual(self.factory.sessions.messages, 200_000)
        self.factory.abort()


class NextTurnTests(SynchronousTestCase):
    """:func:`next_turn` fires in a turn that all share."""

    def test_long(self) -> None:
        """What takes long is alone in its turn."""
        reactor = Reactor()
        turns = TurnScheduler(reactor)
        ran: list[int] = []

        def spend(_: None) -> None:
            ran.append(len(ran))
            reactor.rightNow += TURN_BUDGET

        for _ in range(3):
            next_turn(turns).addCallback(spend)
        self.assertTrue(turns.busy)
        for count in range(4):
            self.assertEqual(ran, [*range(count)])
            reactor.turn()

    def test_cancelled(self) -> None:
        """One that is cancelled takes no turn."""
        reactor = Reactor()
        waiting = next_turn(TurnScheduler(reactor))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        reactor.settle()


class SpendTests(SynchronousTestCase):
    """:meth:`TurnScheduler.spend` adds up what follows each other closely."""

    def test_together(self) -> None:
        """Together they make the turn long, and apart they do not."""
        share = TURN_BUDGET / 4
        for gap, busy in ((0.0, True), (TURN_BUDGET, True), (2 * TURN_BUDGET, False)):
            turns, now = TurnScheduler(Reactor()), 1.0
            for _ in range(5):
                turns.spend(now, now + share)
                now += share + gap * 0.99
            self.assertEqual(turns.busy, busy, gap)
