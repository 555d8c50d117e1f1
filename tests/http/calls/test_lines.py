"""Tests of :mod:`twisted_net.http.calls.lines`."""

from __future__ import annotations

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
