"""Words of a line become typed arguments of a command."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from attrs import frozen
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Meta
from twisted.trial.unittest import SynchronousTestCase

from tests.commands.lines import (
    Answer,
    answer_to,
    new_session,
    registry,
    run_line,
    with_hints,
)
from twisted_net.commands.arguments import split_quoted
from twisted_net.commands.registry import (
    Request,
)
from twisted_net.errors import (
    BadQuotes,
)


class Colour(Enum):
    """Values in text."""

    RED = "red"
    BLUE = "blue"


class Level(Enum):
    """Values in numbers."""

    LOW = 1
    HIGH = 2


class Point(msgspec.Struct):
    """A structure with bounds."""

    x: Annotated[int, Meta(ge=0)]
    y: int = 0


@frozen
class Place:
    """A class of attrs."""

    name: str


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

    def test_enum(self) -> None:
        """An Enum is one of its values."""
        good: dict[str, object] = {"red": Colour.RED, "blue": Colour.BLUE}
        self.check(Colour, good, "one of 'red', 'blue'", "RED", "")
        self.check(Level, {"1": Level.LOW}, "one of 1, 2", "3", "LOW")

    def test_moments(self) -> None:
        """Dates and times are in ISO 8601."""
        self.check(date, {"2026-11-30": date(2026, 11, 30)}, "date", "30.11.2026", "2026-13-01")
        noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
        self.check(datetime, {"2026-11-30T12:00:00Z": noon}, "datetime", "yesterday")
        self.check(timedelta, {"PT5M": timedelta(minutes=5)}, "timedelta", "5 min")

    def test_numbers_of_decimals(self) -> None:
        """A decimal number is exact, and of the size of a float."""
        good: dict[str, object] = {"1.10": Decimal("1.10"), "1e300": Decimal("1e300")}
        bad = ("x", "NaN", "Infinity", "1e999999999", "1e-400")
        self.check(Decimal, good, "a decimal number", *bad)

    def test_identifiers_and_bytes(self) -> None:
        """A UUID is as it is usually written, bytes are base64."""
        text = "6f1f1c3e-0000-4000-8000-000000000001"
        self.check(UUID, {text: UUID(text)}, "UUID", "6f1f1c3e", "")
        self.check(bytes, {"aGk=": b"hi", "": b""}, "bytes", "a", "ä===")

    def test_json(self) -> None:
        """Lists, mappings and structures are JSON, checked as msgspec does."""
        self.check(list[int], {"[1, 2]": [1, 2], "[]": []}, "")
        self.check(dict[str, int], {'{"a": 1}': {"a": 1}}, "")
        self.check(Point, {'{"x": 1}': Point(x=1, y=0)}, "")
        self.check(Place, {'{"name": "a b"}': Place("a b")}, "")
        for annotation, word in (
            (list[int], "1"),
            (list[int], '["a"]'),
            (list[int], "[1,"),
            (Point, '{"x": -1}'),
            (Point, "{}"),
            (list[float], "[1e999]"),
            (list[object], "[" * 300 + "]" * 300),
        ):
            answer = self.value(annotation, word)
            assert isinstance(answer, dict)
            self.assertEqual(answer["code"], "bad_arguments", word)
            self.assertIn("must be JSON of", answer["error"])

    def test_json_at_the_end(self) -> None:
        """As the last argument JSON is not quoted; before it, it is."""
        got: list[object] = []
        commands = registry(
            with_hints(lambda name, point: got.append((name, point)), name=str, point=Point)
        )
        for line in (
            'TRY a {"x": 1, "y": 2}',
            'try  a\t{"y":2,"x":1} ',
            'TRY a "{\\"x\\": 1, \\"y\\": 2}"',
            'TRY "a" "{\\"x\\": 1, \\"y\\": 2}"',
        ):
            self.assertNotIn("error", answer_to(commands, line), line)
        self.assertEqual(got, [("a", Point(x=1, y=2))] * 4)
        self.assertEqual(answer_to(commands, 'TRY a {"x": 1} b')["code"], "bad_arguments")

    def test_json_for_each(self) -> None:
        """Arguments that are repeated are each one in JSON."""
        got: list[object] = []

        def take(*points: list[int]) -> None:
            got.extend(points)

        self.assertNotIn("error", answer_to(registry(take, "TRY"), "TRY [1] [2,3]"))
        self.assertEqual(got, [[1], [2, 3]])

    def test_ambiguous(self) -> None:
        """What may be JSON or a word is no type for an argument; None beside JSON is a default."""
        self.assertRaises(
            TypeError, registry, with_hints(lambda value: value, value=list[int] | str)
        )
        registry(with_hints(lambda value=None: value, value=list[int] | None))

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

    def test_repeated_wrong(self) -> None:
        """The first word that does not fit is named, wherever it is among many."""
        commands = registry(with_hints(lambda first, *rest: len(rest), first=str, rest=float))
        for wrong in range(1, 40):
            words = ["nan" if i in (wrong, 38) else f"{i}.5" for i in range(1, 40)]
            first = min(wrong, 38)
            answer = answer_to(commands, " ".join(["TRY", "a", *words]))
            expected = f"argument {first + 1} (rest) must be a number, not 'nan'"
            self.assertEqual(answer["error"], expected)

    def test_repeated_at_once(self) -> None:
        """Many words are converted at once: a call for each would take twenty times as long."""
        commands = registry(with_hints(lambda *numbers: len(numbers), numbers=int))
        convert = msgspec.convert
        counts: list[int] = []

        def counted(value: object, *args: object, **more: object) -> object:
            if value in ("1", "x") or isinstance(value, list):
                counts.append(len(value))
            return convert(value, *args, **more)  # type: ignore[call-overload]  # passed on

        self.patch(msgspec, "convert", counted)
        self.assertEqual(answer_to(commands, "TRY" + " 1" * 4000)["result"], 4000)
        self.assertEqual(counts, [4000])
        counts.clear()
        self.assertIn("argument 3999 ", answer_to(commands, "TRY" + " 1" * 3998 + " x 1")["error"])
        self.assertLess(len(counts), 20)
        self.assertLess(sum(counts), 3 * 4000)

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

    def test_too_few_before_the_repeated(self) -> None:
        """Arguments before those that repeat must be there."""

        def many(first: str, *rest: str) -> int:
            return 1 + len(rest)

        commands = registry(many)
        self.assertEqual(answer_to(commands, "TRY")["code"], "bad_arguments")
        self.assertEqual(answer_to(commands, "TRY a b c")["result"], 3)

    def test_request(self) -> None:
        """The request is the session and the registry; the arguments follow it."""
        got: list[tuple[Request, str]] = []

        def note(request: Request, word: str) -> None:
            got.append((request, word))

        commands, session = registry(note), new_session()
        run_line(commands, b"TRY a", session)
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


def split_slowly(text: str) -> list[str] | None:
    """Split a line character by character; None where a quote is wrong."""
    words = []
    i = 0
    while i < len(text):
        if text[i] in " \t":
            i += 1
            continue
        word = ""
        if text[i] != '"':
            while i < len(text) and text[i] not in " \t":
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
        if i < len(text) and text[i] not in " \t":
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

    def test_spaces(self) -> None:
        """Space and tab separate words, and no other space of Unicode does."""
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
