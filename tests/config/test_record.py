"""Records are checked where they are made, and say what they allow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.config.record import Record, describe, field_types, is_secret, split_meta
from twisted_net.config.tls import TlsSettings


class Inner(Record, frozen=True):
    """Stands in another record."""

    size: Annotated[int, Meta(ge=1, le=9)] = 3


class Outer(Record, frozen=True):
    """Has a field of each kind."""

    name: Annotated[str, Meta(min_length=1)]
    inner: Inner = Inner()
    ratio: Annotated[float, Meta(gt=0)] = 1.0
    limit: Annotated[int, Meta(ge=0)] | None = None


class Many(Record, frozen=True):
    """Has several records."""

    inners: tuple[Inner | str, ...] = ()


class Derived(Inner, frozen=True):
    """Has a field more."""

    more: int = 0


class Texts(Record, frozen=True):
    """Has texts in each kind of container."""

    one: str | int = ""
    several: tuple[str | Inner, ...] = ()
    table: dict[str, Any] = msgspec.field(default_factory=dict)  # Any: of all kinds
    hidden: Annotated[str, Meta(extra={"secret": True})] = ""


class NullTests(SynchronousTestCase):
    """No text has a NUL, wherever it stands: the system takes none in names of files and hosts."""

    def test_refused(self) -> None:
        """The field is named; what it holds may be a secret."""
        for fields in (
            {"one": "\0"},
            {"several": ("a", "b\0c")},
            {"table": {"a": ["x", {"\0": 1}]}},
            {"hidden": "hunter2\0"},
        ):
            error = str(self.assertRaises(ValueError, Texts, **fields))
            (name,) = fields
            self.assertEqual(error, f"Texts.{name} must have no NUL character (U+0000)")

    def test_others(self) -> None:
        """Other control characters may stand in the name of a file."""
        self.assertEqual(Texts(one="a\n\x01", several=("\x7f",)).one, "a\n\x01")

    def test_decoded(self) -> None:
        """The same holds for a record that msgspec decodes."""
        error = self.assertRaises(msgspec.ValidationError, msgspec.convert, {"one": "a\0"}, Texts)
        self.assertIn("must have no NUL", str(error))


class MisuseTests(SynchronousTestCase):
    """What is no value of a field is one clear TypeError."""

    def refused(self, kind: Any, *args: object, **fields: object) -> str:  # Any: a record
        """Return what is said."""
        return str(self.assertRaises(TypeError, kind, *args, **fields))

    def test_unknown_field(self) -> None:
        """An unknown name is shown with the nearest one, and all that there are."""
        self.assertEqual(
            self.refused(Outer, name="x", limits=1),
            "Outer has no field limits; did you mean limit? It has: name, inner, ratio, limit",
        )
        self.assertEqual(
            self.refused(Inner, zzz=1, size=99), "Inner has no field zzz. It has: size"
        )

    def test_field_of_another_record(self) -> None:
        """A field of a record inside leads there, rather than to one whose name is like it."""
        said = self.refused(Outer, name="x", size=1)
        self.assertIn("Outer has no field size; did you mean inner=Inner(size=…)?", said)

    def test_beginning(self) -> None:
        """An abbreviation leads to the whole name, from three letters on."""
        self.assertIn("did you mean certificate?", self.refused(TlsSettings, cert="x"))
        self.assertIn("has no field ce.", self.refused(TlsSettings, ce="x"))

    def test_by_position(self) -> None:
        """Fields are passed by name: their order is none that anybody knows."""
        said = "Inner takes its fields by name, such as Inner(size=…)"
        for value in (5, {"size": 5}):
            self.assertEqual(self.refused(Inner, value), said)

    def test_dict_for_a_record(self) -> None:
        """A dict is no record, alone or in a list."""
        said = " must be an instance of Inner, not a dict; write Inner(**…)"
        self.assertEqual(self.refused(Outer, name="x", inner={"size": 5}), f"Outer.inner{said}")
        for items in (({"size": 5},), ["a", {"size": 5}]):
            self.assertEqual(self.refused(Many, inners=items), f"Many.inners{said}")

    def test_another_record(self) -> None:
        """A record of another kind is refused; one of a subclass is allowed."""
        self.assertEqual(
            self.refused(Outer, name="x", inner=Many()),
            "Outer.inner must be an instance of Inner, not an instance of Many",
        )
        self.assertEqual(
            self.refused(Outer, name="x", limit=Inner()),
            "Outer.limit must be an integer of at least 0 or nothing, not an instance of Inner",
        )
        self.assertEqual(Outer(name="x", inner=Derived(more=1)).inner, Derived(more=1))

    def test_class_for_an_instance(self) -> None:
        """So is the class itself."""
        self.assertRaises(ValueError, Outer, name="x", inner=Inner)

    def test_value_for_a_record(self) -> None:
        """In code a record is no table, as it is in a file."""
        error = self.assertRaises(ValueError, Outer, name="x", inner=False)
        self.assertEqual(str(error), "Outer.inner must be an instance of Inner, not False")


class RecordTests(SynchronousTestCase):
    """:class:`Record` refuses what its annotations do not allow."""

    def test_valid(self) -> None:
        """Values within their bounds are kept as they are."""
        outer = Outer(name="x", inner=Inner(size=9), ratio=2, limit=0)
        self.assertEqual((outer.inner.size, outer.ratio, outer.limit), (9, 2, 0))

    def test_outside_the_bounds(self) -> None:
        """The error names the record, the field, what is allowed and what was found."""
        error = self.assertRaises(ValueError, Inner, size=10)
        self.assertEqual(str(error), "Inner.size must be an integer from 1 to 9, not 10")

    def test_wrong_types(self) -> None:
        """A value of another type is refused, a bool for an integer and an optional's too."""
        wrong: list[dict[str, Any]] = [  # Any: wrong on purpose
            {"name": 1},
            {"name": "x", "ratio": "1"},
            {"name": "x", "limit": -1},
            {"name": "x", "limit": True},
        ]
        for arguments in wrong:
            with self.subTest(arguments=arguments):
                self.assertRaises(ValueError, Outer, **arguments)

    def test_decoding_checks_too(self) -> None:
        """What msgspec decodes is held to the same bounds, and to known keys."""
        self.assertEqual(msgspec.convert({"size": 2}, Inner), Inner(size=2))
        self.assertRaises(msgspec.ValidationError, msgspec.convert, {"size": 10}, Inner)
        self.assertRaises(msgspec.ValidationError, msgspec.convert, {"sise": 2}, Inner)

    def test_frozen(self) -> None:
        """A record does not change."""
        self.assertRaises(AttributeError, setattr, Inner(), "size", 2)


class FieldTypesTests(SynchronousTestCase):
    """:func:`field_types` reads annotations."""

    def test_order_and_bounds(self) -> None:
        """Fields come in order, with their bounds."""
        types = field_types(Outer)
        self.assertEqual(list(types), ["name", "inner", "ratio", "limit"])
        self.assertEqual(split_meta(types["name"]), (str, Meta(min_length=1)))
        self.assertEqual(types["inner"], Inner)


class DescribeTests(SynchronousTestCase):
    """:func:`describe` says in words which values a type allows."""

    def test_words(self) -> None:
        """Each kind of annotation has its words."""
        cases: list[tuple[Any, str]] = [  # Any: annotations are of any form
            (int, "an integer"),
            (float, "a number"),
            (bool, "true or false"),
            (str, "text"),
            (bytes, "bytes"),
            (dict, "a table"),
            (dict[str, int], "a table"),
            (None.__class__, "nothing"),
            (Inner, "a table"),
            (Literal["a", 2], "one of 'a', 2"),
            (int | Literal["reset"], "an integer or 'reset'"),
            (int | None, "an integer or nothing"),
            (Annotated[int, Meta(ge=0)] | str, "an integer of at least 0 or text"),
            (list[int], "a list, each item an integer"),
            (tuple[Annotated[int, Meta(gt=1)], ...], "a list, each item an integer above 1"),
        ]
        for annotation, words in cases:
            with self.subTest(words=words):
                self.assertEqual(describe(annotation), words)

    def test_numbers(self) -> None:
        """Each bound of a number is told, in one phrase where both ends count."""
        cases = [
            (Meta(ge=1, le=9), "a number from 1 to 9"),
            (Meta(ge=1), "a number of at least 1"),
            (Meta(gt=1), "a number above 1"),
            (Meta(le=1), "a number of at most 1"),
            (Meta(lt=1), "a number below 1"),
            (Meta(gt=0, le=1), "a number above 0 and of at most 1"),
        ]
        for meta, words in cases:
            with self.subTest(words=words):
                self.assertEqual(describe(Annotated[float, meta]), words)

    def test_text(self) -> None:
        """The bounds of a text are told."""
        meta = Meta(min_length=1, max_length=3, pattern="^a")
        self.assertEqual(
            describe(Annotated[str, meta]),
            "text of at least 1 characters of at most 3 characters that matches ^a",
        )

    def test_other_annotations(self) -> None:
        """An annotation that is not ours is passed over."""
        self.assertEqual(split_meta(Annotated[int, "a note"]), (int, Meta()))


class SecretTests(SynchronousTestCase):
    """A field may be marked as secret."""

    def test_marked(self) -> None:
        """The mark counts on the annotation and on a part of a union."""
        secret = Annotated[str, Meta(extra={"secret": True})]
        self.assertTrue(is_secret(secret))
        self.assertTrue(is_secret(secret | None))
        for annotation in (str, str | None, Annotated[str, Meta(extra={"other": 1})]):
            self.assertFalse(is_secret(annotation))

    def test_refused(self) -> None:
        """A record that refuses a secret does not repeat it."""

        class Safe(Record, frozen=True):
            key: Annotated[int, Meta(extra={"secret": True})] = 1

        error = self.assertRaises(ValueError, Safe, key="sesame")
        self.assertEqual(str(error), "Safe.key must be an integer, not this secret")
