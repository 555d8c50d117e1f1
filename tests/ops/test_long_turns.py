"""Long turns are counted, the latest and the longest are kept, and their threshold is checked."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.config.record import field_types, split_meta
from twisted_net.ops.long_turns import LONG_TURNS_KEPT, LatencySettings, LongTurn, LongTurns


def turn(seconds: float, callback: str = "shop.report (shop.py:7)") -> LongTurn:
    """Return a long turn."""
    return LongTurn(1000.0, seconds, 0.25, callback)


class LatencySettingsTests(SynchronousTestCase):
    """:class:`LatencySettings`."""

    def test_thresholds(self) -> None:
        """It is 50 ms; 0 turns the watch off; less than 10 ms would itself be a load."""
        self.assertEqual(LatencySettings().long_turn, 0.05)
        for allowed in (0.0, 0.01, 3600.0):
            self.assertEqual(LatencySettings(long_turn=allowed).long_turn, allowed)
        refused: Any  # Any: of a wrong type, too
        for refused in (-0.05, 0.0099, 3600.1, float("nan"), float("inf"), "off", None):
            with self.subTest(refused=refused), self.assertRaises(ValueError) as raised:
                LatencySettings(long_turn=refused)
            self.assertIn("LatencySettings.long_turn must be", str(raised.exception))

    def test_whole_rule(self) -> None:
        """An error about less than 10 ms has the whole rule, and so has the help."""
        with self.assertRaises(ValueError) as raised:
            LatencySettings(long_turn=0.005)
        self.assertEqual(
            str(raised.exception),
            "LatencySettings.long_turn must be 0, or a number from 0.01 to 3600, not 0.005",
        )
        description = split_meta(field_types(LatencySettings)["long_turn"])[1].description
        self.assertIn("at least 0.01; 0: ", description or "")


class LongTurnsTests(SynchronousTestCase):
    """:class:`LongTurns`."""

    def setUp(self) -> None:
        self.long_turns = LongTurns()

    def test_none(self) -> None:
        """At first there is none, and nothing is measured."""
        self.assertEqual((self.long_turns.count, self.long_turns.longest), (0, None))
        self.assertEqual(list(self.long_turns.latest(10)), [])
        self.assertEqual(self.long_turns.measured, "nothing")

    def test_latest(self) -> None:
        """They are listed latest first, as many as are wanted."""
        turns = [turn(0.1), turn(0.3), turn(0.2)]
        for each in turns:
            self.long_turns.note(each)
        self.assertEqual(list(self.long_turns.latest(2)), [turns[2], turns[1]])
        self.assertIs(self.long_turns.longest, turns[1])

    def test_bound(self) -> None:
        """So many are kept; all are counted, and the longest one of all is known."""
        for i in range(1000):
            self.long_turns.note(turn(1000.0 - i))
        self.assertEqual(len(list(self.long_turns.latest(10_000))), LONG_TURNS_KEPT)
        self.assertEqual((self.long_turns.count, self.long_turns.longest), (1000, turn(1000.0)))

    def test_reset(self) -> None:
        """A reset starts from zero; what is measured does not change by it."""
        self.long_turns.measured = "turns"
        self.long_turns.note(turn(0.1))
        self.long_turns.reset()
        self.test_none_but_measured()
        self.long_turns.note(turn(0.06))
        self.assertEqual((self.long_turns.count, self.long_turns.longest), (1, turn(0.06)))

    def test_none_but_measured(self) -> None:
        """Measuring begins before there is a long turn."""
        self.long_turns.measured = "turns"
        self.assertEqual((self.long_turns.count, self.long_turns.longest), (0, None))
        self.assertEqual(list(self.long_turns.latest(10)), [])


class LongTurnTests(SynchronousTestCase):
    """:class:`LongTurn`."""

    def test_words(self) -> None:
        """In the log it stands with what is known of it."""
        self.assertEqual(
            str(LongTurn(0.0, 0.2134, 0.25, "shop.report (shop.py:7)", "shop.sums (sums.py:8)")),
            "0.213 s (0.250 s of processor time): shop.report (shop.py:7), in "
            "shop.sums (sums.py:8)",
        )
        self.assertEqual(str(LongTurn(0.0, 2.0, None, "unknown")), "2.000 s: unknown")
