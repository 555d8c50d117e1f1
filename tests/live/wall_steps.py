"""A wall clock that a test sets back and forward while a process runs; its steady clock goes on."""

from __future__ import annotations

import os
from pathlib import Path

from tests.live.programs import program

HOUR = 3600.0
"""Seconds of one step: longer than any limit that the tests set, and than any test takes."""


class WallClock:
    """
    The wall clock of processes that are started with :attr:`environ`.

    libfaketime changes what they read as the time of day, and leaves CLOCK_MONOTONIC alone. Under
    it ``time.sleep`` fails, so what they run must not call it.

    :param file: by which it is set.
    """

    def __init__(self, file: Path) -> None:
        program("faketime", "faketime")
        self._file = file
        self.set(0.0)
        self.environ = {
            "LD_PRELOAD": "/usr/$LIB/faketime/libfaketime.so.1",
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: float) -> None:
        """Set it so many seconds off the right time, in one step."""
        set_wall(self._file, offset)


def set_wall(file: Path, offset: float) -> None:
    """Set the wall clock of the processes that read this file."""
    new = file.with_suffix(".new")
    new.write_text(f"{offset:+g}\n")
    os.replace(new, file)
