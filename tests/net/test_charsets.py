"""Tests for :mod:`twisted_net.net.charsets`."""

from __future__ import annotations

import codecs
import sys

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.charsets import (
    CODECS,
    MAX_NAME,
    codec_for,
    codec_of_mark,
    decode_beginning,
    decode_text,
    load_codecs,
)

LABELS = {
    "utf-8": "UTF-8 utf8 utf_8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8",
    "cp866": "866 cp866 csibm866 ibm866",
    "iso8859-2": "csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987"
    " l2 latin2",
    "iso8859-3": "csisolatin3 iso-8859-3 iso-ir-109 iso_8859-3:1988 l3 latin3",
    "iso8859-4": "csisolatin4 iso-8859-4 iso-ir-110 iso_8859-4:1988 l4 latin4",
    "iso8859-5": "csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso_8859-5:1988",
    "iso8859-6": "arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6"
    " iso-8859-6-e iso-8859-6-i iso-ir-127 iso_8859-6:1987",
    "iso8859-7": "csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126"
    " iso_8859-7:1987 sun_eu_greek",
    "iso8859-8": "csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138"
    " iso_8859-8:1988 visual csiso88598i iso-8859-8-i logical",
    "iso8859-10": "csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 l6 latin6",
    "iso8859-13": "iso-8859-13 iso885913",
    "iso8859-14": "iso-8859-14 iso885914",
    "iso8859-15": "csisolatin9 iso-8859-15 iso_8859-15 l9 latin-9",
    "iso8859-16": "iso-8859-16",
    "koi8-r": "cskoi8r koi koi8 koi8-r koi8_r KOI8-R",
    "koi8-u": "koi8-ru koi8-u",
    "mac-roman": "csmacintosh mac macintosh x-mac-roman mac-roman",
    "cp874": "dos-874 iso-8859-11 iso8859-11 tis-620 windows-874",
    "cp1251": "cp1251 Windows-1251 x-cp1251",
    "cp1252": "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100"
    " iso_8859-1:1987 l1 latin1 latin-1 us-ascii windows-1252 x-cp1252",
    "cp1254": "csisolatin5 iso-8859-9 iso-ir-148 iso_8859-9:1989 l5 latin5 windows-1254",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "gb18030": "chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk"
    " gb18030",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "euc_jp": "cseucpkdfmtjapanese euc-jp x-euc-jp",
    "iso2022_jp": "csiso2022jp iso-2022-jp",
    "cp932": "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis",
    "cp949": "cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601"
    " ksc_5601 windows-949",
    "utf-16-be": "unicodefffe utf-16be",
    "utf-16-le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le",
    "utf-32": "utf-32",
}
"""Names on the wire, by the codec's own: those of the WHATWG Encoding Standard §4.2, and others."""

REFUSED = (
    *("", "nonsense", "a\0b", "utf-7", "unicode_escape", "raw-unicode-escape", "idna", "punycode"),
    *("rot13", "base64", "zlib", "hex", "bz2", "undefined", "mbcs", "charmap", "string-escape"),
    *("x-user-defined", "replacement", "hz-gb-2312", "iso-2022-kr", "iso-2022-cn", "u t f 8", "-"),
    *("utf\u20138", "\u017fjis", "x" * (MAX_NAME + 1), " " * 100_000 + "utf-8", "../../os", "os"),
)


class CharsetTests(SynchronousTestCase):
    """:func:`codec_for` knows the charsets of the web, and no others."""

    def test_labels(self) -> None:
        """Each name leads to its codec, in any case."""
        for codec, names in LABELS.items():
            for name in (*names.split(), f" {names.split()[0].upper()} "):
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
        """Each byte, and each pair of some, in every charset, but for control characters."""
        pairs = [bytes((a, b)) for a in (0x81, 0xD8) for b in range(256)]
        data = bytes(range(256)) + b"".join(pairs)
        for codec in CODECS:
            expected = data.decode(codec, "replace")
            found = decode_text(data, codec)
            self.assertEqual(len(found), len(expected))
            for i, (letter, other) in enumerate(zip(found, expected, strict=True)):
                if letter != other:
                    self.assertEqual((ord(letter), other), (data[i], "\ufffd"), codec)
                    self.assertIn(data[i], range(0x80, 0xA0))
                    self.assertIn(codec[:3], ("cp1", "cp8"))

    def test_control_characters(self) -> None:
        """Bytes that windows-1252 leaves open are control characters, as in browsers."""
        self.assertEqual(decode_text(b"\x80\x81\x8d", "cp1252"), "\u20ac\x81\x8d")
        self.assertEqual(decode_text(b"\xaa\x81", "cp1253"), "\ufffd\x81")

    def test_mark(self) -> None:
        """A byte order mark decides, and is no part of the text; UTF-32 has its own."""
        for data, codec in (
            (b"\xef\xbb\xbf\xc3\xa9", "cp1252"),
            (b"\xff\xfe\xe9\0", "utf_8"),
            (b"\xfe\xff\0\xe9", "utf_16_le"),
            (b"\xff\xfe\0\0\xe9\0\0\0", "utf_32"),
            (b"\xc3\xa9", "utf_8"),
        ):
            self.assertEqual(decode_text(data, codec_of_mark(data, codec)), "\xe9")

    def test_beginning(self) -> None:
        """Of a long text only the beginning is decoded, and no character is cut."""
        text = "a\xe9\u6f22\U0001f600" * 3
        for codec in ("utf_8", "utf_16_le", "utf_32_le", "gb18030", "cp1252"):
            data = text.encode(codec, "replace")
            for length in range(len(text) + 1):
                found = decode_beginning(data + b"\xff" * 99, codec, length)
                self.assertEqual(found, decode_text(data, codec)[:length])

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
