"""Hooks are called in order; some may refuse, and a bug of the others changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.connections import FakeClient, FakeConnection
from twisted_net.auth.users import Permissions, User
from twisted_net.commands.hook_calls import MAX_CLOSING, ServerHookCalls
from twisted_net.errors import BadTopic, CommandError, Internal, TooBusy
from twisted_net.reasons import End
from twisted_net.sessions.hooks import SessionHooks
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session


class HookCase(SynchronousTestCase):
    """Hooks of one server, and what was called."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.hooks = SessionHooks()
        self.calls = ServerHookCalls(self.clock, 5.0)
        self.hooks.use_calls(self.calls)
        self.sessions = Sessions(lambda: 0.0, hooks=self.hooks)
        self.log: list[object] = []
        self.waits: list[Deferred[None]] = []

    def open(self, port: int = 1) -> Session:
        """Open a session; its hooks are not called yet."""
        return self.sessions.open("h", port, FakeClient().deliver, FakeConnection())

    def later(self) -> Deferred[None]:
        """Return what the test fires."""
        self.waits.append(Deferred())
        return self.waits[-1]

    def awaited(self, later: Coroutine[Any, Any, Any] | None) -> Deferred[Any]:  # Any: of a hook
        """Await what hooks have returned."""
        assert later is not None
        return Deferred.fromCoroutine(later)

    def bugs(self) -> int:
        """Return how many bugs were logged, and forget them."""
        return len(self.flushLoggedErrors(ZeroDivisionError))


class OpenTests(HookCase):
    """``on_open`` decides who comes in."""

    def test_order(self) -> None:
        """Plain and async hooks are called one after the other, those of the login last."""

        @self.hooks.on_open
        def first(session: Session) -> None:
            self.log.append("first")

        @self.hooks.on_open
        async def second(session: Session) -> None:
            await self.later()
            self.log.append("second")

        @self.hooks.on_open
        def third(session: Session) -> None:
            self.log.append("third")

        @self.hooks.on_login
        async def login(session: Session) -> None:
            self.log.append(session.user)

        session = self.open()
        session.log_in(Permissions("ann", User()))
        done = self.awaited(self.hooks.opened(session))
        self.assertEqual(self.log, ["first"])
        self.waits.pop().callback(None)
        self.successResultOf(done)
        self.assertEqual(self.log, ["first", "second", "third", "ann"])

    def test_refusal(self) -> None:
        """What a hook raises to refuse is raised, at once or later; no other hook is called."""

        @self.hooks.on_open
        def full(session: Session) -> None:
            raise CommandError("full")

        self.hooks.on_open(lambda session: self.log.append("called"))
        self.assertRaises(CommandError, self.hooks.opened, self.open())
        later = SessionHooks()
        later.use_calls(self.calls)

        @later.on_open
        async def full_later(session: Session) -> None:
            raise CommandError("full")

        later.on_open(lambda session: self.log.append("called"))
        error = self.failureResultOf(self.awaited(later.opened(self.open(2))), CommandError)
        self.assertEqual((str(error.value), self.log), ("full", []))

    def test_bug(self) -> None:
        """A bug admits nobody: it is logged, and refuses as ``internal``."""

        @self.hooks.on_open
        def bug(session: Session) -> None:
            raise ZeroDivisionError

        self.assertRaises(Internal, self.hooks.opened, self.open())
        self.assertEqual((self.bugs(), self.sessions.counters.failures), (1, 1))

    def test_bug_later(self) -> None:
        """So does a bug of an async one."""

        @self.hooks.on_open
        async def bug(session: Session) -> None:
            raise ZeroDivisionError

        self.failureResultOf(self.awaited(self.hooks.opened(self.open())), Internal)
        self.assertEqual(self.bugs(), 1)

    def test_wrong(self) -> None:
        """A function that cannot be called so is refused where it is registered."""
        for register in (self.hooks.on_open, self.hooks.on_login):
            self.assertRaises(TypeError, register, lambda: None)
        for register_two in (self.hooks.on_subscribe, self.hooks.on_close):
            self.assertRaises(TypeError, register_two, lambda session: None)
        self.assertFalse(self.hooks)


class SubscribeTests(HookCase):
    """``on_subscribe`` decides which pattern it will be."""

    def test_chain(self) -> None:
        """Each gets what the one before it made of the pattern; None leaves it."""
        self.hooks.on_subscribe(lambda session, pattern: pattern + ".a")
        self.hooks.on_subscribe(lambda session, pattern: None)

        @self.hooks.on_subscribe
        async def later(session: Session, pattern: str) -> str:
            return pattern + ".b"

        self.hooks.on_subscribe(lambda session, pattern: pattern + ".c")
        decided = self.hooks.subscribing(self.open(), "x")
        assert not isinstance(decided, str)
        self.assertEqual(self.successResultOf(self.awaited(decided)), "x.a.b.c")

    def test_without(self) -> None:
        """Without one the pattern stays, and nothing is awaited."""
        self.assertEqual(self.hooks.subscribing(self.open(), "x"), "x")

    def test_refusal(self) -> None:
        """One may refuse; what is no pattern refuses too, and so does a bug."""

        @self.hooks.on_subscribe
        def decide(session: Session, pattern: str) -> object:
            if pattern == "secret":
                raise CommandError("no")
            return 1 if pattern == "number" else 1 // 0

        session = self.open()
        self.assertRaises(CommandError, self.hooks.subscribing, session, "secret")
        self.assertRaises(BadTopic, self.hooks.subscribing, session, "number")
        self.assertRaises(Internal, self.hooks.subscribing, session, "bug")
        self.assertEqual(self.bugs(), 1)


class CloseTests(HookCase):
    """``on_close`` is called once for each client that was shown, when it has gone."""

    def setUp(self) -> None:
        super().setUp()

        @self.hooks.on_close
        async def bye(session: Session, end: End) -> None:
            self.log.append((session.name, end, session in list(self.sessions)))
            await self.later()

    def test_once(self) -> None:
        """It gets the reason that came first, and finds the session gone."""
        session = self.open()
        self.hooks.opened(session)
        session.kill()
        self.sessions.close(session, End.CONNECTION_LOST)
        self.assertEqual(self.log, [("h:1", End.KILLED, False)])
        self.waits.pop().callback(None)
        self.assertEqual((len(self.calls), self.clock.getDelayedCalls()), (0, []))

    def test_never_shown(self) -> None:
        """A client that was refused before the hooks is none of theirs."""
        self.sessions.close(self.open(), End.PROTECTED)
        self.assertEqual(self.log, [])

    def test_bugs(self) -> None:
        """A bug is logged, and the hooks behind it are called."""
        self.hooks.on_close(lambda session, end: 1 // 0)
        self.hooks.on_close(lambda session, end: self.log.append("last"))
        session = self.open()
        self.hooks.opened(session)
        self.sessions.close(session, End.CLIENT_CLOSED)
        self.waits.pop().errback(ZeroDivisionError())
        self.assertEqual(self.log[1:], ["last"])
        self.assertEqual(self.bugs(), 2)

    def test_time_limit(self) -> None:
        """A hook is cancelled at its time limit."""

        session = self.open()
        self.hooks.opened(session)
        self.sessions.close(session, End.CLIENT_CLOSED)
        settled = Deferred.fromCoroutine(self.hooks.settle())
        self.assertNoResult(settled)
        self.clock.advance(5)
        self.successResultOf(settled)
        self.assertEqual((len(self.calls), self.clock.getDelayedCalls()), (0, []))

    def test_stubborn(self) -> None:
        """One that goes on nevertheless is waited for no longer, and counts until it ends."""

        @self.hooks.on_close
        async def stubborn(session: Session, end: End) -> None:
            with contextlib.suppress(CancelledError):
                await self.later()
            await self.later()

        session = self.open()
        self.hooks.opened(session)
        self.sessions.close(session, End.CLIENT_CLOSED)
        self.waits.pop().callback(None)
        settled = Deferred.fromCoroutine(self.hooks.settle())
        self.clock.advance(5)
        self.successResultOf(settled)
        self.assertEqual((len(self.calls), self.clock.getDelayedCalls()), (1, []))
        self.waits.pop().callback(None)
        self.assertEqual(len(self.calls), 0)

    def test_bounded(self) -> None:
        """While the hooks of so many that have gone are awaited nobody comes in."""
        for port in range(MAX_CLOSING):
            session = self.open(port)
            self.hooks.opened(session)
            self.sessions.close(session, End.CLIENT_CLOSED)
        self.assertRaises(TooBusy, self.hooks.opened, self.open())
        self.waits.pop().callback(None)
        self.hooks.opened(self.open())
        self.clock.advance(5)
        self.assertEqual(len(self.calls), 0)

    def test_without_a_server(self) -> None:
        """Where no server has the sessions a plain hook is called."""
        hooks = SessionHooks()
        hooks.on_close(lambda session, end: self.log.append(end))
        sessions = Sessions(lambda: 0.0, hooks=hooks)
        session = sessions.open("h", 1, FakeClient().deliver)
        hooks.opened(session)
        sessions.close(session, End.DRAINED)
        self.assertEqual(self.log, [End.DRAINED])
