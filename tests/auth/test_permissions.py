"""What a client may do is decided by the user that it has logged in as, line by line."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.commands.lines import run_line
from tests.connections import FakeConnection
from twisted_net.auth.users import Permissions, User
from twisted_net.commands.registry import Commands, Waiting
from twisted_net.errors import NotPermitted, TooManyConnections
from twisted_net.ops.instruments import Instruments
from twisted_net.reasons import Audited, End, Refusal
from twisted_net.sessions.counters import CLOSED_KEPT
from twisted_net.sessions.registry import Sessions


class PermissionsTestCase(SynchronousTestCase):
    """A registry with an ordinary and an administrative command, and one client."""

    def setUp(self) -> None:
        self.heard: list[tuple[str, str | None, str]] = []
        self.ran: list[str] = []
        self.commands = commands = Commands()
        commands.command("GO")(lambda *words: self.ran.append("GO"))
        commands.command("KILL", admin=True)(lambda *words: self.ran.append("KILL"))
        self.sessions = Sessions(lambda: 0.0, instruments=Instruments(self.hear))
        self.session = self.sessions.open("192.0.2.1", 5000, lambda line: None)

    def hear(self, event: str, client: Audited, what: str) -> None:
        """Keep what an auditor would write."""
        self.heard.append((event, client.user, what))

    def code(self, line: bytes) -> Any:  # Any: JSON
        """Give the code with which a line is refused, or None."""
        answer = run_line(self.commands, line, self.session)
        assert isinstance(answer, bytes)
        return json.loads(answer).get("code")


class CommandsTests(PermissionsTestCase):
    """:meth:`Commands.answer` asks the permissions of the session, where there are any."""

    def test_everybody(self) -> None:
        """Without permissions everybody may do everything; administration is audited."""
        self.assertEqual([self.code(b"go"), self.code(b'kill "a b"')], [None, None])
        self.assertEqual(self.heard, [("command", None, 'kill "a b"')])

    def test_user(self) -> None:
        """A user may do what its patterns say; a refused command is not run, but told."""
        self.session.permissions = Permissions("ann", User())
        self.assertEqual([self.code(b"go"), self.code(b"kill x y")], [None, "not_permitted"])
        self.assertEqual(self.ran, ["GO"])
        self.assertEqual(self.heard, [("refused", "ann", "not_permitted: KILL")])
        self.assertEqual(self.sessions.counters.refusals[Refusal.NOT_PERMITTED], 1)

    def test_administrator(self) -> None:
        """Whoever may use administrative commands is heard doing so."""
        self.session.permissions = Permissions("root", User(commands=("@admin",)))
        self.assertEqual([self.code(b"go"), self.code(b"kill 1")], ["not_permitted", None])
        self.assertEqual(self.heard[1], ("command", "root", "kill 1"))

    def test_unknown_commands(self) -> None:
        """Which commands there are is told only to those who may use one of that name."""
        self.session.permissions = Permissions(None, User(commands=("X*",)))
        self.assertEqual(
            [self.code(b"NOPE"), self.code(b"go"), self.code(b"xyz")],
            ["auth_required", "auth_required", "unknown_command"],
        )
        self.assertEqual(self.sessions.counters.refusals[Refusal.AUTH_REQUIRED], 2)

    def test_same_answer(self) -> None:
        """But for its name, the answer to an unknown command is that to one of others."""
        for permissions in (Permissions(None, User(commands=())), Permissions("ann", User())):
            self.session.permissions = permissions
            known = run_line(self.commands, b"kill a", self.session)
            del self.commands.by_name["KILL"]
            if permissions.name is not None:
                self.session.permissions = Permissions("ann", User(commands=("GO",)))
            self.assertEqual(run_line(self.commands, b"kill a", self.session), known)
            self.commands.command("KILL", admin=True)(lambda *words: None)

    def test_fallback(self) -> None:
        """The fallback is asked only for words that the user may use as commands."""
        self.commands.fallback = lambda request, text: {"text": text}
        self.session.permissions = Permissions("ann", User(commands=("HI",)))
        self.assertEqual([self.code(b"hi there"), self.code(b"ho")], [None, "not_permitted"])

    def test_handler_refuses(self) -> None:
        """A handler that refuses for want of a permission is counted as any refusal is."""

        def subscribe() -> None:
            raise NotPermitted("news")

        self.commands.command("SUBSCRIBE")(subscribe)
        self.assertEqual(self.code(b"SUBSCRIBE"), "not_permitted")
        self.assertEqual(self.heard, [("refused", None, "not_permitted: SUBSCRIBE")])

    def test_alone(self) -> None:
        """A command that must be alone says so in what waits for its answer."""

        async def log_in() -> None:
            """Wait."""

        self.commands.command("LOGIN", alone=True)(log_in)
        answer = run_line(self.commands, b"LOGIN", self.session)
        assert isinstance(answer, Waiting)
        self.assertTrue(answer.alone)


class SessionTests(PermissionsTestCase):
    """A session knows as which user its client has logged in."""

    def test_log_in(self) -> None:
        """After a login the session has the user's name and permissions."""
        self.assertIsNone(self.session.user)
        permissions = Permissions("ann", User())
        self.session.log_in(permissions)
        self.assertEqual((self.session.user, self.session.permissions), ("ann", permissions))

    def test_subscriptions(self) -> None:
        """A login ends the subscriptions, be it as somebody else or as the same user."""

        session = self.sessions.open("h", 1, lambda line: None, FakeConnection())
        session.log_in(Permissions("ann", User()))
        mailbox = session.open_mailbox()
        mailbox.subscribe("news")
        for name in ("ann", "bob"):
            mailbox.subscribe("news")
            session.log_in(Permissions(name, User()))
            self.assertEqual(self.sessions.topics.count(mailbox), 0)

    def test_not_admitted(self) -> None:
        """Where the transport refuses, nothing changes."""

        def refuse(permissions: Permissions) -> None:
            raise TooManyConnections(1, "user")

        self.session.admit = refuse
        permissions = Permissions("ann", User())
        self.assertRaises(TooManyConnections, self.session.log_in, permissions)
        self.assertIsNone(self.session.permissions)


class ClosedTests(PermissionsTestCase):
    """The sessions that ended last are remembered."""

    def test_remembered(self) -> None:
        """Each with its user and reason, the latest thousand of them."""
        self.session.log_in(Permissions("ann", User()))
        self.session.count()
        self.sessions.close(self.session, End.CLIENT_CLOSED)
        [closed] = self.sessions.counters.closed
        self.assertEqual(
            (closed.name, closed.user, closed.messages, closed.end),
            ("192.0.2.1:5000", "ann", 1, End.CLIENT_CLOSED),
        )
        for port in range(CLOSED_KEPT):
            session = self.sessions.open("h", port, lambda line: None)
            self.sessions.close(session, End.DRAINED)
        self.assertEqual(len(self.sessions.counters.closed), CLOSED_KEPT)
        self.assertEqual(self.sessions.counters.closed[0].name, "h:0")

    def test_reasons(self) -> None:
        """The reasons for refusing a line, which STATS shows, do not change."""
        self.assertEqual(
            [refusal.value for refusal in Refusal],
            [
                "auth_required",
                "auth_failed",
                "auth_delayed",
                "not_permitted",
                "rate_limited",
                "line_too_long",
                "subscription_limit",
                "busy",
            ],
        )
