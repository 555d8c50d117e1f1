"""Tests for :mod:`twisted_net.net.untrusted_json`."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.untrusted_json import MAX_DEPTH, JsonDecoder, decode_json, depth

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
