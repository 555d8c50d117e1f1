"""What layers have read is processed in turns, alone and in every kind of listener."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import Authority, write_pair
from tests.tcp.kinds import KINDS, Door, KindClient
from tests.tcp.memory import Reactor
from twisted_net.commands.standard import standard_commands
from twisted_net.sessions import Session
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory
from twisted_net.turns.paced_input import UNITS_PER_LOOK, UNITS_PER_TURN, PacedInput
from twisted_net.turns.turn_scheduler import FREE_LINES, TURN_BUDGET, TurnScheduler


class Below:
    """A connection that is read or not."""

    def __init__(self) -> None:
        self.reading = True
        self.aborted = False

    def pauseProducing(self) -> None:
        """Read no more."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Read on."""
        self.reading = True

    def abortConnection(self) -> None:
        """Note it."""
        self.aborted = True


class Layer:
    """
    A layer that has units to process.

    :ivar left: how many.
    :ivar done: how many it has processed in each step.
    :ivar then: called at the end of each step.
    """

    def __init__(self, reactor: Reactor, turns: TurnScheduler) -> None:
        self.below = Below()
        self.left = 0
        self.cost = 0.0
        self.done: list[int] = []
        self.then: Callable[[], object] = lambda: None
        self._reactor = reactor
        self.input = PacedInput(turns, reactor.seconds, self.below, self.step)

    def step(self, limit: int, until: float) -> bool:
        """Process units; each may take time."""
        done = min(limit, self.left)
        self.left -= done
        self.done.append(done)
        self._reactor.rightNow += done * self.cost
        self.then()
        return self.left > 0

    def read(self, units: int, *, alone: bool = False, little: bool = False) -> None:
        """Read units."""
        self.left += units
        self.input.arrived(alone=alone, little=little)


class PacedInputTests(SynchronousTestCase):
    """:class:`PacedInput` processes some at once, and the rest when its turn comes."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.turns = TurnScheduler(self.reactor)
        self.layer = self.make()

    def make(self) -> Layer:
        """Return a layer of another connection."""
        return Layer(self.reactor, self.turns)

    def test_limit(self) -> None:
        """As many as a turn may have are processed at once; of more, the rest in the next turn."""
        self.layer.read(UNITS_PER_TURN)
        self.assertEqual((self.layer.done, self.layer.below.reading), ([UNITS_PER_TURN], True))
        self.layer.read(UNITS_PER_TURN + 1)
        self.assertEqual(self.layer.done, [UNITS_PER_TURN] * 2)
        self.assertFalse(self.layer.below.reading)
        self.reactor.turn()
        self.assertEqual(self.layer.done, [UNITS_PER_TURN, UNITS_PER_TURN, 1])
        self.assertTrue(self.layer.below.reading)

    def test_others_wait(self) -> None:
        """While others wait, few are processed at once, and none before the others' turn."""
        self.turns.mark_busy()
        self.layer.read(FREE_LINES)
        self.assertEqual((self.layer.done, self.layer.below.reading), ([FREE_LINES], True))
        self.layer.read(FREE_LINES + 1)
        self.layer.read(100)
        self.assertEqual(self.layer.done, [FREE_LINES, FREE_LINES])
        self.assertFalse(self.layer.below.reading)
        self.reactor.turn()
        self.assertEqual(self.layer.done, [FREE_LINES, FREE_LINES, UNITS_PER_TURN])

    def test_long(self) -> None:
        """One whose units took long reads again when its turn comes, and others wait too."""
        self.layer.cost = TURN_BUDGET
        self.layer.read(1)
        self.assertEqual((self.layer.done, self.layer.below.reading), ([1], False))
        self.assertTrue(self.turns.busy)
        self.reactor.turn()
        self.assertTrue(self.layer.below.reading)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_short(self) -> None:
        """One whose units took a little less is read on."""
        self.layer.cost = TURN_BUDGET * 0.99
        self.layer.read(1)
        self.assertTrue(self.layer.below.reading)
        self.assertFalse(self.turns.busy)

    def test_alone(self) -> None:
        """Of dear units, those of one connection are processed at once, others in their turns."""
        other = self.make()
        self.layer.read(1, alone=True)
        other.read(1, alone=True)
        self.assertEqual((self.layer.done, other.done), ([1], []))
        self.reactor.turn()
        self.assertEqual(other.done, [1])

    def test_little(self) -> None:
        """What is little waits for its turn, too, and is read on until more comes."""
        other = self.make()
        for layer in (self.layer, other):
            self.turns.mark_busy()
            layer.read(1, alone=True, little=True)
            self.assertEqual((layer.done, layer.below.reading), ([], True))
        other.read(1, alone=True, little=True)
        self.assertFalse(other.below.reading)
        self.reactor.turn()
        for layer, done in ((self.layer, [1]), (other, [2])):
            self.assertEqual((layer.done, layer.below.reading), (done, True))

    def test_little_while_paused(self) -> None:
        """While the protocol within is paused nothing is read, however little comes."""
        self.turns.mark_busy()
        self.layer.read(1, alone=True, little=True)
        self.layer.input.pause()
        self.assertFalse(self.layer.below.reading)
        self.layer.read(1, alone=True, little=True)
        self.reactor.turn()
        self.assertEqual((self.layer.done, self.layer.below.reading), ([], False))

    def test_pause(self) -> None:
        """Nothing is processed or read while the protocol within, or the peer, does not read."""
        layer = self.layer
        for stop, go_on in (
            (layer.input.pause, layer.input.resume),
            (layer.input.block, layer.input.unblock),
        ):
            layer.done.clear()
            stop()
            self.assertFalse(layer.below.reading)
            layer.read(1)
            self.reactor.turn()
            self.assertEqual(layer.done, [])
            go_on()
            self.assertEqual((layer.done, layer.below.reading), ([], False))
            self.reactor.turn()
            self.assertEqual((layer.done, layer.below.reading), ([1], True))

    def test_both_pauses(self) -> None:
        """Where both have paused, both must go on."""
        self.layer.input.pause()
        self.layer.input.block()
        self.layer.input.resume()
        self.assertFalse(self.layer.below.reading)
        self.layer.input.unblock()
        self.assertTrue(self.layer.below.reading)

    def test_pause_within(self) -> None:
        """One that pauses while it processes keeps the rest until it goes on."""
        layer = self.layer
        layer.then = layer.input.pause
        layer.read(UNITS_PER_TURN + 1)
        self.reactor.turn()
        self.assertEqual((layer.done, layer.below.reading), ([UNITS_PER_TURN], False))
        layer.then = lambda: None
        layer.input.resume()
        self.reactor.turn()
        self.assertEqual((layer.left, layer.below.reading), (0, True))

    def test_stop(self) -> None:
        """Nothing happens after the end, also where it comes while units are processed."""
        layer = self.layer
        layer.then = layer.input.stop
        layer.read(UNITS_PER_TURN + 1)
        layer.input.resume()
        self.reactor.turn()
        layer.read(1)
        self.assertEqual((layer.done, self.reactor.getDelayedCalls()), ([UNITS_PER_TURN], []))

    def test_failure(self) -> None:
        """A protocol that fails in its turn loses its connection, as one that fails at once."""
        self.layer.read(UNITS_PER_TURN + 1)
        self.layer.then = lambda: 1 // 0
        self.assertRaises(ZeroDivisionError, self.reactor.turn)
        self.assertTrue(self.layer.below.aborted)


CROWD = 20
"""Clients that each send much at once."""

BURST = 300
"""Lines of each, in records and frames of their own."""


LAYERED = [name for name, kind in KINDS.items() if kind.tls or kind.websocket]
"""Kinds of listeners with a layer whose input is paced."""


class Ticking(Reactor):
    """A reactor whose clock goes on each time that it is read."""

    tick = 0.0

    def seconds(self) -> float:
        """Return the time, and go on."""
        self.rightNow += self.tick
        return float(self.rightNow)


class KindTests(SynchronousTestCase):
    """Over every kind of listener a crowd gets no more of a turn than its share."""

    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        self.certificate = write_pair(folder / "server.pem", Authority().issue("a.test"))

    def crowd(self, name: str, reactor: Reactor) -> tuple[list[KindClient], list[Session]]:
        """Return clients that have sent much, none of which has been read, and their sessions."""
        server = CommandFactory(reactor, standard_commands(), Limits(max_line=16_384))
        door = Door(KINDS[name], reactor, server, self.certificate)
        clients = [door.client() for _ in range(CROWD)]
        for client in clients:
            for _ in range(BURST):
                client.send(b"PING")
        return clients, list(server.sessions)

    def check_answers(self, clients: list[KindClient]) -> None:
        """Let the crowd be served: each gets all of its answers."""
        for client in clients:
            client.settle()
            self.assertEqual(len(client.take()), BURST)

    def test_turns(self) -> None:
        """Of many that come at once, one has a whole turn, the others the lines that are free."""
        for name in LAYERED:
            with self.subTest(name):
                reactor = Reactor()
                clients, sessions = self.crowd(name, reactor)
                reactor.turn()
                ran = [session.received // 5 for session in sessions]
                self.assertLessEqual(max(ran), UNITS_PER_TURN)
                self.assertLessEqual(sum(ran), UNITS_PER_TURN + (CROWD - 1) * FREE_LINES)
                self.check_answers(clients)

    def test_time(self) -> None:
        """Where units take long, a turn is over after a few of one connection."""
        for name in LAYERED:
            with self.subTest(name):
                reactor = Ticking()
                clients, sessions = self.crowd(name, reactor)
                reactor.tick = TURN_BUDGET
                reactor.turn()
                before = sum(session.received // 5 for session in sessions)
                reactor.turn()
                after = sum(session.received // 5 for session in sessions)
                self.assertLessEqual(after - before, UNITS_PER_LOOK + CROWD * FREE_LINES)
                reactor.tick = 0.0
                self.check_answers(clients)
