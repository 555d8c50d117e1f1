"""The standard commands speak the wire of the protocol, to the byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.commands.lines import run_line
from twisted_net.commands.registry import Commands, Waiting
from twisted_net.commands.standard import FAILURES_SHOWN, acknowledge, standard_commands
from twisted_net.http.errors import NameNotFound
from twisted_net.reasons import End
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Connection, Session

WALL = 1795339800.123456
"""2026-11-22 09:30:00.123456 UTC."""


class StandardTests(SynchronousTestCase):
    """:func:`standard_commands` with two clients connected."""

    def setUp(self) -> None:
        self.now = WALL
        self.sessions = Sessions(lambda: self.now)
        self.steady = 0.0
        self.sessions.use_clock(lambda: self.steady)
        self.events: list[bytes] = []
        self.session = self.sessions.open("127.0.0.1", 50000, self.events.append)
        self.commands = standard_commands()

    def wire(self, line: str, session: Session | None = None) -> bytes:
        """Answer a line."""
        answer = run_line(self.commands, line.encode(), session or self.session)
        assert isinstance(answer, bytes)
        return answer

    def answer(self, line: str) -> dict[str, Any]:  # Any: JSON
        """Answer a line, and decode it."""
        decoded: dict[str, Any] = json.loads(self.wire(line))
        return decoded

    def test_protocol(self) -> None:
        """The answers are those of the protocol's table, to the byte."""
        for line, answer in (
            ("ECHO hello world", '{"command":"ECHO","result":"hello world"}'),
            ("echo  hello \t world ", '{"command":"ECHO","result":"hello world"}'),
            ('echo "a  b" c', '{"command":"ECHO","result":"a  b c"}'),
            ("ECHO", '{"command":"ECHO","result":""}'),
            ("TIME", '{"command":"TIME","result":"2026-11-22T09:30:00.123456+00:00"}'),
            ("PING", '{"command":"PING","result":"PONG"}'),
            ("", '{"error":"empty message","code":"empty"}'),
            ("NOPE", '{"error":"unknown command: NOPE","code":"unknown_command"}'),
        ):
            self.assertEqual(self.wire(line), answer.encode() + b"\n")

    def test_time_shows_microseconds(self) -> None:
        """A time on the full second has its six digits too."""
        self.now = 0.0
        self.assertEqual(self.answer("TIME")["result"], "1970-01-01T00:00:00.000000+00:00")

    def test_names_of_stats(self) -> None:
        """No figure can be added under a name that STATS has, or that the protocol reserves."""
        for name in (*self.answer("STATS"), "error", "code", "event"):
            with self.subTest(name=name):
                self.assertRaises(ValueError, self.sessions.add_figure, name, lambda: 1)
        self.sessions.add_figure("mine", lambda: 1)
        self.assertEqual(self.answer("STATS")["mine"], 1)

    def test_stats(self) -> None:
        """STATS counts itself, and every line before it."""
        self.wire("")
        self.wire("NOPE")
        self.sessions.refused(End.TOO_MANY_CONNECTIONS)
        self.sessions.close(self.sessions.open("h", 1, lambda line: None), End.DRAINED)
        self.sessions.open("h", 2, lambda line: "closing").deliver(b"\n")
        self.now -= 3600
        self.steady += 60.0004
        self.assertEqual(
            self.answer("STATS"),
            {
                "command": "STATS",
                "message_count": 3,
                "connections": 2,
                "clients": {"lines": 2},
                "connections_opened": 3,
                "connections_ended": {
                    "client_closed": 0,
                    "connection_lost": 0,
                    "idle_timeout": 0,
                    "write_timeout": 0,
                    "slow_subscriber": 0,
                    "drained": 1,
                    "aborted": 0,
                    "too_many_connections": 1,
                    "handshake_timeout": 0,
                    "handshake_failed": 0,
                    "too_many_handshakes": 0,
                    "untrusted_proxy": 0,
                    "address_limit": 0,
                    "network_limit": 0,
                    "user_limit": 0,
                    "anonymous_limit": 0,
                    "protected": 0,
                    "auth_timeout": 0,
                    "cross_protocol": 0,
                    "buffers_full": 0,
                    "too_many_key_updates": 0,
                    "no_descriptors": 0,
                    "killed": 0,
                    "refused": 0,
                    "banned": 0,
                },
                "refused": {
                    "auth_required": 0,
                    "auth_failed": 0,
                    "auth_delayed": 0,
                    "not_permitted": 0,
                    "rate_limited": 0,
                    "line_too_long": 0,
                    "subscription_limit": 0,
                    "busy": 0,
                },
                "undelivered": 1,
                "topics": self.sessions.topics.figures(),
                "uptime": 60.0,
            },
        )
        self.assertTrue(self.wire("stats").startswith(b'{"command":"STATS","message_count":4,'))

    def test_broadcast(self) -> None:
        """BROADCAST reaches every client, the asking one too, and tells how it fared."""
        stuck = self.sessions.open("h", 1, lambda line: "output_full")
        self.assertEqual(
            self.wire('BROADCAST hi "  all"'),
            b'{"command":"BROADCAST","delivered":1,"failed":1,"failures":{"h:1":"output_full"}}\n',
        )
        self.assertEqual(
            self.events,
            [b'{"event":"broadcast","from":"127.0.0.1:50000","message":"hi   all"}\n'],
        )
        self.assertEqual((stuck.undelivered, self.sessions.counters.undelivered), (1, 1))

    def test_broadcast_shows_some_failures(self) -> None:
        """Of many failures some are named, and all are counted."""
        for port in range(FAILURES_SHOWN + 5):
            self.sessions.open("h", port, lambda line: "output_full")
        answer = self.answer("BROADCAST hi")
        self.assertEqual(
            (answer["failed"], len(answer["failures"])), (FAILURES_SHOWN + 5, FAILURES_SHOWN)
        )

    def test_broadcast_nothing(self) -> None:
        """There must be something to say."""
        self.assertEqual(
            self.wire("broadcast"),
            b'{"error":"there is no message to broadcast","code":"refused",'
            b'"command":"BROADCAST"}\n',
        )
        self.assertEqual(self.events, [])

    def test_help(self) -> None:
        """HELP lists all commands by name, each with usage, a line of help and its kind."""
        connection = cast(Connection, object())  # never asked for anything
        connected = self.sessions.open("127.0.0.1", 50001, self.events.append, connection)
        commands = json.loads(self.wire("HELP", connected))["commands"]
        self.assertEqual(
            [command["usage"] for command in commands],
            [
                "BROADCAST [words ...]",
                "CLIENTS [limit]",
                "CLOSED [limit]",
                "ECHO [words ...]",
                "HELP [command]",
                "INFO [section]",
                "KILL <what> <name> [reason ...]",
                "LATENCY [limit]",
                "MONITOR [per_second]",
                "PING",
                "PRESENCE [limit]",
                "PUBLISH <topic> [words ...]",
                "RETAIN <topic> [words ...]",
                "SLOWLOG [limit]",
                "STATS",
                "SUBSCRIBE <pattern> [when_slow]",
                "TIME",
                "UNSUBSCRIBE [pattern]",
            ],
        )
        for command in commands:
            self.assertEqual(command.keys(), {"name", "usage", "help", "kind"})
            self.assertTrue(command["help"].endswith("."), command)
            self.assertEqual(command["kind"], "plain")

    def test_help_without_connection(self) -> None:
        """HELP has no command that needs a connection for a client that has none, as over CoAP."""
        names = {command["name"] for command in self.answer("HELP")["commands"]}
        self.assertFalse(names & {"MONITOR", "SUBSCRIBE", "UNSUBSCRIBE"})
        for name in ("subscribe", "MONITOR"):
            self.assertEqual(self.answer(f"HELP {name}")["code"], "unknown_command")

    def test_help_of_one(self) -> None:
        """HELP tells of one command, in any case; an unknown one is unknown."""
        self.assertEqual(
            self.answer("HELP ping"),
            {
                "command": "HELP",
                "commands": [
                    {
                        "name": "PING",
                        "usage": "PING",
                        "help": "Answer PONG: the server is alive.",
                        "kind": "plain",
                    }
                ],
            },
        )
        for name in ("nope", "null"):
            self.assertEqual(
                self.answer(f"HELP {name}"),
                {
                    "error": f"unknown command: {name}",
                    "code": "unknown_command",
                    "command": "HELP",
                },
            )
        self.assertEqual(self.answer("HELP a b")["code"], "bad_arguments")

    def test_no_fetch(self) -> None:
        """Without a way to fetch there is no FETCH."""
        self.assertIsNone(self.commands.get("FETCH"))


class FetchTests(SynchronousTestCase):
    """FETCH gives what the function that it is made with gives."""

    def answer(self, commands: Commands) -> bytes:
        """Answer a FETCH."""
        session = Sessions(lambda: 0.0).open("h", 1, lambda line: None)
        waiting = run_line(commands, b"fetch http://h.example/?q=1", session)
        assert isinstance(waiting, Waiting)
        self.assertFalse(waiting.blocking)

        async def wait() -> bytes:
            try:
                return waiting.answer(await waiting.start())  # type: ignore[misc]  # a coroutine
            except NameNotFound as error:
                return waiting.refuse(error)

        return self.successResultOf(Deferred.fromCoroutine(wait()))

    def test_members(self) -> None:
        """Its members stand beside the command."""

        async def fetch(url: str) -> Mapping[str, object]:
            return {"status": 200, "url": url}

        self.assertEqual(
            self.answer(standard_commands(fetch)),
            b'{"command":"FETCH","status":200,"url":"http://h.example/?q=1"}\n',
        )

    def test_error(self) -> None:
        """Its error is the answer."""

        async def fetch(url: str) -> Mapping[str, object]:
            raise NameNotFound("h.example")

        self.assertEqual(
            self.answer(standard_commands(fetch)),
            b'{"error":"no address found for h.example","code":"name_not_found",'
            b'"host":"h.example","command":"FETCH"}\n',
        )


class AcknowledgeTests(SynchronousTestCase):
    """:func:`acknowledge` answers as the first version of the server did."""

    def test_wire(self) -> None:
        """The text and the client stand in the answer, to the byte."""
        session = Sessions(lambda: 0.0).open("127.0.0.1", 50000, lambda line: None)
        self.assertEqual(
            run_line(Commands(acknowledge), b' hello "world ', session),
            b'{"status":"success","message":"received: hello \\"world",'
            b'"client":["127.0.0.1",50000]}\n',
        )
