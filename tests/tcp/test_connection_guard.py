"""Each connection is kept within its limits; those that pass them are answered and counted."""

from __future__ import annotations

import json
import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import BUFFER, Connection, Reactor
from twisted_net.auth.users import AuthSettings, Permissions, User, Users
from twisted_net.commands.registry import Commands, Request
from twisted_net.commands.runner import CommandRunner, RunnerLimits
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import AuthFailed, TooManyConnections
from twisted_net.ops.instruments import Instruments
from twisted_net.reasons import Audited, End, Refusal
from twisted_net.sessions import Sessions
from twisted_net.tcp.admission import Access
from twisted_net.tcp.connection_guard import ConnectionGuard, keep_alive
from twisted_net.tcp.flow_control import Throttle
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import SWEEP_INTERVAL, CommandFactory


def peer(host: str, port: int = 50_000) -> IPv4Address:
    """Return the address of a client."""
    return IPv4Address("TCP", host, port)


class GuardTestCase(SynchronousTestCase):
    """A server in memory, whose LOGIN takes the name of a user, and lets the test decide."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.users = Users({"ann": User(), "bob": User(max_connections=1)})
        self.logins: list[Deferred[None]] = []
        self.commands: Commands = standard_commands()
        self.commands.command("AUTH", alone=True)(self.log_in)
        self.commands.command("BIG")(self.big)
        self.heard: list[tuple[str, str]] = []
        self.serve()

    def serve(self, settings: AuthSettings | None = None, **limits: Any) -> None:
        """Make the server anew."""
        access = Access(settings, self.users.permissions) if settings else None
        sessions = Sessions(self.reactor.seconds, instruments=Instruments(self.hear))
        self.factory = CommandFactory(
            self.reactor, self.commands, Limits(**limits), sessions, access
        )

    def hear(self, event: str, client: Audited, what: str) -> None:
        """Keep what an auditor would write."""
        self.heard.append((event, what))

    async def log_in(self, request: Request, name: str) -> str:
        """Log in once the test says so; the name nobody is refused."""
        if name == "nobody":
            raise AuthFailed
        if name.startswith("slow-"):
            wait: Deferred[None] = Deferred()
            self.logins.append(wait)
            await wait
        request.session.log_in(self.users.unlisted(name.removeprefix("slow-")))
        return name

    def big(self, size: int) -> str:
        """Return many bytes."""
        return "x" * size

    def connect(self, send: bytes = b"", **how: Any) -> Connection:  # Any: of Reactor.connect
        """Connect a client that sends something, and let the server take its time."""
        client = self.reactor.connect(self.factory, **how)
        client.send(send)
        self.reactor.settle()
        return client

    def ask(self, client: Connection, lines: bytes) -> list[Any]:  # Any: JSON
        """Send lines, and return the result or the code of each answer."""
        client.send(lines)
        self.reactor.settle()
        return [line.get("result", line.get("code")) for line in client.answers()]

    def certify(self, name: str) -> None:
        """Let all clients have a certificate with this name."""
        setattr(Connection, "identity", name)  # noqa: B010  # it has none otherwise
        self.addCleanup(delattr, Connection, "identity")

    def ended(self) -> dict[str, int]:
        """Return the reasons for which connections ended, and how many."""
        return {end.value: n for end, n in self.factory.sessions.counters.ended.items() if n}

    def tearDown(self) -> None:
        self.factory.abort()
        self.reactor.pass_time(SWEEP_INTERVAL)
        self.assertEqual(self.factory.sessions.memory.total, 0)
        self.assertEqual(len(self.factory.guard.admission._addresses), 0)
        self.assertEqual(len(self.factory.guard.admission._networks), 0)
        self.assertEqual(len(self.factory.guard.admission._users), 0)
        self.assertEqual([call for call in self.reactor.calls if call.active()], [])


REQUIRED = AuthSettings(users="users.toml", timeout=10.0)


class FakeConnection:
    """A connection without lines and answers, which records what the guard does to it."""

    def __init__(self, server: GuardTests, host: str, identity: str | None = None) -> None:
        self.events: list[tuple[str, str]] = []
        self.waits_for_login = False
        self.output = StringTransport()
        self.transport: Any = self.output  # Any: the guard writes to it, no more
        self.session = server.sessions.open(host, 50_000, self.deliver)
        self.session.identity = identity
        self._guard = server.guard

    def abort(self, end: End) -> None:
        """Record the end."""
        self.events.append(("abort", end.value))

    def hang_up(self, end: End) -> None:
        """Record the end."""
        self.events.append(("hang_up", end.value))

    def deliver(self, line: bytes) -> str | None:
        """Record a line, unless the connection has ended."""
        if self.events:
            return "closing"
        self.events.append(("deliver", line.decode()))
        return None

    def logging_in(self) -> bool:
        """Return what the test says."""
        return self.waits_for_login

    def apply_limits(self, user: str | None) -> None:
        """Record whose limits apply."""
        self.events.append(("limits", user or "nobody"))

    def admit(self, permissions: Permissions) -> None:
        """Log in, as a connection does."""
        self._guard.log_in(self, permissions)


class GuardTests(SynchronousTestCase):
    """:class:`ConnectionGuard` counts, logs in and closes connections, whatever they are."""

    def setUp(self) -> None:
        self.users = Users({"ann": User(), "bob": User(max_connections=1)})
        self.serve()

    def serve(self, settings: AuthSettings | None = None, **limits: Any) -> None:
        """Make the guard anew."""
        self.clock = Clock()
        self.heard: list[tuple[str, str]] = []
        instruments = Instruments(lambda event, client, what: self.heard.append((event, what)))
        self.sessions = Sessions(self.clock.seconds, instruments=instruments)
        access = Access(settings, self.users.permissions) if settings else None
        bounds = Limits(**limits)
        self.commands = standard_commands()
        runner = CommandRunner(self.clock, self.commands, self.sessions, RunnerLimits(60.0, 10))
        self.guard = ConnectionGuard(self.clock, runner, bounds, self.sessions, access)

    def enter(self, host: str = "192.0.2.1", identity: str | None = None) -> FakeConnection:
        """Let a connection come in."""
        connection = FakeConnection(self, host, identity)
        self.guard.enter(connection, connection.admit)
        return connection

    def test_limits_before_the_login(self) -> None:
        """Lines are shorter and one at a time before the login, where one is required."""
        self.serve(REQUIRED, max_line=2000, max_pending=8)
        guard = self.guard
        self.assertEqual((guard.line_limit(False), guard.line_limit(True)), (1024, 2000))
        self.assertEqual((guard.pending_limit(False), guard.pending_limit(True)), (1, 8))
        self.serve(REQUIRED, max_line=100)
        self.assertEqual(self.guard.line_limit(False), 100)

    def test_limits_without_users(self) -> None:
        """Where no login is required the limits are the usual ones from the start."""
        self.serve(AuthSettings(), max_line=2000, max_pending=8)
        self.assertEqual((self.guard.line_limit(False), self.guard.pending_limit(False)), (2000, 8))

    def test_lines_at_once(self) -> None:
        """Lines are cut off in whole turns, one turn at least."""
        for budget, lines in ((64, 256), (100, 200), (256, 256), (1000, 1000)):
            self.serve(turn_budget=budget)
            self.assertEqual(self.guard.lines_at_once, lines)

    def test_enter_and_leave(self) -> None:
        """A connection counts until it leaves, and may administer if its host may."""
        self.serve(AuthSettings(open=True), connections_per_address=1)
        remote, local = self.enter("192.0.2.1"), self.enter("127.0.0.1")
        self.assertEqual(
            (remote.session.administrative, local.session.administrative), (False, True)
        )
        self.assertIsNotNone(self.guard.admission.rejection("192.0.2.1"))
        self.guard.leave(remote)
        self.assertIsNone(self.guard.admission.rejection("192.0.2.1"))

    def test_login(self) -> None:
        """A login counts for its user until the connection leaves."""
        self.serve(REQUIRED)
        one, two = self.enter(), self.enter()
        one.session.log_in(self.users.unlisted("bob"))
        bob = self.users.unlisted("bob")
        self.assertRaises(TooManyConnections, two.session.log_in, bob)
        self.guard.leave(one)
        two.session.log_in(bob)
        self.assertEqual(two.session.user, "bob")

    def test_login_after_it_left(self) -> None:
        """A login that is done after the connection has left counts nothing."""
        self.serve(REQUIRED)
        gone = self.enter()
        self.guard.leave(gone)
        gone.session.log_in(self.users.unlisted("bob"))
        other = self.enter().session
        other.log_in(self.users.unlisted("bob"))
        self.assertEqual(other.user, "bob")

    def test_certificate(self) -> None:
        """A certificate logs in at once; over the limit of its user the client is refused."""
        self.serve(REQUIRED)
        one, two = self.enter(identity="bob"), self.enter(identity="bob")
        self.assertEqual((one.session.user, one.events), ("bob", []))
        self.assertEqual(two.events, [("hang_up", "user_limit")])
        self.assertIn(b"too_many_connections", two.output.value())
        self.assertEqual(self.heard, [("login", "by certificate")])

    def test_certificate_of_nobody(self) -> None:
        """One that names no user permits nothing but AUTH, for a while, and is audited."""
        self.serve(AuthSettings(users="users.toml", max_anonymous=2, timeout=10.0))
        for name in ("eve", "Bob", ""):
            nobody = self.enter(identity=name)
            self.assertIsNone(nobody.session.user)
            assert nobody.session.permissions is not None
            self.assertFalse(nobody.session.permissions.allows_command("PING", False))
            self.assertTrue(nobody.session.permissions.allows_command("AUTH", False))
            self.assertIn(("refused", f"by certificate: no user {name}"), self.heard)
        nobody.session.log_in(self.users.unlisted("ann"))
        self.assertEqual(nobody.session.user, "ann")
        self.assertIn(("closed", "anonymous_limit"), self.heard)
        self.clock.advance(10.0)
        list(self.guard.sweep())
        self.assertEqual(self.heard.count(("closed", "auth_timeout")), 1)
        self.assertEqual(self.heard[-1], ("closed", "auth_timeout"))

    def test_oldest_makes_room(self) -> None:
        """One too many without a login aborts the oldest of them that does not wait for one."""
        self.serve(AuthSettings(users="users.toml", max_anonymous=2))
        waits, oldest, newer = self.enter(), self.enter(), FakeConnection(self, "192.0.2.3")
        waits.waits_for_login = True
        self.guard.enter(newer, newer.admit)
        self.assertEqual((waits.events, newer.events), ([], []))
        self.assertEqual(oldest.events, [("abort", "anonymous_limit")])
        self.assertEqual(self.heard, [("closed", "anonymous_limit")])

    def test_login_in_time(self) -> None:
        """Those without a login are notified when their time is over, and hung up on once."""
        self.serve(AuthSettings(users="users.toml", timeout=10.0))
        late, logged_in, closing = self.enter(), self.enter(), self.enter()
        logged_in.session.log_in(self.users.unlisted("ann"))
        closing.hang_up(End.IDLE_TIMEOUT)
        self.clock.advance(9.9)
        list(self.guard.sweep())
        self.assertEqual(late.events, [])
        self.clock.advance(0.1)
        list(self.guard.sweep())
        list(self.guard.sweep())
        [(told, line), end] = late.events
        self.assertEqual((told, json.loads(line)["reason"]), ("deliver", "auth_timeout"))
        self.assertEqual(end, ("hang_up", "auth_timeout"))
        self.assertEqual((logged_in.events, closing.events), ([], [("hang_up", "idle_timeout")]))
        self.assertEqual(self.heard, [("closed", "auth_timeout")])

    def test_memory(self) -> None:
        """Where all hold too much the one that holds most is aborted, whichever grew last."""
        self.serve(max_buffered=1_048_576)
        fat, slim = self.enter(), self.enter()
        self.guard.hold(fat, 1_000_000)
        self.guard.hold(slim, 48_576)
        self.assertEqual(fat.events, [])
        self.guard.hold(slim, 48_577)
        self.assertEqual((fat.events, slim.events), ([("abort", "buffers_full")], []))
        self.assertEqual(self.guard.buffers.total, 48_577)
        self.guard.leave(slim)
        self.assertEqual(self.guard.buffers.total, 0)
        self.assertEqual(self.heard, [("closed", "buffers_full")])

    def test_foreign(self) -> None:
        """A line of another protocol aborts the connection; a command does not."""
        client = self.enter()
        for line in (b"PING", b"ECHO POST / HTTP/1.1", b"PING /x"):
            self.assertFalse(self.guard.rejects_foreign(client, line))
        self.assertFalse(self.guard.rejects_foreign(client, b"POST ", whole=False))
        self.assertEqual(client.events, [])
        self.assertTrue(self.guard.rejects_foreign(client, b"GET /\xff HTTP/1.1"))
        self.assertTrue(self.guard.rejects_foreign(client, b"PING /x", too_long=True))
        self.assertTrue(self.guard.rejects_foreign(client, b"\x16\x03", whole=False))
        self.assertEqual(client.events, [("abort", "cross_protocol")] * 3)
        shown = (r"GET /\xff HTTP/1.1", "PING /x", "TLS")
        self.assertEqual(self.heard, [("closed", f"cross_protocol: {text}") for text in shown])

    def test_hidden_command(self) -> None:
        """A command that the client may not use is no command: it does not show that it exists."""
        self.commands.command("USER", admin=True)(lambda: None)
        client = self.enter()
        self.assertFalse(self.guard.rejects_foreign(client, b"USER root"))
        client.session.permissions = Permissions(None, User(commands=("PING",)))
        self.assertTrue(self.guard.rejects_foreign(client, b"USER root"))

    def test_rate(self) -> None:
        """A command over its rate is counted, audited and answered; within it nothing is done."""
        self.serve(commands_per_address=1.0, command_burst=1)
        session = self.enter().session
        throttle = self.guard.throttle(session, None, None, lambda: None)
        assert throttle is not None
        self.assertIsNone(self.guard.refuse_command(throttle.meter, b"PING", session))
        refusal = json.loads(self.guard.refuse_command(throttle.meter, b"ping x", session) or b"")
        self.assertEqual((refusal["code"], refusal["command"]), ("rate_limited", "PING"))
        self.assertEqual(
            (session.messages, self.heard), (1, [("refused", "rate_limited: by address")])
        )

    def test_no_rate(self) -> None:
        """Where no rate is limited nothing is; one of users applies after a login alone."""

        def throttle(user: str | None) -> Throttle | None:
            return self.guard.throttle(self.enter().session, user, None, lambda: None)

        self.assertIsNone(throttle("ann"))
        self.serve(commands_per_user=1.0)
        self.assertIsNone(throttle(None))
        self.assertIsNotNone(throttle("ann"))

    def test_rate_after_a_login(self) -> None:
        """What limited a client before its login does so afterwards, with the rates of its user."""
        self.serve(commands_per_address=1.0, commands_per_user=1.0)
        session = self.enter().session
        before = self.guard.throttle(session, None, None, lambda: None)
        assert before is not None
        meter = before.meter
        self.assertIs(self.guard.throttle(session, "ann", before, lambda: None), before)
        self.assertIsNot(before.meter, meter)

    def test_long_line(self) -> None:
        """A line too long is counted as a message, and answered with the limit."""
        session = self.enter().session
        answer = json.loads(self.guard.refuse_long_line(session, 64))
        self.assertEqual((answer["code"], answer["limit"]), ("line_too_long", 64))
        self.assertEqual(session.messages, 1)
        self.assertEqual(self.sessions.counters.refusals[Refusal.LINE_TOO_LONG], 1)


class AnonymousTests(GuardTestCase):
    """Before a login smaller limits hold."""

    def test_commands(self) -> None:
        """Only those that everybody may use are run, and AUTH; then all."""
        self.serve(REQUIRED)
        client = self.connect()
        self.assertEqual(
            self.ask(client, b"PING\nECHO a\nAUTH ann\nECHO b\nCLIENTS\n"),
            ["PONG", "auth_required", "ann", "b", "not_permitted"],
        )
        self.assertEqual(self.factory.sessions.counters.refusals[Refusal.AUTH_REQUIRED], 1)

    def test_lines_wait_for_the_login(self) -> None:
        """Lines after AUTH are run as the user that it makes, also where it takes its time."""
        self.serve(REQUIRED)
        client = self.connect()
        self.assertEqual(self.ask(client, b"PING\nAUTH slow-ann\nECHO a\nECHO b\n"), ["PONG"])
        self.logins.pop().callback(None)
        self.assertEqual(self.ask(client, b"ECHO c\n"), ["slow-ann", "a", "b", "c"])

    def test_lines_after_a_failed_login(self) -> None:
        """A login that fails changes nothing, and the lines after it are refused."""
        self.serve(REQUIRED)
        self.assertEqual(
            self.ask(self.connect(), b"AUTH nobody\nECHO a\n"), ["auth_failed", "auth_required"]
        )

    def test_longest_line(self) -> None:
        """The limit of a line is smaller, and says so; then it is the usual one."""
        self.serve(REQUIRED)
        client = self.connect(b"PING " + b"x" * 1020 + b"\n")
        [answer] = client.answers()
        self.assertEqual((answer["code"], answer["limit"]), ("line_too_long", 1024))
        line = b"ECHO " + b"x" * 2000 + b"\n"
        self.assertEqual(self.ask(client, b"AUTH ann\n"), ["ann"])
        self.assertEqual(self.ask(client, line), ["x" * 2000])

    def test_timeout(self) -> None:
        """Who does not log in in time is notified, hung up on and counted; who did is not."""
        self.serve(REQUIRED)
        client, other = self.connect(), self.connect(b"AUTH ann\n")
        self.reactor.pass_time(10 + SWEEP_INTERVAL)
        self.assertEqual(client.answers(), [{"event": "closing", "reason": "auth_timeout"}])
        self.assertEqual((client.gone, other.gone), (True, False))
        self.assertEqual(self.ended(), {"auth_timeout": 1})
        self.assertEqual(self.heard, [("closed", "auth_timeout")])

    def test_timeout_of_one_that_goes(self) -> None:
        """A client that is hung up on already is not notified once more."""
        self.serve(AuthSettings(users="users.toml", timeout=1.0))
        client = self.connect()
        client.polite = False
        self.reactor.pass_time(0.5)
        [protocol] = self.factory._protocols
        protocol.hang_up(End.IDLE_TIMEOUT)
        self.reactor.pass_time(1.0 + SWEEP_INTERVAL)
        self.assertEqual((client.answers(), self.heard), ([], []))

    def test_timeout_behind_one_that_lingers(self) -> None:
        """A client that stays after it was hung up on does not delay the end of the others."""
        self.serve(AuthSettings(users="users.toml", timeout=3.0))
        first = self.connect()
        first.polite = False
        self.reactor.pass_time(1.5)
        second = self.connect()
        self.reactor.pass_time(3.0 + SWEEP_INTERVAL)
        self.assertEqual(second.answers(), [{"event": "closing", "reason": "auth_timeout"}])
        self.assertTrue(second.gone)

    def test_login_of_one_that_is_gone(self) -> None:
        """A login that ends after its connection is not counted."""
        self.serve(REQUIRED)
        client = self.connect()
        [session] = self.factory.sessions
        client.reset()
        session.log_in(self.users.unlisted("bob"))
        self.assertEqual(self.ask(self.connect(), b"AUTH bob\n"), ["bob"])

    def test_no_timeout(self) -> None:
        """With a timeout of 0 there is none."""
        self.serve(AuthSettings(users="users.toml", timeout=0.0))
        client = self.connect()
        self.reactor.pass_time(100)
        self.assertFalse(client.gone)

    def test_most(self) -> None:
        """Over the limit of those that have not logged in the first of them is cut off."""
        self.serve(AuthSettings(users="users.toml", max_anonymous=2))
        first = self.connect()
        second = self.connect()
        self.ask(first, b"AUTH ann\n")
        third = self.connect(b"PING\n")
        self.assertEqual(self.ended(), {})
        self.assertEqual(self.connect(b"PING\n").answers()[0]["result"], "PONG")
        self.assertEqual(self.ended(), {"anonymous_limit": 1})
        self.assertEqual([c.gone for c in (first, second, third)], [False, True, False])

    def test_crowd_that_never_logs_in(self) -> None:
        """A client that logs in at once is accepted, however many idle connections there are."""
        self.serve(AuthSettings(users="users.toml", max_anonymous=5))
        for _ in range(20):
            crowd = [self.connect(b"ECHO slow") for _ in range(7)]
            client = self.connect()
            self.assertEqual(self.ask(client, b"AUTH ann\n"), ["ann"])
            self.assertEqual(sum(not one.gone for one in crowd), 4)
        self.assertEqual(self.ended(), {"anonymous_limit": 20 * 7 - 4})

    def test_crowd_and_a_slow_login(self) -> None:
        """Who waits for a login is not cut off for those who do not even try."""
        self.serve(AuthSettings(users="users.toml", max_anonymous=2))
        client = self.connect(b"AUTH slow-ann\n")
        for _ in range(10):
            self.connect()
        self.assertFalse(client.gone)
        self.logins[0].callback(None)
        self.assertEqual(self.ask(client, b""), ["slow-ann"])
        self.assertEqual(self.ended(), {"anonymous_limit": 9})

    def test_certificate(self) -> None:
        """A client whose certificate names a user is this user from the start."""
        self.serve(REQUIRED)
        self.certify("bob")
        client = self.connect(b"ECHO a\n")
        self.assertEqual(client.answers()[0]["result"], "a")
        self.assertEqual(self.heard, [("login", "by certificate")])
        other = self.connect(b"ECHO a\n")
        self.assertEqual([line["code"] for line in other.answers()], ["too_many_connections"])
        self.reactor.pass_time(5)
        self.assertEqual(self.ended(), {"user_limit": 1})

    def test_no_keepalive(self) -> None:
        """With a keepalive of 0 no socket is touched."""
        self.serve(keepalive=0)
        self.assertEqual(self.ask(self.connect(), b"PING\n"), ["PONG"])

    def test_login_without_users(self) -> None:
        """Where no login is required one may log in all the same, and leaves as any other does."""
        for name in ("ann", "bob"):
            client = self.connect(b"AUTH %s\n" % name.encode())
            self.assertEqual([session.user for session in self.factory.sessions], [name])
            client.end()
            self.reactor.settle()
            self.assertEqual(len(self.factory.sessions), 0)
        self.successResultOf(self.factory.drain(1))

    def test_certificate_without_users(self) -> None:
        """If no login is required, a certificate changes nothing."""
        self.certify("bob")
        self.connect()
        [session] = self.factory.sessions
        self.assertIsNone(session.permissions)


class ConnectionsTests(GuardTestCase):
    """Connections are limited by where they come from, and as whom."""

    def test_address(self) -> None:
        """One more of an address is notified and closed; others are not touched."""
        self.serve(connections_per_address=2)
        first = self.connect(peer=peer("192.0.2.1"))
        self.connect(peer=peer("192.0.2.1"))
        [answer] = self.connect(peer=peer("192.0.2.1")).answers()
        self.assertEqual((answer["scope"], answer["limit"]), ("address", 2))
        self.assertEqual(
            self.connect(b"PING\n", peer=peer("192.0.2.2")).answers()[0]["result"], "PONG"
        )
        first.end()
        self.reactor.settle()
        self.assertEqual(
            self.connect(b"PING\n", peer=peer("192.0.2.1")).answers()[0]["result"], "PONG"
        )
        self.assertEqual(self.ended(), {"address_limit": 1, "client_closed": 1})
        self.assertEqual(self.heard, [("refused", "address_limit")])

    def test_network(self) -> None:
        """The same for a network."""
        self.serve(connections_per_network=1)
        self.connect(peer=peer("192.0.2.1"))
        [answer] = self.connect(peer=peer("192.0.2.2")).answers()
        self.assertEqual((answer["scope"], answer["limit"]), ("network", 1))
        self.assertEqual(self.connect(peer=peer("192.0.3.1")).answers(), [])
        self.assertEqual(self.ended(), {"network_limit": 1})

    def test_user(self) -> None:
        """A login over the limit of a user is refused, and the connection lives as it was."""
        self.serve(REQUIRED, connections_per_user=2)
        one, two, three = (self.connect() for _ in range(3))
        self.assertEqual(self.ask(one, b"AUTH bob\nAUTH bob\n"), ["bob", "bob"])
        self.assertEqual(
            self.ask(two, b"AUTH bob\nECHO\n"), ["too_many_connections", "auth_required"]
        )
        self.assertEqual(self.ask(two, b"AUTH ann\n"), ["ann"])
        self.assertEqual(self.ask(one, b"AUTH ann\n"), ["ann"])
        self.assertEqual(self.ask(three, b"AUTH ann\nAUTH bob\n"), ["too_many_connections", "bob"])

    def test_protected(self) -> None:
        """Without users only this machine is served, unless the operator says otherwise."""
        self.serve(AuthSettings())
        local = self.connect(b"CLIENTS\n", peer=peer("127.0.0.1"))
        self.assertEqual(local.answers()[0]["count"], 1)
        local.reset()
        [answer] = self.connect(peer=peer("192.0.2.1")).answers()
        self.assertEqual(answer["code"], "protected")
        self.assertEqual(self.ended(), {"protected": 1, "connection_lost": 1})
        self.reactor.pass_time(SWEEP_INTERVAL)
        self.serve(AuthSettings(open=True))
        client = self.connect(b"PING\n", peer=peer("192.0.2.1"))
        self.assertEqual(client.answers()[0]["result"], "PONG")


class RatesTests(GuardTestCase):
    """Commands beyond a rate are refused; bytes beyond a rate are not read."""

    def test_commands(self) -> None:
        """A burst runs, the rest is refused with when to try again, which then runs."""
        self.serve(commands_per_address=2.0, command_burst=3)
        client = self.connect()
        self.assertEqual(self.ask(client, b"PING\n" * 5), ["PONG"] * 3 + ["rate_limited"] * 2)
        [answer] = self.connect(b"PING\n").answers()
        self.assertEqual((answer["scope"], answer["command"]), ("address", "PING"))
        self.reactor.pass_time(answer["retry_after"])
        self.assertEqual(self.ask(client, b"PING\n"), ["PONG"])
        self.assertEqual(self.factory.sessions.counters.refusals[Refusal.RATE_LIMITED], 3)
        self.assertEqual(self.heard[0], ("refused", "rate_limited: by address"))

    def test_each_scope(self) -> None:
        """Each scope has a rate of its own, and names itself."""
        for scope in ("listener", "address", "network", "user"):
            self.serve(REQUIRED, **{f"commands_per_{scope}": 1.0}, command_burst=1)
            client = self.connect(b"AUTH ann\n")
            self.reactor.pass_time(1.0)
            client.received()
            client.send(b"PING\nPING\n")
            self.reactor.settle()
            answers = client.answers()
            shown = "server" if scope == "listener" else scope
            self.assertEqual([line.get("scope") for line in answers], [None, shown], scope)
            client.end()
            self.reactor.settle()

    def test_bytes(self) -> None:
        """Who sent too much is not read until it has paid in time; nothing is lost."""
        self.serve(bytes_per_address=1000.0, byte_burst=2000)
        client = self.connect()
        line = b"ECHO " + b"x" * 995 + b"\n"
        client.send(line * 4)
        self.reactor.settle()
        client.send(b"PING\n")
        self.reactor.settle()
        self.assertFalse(client.reading)
        self.assertEqual(client.unheard, 5)
        self.reactor.pass_time(1.0)
        self.assertEqual(client.unheard, 5)
        self.reactor.pass_time(9.0)
        answers = client.answers()
        self.assertEqual([line["command"] for line in answers], ["ECHO"] * 4 + ["PING"])
        self.assertTrue(client.reading)

    def test_debt_of_others(self) -> None:
        """A debt that others made meanwhile is waited for as well."""
        self.serve(bytes_per_network=1000.0, byte_burst=1)
        one = self.connect(b"x" * 1000, peer=peer("192.0.2.1"))
        two = self.connect(b"x" * 3000, peer=peer("192.0.2.2"))
        one.send(b"\nPING\n")
        self.reactor.pass_time(2.0)
        self.assertEqual(one.unheard, 6)
        self.reactor.pass_time(2.1)
        self.assertEqual(one.unheard, 0)
        self.assertTrue(two.reading)

    def test_lost_while_throttled(self) -> None:
        """A connection that is lost meanwhile leaves no call behind."""
        self.serve(bytes_per_listener=1.0, byte_burst=1)
        client = self.connect(b"PING\n")
        client.reset()
        self.reactor.settle()
        self.assertEqual(self.ended(), {"connection_lost": 1})


class BuffersTests(GuardTestCase):
    """Over the sum of all buffers the connections that hold most go first."""

    def test_unread_answers(self) -> None:
        """The one that holds most goes; the others stay."""
        self.serve(max_buffered=1_048_576)
        slim = self.connect()
        slim.reads = False
        slim.send(b"BIG 200000\n")
        fat = self.connect()
        fat.reads = False
        fat.send(b"BIG 900000\n")
        self.reactor.settle()
        self.assertEqual((slim.gone, fat.gone), (False, True))
        self.assertEqual(self.ended(), {"buffers_full": 1})
        self.assertEqual(self.heard, [("closed", "buffers_full")])

    def test_unread_events(self) -> None:
        """Events for a peer that does not read count as well, until it reads."""
        client = self.connect(b"BIG 100000\n")
        client.reads = False
        client.send(b"BIG 100000\n")
        self.reactor.settle()
        before = self.factory.guard.buffers.total
        self.factory.sessions.broadcast({"event": "news", "text": "x" * 1000})
        self.assertTrue(self.factory.guard.buffers.total > before + 1000)
        client.reads = True
        self.reactor.settle()
        self.assertEqual(self.factory.guard.buffers.total, 0)

    def test_unfinished_lines(self) -> None:
        """Halves of lines count until they are whole."""
        self.serve(max_line=2_000_000, max_buffered=1_048_576)
        slim = self.connect(b"x" * 1000)
        self.assertEqual(self.factory.guard.buffers.total, 1000)
        fat = self.connect(b"x" * (1_048_576 - BUFFER))
        fat.send(b"x" * 2 * BUFFER)
        self.reactor.settle()
        self.assertEqual((slim.gone, fat.gone), (False, True))
        self.ask(slim, b"\n")
        self.assertEqual(self.factory.guard.buffers.total, 0)

    def test_later_answer(self) -> None:
        """An answer that comes later and makes the connection go ends it there."""
        self.serve(max_buffered=1_048_576)
        wait: Deferred[str] = Deferred()
        self.commands.command("WAIT")(lambda: wait)
        client = self.connect(b"WAIT\nPING\n")
        client.reads = False
        wait.callback("x" * 1_100_000)
        self.reactor.settle()
        self.assertTrue(client.gone)


class KeepAliveTests(SynchronousTestCase):
    """:func:`keep_alive` asks peers that may be dead."""

    def test_tcp(self) -> None:
        """A TCP socket is set to probe after the time, and to give up as long after."""
        connection = socket.socket()
        self.addCleanup(connection.close)
        holder: Any = type("Holder", (), {"socket": connection})()
        keep_alive(holder, 60)
        options = [
            connection.getsockopt(level, option)
            for level, option in (
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            )
        ]
        self.assertEqual(options, [1, 60, 20, 3])

    def test_others(self) -> None:
        """A Unix socket, and a transport without a socket, are left alone."""
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        holder: Any = type("Holder", (), {"socket": connection})()
        keep_alive(holder, 60)
        keep_alive(object(), 60)  # type: ignore[arg-type]  # of another make
        self.assertEqual(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 0)
