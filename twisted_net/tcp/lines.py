"""Cutting a byte stream into lines."""

from __future__ import annotations


class LineFramer:
    """
    Cuts a byte stream into lines.

    A line ends with LF; one CR before the LF belongs to the end, not to the line. A CR
    anywhere else is part of the line, and never ends one.
    Bytes after the last LF wait for the next call; no more than the limit is kept.

    :param max_length: longest line accepted, in bytes, its end not counted.
    :ivar max_length: the same; it may be set to more at any time.
    """

    __slots__ = ("_skipping", "_tail", "max_length")

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        # A bytearray from a line's second piece on, so that tiny pieces are not costly.
        self._tail: bytes | bytearray = b""
        self._skipping = False

    @property
    def unfinished(self) -> bool:
        """Whether the bytes so far end in the middle of a line that may still become whole."""
        return bool(self._tail)

    def __len__(self) -> int:
        """Give how many bytes are kept."""
        return len(self._tail)

    def feed(self, data: bytes) -> list[bytes | None]:
        """
        Take the next bytes and return the lines that they complete, oldest first.

        None stands for a line over the limit, and comes as soon as the limit is passed:
        its bytes are dropped, its end is found, and the lines after it are whole.
        """
        if self._skipping:
            end = data.find(b"\n")
            if end < 0:
                return []
            self._skipping = False
            data = data[end + 1 :]
        elif self._tail:
            if b"\n" not in data and len(self._tail) + len(data) <= self.max_length:
                if type(self._tail) is bytes:
                    self._tail = bytearray(self._tail)
                self._tail += data
                return []
            data = b"".join((self._tail, data))
        lines: list[bytes | None] = data.split(b"\n")  # type: ignore[assignment]  # None comes below
        tail: bytes = lines.pop()  # type: ignore[assignment]  # split gives bytes alone
        if b"\r\n" in data:
            lines = [line[:-1] if line and line.endswith(b"\r") else line for line in lines]
        # No line is longer than the data that it was cut from.
        if len(data) > self.max_length:
            limit = self.max_length
            lines = [line if line is not None and len(line) <= limit else None for line in lines]
            # A CR just past the limit may be half of a CRLF.
            if len(tail) > limit + tail.endswith(b"\r"):
                lines.append(None)
                tail = b""
                self._skipping = True
        self._tail = tail
        return lines
