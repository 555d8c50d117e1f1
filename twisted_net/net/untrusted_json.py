"""Untrusted JSON: decoded so that all that a stranger can send ends as a value or as one error."""

from __future__ import annotations

import re
from array import array
from itertools import accumulate
from typing import Any, Generic, TypeVar

import msgspec

MAX_DEPTH = 256
"""
Levels of arrays and objects within each other that are accepted.

Python can decode more than it can then print, compare or encode, and how much depends on how deep
the calls are at that moment. Documents of people and programs rarely have 20 levels.
"""

VALUE_SIZE = 96
"""Bytes of a decoded value, at most, beside its characters: an array of one member has 88."""

MEMBER_SIZE = 128
"""Bytes by which an object, and each member of it with its name, exceed that, at most."""

MAX_LARGE_EXPONENTS = 100
"""
Numbers with an exponent of three digits that are accepted.

msgspec takes 40 us for each of many of them, from ``1e289`` on: 64 KiB of these took 0.3 s.
"""

_T = TypeVar("_T")


class JsonDecoder(Generic[_T]):
    """
    Decodes JSON of one type.

    :param type: any type that msgspec decodes into.
    """

    def __init__(self, type: Any) -> None:  # noqa: A002  # Any: of any form; msgspec's word
        self._decode = msgspec.json.Decoder(type).decode

    def __call__(self, data: bytes) -> _T:
        """
        Return the value.

        :raises msgspec.DecodeError: for anything that is not JSON, in UTF-8, of this type, with at
            most :data:`MAX_DEPTH` levels and :data:`MAX_LARGE_EXPONENTS`. It is a ValueError.
        """
        check_numbers(data)
        try:
            value: _T = self._decode(data)
        except RecursionError:
            raise msgspec.DecodeError("it is nested too deeply") from None
        # To find out that there cannot be as many levels takes a tenth of decoding.
        if data.count(b"[") + data.count(b"{") > MAX_DEPTH and depth(data) > MAX_DEPTH:
            raise msgspec.DecodeError("it is nested too deeply")
        return value


def check_numbers(data: bytes) -> None:
    """
    Check that the numbers of a JSON text do not take long to decode, before it is decoded.

    :raises msgspec.DecodeError: for more than :data:`MAX_LARGE_EXPONENTS`.
    """
    limit = MAX_LARGE_EXPONENTS
    if (
        len(data) > len("1e289") * limit
        and _large_exponents(data) > limit
        and _large_exponents(_structure(data, b"")) > limit
    ):
        raise msgspec.DecodeError(f"it has more than {limit} numbers with large exponents")


def _large_exponents(data: bytes) -> int:
    """Count the exponents of three digits and more; what looks like one in a string is counted."""
    kinds = data.translate(_EXPONENTS)
    return kinds.count(b"e000") + kinds.count(b"e+000")


def depth(data: bytes) -> int:
    """
    Return how many levels of arrays and objects a JSON text has.

    It takes about as long as decoding.

    :param data: valid JSON.
    """
    steps = array("b", _structure(data, _NOT_BRACKETS).translate(_STEPS))
    return max(accumulate(steps), default=0)


def has_more_values(data: bytes, limit: int) -> bool:
    """
    Return whether a JSON text has more values than a limit, before it is decoded.

    Each member of an array or object is one, and each array and object; an empty one counts twice.
    It takes a tenth of decoding, or as long as decoding if strings have many commas or brackets.

    :param data: JSON; if it is not valid, the answer has no meaning.
    """
    if len(data) <= limit or _count(data, b",[{") < limit:
        return False
    return _count(_structure(data, _NOT_MEMBERS), b",[{") >= limit


def decoded_size(data: bytes) -> int:
    """
    Return an upper bound of the bytes that a JSON text takes decoded: some ten times its own.

    :param data: valid JSON.
    """
    # A character beyond Latin-1 makes each of its string take four bytes.
    width = 1 if data.isascii() and rb"\u" not in data else 4
    values, members = 1 + _count(data, b",[{"), _count(data, b":{")
    return len(data) * width + values * VALUE_SIZE + members * MEMBER_SIZE


def _count(data: bytes, characters: bytes) -> int:
    return sum(map(data.count, characters))


def _structure(data: bytes, removed: bytes) -> bytes:
    """Return a JSON text without its strings, and without the bytes of *removed*."""
    if b"\\" in data:
        data = data.replace(rb"\\", b"").replace(rb"\"", b"")
    # Two quotes that meet are removed first, as a search is slower: what is left between the
    # others remains inside or outside of a string, as it was.
    return _STRING.sub(b"", data.translate(None, removed).replace(b'""', b""))


_NOT_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_NOT_MEMBERS = bytes(set(range(256)) - set(b',[{"'))
_EXPONENTS = bytes.maketrans(b"123456789E-", b"000000000e+")
_STRING = re.compile(rb'"[^"]*+"')
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # 1 and -1 as signed bytes

decode_json: JsonDecoder[Any] = JsonDecoder(Any)  # Any: any JSON
"""Decodes any JSON."""
