"""Commands are declared once, found by name, and their answers encoded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal

from msgspec import Meta
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.commands.lines import (
    answer_to,
    echo,
    finish,
    new_session,
    parrot,
    registry,
    run_line,
    with_hints,
)
from twisted_net.auth.users import Permissions, User
from twisted_net.commands.registry import (
    Command,
    Commands,
    Fields,
    Kind,
    Request,
    Waiting,
    encode_error,
)
from twisted_net.commands.standard import acknowledge
from twisted_net.errors import (
    CommandError,
    EmptyMessage,
    FetchError,
    LineTooLong,
    TwistedNetError,
)
from twisted_net.http.errors import NameNotFound
from twisted_net.net.redaction import MAX_SHOWN
from twisted_net.sessions import Sessions


class DeclarationTests(SynchronousTestCase):
    """:meth:`Commands.command` reads a command from the function below it."""

    def test_name(self) -> None:
        """The function's name in capitals is the command's, without its outer underscores."""
        commands = Commands()

        @commands.command()
        def _roll_dice_() -> int:
            """Give a number."""
            return 4

        self.assertEqual([command.name for command in commands], ["ROLL_DICE"])
        self.assertEqual(answer_to(commands, "roll_dice"), {"command": "ROLL_DICE", "result": 4})

    def test_without_parentheses(self) -> None:
        """A decorator without parentheses declares the command, too."""
        commands = Commands()

        @commands.command
        def roll_dice(sides: int = 6) -> int:
            """Roll."""
            return sides

        @commands.command
        async def wait() -> str:
            return "waited"

        self.assertEqual([command.name for command in commands], ["ROLL_DICE", "WAIT"])
        self.assertEqual(answer_to(commands, "roll_dice 4")["result"], 4)
        self.assertEqual((roll_dice(2), wait.__name__), (2, "wait"))

    def test_misuse(self) -> None:
        """What can be no command is refused where it is declared."""

        class Shop:
            """Has a method."""

            def order(self, name: str) -> None:
                """Order."""

        def several() -> Iterator[int]:
            yield 1

        async def many() -> AsyncIterator[int]:
            yield 1

        commands: Any = Commands()
        for declare, said in (
            (lambda: commands.command(5), "name must be text or callable or None, not an integer"),
            (lambda: commands.command("X", admn=True), "there is no argument admn; did you mean"),
            (lambda: commands.command("X", admin="no"), "admin must be true or false, not text"),
            (lambda: commands.command("X", True), "2 arguments by position"),
            (lambda: commands.command("X")(5), "handler must be callable, not an integer"),
            (lambda: commands.command(Shop.order), "declare a method of an instance"),
            (lambda: commands.command(several), "it cannot yield several"),
            (lambda: commands.command(many), "it cannot yield several"),
            (lambda: commands.update({"X": several}), "other must be a Commands, not a dict"),
            (lambda: type(commands)("X"), "fallback must be callable or None, not text"),
        ):
            error = self.assertRaises(TypeError, declare)
            self.assertIn(said, str(error))
        self.assertEqual(len(commands), 0)
        commands.command(Shop().order)
        self.assertEqual([command.usage for command in commands], ["ORDER <name>"])

    def test_handler_stays(self) -> None:
        """The decorated function is what it was."""
        self.assertIs(Commands().command("E")(echo), echo)

    def test_help(self) -> None:
        """The first line of the docstring is the help, unless one is given; it may be empty."""

        def bare() -> None:
            pass

        [documented] = registry(echo)
        [told] = registry(echo, help="Other words.")
        [silent] = registry(bare)
        self.assertEqual(
            [documented.help, told.help, silent.help], ["Give the words back.", "Other words.", ""]
        )

    def test_kinds(self) -> None:
        """A function is plain, async by its declaration, or blocking by its mark."""

        async def awaited() -> None:
            pass

        [plain], [waits] = registry(echo), registry(awaited)
        [blocking] = registry(echo, blocking=True)
        self.assertEqual(
            [plain.kind, waits.kind, blocking.kind], [Kind.PLAIN, Kind.ASYNC, Kind.BLOCKING]
        )

    def test_async_blocking(self) -> None:
        """An async function cannot be blocking."""

        async def awaited() -> None:
            pass

        error = self.assertRaises(TypeError, registry, awaited, blocking=True)
        self.assertEqual(str(error), "TRY: an async handler cannot be blocking")

    def test_bad_names(self) -> None:
        """A name begins with a capital, and is of at most 64 capitals, digits and ``_ . -``."""
        for name in ("echo", "1A", "A B", "Ä", "A\n", "_A", "-", 'A"', "A" * 65):
            error = self.assertRaises(ValueError, registry, echo, name)
            self.assertIn("is no name for a command", str(error))
        self.assertRaises(ValueError, Commands().command(), lambda: None)
        for name in ("A", "A1", "A.B-C_D", "A" * 64):
            self.assertEqual(len(registry(echo, name)), 1)

    def test_fallbacks(self) -> None:
        """A fallback that cannot be called with a request and a text is refused."""
        wrong: list[Any] = [5, lambda text: {}, "acknowledge", {}]  # Any: wrong on purpose
        for fallback in wrong:
            with self.subTest(fallback=fallback):
                self.assertRaises(TypeError, Commands, fallback)

    def test_taken(self) -> None:
        """A name is given once."""
        commands = registry(echo)
        error = self.assertRaises(ValueError, commands.command("TRY"), echo)
        self.assertEqual(str(error), "there is a command TRY already")

    def test_callables(self) -> None:
        """Bound methods and objects that can be called are handlers too."""

        class Counter:
            """Counts."""

            def add(self, number: int) -> int:
                return number + 1

        self.assertEqual(answer_to(registry(Counter().add), "try 4")["result"], 5)

    def test_keyword_parameters(self) -> None:
        """A parameter that can be given by name alone is refused, a Request too."""

        def named(*, key: str) -> None:
            pass

        def any_name(**keys: str) -> None:
            pass

        def named_request(*, request: Request) -> None:
            pass

        for handler, name in ((named, "key"), (any_name, "keys"), (named_request, "request")):
            error = self.assertRaises(TypeError, registry, handler)
            self.assertEqual(str(error), f"TRY: a line has no argument by name, so none for {name}")

    def test_unreadable_types(self) -> None:
        """A type that a word cannot be is refused when it is declared, not when it is called."""
        unreadable: list[object] = [
            object,
            complex,
            Request,
            list[Request | complex],
            str | list[str],
            None,
            Literal[1.5],
            # A word cannot be told from the truth value that it spells.
            Literal[True],
            Literal["a", b"b"],
            Annotated[str, Meta(ge=1)],
            Annotated[int, Meta(max_length=1)],
            Annotated[int | None, Meta(ge=1)],
        ]
        for annotation in unreadable:
            handler = with_hints(lambda first, second: None, first=str, second=annotation)
            error = self.assertRaises(TypeError, registry, handler)
            self.assertIn("TRY: no argument can have the type of second: ", str(error))

    def test_request_that_is_not_first(self) -> None:
        """A Request is the first parameter or none."""
        handler = with_hints(lambda word, request: None, word=str, request=Request)
        self.assertRaises(TypeError, registry, handler)

    def test_usage(self) -> None:
        """The usage shows which arguments are required, optional and repeated."""

        def tag(request: Request, key: str, value: int = 0, *rest: str) -> None:
            pass

        [command] = registry(tag)
        self.assertEqual(command.usage, "TRY <key> [value] [rest ...]")
        self.assertTrue(command.wants_request)


class AnswerTests(SynchronousTestCase):
    """What a handler gives becomes one line of JSON."""

    def wire(self, handler: Callable[..., object], line: bytes = b"TRY") -> bytes:
        """Give the bytes of an answer."""
        return finish(run_line(registry(handler), line, new_session()))

    def test_alone(self) -> None:
        """A command declared so is alone, whichever way its handler waits."""

        async def wait() -> None: ...

        handlers: tuple[Callable[[], object], ...] = (wait, lambda: Deferred())
        for handler in handlers:
            for alone in (False, True):
                commands = registry(handler, alone=alone)
                waiting = run_line(commands, b"TRY", new_session())
                assert isinstance(waiting, Waiting)
                self.assertIs(waiting.alone, alone)

    def test_result(self) -> None:
        """Any value that JSON has is the result."""
        values: list[tuple[object, bytes]] = [
            ("hi", b'"hi"'),
            ('ä \u2028\n"', '"ä \u2028\\n\\""'.encode()),
            (None, b"null"),
            (0, b"0"),
            (1.5, b"1.5"),
            (True, b"true"),
            ([1, {"a": None}], b'[1,{"a":null}]'),
            ({}, b"{}"),
            (b"\xff", b'"/w=="'),
        ]
        for value, encoded in values:
            self.assertEqual(
                self.wire(lambda value=value: value),
                b'{"command":"TRY","result":' + encoded + b"}\n",
            )

    def test_fields(self) -> None:
        """Fields stand beside the command, none too, and their order stays."""
        self.assertEqual(
            self.wire(lambda: Fields(b=1, a=[2])), b'{"command":"TRY","b":1,"a":[2]}\n'
        )
        self.assertEqual(self.wire(lambda: Fields()), b'{"command":"TRY"}\n')

    def test_fields_of_the_protocol(self) -> None:
        """Fields may not be named as the protocol's own members."""
        for name in ("command", "error", "code", "event"):
            error = self.assertRaises(ValueError, Fields, **{name: 1})
            self.assertEqual(str(error), f"an answer may not have a member {name!r} of its own")

    def test_not_json(self) -> None:
        """A value that JSON does not have is a bug, also within another."""
        for value in (object(), [object()], {"a": lambda: 1}, 1j):
            commands = registry(lambda value=value: value)
            raw = run_line(commands, b"TRY", new_session())
            assert isinstance(raw, bytes)
            self.assertEqual(json.loads(raw)["code"], "internal")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 4)

    def test_bugs(self) -> None:
        """An exception that a handler does not foresee is logged and answered ``internal``."""

        def bug() -> None:
            raise ZeroDivisionError

        self.assertEqual(answer_to(registry(bug), "TRY")["code"], "internal")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_decoding_bug(self) -> None:
        """A handler that cannot decode something does not make the line to blame."""

        def bug(*words: str) -> str:
            return b"abcdefgh\xff".decode()

        for line in (b"T", b"T with a long tail"):
            commands = registry(bug, "T")
            self.assertEqual(answer_to(commands, line)["code"], "internal")
        self.assertEqual(len(self.flushLoggedErrors(UnicodeDecodeError)), 2)

    def test_refusal(self) -> None:
        """A handler's CommandError, or a leaf of its own, is the answer, details included."""

        class Sold(CommandError):
            """There is none left."""

            code = "sold"

            def details(self) -> dict[str, object]:
                return {"left": 0}

        def refuse(leaf: bool) -> None:
            raise Sold("all sold") if leaf else CommandError("no")

        self.assertEqual(
            self.wire(refuse, b"TRY true"),
            b'{"error":"all sold","code":"sold","left":0,"command":"TRY"}\n',
        )
        self.assertEqual(
            self.wire(refuse, b"TRY 0"), b'{"error":"no","code":"refused","command":"TRY"}\n'
        )

    def test_fetch_error(self) -> None:
        """A fetch that fails is an answer too."""

        def fetch() -> None:
            raise NameNotFound("h.example")

        self.assertEqual(
            self.wire(fetch),
            b'{"error":"no address found for h.example","code":"name_not_found",'
            b'"host":"h.example","command":"TRY"}\n',
        )

    def test_other_errors_of_ours_are_bugs(self) -> None:
        """An error of another branch is none of the client's business."""

        def bug() -> None:
            raise TwistedNetError("configuration")

        answer = answer_to(registry(bug), "TRY")
        self.assertEqual(answer["code"], "internal")
        self.assertNotIn("configuration", str(answer))
        self.assertEqual(len(self.flushLoggedErrors(TwistedNetError)), 1)

    def test_counts(self) -> None:
        """Each line counts once, whatever becomes of it."""
        session = new_session()
        commands = registry(echo)
        for line in (b"TRY", b"NOPE", b"", b"\xff", b"\0", b'TRY "'):
            run_line(commands, line, session)
        self.assertEqual((session.messages, session.sessions.messages), (6, 6))


class WaitingTests(SynchronousTestCase):
    """An answer to come is started by whoever serves it."""

    def waiting(self, handler: Callable[..., object], line: bytes = b"TRY", **how: Any) -> Waiting:
        """Give the answer to come of a command."""
        answer = run_line(registry(handler, **how), line, new_session())
        assert isinstance(answer, Waiting)
        return answer

    def test_async(self) -> None:
        """An async handler does not run before it is started."""
        ran = []

        async def wait(word: str) -> str:
            ran.append(word)
            return word

        waiting = self.waiting(wait, b"TRY a")
        self.assertEqual((ran, waiting.blocking, waiting.name), ([], False, "TRY"))
        self.assertEqual(finish(waiting), b'{"command":"TRY","result":"a"}\n')
        self.assertEqual(ran, ["a"])

    def test_blocking(self) -> None:
        """A blocking handler is marked, and does not run before it is started."""
        ran = []

        def block(number: int) -> Fields:
            ran.append(number)
            return Fields(n=number)

        waiting = self.waiting(block, b"TRY 3", blocking=True)
        self.assertEqual((ran, waiting.blocking), ([], True))
        self.assertEqual(waiting.answer(waiting.start()), b'{"command":"TRY","n":3}\n')

    def test_deferred_from_a_plain_function(self) -> None:
        """A plain function may give an awaitable."""
        result: Deferred[str] = Deferred()
        waiting = self.waiting(lambda: result)
        self.assertIs(waiting.start(), result)
        self.assertFalse(waiting.blocking)
        self.assertEqual(
            finish(self.waiting(lambda: succeed(1))), b'{"command":"TRY","result":1}\n'
        )

    def test_coroutine_from_a_plain_function(self) -> None:
        """It may be a coroutine, and its value Fields."""

        async def later() -> Fields:
            return Fields(a=1)

        self.assertEqual(finish(self.waiting(lambda: later())), b'{"command":"TRY","a":1}\n')

    def test_refuse(self) -> None:
        """The error with which it ends names the command."""
        waiting = self.waiting(lambda: fail(FetchError("no")).addErrback(lambda _: None))
        self.assertEqual(
            waiting.refuse(FetchError("no")),
            b'{"error":"no","code":"fetch_failed","command":"TRY"}\n',
        )

    def test_awaitable_of_an_awaitable(self) -> None:
        """Nobody waits twice."""
        waiting = self.waiting(lambda: succeed(None))
        error = self.assertRaises(TypeError, waiting.answer, Deferred())
        self.assertEqual(str(error), "TRY returned an awaitable of an awaitable")

    def test_not_json(self) -> None:
        """A value that JSON does not have is a bug here too."""
        self.assertRaises(TypeError, self.waiting(lambda: succeed(None)).answer, object())

    def test_arguments_first(self) -> None:
        """Arguments are refused at once, and nothing is started."""

        async def wait(number: int) -> None:
            self.fail("called")

        self.assertEqual(answer_to(registry(wait), "TRY x")["code"], "bad_arguments")


class RegistryTests(SynchronousTestCase):
    """:class:`Commands` finds commands by name, and takes over those of others."""

    def test_get(self) -> None:
        """A command is found in any case; another name is None."""
        commands = registry(echo)
        [command] = commands
        self.assertIs(commands.get("TRY"), command)
        self.assertIs(commands.get("tRy"), command)
        self.assertIsNone(commands.get("TR"))
        self.assertIsNone(commands.get(""))

    def test_in_order(self) -> None:
        """Going through it is by name."""
        commands = Commands()
        for name in ("B", "C", "A"):
            commands.command(name)(echo)
        self.assertEqual([command.name for command in commands], ["A", "B", "C"])
        self.assertEqual(len(commands), 3)

    def test_shown(self) -> None:
        """A line is shown in part: no argument of a secret command, nor of what is none."""
        commands = Commands()
        commands.command("ECHO")(lambda *words: "")
        commands.command("AUTH", secret=True)(lambda *words: "")
        commands.command("NONE")(lambda: "")
        commands.command("ONE")(lambda word: "")
        for line, shown in (
            (b" echo  a b ", "echo  a b"),
            (b"AUTH ann secret", "AUTH …"),
            (b"auth", "auth"),
            (b"AUHT ann secret", "AUHT …"),
            (b"AUTHX ann secret", "AU… …"),
            (b'"AUTH" ann secret', '"AU… …'),
            (b" auth\tsecret", "auth …"),
            (b"ECHO AUTH ann secret", "ECHO AUTH …"),
            (b'ECHO {"command":"auth","arguments":["ann"]}', 'ECHO {"command":"auth …'),
            (b"ECHO auth", "ECHO auth"),
            (b"ECHO author and authority", "ECHO author and authority"),
            (b"ECHO http://ann:secret@h/?token=x&a=b", "ECHO http://***@h/?token=***&a=b"),
            (b"NONE ann secret", "NONE …"),
            (b'ONE "ann b"', 'ONE "ann b"'),
            (b'ONE "ann b', "ONE …"),
            (b"ONE ann secret", "ONE …"),
            (b"", ""),
            (b"ECHO \xff", "ECHO \ufffd"),
            (b"ECHO " + b"x" * 500, "ECHO " + "x" * (MAX_SHOWN - 5) + "…"),
            (b"x" * 500, "xxxx…"),
            (b"x" * 50_000 + b" y", "xxxx…"),
            (b"x", "x"),
        ):
            self.assertEqual(commands.shown(line), shown)

    def test_calls(self) -> None:
        """Each command counts its calls, those refused for their arguments included."""
        commands = Commands()
        commands.command("A")(lambda: "a")
        session = Sessions(lambda: 0.0).open("h", 1, lambda line: None)
        for line in (b"A", b"a", b"A too many", b"B"):
            run_line(commands, line, session)
        (command,) = commands
        self.assertEqual(command.calls, 3)

    def test_verdicts_of_names_that_are_none(self) -> None:
        """That there is no command of a name says nothing of one declared later."""
        commands = Commands()
        session = new_session()
        for patterns, before, after in (
            (("*",), b"unknown_command", b'"result"'),
            (("*", "-@admin"), b"not_permitted", b"not_permitted"),
        ):
            commands.by_name.clear()
            session.permissions = Permissions("ann", User(commands=patterns))
            self.assertIn(before, finish(run_line(commands, b"SHUT", session)))
            commands.command("SHUT", admin=True)(lambda: "")
            self.assertIn(after, finish(run_line(commands, b"SHUT", session)))

    def test_runs_alone(self) -> None:
        """Whether a line calls a command that runs alone; any bytes will do."""
        commands = Commands()
        commands.command("LOGIN", alone=True)(lambda: "")
        commands.command("ECHO")(lambda *words: "")
        session = new_session()
        for line, alone in (
            (b"login a", True),
            (b" \xc2\xa0LOGIN", True),
            (b"LOGINS", False),
            (b"ECHO LOGIN", False),
            (b"\xff", False),
            (b"  ", False),
            (b"", False),
            (None, False),
        ):
            self.assertEqual(commands.runs_alone(line, session), alone, line)
        session.permissions = Permissions("ann", User(commands=("ECHO",)))
        self.assertFalse(commands.runs_alone(b"LOGIN", session))

    def test_name_of(self) -> None:
        """The name that a line calls, known or not, or None; any bytes will do."""
        commands = registry(echo)
        for line, name in (
            (b"try a", "TRY"),
            (b"  TRY", "TRY"),
            (b"try \xff", "TRY"),
            (b"\xfftry", "\ufffdTRY"),
            (b"nope a", "NOPE"),
            (b"x" * 65, "X" * 64),
            (b"", None),
            (b"  ", None),
        ):
            self.assertEqual(commands.name_of(line), name)

    def test_update(self) -> None:
        """All commands of the other are taken over, and its fallback where it has one."""
        first, second = Commands(acknowledge), registry(echo)
        first.update(second)
        self.assertEqual(len(first), 1)
        self.assertIs(first.fallback, acknowledge)
        first.update(Commands(parrot))
        self.assertIs(first.fallback, parrot)

    def test_update_taken(self) -> None:
        """A name that is taken leaves everything as it was."""
        first, second = registry(echo, "B"), registry(echo, "B")
        second.command("A")(echo)
        second.fallback = parrot
        error = self.assertRaises(ValueError, first.update, second)
        self.assertEqual(str(error), "there is a command B already")
        self.assertEqual([command.name for command in first], ["B"])
        self.assertIsNone(first.fallback)

    def test_command_stands_alone(self) -> None:
        """A Command can be made and run without a registry."""
        command = Command("A", echo, "", False)
        self.assertEqual(command.run(["x"], None), b'{"command":"A","result":["x"]}\n')


class ErrorTests(SynchronousTestCase):
    """:func:`encode_error` puts an error on the wire."""

    def test_encode(self) -> None:
        """The sentence, the code, the details, and the command where there is one."""
        self.assertEqual(
            encode_error(EmptyMessage()), b'{"error":"empty message","code":"empty"}\n'
        )
        self.assertEqual(
            encode_error(LineTooLong(64), "A"),
            b'{"error":"the line is longer than 64 bytes","code":"line_too_long",'
            b'"limit":64,"command":"A"}\n',
        )
