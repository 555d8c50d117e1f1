"""HTTP dates: a strict parser of the three forms of RFC 9110 §5.6.7, and the formatter."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_MONTH = "(?P<month>" + "|".join(_MONTHS) + ")"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_SHORT = "(?:" + "|".join(_DAYS) + ")"
_LONG = "(?:" + "|".join(_LONG_DAYS) + ")"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.ASCII)
    for form in (
        rf"{_SHORT}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        rf"{_LONG}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        rf"{_SHORT} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)


def parse_date(text: str, wall: float) -> float | None:
    """
    Return the time of an HTTP date, in seconds since 1970, or None if it is not valid.

    All three forms are accepted, as RFC 9110 §5.6.7 requires of a recipient, in any case, as RFC
    9111 §4.2 asks of a cache. The name of the day is not compared with the date. Second 60 is the
    first second of the next minute.

    :param wall: the time of day: a year of two digits that would be more than 50 years ahead is in
        the past.
    """
    for form in _FORMS:
        match = form.fullmatch(text)
        if match is not None:
            return _timestamp(match, wall)
    return None


def format_date(wall: float) -> str:
    """Return a time in the preferred form, IMF-fixdate: ``Sun, 06 Nov 1994 08:49:37 GMT``."""
    at = _EPOCH + timedelta(seconds=int(wall))
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} GMT"
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _timestamp(match: re.Match[str], wall: float) -> float | None:
    year = int(match["year"])
    if len(match["year"]) == 2:
        this_year = (_EPOCH + timedelta(seconds=wall)).year
        year += this_year - this_year % 100
        if year > this_year + 50:
            year -= 100
    second = int(match["second"])
    leap = second == 60
    try:
        at = datetime(
            year,
            _MONTHS.index(match["month"].capitalize()) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            59 if leap else second,
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return (at - _EPOCH).total_seconds() + leap
