"""Every command is run in one way, whichever door it comes through."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
import weakref
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.commands.lines import (
    answer_to,
    echo,
    finish,
    new_session,
    nobody,
    registry,
    run_line,
)
from tests.threads import ThreadClock
from twisted_net.auth.users import Permissions, User
from twisted_net.commands import execution
from twisted_net.commands.registry import (
    Command,
    Commands,
    Request,
    Waiting,
    encode_error,
)
from twisted_net.commands.runner import CommandRunner, RunnerLimits
from twisted_net.errors import AuthRequired, CommandError, HandlersOverdue, NotPermitted
from twisted_net.net.log_limiter import TRACEBACK_BURST
from twisted_net.net.printable_failure import EscapedMessage
from twisted_net.ops.instruments import Instruments
from twisted_net.ops.slowlog import SlowLogSettings
from twisted_net.reasons import Audited, Refusal
from twisted_net.sessions import Session, Sessions
from twisted_net.tcp.pipeline import encode_request


class LineTests(SynchronousTestCase):
    """Each kind of line has its answer, to the byte."""

    def wire(self, line: bytes) -> bytes:
        """Answer a line with a registry of one command."""
        return finish(run_line(registry(echo), line, new_session()))

    def test_any_case(self) -> None:
        """The name is in any case, with spaces and tabs about it."""
        for line in ("TRY a", "try a", "tRy a", " \t try \t a ", "TRY\ta\t"):
            self.assertEqual(
                self.wire(line.encode()), b'{"command":"TRY","result":["a"]}\n', ascii(line)
            )

    def test_empty(self) -> None:
        """An empty line, or spaces and tabs alone, is empty."""
        for line in ("", " ", "\t \t"):
            self.assertEqual(
                self.wire(line.encode()), b'{"error":"empty message","code":"empty"}\n'
            )

    def test_unknown(self) -> None:
        """An unknown name is shown as it was spelt, cut to 64 characters."""
        for name, shown in (
            ("Nope", "Nope"),
            ("TRYX", "TRYX"),
            ("é" * 64, "é" * 64),
            ("é" * 10_000, "é" * 64 + "…"),
            ('"TRY"', '\\"TRY\\"'),
            ("TRY\u200b", "TRY\u200b"),
        ):
            self.assertEqual(
                self.wire(f"{name} a".encode()),
                f'{{"error":"unknown command: {shown}","code":"unknown_command"}}\n'.encode(),
            )

    def test_not_utf8(self) -> None:
        """Bytes that are not UTF-8 are told with their position."""
        for line, position, byte in (
            (b"\xff", 0, "ff"),
            (b"TRY a\xc3", 5, "c3"),
            (b"TRY \xed\xa0\x80", 4, "ed"),  # a surrogate
            (b"TRY \xc0\xaf", 4, "c0"),  # an overlong slash
            (b"TRY \xf4\x90\x80\x80", 4, "f4"),  # beyond U+10FFFF
        ):
            self.assertEqual(
                self.wire(line),
                f'{{"error":"the line is not UTF-8: byte 0x{byte} at position {position}",'
                f'"code":"not_utf8","position":{position}}}\n'.encode(),
            )

    def test_control_characters(self) -> None:
        """C0 but the tab, DEL and C1 are refused, wherever they are; all others pass."""
        for code in range(0xA1):
            answer = json.loads(self.wire(f"TRY a{chr(code)}b".encode()))
            if (code < 0x20 and code != 9) or 0x7F <= code < 0xA0:
                self.assertEqual(
                    answer,
                    {
                        "error": f"the line has the control character U+{code:04X} at position 5",
                        "code": "control_character",
                        "position": 5,
                    },
                )
            else:
                self.assertIn("result", answer, hex(code))

    def test_control_character_in_quotes(self) -> None:
        """Quotes do not hide a control character, nor does an unprintable before it."""
        for line in ('TRY "a\0"', "TRY \u200b\0"):
            self.assertEqual(json.loads(self.wire(line.encode()))["code"], "control_character")

    def test_quotes(self) -> None:
        """Quoted arguments are whole, and a wrong quote is told with its position."""
        self.assertEqual(
            self.wire(rb'TRY "a  b" c"d "\"\\\n" ""'),
            rb'{"command":"TRY","result":["a  b","c\"d","\"\\\\n",""]}' + b"\n",
        )
        self.assertEqual(
            self.wire(b'TRY "a'),
            b'{"error":"the quote at position 4 has no end","code":"bad_quotes","command":"TRY"}\n',
        )
        self.assertEqual(
            self.wire(b'TRY "a"b'),
            b'{"error":"white space must follow the closing quote at position 6",'
            b'"code":"bad_quotes","command":"TRY"}\n',
        )

    def test_quotes_elsewhere(self) -> None:
        """A quote within a word is a plain character, so JSON without spaces is one word."""
        self.assertEqual(json.loads(self.wire(b'TRY {"a":"b"} x"'))["result"], ['{"a":"b"}', 'x"'])

    @given(st.binary(max_size=30))
    @example(b'try "')
    def test_any_bytes(self, line: bytes) -> None:
        """Any bytes get exactly one line of JSON, with a result or an error and its code."""
        answer = json.loads(self.wire(b"try " + line))
        self.assertTrue({"result", "code"} & answer.keys())

    @given(st.text(max_size=30))
    def test_any_text(self, text: str) -> None:
        """Text after the name comes back in the words that a plain split gives."""
        answer = json.loads(self.wire(f"TRY {text}".encode()))
        if '"' not in text and text.isprintable():
            self.assertEqual(answer["result"], text.split())

    def test_case_of_ascii_alone(self) -> None:
        """Letters that are only capitals of others elsewhere (U+017F, U+0131) name no command."""
        commands = registry(echo, "STATIC")
        for name in ("\u017fTATIC", "STAT\u0131C", "\u017ftatic"):
            self.assertIsNone(commands.get(name))
            self.assertEqual(answer_to(commands, name)["code"], "unknown_command")
        self.assertEqual(answer_to(commands, "static")["command"], "STATIC")


class FallbackTests(SynchronousTestCase):
    """A fallback answers lines of which the first word is no command."""

    def test_text(self) -> None:
        """It gets the request and the line as it is, but for white space at its ends."""
        got: list[object] = []

        def fallback(request: Request, text: str) -> dict[str, object]:
            got.append((request.session.client, request.commands, text))
            return {"any": "thing"}

        commands = Commands(fallback)
        raw = run_line(commands, b'  Hello  "world  ', new_session())
        self.assertEqual(raw, b'{"any":"thing"}\n')
        self.assertEqual(got, [(("192.0.2.1", 5000), commands, 'Hello  "world')])

    def test_commands_first(self) -> None:
        """A known command, an empty line and bad bytes do not reach it."""
        commands = Commands(lambda request, text: self.fail("called"))
        commands.command("TRY")(echo)
        codes = [answer_to(commands, line).get("code") for line in ("try", "", "\0", b"\xff")]
        self.assertEqual(codes, [None, "empty", "control_character", "not_utf8"])

    def test_awaitable(self) -> None:
        """It may give an awaitable of the answer."""

        async def fallback(request: Request, text: str) -> dict[str, str]:
            return {"text": text}

        waiting = run_line(Commands(fallback), b"x", new_session())
        assert isinstance(waiting, Waiting)
        self.assertIsNone(waiting.name)
        self.assertEqual(finish(waiting), b'{"text":"x"}\n')
        self.assertEqual(waiting.refuse(CommandError("no")), b'{"error":"no","code":"refused"}\n')
        self.assertRaises(TypeError, waiting.answer, succeed(None))

    def test_refusal(self) -> None:
        """It may refuse."""

        def fallback(request: Request, text: str) -> None:
            raise CommandError("no")

        self.assertEqual(answer_to(Commands(fallback), "x"), {"error": "no", "code": "refused"})


LIMITS = RunnerLimits(timeout=5.0, max_blocking=2)


class Exits(BaseException):
    """As foreign libraries have for what must not be caught."""


class RunnerTestCase(SynchronousTestCase):
    """Has a runner on a clock with threads, whose audit is a list."""

    def setUp(self) -> None:
        self.clock = ThreadClock()
        self.commands = Commands()
        self.audited: list[tuple[str, str]] = []
        self.sessions = Sessions(lambda: 100.0, instruments=Instruments(self.audit))
        self.runner = CommandRunner(
            self.clock, self.commands, self.sessions, LIMITS, threads=self.clock
        )
        self.session = self.sessions.open("192.0.2.1", 5000, nobody)

    def audit(self, event: str, client: Audited, what: str) -> None:
        """Keep a line of the audit."""
        self.audited.append((event, what))

    def start(self, line: bytes) -> Deferred[bytes]:
        """Start the command of a line, which must wait."""
        waiting = self.runner.answer(line, self.session)
        assert isinstance(waiting, Waiting)
        return self.begin(waiting, line, self.session)

    def begin(self, waiting: Waiting, line: bytes, session: Session) -> Deferred[bytes]:
        """Start what waits; to cancel the answer is to cancel the command."""
        answer: Deferred[bytes] = Deferred(lambda _: started.cancel())
        started = self.runner.start_line(waiting, line, session, answer.callback)
        return answer

    def declare_stubborn(self) -> Deferred[str]:
        """Declare WAIT, whose handler goes on when it is cancelled, until the Deferred fires."""
        gate: Deferred[str] = Deferred()

        async def stubborn() -> str:
            try:
                return await Deferred()
            except CancelledError:
                return await gate

        self.commands.command("WAIT")(stubborn)
        return gate

    def code(self, answer: bytes) -> object:
        """The code of an answer that refuses."""
        return json.loads(answer)["code"]


class HandlerEndTests(RunnerTestCase):
    """However a handler ends, its command is answered."""

    ENDS = (ValueError("bug"), SystemExit(1), GeneratorExit(), KeyboardInterrupt(), Exits())

    def assert_logged(self, kind: type[BaseException]) -> None:
        """One failure of this kind was logged."""
        self.assertEqual([f.type for f in self.flushLoggedErrors(kind)], [kind])

    def test_plain(self) -> None:
        """Any exception of a plain handler is logged and answered ``internal``."""
        for number, error in enumerate(self.ENDS):
            self.commands.command(f"T{number}")(raising(error))
            with self.subTest(error=error):
                answer = self.runner.answer(b"T%d" % number, self.session)
                assert isinstance(answer, bytes)
                self.assertEqual(self.code(answer), "internal")
                self.assert_logged(type(error))
        self.assertEqual(self.sessions.counters.failures, len(self.ENDS))

    def test_message_that_steers(self) -> None:
        """What the message repeats of a client's line is escaped in the log."""
        self.commands.command("T")(raising(ValueError("a\u202eb\u2028")))
        self.runner.answer(b"T", self.session)
        [failure] = self.flushLoggedErrors(EscapedMessage)
        self.assertEqual(failure.getErrorMessage(), r"ValueError: a\u202eb\u2028")

    def test_async(self) -> None:
        """So is any exception of an async handler, before and after it has waited."""
        errors = (*self.ENDS, asyncio.CancelledError(), CancelledError())
        for wait in (False, True):
            for number, error in enumerate(errors):
                self.clock.advance(2)  # the rate of tracebacks
                gate: Deferred[None] = Deferred()
                name = f"T{number}{wait}".upper()
                self.commands.command(name)(raising_async(error, gate if wait else None))
                with self.subTest(error=error, wait=wait):
                    started = self.start(name.encode())
                    gate.callback(None)
                    self.assertEqual(self.code(self.successResultOf(started)), "internal")
                    self.assert_logged(type(error))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_blocking(self) -> None:
        """So is any exception of a blocking handler, and its thread is free again."""
        for number, error in enumerate(self.ENDS):
            self.commands.command(f"T{number}", blocking=True)(raising(error))
            with self.subTest(error=error):
                started = self.start(b"T%d" % number)
                run_threads(self.clock)
                self.assertEqual(self.code(self.successResultOf(started)), "internal")
                self.assert_logged(type(error))
                self.assertEqual(self.runner.blocking, 0)

    def test_value_that_json_lacks(self) -> None:
        """A value that cannot be encoded is a bug, also after waiting."""
        self.commands.command("LATE")(lambda: succeed(object()))
        self.assertEqual(self.code(self.successResultOf(self.start(b"LATE"))), "internal")
        self.assert_logged(TypeError)

    def test_log(self) -> None:
        """The log names the command, the client and its user."""
        events = capture_events(self, self.runner)
        self.session.permissions = Permissions("ann", User())
        self.commands.command("BUG")(raising(ValueError("bug")))
        self.runner.answer(b"BUG", self.session)
        (event,) = events
        self.assertEqual(
            (event["command"], event["client"], event["user"]), ("BUG", "192.0.2.1:5000", "ann")
        )


class TimeLimitTests(RunnerTestCase):
    """The time limit of a command is the server's, whatever its handler does."""

    def test_cancelled(self) -> None:
        """At its time limit a handler is cancelled and its command answered ``timeout``."""
        ended: list[str] = []

        async def wait() -> None:
            try:
                await Deferred()
            finally:
                ended.append("yes")

        self.commands.command("WAIT")(wait)
        started = self.start(b"WAIT")
        self.clock.advance(4.99)
        self.assertNoResult(started)
        self.clock.advance(0.01)
        self.assertEqual(self.code(self.successResultOf(started)), "timeout")
        self.assertEqual((ended, self.sessions.counters.overdue), (["yes"], 0))

    def test_swallowed(self) -> None:
        """A handler that goes on after its cancellation is answered ``timeout`` all the same."""
        gate = self.declare_stubborn()
        started = self.start(b"WAIT")
        self.clock.advance(5)
        self.assertEqual(self.code(self.successResultOf(started)), "timeout")
        self.assertEqual(self.sessions.counters.overdue, 1)
        gate.callback("too late")
        self.assertEqual((self.sessions.counters.overdue, self.clock.getDelayedCalls()), (0, []))

    def test_many_swallowed(self) -> None:
        """Handlers that go on are bounded and not all logged; then commands are ``busy``."""
        self.declare_stubborn()
        events = capture_events(self, self.runner)
        self.patch(execution, "MAX_OVERDUE", 3 * TRACEBACK_BURST)
        started = [self.start(b"WAIT") for _ in range(3 * TRACEBACK_BURST)]
        self.clock.advance(5)
        for answer in started:
            self.assertEqual(self.code(self.successResultOf(answer)), "timeout")
        self.assertEqual(self.sessions.counters.overdue, 3 * TRACEBACK_BURST)
        self.assertEqual(len(events), TRACEBACK_BURST)
        self.assertEqual(self.code(self.successResultOf(self.start(b"WAIT"))), "busy")
        self.assertEqual(self.audited, [("refused", "busy: WAIT")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_overdue_of_one_client(self) -> None:
        """One client's overdue handlers leave room for others, and for logins in any case."""

        async def log_in() -> str:
            return "hello"

        gate = self.declare_stubborn()
        self.patch(execution, "MAX_OVERDUE", 4)
        self.commands.command("LOGIN", alone=True)(log_in)
        other = self.sessions.open("192.0.2.2", 5000, nobody)
        for session, allowed in ((self.session, 2), (other, 1), (other, 0)):
            for _ in range(allowed):
                waiting = self.runner.answer(b"WAIT", session)
                assert isinstance(waiting, Waiting)
                answer = self.begin(waiting, b"WAIT", session)
                self.clock.advance(5)
                self.assertEqual(self.code(self.successResultOf(answer)), "timeout")
            waiting = self.runner.answer(b"WAIT", session)
            assert isinstance(waiting, Waiting)
            refused = self.begin(waiting, b"WAIT", session)
            self.assertEqual(self.code(self.successResultOf(refused)), "busy")
        self.assertIn(b"hello", self.successResultOf(self.start(b"LOGIN")))
        gate.callback("late")
        self.assertEqual(self.sessions.counters.overdue, 0)
        again = self.start(b"WAIT")
        self.assertNoResult(again)
        again.cancel()
        self.failureResultOf(again, CancelledError)

    def test_overdue_over_several_ports(self) -> None:
        """What one client has overdue on a port counts on all those that share the sessions."""
        self.declare_stubborn()
        self.patch(execution, "MAX_OVERDUE", 4)
        ports = [
            CommandRunner(self.clock, self.commands, self.sessions, LIMITS, threads=self.clock)
            for _ in range(3)
        ]
        codes = []
        for runner in (*ports, *ports):
            waiting = runner.answer(b"WAIT", self.session)
            assert isinstance(waiting, Waiting)
            answers: list[bytes] = []
            runner.start_line(waiting, b"WAIT", self.session, answers.append)
            self.clock.advance(5)
            codes.append(self.code(answers[0]))
        self.assertEqual(codes, ["timeout"] * 2 + ["busy"] * 4)

    def test_ends_leave_no_garbage(self) -> None:
        """Neither a command that is cancelled leaves any, nor one whose time is over."""

        async def wait(depth: int) -> None:
            if depth:
                await wait(depth - 1)
            else:
                await Deferred()

        self.commands.command("PLAIN")(Deferred)
        self.commands.command("ASYNC")(lambda: wait(3))
        self.commands.command("BLOCK", blocking=True)(lambda: None)
        gc.disable()
        self.addCleanup(gc.enable)
        for line in (b"PLAIN", b"ASYNC", b"BLOCK"):
            for end in (Deferred.cancel, lambda answer: self.clock.advance(5)):
                answer = self.start(line)
                answer.addErrback(lambda failure: None)
                gc.collect()
                end(answer)
                del answer
                self.assertEqual(gc.collect(), 0, line)
            run_threads(self.clock)

    def test_refusals_leave_no_garbage(self) -> None:
        """However deep a handler refuses, nothing of it is left to the garbage collector."""

        async def refuse() -> None:
            try:
                raise KeyError
            except KeyError as error:
                raise CommandError("no") from error

        async def pass_on(depth: int) -> None:
            if not depth:
                return await refuse()
            try:
                return await Deferred.fromCoroutine(pass_on(depth - 1))
            except CommandError:
                raise CommandError("not so") from None

        async def deep() -> None:
            await pass_on(3)

        def block() -> None:
            raise CommandError("no")

        self.commands.command("DEEP")(deep)
        self.commands.command("BLOCK", blocking=True)(block)
        self.addCleanup(gc.enable)
        self.addCleanup(gc.garbage.clear)
        self.addCleanup(gc.set_debug, 0)
        for line in (b"DEEP", b"BLOCK"):
            gc.collect()
            gc.disable()
            answer = self.start(line)
            while self.clock.threads:
                self.clock.run_thread()
            self.assertEqual(self.code(self.successResultOf(answer)), "refused")
            del answer
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [item for item in gc.garbage if isinstance(item, BaseException | FrameType)]
            self.assertEqual(left, [], line)
            gc.set_debug(0)
            gc.enable()

    def test_late_refusal(self) -> None:
        """A handler that refuses after its command was answered counts as no refusal."""
        gate = self.declare_stubborn()
        started = self.start(b"WAIT")
        self.clock.advance(5)
        gate.errback(NotPermitted("WAIT"))
        self.assertEqual(self.code(self.successResultOf(started)), "timeout")
        self.assertEqual((self.audited, self.sessions.counters.overdue), ([], 0))

    def test_late_bug(self) -> None:
        """A handler that fails after its command was answered is logged."""
        gate = self.declare_stubborn()
        started = self.start(b"WAIT")
        self.clock.advance(5)
        gate.errback(ValueError("late"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.code(self.successResultOf(started)), "timeout")

    def test_last_words(self) -> None:
        """A handler that refuses when it is cancelled is answered with that."""

        async def wait() -> None:
            try:
                await Deferred()
            except CancelledError:
                raise CommandError("half done") from None

        self.commands.command("WAIT")(wait)
        started = self.start(b"WAIT")
        self.clock.advance(5)
        self.assertEqual(json.loads(self.successResultOf(started))["error"], "half done")

    def test_caller_cancels(self) -> None:
        """A caller that cancels gets CancelledError; the handler is cancelled, nothing is left."""
        cancelled: list[object] = []
        self.commands.command("WAIT")(lambda: Deferred(cancelled.append))
        started = self.start(b"WAIT")
        started.cancel()
        self.failureResultOf(started, CancelledError)
        self.assertEqual((len(cancelled), self.clock.getDelayedCalls()), (1, []))

    def test_freed(self) -> None:
        """What a command held is freed when it is answered, without the garbage collector."""

        class Held:
            """Something that a waiting command keeps."""

        gate: Deferred[None] = Deferred()

        def started() -> tuple[Deferred[bytes], weakref.ref[Held]]:
            held = Held()

            def encode(value: object) -> bytes:
                return repr((held, value)).encode()

            waiting = Waiting("WAIT", lambda: gate, encode)
            return self.begin(waiting, b"WAIT", self.session), weakref.ref(held)

        gc.disable()
        self.addCleanup(gc.enable)
        answer, freed = started()
        self.assertIsNotNone(freed())
        gate.callback(None)
        self.assertIn(b"Held", self.successResultOf(answer))
        del answer
        self.assertIsNone(freed())

    def test_at_once(self) -> None:
        """A command whose value is there at once needs no timer."""
        self.commands.command("NOW")(lambda: succeed(1))
        self.assertEqual(
            self.successResultOf(self.start(b"NOW")), b'{"command":"NOW","result":1}\n'
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_busy(self) -> None:
        """One blocking command above the limit is refused, counted and audited."""
        self.commands.command("BLOCK", blocking=True)(lambda: None)
        waiting = [self.start(b"BLOCK") for _ in range(LIMITS.max_blocking)]
        refused = self.successResultOf(self.start(b"BLOCK"))
        self.assertEqual(self.code(refused), "busy")
        self.assertEqual(self.sessions.counters.refusals[Refusal.BUSY], 1)
        self.assertEqual(self.audited, [("refused", "busy: BLOCK")])
        run_threads(self.clock)
        for started in waiting:
            self.assertEqual(self.successResultOf(started), b'{"command":"BLOCK","result":null}\n')

    def test_permission_lost(self) -> None:
        """A command that waited for a thread is refused if its client may not run it any more."""
        ran: list[str] = []
        self.commands.command("BLOCK", blocking=True)(lambda: ran.append("block"))
        self.clock.limit = 2
        for i, code in enumerate(("not_permitted", "auth_required", None), 1):
            with self.subTest(code=code):
                permissions = Permissions("bob", User())
                self.session.log_in(permissions)
                started = [self.start(b"BLOCK") for _ in range(2)]
                self.assertEqual(self.clock.busy, 1)
                if code == "not_permitted":
                    permissions.change(User(commands=("PING",)))
                elif code:
                    permissions.withdraw()
                run_threads(self.clock)
                first, second = map(self.successResultOf, started)
                self.assertEqual(first, b'{"command":"BLOCK","result":null}\n')
                self.assertEqual(json.loads(second).get("code"), code)
                self.assertEqual(len(ran), i if code else i + 1)
                self.assertEqual(self.runner.blocking, 0)
        self.assertEqual(
            self.audited,
            [("refused", "not_permitted: BLOCK"), ("refused", "auth_required: BLOCK")],
        )


class OverdueTests(RunnerTestCase):
    """A client whose handlers outlive their time limit cannot become another user meanwhile."""

    def log_in(self) -> None:
        """Log the client in as somebody else."""
        self.session.log_in(Permissions("bob", User()))

    def test_stubborn(self) -> None:
        """A handler that goes on would subscribe and keep state for the next user."""
        gate = self.declare_stubborn()
        self.log_in()
        started = [self.start(b"WAIT") for _ in range(2)]
        self.clock.advance(5)
        for answer in started:
            self.assertEqual(self.code(self.successResultOf(answer)), "timeout")
        error = self.assertRaises(HandlersOverdue, self.log_in)
        self.assertEqual(error.details(), {"limit": 2})
        gate.callback("late")
        self.log_in()

    def test_thread(self) -> None:
        """A thread cannot be stopped at all."""
        tried: list[int] = []

        def block() -> None:
            # The time limit comes while the thread runs.
            self.clock.advance(5)
            tried.append(self.sessions.counters.overdue)
            self.assertRaises(HandlersOverdue, self.log_in)

        self.commands.command("BLOCK", blocking=True)(block)
        started = self.start(b"BLOCK")
        run_threads(self.clock)
        self.assertEqual(self.code(self.successResultOf(started)), "timeout")
        self.assertEqual((tried, self.sessions.counters.overdue), ([1], 0))
        self.log_in()

    def test_late_login(self) -> None:
        """A login whose command was answered ``timeout`` does not take place later on."""
        gate: Deferred[None] = Deferred()

        async def log_in(request: Request) -> None:
            try:
                await Deferred()
            except CancelledError:
                await gate
            self.log_in()

        self.commands.command("SSO", alone=True)(log_in)
        started = self.start(b"SSO")
        self.clock.advance(5)
        self.assertEqual(self.code(self.successResultOf(started)), "timeout")
        gate.callback(None)
        self.assertIsNone(self.session.user)
        self.assertEqual(self.session.overdue, 0)

    def test_logged_out(self) -> None:
        """A handler that runs when its client is logged out cannot subscribe for it any more."""
        self.log_in()
        self.session.log_out()
        self.assertRaises(AuthRequired, self.session.open_mailbox)


class RefusalTests(RunnerTestCase):
    """A refusal is counted once, however its handler runs."""

    def test_waiting(self) -> None:
        """A handler that refuses after it has waited counts as one that does at once."""
        gate: Deferred[None] = Deferred()

        async def refuse() -> None:
            await gate
            raise NotPermitted("T")

        self.commands.command("T")(refuse)
        started = self.start(b"T")
        gate.callback(None)
        self.assertEqual(self.code(self.successResultOf(started)), "not_permitted")
        self.assertEqual(self.sessions.counters.refusals[Refusal.NOT_PERMITTED], 1)
        self.assertEqual(self.audited, [("refused", "not_permitted: T")])

    def test_counted_before(self) -> None:
        """One that was counted where it was raised is not counted again."""

        def refuse() -> None:
            error = NotPermitted("T")
            error.counted = True
            raise error

        self.commands.command("T")(refuse)
        self.runner.answer(b"T", self.session)
        self.assertEqual((self.audited, sum(self.sessions.counters.refusals.values())), ([], 0))


class DiscardTests(RunnerTestCase):
    """A command that waits, and that nobody is to be answered, is dropped."""

    def discard(self, handler: Callable[[], object]) -> None:
        """Run a command, which must wait, and drop it."""
        self.commands.command("WAIT")(handler)
        (command,) = self.commands
        waiting = self.runner.run(command, [], self.session)
        assert isinstance(waiting, Waiting)
        execution.discard(waiting)

    def test_not_called(self) -> None:
        """A handler that was not called yet never is."""

        async def handler() -> None:
            self.fail("called")

        self.discard(handler)

    def test_deferred(self) -> None:
        """A Deferred that a plain handler returned is cancelled, its failure ignored."""
        cancelled: list[object] = []
        self.discard(lambda: Deferred(cancelled.append))
        self.assertEqual(len(cancelled), 1)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_coroutine(self) -> None:
        """A coroutine that a plain handler returned does not begin, and no warning follows."""

        async def begin() -> None:
            self.fail("begun")

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.discard(lambda: begin())
            gc.collect()
        self.assertEqual(caught, [])


class StructuredTests(RunnerTestCase):
    """A door that has a name and arguments gets what a line gets."""

    @given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]))))
    def test_same_as_a_line(self, words: list[str]) -> None:
        """The answer, the counts and the errors are those of the same line."""
        commands = Commands()

        @commands.command("ADD", safe=True)
        def add(first: int, *others: int) -> int:
            return first + sum(others)

        @commands.command("JOIN")
        def join(*texts: str) -> str:
            if "x" in texts:
                raise NotPermitted("JOIN")
            return " ".join(texts)

        for command in commands:
            by_line, by_words = Sessions(lambda: 0.0), Sessions(lambda: 0.0)
            line = encode_request([command.name, *words])[:-1]
            first = CommandRunner(self.clock, commands, by_line, LIMITS)
            second = CommandRunner(self.clock, commands, by_words, LIMITS)
            expected = first.answer(line, by_line.open("h", 1, nobody))
            try:
                answer = second.run(command, list(words), by_words.open("h", 1, nobody))
            except CommandError as error:
                answer = encode_error(error, command.name)
            self.assertEqual(answer, expected)
            self.assertEqual(by_words.counters.refusals, by_line.counters.refusals)
            self.assertEqual(by_words.messages, by_line.messages)

    def test_permit(self) -> None:
        """The embedding application's check is asked for lines and for names alike."""

        def permit(command: Command, session: Session) -> None:
            raise NotPermitted(command.name)

        runner = CommandRunner(self.clock, self.commands, self.sessions, LIMITS, permit)
        self.commands.command("T")(lambda: self.fail("called"))
        (command,) = self.commands
        answer = runner.answer(b"T", self.session)
        assert isinstance(answer, bytes)
        self.assertEqual(self.code(answer), "not_permitted")
        self.assertRaises(NotPermitted, runner.run, command, [], self.session)
        self.assertEqual(self.sessions.counters.refusals[Refusal.NOT_PERMITTED], 2)
        self.assertEqual(command.calls, 0)

    def test_administrative(self) -> None:
        """A client that may not administrate is refused alike, and no call is counted."""
        self.session.administrative = False
        self.commands.command("KILL", admin=True)(lambda: self.fail("called"))
        (command,) = self.commands
        answer = self.runner.answer(b"KILL", self.session)
        assert isinstance(answer, bytes)
        self.assertEqual(self.code(answer), "not_permitted")
        self.assertRaises(NotPermitted, self.runner.run, command, [], self.session)
        self.assertEqual(self.audited, [("refused", "not_permitted: KILL")] * 2)
        self.assertEqual(command.calls, 0)

    def test_slow(self) -> None:
        """A command that holds the reactor for long enters the slow log, failing or not."""

        def slow(fail: bool) -> None:
            self.clock.advance(0.02)
            if fail:
                raise CommandError("no")

        self.commands.command("SLOW", secret=True)(slow)
        (command,) = self.commands
        self.runner.run(command, ["0"], self.session)
        self.assertRaises(CommandError, self.runner.run, command, ["1"], self.session)
        self.assertEqual(self.slow(), [("SLOW …", False)] * 2)

    def test_slow_from_now_on(self) -> None:
        """A threshold that changes holds at once."""
        self.commands.command("FAST")(lambda: self.clock.advance(0.02))
        (command,) = self.commands
        for threshold, count in ((0.03, 0), (0.02, 1)):
            self.sessions.instruments.slow_log.settings = SlowLogSettings(threshold=threshold)
            self.runner.run(command, [], self.session)
            self.assertEqual(len(self.slow()), count)

    def test_slow_start(self) -> None:
        """So does an async one that holds it before its first wait."""

        async def slow() -> None:
            self.clock.advance(0.02)

        self.commands.command("SLOW")(slow)
        (command,) = self.commands
        waiting = self.runner.run(command, [], self.session)
        assert isinstance(waiting, Waiting)
        self.successResultOf(self.runner.start(waiting, self.session, lambda: "SLOW"))
        self.assertEqual(self.slow(), [("SLOW", False)])

    def slow(self) -> list[tuple[str, bool]]:
        """Return the lines of the slow log, and whether they waited."""
        return [(slow.line, slow.waited) for slow in self.sessions.instruments.slow_log.latest(9)]


def run_threads(clock: ThreadClock) -> None:
    """Run all functions that wait for a thread."""
    while clock.threads:
        clock.run_thread()


def raising(error: BaseException) -> Callable[[], None]:
    """Return a handler that raises this."""

    def handler() -> None:
        raise error

    return handler


def raising_async(
    error: BaseException, gate: Deferred[None] | None
) -> Callable[[], Coroutine[Deferred[None], Any, None]]:
    """Return an async handler that raises this, after the gate has fired if there is one."""

    async def handler() -> None:
        if gate is not None:
            await gate
        raise error

    return handler


def capture_events(case: SynchronousTestCase, runner: CommandRunner) -> list[LogEvent]:
    """Collect what the records of a runner log from now on."""
    events: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        events.append(event)

    case.patch(runner._records, "log", Logger(observer=observe))
    return events
