"""How a time of the wall clock is written."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_time(wall: float) -> str:
    """
    Write a time as ISO 8601 in UTC, with offset and all six digits of its microseconds.

    :param wall: seconds since 1970.
    """
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="microseconds")
