"""Tests for :mod:`twisted_net.net.charsets`."""

from __future__ import annotations

import codecs
import sys

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.charsets import CODECS, MAX_NAME, codec_for, decode_text, load_codecs

LABELS = {
    "utf-8": ("UTF-8", "utf8", " utf_8 "),
    "iso8859-1": ("ISO-8859-1", "latin-1", "latin1", "l1", "iso_8859-1", "cp819"),
    "cp1252": ("windows-1252", "cp1252", "x-cp1252"),
    "cp1251": ("Windows-1251", "x-cp1251"),
    "cp874": ("windows-874", "dos-874"),
    "shift_jis": ("shift_jis", "Shift-JIS", "csshiftjis"),
    "cp932": ("windows-31j", "x-sjis", "ms932", "sjis"),
    "euc_jp": ("euc-jp", "x-euc-jp"),
    "iso2022_jp": ("iso-2022-jp", "csiso2022jp"),
    "gbk": ("gbk", "x-gbk"),
    "gb18030": ("gb18030",),
    "gb2312": ("gb2312", "chinese"),
    "big5": ("big5", "x-x-big5"),
    "euc_kr": ("euc-kr",),
    "koi8-r": ("KOI8-R", "cskoi8r"),
    "mac-roman": ("macintosh", "x-mac-roman"),
    "utf-16-le": ("utf-16le", "unicode"),
}
"""Names on the wire, by the codec's own."""

REFUSED = (
    *("", "nonsense", "a\0b", "utf-7", "unicode_escape", "raw-unicode-escape", "idna", "punycode"),
    *("rot13", "base64", "zlib", "hex", "bz2", "undefined", "mbcs", "charmap", "string-escape"),
    *("utf\u20138", "\u017fjis", "x" * (MAX_NAME + 1), " " * 100_000 + "utf-8", "../../os", "os"),
)


class CharsetTests(SynchronousTestCase):
    """:func:`codec_for` knows the charsets of the web, and no others."""

    def test_labels(self) -> None:
        """Each name leads to its codec, in any case."""
        for codec, names in LABELS.items():
            for name in names:
                found = codec_for(name)
                assert found is not None, name
                self.assertEqual(codecs.lookup(found).name, codec, name)

    def test_refused(self) -> None:
        """Whatever else Python may have is not used, or even looked for."""
        before = set(sys.modules)
        for name in REFUSED:
            self.assertIsNone(codec_for(name), name[:20])
        self.assertEqual(set(sys.modules), before)

    def test_text_alone(self) -> None:
        """Whatever bytes there are, each codec makes text of them that can be encoded."""
        load_codecs()
        for codec in CODECS:
            for data in (bytes(range(256)) * 2, b"\xd8\x00\xdc\x00", b"\x00\xd8\x00\x00", b"+2AA-"):
                self.assertIsInstance(data.decode(codec, "replace").encode(), bytes)

    def test_loaded(self) -> None:
        """All are imported at once."""
        load_codecs()
        missing = [codec for codec in CODECS if f"encodings.{codec}" not in sys.modules]
        self.assertEqual(missing, [])


class DecodeTests(SynchronousTestCase):
    """:func:`decode_text` decodes as Python does, with replacements."""

    def test_same(self) -> None:
        """Each byte, and each pair of some, in every charset."""
        pairs = [bytes((a, b)) for a in (0x81, 0xD8) for b in range(256)]
        data = bytes(range(256)) + b"".join(pairs)
        for codec in CODECS:
            self.assertEqual(decode_text(data, codec), data.decode(codec, "replace"), codec)

    def test_no_handler(self) -> None:
        """In a charset of single bytes no error handler is called."""
        called = 0

        def handler(error: UnicodeError) -> tuple[str | bytes, int]:
            nonlocal called
            called += 1
            return replace(error)

        replace = codecs.lookup_error("replace")
        codecs.register_error("replace", handler)
        try:
            decode_text(bytes(range(256)), "cp1253")
        finally:
            codecs.register_error("replace", replace)
        self.assertEqual(called, 0)
