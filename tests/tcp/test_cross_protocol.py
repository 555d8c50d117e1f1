"""What a web page makes a browser send is not run, and other protocols are sent away."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Connection, Reactor
from tests.tcp.test_tls import TlsCase
from tests.tcp.test_websocket import Client as WebSocketClient
from twisted_net.auth.users import AuthSettings, User, Users
from twisted_net.commands.registry import Commands, Request
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import CommandError
from twisted_net.ops.instruments import Instruments
from twisted_net.reasons import Audited
from twisted_net.sessions import Sessions
from twisted_net.tcp.admission import Access
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.proxy_header import TrustedProxies
from twisted_net.tcp.proxy_protocol import ProxyFactory
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.websocket import WebSocketFactory

REQUEST = b"POST / HTTP/1.1"
LONG_REQUEST = b"POST /?" + b"a" * 17_000 + b" HTTP/1.1"
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

OPENINGS = (
    REQUEST,
    LONG_REQUEST,
    b"PING / HTTP/1.1",
    b"MARK /?" + b"a" * 17_000 + b" HTTP/1.1",
    b"GET /" + b"x" * 900 + b" HTTP/1.1",
    b"Host: a.test",
    b"Cookie: " + b"x" * 17_000,
    CLIENT_HELLO,
    CLIENT_HELLO + b"\0" * 17_000,
    b"SSH-2.0-x",
    b"EHLO a.test",
    b"OPTIONS sip:a SIP/2.0",
    b"CLIENT libcurl 8.5.0",
    b"24:CONTENT_LENGTH\x0027\x00SCGI\x001\x00,MARK a",
    b"\x00\x20\x20\x00\x0c\x00QUERY_STRING\x00\x00MARK a",
    b"*1",
    b"set key 0 0 6",
)
"""First lines of other protocols, short and long."""

FAILURES = (b"NOPE", b"", b"\xff", b"MARK", b"x" * 17_000, b"REFUSE", b"ECHO \0")
"""Lines that are answered with an error."""


class CrossProtocolCase(SynchronousTestCase):
    """A server in memory with a command that leaves a mark."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.marks: list[str] = []
        self.waiting: list[Deferred[str]] = []
        self.audited: list[tuple[str, str]] = []
        self.commands: Commands = standard_commands()
        self.commands.command("MARK")(self.marks.append)
        self.commands.command("WAIT")(self.wait)
        self.commands.command("REFUSE")(self.refuse)
        self.commands.command("AUTH", alone=True)(self.log_in)
        self.serve()

    def serve(self, access: Access | None = None, **limits: Any) -> None:  # Any: fields of Limits
        """Make the server anew."""
        self.audited.clear()
        instruments = Instruments(self.audit)
        sessions = Sessions(self.reactor.seconds, instruments=instruments)
        self.factory = CommandFactory(
            self.reactor, self.commands, Limits(**limits), sessions, access
        )

    def audit(self, event: str, client: Audited, what: str) -> None:
        """Take a line of the audit."""
        self.audited.append((event, what))

    def wait(self) -> Deferred[str]:
        """Wait until the test says so."""
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def refuse(self) -> None:
        """Refuse."""
        raise CommandError("no")

    def log_in(self, request: Request, name: str) -> str:
        """Log in as a user, without a password."""
        request.session.log_in(Users({"ann": User()}).unlisted(name))
        return name

    def connect(self, send: bytes = b"", **how: Any) -> Connection:  # Any: of Reactor.connect
        """Connect a client that sends something, and let the server take its time."""
        client = self.reactor.connect(self.factory, **how)
        self.say(client, send)
        return client

    def say(self, client: Connection, data: bytes) -> None:
        """Send something, and let the server take its time."""
        client.send(data)
        self.reactor.settle()

    def ended(self) -> dict[str, int]:
        """Return the reasons for which connections ended, and how many."""
        return {end.value: n for end, n in self.factory.sessions.counters.ended.items() if n}

    def assert_ended(self, client: Connection) -> None:
        """The client was sent away, nothing it said was run, and this is counted and audited."""
        self.assertTrue(client.gone)
        self.assertEqual(self.marks, [])
        self.assertEqual(self.ended(), {"cross_protocol": 1})
        [(event, what)] = [one for one in self.audited if one[0] == "closed"]
        self.assertEqual(event, "closed")
        self.assertTrue(what.startswith("cross_protocol: "), what)
        self.assertTrue(what.isprintable(), what)
        self.assertLess(len(what), 100)


class UnprovenTests(CrossProtocolCase):
    """Until a command has succeeded, each line that opens another protocol ends a connection."""

    def test_first_line(self) -> None:
        """It ends at the first line, unanswered, and what follows is not run."""
        for opening in OPENINGS:
            for end in (b"\r\n", b"\n"):
                with self.subTest(opening=opening[:40], end=end):
                    self.serve()
                    client = self.connect(opening + end + b"MARK a\nMARK b\n")
                    self.assertEqual(client.received(), b"")
                    self.assert_ended(client)
                    self.assertEqual(self.factory.sessions.messages, 0)

    def test_later_line(self) -> None:
        """It ends at the second line, and at the hundredth, if the others failed."""
        for opening in OPENINGS:
            for count in (1, 99, 300):
                with self.subTest(opening=opening[:40], count=count):
                    self.serve()
                    failures = (FAILURES * 100)[:count]
                    lines = (*failures, opening, b"MARK a", b"")
                    self.assert_ended(self.connect(b"\r\n".join(lines)))

    def test_each_line_in_a_segment_of_its_own(self) -> None:
        """It makes no difference when the lines come."""
        for opening in OPENINGS:
            with self.subTest(opening=opening[:40]):
                self.serve()
                client = self.connect()
                for line in FAILURES:
                    self.say(client, line + b"\r\n")
                self.assertEqual(len(client.answers()), len(FAILURES))
                self.say(client, opening + b"\r\n")
                self.assert_ended(client)

    def test_any_cut(self) -> None:
        """However the stream is cut, it ends before the line that follows."""
        for opening in (REQUEST, b"PING /" + b"a" * 70 + b" HTTP/1.1", CLIENT_HELLO, b"host:x"):
            stream = b"NOPE\r\n" + opening + b"\r\nMARK a\n"
            for cut in range(len(stream)):
                self.serve(max_line=64)
                client = self.connect(stream[:cut])
                self.say(client, stream[cut:])
                self.assert_ended(client)

    def test_byte_by_byte(self) -> None:
        """The bytes of an opening may come one by one."""
        for opening in OPENINGS:
            self.serve(max_line=100)
            client = self.connect(b"NOPE\n")
            for byte in opening[:200] + b"\nMARK a\n":
                if not client.gone:
                    client.send(bytes((byte,)))
                    self.reactor.settle()
            self.assert_ended(client)

    def test_unfinished(self) -> None:
        """No end of a line is waited for."""
        for opening in (CLIENT_HELLO, b"SSH-2.0-x", b"POST /", b"Host:", b"PING /x HTTP/1"):
            for before in (b"", b"NOPE\n"):
                with self.subTest(opening=opening, before=before):
                    self.serve()
                    self.assert_ended(self.connect(before + opening))

    def test_too_long_and_unfinished(self) -> None:
        """A line over the limit ends the connection when the limit is passed."""
        self.assert_ended(self.connect(LONG_REQUEST[:16_386]))

    def test_limit_before_the_login(self) -> None:
        """So does one over the smaller limit before a login."""
        users = Users({"ann": User()})
        self.serve(Access(AuthSettings(users="x"), users.permissions))
        self.assert_ended(self.connect(LONG_REQUEST[:1100] + b"\r\nMARK a\n"))

    def test_end_of_the_stream(self) -> None:
        """A client that ends its half within such a line is sent away, too."""
        client = self.connect(b"PING / HTTP/1.1")
        client.end()
        self.reactor.settle()
        self.assert_ended(client)

    def test_busy_server(self) -> None:
        """So is one whose lines have to wait for a turn."""
        self.serve(turn_budget=1)
        self.assert_ended(self.connect(b"NOPE\n" * 5 + REQUEST + b"\nMARK a\n"))

    def test_throttled(self) -> None:
        """So is one under a rate limit."""
        self.serve(commands_per_address=1.0, command_burst=1)
        self.assert_ended(self.connect(b"NOPE\n" * 5 + REQUEST + b"\nMARK a\n"))

    def test_watched(self) -> None:
        """So is one while MONITOR watches, which is not shown the line."""
        shown: list[bytes] = []

        def see(line: bytes) -> None:
            shown.append(json.loads(line)["line"])

        watcher = Sessions(lambda: 0.0).open("watcher", 1, see)
        self.factory.sessions.instruments.monitors.add(watcher, 1000)
        self.assert_ended(self.connect(b"NOPE\n" + REQUEST + b"\nMARK a\n"))
        self.assertEqual(len(shown), 1)

    def test_waiting(self) -> None:
        """A command that waits has not succeeded; it is cancelled."""
        client = self.connect(b"WAIT\n" + REQUEST + b"\nMARK a\n")
        self.assert_ended(client)
        self.assertTrue(self.waiting[0].called)

    def test_fallback(self) -> None:
        """The answer of a fallback is no success of a command."""
        for answer in ({"status": "success"}, {"command": "hello", "result": 1}, {"command": 1}):
            for wait in (False, True):
                with self.subTest(answer=answer, wait=wait):
                    self.serve()
                    self.commands.fallback = lambda request, text, value=answer, wait=wait: (
                        succeed(value) if wait else value
                    )
                    client = self.connect(b"hello\nhello: world\n")
                    self.assertEqual(client.answers(), [answer, answer])
                    self.say(client, REQUEST + b"\nMARK a\n")
                    self.assert_ended(client)

    def test_shown(self) -> None:
        """The audit shows what it was, and no byte that is not printable."""
        for opening, shown in (
            (REQUEST, "POST / HTTP/1.1"),
            (b"GET /\xff HTTP/1.1", r"GET /\xff HTTP/1.1"),
            (CLIENT_HELLO, "TLS"),
            (b"\x05\x01\x00", "binary"),
        ):
            self.serve()
            self.connect(opening + b"\r\n")
            self.assertEqual(self.audited, [("closed", f"cross_protocol: {shown}")])


class ProvenTests(CrossProtocolCase):
    """Once a command has succeeded, such lines are like any other."""

    def results(self, client: Connection) -> list[Any]:  # Any: JSON
        """Return the result or the code of each answer."""
        return [answer.get("result", answer.get("code")) for answer in client.answers()]

    def test_success(self) -> None:
        """A success before it, in the same segment or another, makes it a mistake only."""
        for opening in OPENINGS:
            code = "line_too_long" if len(opening) > 16_384 else None
            for stream in ([b"PING\n" + opening + b"\nPING\n"], [b"PING\n", opening, b"\nPING\n"]):
                client = self.connect()
                for data in stream:
                    self.say(client, data)
                first, answer, last = self.results(client)
                self.assertEqual((first, last), ("PONG", "PONG"))
                self.assertEqual(answer, code or answer)

    def test_failures_before_it(self) -> None:
        """The success may come late."""
        client = self.connect(
            b"\n".join([*FAILURES, b"PING", REQUEST, b"x" * 17_000, b"PING", b""])
        )
        self.assertEqual(
            self.results(client)[len(FAILURES) :],
            ["PONG", "unknown_command", "line_too_long", "PONG"],
        )

    def test_waiting(self) -> None:
        """That of a command which waited counts when it is there."""
        client = self.connect(b"WAIT\n")
        self.waiting[0].callback("done")
        self.say(client, REQUEST + b"\n")
        self.assertEqual(self.results(client), ["done", "unknown_command"])

    def test_waiting_failure(self) -> None:
        """Its failure does not."""
        client = self.connect(b"WAIT\n")
        self.waiting[0].errback(CommandError("no"))
        self.say(client, REQUEST + b"\nMARK a\n")
        self.assert_ended(client)

    def test_login(self) -> None:
        """A login counts."""
        users = Users({"ann": User()})
        self.serve(Access(AuthSettings(users="x"), users.permissions))
        client = self.connect(b"AUTH ann\n" + REQUEST + b"\nMARK a\n")
        self.assertEqual(self.results(client), ["ann", "not_permitted", None])
        self.assertEqual(self.marks, ["a"])

    def test_arguments(self) -> None:
        """A command may have such a line among its arguments, also as its first."""
        for line, result in (
            (b"ECHO POST / HTTP/1.1", "POST / HTTP/1.1"),
            (b'ECHO x "HTTP/1.1"', "x HTTP/1.1"),
            (b"ECHO Host: x", "Host: x"),
        ):
            self.assertEqual(self.results(self.connect(line + b"\n")), [result])

    def test_command_of_that_name(self) -> None:
        """Where there is a command GET it may be used, but not by HTTP."""
        self.commands.command("GET")(lambda key: key)
        for line, result in ((b"GET key\n", "key"), (b"get /key\n", "/key")):
            self.assertEqual(self.results(self.connect(line)), [result])
        self.serve()
        self.assert_ended(self.connect(b"GET / HTTP/1.1\r\nMARK a\n"))

    def test_nothing_is_kept(self) -> None:
        """No beginnings of lines are kept of a client that has proven itself."""
        self.connect(b"PING\n" + (b"x" * 17_000 + b"\n") * 100)
        (protocol,) = self.factory._protocols
        self.assertIsNone(protocol._framer.long_heads)
        self.serve()
        self.connect((b"x" * 17_000 + b"\n") * 100)
        (protocol,) = self.factory._protocols
        self.assertEqual(protocol._framer.long_heads, ())


class DoorsTests(CrossProtocolCase):
    """The rule holds behind every layer."""

    def test_proxy(self) -> None:
        """Behind a PROXY header, in the same segment as it or not."""
        for opening in OPENINGS:
            for cut in (0, 20, 45, 46, 50):
                self.serve()
                handshakes = Handshakes(self.reactor, 10, 100, self.factory.sessions.refused)
                factory = ProxyFactory(self.factory, TrustedProxies(["192.0.2.1"]), handshakes)
                client = self.reactor.connect(factory)
                stream = b"PROXY TCP4 198.51.100.7 198.51.100.2 50000 8888\r\n" + opening + b"\r\n"
                self.say(client, stream[:cut])
                self.say(client, stream[cut:] + b"MARK a\n")
                self.assert_ended(client)

    def test_unix(self) -> None:
        """On a Unix socket."""
        self.assert_ended(self.connect(b"NOPE\n" + REQUEST + b"\nMARK a\n", peer=UNIXAddress(None)))

    def test_websocket(self) -> None:
        """Within a WebSocket, whose handshake is HTTP of our own."""
        handshakes = Handshakes(self.reactor, 10, 100, self.factory.sessions.refused)
        factory = WebSocketFactory(self.factory, handshakes, self.reactor)
        client = WebSocketClient(self.reactor, factory)
        client.open()
        client.say("NOPE", REQUEST.decode(), "MARK a")
        client.events()
        self.assert_ended(client.connection)


class TlsTests(TlsCase):
    """The rule holds within TLS: a page may use https."""

    def test_tls(self) -> None:
        """A request within TLS ends the connection."""
        client = self.client()
        self.assertTrue(client.shake())
        client.ask(b"NOPE")
        self.assertEqual(client.ask(REQUEST, b"PING"), [])
        self.assertEqual(self.ended(), {"cross_protocol": 1})
