"""Tests of :mod:`twisted_net.http.h1.chunked`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.errors import BadResponse, BodyTooLarge
from twisted_net.http.h1.chunked import (
    CHUNKS_PER_CALL,
    LAST_CHUNK,
    MAX_CHUNK_LINE,
    OVERHEAD_RATIO,
    OVERHEAD_RESERVE,
    ChunkedDecoder,
    encode_chunk,
)


def decode(data: bytes, max_body: int | None = None) -> tuple[list[bytes], int, int]:
    """Decode all of *data*; return the pieces, the position of what follows, and the calls."""
    decoder = ChunkedDecoder(max_body, 1000)
    pieces: list[bytes] = []
    position = calls = 0
    while position < len(data) and not decoder.complete:
        position = decoder.decode(data, position, pieces)
        calls += 1
    return pieces, position, calls


class EncodeTests(SynchronousTestCase):
    """:func:`encode_chunk` makes what :class:`ChunkedDecoder` reads."""

    @given(st.lists(st.binary(max_size=300)))
    def test_round_trip(self, parts: list[bytes]) -> None:
        """The parts come back; those that are empty end nothing."""
        data = b"".join(map(encode_chunk, parts)) + LAST_CHUNK
        pieces, position, _ = decode(data + b"next")
        self.assertEqual(b"".join(pieces), b"".join(parts))
        self.assertEqual(position, len(data))


class DecoderTests(SynchronousTestCase):
    """:class:`ChunkedDecoder` takes its time, and has limits."""

    def test_pace(self) -> None:
        """A call decodes so many chunks, however many there are."""
        data = b"1\r\nx\r\n" * (3 * CHUNKS_PER_CALL) + LAST_CHUNK
        pieces: list[bytes] = []
        position = ChunkedDecoder(None, 1000).decode(data, 0, pieces)
        self.assertEqual((pieces, position), ([b"x" * CHUNKS_PER_CALL], 6 * CHUNKS_PER_CALL))
        pieces, position, calls = decode(data)
        self.assertEqual(pieces, 3 * [b"x" * CHUNKS_PER_CALL])
        self.assertEqual((position, calls), (len(data), 4))

    def test_pieces(self) -> None:
        """A part of a chunk comes at once; bytes that have nothing else are not copied."""
        decoder = ChunkedDecoder(None, 1000)
        pieces: list[bytes] = []
        decoder.decode(b"100000\r\nab", 0, pieces)
        middle = b"x" * 10_000
        decoder.decode(middle, 0, pieces)
        self.assertEqual(pieces, [b"ab", middle])
        self.assertIs(pieces[1], middle)

    def test_small_chunks(self) -> None:
        """Small chunks that come together are one piece; large ones are not copied for that."""
        small, large = b"a" * 100, b"b" * 1000
        for parts, pieces in (
            ([small, small], [small * 2]),
            ([large, large], [large, large]),
            ([small] * 9 + [large], [small * 9 + large]),
        ):
            data = b"".join(map(encode_chunk, parts)) + LAST_CHUNK
            self.assertEqual(decode(data)[0], pieces)

    def test_body_limit(self) -> None:
        """A size over the limit ends it, before the chunk comes; one at the limit does not."""
        self.assertEqual(decode(b"3\r\nabc\r\n2\r\nde\r\n", 5)[0], [b"abcde"])
        decoder = ChunkedDecoder(5, 1000)
        pieces: list[bytes] = []
        self.assertRaises(BodyTooLarge, decoder.decode, b"3\r\nabc\r\n3\r\n", 0, pieces)
        self.assertEqual(pieces, [b"abc"])

    def test_line_limit(self) -> None:
        """A line of the longest length is read, in one piece or several, and no longer one."""
        for more, fits in ((0, True), (1, False)):
            line = b"1;" + b"a" * (MAX_CHUNK_LINE - 4 + more) + b"\r\n"
            for size in (1, 1000, len(line)):
                decoder = ChunkedDecoder(None, 1000)

                def feed(
                    decoder: ChunkedDecoder = decoder, line: bytes = line, n: int = size
                ) -> None:
                    for i in range(0, len(line), n):
                        decoder.decode(line[i : i + n], 0, [])

                with self.subTest(more=more, size=size):
                    if fits:
                        feed()
                    else:
                        error = self.assertRaises(BadResponse, feed)
                        self.assertIn("is longer than 4096 bytes", str(error))

    def test_overhead(self) -> None:
        """Framing over a multiple of the body and the reserve is refused; not before."""
        count = OVERHEAD_RESERVE // (5 - OVERHEAD_RATIO)
        one = b"1\r\nx\r\n"
        self.assertEqual(b"".join(decode(one * count)[0]), b"x" * count)
        self.assertRaises(BadResponse, decode, one * (count + 1))
        large = b"3\r\nabc\r\n"
        self.assertEqual(b"".join(decode(large * 5 * count)[0]), b"abc" * 5 * count)
        extension = b"1;" + b"e" * 4000 + b"\r\nx\r\n"
        self.assertRaises(BadResponse, decode, extension * 17)

    def test_trailers(self) -> None:
        """The trailer section is read, and what follows it is not."""
        decoder = ChunkedDecoder(None, 1000)
        data = b"1\r\na\r\n0\r\nX: y\r\nX: z \r\n\r\nnext"
        position = 0
        while not decoder.complete:
            position = decoder.decode(data, position, [])
        self.assertEqual(data[position:], b"next")
