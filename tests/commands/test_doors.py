"""A command fares the same, whichever door it comes through."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dtls.dtls_wire import Files, Wire
from tests.tcp.memory import Reactor
from tests.tcp.test_websocket import Client as WebSocketClient
from twisted_net.auth.users import Permissions, User
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message
from twisted_net.coap.server import CoapServer
from twisted_net.commands.registry import Commands
from twisted_net.dtls.settings import DtlsSettings
from twisted_net.errors import CommandError
from twisted_net.ops.instruments import Instruments
from twisted_net.ops.slowlog import SlowLog, SlowLogSettings
from twisted_net.reasons import Audited
from twisted_net.sessions import Session, Sessions
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.websocket import WebSocketFactory

ANN = Permissions("ann", User(commands=("@admin", "MARK", "SLOW", "BUG", "REFUSE")))
Ask: TypeAlias = Callable[[str, str], None]
"""Sends a command and its one argument through a door."""


class World:
    """One registry and one record of instruments, for all doors."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.reactor, self.clock = Reactor(), Clock()
        self.audited: list[tuple[str, str | None, str]] = []
        self.shown: list[bytes] = []
        self.commands = commands = Commands()
        commands.command("SETKEY", admin=True, secret=True)(lambda key: "set")
        commands.command("ROTATE", admin=True)(lambda key: "rotated")
        commands.command("MARK")(lambda text: text)
        commands.command("FORBIDDEN")(lambda text: text)
        commands.command("SLOW")(self.slow)
        commands.command("BUG")(self.bug)
        commands.command("REFUSE")(self.refuse)
        settings = SlowLogSettings(threshold=0.01)
        self.instruments = Instruments(self.audit, SlowLog(settings))
        watcher = Sessions(lambda: 0.0).open("watcher", 1, self.see)
        self.instruments.monitors.add(watcher, 1000)
        self.files = Files()
        test.addCleanup(self.files.remove)

    def see(self, line: bytes) -> None:
        """Take what MONITOR shows."""
        self.shown.append(line)

    def audit(self, event: str, client: Audited, what: str) -> None:
        """Take a line of the audit."""
        self.audited.append((event, client.user, what))

    def slow(self, text: str) -> str:
        """Hold the reactor for 20 ms."""
        for clock in (self.reactor, self.clock):
            clock.rightNow += 0.02
        return text

    def bug(self, text: str) -> str:
        """End by what no handler should end by."""
        raise SystemExit(text)

    def refuse(self, text: str) -> str:
        """Refuse."""
        raise CommandError(text)

    def sessions(self) -> Sessions:
        """Sessions of one door."""
        return Sessions(lambda: 0.0, instruments=self.instruments)


def lines(world: World) -> tuple[Ask, Session]:
    """A client over TCP, in lines."""
    sessions = world.sessions()
    factory = CommandFactory(world.reactor, world.commands, sessions=sessions)
    client = world.reactor.connect(factory)
    (session,) = sessions
    session.permissions = ANN

    def ask(name: str, argument: str) -> None:
        client.send(f"{name} {argument}\n".encode())
        world.reactor.settle()
        assert client.received().count(b"\n") == 1

    return ask, session


def websocket(world: World) -> tuple[Ask, Session]:
    """A client over WebSocket."""
    sessions = world.sessions()
    commands = CommandFactory(world.reactor, world.commands, sessions=sessions)
    handshakes = Handshakes(world.reactor, 10, 100, sessions.refused)
    client = WebSocketClient(
        world.reactor, WebSocketFactory(commands, handshakes, world.reactor, [])
    )
    client.open()
    (session,) = sessions
    session.permissions = ANN

    def ask(name: str, argument: str) -> None:
        client.say(f"{name} {argument}")
        assert len(client.answers()) == 1

    return ask, session


def coaps(world: World) -> tuple[Ask, Session]:
    """A client over DTLS, whose certificate names the user."""
    sessions = world.sessions()
    server = CoapServer(
        cast(IReactorTime, world.clock),
        world.commands,
        sessions=sessions,
        permissions_of=lambda user: ANN,
        observable=[],
        chance=lambda: 0.5,
    )
    settings = DtlsSettings(
        certificate=world.files.server,
        client_ca=world.files.ca,
        client_certificate="optional",
    )
    wire = Wire(world.files, settings, inner=server)
    client = wire.connect(certificate=world.files.write("ann", user="ann"))
    numbers = iter(range(1, 100))

    def ask(name: str, argument: str) -> None:
        before = len(client.heard)
        options = [(int(Option.URI_PATH), name.lower().encode())]
        number = next(numbers)
        request = CoapMessage(Type.CON, Code.POST, number, b"t", options, argument.encode())
        client.say(encode_message(request))
        wire.run()
        assert len(client.heard) == before + 1

    ask("MARK", "first")
    (session,) = sessions
    session.messages = 0
    (command,) = (command for command in world.commands if command.name == "MARK")
    command.calls = 0
    world.audited.clear()
    world.shown.clear()
    return ask, session


class DoorsTests(SynchronousTestCase):
    """Lines, WebSocket and CoAP over DTLS run a command in one way."""

    def outcome(self, door: Callable[[World], tuple[Ask, Session]]) -> dict[str, object]:
        """What is counted, audited and shown of the same commands through one door."""
        world = World(self)
        ask, session = door(world)
        for name in ("SETKEY", "ROTATE", "MARK", "FORBIDDEN", "SLOW", "BUG", "REFUSE"):
            ask(name, "hunter2")
        failures = self.flushLoggedErrors(SystemExit)
        slow = [(one.line, one.user, one.waited) for one in world.instruments.slow_log.latest(99)]
        counters = session.sessions.counters
        return {
            "audit": world.audited,
            "calls": {command.name: command.calls for command in world.commands},
            "messages": session.messages,
            "refusals": {refusal: n for refusal, n in counters.refusals.items() if n},
            "slow": slow,
            "failures": len(failures),
            "monitor": [line.partition(b'"line":')[2] for line in world.shown],
        }

    def test_same(self) -> None:
        """Audit, calls, messages, refusals, slow log, failures and MONITOR are the same."""
        expected = self.outcome(lines)
        self.assertEqual(
            expected["audit"],
            [
                ("command", "ann", "SETKEY …"),
                ("command", "ann", "ROTATE hunter2"),
                ("refused", "ann", "not_permitted: FORBIDDEN"),
            ],
        )
        self.assertEqual(expected["slow"], [("SLOW hunter2", "ann", False)])
        self.assertEqual(
            expected["calls"],
            {
                **dict.fromkeys(("SETKEY", "ROTATE", "MARK", "SLOW", "BUG", "REFUSE"), 1),
                "FORBIDDEN": 0,
            },
        )
        self.assertEqual((expected["messages"], expected["failures"]), (7, 1))
        self.assertEqual(len(cast(list[bytes], expected["monitor"])), 7)
        for door in (websocket, coaps):
            with self.subTest(door=door.__name__):
                self.assertEqual(self.outcome(door), expected)
