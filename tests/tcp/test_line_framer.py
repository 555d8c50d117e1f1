"""Lines are the same however the stream is cut, and no byte but LF ends one."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.tcp.line_framer import HEAD, LineFramer

STREAM = b"ECHO a\r\n\n\r\nTI\rME\r\r\n" + b"x" * 9 + b"\n\0\r\nrest\r"
LIMIT = 8


def feed(framer: LineFramer, *pieces: bytes) -> list[bytes | None]:
    """Return the lines of all pieces."""
    return [line for piece in pieces for line in framer.feed(piece)]


class Unsearched(bytearray):
    """Bytes that grow, and whose first ones may not be searched again."""

    def __contains__(self, part: object) -> bool:
        raise AssertionError("it is searched")

    find = index = split = partition = __getitem__ = __iter__ = __contains__  # type: ignore[assignment]


def by_bytes(stream: bytes, limit: int) -> tuple[list[bytes | None], bool]:
    """Cut a stream the slow way; also say whether it ends in a line that may become whole."""
    lines: list[bytes | None] = []
    line = bytearray()
    too_long = False
    for byte in stream:
        if byte == ord("\n"):
            if not too_long:
                lines.append(bytes(line[:-1] if line.endswith(b"\r") else line))
            line.clear()
            too_long = False
        elif not too_long:
            line.append(byte)
            # The last byte may be the CR of a CRLF, which is not counted.
            if len(line) > limit and not (len(line) == limit + 1 and byte == ord("\r")):
                lines.append(None)
                too_long = True
                line.clear()
    return lines, bool(line)


class CuttingTests(SynchronousTestCase):
    """:class:`LineFramer` yields the same lines however the stream is cut."""

    def test_lines_of_the_stream(self) -> None:
        """The stream that the other tests cut holds a line of each kind."""
        framer = LineFramer(LIMIT)
        self.assertEqual(framer.feed(STREAM), [b"ECHO a", b"", b"", b"TI\rME\r", None, b"\0"])
        self.assertTrue(framer.unfinished)

    def test_two_pieces(self) -> None:
        """Every way of cutting in two yields the same lines."""
        whole = LineFramer(LIMIT).feed(STREAM)
        for cut in range(len(STREAM) + 1):
            self.assertEqual(feed(LineFramer(LIMIT), STREAM[:cut], STREAM[cut:]), whole, cut)

    def test_three_pieces(self) -> None:
        """Every way of cutting in three yields the same lines."""
        whole = LineFramer(LIMIT).feed(STREAM)
        for second in range(len(STREAM) + 1):
            for first in range(second + 1):
                pieces = STREAM[:first], STREAM[first:second], STREAM[second:]
                self.assertEqual(feed(LineFramer(LIMIT), *pieces), whole, pieces)

    def test_single_bytes(self) -> None:
        """A stream that comes byte by byte yields the same lines."""
        pieces = [STREAM[i : i + 1] for i in range(len(STREAM))]
        self.assertEqual(feed(LineFramer(LIMIT), *pieces), LineFramer(LIMIT).feed(STREAM))

    @given(
        st.lists(st.text("\r\nab", max_size=12).map(str.encode), max_size=8),
        st.integers(1, 5),
    )
    def test_like_the_model(self, pieces: list[bytes], limit: int) -> None:
        """Any pieces, at any limit, yield what the byte-by-byte model yields."""
        framer = LineFramer(limit)
        lines, unfinished = by_bytes(b"".join(pieces), limit)
        self.assertEqual(feed(framer, *pieces), lines)
        self.assertEqual(framer.unfinished, unfinished)

    @given(st.lists(st.binary(max_size=40), max_size=8))
    def test_any_bytes_like_the_model(self, pieces: list[bytes]) -> None:
        """Any bytes at all yield what the byte-by-byte model yields."""
        self.assertEqual(feed(LineFramer(64), *pieces), by_bytes(b"".join(pieces), 64)[0])


class HeadTests(SynchronousTestCase):
    """The first bytes of lines that are unfinished or over the limit can be looked at."""

    def test_any_cut(self) -> None:
        """Each line over the limit leaves its first bytes, however the stream is cut."""
        stream = b"a" * 100 + b"\nok\n\r\n" + b"b" * 100 + b"\r\n" + b"c" * 70 + b"\n" + b"d" * 100
        for cut in range(len(stream) + 1):
            framer = LineFramer(70, long_heads=())
            lines = feed(framer, stream[:cut], stream[cut:])
            self.assertEqual(lines, [None, b"ok", b"", None, b"c" * 70, None], cut)
            heads = [framer.take_long_head() for _ in range(3)]
            self.assertEqual(heads, [b"a" * HEAD, b"b" * HEAD, b"d" * HEAD])
            self.assertEqual(framer.long_heads, ())

    def test_at_once(self) -> None:
        """They are those of the lines that were cut off, not of those that are left."""
        framer = LineFramer(2, 2, long_heads=())
        self.assertEqual(framer.feed(b"aaa\nb\nccc\nddd\n"), [None, b"b"])
        self.assertEqual(framer.long_heads, (b"aaa",))
        self.assertEqual(framer.feed(b""), [None, None])
        self.assertEqual(framer.long_heads, (b"aaa", b"ccc", b"ddd"))

    def test_not_wanted(self) -> None:
        """Nothing is kept where nobody wants it."""
        framer = LineFramer(2)
        framer.feed(b"aaa\nbbb\nccc")
        self.assertIsNone(framer.long_heads)

    def test_unfinished(self) -> None:
        """The head is that of the line that has begun, whole lines and skipped ones left out."""
        framer = LineFramer(80)
        for piece, head in (
            (b"", b""),
            (b"ab", b"ab"),
            (b"c", b"abc"),
            (b"\nx", b"x"),
            (b"y" * 70, b"x" + b"y" * 63),
            (b"y" * 70, b""),
            (b"\nz", b"z"),
            (b"\n", b""),
        ):
            framer.feed(piece)
            self.assertEqual(framer.head, head)


class LineEndTests(SynchronousTestCase):
    """LF alone ends a line, and takes one CR with it."""

    def test_every_byte(self) -> None:
        """Each of the 256 bytes stands in a line as it came, but for LF."""
        for byte in range(256):
            value = bytes([byte])
            expected = [b"a", b"b"] if value == b"\n" else [b"a" + value + b"b"]
            self.assertEqual(LineFramer(64).feed(b"a" + value + b"b\n"), expected, byte)

    def test_bare_cr(self) -> None:
        """A CR without LF ends nothing, also at the end of a piece."""
        self.assertEqual(feed(LineFramer(64), b"a\rb\r", b"c\n"), [b"a\rb\rc"])

    def test_one_cr(self) -> None:
        """Of several CRs before the LF only the last goes."""
        self.assertEqual(LineFramer(64).feed(b"a\r\r\n"), [b"a\r"])

    def test_cr_alone(self) -> None:
        """A line of one CR is empty, and so is one of none."""
        self.assertEqual(feed(LineFramer(64), b"\r", b"\n\n"), [b"", b""])

    def test_nothing(self) -> None:
        """No bytes complete no line, before and within one."""
        framer = LineFramer(64)
        self.assertEqual(feed(framer, b"", b"a", b"", b"\n", b""), [b"a"])
        self.assertFalse(framer.unfinished)


class LimitTests(SynchronousTestCase):
    """A line of the limit passes, one more byte makes it None, and the next line is whole."""

    def test_at_the_limit(self) -> None:
        """As many bytes as the limit pass, with LF, with CRLF, in one piece and in any two."""
        for end in (b"\n", b"\r\n"):
            stream = b"x" * LIMIT + end + b"y\n"
            for cut in range(len(stream) + 1):
                lines = feed(LineFramer(LIMIT), stream[:cut], stream[cut:])
                self.assertEqual(lines, [b"x" * LIMIT, b"y"], (end, cut))

    def test_one_byte_over(self) -> None:
        """One byte more is too long, with LF, with CRLF, in one piece and in any two."""
        for end in (b"\n", b"\r\n"):
            stream = b"x" * (LIMIT + 1) + end + b"y\n"
            for cut in range(len(stream) + 1):
                lines = feed(LineFramer(LIMIT), stream[:cut], stream[cut:])
                self.assertEqual(lines, [None, b"y"], (end, cut))

    def test_cr_at_the_limit_is_no_end(self) -> None:
        """A CR just past the limit, and then no LF, makes the line too long."""
        self.assertEqual(feed(LineFramer(LIMIT), b"x" * LIMIT + b"\r", b"z\ny\n"), [None, b"y"])

    def test_two_crs_past_the_limit(self) -> None:
        """Two CRs past the limit are one too many."""
        self.assertEqual(feed(LineFramer(LIMIT), b"x" * LIMIT + b"\r\r"), [None])

    def test_told_at_once(self) -> None:
        """None comes with the byte that passes the limit, and once."""
        framer = LineFramer(LIMIT)
        self.assertEqual(framer.feed(b"x" * LIMIT), [])
        self.assertEqual(framer.feed(b"x"), [None])
        self.assertFalse(framer.unfinished)
        self.assertEqual(feed(framer, b"x" * 100, b"\r", b"\n", b"y\n"), [b"y"])

    def test_ten_megabytes(self) -> None:
        """A line of 10 MB is reported once, and no more than the limit of it is ever kept."""
        framer = LineFramer(16_384)
        lines: list[bytes | None] = []
        for _ in range(160):
            lines += framer.feed(b"x" * 65_536)
            self.assertLessEqual(len(framer._tail), 16_384)
        self.assertEqual(lines, [None])
        self.assertEqual(framer.feed(b"\nTIME\n"), [b"TIME"])

    def test_small_pieces_keep_the_limit(self) -> None:
        """Of a long line that comes in small pieces no more than the limit is kept either."""
        framer = LineFramer(1000)
        lines: list[bytes | None] = []
        for _ in range(500):
            lines += framer.feed(b"x" * 7)
            self.assertLessEqual(len(framer._tail), 1000)
        self.assertEqual(lines, [None])

    def test_small_pieces_are_cheap(self) -> None:
        """Pieces are added to what there is of a line: that is neither copied nor searched."""
        framer = LineFramer(1000)
        feed(framer, b"x", b"x")
        framer._tail = tail = Unsearched(framer._tail)
        for _ in range(500):
            self.assertEqual(framer.feed(b"x"), [])
            self.assertIs(framer._tail, tail)
        self.assertEqual(framer.feed(b"\r\n"), [b"x" * 502])

    def test_many_empty_lines(self) -> None:
        """100,000 empty lines are 100,000 empty lines, with LF and with CRLF."""
        for end in (b"\n", b"\r\n"):
            self.assertEqual(LineFramer(64).feed(end * 100_000), [b""] * 100_000)


class FewAtATimeTests(SynchronousTestCase):
    """A framer with a limit of lines keeps the bytes after them as they are."""

    def test_rest(self) -> None:
        """So many lines come with each call; then come the bytes that end no line."""
        framer = LineFramer(64, max_lines=2)
        self.assertEqual(framer.feed(b"a\r\nb\nc\nd\ne"), [b"a", b"b"])
        self.assertEqual((framer.rest, len(framer), framer.unfinished), (b"c\nd\ne", 5, False))
        self.assertEqual(framer.feed(b""), [b"c", b"d"])
        self.assertEqual(framer.feed(b""), [])
        self.assertEqual((framer.rest, framer.unfinished), (b"", True))
        self.assertEqual(framer.feed(b"f\n"), [b"ef"])

    def test_kept(self) -> None:
        """What is kept unseen comes in its place."""
        framer = LineFramer(64, max_lines=1)
        self.assertEqual(framer.feed(b"a\nb\nc"), [b"a"])
        framer.keep(b"d\n")
        self.assertEqual([framer.feed(b"") for _ in range(3)], [[b"b"], [b"cd"], []])

    @given(
        st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"long" * 5]), max_size=60),
        st.lists(st.integers(0, 100), max_size=4),
        st.integers(1, 5),
    )
    def test_like_all_at_once(self, pieces: list[bytes], cuts: list[int], most: int) -> None:
        """However many come at a time and however the stream is cut, the lines are the same."""
        stream = b"".join(pieces)
        framer = LineFramer(10, most)
        lines: list[bytes | None] = []
        edges = [0, *sorted(cuts), len(stream)]
        for begin, end in pairwise(edges):
            got = framer.feed(stream[begin:end])
            while got:
                self.assertLessEqual(len(got), most + 1)  # one more where the last is too long
                lines += got
                got = framer.feed(b"")
        self.assertEqual(lines, LineFramer(10).feed(stream))
