"""Tests of :mod:`twisted_net.http.cache.serialization`."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.http.store_contract import make_entry
from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.serialization import FORMAT, decode_head, encode_head, format_of
from twisted_net.http.fields import HeaderFields

TEXT = st.text(st.characters(max_codepoint=255), max_size=20)
SECONDS = st.floats(allow_nan=False)
ENTRIES = st.builds(
    make_entry,
    reason=TEXT,
    fields=st.lists(st.tuples(TEXT, TEXT), max_size=4).map(HeaderFields),
    request_time=SECONDS,
    response_time=SECONDS,
    explicit_lifetime=st.none() | SECONDS,
    initial_age=SECONDS,
)


class HeadTests(SynchronousTestCase):
    """All of an entry but its body survives encoding and decoding."""

    @given(ENTRIES)
    def test_there_and_back(self, entry: Entry) -> None:
        """Each field of any entry is decoded as it was encoded, with its type."""
        head = encode_head(entry)
        again = decode_head(head, entry.body)
        self.assertEqual(again, entry)
        self.assertEqual(repr(again), repr(entry))
        self.assertEqual(again.fields.pairs, entry.fields.pairs)

    def test_cut(self) -> None:
        """A truncated head raises ValueError."""
        head = encode_head(make_entry())
        for length in range(len(head)):
            self.assertRaises(ValueError, decode_head, head[:length], b"")

    def test_other_types(self) -> None:
        """A head whose values have other types raises ValueError."""
        for head in (
            b"\xc0",
            b"\x01",
            b"\x90",
            encode_head(make_entry()).replace(b"OK", b"\xff\xff"),
        ):
            self.assertRaises(ValueError, decode_head, head, b"")

    def test_unknown_type(self) -> None:
        """A value without a serialized form raises TypeError."""
        odd = make_entry(explicit_lifetime=object())
        self.assertRaises(TypeError, encode_head, odd)


class FormatTests(SynchronousTestCase):
    """The format number changes with any change of the declaration."""

    def test_same(self) -> None:
        """It is the same each time, and fits into the 31 bits of SQLite's ``user_version``."""
        self.assertEqual(format_of(Entry), FORMAT)
        self.assertTrue(0 <= FORMAT < 2**31)

    def test_changes(self) -> None:
        """Another name, type, order, or number of fields makes another number."""
        forms: list[dict[str, Any]] = [  # Any: types
            {"a": int, "b": str},
            {"a": int},
            {"a": int, "b": str, "c": str},
            {"b": str, "a": int},
            {"a": int, "b": bytes},
            {"a": int, "b": str | None},
            {"a": int, "z": str},
            {"a": int, "b": attrs.make_class("Nested", {"x": attrs.field(type=int)})},
            {"a": int, "b": attrs.make_class("Nested", {"x": attrs.field(type=str)})},
        ]
        numbers = {
            format_of(
                attrs.make_class("R", {name: attrs.field(type=kind) for name, kind in form.items()})
            )
            for form in forms
        }
        self.assertEqual(len(numbers), len(forms))
