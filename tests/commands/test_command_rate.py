"""Commands that each user or address may call so often."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.connections import FakeClient
from twisted_net.auth.users import Permissions, User
from twisted_net.coap.resources import observable_commands
from twisted_net.commands.command_rate import CommandRate
from twisted_net.commands.registry import Commands
from twisted_net.commands.runner import CommandRunner, RunnerLimits
from twisted_net.errors import RateLimited
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session


class CommandRateTests(SynchronousTestCase):
    """:class:`CommandRate`, and the commands that have one."""

    def setUp(self) -> None:
        self.now = 0.0
        self.lines = Sessions(lambda: 0.0)
        self.lines.use_clock(lambda: self.now)
        self.coap = Sessions(lambda: 0.0, doors=self.lines.doors, door="coap")
        self.commands = Commands()

    def come(self, sessions: Sessions, host: str, port: int) -> Session:
        """Let a client come."""
        return sessions.open(host, port, FakeClient().deliver)

    def test_burst(self) -> None:
        """So many at once, then at the rate; a refused call is not counted."""
        rate, session = CommandRate(2.0, 3), self.come(self.lines, "192.0.2.1", 1)
        for _ in range(3):
            rate.charge(session)
        for _ in range(5):
            error = self.assertRaises(RateLimited, rate.charge, session)
        self.assertEqual((error.scope, error.retry_after), ("address", 0.5))
        self.now += 0.5
        rate.charge(session)
        self.assertRaises(RateLimited, rate.charge, session)

    def test_owners(self) -> None:
        """A user is one on all doors, and so is an address; others have calls of their own."""
        rate, ann = CommandRate(0.1), Permissions("ann", User())
        first = self.come(self.lines, "192.0.2.1", 1)
        second = self.come(self.coap, "192.0.2.2", 2)
        rate.charge(first)
        rate.charge(second)
        for session in (first, second):
            session.log_in(ann)
        rate.charge(first)
        self.assertEqual(self.assertRaises(RateLimited, rate.charge, second).scope, "user")

    def test_command(self) -> None:
        """The handler is not called over the rate, whatever its kind and arguments."""
        ran: list[str] = []

        @self.commands.command(per_second=1)
        def note(text: str) -> None:
            ran.append(text)

        note_command = self.commands.get("NOTE")
        assert note_command is not None
        self.assertFalse(note_command.direct or note_command.takes_any)
        runner: Any = self.runner()
        session = self.come(self.lines, "192.0.2.1", 1)
        answers = [runner.answer(b"NOTE a", session) for _ in range(2)]
        self.assertIn(b'"rate_limited"', answers[1])
        self.assertEqual((ran, note_command.calls), (["a"], 2))
        self.now += 1.0
        runner.answer(b"NOTE b", session)
        self.assertEqual(ran, ["a", "b"])

    def runner(self) -> object:
        """Return a runner of the commands."""
        clock: Any = Clock()  # Any: nothing needs its threads
        return CommandRunner(clock, self.commands, self.lines, RunnerLimits(1.0, 1, 1))

    def test_mistakes(self) -> None:
        """Rates that allow nothing are refused, and so is a rate of what is observed."""
        for per_second, burst in ((0.0, 1), (-1.0, 1), (float("inf"), 1), (1.0, 0)):
            self.assertRaises(ValueError, CommandRate, per_second, burst)
        declare = self.commands.command("A", per_second=1.0, observable=True, safe=True)
        self.assertRaises(TypeError, declare, lambda: "a")
        self.commands.command("B", per_second=1.0, safe=True)(lambda: "b")
        self.assertRaises(ValueError, observable_commands, self.commands, ["B"])
