"""Timestamps of the wall clock, as text."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_time(wall: float) -> str:
    """
    Format a time as ISO 8601 in UTC, with offset and six digits of microseconds.

    :param wall: seconds since 1970.
    """
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="microseconds")
