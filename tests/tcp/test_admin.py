"""The server shows operators slow commands and connections, and disconnects clients they name."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress

from tests.tcp.memory import Connection
from tests.tcp.server_case import ServerTestCase
from twisted_net.auth.users import AuthSettings, Permissions, User
from twisted_net.ops.instruments import Instruments
from twisted_net.ops.slowlog import SlowLog, SlowLogSettings
from twisted_net.reasons import End
from twisted_net.sessions import Sessions
from twisted_net.tcp.admission import Access
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory


class KillTests(ServerTestCase):
    """A client that is disconnected is notified, and is gone."""

    def kill(self, operator: Connection, victim: Connection) -> None:
        """Have one client killed by another."""
        operator.send(f"KILL address {victim.protocol.session.client[0]}\n".encode())  # type: ignore[attr-defined]  # of ours
        self.reactor.settle()

    def test_told(self) -> None:
        """The client hears the reason; it is counted, and kept among the closed ones."""
        victim, operator = self.connect(peer=IPv4Address("TCP", "192.0.2.9", 1)), self.connect()
        self.kill(operator, victim)
        self.assertEqual(victim.answers(), [{"event": "closing", "reason": "killed"}])
        self.assertTrue(victim.gone)
        self.assertEqual(operator.answers(), [{"command": "KILL", "killed": 1}])
        self.assertEqual(self.factory.sessions.counters.ended[End.KILLED], 1)
        self.assertEqual(self.factory.sessions.counters.closed[-1].end, End.KILLED)

    def test_lines_left_over(self) -> None:
        """Lines that were not run are not, and handlers that wait are cancelled."""
        self.serve(turn_budget=1)
        victim = self.connect(b"WAIT a\n", peer=IPv4Address("TCP", "192.0.2.9", 1))
        operator = self.connect()
        victim.send(b"ECHO b\nECHO c\n")
        self.reactor.turn()
        self.kill(operator, victim)
        self.assertEqual(victim.answers(), [{"event": "closing", "reason": "killed"}])
        self.assertEqual(self.handlers.log, ["wait a", "cancelled a"])
        self.assertTrue(victim.gone)

    def test_stuck(self) -> None:
        """One that does not read is cut off at once, without a word."""
        victim = self.connect(peer=IPv4Address("TCP", "192.0.2.9", 1))
        victim.reads = False
        victim.send(b"BIG 100000\n")
        self.reactor.settle()
        self.kill(self.connect(), victim)
        self.assertTrue(victim.gone)
        self.assertEqual(self.factory.sessions.counters.ended[End.KILLED], 1)

    def test_itself(self) -> None:
        """A client may send itself away: it gets the answers that are due, this one too."""
        client = self.connect(b"ECHO a\nKILL address 192.0.2.1\n")
        self.assertEqual(
            client.answers(), [{"command": "ECHO", "result": "a"}, {"command": "KILL", "killed": 1}]
        )
        self.assertTrue(client.gone)
        self.assertEqual(self.factory.sessions.counters.ended[End.KILLED], 1)

    def test_reason(self) -> None:
        """The client is told why, and is out of the list while it reads that."""
        victim = self.connect(peer=IPv4Address("TCP", "192.0.2.9", 1))
        victim.polite = False
        operator = self.connect(b"KILL client 192.0.2.9:1 too noisy\nCLIENTS\n")
        killed, clients = operator.answers()
        self.assertEqual((killed["killed"], clients["count"]), (1, 1))
        event = {"event": "closing", "reason": "killed", "message": "too noisy"}
        self.assertEqual(victim.answers(), [event])
        self.leave(victim, operator)
        self.assert_over(killed=1, client_closed=1)

    def test_twice(self) -> None:
        """One that is going already is not sent away again."""
        victim = self.connect(peer=IPv4Address("TCP", "192.0.2.9", 1))
        victim.polite = False
        operator = self.connect()
        self.kill(operator, victim)
        self.kill(operator, victim)
        self.assertEqual(victim.answers(), [{"event": "closing", "reason": "killed"}])
        self.leave(victim)
        self.assertEqual(self.factory.sessions.counters.ended[End.KILLED], 1)


class SlowTests(ServerTestCase):
    """Commands that take long are remembered, and let others have their turn."""

    def setUp(self) -> None:
        super().setUp()
        self.handlers.commands.command("SLEEP")(self.sleep)
        self.handlers.commands.command("LOGIN", secret=True)(self.log_in)

    def sleep(self, seconds: float) -> str:
        """Hold the reactor."""
        self.reactor.rightNow += seconds
        return "slept"

    def log_in(self, token: str) -> str:
        """Hold the reactor, with a secret."""
        self.reactor.rightNow += 1
        return "in"

    def slow(self) -> list[tuple[str, float, bool]]:
        """Return what the slow log has, oldest first."""
        found = [
            (slow.line, round(slow.seconds, 6), slow.waited)
            for slow in self.factory.sessions.instruments.slow_log.latest(100)
        ]
        return found[::-1]

    def test_threshold(self) -> None:
        """From the threshold on a command is slow, and each one is timed by itself."""
        self.connect(b"SLEEP 0.009\nSLEEP 0.0099\nSLEEP 0.0101\nECHO x\nSLEEP 3\n")
        self.assertEqual(self.slow(), [("SLEEP 0.0101", 0.0101, False), ("SLEEP 3", 3.0, False)])

    def test_waiting(self) -> None:
        """A handler that waits is slow from another threshold on, and marked."""
        self.connect(b"WAIT a\nWAIT b\n")
        self.reactor.pass_time(0.9)
        self.handlers.waits[0].callback(1)
        self.reactor.pass_time(0.2)
        self.handlers.waits[1].callback(1)
        self.reactor.settle()
        self.assertEqual(self.slow(), [("WAIT b", 1.1, True)])

    def test_secrets(self) -> None:
        """Arguments of a secret command are not kept, nor those of a word that is no command."""
        self.handlers.commands.fallback = lambda request, text: {"slept": self.sleep(1)}
        self.connect(b"LOGIN hunter2\nLOGNI hunter2\n")
        self.assertEqual([line for line, _, _ in self.slow()], ["LOGIN …", "LO… …"])

    def test_turn_ends(self) -> None:
        """After ``turn_time`` the others have their turn, the rest of the lines the next one."""
        self.serve(turn_time=0.002)
        client = self.connect()
        client.send(b"SLEEP 0.0011\n" * 6)
        before = len(client.writes)
        self.reactor.settle()
        answers = [data.count(b"\n") for _, data in client.writes[before:]]
        self.assertEqual(answers, [2, 2, 2])

    def test_one_line_at_least(self) -> None:
        """However long a line takes, each turn runs one, and all are answered in order."""
        client = self.connect(b"SLEEP 1\nECHO a\nSLEEP 1\nECHO b\n")
        self.assertEqual(self.results(client), ["slept", "a", "slept", "b"])

    def test_threshold_below_turn_time(self) -> None:
        """A threshold below ``turn_time`` finds every slow command all the same."""
        sessions = Sessions(
            self.reactor.seconds,
            instruments=Instruments(slow_log=SlowLog(SlowLogSettings(threshold=0.0005))),
        )
        limits = Limits(turn_time=1.0)
        self.factory = CommandFactory(self.reactor, self.handlers.commands, limits, sessions)
        self.connect(b"SLEEP 0.0006\nSLEEP 0.0004\nSLEEP 0.0006\n")
        self.assertEqual([line for line, _, _ in self.slow()], ["SLEEP 0.0006", "SLEEP 0.0006"])

    def test_low_threshold(self) -> None:
        """The same for a line alone, however low the threshold is."""
        sessions = Sessions(
            self.reactor.seconds,
            instruments=Instruments(slow_log=SlowLog(SlowLogSettings(threshold=0.00005))),
        )
        self.factory = CommandFactory(self.reactor, self.handlers.commands, Limits(), sessions)
        client = self.connect(b"PING\n")
        for line in (b"SLEEP 0.00006\n", b"SLEEP 0.00004\n"):
            client.send(line)
            self.reactor.settle()
        self.assertEqual([line for line, _, _ in self.slow()], ["SLEEP 0.00006"])


class MonitorTests(ServerTestCase):
    """A client that watches is shown what the others ask, before it is answered."""

    def test_lines(self) -> None:
        """It sees all lines of others, those that are refused too, without secrets."""
        watcher = self.connect(b"MONITOR\n")
        watcher.received()
        self.handlers.commands.command("LOGIN", secret=True)(lambda: None)
        self.connect(b"ECHO a b\nNOPE x\nLOGIN hunter2\n\nBUG\n")
        self.assertEqual(
            [event["line"] for event in watcher.answers()],
            ["ECHO a b", "NOPE …", "LOGIN …", "", "BUG"],
        )
        self.flushLoggedErrors(ZeroDivisionError)

    def test_metered(self) -> None:
        """Limits of rates hold while somebody watches; refused lines are shown."""
        self.serve(commands_per_address=1, command_burst=1)
        watcher = self.connect(b"MONITOR\n", peer=UNIXAddress(None))
        watcher.received()
        client = self.connect(b"PING\nPING\n")
        self.assertEqual(
            [answer.get("code") for answer in client.answers()], [None, "rate_limited"]
        )
        self.assertEqual([event["line"] for event in watcher.answers()], ["PING", "PING"])

    def test_off(self) -> None:
        """After MONITOR off, and after a watcher has gone, nothing is shown."""
        watcher = self.connect(b"MONITOR\nMONITOR off\n")
        other = self.connect(b"MONITOR\n")
        self.leave(other)
        watcher.received()
        self.connect(b"PING\n")
        self.assertEqual(watcher.answers(), [])
        self.assertFalse(self.factory.watched)

    def test_not_idle(self) -> None:
        """A client that watches is not idle, as long as it does."""
        self.serve(idle_timeout=10)
        watcher = self.connect(b"MONITOR\n")
        self.reactor.pass_time(60)
        self.assertFalse(watcher.gone)
        watcher.send(b"MONITOR off\n")
        self.reactor.pass_time(60)
        self.assertTrue(watcher.gone)


class FiguresTests(ServerTestCase):
    """CLIENTS shows what each connection did, and what waits for it."""

    def figures(self, client: Connection, *names: str) -> list[Any]:  # Any: JSON
        """Have another client ask for the figures of one."""
        operator = self.connect(b"CLIENTS\n")
        (answer,) = operator.answers()
        (own,) = [
            shown
            for shown in answer["clients"]
            if shown["client"] == client.protocol.session.name  # type: ignore[attr-defined]  # of ours
        ]
        self.leave(operator)
        return [own[name] for name in names]

    def test_bytes(self) -> None:
        """Bytes are counted both ways, halves of lines and events included."""
        client = self.connect(b"PING\nEC")
        sent = len(client.received())
        self.assertEqual(self.figures(client, "received", "sent", "buffered"), [7, sent, 2])
        self.connect(b"BROADCAST x\n")
        sent += len(client.received())
        self.assertEqual(self.figures(client, "sent"), [sent])
        client.send(b"HO\nSUBSCRIBE news\n")
        self.reactor.settle()
        self.connect(b"PUBLISH news hello\n")
        sent += len(client.received())
        self.assertEqual(self.figures(client, "sent", "buffered"), [sent, 0])

    def test_pending(self) -> None:
        """Lines that are not answered are counted, those that run and those that wait."""
        self.serve(max_pending=2)
        client = self.connect(b"WAIT a\nWAIT b\nECHO c\n")
        self.assertEqual(self.figures(client, "pending", "messages"), [3, 2])
        self.reactor.connections[0].reset()


class AdministrativeTests(ServerTestCase):
    """Without users, administrative commands are for this machine, or for a socket of their own."""

    def code(
        self, host: str | None, *, elsewhere: bool = False, required: bool = False
    ) -> Any:  # Any: JSON
        """Return the code with which CLIENTS is refused to a client at this address."""
        settings = AuthSettings(open=True, users="users.toml" if required else None)
        permissions = Permissions("ann", User(commands=("@admin",)))
        access = Access(settings, lambda name: permissions, elsewhere)
        self.factory = CommandFactory(self.reactor, self.handlers.commands, access=access)
        peer = UNIXAddress(None) if host is None else IPv4Address("TCP", host, 1)
        client = self.connect(peer=peer)
        if required:
            client.protocol.session.log_in(permissions)  # type: ignore[attr-defined]  # of ours
        client.send(b"CLIENTS\n")
        self.reactor.settle()
        (answer,) = client.answers()
        code: str | None = answer.get("code")
        return code

    def test_without_users(self) -> None:
        """This machine's clients may; others may not, though everybody may do everything else."""
        self.assertIsNone(self.code("127.0.0.1"))
        self.assertIsNone(self.code(None))
        self.assertEqual(self.code("192.0.2.1"), "not_permitted")

    def test_elsewhere(self) -> None:
        """Where administration has a socket of its own, administration is refused on the others."""
        self.assertEqual(self.code("127.0.0.1", elsewhere=True), "not_permitted")

    def test_users(self) -> None:
        """A user whose patterns say so may, from anywhere and on every listener."""
        self.assertIsNone(self.code("192.0.2.1", elsewhere=True, required=True))

    def test_embedded(self) -> None:
        """Without access control everybody may do everything."""
        self.assertIn("count", self.connect(b"CLIENTS\n").answers()[0])
