"""Tests for :mod:`twisted_net.config.type_checks`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface

from twisted_net.config.record import Record
from twisted_net.config.type_checks import check_arguments, check_of, checked_seconds

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")


class Size(Record, frozen=True):
    """A record."""

    width: int = 1


class Speaks(Protocol):
    """A seam."""

    def speak(self) -> str:
        """Speak."""


class ISpeaks(Interface):
    """An interface of zope's."""

    def listen() -> str:
        """Listen."""


class Dog:
    """Is both, without saying so."""

    def speak(self) -> str:
        """Speak."""
        return "woof"

    def listen(self) -> str:
        """Listen."""
        return ""


ALLOWED: tuple[tuple[Any, str, tuple[object, ...], tuple[object, ...]], ...] = (
    (int, "an integer", (1, -1), (True, 1.0, "1", None, int)),
    (float, "a number", (1, 1.5), (True, "1", None)),
    (bool, "true or false", (True,), (1, None)),
    (str, "text", ("", "a"), (b"a", 1, None, str)),
    (bytes, "bytes", (b"a",), ("a", None)),
    (str | None, "text or None", ("a", None), (b"a", 1)),
    (str | Path, "text or a Path", ("a", Path()), (b"a",)),
    (Literal["a", "b"], "'a' or 'b'", ("a",), ("c", None)),
    (Callable[[int], str], "callable", (len, Dog), (1, None, "len")),
    (Sequence[str], "a sequence of texts", ((), ["a"]), ("abc", b"abc", 1, None, {"a"})),
    (Iterable[str], "an iterable of texts", ({"a"}, iter(())), ("abc", 1)),
    (Sequence[int], "a sequence", ([1], "abc"), (1, {1})),
    (tuple[str, int], "a tuple of texts", (("h", 1),), (["h", 1], "h")),
    (Mapping[str, int], "a mapping", ({},), ([], "a")),
    (Size, "a Size", (Size(),), ({}, Size, None, 5)),
    (Size | None, "a Size or None", (Size(), None), ({}, Size)),
    (type[Size], "a class", (Size,), (Size(),)),
    (Speaks, "a Speaks", (Dog(),), (Dog, 5)),
    (ISpeaks, "an ISpeaks", (Dog(),), (Dog, 5)),
    (IProtocolFactory, "an IProtocolFactory", (Factory(),), (Factory, 5)),
    (IReactorTime, "a reactor", (Clock(),), (Clock, 5, None)),
)
"""Annotations; what they allow, in words; values that are allowed, and some that are not."""


class CheckTests(SynchronousTestCase):
    """:func:`check_of` reads annotations."""

    def test_allowed(self) -> None:
        """What an annotation says is what is allowed."""
        for annotation, words, right, wrong in ALLOWED:
            check = check_of(annotation)
            assert check is not None, annotation
            self.assertEqual(check.words, words)
            for value in right:
                self.assertTrue(check.allows(value), (annotation, value))
            for value in wrong:
                self.assertFalse(check.allows(value), (annotation, value))

    def test_nothing_said(self) -> None:
        """What says nothing is not checked."""
        for annotation in (Any, object, T, int | Any, "text"):
            self.assertIsNone(check_of(annotation), annotation)


@check_arguments
class Box:
    """A class as public ones are."""

    def __init__(
        self,
        reactor: IReactorTime,
        size: Size | None = None,
        names: Sequence[str] = (),
        *,
        price: Decimal | None = None,
        **others: object,
    ) -> None:
        self.kept = (reactor, size, names, price, others)


@check_arguments
class Small:
    """Takes less."""

    def __init__(self, width: int, height: int = 1) -> None:
        self.area = width * height


@check_arguments
@frozen
class Given:
    """Has its constructor from attrs."""

    name: str
    count: int = 0


@check_arguments
def join(separator: str, *parts: str, end: str = "") -> str:
    """Join."""
    return separator.join(parts) + end


class ArgumentTests(SynchronousTestCase):
    """:func:`check_arguments` refuses what cannot be right, in one sentence."""

    def refused(self, called: Any, *args: object, **kwargs: object) -> str:
        """Return what is said of a call."""
        return str(self.assertRaises(TypeError, called, *args, **kwargs))

    def test_right(self) -> None:
        """Right arguments arrive as they are."""
        clock, size = Clock(), Size()
        self.assertEqual(
            Box(clock, size, ["a"], price=5, more=1).kept,  # type: ignore[arg-type]  # on purpose
            (clock, size, ["a"], 5, {"more": 1}),
        )
        self.assertEqual(Small(2, height=3).area, 6)
        self.assertEqual(join("-", "a", "b", end="."), "a-b.")
        self.assertEqual(Given("x").count, 0)

    def test_wrong(self) -> None:
        """The message says where, what, and what is allowed."""
        clock = Clock()
        for said, args, kwargs in (
            ("Box: reactor must be a reactor, not a Size", (Size(), clock), {}),
            ("Box: reactor must be a reactor, not the class Clock", (Clock,), {}),
            ("Box: reactor must be a reactor, not None", (None,), {}),
            (
                "Box: size must be a Size or None, not a dict; write Size(**…)",
                (clock,),
                {"size": {"width": 2}},
            ),
            ("Box: size must be a Size or None, not the class Size", (clock, Size), {}),
            ("Box: names must be a sequence of texts, not text", (clock,), {"names": "secret"}),
        ):
            self.assertEqual(self.refused(Box, *args, **kwargs), said)
        self.assertEqual(self.refused(Given, 5), "Given: name must be text, not an integer")
        self.assertEqual(self.refused(join, 5), "join: separator must be text, not an integer")

    def test_replaced(self) -> None:
        """What an annotation names is what it was when the function was declared."""

        @check_arguments
        def measure(size: Size | None) -> None:
            """Measure."""

        @check_arguments
        def weigh(size: Size) -> None:
            """Weigh."""

        self.patch(sys.modules[__name__], "Size", lambda: None)
        said = "measure: size must be a Size or None, not an integer"
        self.assertEqual(self.refused(measure, 5)[-len(said) :], said)
        self.assertIn("weigh: size must be a Size, not text", self.refused(weigh, "x"))

    def test_unknown(self) -> None:
        """A keyword that there is not is shown with the nearest one."""
        takes = "It takes: width, height"
        self.assertEqual(
            self.refused(Small, 1, heigth=2),
            f"Small: there is no argument heigth; did you mean height? {takes}",
        )
        self.assertEqual(self.refused(Small, 1, zzz=2), f"Small: there is no argument zzz. {takes}")

    def test_synonyms(self) -> None:
        """A name from elsewhere is shown with what is meant."""

        @check_arguments(synonyms={"breadth": "width"})
        def draw(width: int) -> None:
            """Draw."""

        self.assertIn("no argument breadth; did you mean width?", self.refused(draw, breadth=1))
        self.assertIn("width must be an integer", self.refused(draw, "x"))

    def test_number(self) -> None:
        """Too few and too many."""
        takes = "It takes: width, height"
        self.assertEqual(self.refused(Small), f"Small: width must be passed. {takes}")
        self.assertEqual(
            self.refused(Small, 1, 2, 3), f"Small: 3 arguments by position, not 2. {takes}"
        )

    def test_subclass(self) -> None:
        """A subclass with a constructor of its own passes on what it wants."""

        class Larger(Small):
            def __init__(self, text: str) -> None:
                super().__init__(len(text))

        self.assertEqual(Larger("abc").area, 3)
        self.assertRaises(TypeError, Larger, 5)

    def test_signature(self) -> None:
        """The class looks as it did."""
        self.assertEqual(Box.__init__.__name__, "__init__")
        self.assertEqual(join.__doc__, "Join.")


class SecondsTests(SynchronousTestCase):
    """:func:`checked_seconds` takes times."""

    def test_times(self) -> None:
        """Times of 0 and more, that end."""
        for seconds in (0, 1.5, 10**6):
            self.assertEqual(checked_seconds(seconds), seconds)
        for seconds in (-1, float("nan"), float("inf"), 10**400):
            self.assertRaises(ValueError, checked_seconds, seconds)
        for other in (None, "5", True):
            self.assertRaises(TypeError, checked_seconds, other)
