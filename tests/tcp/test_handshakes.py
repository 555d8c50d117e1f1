"""Handshakes under way are bounded in number and in time."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.reasons import End
from twisted_net.tcp.handshakes import Handshakes


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
