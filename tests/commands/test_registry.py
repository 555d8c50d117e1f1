"""A command is declared once; its lines are read, refused and answered from that."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Meta
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.commands.registry import (
    Command,
    Commands,
    Fields,
    Kind,
    Request,
    Waiting,
    encode_error,
    split_quoted,
)
from twisted_net.commands.standard import acknowledge
from twisted_net.errors import (
    BadQuotes,
    CommandError,
    EmptyMessage,
    FetchError,
    LineTooLong,
    TwistedNetError,
)
from twisted_net.http.errors import NameNotFound
from twisted_net.reasons import MAX_SHOWN
from twisted_net.sessions import Session, Sessions

Answer = dict[str, Any]  # Any: whatever JSON holds


def nobody(line: bytes) -> None:
    """Take an event, and drop it."""


def new_session() -> Session:
    """Open the session of a client in a registry of its own."""
    return Sessions(lambda: 0.0).open("192.0.2.1", 5000, nobody)


def finish(answer: bytes | Waiting) -> bytes:
    """Give the answer, awaited where it is to come."""
    if isinstance(answer, bytes):
        return answer
    taken: list[object] = []
    value = answer.start()

    async def wait() -> object:
        return await value if hasattr(value, "__await__") else value

    Deferred.fromCoroutine(wait()).addBoth(taken.append)
    return answer.answer(taken[0])


def answer_to(commands: Commands, line: str | bytes) -> Answer:
    """Answer one line, which must be a line of JSON, and decode it."""
    raw = finish(commands.answer(line.encode() if isinstance(line, str) else line, new_session()))
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    decoded: Answer = json.loads(raw)
    return decoded


def registry(handler: Callable[..., object], name: str = "TRY", **options: Any) -> Commands:
    """Give a registry of one command."""
    commands = Commands()
    commands.command(name, **options)(handler)
    return commands


def with_hints(handler: Callable[..., object], **hints: object) -> Callable[..., object]:
    """Annotate a handler with types that are known at run time only."""
    handler.__annotations__.update(hints)
    return handler


def echo(*words: str) -> list[str]:
    """Give the words back."""
    return list(words)


def parrot(request: Request, text: str) -> str:
    """Give the text back: a fallback."""
    return text


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
        """A name begins with a capital, and is of capitals, digits, and ``_ . -`` alone."""
        for name in ("echo", "1A", "A B", "Ä", "A\n", "_A", "-", 'A"'):
            error = self.assertRaises(ValueError, registry, echo, name)
            self.assertIn("is no name for a command", str(error))
        self.assertRaises(ValueError, Commands().command(), lambda: None)
        for name in ("A", "A1", "A.B-C_D"):
            self.assertEqual(len(registry(echo, name)), 1)

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
            bytes,
            dict,
            list[str],
            object,
            Request,
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


class ArgumentTests(SynchronousTestCase):
    """Words become values of the declared types, or the command is refused."""

    def value(self, annotation: object, word: str) -> object:
        """Give what a handler gets for a word, or the text of the refusal."""
        got: list[object] = []
        commands = registry(with_hints(lambda value: got.append(value), value=annotation))
        line = 'TRY "' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
        answer = answer_to(commands, line)
        return got[0] if "error" not in answer else answer

    def refusal(self, what: str, word: str) -> Answer:
        """Give the answer to a word that does not fit."""
        return {
            "error": f"argument 1 (value) must be {what}, not {word!r}",
            "code": "bad_arguments",
            "command": "TRY",
        }

    def check(self, annotation: object, good: dict[str, object], what: str, *bad: str) -> None:
        """Try words that fit, with their values, and words that do not."""
        for word, value in good.items():
            got = self.value(annotation, word)
            self.assertEqual((type(got), got), (type(value), value))
        for word in bad:
            self.assertEqual(self.value(annotation, word), self.refusal(what, word))

    def test_str(self) -> None:
        """Text is the word as it stands."""
        self.check(str, {"a b": "a b", "": "", "null": "null", "1": "1", "ß": "ß"}, "")

    def test_int(self) -> None:
        """An integer is written in digits; as many as Python takes."""
        self.check(
            int,
            {"0": 0, "-7": -7, "9" * 30: int("9" * 30)},
            "an integer",
            *("", "x", "+1", " 1", "1_000", "0x10", "01", "1.5", "٣", "true"),
        )

    def test_int_beyond_what_python_takes(self) -> None:
        """Thousands of digits are refused, not a failure."""
        answer = self.value(int, "9" * 5000)
        assert isinstance(answer, dict)
        self.assertEqual(answer["code"], "bad_arguments")
        self.assertLess(len(str(answer["error"])), 200)

    def test_float(self) -> None:
        """A number is finite."""
        self.check(
            float,
            {"1": 1.0, "-1.5": -1.5, "1e3": 1000.0},
            "a number",
            *("", "x", "1e400", "nan", "inf", "-Infinity"),
        )
        self.check(int | float, {"1": 1, "1.5": 1.5}, "an integer or a number", "nan", "x")

    def test_bool(self) -> None:
        """A truth value is true, false, 1 or 0, in any case."""
        good = {"true": True, "False": False, "1": True, "0": False}
        self.check(bool, dict(good), "true or false", "yes", "2", "")

    def test_literal(self) -> None:
        """A choice is one of those listed."""
        self.check(Literal["a", "b"], {"a": "a"}, "one of 'a', 'b'", "c", "A")
        self.check(Literal[1, 2], {"2": 2}, "one of 1, 2", "3", "x")

    def test_bounds(self) -> None:
        """Bounds hold, the limits included, and the refusal names them."""
        self.check(
            Annotated[int, Meta(ge=1, le=9)], {"1": 1, "9": 9}, "an integer from 1 to 9", "0", "10"
        )
        self.check(
            Annotated[str, Meta(max_length=2)], {"äö": "äö"}, "text of at most 2 characters", "abc"
        )

    def test_optional_type(self) -> None:
        """A union allows each of its types."""
        self.check(int | None, {"1": 1}, "an integer or nothing", "x")
        self.check(str | None, {"null": "null"}, "")

    def test_long_words_are_cut(self) -> None:
        """A refusal shows 64 characters of the word."""
        answer = self.value(int, "x" * 65)
        self.assertEqual(answer, self.refusal("an integer", "x" * 64 + "…"))
        answer = self.value(int, "x" * 64)
        self.assertEqual(answer, self.refusal("an integer", "x" * 64))

    def test_default(self) -> None:
        """An argument with a default may be left out; then it is the default."""

        def add(number: int, more: int = 10) -> int:
            return number + more

        commands = registry(add)
        self.assertEqual(answer_to(commands, "TRY 1")["result"], 11)
        self.assertEqual(answer_to(commands, "TRY 1 2")["result"], 3)

    def test_repeated(self) -> None:
        """Repeated arguments take all that are left, none too, each with their type."""

        def join(separator: str, *numbers: int) -> str:
            return separator.join(map(str, numbers))

        commands = registry(join)
        self.assertEqual(answer_to(commands, "TRY -")["result"], "")
        self.assertEqual(answer_to(commands, "TRY - 1 2 3")["result"], "1-2-3")
        self.assertEqual(
            answer_to(commands, "TRY - 1 x")["error"],
            "argument 3 (numbers) must be an integer, not 'x'",
        )

    def test_number_of_arguments(self) -> None:
        """Too few and too many are refused with the usage, and the handler is not called."""

        def pair(first: str, second: str = "") -> None:
            self.fail("called")

        commands = registry(pair)
        for line, count in (("TRY", 0), ("try a b c", 3)):
            self.assertEqual(
                answer_to(commands, line),
                {
                    "error": f"wrong number of arguments ({count}); usage: TRY <first> [second]",
                    "code": "bad_arguments",
                    "command": "TRY",
                },
            )
        self.assertEqual(answer_to(registry(lambda: 1, "NONE"), "none x")["code"], "bad_arguments")

    def test_request(self) -> None:
        """The request is the session and the registry; the arguments follow it."""
        got: list[tuple[Request, str]] = []

        def note(request: Request, word: str) -> None:
            got.append((request, word))

        commands, session = registry(note), new_session()
        commands.answer(b"TRY a", session)
        [(request, word)] = got
        self.assertEqual(word, "a")
        self.assertIs(request.session, session)
        self.assertIs(request.commands, commands)

    def test_request_alone(self) -> None:
        """A handler may want the request and nothing else, or the request and typed words."""

        def name(request: Request) -> str:
            return request.session.name

        def double(request: Request, number: int) -> int:
            return 2 * number

        self.assertEqual(answer_to(registry(name), "TRY")["result"], "192.0.2.1:5000")
        self.assertEqual(answer_to(registry(double), "TRY 4")["result"], 8)


class AnswerTests(SynchronousTestCase):
    """What a handler gives becomes one line of JSON."""

    def wire(self, handler: Callable[..., object], line: bytes = b"TRY") -> bytes:
        """Give the bytes of an answer."""
        return finish(registry(handler).answer(line, new_session()))

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
            self.assertRaises(TypeError, commands.answer, b"TRY", new_session())

    def test_bugs_are_raised(self) -> None:
        """What a handler does not foresee comes out as it is."""

        def bug() -> None:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, registry(bug).answer, b"TRY", new_session())

    def test_decoding_bug_is_raised(self) -> None:
        """A handler that cannot decode something does not make the line to blame."""

        def bug(*words: str) -> str:
            return b"abcdefgh\xff".decode()

        for line in (b"T", b"T with a long tail"):
            commands = registry(bug, "T")
            self.assertRaises(UnicodeDecodeError, commands.answer, line, new_session())

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

        self.assertRaises(TwistedNetError, registry(bug).answer, b"TRY", new_session())

    def test_counts(self) -> None:
        """Each line counts once, whatever becomes of it."""
        session = new_session()
        commands = registry(echo)
        for line in (b"TRY", b"NOPE", b"", b"\xff", b"\0", b'TRY "'):
            commands.answer(line, session)
        self.assertEqual((session.messages, session.sessions.messages), (6, 6))


class WaitingTests(SynchronousTestCase):
    """An answer to come is started by whoever serves it."""

    def waiting(self, handler: Callable[..., object], line: bytes = b"TRY", **how: Any) -> Waiting:
        """Give the answer to come of a command."""
        answer = registry(handler, **how).answer(line, new_session())
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
        self.assertEqual(str(error), "TRY gave an awaitable of an awaitable")

    def test_not_json(self) -> None:
        """A value that JSON does not have is a bug here too."""
        self.assertRaises(TypeError, self.waiting(lambda: succeed(None)).answer, object())

    def test_arguments_first(self) -> None:
        """Arguments are refused at once, and nothing is started."""

        async def wait(number: int) -> None:
            self.fail("called")

        self.assertEqual(answer_to(registry(wait), "TRY x")["code"], "bad_arguments")


class LineTests(SynchronousTestCase):
    """Each kind of line has its answer, to the byte."""

    def wire(self, line: bytes) -> bytes:
        """Answer a line with a registry of one command."""
        return finish(registry(echo).answer(line, new_session()))

    def test_any_case(self) -> None:
        """The name is in any case, with white space of any kind about it."""
        for line in ("TRY a", "try a", "tRy a", " \t try\u3000a\u00a0", "try\u2028a", "TRY\ta\t"):
            self.assertEqual(
                self.wire(line.encode()), b'{"command":"TRY","result":["a"]}\n', ascii(line)
            )

    def test_empty(self) -> None:
        """An empty line, or white space alone, is empty."""
        for line in ("", " ", "\t \u3000", "\u0085"):
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
        """C0 and DEL are refused, but for the tab; C1 and all others pass."""
        for code in range(0xA1):
            answer = json.loads(self.wire(f"TRY a{chr(code)}b".encode()))
            if (code < 0x20 and code != 9) or code == 0x7F:
                self.assertEqual(
                    answer,
                    {
                        "error": f"the line holds the control character U+{code:04X} at position 5",
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
        raw = commands.answer(b'  Hello  "world  ', new_session())
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

        waiting = Commands(fallback).answer(b"x", new_session())
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
        for line, shown in (
            (b" echo  a b ", "echo  a b"),
            (b"AUTH ann secret", "AUTH …"),
            (b"auth", "auth"),
            (b"AUHT ann secret", "AUHT …"),
            (b"", ""),
            (b"ECHO \xff", "ECHO \ufffd"),
            (b"ECHO " + b"x" * 500, "ECHO " + "x" * (MAX_SHOWN - 5) + "…"),
            (b"x" * 500, "x" * MAX_SHOWN + "…"),
        ):
            self.assertEqual(commands.shown(line), shown)

    def test_calls(self) -> None:
        """Each command counts its calls, those refused for their arguments included."""
        commands = Commands()
        commands.command("A")(lambda: "a")
        session = Sessions(lambda: 0.0).open("h", 1, lambda line: None)
        for line in (b"A", b"a", b"A too many", b"B"):
            commands.answer(line, session)
        (command,) = commands
        self.assertEqual(command.calls, 3)

    def test_name_of(self) -> None:
        """The name of the command that a line asks for, or None; any bytes will do."""
        commands = registry(echo)
        for line, name in (
            (b"try a", "TRY"),
            (b"  TRY", "TRY"),
            (b"try \xff", "TRY"),
            (b"\xfftry", None),
            (b"nope", None),
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


def split_slowly(text: str) -> list[str] | None:
    """Split a line character by character; None where a quote is wrong."""
    words = []
    i = 0
    while i < len(text):
        if text[i].isspace():
            i += 1
            continue
        word = ""
        if text[i] != '"':
            while i < len(text) and not text[i].isspace():
                word += text[i]
                i += 1
            words.append(word)
            continue
        i += 1
        while True:
            if i == len(text):
                return None
            if text[i] == '"':
                break
            if text[i] == "\\":
                if i + 1 == len(text):
                    return None
                if text[i + 1] in '"\\':
                    i += 1
                else:
                    word += "\\"
                    i += 1
            word += text[i]
            i += 1
        i += 1
        if i < len(text) and not text[i].isspace():
            return None
        words.append(word)
    return words


class SplitTests(SynchronousTestCase):
    """:func:`split_quoted` splits as the character-by-character model does."""

    def check(self, text: str) -> None:
        """Compare with the model."""
        expected = split_slowly(text)
        if expected is None:
            self.assertRaises(BadQuotes, split_quoted, text)
        else:
            self.assertEqual(split_quoted(text), expected)

    @given(st.text('ab"\\ \t\u3000\u0085', max_size=16))
    @example('"\\')
    @example('"\\\\"')
    @example('"" ""')
    @example('""""')
    def test_quotes_and_backslashes(self, text: str) -> None:
        """Strings of little but quotes, backslashes and white space."""
        self.check(text)

    @given(st.text(max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any text."""
        self.check(text)

    def test_white_space(self) -> None:
        """White space is what ``str.isspace`` says, all over Unicode."""
        for code in range(sys.maxunicode + 1):
            if chr(code).isspace() or code % 997 == 0:
                self.check(f'a{chr(code)}"b"{chr(code)}c')

    def test_without_quotes(self) -> None:
        """Without quotes it is ``str.split``."""
        self.assertEqual(split_quoted(" a\tb  c "), ["a", "b", "c"])
        self.assertEqual(split_quoted("  "), [])

    def test_long(self) -> None:
        """A line at the limit takes no time to speak of, whatever it holds."""
        for text in ('"' * 16_384, '"' + "\\" * 16_383, '"' + 'a\\"' * 5461, " " * 16_383 + '"'):
            self.check(text)
