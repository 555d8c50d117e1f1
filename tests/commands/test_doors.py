"""A command fares the same, whichever door it comes through."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import eventAsJSON, formatEventAsClassicLogText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.coap.coap_driver import Transport
from tests.dtls.dtls_wire import Files, Wire
from tests.tcp.memory import Connection, Reactor
from tests.tcp.test_websocket import Client as WebSocketClient
from twisted_net.auth.users import Permissions, User
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message, parse_message
from twisted_net.coap.server import CoapServer
from twisted_net.commands.failures import HiddenMessage
from twisted_net.commands.registry import Commands
from twisted_net.commands.topics import declare_topics
from twisted_net.dtls.settings import DtlsSettings
from twisted_net.errors import CommandError, TooBusy
from twisted_net.net.characters import CONTROL_CHARACTER
from twisted_net.ops.instruments import Instruments
from twisted_net.ops.slowlog import SlowLog, SlowLogSettings
from twisted_net.reasons import Audited
from twisted_net.sessions import Session, Sessions
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.proxy_header import TrustedProxies
from twisted_net.tcp.proxy_protocol import ProxyFactory
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.websocket import WebSocketFactory

ANN = Permissions("ann", User(commands=("*", "-FORBIDDEN")))
Ask: TypeAlias = Callable[[str, str], None]
"""Sends a command and its one argument through a door."""


class World:
    """
    One registry and one record of instruments, for all doors.

    :param permissions: of the client; None where there are no users.
    """

    def __init__(self, test: SynchronousTestCase, permissions: Permissions | None) -> None:
        self.permissions = permissions
        self.reactor, self.clock = Reactor(), Clock()
        self.audited: list[tuple[str, str | None, str]] = []
        self.shown: list[bytes] = []
        self.commands = commands = Commands()
        commands.command("SETKEY", admin=True, secret=True)(lambda key: "set")
        commands.command("ROTATE", admin=True)(lambda key: "rotated")
        commands.command("HIDE", secret=True)(lambda key: "hidden")
        commands.command("LATER")(self.later)
        commands.command("MARK")(lambda text: text)
        commands.command("FORBIDDEN")(lambda text: text)
        commands.command("SLOW")(self.slow)
        commands.command("BUG")(self.bug)
        commands.command("REFUSE")(self.refuse)
        commands.command("SEEK")(self.seek)
        commands.command("HIDEBUG", secret=True)(self.leak)
        commands.command("LEAK")(self.leak)
        commands.command("LATELEAK")(self.leak_later)
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

    async def later(self, text: str) -> str:
        """Wait for something that is there, and refuse."""
        await succeed(None)
        raise TooBusy(7)

    def bug(self, text: str) -> str:
        """End by what no handler should end by."""
        raise SystemExit(text)

    def seek(self, text: str) -> str:
        """Hold the reactor, and refuse."""
        self.slow(text)
        raise TooBusy(7)

    def leak(self, text: str) -> str:
        """Fail with what was said."""
        local = text
        raise ValueError(f"cannot take {local}")

    async def leak_later(self, text: str) -> str:
        """Wait for something that is there, and fail with what was said."""
        await succeed(None)
        return self.leak(text)

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
    session.permissions = world.permissions

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
    session.permissions = world.permissions

    def ask(name: str, argument: str) -> None:
        client.say(f"{name} {argument}")
        assert len(client.answers()) == 1

    return ask, session


def coap_server(world: World) -> CoapServer:
    """A CoAP server of the same commands."""
    permissions = world.permissions
    return CoapServer(
        cast(IReactorTime, world.clock),
        world.commands,
        sessions=world.sessions(),
        permissions_of=None if permissions is None else lambda user: permissions,
        observable=[],
        chance=lambda: 0.5,
    )


def request(number: int, name: str, argument: str) -> bytes:
    """A command as a CoAP request."""
    options = [(int(Option.URI_PATH), name.lower().encode())]
    message = CoapMessage(Type.CON, Code.POST, number, b"t", options, argument.encode())
    return encode_message(message)


def forget_first(world: World, ask: Ask, sessions: Sessions) -> Session:
    """Open the session of a CoAP client, which its first request does; count nothing of that."""
    ask("MARK", "first")
    (session,) = sessions
    session.messages = 0
    world.commands.by_name["MARK"].calls = 0
    world.audited.clear()
    world.shown.clear()
    return session


def coap(world: World) -> tuple[Ask, Session]:
    """A client over plain CoAP."""
    server = coap_server(world)
    transport = Transport()
    server.transport = transport  # type: ignore[assignment]  # a fake
    server.startProtocol()
    numbers = iter(range(1, 100))

    def ask(name: str, argument: str) -> None:
        before = len(transport.written)
        server.datagramReceived(request(next(numbers), name, argument), ("127.0.0.1", 40_000))
        assert len(transport.written) == before + 1

    return ask, forget_first(world, ask, server.sessions)


def coaps(world: World) -> tuple[Ask, Session]:
    """A client over DTLS, whose certificate names the user."""
    server = coap_server(world)
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
        client.say(request(next(numbers), name, argument))
        wire.run()
        assert len(client.heard) == before + 1

    return ask, forget_first(world, ask, server.sessions)


OPEN = ("HIDE", "LATER", "MARK", "SLOW", "BUG", "REFUSE")
"""Commands that every client may run where there are no users."""


class DoorsTests(SynchronousTestCase):
    """Lines, WebSocket, CoAP and CoAP over DTLS run a command in one way."""

    def outcome(
        self,
        door: Callable[[World], tuple[Ask, Session]],
        permissions: Permissions | None,
        names: Sequence[str],
    ) -> dict[str, object]:
        """What is counted, audited and shown of the same commands through one door."""
        world = World(self, permissions)
        ask, session = door(world)
        for name in names:
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

    def test_user(self) -> None:
        """All that a user does fares the same, administrative commands among it."""
        names = ("SETKEY", "ROTATE", "FORBIDDEN", *OPEN)
        expected = self.outcome(lines, ANN, names)
        self.assertEqual(
            expected["audit"],
            [
                ("command", "ann", "SETKEY …"),
                ("command", "ann", "ROTATE hunter2"),
                ("refused", "ann", "not_permitted: FORBIDDEN"),
                ("refused", "ann", "busy: LATER"),
            ],
        )
        self.assertEqual(expected["slow"], [("SLOW hunter2", "ann", False)])
        calls = cast(dict[str, int], expected["calls"])
        self.assertEqual(
            {name: calls[name] for name in names if calls[name] != 1}, {"FORBIDDEN": 0}
        )
        self.assertEqual((expected["messages"], expected["failures"]), (len(names), 1))
        self.assertEqual(len(cast(list[bytes], expected["monitor"])), len(names))
        for door in (websocket, coaps):
            with self.subTest(door=door.__name__):
                self.assertEqual(self.outcome(door, ANN, names), expected)

    def test_spaces(self) -> None:
        """A line of nearly nothing but spaces is shown, and answered."""
        world = World(self, ANN)
        ask, _ = lines(world)
        for count in (799, 800, 801, 6000):
            ask("MARK" + " " * count, "x")
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(len(world.shown), 4)

    def test_secrets(self) -> None:
        """No door shows others a secret, be it in the audit, a watcher, the slow log or a crash."""
        logged = EventLoggingObserver()
        globalLogPublisher.addObserver(logged)
        self.addCleanup(globalLogPublisher.removeObserver, logged)
        for door in (lines, websocket, coaps):
            with self.subTest(door=door.__name__):
                world = World(self, ANN)
                ask, _ = door(world)
                for name in ("ROTATE", "SEEK", "LEAK", "LATELEAK", "MARK"):
                    ask(name, "http://ann:hunter2@h/?api_key=hunter2")
                ask("ROTATE", '"AUTH ann hunter2"')
                ask("HIDEBUG", "hunter2")
                ask("MARK", "surplus hunter2")
                ask("SUNTER2-hunter2", "hunter2")
                failures = self.flushLoggedErrors(HiddenMessage)
                shown = [str(world.audited), *map(bytes.decode, world.shown)]
                shown += [one.line for one in world.instruments.slow_log.latest(99)]
                shown += [formatEventAsClassicLogText(event) or "" for event in logged]
                shown += [eventAsJSON(event) for event in logged]
                for text in shown:
                    self.assertNotIn("hunter2", text)
                self.assertEqual(len(failures), 3)
                self.assertIn("in leak", failures[0].getTraceback())
                self.assertIn("ValueError", failures[0].getErrorMessage())

    def test_without_users(self) -> None:
        """All that anybody may do where there are no users fares the same."""
        expected = self.outcome(lines, None, OPEN)
        self.assertEqual(expected["audit"], [("refused", None, "busy: LATER")])
        self.assertEqual(expected["slow"], [("SLOW hunter2", None, False)])
        self.assertNotIn(b"hunter2", cast(list[bytes], expected["monitor"])[0])
        for door in (websocket, coap, coaps):
            with self.subTest(door=door.__name__):
                self.assertEqual(self.outcome(door, None, OPEN), expected)


TEXTS: tuple[tuple[bytes, str | None, int | None], ...] = (
    (b"plain", None, None),
    ("ä€𝄞 \u00a0\u2028\u3000\u200b".encode(), None, None),
    (b"a\tb", None, None),
    (b"a\x00", "control_character", 1),
    (b"\x1b[31m", "control_character", 0),
    (b"ab\x7f", "control_character", 2),
    ("ä\u0080".encode(), "control_character", 1),
    ("a\u0085b".encode(), "control_character", 1),
    ("\u009b31m".encode(), "control_character", 0),
    ("abc\u009f".encode(), "control_character", 3),
    (b"a\rb", "control_character", 1),
    (b"a\xff", "not_utf8", 1),
    (b"\xc2", "not_utf8", 0),
    (b"\xed\xa0\x80", "not_utf8", 0),
)
"""An argument, and the code and position of the error that refuses it."""


class TextDoorsTests(SynchronousTestCase):
    """Which characters an argument may have is the same on all doors."""

    def setUp(self) -> None:
        self.world = World(self, None)
        self.got: list[str] = []
        self.world.commands.command("TAKE", safe=True)(self.take)

    def take(self, text: str, more: str = "") -> None:
        """Take an argument."""
        self.got.append(text + more)

    def check(self, door: str, ask: Callable[[bytes], bytes], offset: int = 0) -> None:
        """
        Send each text through a door.

        :param ask: returns the answer, JSON.
        :param offset: characters before the argument, which count in the position.
        """
        for text, code, position in TEXTS:
            with self.subTest(door=door, text=text):
                self.got.clear()
                answer = json.loads(ask(text))
                self.assertEqual(answer.get("code"), code)
                if position is not None:
                    self.assertEqual(answer["position"], position + offset)
                self.assertEqual(len(self.got), code is None)

    def test_lines(self) -> None:
        """Lines over TCP, Unix sockets and PROXY headers."""
        factory = CommandFactory(self.world.reactor, self.world.commands)
        handshakes = Handshakes(self.world.reactor, 10, 100, factory.sessions.refused)
        proxied = ProxyFactory(factory, TrustedProxies(["192.0.2.1"]), handshakes)
        client = self.world.reactor.connect(factory)
        local = self.world.reactor.connect(factory, UNIXAddress(None))
        behind = self.world.reactor.connect(proxied)
        behind.send(b"PROXY TCP6 2001:db8::1 2001:db8::2 5 6\r\n")
        for connection in (client, local, behind):

            def ask(text: bytes, connection: Connection = connection) -> bytes:
                connection.send(b'take "' + text + b'"\r\n')
                self.world.reactor.settle()
                return connection.received()

            # A byte that is not UTF-8 is counted in bytes; these texts have ASCII before it.
            self.check("lines", ask, offset=len('take "'))

    def test_websocket(self) -> None:
        """Messages of a WebSocket; what is not UTF-8 is refused by RFC 6455 §8.1 there."""
        factory = CommandFactory(self.world.reactor, self.world.commands)
        handshakes = Handshakes(self.world.reactor, 10, 100, factory.sessions.refused)
        client = WebSocketClient(
            self.world.reactor, WebSocketFactory(factory, handshakes, self.world.reactor)
        )
        client.open()
        for text, code, _ in TEXTS:
            if code != "not_utf8":
                client.say(f'TAKE "{text.decode()}"')
                self.assertEqual(client.answers()[0].get("code"), code, text)

    def coap(self, *options: tuple[int, bytes], payload: bytes = b"") -> bytes:
        """Ask over CoAP, for an answer in JSON."""
        ordered = sorted([*options, (Option.ACCEPT, b"\x32")], key=lambda option: option[0])
        self.number = getattr(self, "number", 0) + 1
        message = CoapMessage(Type.CON, Code.POST, self.number, b"t", ordered, payload)
        self.server.datagramReceived(encode_message(message), ("127.0.0.1", 40_000))
        return parse_message(self.transport.written[-1][0]).payload

    def serve_coap(self) -> None:
        """Make the CoAP server."""
        self.server, self.transport = coap_server(self.world), Transport()
        self.server.transport = self.transport  # type: ignore[assignment]  # a fake
        self.server.startProtocol()

    def test_coap(self) -> None:
        """Queries, payloads and JSON over CoAP."""
        self.serve_coap()
        path = (int(Option.URI_PATH), b"take")
        self.check("query", lambda text: self.coap(path, (int(Option.URI_QUERY), text)))
        self.check("payload", lambda text: self.coap(path, payload=b'"' + text + b'"'), offset=1)
        json_format = (int(Option.CONTENT_FORMAT), b"\x32")
        for text, code, position in TEXTS:
            if code != "not_utf8":
                payload = json.dumps([text.decode()]).encode()
                answer = json.loads(self.coap(path, json_format, payload=payload))
                self.assertEqual((answer.get("code"), answer.get("position")), (code, position))

    def test_coap_paths(self) -> None:
        """Paths and filters over CoAP, whether there is such a resource or not."""
        self.serve_coap()
        segment, query = int(Option.URI_PATH), int(Option.URI_QUERY)
        for text, code, _ in TEXTS:
            if code is None:
                continue
            for options in (
                [(segment, text)],
                [(segment, b"topics"), (segment, text)],
                [(segment, b"take"), (segment, text)],
                [(segment, b".well-known"), (segment, b"core"), (query, text)],
                [(segment, b"events"), (query, text)],
                [(segment, b"take"), (query, b"good"), (query, text)],
            ):
                with self.subTest(options=options):
                    self.assertEqual(json.loads(self.coap(*options))["code"], code)
        self.assertEqual(self.got, [])

    def test_coap_topics(self) -> None:
        """Messages of topics over CoAP, which may have several lines."""
        declare_topics(self.world.commands)
        self.serve_coap()
        path = [(int(Option.URI_PATH), b"topics"), (int(Option.URI_PATH), b"a")]
        for text, code, position in TEXTS:
            expected = (None, None) if text == b"a\rb" else (code, position)
            answer = json.loads(self.coap(*path, payload=text))
            self.assertEqual((answer.get("code"), answer.get("position")), expected, text)

    def test_nothing_raw_is_shown(self) -> None:
        """MONITOR and SLOWLOG show no control character of any line or request."""
        self.world.instruments.slow_log.settings = SlowLogSettings(threshold=1e-9)
        factory = CommandFactory(
            self.world.reactor, self.world.commands, sessions=self.world.sessions()
        )
        client = self.world.reactor.connect(factory)
        for text, _, _ in TEXTS:
            for line in (b'TAKE "' + text + b'"', text + b" x", b"SLOW " + text):
                client.send(line + b"\n")
        self.world.reactor.settle()
        shown = [json.loads(line)["line"] for line in self.world.shown]
        self.assertEqual(len(shown), 3 * len(TEXTS))
        shown += [one.line for one in self.world.instruments.slow_log.latest(99)]
        for line in shown:
            self.assertIsNone(CONTROL_CHARACTER.search(line), ascii(line))
            self.assertNotIn("\t", line)
