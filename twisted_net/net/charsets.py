"""Charsets: the closed list of those that text from outside is decoded by."""

from __future__ import annotations

import codecs
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import cache
from importlib import import_module

MAX_NAME = 64
"""Characters of the longest name that is looked at."""

_NAMES = (
    "ascii big5 big5hkscs cp866 cp874 cp932 cp949 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 "
    "cp1257 cp1258 euc_jp euc_kr gb18030 gb2312 gbk iso2022_jp iso8859_2 iso8859_3 iso8859_4 "
    "iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_9 iso8859_10 iso8859_11 iso8859_13 iso8859_14 "
    "iso8859_15 iso8859_16 koi8_r koi8_u latin_1 mac_cyrillic mac_roman shift_jis tis_620 utf_8 "
    "utf_16 utf_16_be utf_16_le utf_32 utf_32_be utf_32_le"
)
CODECS = frozenset(_NAMES.split())
"""
Python's codecs for the encodings of the web (WHATWG Encoding Standard), and UTF-32.

Python has others, which are no charsets, or take quadratic time (``punycode``), or decode to what
is no text (``utf_7`` and ``unicode_escape`` have lone surrogates). It imports a codec when it is
first used, and keeps each name that it was ever asked for.
"""

_LABELS = {
    "dos_874": "cp874",
    "ks_c_5601": "cp949",
    "macintosh": "mac_roman",
    "sjis": "cp932",
    "unicode": "utf_16_le",
    "windows_31j": "cp932",
    "windows_874": "cp874",
    "x_euc_jp": "euc_jp",
    "x_gbk": "gbk",
    "x_mac_cyrillic": "mac_cyrillic",
    "x_mac_roman": "mac_roman",
    "x_sjis": "cp932",
    "x_x_big5": "big5",
    **{f"windows_{number}": f"cp{number}" for number in range(1250, 1259)},
    **{f"x_cp{number}": f"cp{number}" for number in range(1250, 1259)},
}
"""Labels of the web that Python does not know, or knows as something else."""


def codec_for(charset: str) -> str | None:
    """
    Return Python's name of the codec for a charset, or None if it is not on the list.

    :param charset: as in a ``Content-Type``, in any case.
    """
    if len(charset) > MAX_NAME or not charset.isascii():
        return None
    name = normalize_encoding(charset.strip()).lower()
    codec = _LABELS.get(name) or aliases.get(name, name)
    return codec if codec in CODECS else None


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


@cache
def _table(codec: str) -> str | None:
    """Return the characters of all bytes, in a charset that has one for each; else None."""
    table = getattr(import_module(f"encodings.{codec}"), "decoding_table", None)
    return None if table is None else table.replace("\ufffe", "\ufffd")


def load_codecs() -> None:
    """Import all codecs of the list, which takes some 20 ms; else each is at its first use."""
    for codec in CODECS:
        codecs.lookup(codec)
