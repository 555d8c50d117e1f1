"""Handshakes under way are bounded in number and in time."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.due_calls import call_due
from twisted_net.reasons import End
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.turns.steps import ENDS_AT_ONCE


class HandshakingConnection:
    """A connection that is gone when the test says so."""

    aborted = False

    def abort(self) -> None:
        """Remember it."""
        self.aborted = True


class HandshakesTests(SynchronousTestCase):
    """:class:`Handshakes`, at most two, of 10 seconds each."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.ends: list[End] = []
        self.handshakes = Handshakes(self.clock, 10, 2, self.ends.append)
        self.first, self.second, self.third = (
            HandshakingConnection(),
            HandshakingConnection(),
            HandshakingConnection(),
        )

    def test_success(self) -> None:
        """One that succeeds is forgotten, and so is its time limit."""
        self.handshakes.began(self.first)
        self.assertEqual(len(self.handshakes), 1)
        self.handshakes.succeeded(self.first)
        self.assertEqual((len(self.handshakes), self.ends), (0, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time(self) -> None:
        """Each has its own 10 seconds; one call waits for all."""
        self.handshakes.began(self.first)
        self.clock.advance(4)
        self.handshakes.began(self.second)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(5.9)
        self.assertFalse(self.first.aborted)
        self.clock.advance(0.1)
        self.assertEqual((self.first.aborted, self.second.aborted), (True, False))
        self.clock.advance(4)
        self.assertTrue(self.second.aborted)
        self.assertEqual(self.ends, [End.HANDSHAKE_TIMEOUT] * 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time_of_those_that_succeeded(self) -> None:
        """The timer of one that has succeeded does not touch those that came after it."""
        self.handshakes.began(self.first)
        self.clock.advance(5)
        self.handshakes.began(self.second)
        self.handshakes.succeeded(self.first)
        self.clock.advance(5)
        self.assertFalse(self.second.aborted)
        self.clock.advance(5)
        self.assertTrue(self.second.aborted)
        self.assertFalse(self.first.aborted)

    def begin_many(self, handshakes: Handshakes) -> list[HandshakingConnection]:
        """Begin more than end in a turn."""
        many = [HandshakingConnection() for _ in range(2 * ENDS_AT_ONCE + 1)]
        for one in many:
            handshakes.began(one)
        return many

    def turns(self, many: list[HandshakingConnection]) -> list[int]:
        """Take turns for what is due now; return how many are aborted before each."""
        aborted = [sum(one.aborted for one in many)]
        while call_due(self.clock):
            aborted.append(sum(one.aborted for one in many))
        return aborted[:-1]

    def test_many_overdue(self) -> None:
        """So many that are late are broken off in each turn; one that is lost is not."""
        handshakes = Handshakes(self.clock, 10, 100, self.ends.append)
        many = self.begin_many(handshakes)
        self.clock.rightNow = 10.0
        self.assertEqual(self.turns(many), [0, ENDS_AT_ONCE, 2 * ENDS_AT_ONCE])
        self.assertEqual(self.ends, [End.HANDSHAKE_TIMEOUT] * len(many))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_of_many(self) -> None:
        """So many are broken off in each turn at the end; it is over when all are lost."""
        handshakes = Handshakes(self.clock, 10, 100, self.ends.append)
        many = self.begin_many(handshakes)
        closed = handshakes.close()
        handshakes.lost(many[-1])
        self.assertEqual(self.turns(many), [ENDS_AT_ONCE, 2 * ENDS_AT_ONCE])
        self.assertEqual(self.ends.count(End.DRAINED), len(many) - 1)
        for one in many[:-1]:
            self.assertNoResult(closed)
            handshakes.lost(one)
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_many(self) -> None:
        """Of one too many the oldest is broken off."""
        for newcomer in (self.first, self.second, self.third):
            self.handshakes.began(newcomer)
        self.assertEqual(
            [one.aborted for one in (self.first, self.second, self.third)], [True, False, False]
        )
        self.assertEqual(self.ends, [End.TOO_MANY_HANDSHAKES])
        self.assertEqual(len(self.handshakes), 2)

    def test_failure(self) -> None:
        """One that fails is ended, and counted once."""
        self.handshakes.began(self.first)
        self.handshakes.failed(self.first, End.UNTRUSTED_PROXY)
        self.assertTrue(self.first.aborted)
        self.handshakes.lost(self.first)
        self.assertEqual(self.ends, [End.UNTRUSTED_PROXY])

    def test_loss(self) -> None:
        """One that goes away by itself is counted as failed."""
        self.handshakes.began(self.first)
        self.handshakes.lost(self.first)
        self.assertEqual(self.ends, [End.HANDSHAKE_FAILED])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """Closing ends all, and is over when the last is gone."""
        self.handshakes.began(self.first)
        self.handshakes.began(self.second)
        closed = self.handshakes.close()
        self.assertTrue(self.first.aborted)
        self.assertTrue(self.second.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.handshakes.lost(self.first)
        self.assertNoResult(closed)
        self.handshakes.lost(self.second)
        self.successResultOf(closed)
        self.assertEqual(self.ends, [End.DRAINED] * 2)

    def test_close_without_any(self) -> None:
        """With none under way closing is over at once."""
        self.successResultOf(self.handshakes.close())
