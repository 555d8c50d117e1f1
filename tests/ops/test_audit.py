"""The audit is a log of its own, which no client can fill or forge."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.auth.users import Permissions, User
from twisted_net.ops.audit import BURST, LINES_PER_SECOND, Audit
from twisted_net.sessions import Sessions


class AuditTests(SynchronousTestCase):
    """:class:`Audit` writes who did what."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.audit = Audit(self.clock)
        self.session = Sessions(lambda: 0.0).open("192.0.2.1", 5000, lambda line: None)
        self.logged = EventLoggingObserver()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)

    @property
    def lines(self) -> list[str]:
        """The lines of the audit."""
        name = "twisted_net.audit"
        return [formatEvent(event) for event in self.logged if event["log_namespace"] == name]

    def test_line(self) -> None:
        """A line says what happened, to whom, as which user."""
        self.audit("refused", self.session, "not_permitted: KILL")
        self.session.permissions = Permissions("ann", User())
        self.audit("login", self.session, "by token")
        self.assertEqual(
            self.lines,
            [
                "refused: 192.0.2.1:5000 as nobody: 'not_permitted: KILL'",
                "login: 192.0.2.1:5000 as ann: 'by token'",
            ],
        )

    def test_no_line_of_their_own(self) -> None:
        """What a client sent is quoted and cut."""
        self.audit("command", self.session, "KILL \u2028{x}" + "y" * 300)
        [line] = self.lines
        self.assertIn(r"'KILL \u2028{x}yyy", line)
        self.assertTrue(len(line) < 300)

    def test_name_of_the_user(self) -> None:
        """Not even the name of a user, which may come from a checker, forges a line."""
        self.session.permissions = Permissions("ann\n\x9b\u202e", User())
        self.audit("login", self.session, "by\x85 \x1b[31m")
        self.assertEqual(
            self.lines, [r"login: 192.0.2.1:5000 as ann\n\x9b\u202e: 'by\x85 \x1b[31m'"]
        )

    def test_bounded(self) -> None:
        """Too many lines at a time are left out; the next one says how many."""
        for _ in range(BURST + 7):
            self.audit("refused", self.session, "x")
        self.assertEqual((len(self.lines), self.audit.left_out), (BURST, 7))
        self.clock.advance(1)
        self.audit("refused", self.session, "y")
        self.assertEqual(self.lines[-2], "7 lines of the audit were left out")
        self.audit("refused", self.session, "z")
        self.assertEqual(len(self.lines), BURST + 3)

    def test_flood_hides_nothing_else(self) -> None:
        """Refusals, which anybody can cause, leave out no login and no command of an operator."""
        for _ in range(BURST + 7):
            self.audit("refused", self.session, "x")
            self.audit("closed", self.session, "x")
        self.audit("login", self.session, "by token")
        self.audit("command", self.session, "KILL x")
        events = [line.split(":")[0] for line in self.lines]
        self.assertEqual((events.count("refused"), events.count("closed")), (BURST, BURST))
        self.assertIn("login", events)
        self.assertIn("command", events)

    def test_counts_are_few(self) -> None:
        """While lines are left out all the time, how many is said once a second."""
        for _ in range(BURST):
            self.audit("refused", self.session, "x")
        for _ in range(10 * 200):
            self.clock.advance(1 / 200)
            self.audit("refused", self.session, "x")
        counts = [line for line in self.lines if "left out" in line]
        written = len(self.lines) - len(counts) - BURST
        self.assertIn(len(counts), (9, 10, 11))
        self.assertAlmostEqual(written, 10 * LINES_PER_SECOND, delta=2)
        self.clock.advance(1)
        self.audit("refused", self.session, "x")
        said = [int(line.split()[0]) for line in self.lines if "left out" in line]
        self.assertEqual(sum(said), self.audit.left_out)
