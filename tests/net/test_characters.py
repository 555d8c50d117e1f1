"""Which characters texts of clients may have, and how these are shown."""

from __future__ import annotations

import json
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.errors import ControlCharacter, NotUTF8
from twisted_net.net.characters import (
    CONTROL_CHARACTER,
    check_control_characters,
    decode_utf8,
    partition_word,
    printable,
    printable_json,
    split_words,
)

CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
SPACES_OF_UNICODE = [code for code in range(sys.maxunicode) if chr(code).isspace()]


class CheckTests(SynchronousTestCase):
    """:func:`check_control_characters` and :data:`CONTROL_CHARACTER`."""

    def test_each(self) -> None:
        """C0 but the tab, DEL and C1 are refused at their positions, and nothing else is."""
        for code in range(0x3000):
            text = f"aé{chr(code)}b"
            if code in CONTROLS and code != 9:
                error = self.assertRaises(ControlCharacter, check_control_characters, text)
                self.assertEqual(error.position, 2)
                self.assertIn(f"U+{code:04X}", str(error))
                self.assertTrue(str(error).isprintable())
            else:
                check_control_characters(text)

    def test_first(self) -> None:
        """The first one is told, also behind others that are not printable."""
        error = self.assertRaises(
            ControlCharacter, check_control_characters, "\u200b\t\u2028\x85\0"
        )
        self.assertEqual(error.position, 3)

    def test_line_ends(self) -> None:
        """Where a text may have several lines LF and CR are allowed, and no others."""
        for code in CONTROLS:
            text = f"a{chr(code)}b"
            if code in (9, 10, 13):
                check_control_characters(text, line_ends=True)
            else:
                self.assertRaises(ControlCharacter, check_control_characters, text, line_ends=True)

    def test_pattern(self) -> None:
        """The pattern finds exactly these."""
        found = [code for code in range(0x3000) if CONTROL_CHARACTER.search(chr(code))]
        self.assertEqual(found, [code for code in CONTROLS if code != 9])


class WordTests(SynchronousTestCase):
    """:func:`split_words` and :func:`partition_word`."""

    def test_spaces_of_unicode(self) -> None:
        """Space and tab separate words, and no other space does."""
        self.assertGreater(len(SPACES_OF_UNICODE), 20)
        for code in SPACES_OF_UNICODE:
            words = ["a", "b"] if chr(code) in " \t" else [f"a{chr(code)}b"]
            self.assertEqual(split_words(f" a{chr(code)}b\t"), words)
            self.assertEqual(partition_word(f" a{chr(code)}b\t")[0], words[0])

    @given(st.text("ab \té\u00a0\u2028"))
    def test_like_the_model(self, text: str) -> None:
        """Words are what stands between spaces and tabs; the first is taken, the rest stays."""
        words = [word for word in text.replace("\t", " ").split(" ") if word]
        self.assertEqual(split_words(text), words)
        first, rest = partition_word(text)
        self.assertEqual([first] if first else [], words[:1])
        self.assertEqual(split_words(rest), words[1:])
        self.assertEqual(rest, rest.strip(" \t"))


class DecodeTests(SynchronousTestCase):
    """:func:`decode_utf8`."""

    def test_text(self) -> None:
        """UTF-8 is decoded, control characters and all."""
        self.assertEqual(decode_utf8("ä\0𝄞".encode()), "ä\0𝄞")

    def test_not_utf8(self) -> None:
        """Anything else is refused at its position."""
        for data, position in ((b"a\xff", 1), (b"\xed\xa0\x80", 0), (b"ab\xc3", 2)):
            self.assertEqual(self.assertRaises(NotUTF8, decode_utf8, data).position, position)


class PrintableTests(SynchronousTestCase):
    """:func:`printable`."""

    def test_escapes(self) -> None:
        """What is not printable is escaped as Python does it; spaces stay."""
        for text, shown in (
            ("ECHO ä\u3000\u00a0𝄞", "ECHO ä\u3000\u00a0𝄞"),
            ("a\x1b[31m\n\t\x7f\x9b", r"a\x1b[31m\n\t\x7f\x9b"),
            ("\u202e\u2028\ufeff\ud800", r"\u202e\u2028\ufeff\ud800"),
            ("", ""),
        ):
            self.assertEqual(printable(text), shown)

    @given(st.text())
    def test_any(self, text: str) -> None:
        """No control character is left, whatever the text."""
        self.assertIsNone(CONTROL_CHARACTER.search(printable(text)))
        self.assertNotIn("\t", printable(text))
        if text.isprintable():
            self.assertEqual(printable(text), text)


class PrintableJsonTests(SynchronousTestCase):
    """:func:`printable_json`."""

    def test_escapes(self) -> None:
        """The value is the same, and no control character is left."""
        value = {"a": "".join(map(chr, range(0x120))) + "\u2028ä𝄞", "b\x85": [1, None]}
        text = json.dumps(value, ensure_ascii=False)
        self.assertIsNotNone(CONTROL_CHARACTER.search(text))
        shown = printable_json(text)
        self.assertIsNone(CONTROL_CHARACTER.search(shown))
        self.assertEqual(json.loads(shown), value)
        self.assertIn("ä𝄞", shown)

    def test_directions(self) -> None:
        """Nothing is left that changes the direction or the lines of what is shown."""
        value = "\u202ea\u2028b\u2066c\U000e0041d\ufeff\u00a0\u3000\ud800"
        shown = printable_json(json.dumps(value, ensure_ascii=False))
        self.assertEqual(
            shown,
            r'"\u202ea\u2028b\u2066c\udb40\udc41d\ufeff'
            "\u00a0\u3000"
            r'\ud800"',
        )
        self.assertEqual(json.loads(shown), value)
