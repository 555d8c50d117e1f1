"""Tests of :mod:`twisted_net.http.dates`."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.dates import format_date, parse_date

NOW = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
MOMENT = 784_111_777.0  # the example of RFC 9110 §5.6.7


class ParseDateTests(SynchronousTestCase):
    """:func:`parse_date` reads the three forms of RFC 9110 §5.6.7, and nothing else."""

    def test_three_forms(self) -> None:
        """The three examples of the RFC are the same time."""
        for text in (
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ):
            with self.subTest(text=text):
                self.assertEqual(parse_date(text, NOW), MOMENT)

    def test_any_case(self) -> None:
        """A date is one in any case (RFC 9111 §4.2)."""
        for text in (
            "sun, 06 nov 1994 08:49:37 gmt",
            "SUNDAY, 06-NOV-94 08:49:37 GMT",
            "sUN nOV  6 08:49:37 1994",
        ):
            with self.subTest(text=text):
                self.assertEqual(parse_date(text, NOW), MOMENT)

    def test_two_digit_year(self) -> None:
        """A two-digit year more than 50 years ahead is in the century before."""
        at = datetime(2076, 1, 1, tzinfo=UTC).timestamp()
        self.assertEqual(parse_date("Wednesday, 01-Jan-76 00:00:00 GMT", NOW), at)
        at = datetime(1977, 1, 1, tzinfo=UTC).timestamp()
        self.assertEqual(parse_date("Saturday, 01-Jan-77 00:00:00 GMT", NOW), at)

    def test_leap_second(self) -> None:
        """Second 60 is the second after 59."""
        before = parse_date("Sat, 31 Dec 2016 23:59:59 GMT", NOW)
        assert before is not None
        self.assertEqual(parse_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW), before + 1)

    def test_malformed(self) -> None:
        """Any deviation from the forms is not a date."""
        for text in (
            "",
            "0",
            "-1",
            "\u017fun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:00:61 GMT",
            "Sun, 06 Nov 0000 08:49:37 GMT",
            " Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT\n",
            "Sun, 06 Nov ١٩٩٤ 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
        ):
            with self.subTest(text=text):
                self.assertIsNone(parse_date(text, NOW))

    @given(st.text(max_size=40))
    def test_never_raises(self, text: str) -> None:
        """Any text returns a number or None."""
        found = parse_date(text, NOW)
        self.assertTrue(found is None or isinstance(found, float))


class FormatDateTests(SynchronousTestCase):
    """:func:`format_date` writes the preferred form."""

    def test_example(self) -> None:
        """It writes the example of the RFC."""
        self.assertEqual(format_date(MOMENT + 0.9), "Sun, 06 Nov 1994 08:49:37 GMT")

    @given(st.integers(0, 253_402_300_799))
    def test_read_back(self, wall: int) -> None:
        """Its output parses to the same time, and equals that of Python's formatter."""
        written = format_date(wall)
        self.assertEqual(parse_date(written, NOW), wall)
        # A slow, obvious model.
        at = datetime.fromtimestamp(wall, UTC)
        day = "MonTueWedThuFriSatSun"[3 * at.weekday() :][:3]
        month = "JanFebMarAprMayJunJulAugSepOctNovDec"[3 * at.month - 3 :][:3]
        expected = f"{day}, {at.day:02d} {month} {at.year:04d} {at:%H:%M:%S} GMT"
        self.assertEqual(written, expected)
