"""Tests for :mod:`twisted_net.net.untrusted_json`."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.untrusted_json import (
    MAX_DEPTH,
    MAX_LARGE_EXPONENTS,
    JsonDecoder,
    decode_json,
    decoded_size,
    depth,
    has_more_values,
)

TEXTS = st.text('"\\\\[]{}:,a\u00e9\n', max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=30,
)


def levels(value: Any) -> int:  # Any: any JSON
    """Return what :func:`depth` does, slowly and obviously."""
    if isinstance(value, dict):
        return 1 + max(map(levels, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(levels, value), default=0)
    return 0


class DepthTests(SynchronousTestCase):
    """:func:`depth` counts levels in the text."""

    @given(VALUES, st.booleans(), st.sampled_from([None, 1]))
    def test_same(self, value: object, ascii_only: bool, indent: int | None) -> None:
        """Whatever quotes, backslashes and brackets the strings have."""
        text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
        self.assertEqual(depth(text), levels(value))


def count(value: Any) -> int:  # Any: any JSON
    """Return how many values there are, an empty array or object being two."""
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + (sum(map(count, inner)) if value else 1)
    return 1


def size(value: Any) -> int:  # Any: any JSON
    """Return the bytes of a value in memory, with all in it."""
    inner: list[Any] = []  # Any: the same
    if isinstance(value, dict):
        inner = [*value, *value.values()]
    elif isinstance(value, list):
        inner = value
    return sys.getsizeof(value) + sum(map(size, inner))


class ValuesTests(SynchronousTestCase):
    """:func:`has_more_values` counts values in the text."""

    @given(VALUES, st.booleans(), st.sampled_from([None, 1]))
    def test_same(self, value: object, ascii_only: bool, indent: int | None) -> None:
        """Whatever commas, quotes and brackets the strings have."""
        text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
        number = count(value)
        self.assertFalse(has_more_values(text, number))
        self.assertTrue(number == 1 or has_more_values(text, number - 1))


class SizeTests(SynchronousTestCase):
    """:func:`decoded_size` bounds the memory of what is decoded."""

    @given(VALUES, st.booleans())
    @example([[[[[[]]]]]], False)
    @example({"a": {"a": {"a": {}}}}, False)
    @example({str(i): {} for i in range(11)}, False)
    @example([{"a": 1}] * 50, False)
    @example([2**70] * 5, False)
    @example(["a" * 1000 + "\U0001f600"], True)
    @example(["a" * 1000 + "\U0001f600"], False)
    @example([1.5, "ab"] * 100, False)
    def test_bound(self, value: object, ascii_only: bool) -> None:
        """It is never less than what Python says."""
        text = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode()
        self.assertLessEqual(size(decode_json(text)), decoded_size(text))

    def test_message(self) -> None:
        """A usual event is estimated at less than a kilobyte."""
        text = b'{"event":"message","topic":"shop.orders","message":"two chairs"}'
        self.assertTrue(size(decode_json(text)) < decoded_size(text) < 1024)


class JsonDecoderTests(SynchronousTestCase):
    """:class:`JsonDecoder` returns a value, or raises a ValueError."""

    def test_depth(self) -> None:
        """The limit, and one level more, of arrays and of objects."""
        for opened, closed in ((b"[", b"]"), (b'{"a":[', b"]}")):
            levels_each = len(closed)
            for inner in (b"", b'"]]]"', b'"\\\\"', b'"\\"]"'):
                count = MAX_DEPTH // levels_each
                decode_json(opened * count + inner + closed * count)
                deeper = b"[" + opened * count + inner + closed * count + b"]"
                self.assertRaisesRegex(ValueError, "too deeply", decode_json, deeper)

    def test_wide(self) -> None:
        """Many arrays beside each other are no depth."""
        self.assertEqual(decode_json(b"[" + b"[]," * 1000 + b"1]"), [[]] * 1000 + [1])

    def test_hostile(self) -> None:
        """What is not JSON, or cannot be held, is a ValueError for every type."""
        for data in (
            b"",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"[" * 100_000 + b"]" * 100_000,
            b"NaN",
            b"-Infinity",
            b"1e999",
            b"9" * 5000,
            b'"\\ud800"',
            b'"\xff"',
            b"\xff\xfe",
            b"\x00",
            b"[1] [2]",
        ):
            for decode in (decode_json, JsonDecoder[object](dict[str, int])):
                with self.subTest(data=data[:20]):
                    self.assertRaises(ValueError, decode, data)

    def test_typed(self) -> None:
        """Values of other types are refused."""
        decode: JsonDecoder[dict[str, int]] = JsonDecoder(dict[str, int])
        self.assertEqual(decode(b'{"a":1,"a":2}'), {"a": 2})
        for data in (b"[]", b'{"a":"b"}', b'{"a":1.5}', b'{"a":null}', b"null"):
            self.assertRaises(ValueError, decode, data)


class NumberTests(SynchronousTestCase):
    """Numbers that take long to decode are few."""

    def test_large_exponents(self) -> None:
        """Up to a number of them is accepted, however they are written."""
        for number in ("1e289", "9E+289", "1.5e0289", "1e-345", "0.01e1000"):
            for count, accepted in ((MAX_LARGE_EXPONENTS, True), (MAX_LARGE_EXPONENTS + 1, False)):
                data = f"[{','.join([number] * count)}]".encode()
                found = ""
                try:
                    decode_json(data)
                except msgspec.DecodeError as error:
                    found = str(error)
                with self.subTest(number=number, count=count):
                    self.assertEqual("large exponents" not in found, accepted)

    def test_strings(self) -> None:
        """What looks like one in a string is none; other exponents are none either."""
        for value in ("1e289", '"1e289', 1.5e99):
            values = [value] * (MAX_LARGE_EXPONENTS * 2)
            self.assertEqual(decode_json(json.dumps(values).encode()), values)

    def test_hidden(self) -> None:
        """Strings before them, and what is no JSON behind them, hide none."""
        numbers = b",".join([b"1e300"] * (MAX_LARGE_EXPONENTS + 1))
        for data in (
            b'["\\"",' + numbers + b"]",
            b'["\\\\",' + numbers + b"]",
            b'["",' + numbers + b',"',
            b'["a""b",' + numbers + b"]",
            b"[" + numbers + b',"\\"]',
        ):
            with self.subTest(data=data[:20]):
                error = self.assertRaises(msgspec.DecodeError, decode_json, data)
                self.assertIn("large exponents", str(error))
