"""Monitors see what others ask, at the rate that they wished."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.errors import CommandError
from twisted_net.ops.monitor import MAX_MONITORS, Monitors


class Watcher:
    """
    A client that watches.

    :ivar failure: why it gets nothing, if it does not.
    """

    user = None

    def __init__(self, name: str = "h:1") -> None:
        self.name = name
        self.lines: list[bytes] = []
        self.failure: str | None = None

    def deliver(self, line: bytes) -> str | None:
        """Take a line."""
        if self.failure is None:
            self.lines.append(line)
        return self.failure

    def events(self) -> list[dict[str, Any]]:  # Any: JSON
        """Take the events so far, decoded."""
        lines, self.lines = self.lines, []
        return [json.loads(line) for line in lines]


class MonitorsTests(SynchronousTestCase):
    """:class:`Monitors`."""

    def setUp(self) -> None:
        self.monitors = Monitors()
        self.watcher, self.asker = Watcher("h:1"), Watcher("h:2")

    def show(self, line: str = "PING", now: float = 0.0, by: Watcher | None = None) -> None:
        """Show a line."""
        self.monitors.show(by or self.asker, line, 0.0, now)

    def test_event(self) -> None:
        """The event tells who asked what, and when; it is one line."""
        self.monitors.add(self.watcher, 10)
        self.show("ECHO hi")
        self.assertEqual(
            self.watcher.lines,
            [
                b'{"event":"command","at":"1970-01-01T00:00:00.000000+00:00","client":"h:2",'
                b'"user":null,"line":"ECHO hi"}\n'
            ],
        )

    def test_printable(self) -> None:
        """A line is shown printable, whatever the client sent."""
        self.monitors.add(self.watcher, 10)
        self.show("ECHO \x9b31m\x1b\u202e\x7f")
        self.assertEqual(self.watcher.events()[0]["line"], r"ECHO \x9b31m\x1b\u202e\x7f")

    def test_not_its_own(self) -> None:
        """Nobody is shown its own commands."""
        self.monitors.add(self.watcher, 10)
        self.show(by=self.watcher)
        self.assertEqual(self.watcher.lines, [])

    def test_sampled(self) -> None:
        """What comes faster than wished is skipped, counted, and told with the next event."""
        self.monitors.add(self.watcher, 2)
        for i in range(5):
            self.show(f"ECHO {i}")
        self.assertEqual([event["line"] for event in self.watcher.events()], ["ECHO 0", "ECHO 1"])
        self.assertEqual((self.monitors.shown, self.monitors.skipped), (2, 3))
        self.show("ECHO later", now=0.5)
        (event,) = self.watcher.events()
        self.assertEqual((event["line"], event["skipped"]), ("ECHO later", 3))
        self.show("ECHO last", now=1.0)
        self.assertNotIn("skipped", self.watcher.events()[0])

    def test_not_read(self) -> None:
        """What a monitor that does not read cannot get is skipped too; the others get it."""
        other = Watcher("h:3")
        self.monitors.add(self.watcher, 10)
        self.monitors.add(other, 10)
        self.watcher.failure = "output_full"
        self.show("ECHO a")
        self.watcher.failure = None
        self.show("ECHO b")
        self.assertEqual([event.get("skipped") for event in self.watcher.events()], [1])
        self.assertEqual([event["line"] for event in other.events()], ["ECHO a", "ECHO b"])

    def test_bound(self) -> None:
        """So many may watch; one of them may change its rate, and one that leaves makes room."""
        watchers = [Watcher(f"h:{i}") for i in range(MAX_MONITORS)]
        for watcher in watchers:
            self.monitors.add(watcher, 1)
        with self.assertRaises(CommandError):
            self.monitors.add(self.watcher, 1)
        self.monitors.add(watchers[0], 5)
        self.assertTrue(self.monitors.remove(watchers[1]))
        self.assertFalse(self.monitors.remove(watchers[1]))
        self.monitors.add(self.watcher, 1)
        self.assertEqual(len(self.monitors), MAX_MONITORS)
        self.assertIn(self.watcher, self.monitors)
