"""The slow log keeps the latest slow commands, and counts all of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.ops.slowlog import SlowLog, SlowLogSettings


class SlowLogTests(SynchronousTestCase):
    """:class:`SlowLog`."""

    def setUp(self) -> None:
        self.log = SlowLog(SlowLogSettings(kept=3))

    def note(self, count: int) -> None:
        """Note so many commands."""
        for i in range(count):
            self.log.note(float(i), 0.5, "h:1", "ann", f"LINE {i}", waited=False)

    def test_latest(self) -> None:
        """The latest come first, as many as are asked for; the oldest make room."""
        self.note(5)
        self.assertEqual([slow.line for slow in self.log.latest(2)], ["LINE 4", "LINE 3"])
        self.assertEqual([slow.number for slow in self.log.latest(9)], [5, 4, 3])
        self.assertEqual((len(self.log), self.log.count), (3, 5))

    def test_entry(self) -> None:
        """An entry has all that was noted."""
        self.log.note(7.0, 1.5, "h:1", None, "FETCH x", waited=True)
        (slow,) = self.log.latest(1)
        self.assertEqual(
            (slow.at, slow.seconds, slow.client, slow.user, slow.line, slow.waited),
            (7.0, 1.5, "h:1", None, "FETCH x", True),
        )

    def test_printable(self) -> None:
        """A line is kept printable, whatever the client sent."""
        self.log.note(7.0, 1.5, "h:1", None, "ECHO \x9b31m\x1b\u202e", waited=True)
        (slow,) = self.log.latest(1)
        self.assertEqual(slow.line, r"ECHO \x9b31m\x1b\u202e")

    def test_reset(self) -> None:
        """A reset forgets the entries; their numbers go on."""
        self.note(2)
        self.assertEqual((self.log.reset(), len(self.log), self.log.count), (2, 0, 2))
        self.note(1)
        self.assertEqual([slow.number for slow in self.log.latest(9)], [3])

    def test_bounds(self) -> None:
        """At least one is kept, and no threshold is zero."""
        for wrong in ({"kept": 0}, {"threshold": 0}, {"waiting_threshold": -1}):
            with self.assertRaises(ValueError):
                SlowLogSettings(**wrong)
