"""Characters: which ones a line may have, which separate words, and how all others are shown."""

from __future__ import annotations

import re
import unicodedata

from twisted_net.errors import ControlCharacter, NotUTF8

SPACES = " \t"
"""
The characters that separate words. Other spaces, such as U+00A0 and U+2028, are like letters: few
see them, and no two programs agree on them.
"""

CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
"""A character that no line has: all of C0 but the tab, DEL, and all of C1."""

_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_WORD = re.compile(r"[^ \t]+")


def decode_utf8(data: bytes) -> str:
    """
    Decode UTF-8.

    :raises NotUTF8: with the position of the first byte that is none.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise NotUTF8(error.start, data[error.start]) from None


def check_control_characters(text: str, *, line_ends: bool = False) -> None:
    """
    Check that a text has no control character but the tab: none of C0 and C1, and no DEL.

    :param line_ends: whether LF and CR are allowed, too, as in the text of a message.
    :raises ControlCharacter: with the position of the first one.
    """
    # One call clears nearly every text; the search in the others is slower.
    if text.isprintable():
        return
    match = (_CONTROL_IN_TEXT if line_ends else CONTROL_CHARACTER).search(text)
    if match is not None:
        raise ControlCharacter(match.start(), match[0])


def split_words(text: str) -> list[str]:
    """Split a text at :data:`SPACES`; quotes have no meaning here."""
    # Of all spaces, ASCII's alone is printable: str.split is then the same, and faster.
    return text.split() if text.isprintable() else _WORD.findall(text)


def partition_word(text: str) -> tuple[str, str]:
    """Return the first word of a text and what follows it, without the spaces around them."""
    match = _WORD.search(text)
    return ("", "") if match is None else (match[0], text[match.end() :].strip(SPACES))


def printable(text: str) -> str:
    r"""
    Return a text as it may be shown, on a terminal too: what is not printable becomes ``\x1b``.

    Spaces are kept, but for the tab; control characters, line separators, marks that change the
    direction of writing, and surrogates are not.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_json(text: str) -> str:
    """
    Return JSON as it may be shown on a terminal: the same value without what terminals obey.

    JSON requires that control characters of C0 are escaped, but not DEL, those of C1, and what
    :func:`printable` shows as escapes beside these.

    :param text: valid JSON without line ends, or a part of one.
    """
    return text if text.isprintable() else "".join(map(_shown_in_json, text))


def _is_shown(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _shown(character: str) -> str:
    if _is_shown(character):
        return character
    return character.encode("unicode_escape").decode()


def _shown_in_json(character: str) -> str:
    if _is_shown(character):
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
