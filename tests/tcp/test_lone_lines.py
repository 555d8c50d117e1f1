"""A line that comes alone fares as one among others: two ways through a connection, compared."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Reactor
from twisted_net.commands.registry import Commands, Request
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import CommandError
from twisted_net.ops.instruments import Instruments
from twisted_net.ops.slowlog import SlowLog, SlowLogSettings
from twisted_net.sessions import Sessions
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory

LINES = (
    *(b"ECHO a", b"PING", b"NOPE", b"", b"\xff", b'ECHO "', b"REFUSE", b"BUG", b"x" * 100),
    *(b"SLOW", b"WAIT", b"WAIT", b"FIRE", b"LEAVE", b"SUBSCRIBE a", b"PUBLISH a b"),
    *(b"SLOWLY", b"LEAVE_LATER"),
)


class Client:
    """
    A client whose every line comes alone.

    :param watched: whether MONITOR watches the server, so that each line goes the long way.
    """

    def __init__(self, watched: bool) -> None:
        self.reactor = Reactor()
        self.waiting: list[Deferred[str]] = []
        instruments = Instruments(slow_log=SlowLog(SlowLogSettings(threshold=0.001)))
        self.sessions = Sessions(lambda: 0.0, instruments=instruments)
        if watched:
            watcher = Sessions(lambda: 0.0).open("watcher", 1, lambda line: None)
            instruments.monitors.add(watcher, 10_000)
        self.factory = CommandFactory(
            self.reactor, self.commands(), Limits(max_line=64, max_pending=3), self.sessions
        )
        self.connection = self.reactor.connect(self.factory)
        (self.session,) = self.sessions

    def commands(self) -> Commands:
        """Commands that answer, refuse, fail, hold the reactor, wait, and end the client."""
        commands = standard_commands()
        commands.command("REFUSE")(self.refuse)
        commands.command("BUG")(lambda: 1 // 0)
        commands.command("SLOW")(self.slow)
        commands.command("WAIT")(self.wait)
        commands.command("FIRE")(self.fire)
        commands.command("LEAVE")(self.leave)
        commands.command("SLOWLY")(self.slowly)
        commands.command("LEAVE_LATER")(self.leave_later)
        return commands

    def refuse(self) -> None:
        """Refuse."""
        raise CommandError("no")

    def slow(self) -> None:
        """Hold the reactor for 2 ms."""
        self.reactor.rightNow += 0.002

    def wait(self) -> Deferred[str]:
        """Wait until FIRE comes."""
        waited: Deferred[str] = Deferred()
        self.waiting.append(waited)
        return waited

    def fire(self) -> int:
        """Let the oldest WAIT end."""
        waiting = [waited for waited in self.waiting if not waited.called]
        if waiting:
            waiting[0].callback("waited")
        return len(waiting)

    def leave(self, request: Request) -> bool:
        """End the connection of the client that asks."""
        return request.session.kill()

    async def slowly(self) -> None:
        """Hold the reactor for 2 ms before the first wait."""
        self.slow()

    async def leave_later(self, request: Request) -> bool:
        """End the connection of the client that asks, in a handler that may wait."""
        return self.leave(request)

    def run(self, lines: Sequence[bytes], half_close: bool) -> dict[str, object]:
        """Send lines, each alone, and collect all that can be seen of it."""
        for line in lines:
            if not self.connection.gone:
                self.connection.send(line + b"\n")
                self.reactor.settle()
        if half_close and not self.connection.gone:
            self.connection.end()
        self.reactor.settle()
        for waited in self.waiting:
            if not waited.called:
                waited.callback("late")
        self.reactor.settle()
        figures = self.session.figures()
        counters = vars(self.sessions.counters)
        overdue_of = vars(counters["overdue_of"])
        slow = [entry.line for entry in self.sessions.instruments.slow_log.latest(100)]
        return {
            "received": self.connection.received(),
            "gone": self.connection.gone,
            "figures": figures,
            "messages": self.sessions.messages,
            "written": self.session.written,
            "counters": {**counters, "overdue_of": overdue_of},
            "slow": slow,
        }


class LoneLineTests(SynchronousTestCase):
    """The short way of a lone line and the way of many lines do the same."""

    @given(st.lists(st.sampled_from(LINES), max_size=20), st.booleans())
    def test_same(self, lines: list[bytes], half_close: bool) -> None:
        """Answers, their order, counters, slow log and ends do not differ."""
        short, long = Client(watched=False), Client(watched=True)
        self.assertFalse(short.factory.watched)
        self.assertTrue(long.factory.watched)
        outcome = short.run(lines, half_close)
        expected = long.run(lines, half_close)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(outcome, expected)
