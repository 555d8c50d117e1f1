"""
The chunked transfer coding (RFC 9112 §7.1): bodies from chunks, and into chunks.

It is read strictly: a size that one reader takes for another than the next one does hides
responses in a body. What is allowed beyond the grammar are spaces behind a size, and any number of
zeros before it, which real servers send.
"""

from __future__ import annotations

import re

from twisted_net.http.errors import BadResponse, BodyTooLarge
from twisted_net.http.h1.heads import HeadAssembler, check_trailer, shown

MAX_CHUNK_LINE = 4096
"""Bytes of the line with the size of a chunk, its extensions and its end included."""

CHUNKS_PER_CALL = 256
"""Chunks that one call decodes: a chunk takes 0.5 us, so the others wait 0.2 ms at most."""

SMALL_CHUNK = 512
"""
Bytes of framing and body per chunk up to which the chunks of one call become one piece.

An object for each of them would take 40 bytes, which is many times the body if they are tiny.
"""

OVERHEAD_RATIO = 2
OVERHEAD_RESERVE = 64 * 2**10
"""
Bytes of framing that a body may have: so many times its own, and some more.

A chunk has five or more. Those with three bytes of the body, and all larger ones, may come without
end; with one byte each, 21,845 may: they take 2 us a byte with all that is behind them.
"""

LAST_CHUNK = b"0\r\n\r\n"
"""What ends a body in chunks that has no trailer section."""

_SIZE = re.compile(
    rb"(?=[0-9A-Fa-f])0*+([0-9A-Fa-f]{0,15}+)[ \t]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?\r\n"
)


def encode_chunk(data: bytes) -> bytes:
    """Return *data* as a chunk; nothing for empty data, as an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class ChunkedDecoder:
    """
    Decodes a body that comes in chunks.

    The trailer section is checked, and its fields are dropped (RFC 9112 §7.1.2).

    Its pieces are copies of parts of the input; input that is nothing but a part of a chunk is a
    piece itself. Small chunks are joined. What the pieces are depends on how the bytes are cut, but
    nothing else does.

    :param max_body: bytes of the body; None for no limit.
    :param max_trailer: bytes of the trailer section.
    :ivar complete: whether the end was read.
    """

    __slots__ = (
        "_is_last",
        "_left",
        "_line",
        "_max_body",
        "_max_trailer",
        "_overhead",
        "_section",
        "_total",
        "complete",
    )

    def __init__(self, max_body: int | None, max_trailer: int) -> None:
        self._max_body = max_body
        self._max_trailer = max_trailer
        self._line = (
            b""  # with a size, or what is behind the bytes of a chunk: as much as there is of it
        )
        self._left = -1  # of the chunk that is being read; -1 between chunks
        self._total = 0
        self._overhead = 0
        self._is_last = False  # the last chunk was read; the trailer section follows
        self._section: HeadAssembler | None = None
        self.complete = False

    def decode(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """
        Decode bytes from *position* on, :data:`CHUNKS_PER_CALL` chunks at most.

        :param pieces: to which the parts of the body are appended.
        :return: the position of the first byte that was not used.
        :raises BadResponse: if the coding is wrong, or has too much overhead.
        :raises BodyTooLarge: if the body is to become larger than its limit.
        """
        size = len(data)
        begin, before = position, len(pieces)
        chunks = 0
        while position < size:
            if self._left > 0:
                end = position + self._left
                pieces.append(data[position:end])
                self._left = max(end - size, 0)
                position = min(end, size)
            elif self._left == 0:
                position = self._read_chunk_end(data, position)
            elif self._is_last:
                position = self._read_trailer(data, position)
                if self.complete:
                    break
            elif chunks == CHUNKS_PER_CALL:
                break
            else:
                chunks += 1
                found = None if self._line else _SIZE.match(data, position)
                if found is None:
                    position = self._read_line(data, position)
                    continue
                start = found.end()
                length = self._begin_chunk(found, start - position)
                end = start + length
                if not data.startswith(b"\r\n", end):
                    position = start  # the rest of it is still to come
                    continue
                position = end + 2
                if not length:
                    self.complete = True
                    break
                pieces.append(data[start:end])
                self._left = -1
        count = len(pieces) - before
        if count > 1 and position - begin < SMALL_CHUNK * count:
            pieces[before:] = [b"".join(pieces[before:])]
        return position

    def _begin_chunk(self, found: re.Match[bytes], line_length: int) -> int:
        """Begin to read a chunk, whose line was found; return its size."""
        if line_length > MAX_CHUNK_LINE:
            raise _too_long(found[0])
        length = int(found[1] or b"0", 16)
        if not length:
            self._is_last = True
            return 0
        self._left = length
        self._total += length
        self._overhead += line_length + 2
        if self._max_body is not None and self._total > self._max_body:
            raise BodyTooLarge(self._max_body)
        if self._overhead > OVERHEAD_RATIO * self._total + OVERHEAD_RESERVE:
            raise BadResponse(
                f"its chunks are too small: {self._overhead} bytes of framing for"
                f" {self._total} of the body"
            )
        return length

    def _read_line(self, data: bytes, position: int) -> int:
        """Read a line that is not here as a whole, or is malformed; return where it ends."""
        had = len(self._line)
        end = data.find(b"\n", position, position + MAX_CHUNK_LINE - had) + 1
        self._line += data[position : end or position + MAX_CHUNK_LINE - had]
        if not end:
            if len(self._line) == MAX_CHUNK_LINE:
                raise _too_long(self._line)
            return len(data)
        found = _SIZE.fullmatch(self._line)
        if found is None:
            raise BadResponse(f"the size of a chunk is malformed: {shown(self._line)}")
        self._begin_chunk(found, len(self._line))
        self._line = b""
        return end

    def _read_chunk_end(self, data: bytes, position: int) -> int:
        """Read what follows the bytes of a chunk; return where it ends."""
        had = len(self._line)
        self._line += data[position : position + 2 - had]
        read = len(self._line)
        if read == 2:
            if self._line != b"\r\n":
                # §7.1: such a chunk is longer than it says, or its size is not what was read.
                raise BadResponse(f"a chunk does not end where its size says: {shown(self._line)}")
            self._left, self._line = -1, b""
        return position + read - had

    def _read_trailer(self, data: bytes, position: int) -> int:
        """Read the trailer section; return where it ends."""
        if self._section is None:
            self._section = HeadAssembler(self._max_trailer, "trailer", b"0\r\n")
        complete, position = self._section.take(data, position)
        if complete is not None:
            check_trailer(complete)
            self.complete = True
        return position


def _too_long(line: bytes) -> BadResponse:
    return BadResponse(f"the line of a chunk is longer than {MAX_CHUNK_LINE} bytes: {shown(line)}")
