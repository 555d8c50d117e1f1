"""Tests of :mod:`twisted_net.http.calls.lines`."""

from __future__ import annotations

import codecs
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.calls.lines import LineDecoder
from twisted_net.http.errors import BodyItemTooLong


def obvious(text: str) -> list[str]:
    """Cut a text into lines."""
    lines = text.split("\n")
    if not lines[-1]:
        del lines[-1]
    return [line.removesuffix("\r") for line in lines]


class LineDecoderTests(SynchronousTestCase):
    """:class:`LineDecoder` gives the same lines however the text is cut."""

    def decoded(self, pieces: list[bytes], codec: str = "utf_8", max_line: int = 100) -> list[str]:
        """Return all lines."""
        decoder = LineDecoder(codec, max_line)
        lines = [line for piece in pieces for line in decoder.feed(piece)]
        return [*lines, *decoder.feed(b"", final=True)]

    @given(st.text(st.sampled_from("ab\r\nü\u2028\x85"), max_size=40), st.data())
    def test_any_cut(self, text: str, data: st.DataObject) -> None:
        """Any cut, in one byte and several bytes a character, is as the whole."""
        for codec in ("utf_8", "utf_16_le"):
            encoded = text.encode(codec)
            cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=4)))
            bounds = [0, *cuts, len(encoded)]
            pieces = [encoded[a:b] for a, b in pairwise(bounds)]
            self.assertEqual(self.decoded(pieces, codec), obvious(text))

    def test_mark(self) -> None:
        """A byte order mark decides before the charset, however the text is cut."""
        for mark, codec in (
            (codecs.BOM_UTF8, "utf_8"),
            (codecs.BOM_UTF16_LE, "utf_16_le"),
            (codecs.BOM_UTF16_BE, "utf_16_be"),
            (b"", "cp1252"),
        ):
            for text in ("a\nü\n", "ü", ""):
                encoded = mark + text.encode(codec)
                for cut in range(len(encoded) + 1):
                    decoder = LineDecoder("cp1252", by_mark=True)
                    pieces = (encoded[:cut], encoded[cut:])
                    lines = [line for piece in pieces for line in decoder.feed(piece)]
                    self.assertEqual([*lines, *decoder.feed(b"", final=True)], text.splitlines())

    def test_begin_of_a_mark(self) -> None:
        """What only begins like a mark is text, at the latest when the body ends."""
        decoder = LineDecoder("cp1252", by_mark=True)
        self.assertEqual(list(decoder.feed(b"\xef")), [])
        self.assertEqual(list(decoder.feed(b"\xbb\n")), ["ï»"])
        decoder = LineDecoder("cp1252", by_mark=True)
        self.assertEqual(list(decoder.feed(b"\xff")), [])
        self.assertEqual(list(decoder.feed(b"", final=True)), ["ÿ"])

    def test_invalid(self) -> None:
        """Bytes that are no text become U+FFFD, also at the end."""
        self.assertEqual(self.decoded([b"a\xff\n", b"\xc3"]), ["a\ufffd", "\ufffd"])

    def test_limit(self) -> None:
        """A line of the limit is whole, with any end; one character more is too long."""
        for end in (b"\n", b"\r\n", b""):
            for cut in (1, 4, 5):
                whole = b"12345" + end
                self.assertEqual(self.decoded([whole[:cut], whole[cut:]], max_line=5), ["12345"])
            with self.assertRaises(BodyItemTooLong) as raised:
                self.decoded([b"1\n123456" + end], max_line=5)
            self.assertEqual(raised.exception.details(), {"item": "line", "limit": 5})

    def test_before_the_limit(self) -> None:
        """The lines before one that is too long come first, and it is not kept."""
        decoder = LineDecoder("utf_8", 5)
        lines = decoder.feed(b"a\n" + b"x" * 100)
        self.assertEqual(next(lines), "a")
        self.assertRaises(BodyItemTooLong, next, lines)
