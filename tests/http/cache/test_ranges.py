"""Tests of :mod:`twisted_net.http.cache.ranges`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.ranges import (
    ByteRange,
    combine_bytes,
    covers,
    parse_content_range,
    parse_range,
    range_applies,
)
from twisted_net.http.dates import format_date
from twisted_net.http.fields import HeaderFields

NOW = 1_795_305_600.0


class ParseRangeTests(SynchronousTestCase):
    """RFC 9110 §14.2: one range of bytes."""

    def test_forms(self) -> None:
        """From a byte to a byte, to the end, and a suffix."""
        self.assertEqual(parse_range("bytes=0-4"), ByteRange(0, 4))
        self.assertEqual(parse_range("bytes=4-4"), ByteRange(4, 4))
        self.assertEqual(parse_range(" Bytes=5- "), ByteRange(5, None))
        self.assertEqual(parse_range("bytes=-3"), ByteRange(None, 3))

    def test_others(self) -> None:
        """Several ranges, other units and malformed text are left to the server."""
        for text in (
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=4-0",
            "bytes=-",
            "bytes=x-y",
            "",
            "bytes",
        ):
            self.assertIsNone(parse_range(text), text)

    def test_within(self) -> None:
        """A range is cut at the end of the body; one beyond it is None."""
        self.assertEqual(ByteRange(2, 99).within(10), (2, 10))
        self.assertEqual(ByteRange(2, None).within(10), (2, 10))
        self.assertEqual(ByteRange(None, 99).within(10), (0, 10))
        self.assertEqual(ByteRange(None, 3).within(10), (7, 10))
        for asked in (ByteRange(10, None), ByteRange(None, 0)):
            self.assertIsNone(asked.within(10))
        self.assertIsNone(ByteRange(None, 5).within(0))


class ContentRangeTests(SynchronousTestCase):
    """RFC 9110 §14.4."""

    def test_valid(self) -> None:
        """Start, end and length."""
        self.assertEqual(parse_content_range("bytes 4-9/10"), (4, 10, 10))

    def test_invalid(self) -> None:
        """A contradictory range, or one of unknown length, is None."""
        for text in ("bytes 4-10/10", "bytes 5-4/10", "bytes 0-4/*", "bytes */10", "", "x 0-1/2"):
            self.assertIsNone(parse_content_range(text), text)


class CoversTests(SynchronousTestCase):
    """:func:`covers` returns whether a stored part has the requested bytes."""

    def test_parts(self) -> None:
        """Each byte must be stored; a complete body covers every valid range."""
        for text, holds in (("bytes=4-6", True), ("bytes=3-4", False), ("bytes=6-7", False)):
            self.assertEqual(covers(text, 4, 3, 10), holds)
        self.assertFalse(covers("bytes=99-", 4, 3, 10))
        self.assertFalse(covers("bytes=0-1,2-3", 0, 10, None))
        self.assertTrue(covers("bytes=99-", 0, 10, None))


class RangeAppliesTests(SynchronousTestCase):
    """RFC 9110 §13.1.5: with ``If-Range`` a range applies to one body only."""

    def applies(self, condition: str | None, *stored: tuple[str, str]) -> bool:
        """Ask with this condition."""
        fields = [("Range", "bytes=0-1")]
        if condition is not None:
            fields.append(("If-Range", condition))
        return range_applies(HeaderFields(fields), HeaderFields(stored), NOW)

    def test_none(self) -> None:
        """Without the field, a range applies."""
        self.assertTrue(self.applies(None))
        self.assertFalse(range_applies(HeaderFields(), HeaderFields(), NOW))

    def test_tag(self) -> None:
        """The entity tag must be the same, and strong."""
        self.assertTrue(self.applies('"a"', ("ETag", '"a"')))
        self.assertFalse(self.applies('"b"', ("ETag", '"a"')))
        self.assertFalse(self.applies('W/"a"', ("ETag", 'W/"a"')))
        self.assertFalse(self.applies('"a"'))

    def test_date(self) -> None:
        """The date must be exactly that of ``Last-Modified``, and a strong validator."""
        old, date = format_date(NOW - 60), ("Date", format_date(NOW))
        self.assertTrue(self.applies(old, ("Last-Modified", old), date))
        self.assertFalse(self.applies(old, ("Last-Modified", format_date(NOW - 61)), date))
        now = format_date(NOW)
        self.assertFalse(self.applies(now, ("Last-Modified", now), date))
        self.assertFalse(self.applies("nonsense", ("Last-Modified", old), date))


class CombineBytesTests(SynchronousTestCase):
    """:func:`combine_bytes` combines two parts of one body."""

    @given(st.binary(min_size=1, max_size=20), st.data())
    def test_model(self, body: bytes, data: st.DataObject) -> None:
        """Any two parts yield the bytes between their ends, unless there is a gap."""
        places = st.integers(0, len(body))
        a, b = sorted((data.draw(places), data.draw(places)))
        c, d = sorted((data.draw(places), data.draw(places)))
        found = combine_bytes((a, body[a:b]), (c, body[c:d]))
        if c > b or a > d:
            self.assertIsNone(found)
        else:
            self.assertEqual(found, (min(a, c), body[min(a, c) : max(b, d)]))
