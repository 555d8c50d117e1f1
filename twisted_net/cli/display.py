"""What the clients show on a terminal: the progress of a transfer, and bodies without controls."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import TextIO

from twisted_net.net.characters import printable

BAR = 24
"""Characters of a progress bar."""


class ProgressDisplay:
    """
    Shows how much of a long body has been transferred, at intervals.

    On a terminal, one line is overwritten, with a bar where the size is known; otherwise a line is
    written each time.

    :param seconds: returns the time.
    :param terminal_only: whether nothing is shown on anything else.
    """

    def __init__(
        self, err: TextIO, seconds: Callable[[], float], *, terminal_only: bool = False
    ) -> None:
        self._err = err
        self._seconds = seconds
        self._terminal = err.isatty()
        self._silent = terminal_only and not self._terminal
        self._interval = 0.2 if self._terminal else 5.0
        self._due = seconds() + self._interval
        self._shown = False

    def __call__(self, direction: str, done: int, size: int | None) -> None:
        """
        Show it, if it is time to.

        :param done: bytes so far.
        :param size: bytes in all; None where that is not known.
        """
        now = self._seconds()
        if self._silent or now < self._due:
            return
        self._due = now + self._interval
        of_size = "" if size is None else f" of {size:,}"
        shown = f"{direction} {done:,}{of_size} bytes"
        if self._terminal and size:
            shown += f" {bar(done, size)}"
        self._err.write(f"\r{shown}\x1b[K" if self._terminal else f"{shown}\n")
        self._err.flush()
        self._shown = True

    def end(self) -> None:
        """Clear the line."""
        if self._shown and self._terminal:
            self._err.write("\r\x1b[K")
            self._err.flush()


def bar(done: int, size: int) -> str:
    """Return a progress bar, and the share in percent."""
    share = min(1.0, done / size)
    return f"[{'#' * int(share * BAR):<{BAR}}] {share:4.0%}"


def terminal_body(body: bytes) -> bytes:
    """Return a body as a terminal gets it: lines and tabs are kept, all else is escaped."""
    lines = body.decode(errors="backslashreplace").replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in lines).encode()


class TerminalWriter:
    """
    Turns the pieces of a body into what a terminal gets: see :func:`terminal_body`.

    How the body is cut into pieces does not matter. The last line is ended.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._held = ""  # a carriage return, whose line feed may be in the next piece
        self._in_line = False

    def feed(self, data: bytes, *, final: bool = False) -> bytes:
        """Return the next piece, for the next bytes; *final* says that these are the last ones."""
        text = self._held + self._decode(data, final)
        self._held = ""
        if text.endswith("\r") and not final:
            text, self._held = text[:-1], "\r"
        shown = terminal_body(text.encode())
        if shown:
            self._in_line = not shown.endswith(b"\n")
        return shown + b"\n" if final and self._in_line else shown
