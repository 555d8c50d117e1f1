"""A turn is what passes between two polls, and those at the limit are reported."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.turns.turn_clock import TurnClock


class TurnClockTests(SynchronousTestCase):
    """:class:`TurnClock`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reported: list[tuple[float, float]] = []
        self.turns = TurnClock(
            self.clock.seconds, lambda began, ended: self.reported.append((began, ended))
        )
        self.turns.limit = 0.5

    def test_limit(self) -> None:
        """A turn of the limit is long, and a shorter one is not."""
        for seconds in (0.25, 0.5, 1.0):
            self.turns.poll_ends()
            self.clock.advance(seconds)
            self.turns.poll_begins()
        self.assertEqual(self.reported, [(0.25, 0.75), (0.75, 1.75)])

    def test_poll(self) -> None:
        """The time of a poll is of no turn."""
        self.turns.poll_begins()
        self.clock.advance(7)
        self.assertIsNone(self.turns.began)
        self.turns.poll_ends()
        self.assertEqual(self.turns.began, 7)
        self.turns.poll_begins()
        self.assertIsNone(self.turns.began)
        self.assertEqual(self.reported, [])

    def test_twice(self) -> None:
        """A poll within a poll, or one that has failed, ends no turn twice."""
        self.turns.poll_ends()
        self.clock.advance(1)
        self.turns.poll_begins()
        self.clock.advance(1)
        self.turns.poll_begins()
        self.assertEqual(self.reported, [(0, 1)])
