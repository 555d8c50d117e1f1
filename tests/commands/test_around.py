"""Functions around commands see each call, whichever way its handler runs."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from tests.tcp.server_case import ServerTestCase
from twisted_net.commands.registry import Command, Commands, Proceed, Request
from twisted_net.errors import CommandError


class AroundTests(ServerTestCase):
    """:meth:`Commands.around`."""

    def setUp(self) -> None:
        super().setUp()
        self.log: list[tuple[str, str]] = []
        self.commands = self.handlers.commands

        @self.commands.around
        async def watched(request: Request, command: Command, proceed: Proceed) -> object:
            self.log.append(("begin", command.name))
            try:
                return await proceed()
            finally:
                self.log.append(("end", command.name))

    def asked(self, *lines: str) -> list[object]:
        """Send lines, run what waits for a thread, and return the results."""
        client = self.connect("".join(f"{line}\n" for line in lines).encode())
        while self.reactor.threads:
            self.reactor.run_thread()
            self.reactor.settle()
        found = self.results(client)
        self.leave(client)
        return found

    def test_each_kind(self) -> None:
        """Plain, async and blocking handlers run within it, and answers keep their order."""
        self.assertEqual(self.asked("ECHO a", "SOON b", "BLOCK c", "PING"), ["a", "b", "c", "PONG"])
        names = [name for what, name in self.log if what == "begin"]
        self.assertEqual(names, ["ECHO", "SOON", "BLOCK", "PING"])
        self.assertEqual(len(self.log), 8)

    def test_not_permitted_or_wrong(self) -> None:
        """What is refused before its handler is not seen."""
        self.assertEqual(self.asked("NOPE", "HELP a b"), ["unknown_command", "bad_arguments"])
        self.assertEqual(self.log, [])

    def test_refusal_and_value(self) -> None:
        """It may refuse, replace a value, and leave the handler out; the last one is outermost."""

        @self.commands.around
        async def decide(request: Request, command: Command, proceed: Proceed) -> object:
            if command.name == "ECHO":
                raise CommandError("not now")
            return "replaced" if command.name == "TIME" else [await proceed()]

        self.assertEqual(self.asked("ECHO a", "TIME", "PING"), ["refused", "replaced", ["PONG"]])
        self.assertEqual([name for _, name in self.log], ["PING", "PING"])

    def test_errors_pass(self) -> None:
        """It sees what a handler raises; a bug is logged and answered as without it."""
        self.assertEqual(self.asked("REFUSE", "BUG"), ["refused", "internal"])
        self.assertEqual(len(self.log), 4)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_later(self) -> None:
        """Commands that are declared or added later are surrounded, once."""
        self.commands.command("LATER")(lambda: 1)
        other = Commands()
        other.command("ADDED")(lambda: 2)
        self.commands.update(other)
        for function in list(self.commands._around):
            self.commands.around(function)
        self.assertEqual(self.asked("LATER", "ADDED", "ECHO x"), [1, 2, "x"])
        self.assertEqual(len(self.log), 6)

    def test_time_limit(self) -> None:
        """The time limit is that of the whole; a thread that goes on counts until it ends."""
        client = self.connect(b"BLOCK a\nWAIT\n")
        self.reactor.advance(self.factory.limits.command_timeout)
        self.reactor.settle()
        self.assertEqual(self.results(client), ["timeout", "timeout"])
        self.assertEqual(self.factory.sessions.counters.overdue, 1)
        self.reactor.run_thread()
        self.assertEqual(self.factory.sessions.counters.overdue, 0)
        self.leave(client)

    def test_stubborn(self) -> None:
        """One that goes on after the time limit counts once, until it has ended."""
        until: Deferred[None] = Deferred()

        @self.commands.around
        async def stubborn(request: Request, command: Command, proceed: Proceed) -> object:
            try:
                return await proceed()
            except CancelledError:
                await until
                return "late"

        client = self.connect(b"BLOCK a\n")
        self.reactor.advance(self.factory.limits.command_timeout)
        self.reactor.settle()
        self.assertEqual(self.results(client), ["timeout"])
        self.assertEqual(self.factory.sessions.counters.overdue, 1)
        self.reactor.run_thread()
        until.callback(None)
        self.assertEqual(self.factory.sessions.counters.overdue, 0)
        self.leave(client)
        self.assertEqual(self.factory.sessions.counters.overdue_of["192.0.2.1"], 0)

    def test_busy(self) -> None:
        """A blocking command for which there is no room is refused within it."""
        self.serve(max_blocking=1)
        self.assertEqual(self.asked("BLOCK a", "BLOCK b"), ["a", "busy"])
        self.assertEqual(len(self.log), 4)

    def test_wrong(self) -> None:
        """A function that is not async, or takes something else, is refused where it is added."""
        self.assertRaises(TypeError, self.commands.around, lambda request, command, proceed: 1)

        async def wrong(request: object) -> None:
            """Take too little."""

        self.assertRaises(TypeError, self.commands.around, wrong)
