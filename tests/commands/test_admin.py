"""An operator sees who is here and what goes on, and sends away who must go."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.commands.lines import finish, run_line
from tests.connections import FakeConnection
from twisted_net.auth.users import Permissions, User
from twisted_net.commands.standard import standard_commands
from twisted_net.ops.instruments import Instruments
from twisted_net.ops.long_turns import LongTurn
from twisted_net.ops.slowlog import SlowLog, SlowLogSettings
from twisted_net.reasons import End
from twisted_net.sessions import Session, Sessions

WALL = 1795339800.123456
"""2026-11-22 09:30:00.123456 UTC."""

IDLE_MAILBOX = {"subscriptions": 0, "waiting": 0, "dropped": 0}
"""What CLIENTS shows of topics, of a client that listens to none."""


class AdministrationTests(SynchronousTestCase):
    """The administrative commands of :func:`standard_commands`."""

    def setUp(self) -> None:
        self.now = WALL
        self.sessions = Sessions(
            lambda: self.now, instruments=Instruments(slow_log=SlowLog(SlowLogSettings(kept=2)))
        )
        self.events: list[bytes] = []
        self.session = self.sessions.open("127.0.0.1", 50000, self.events.append)
        self.commands = standard_commands()

    def wire(self, line: str, session: Session | None = None) -> bytes:
        """Answer a line."""
        return finish(run_line(self.commands, line.encode(), session or self.session))

    def answer(self, line: str, session: Session | None = None) -> dict[str, Any]:  # Any: JSON
        """Answer a line, and decode it."""
        decoded: dict[str, Any] = json.loads(self.wire(line, session))
        return decoded

    def client(self, host: str, port: int, user: str | None = None) -> FakeConnection:
        """Connect a client."""
        connection = FakeConnection()
        session = self.sessions.open(host, port, lambda line: None, connection)
        if user is not None:
            session.log_in(Permissions(user, User()))
        return connection

    def test_clients(self) -> None:
        """CLIENTS lists who is connected, oldest first, each with its figures."""
        self.now += 1
        other = self.sessions.open("::1", 7, lambda line: "closing", FakeConnection())
        other.deliver(b"\n")
        self.wire("PING", other)
        self.assertEqual(
            self.answer("CLIENTS"),
            {
                "command": "CLIENTS",
                "count": 2,
                "clients": [
                    {
                        "client": "127.0.0.1:50000",
                        "door": "lines",
                        "user": None,
                        "connected": "2026-11-22T09:30:00.123456+00:00",
                        "messages": 1,
                        "received": 0,
                        "sent": 0,
                        "undelivered": 0,
                        **IDLE_MAILBOX,
                    },
                    {
                        "client": "[::1]:7",
                        "door": "lines",
                        "user": None,
                        "connected": "2026-11-22T09:30:01.123456+00:00",
                        "messages": 1,
                        "received": 0,
                        "sent": 0,
                        "undelivered": 1,
                        **IDLE_MAILBOX,
                        "pending": 3,
                        "buffered": 7,
                    },
                ],
            },
        )

    def test_closed(self) -> None:
        """CLOSED lists who was connected, latest end first, each with the reason."""
        for port, end in ((1, End.DRAINED), (2, End.AUTH_TIMEOUT)):
            session = self.sessions.open("h", port, lambda line: None)
            self.now += 1
            self.sessions.close(session, end)
        self.assertEqual(
            self.answer("CLOSED 1"),
            {
                "command": "CLOSED",
                "count": 2,
                "clients": [
                    {
                        "client": "h:2",
                        "door": "lines",
                        "user": None,
                        "connected": "2026-11-22T09:30:01.123456+00:00",
                        "ended": "2026-11-22T09:30:02.123456+00:00",
                        "messages": 0,
                        "reason": "auth_timeout",
                    }
                ],
            },
        )
        self.assertEqual(len(self.answer("CLOSED")["clients"]), 2)

    def test_clients_limit(self) -> None:
        """CLIENTS shows 100 and counts all; a limit from 1 to 1000 shows others."""
        for port in range(1100):
            self.sessions.open("h", port, lambda line: None)
        for line, shown in (("CLIENTS", 100), ("CLIENTS 1", 1), ("CLIENTS 1000", 1000)):
            answer = self.answer(line)
            self.assertEqual((answer["count"], len(answer["clients"])), (1101, shown))
        for line in ("CLIENTS 0", "CLIENTS 1001", "CLIENTS x"):
            self.assertEqual(self.answer(line)["code"], "bad_arguments")
        self.assertEqual(
            self.answer("CLIENTS 0")["error"],
            "argument 1 (limit) must be an integer from 1 to 1000, not '0'",
        )

    def test_kill(self) -> None:
        """KILL ends a client, or all of a user, each once, and says how many those were."""
        first = self.client("192.0.2.1", 1, "ann")
        second = self.client("192.0.2.1", 2, "bob")
        third = self.client("192.0.2.2", 3, "ann")
        for line, killed, each in (
            ("KILL client 192.0.2.1:2", 1, (0, 1, 0)),
            ("KILL user ann", 2, (1, 1, 1)),
            ("KILL address 192.0.2.1", 0, (1, 1, 1)),
            ("KILL user nobody", 0, (1, 1, 1)),
        ):
            self.assertEqual(self.answer(line), {"command": "KILL", "killed": killed})
            self.assertEqual((first.killed, second.killed, third.killed), each, line)

    def test_kill_address(self) -> None:
        """An address is the same however it is written; one with a zone is another."""
        hosts = ("::ffff:192.0.2.1", "192.0.2.1", "2001:db8::1", "fe80::1%2", "unix:uid=1000")
        for address, killed in (
            ("192.0.2.1", [0, 1]),
            ("::FFFF:192.0.2.1", [0, 1]),
            ("2001:DB8:0:0::1", [2]),
            ("fe80::1", []),
            ("FE80:0::1%2", [3]),
            ("unix:uid=1000", [4]),
        ):
            clients = [self.client(host, port) for port, host in enumerate(hosts)]
            self.assertEqual(self.answer(f"KILL address {address}")["killed"], len(killed))
            ended = [i for i, client in enumerate(clients) if client.killed]
            self.assertEqual(ended, killed)
            for i in {*range(len(hosts))} - {*killed}:
                self.answer(f"KILL address {hosts[i]}")

    def test_kill_nobody(self) -> None:
        """A client that is not there is an error; so is another kind of thing to kill."""
        answer = self.answer("KILL client h:9")
        self.assertEqual(answer["code"], "refused")
        self.assertIn("there is no client h:9", answer["error"])
        for line in ("KILL", "KILL client", "KILL process 1"):
            self.assertEqual(self.answer(line)["code"], "bad_arguments")

    def test_kill_without_connection(self) -> None:
        """One whose connection cannot be ended is not counted."""
        self.assertEqual(self.answer("KILL client 127.0.0.1:50000")["killed"], 0)

    def test_info(self) -> None:
        """INFO gives all sections, those that others add beside its own."""
        self.sessions.add_section("server", lambda: {"version": "7"})
        self.wire("PING")
        self.wire("NOPE")
        answer = self.answer("INFO")
        self.assertEqual(
            answer.keys(),
            {"command", "bans", "clients", "commands", "latency", "memory", "server", "topics"},
        )
        self.assertEqual(answer["server"], {"version": "7"})
        self.assertEqual(answer["commands"], {"INFO": 1, "PING": 1})
        self.assertEqual(answer["topics"], self.sessions.topics.figures())
        self.assertEqual(
            answer["clients"],
            {
                "connections": 1,
                "doors": {"lines": 1},
                "opened": 1,
                "messages": 3,
                "received": 0,
                "sent": 0,
                "undelivered": 0,
                "failures": 0,
                "overdue": 0,
                "slow": 0,
                "monitors": 0,
            },
        )

    def test_names_of_info(self) -> None:
        """No section can be added under a name that INFO has, or that the protocol reserves."""
        for name in (*self.answer("INFO"), "error", "code", "event"):
            with self.subTest(name=name):
                self.assertRaises(ValueError, self.sessions.add_section, name, dict)

    def test_info_of_one(self) -> None:
        """INFO with a section gives this one; an unknown one is refused with those there are."""
        self.assertEqual(self.answer("INFO topics").keys(), {"command", "topics"})
        answer = self.answer("INFO nope")
        self.assertEqual(
            answer["error"],
            "there is no section nope; there are bans, clients, commands, latency, memory, topics",
        )

    def test_traffic(self) -> None:
        """The bytes of all clients are counted, those that have gone included."""
        other = self.sessions.open("h", 1, lambda line: None)
        other.received, other.written = 5, 7
        self.sessions.close(other, End.CLIENT_CLOSED)
        self.session.received, self.session.written = 10, 20
        figures = self.answer("INFO clients")["clients"]
        self.assertEqual((figures["received"], figures["sent"]), (15, 27))

    def test_slowlog(self) -> None:
        """SLOWLOG shows the latest slow commands; reset forgets them, and their count stays."""
        for i in range(3):
            self.sessions.instruments.slow_log.note(
                WALL, 0.0123456, "h:1", "ann", f"ECHO {i}", waited=False
            )
        self.assertEqual(
            self.answer("SLOWLOG 1"),
            {
                "command": "SLOWLOG",
                "count": 3,
                "kept": 2,
                "threshold": 0.01,
                "waiting_threshold": 1.0,
                "slow": [
                    {
                        "number": 3,
                        "at": "2026-11-22T09:30:00.123456+00:00",
                        "seconds": 0.012346,
                        "waited": False,
                        "client": "h:1",
                        "user": "ann",
                        "line": "ECHO 2",
                    }
                ],
            },
        )
        self.assertEqual(self.answer("SLOWLOG reset"), {"command": "SLOWLOG", "forgotten": 2})
        answer = self.answer("SLOWLOG")
        self.assertEqual((answer["count"], answer["kept"], answer["slow"]), (3, 0, []))

    def test_monitor(self) -> None:
        """MONITOR lets the client watch, at a rate, until it says off."""
        self.session = self.sessions.open("::1", 7, self.events.append, FakeConnection())
        self.assertEqual(
            self.answer("MONITOR"), {"command": "MONITOR", "watching": True, "per_second": 100}
        )
        self.assertIn(self.session, self.sessions.instruments.monitors)
        self.assertEqual(self.answer("MONITOR 5")["per_second"], 5)
        self.assertEqual(self.answer("MONITOR off"), {"command": "MONITOR", "watching": False})
        self.assertNotIn(self.session, self.sessions.instruments.monitors)
        self.assertFalse(self.answer("MONITOR off")["watching"])
        for line in ("MONITOR 0", "MONITOR 10001", "MONITOR all"):
            self.assertEqual(self.answer(line)["code"], "bad_arguments")

    def test_monitor_without_connection(self) -> None:
        """A client without a connection cannot watch: others would see its events."""
        session = self.sessions.open("127.0.0.1", 50001, self.events.append)
        self.assertEqual(self.answer("MONITOR", session)["code"], "refused")
        self.assertEqual(len(self.sessions.instruments.monitors), 0)

    def test_monitor_that_leaves(self) -> None:
        """A client that has gone watches no more."""
        self.session = self.sessions.open("::1", 7, self.events.append, FakeConnection())
        self.wire("MONITOR")
        self.assertEqual(len(self.sessions.instruments.monitors), 1)
        self.sessions.close(self.session, End.CLIENT_CLOSED)
        self.assertEqual(len(self.sessions.instruments.monitors), 0)

    def test_latency(self) -> None:
        """LATENCY tells how late the reactor was, and when most; reset begins anew."""
        for late in (0.0001, 0.0003, 0.0123456):
            self.sessions.instruments.latency.note(late, WALL)
        self.assertEqual(
            self.answer("LATENCY"),
            {
                "command": "LATENCY",
                "interval": 0.1,
                "samples": 3,
                "p50": 0.0005,
                "p99": 0.012346,
                "max": 0.012346,
                "long_turns": {
                    "measured": "nothing",
                    "threshold": 0.05,
                    "count": 0,
                    "longest": None,
                    "latest": [],
                },
                "spikes": [{"at": "2026-11-22T09:30:00.123456+00:00", "seconds": 0.012346}],
            },
        )
        self.assertEqual(self.answer("LATENCY reset")["samples"], 0)
        self.assertEqual(self.answer("LATENCY")["spikes"], [])

    def test_long_turns(self) -> None:
        """LATENCY shows the long turns, latest first, and INFO their count; reset begins anew."""
        long_turns = self.sessions.instruments.long_turns
        long_turns.measured = "turns"
        long_turns.note(LongTurn(WALL, 0.3000001, 0.2999999, "shop.report (shop.py:7)", "sums"))
        long_turns.note(LongTurn(WALL, 0.1, None, "unknown"))
        at = "2026-11-22T09:30:00.123456+00:00"
        longest = {
            "at": at,
            "seconds": 0.3,
            "cpu": 0.3,
            "callback": "shop.report (shop.py:7)",
            "where": "sums",
        }
        latest = {"at": at, "seconds": 0.1, "cpu": None, "callback": "unknown", "where": ""}
        figures = {"measured": "turns", "threshold": 0.05, "count": 2}
        self.assertEqual(
            self.answer("LATENCY")["long_turns"],
            {**figures, "longest": longest, "latest": [latest, longest]},
        )
        self.assertEqual(self.answer("LATENCY 1")["long_turns"]["latest"], [latest])
        self.assertEqual(self.answer("INFO latency")["latency"]["long_turns"], figures)
        figures["count"] = 0
        self.assertEqual(self.answer("LATENCY reset")["long_turns"], figures)
        self.assertEqual(
            self.answer("LATENCY")["long_turns"], {**figures, "longest": None, "latest": []}
        )

    def test_not_for_everybody(self) -> None:
        """Where nobody logs in, a client that is not to administer may use none of them."""
        self.session.administrative = False
        for line in ("CLIENTS", "CLOSED", "INFO", "KILL user a", "LATENCY", "MONITOR", "SLOWLOG"):
            self.assertEqual(self.answer(line)["code"], "not_permitted", line)
        self.assertEqual(self.answer("PING")["result"], "PONG")

    def test_permitted(self) -> None:
        """Where users log in their permissions decide, and nothing else."""
        self.session.administrative = False
        self.session.permissions = Permissions("ann", User(commands=("@admin",)))
        self.assertEqual(self.answer("CLIENTS")["count"], 1)
