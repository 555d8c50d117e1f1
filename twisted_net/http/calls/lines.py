"""Lines of a text that arrives in pieces, each decoded, with a limit of their length."""

from __future__ import annotations

from collections.abc import Iterator

from twisted_net.http.errors import BodyItemTooLong
from twisted_net.net.charsets import text_decoder

MAX_LINE = 2**20
"""Characters of one line."""


class LineDecoder:
    """
    Cuts a text into lines: each ends with a line feed, with or without a carriage return before.

    How it is cut into pieces does not matter. Other characters, such as U+2028, end no line: they
    are allowed within the lines of JSON.

    :param codec: one of :data:`~twisted_net.net.charsets.CODECS`; bytes that it cannot
        decode become U+FFFD.
    :param max_line: limit of the characters of a line.
    :param by_mark: whether a byte order mark decides before *codec*.
    """

    def __init__(self, codec: str, max_line: int = MAX_LINE, *, by_mark: bool = False) -> None:
        self._decode = text_decoder(codec, by_mark=by_mark)
        self._max_line = max_line
        self._pieces: list[str] = []  # of a line that is not complete
        self._size = 0

    def feed(self, data: bytes, *, final: bool = False) -> Iterator[str]:
        """
        Take the next bytes, and iterate over the lines that they complete.

        The iterator must be exhausted before the next call.

        :param final: whether these are the last ones: what has no end is the last line.
        :raises BodyItemTooLong: for a line over the limit.
        """
        text = self._decode(data, final)
        at = 0
        while (end := text.find("\n", at)) >= 0:
            yield self._line(text[at:end])
            at = end + 1
        self._add(text[at:])
        if final and self._pieces:
            yield self._line("")

    def _line(self, rest: str) -> str:
        self._add(rest)
        line = "".join(self._pieces).removesuffix("\r")
        self._pieces, self._size = [], 0
        if len(line) > self._max_line:
            raise BodyItemTooLong("line", self._max_line)
        return line

    def _add(self, piece: str) -> None:
        self._size += len(piece)
        # One more for a carriage return, which may be of the end.
        if self._size > self._max_line + 1:
            raise BodyItemTooLong("line", self._max_line)
        if piece:
            self._pieces.append(piece)
