"""Tests of :mod:`twisted_net.http.cache.directives`."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.runaway import MEGABYTE, ended_if_runaway
from twisted_net.http.cache import directives as cache_directives
from twisted_net.http.cache.directives import (
    MAX_DELTA_SECONDS,
    MAX_DIRECTIVES,
    MAX_LENGTH,
    directives,
    has_targeted_field,
    listed_fields,
    parse_dictionary,
    parse_response_directives,
    seconds,
)
from twisted_net.http.fields import HeaderFields

QUOTED = r'"((?:[^"\\]|\\.)*)"'
ANEW = re.compile(
    rf"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:=(?:{QUOTED}|([^\s,\"]*)))?(?:{QUOTED}|[^,])*", re.DOTALL
)
"""The same grammar as :func:`directives`, searching for the end of each quote: quadratic."""


class DirectivesTests(SynchronousTestCase):
    """:func:`directives` reads §5.2, and never fails."""

    def read(self, *lines: str) -> dict[str, str | None]:
        """Read some lines of Cache-Control."""
        return dict(directives(HeaderFields([("Cache-Control", line) for line in lines])))

    def test_forms(self) -> None:
        """With and without argument, in quotes, in several lines, in any case."""
        self.assertEqual(
            self.read('Max-Age=5 , no-cache="a, b", X="q\\"\\\\"', "no-store,,public", ""),
            {
                "max-age": "5",
                "no-cache": "a, b",
                "x": 'q"\\',
                "no-store": None,
                "public": None,
            },
        )

    def test_junk(self) -> None:
        """Malformed text does not hide the directives around it."""
        self.assertEqual(self.read("=, (), a b, max-age=5"), {"a": None, "max-age": "5"})
        self.assertEqual(self.read('x="open, max-age=5'), {"x": "", "max-age": "5"})
        self.assertEqual(self.read("max-age =5"), {"max-age": None})
        self.assertEqual(directives(HeaderFields()), {})

    def test_unclosed_quotes(self) -> None:
        """An unclosed quote hides no comma, nor does a quote after it."""
        self.assertEqual(
            self.read(r'a="b, c", d="\"e, f=\"g, h=\"i\", max-age=5, j'),
            {"a": "b, c", "d": "", "f": "\\", "h": "\\", "max-age": "5", "j": None},
        )

    @given(st.text('abA,"\\= ', max_size=30))
    def test_any_quotes(self, text: str) -> None:
        """Quotes, escapes and commas in any order are parsed as by the quadratic pattern."""
        expected: dict[str, str | None] = {}
        for match in ANEW.finditer(text):
            quoted = None if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
            expected.setdefault(match[1].lower(), quoted if match[2] is not None else match[3])
        self.assertEqual(self.read(text), expected)

    def test_limits(self) -> None:
        """A field with more directives than the limit, or a longer one, is no-store."""
        many = ", ".join(f"a{i}" for i in range(MAX_DIRECTIVES))
        self.assertEqual(len(self.read(many)), MAX_DIRECTIVES)
        self.assertEqual(self.read(many, "max-age=5"), {"no-store": None})
        for name in ("CDN-Cache-Control", "Cache-Control"):
            text = "b=" + "x" * (MAX_LENGTH - 2)
            for limit in (many, text):
                fields = HeaderFields([(name, limit)])
                found = parse_response_directives(fields, ("cdn-cache-control",))
                self.assertNotIn("no-store", found)
                fields = HeaderFields([(name, limit + (",b" if limit is many else "x"))])
                found = parse_response_directives(fields, ("cdn-cache-control",))
                self.assertEqual(found, {"no-store": None})

    def test_linear(self) -> None:
        """A field of a megabyte would be parsed in linear time, whatever it contains."""
        self.patch(cache_directives, "_is_too_long", lambda text: False)
        for start, name in (("", "a"), ('x="', "x")):
            for part in (" ", ",", '"', r"\"", "\\", '",', 'a="'):
                with self.subTest(start=start, part=part), ended_if_runaway():
                    found = self.read(start + part * (MEGABYTE // len(part)) + "\x00")
                    self.assertEqual(list(found), [name] if name in start + part else [])

    @given(st.text(max_size=60))
    def test_never_raises(self, text: str) -> None:
        """Any text yields directives in lower case."""
        for name in self.read(text):
            self.assertEqual(name, name.lower())

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["max-age", "no-store", "x", "s-maxage"]),
                st.none()
                | st.text("abc019", min_size=1, max_size=5)
                | st.text('a,"\\= ', max_size=5),
            ),
            max_size=6,
        )
    )
    def test_model(self, items: list[tuple[str, str | None]]) -> None:
        """Text by the grammar is parsed, and the first directive of each name counts."""
        written: list[str] = []
        expected: dict[str, str | None] = {}
        for name, value in items:
            quoted = (
                "" if value is None else '="' + value.replace("\\", r"\\").replace('"', r"\"") + '"'
            )
            written.append(name + quoted)
            expected.setdefault(name, value)
        self.assertEqual(self.read(" ,  ".join(written)) if written else {}, expected)

    def test_commas_in_quotes(self) -> None:
        """Text inside the quotes of a directive is no other directive."""
        text = 'extension="max-age=3600, no-store", max-age=1'
        self.assertEqual(self.read(text), {"extension": "max-age=3600, no-store", "max-age": "1"})


class SecondsTests(SynchronousTestCase):
    """:func:`seconds` reads §1.2.2."""

    def test_numbers(self) -> None:
        """Only digits are valid; a number too large is a very long time, however it is written."""
        cases = {"5": 5, "003600": 3600, "0": 0, "9" * 4000: MAX_DELTA_SECONDS, "0" * 40 + "7": 7}
        cases |= {"1234567890": 1_234_567_890, "2147483649": 2**31, "9" * 10: MAX_DELTA_SECONDS}
        for text, value in cases.items():
            self.assertEqual(seconds(text), value)
        for text in ("", "-1", "1.5", "'5'", "x", "५"):
            self.assertEqual(seconds(text), 0)
        self.assertEqual(seconds(None), 0)

    def test_named_fields(self) -> None:
        """Names are in lower case; an empty set means all fields."""
        self.assertEqual(listed_fields(" A , b,"), {"a", "b"})
        self.assertEqual(listed_fields(None), set())
        self.assertEqual(listed_fields(" "), set())


class TargetedTests(SynchronousTestCase):
    """RFC 9213: a targeted field replaces ``Cache-Control``."""

    TARGETS = ("CDN-Cache-Control",)

    def read(self, text: str) -> dict[str, str | None]:
        """Read a targeted field beside a Cache-Control."""
        fields = HeaderFields([("Cache-Control", "no-store"), ("cdn-cache-control", text)])
        self.assertEqual(
            has_targeted_field(fields, self.TARGETS),
            "no-store" not in parse_response_directives(fields, self.TARGETS),
        )
        return dict(parse_response_directives(fields, self.TARGETS))

    def test_in_place(self) -> None:
        """It alone counts, with its directives of the types in RFC 9213 §2.1."""
        self.assertEqual(
            self.read('max-age=60, must-revalidate;x=1, private="a, b", foo=(1 2);y, n=?0'),
            {"max-age": "60", "must-revalidate": None, "private": "a, b"},
        )

    def test_wrong_types(self) -> None:
        """A value of another type is ignored, and the field still counts."""
        for text in ('max-age="60"', "max-age=6.5", "max-age=x", "max-age", "max-age=-1"):
            self.assertEqual(self.read(text), {})

    def test_not_valid(self) -> None:
        """An empty or malformed field is treated as absent."""
        for text in (
            "",
            "max-age=60,",
            "max-age=;",
            "Max-Age=60",
            "max-age = 60",
            "a=(1",
            "a=(1x)",
        ):
            self.assertEqual(self.read(text), {"no-store": None})

    def test_not_asked(self) -> None:
        """A cache without targets uses ``Cache-Control``."""
        fields = HeaderFields([("Cache-Control", "public"), ("CDN-Cache-Control", "max-age=1")])
        self.assertEqual(parse_response_directives(fields), {"public": None})
        self.assertFalse(has_targeted_field(fields, ()))
        self.assertEqual(parse_response_directives(HeaderFields([("Pragma", "no-cache")])), {})

    def test_dictionary(self) -> None:
        """RFC 8941 §4.2.2: members of every type, the last of each key."""
        text = r' a=1, b=-2.5 ,c="x\"y\\", d=:aGk=:, e=tok/en, f=?1;p="q";r, a=(1 "b";c  d), *z '
        self.assertEqual(
            parse_dictionary(text),
            {"a": None, "b": -2.5, "c": 'x"y\\', "d": None, "e": None, "f": True, "*z": True},
        )
        for bad in (
            "1",
            "a b",
            "a=1;",
            "a=1;=",
            "a=1;b=",
            'a="',
            "a=1.",
            "a=@",
            "a,,b",
            "a=(;)",
            "a;b=@",
        ):
            self.assertIsNone(parse_dictionary(bad), bad)

    @given(st.text('ab*=,;"\\( )?10.:-\t', max_size=30))
    def test_never_raises(self, text: str) -> None:
        """Any text is a dictionary or None."""
        found = parse_dictionary(text)
        self.assertTrue(found is None or isinstance(found, dict))
