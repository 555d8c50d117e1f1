"""Line framer: cuts a byte stream into lines."""

from __future__ import annotations

# Integers: `b"\n" in data` takes ten times as long, as CPython first tries to convert the bytes
# to an integer, and raises an error for it.
_LF, _CR = b"\n\r"

HEAD = 64
"""Bytes that are shown of a line which is not whole, or over the limit."""


class LineFramer:
    """
    Cuts a byte stream into lines.

    A line ends with LF; one CR before the LF belongs to the end, not to the line. A CR
    anywhere else is part of the line, and never ends one.
    Bytes after the last LF wait for the next call; no more than the limit is kept.

    :param max_length: longest line accepted, in bytes, its end not counted.
    :param max_lines: lines that one call returns at most; all if it is -1.
    :param long_heads: an empty tuple to keep the first bytes of lines over the limit.
    :ivar long_heads: the first :data:`HEAD` bytes of each line over the limit, oldest first, until
        somebody takes them; None to keep none.
    :ivar max_length: the same; it may be raised at any time.
    :ivar rest: bytes that are not cut yet, since one call would have returned too many lines.
    """

    __slots__ = ("_max_lines", "_skipping", "_tail", "long_heads", "max_length", "rest")

    def __init__(
        self, max_length: int, max_lines: int = -1, long_heads: tuple[bytes, ...] | None = None
    ) -> None:
        self.max_length = max_length
        self.rest = b""
        self.long_heads = long_heads
        self._max_lines = max_lines
        # A bytearray from a line's second piece on, so that tiny pieces are not costly.
        self._tail: bytes | bytearray = b""
        self._skipping = False

    @property
    def unfinished(self) -> bool:
        """Whether the bytes so far end in the middle of a line that may still become whole."""
        return bool(self._tail)

    def take_long_head(self) -> bytes:
        """Take the oldest of :attr:`long_heads`, of which there must be one."""
        assert self.long_heads
        head, *rest = self.long_heads
        self.long_heads = tuple(rest)
        return head

    @property
    def head(self) -> bytes:
        """The first :data:`HEAD` bytes of the unfinished line; empty if none has begun."""
        return bytes(self._tail[:HEAD])

    def __len__(self) -> int:
        """How many bytes are kept."""
        return len(self._tail) + len(self.rest)

    def keep(self, data: bytes) -> None:
        """Keep the next bytes uncut until :meth:`feed` is called."""
        self.rest += data

    def feed(self, data: bytes) -> list[bytes | None]:
        """
        Take the next bytes and return the lines that they complete, oldest first.

        None stands for a line over the limit, and comes as soon as the limit is passed:
        its bytes are dropped, its end is found, and the lines after it are whole.
        If *rest* is not empty afterwards, a call with no bytes returns the lines that follow.
        """
        if self.rest:
            data, self.rest = self.rest + data, b""
        if self._skipping:
            end = data.find(b"\n")
            if end < 0:
                return []
            self._skipping = False
            data = data[end + 1 :]
        elif self._tail:
            if _LF not in data and len(self._tail) + len(data) <= self.max_length:
                if type(self._tail) is bytes:
                    self._tail = bytearray(self._tail)
                self._tail += data
                return []
            data = b"".join((self._tail, data))
        lines: list[bytes | None] = data.split(b"\n", self._max_lines)  # type: ignore[assignment]  # None comes below
        tail: bytes = lines.pop()  # type: ignore[assignment]  # split returns bytes alone
        if len(lines) == self._max_lines:
            # A line of two bytes takes some sixty as an object.
            self.rest, tail = tail, b""
        if _CR in data:
            lines = [line[:-1] if line and line.endswith(b"\r") else line for line in lines]
        # No line is longer than the data that it was cut from.
        if len(data) > self.max_length:
            limit = self.max_length
            if self.long_heads is not None:
                long_lines = [line for line in lines if line and len(line) > limit]
                self.long_heads += tuple(line[:HEAD] for line in long_lines)
            lines = [line if line is not None and len(line) <= limit else None for line in lines]
            # A CR just past the limit may be half of a CRLF.
            if len(tail) > limit + tail.endswith(b"\r"):
                lines.append(None)
                if self.long_heads is not None:
                    self.long_heads += (tail[:HEAD],)
                tail = b""
                self._skipping = True
        self._tail = tail
        return lines
