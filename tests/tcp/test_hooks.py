"""Session hooks on the doors of streams: clients wait for them, and may be refused by them."""

from __future__ import annotations

import time

from twisted.internet.defer import CancelledError, Deferred

from tests.tcp.server_case import GRACE, ServerTestCase
from twisted_net.auth.users import Permissions, User
from twisted_net.commands.registry import Request
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import CommandError
from twisted_net.reasons import End
from twisted_net.sessions import Session, SessionHooks, Sessions
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory


def loaded(request: Request) -> object:
    """Return what the hook has loaded."""
    return request.session.data.get("loaded")


ECHO = {"command": "ECHO", "result": "a"}


class HookTests(ServerTestCase):
    """A server with hooks that the test fires."""

    def setUp(self) -> None:
        super().setUp()
        self.hooks = SessionHooks()
        sessions = Sessions(time.time, hooks=self.hooks)
        self.factory = CommandFactory(
            self.reactor, self.handlers.commands, Limits(), sessions, threads=self.reactor
        )
        self.opening: list[Deferred[None]] = []
        self.ends: list[End] = []
        self.hooks.on_close(lambda session, end: self.ends.append(end))

    def open_later(self) -> None:
        """Let clients wait until the test decides."""

        @self.hooks.on_open
        async def decide(session: Session) -> None:
            self.opening.append(Deferred())
            await self.opening[-1]

    def decide(self, error: Exception | None = None) -> None:
        """Admit the client that came first, or refuse it."""
        waiting = self.opening.pop(0)
        if error is None:
            waiting.callback(None)
        else:
            waiting.errback(error)
        self.reactor.settle()

    def test_plain(self) -> None:
        """A plain hook may greet the client, before any answer."""

        @self.hooks.on_open
        def greet(session: Session) -> None:
            session.data["seen"] = True
            session.send({"event": "hello"})

        client = self.connect(b"ECHO a\n")
        self.assertEqual(client.answers(), [{"event": "hello"}, ECHO])
        self.leave(client)
        self.assertEqual(self.ends, [End.CLIENT_CLOSED])
        self.assert_over(client_closed=1)

    def test_refused(self) -> None:
        """A client that is refused gets the error and is closed; none of its lines runs."""

        @self.hooks.on_open
        def refuse(session: Session) -> None:
            raise CommandError("we are closed")

        client = self.connect(b"WAIT\nECHO a\n")
        self.assertEqual(client.answers(), [{"error": "we are closed", "code": "refused"}])
        self.assertEqual(self.handlers.log, [])
        self.leave(client)
        self.reactor.advance(GRACE)
        self.assertEqual(self.ends, [End.REFUSED])
        self.assert_over(refused=1)

    def test_later(self) -> None:
        """Lines wait for an async hook, and are answered behind it; events are not sent."""
        self.open_later()
        client = self.connect(b"ECHO a\n")
        client.send(b"ECHO a\n")
        self.reactor.settle()
        self.factory.sessions.broadcast({"event": "news"})
        self.assertEqual(client.answers(), [])
        self.decide()
        client.send(b"ECHO a\n")
        self.reactor.settle()
        self.assertEqual(client.answers(), [ECHO] * 3)
        self.leave(client)
        self.assert_over(client_closed=1)

    def test_refused_later(self) -> None:
        """An async hook refuses as a plain one does: what was sent meanwhile never runs."""
        self.open_later()
        client = self.connect(b"WAIT\n")
        self.decide(CommandError("we are closed"))
        client.send(b"WAIT\n")
        self.reactor.settle()
        self.assertEqual(client.answers(), [{"error": "we are closed", "code": "refused"}])
        self.assertEqual(self.handlers.log, [])
        self.leave(client)
        self.reactor.advance(GRACE)
        self.assertEqual(self.ends, [End.REFUSED])
        self.assert_over(refused=1)

    def test_bug_later(self) -> None:
        """A bug refuses, and is logged."""
        self.open_later()
        client = self.connect(b"WAIT\n")
        self.decide(ZeroDivisionError())
        self.assertEqual([answer["code"] for answer in client.answers()], ["internal"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.leave(client)
        self.reactor.advance(GRACE)
        self.assert_over(refused=1)

    def test_time_limit(self) -> None:
        """A hook that takes longer than a command may is cancelled, and refuses."""
        self.open_later()
        client = self.connect(b"WAIT\n")
        self.reactor.advance(self.factory.limits.command_timeout)
        self.reactor.settle()
        self.assertEqual([answer["code"] for answer in client.answers()], ["timeout"])
        self.leave(client)
        self.reactor.advance(GRACE)
        self.assert_over(refused=1)

    def test_leaves_meanwhile(self) -> None:
        """The hook of a client that leaves meanwhile is cancelled, and the other one called."""
        cancelled: list[str] = []

        @self.hooks.on_open
        async def decide(session: Session) -> None:
            try:
                await Deferred()
            except CancelledError:
                cancelled.append(session.name)
                raise

        client = self.connect(b"ECHO a\n")
        client.reset()
        self.reactor.settle()
        self.assertEqual(cancelled, ["192.0.2.1:50001"])
        self.assertEqual(self.ends, [End.CONNECTION_LOST])
        self.assert_over(connection_lost=1)

    def test_subscribe(self) -> None:
        """A pattern may be rewritten or refused; the answer has the one that it became."""

        @self.hooks.on_subscribe
        async def own(session: Session, pattern: str) -> str:
            if pattern == "all":
                raise CommandError("not all")
            return f"user.{pattern}"

        client = self.connect(b"SUBSCRIBE mine\nSUBSCRIBE all\nECHO a\n")
        first, second, third = client.answers()
        self.assertEqual((first["pattern"], second["code"], third), ("user.mine", "refused", ECHO))
        self.assertEqual(len(self.factory.sessions.topics.subscribers("user.mine")), 1)
        self.leave(client)

    def log_in_later(self) -> None:
        """Serve a login that always succeeds, with a hook that the test fires."""

        async def log_in(session: Session, who: str, password: str) -> str:
            session.log_in(Permissions(who, User()))
            return who

        @self.hooks.on_login
        async def load(session: Session) -> None:
            self.opening.append(Deferred())
            await self.opening[-1]
            session.data["loaded"] = session.user

        commands = standard_commands(log_in=log_in)
        commands.command("LOADED")(loaded)
        sessions = self.factory.sessions
        self.factory = CommandFactory(self.reactor, commands, Limits(), sessions)

    def test_login(self) -> None:
        """The lines behind AUTH wait for the hook, so that they find what it has loaded."""
        self.log_in_later()
        client = self.connect(b"AUTH ann x\nLOADED\n")
        self.assertEqual(client.answers(), [])
        self.decide()
        self.assertEqual([answer.get("result") for answer in client.answers()], [None, "ann"])
        self.leave(client)

    def test_login_bug(self) -> None:
        """A bug in a hook of the login is logged, and the client is logged in."""
        self.log_in_later()
        client = self.connect(b"AUTH ann x\nLOADED\n")
        self.decide(ZeroDivisionError())
        self.assertEqual([answer.get("user") for answer in client.answers()], ["ann", None])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.leave(client)

    def test_killed_meanwhile(self) -> None:
        """A client that is killed before it is admitted is not admitted any more."""
        self.open_later()
        client = self.connect(b"WAIT\n")
        (session,) = self.factory.sessions
        session.kill()
        self.decide()
        self.assertEqual(client.answers(), [{"event": "closing", "reason": "killed"}])
        self.assertEqual((self.handlers.log, self.ends), ([], [End.KILLED]))
        self.leave(client)
        self.assert_over(killed=1)

    def test_drain(self) -> None:
        """A drain waits for the hooks of those who have gone."""

        @self.hooks.on_close
        def closing(session: Session, end: End) -> Deferred[None]:
            self.opening.append(Deferred())
            return self.opening[-1]

        client = self.connect(b"ECHO a\n")
        drained = self.factory.drain(10.0)
        self.reactor.advance(1)
        self.leave(client)
        self.reactor.advance(1)
        self.assertEqual(self.ends, [End.DRAINED])
        self.assertNoResult(drained)
        self.decide()
        self.successResultOf(drained)
