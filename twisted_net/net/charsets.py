"""Charsets: the closed list of those that text from outside is decoded by."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module

MAX_NAME = 64
"""Characters of the longest name that is looked at."""

_LABELS = {
    "big5hkscs": "big5 big5hkscs cnbig5 cp950 csbig5 xxbig5",
    "cp866": "866 cp866 csibm866 ibm866",
    "cp874": "cp874 dos874 iso885911 tis620 windows874",
    "cp932": "cp932 csshiftjis ms932 mskanji shiftjis sjis windows31j xsjis",
    "cp949": "cp949 cseuckr csksc56011987 euckr isoir149 korean ksc5601 ksc56011987 ksc56011989"
    " windows949",
    "cp1252": "ansix341968 ascii cp819 csisolatin1 ibm819 iso88591 iso885911987 isoir100 l1 latin1"
    " usascii",
    "cp1254": "csisolatin5 iso88599 iso885991989 isoir148 l5 latin5",
    "euc_jp": "cseucpkdfmtjapanese eucjp xeucjp",
    "gb18030": "chinese cp936 csgb2312 csiso58gb231280 gb18030 gb2312 gb231280 gbk isoir58 xgbk",
    "iso2022_jp": "csiso2022jp iso2022jp",
    "iso8859_2": "csisolatin2 iso88592 iso885921987 isoir101 l2 latin2",
    "iso8859_3": "csisolatin3 iso88593 iso885931988 isoir109 l3 latin3",
    "iso8859_4": "csisolatin4 iso88594 iso885941988 isoir110 l4 latin4",
    "iso8859_5": "csisolatincyrillic cyrillic iso88595 iso885951988 isoir144",
    "iso8859_6": "arabic asmo708 csiso88596e csiso88596i csisolatinarabic ecma114 iso88596"
    " iso885961987 iso88596e iso88596i isoir127",
    "iso8859_7": "csisolatingreek ecma118 elot928 greek greek8 iso88597 iso885971987 isoir126"
    " suneugreek",
    "iso8859_8": "csiso88598e csiso88598i csisolatinhebrew hebrew iso88598 iso885981988 iso88598e"
    " iso88598i isoir138 logical visual",
    "iso8859_10": "csisolatin6 iso885910 isoir157 l6 latin6",
    "iso8859_13": "iso885913",
    "iso8859_14": "iso885914",
    "iso8859_15": "csisolatin9 iso885915 l9 latin9",
    "iso8859_16": "iso885916",
    "koi8_r": "cskoi8r koi koi8 koi8r",
    "koi8_u": "koi8ru koi8u",
    "mac_cyrillic": "maccyrillic xmaccyrillic xmacukrainian",
    "mac_roman": "csmacintosh mac macintosh macroman xmacroman",
    "utf_8": "unicode11utf8 unicode20utf8 utf8 xunicode20utf8",
    "utf_16_be": "unicodefffe utf16be",
    "utf_16_le": "csunicode iso10646ucs2 ucs2 unicode unicodefeff utf16 utf16le",
    "utf_32": "utf32",
    "utf_32_be": "utf32be",
    "utf_32_le": "utf32le",
}
"""
Labels of the WHATWG Encoding Standard, without separators, by Python's codec for the encoding.

As there, an old label stands for the encoding that has replaced it: ``iso-8859-1`` and ``us-ascii``
for windows-1252, ``gb2312`` for GB 18030, ``shift_jis`` for windows-31j. Beside them are Python's
own spellings (``latin-1``, ``cp932``), and UTF-32. Not on the list are ``x-user-defined``, which is
for scripts in browsers, and those that the standard replaces (``hz-gb-2312``, ``iso-2022-kr``).
"""

_CODEC_OF = {
    **{label: codec for codec, labels in _LABELS.items() for label in labels.split()},
    **{f"{kind}{n}": f"cp{n}" for n in range(1250, 1259) for kind in ("cp", "windows", "xcp")},
}

CODECS = frozenset({*_CODEC_OF.values(), "utf_8_sig", "utf_16"})
"""
Python's codecs for the encodings of the web (WHATWG Encoding Standard), and UTF-32.

Python has others, which are no charsets, or take quadratic time (``punycode``), or decode to what
is no text (``utf_7`` and ``unicode_escape`` have lone surrogates). It imports a codec when it is
first used, and keeps each name that it was ever asked for.
"""

_MARK_BEGINNINGS = frozenset({b"", b"\xef", b"\xef\xbb", b"\xff", b"\xfe"})
_LABEL = re.compile(r"[a-z0-9][a-z0-9_.:-]*")
_NO_SEPARATORS = str.maketrans("", "", "_.:-")


def codec_for(charset: str) -> str | None:
    """
    Return Python's name of the codec for a charset, or None if it is not on the list.

    :param charset: as in a ``Content-Type``, in any case.
    """
    if len(charset) > MAX_NAME or not charset.isascii():
        return None
    label = charset.strip().lower()
    if _LABEL.fullmatch(label) is None:
        return None
    return _CODEC_OF.get(label.translate(_NO_SEPARATORS))


def codec_of_mark(data: bytes, codec: str) -> str:
    """
    Return the codec for text that begins with a byte order mark; *codec* where it does not.

    The mark counts more than what the charset is said to be (WHATWG Encoding Standard §6), and the
    codec drops it.
    """
    if data.startswith(codecs.BOM_UTF8):
        return "utf_8_sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and "32" not in codec:
        return "utf_16"
    return codec


def decode_text(data: bytes, codec: str) -> str:
    """
    Decode text; bytes that cannot be decoded become U+FFFD.

    :param codec: one of :data:`CODECS`.
    """
    table = _table(codec)
    if table is None:
        return data.decode(codec, "replace")
    # Python's own codec calls an error handler for each byte that has no character: 0.3 us.
    return codecs.charmap_decode(data, "strict", table)[0]


def decode_beginning(data: bytes, codec: str, length: int) -> str:
    """Decode the first characters of a text, and no more than they may take; as decode_text."""
    if _table(codec) is not None:
        return decode_text(data[:length], codec)
    # Characters have four bytes at most; the last of these may be cut.
    decoder = codecs.getincrementaldecoder(codec)("replace")
    return decoder.decode(data[: 4 * length])[:length]


def text_decoder(codec: str, *, by_mark: bool = False) -> Callable[[bytes, bool], str]:
    """
    Return what decodes a text in pieces; bytes that cannot be decoded become U+FFFD.

    :param codec: one of :data:`CODECS`.
    :param by_mark: whether a byte order mark decides before it, as :func:`codec_of_mark` does.
    :return: takes the next bytes, and whether they are the last ones.
    """
    if by_mark:
        return _MarkedText(codec).decode
    table = _table(codec)
    if table is None:
        return codecs.getincrementaldecoder(codec)("replace").decode
    return lambda data, final: codecs.charmap_decode(data, "strict", table)[0]


class _MarkedText:
    """Decodes a text in pieces, by the byte order mark that it may begin with."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._begin = b""
        self._decode: Callable[[bytes, bool], str] | None = None

    def decode(self, data: bytes, final: bool) -> str:
        if self._decode is None:
            data = self._begin + data
            if data in _MARK_BEGINNINGS and not final:
                self._begin = data
                return ""
            self._decode = text_decoder(codec_of_mark(data, self._codec))
        return self._decode(data, final)


@cache
def _table(codec: str) -> str | None:
    """
    Return the characters of all bytes, in a charset that has one for each; else None.

    Where Python's codec of a Windows charset has none for 0x80 to 0x9F, they are control
    characters, as in WHATWG's indexes.
    """
    table = getattr(import_module(f"encodings.{codec}"), "decoding_table", None)
    if table is None:
        return None
    windows = codec == "cp874" or codec.startswith("cp125")
    return "".join(
        (chr(i) if windows and 0x80 <= i < 0xA0 else "\ufffd") if letter == "\ufffe" else letter
        for i, letter in enumerate(table)
    )


def load_codecs() -> None:
    """Import all codecs of the list, which takes some 20 ms; else each is at its first use."""
    for codec in CODECS:
        codecs.lookup(codec)
