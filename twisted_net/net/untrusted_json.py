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
            most :data:`MAX_DEPTH` levels. It is a ValueError.
        """
        try:
            value: _T = self._decode(data)
        except RecursionError:
            raise msgspec.DecodeError("it is nested too deeply") from None
        # To find out that there cannot be as many levels takes a tenth of decoding.
        if data.count(b"[") + data.count(b"{") > MAX_DEPTH and depth(data) > MAX_DEPTH:
            raise msgspec.DecodeError("it is nested too deeply")
        return value


def depth(data: bytes) -> int:
    """
    Return how many levels of arrays and objects a JSON text has.

    It takes about as long as decoding.

    :param data: valid JSON.
    """
    if b"\\" in data:
        data = data.replace(rb"\\", b"").replace(rb"\"", b"")
    # Two quotes that meet are removed first, as a search is slower: what is left between the
    # others remains inside or outside of a string, as it was.
    structure = data.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    steps = array("b", _STRING.sub(b"", structure).translate(_STEPS))
    return max(accumulate(steps), default=0)


_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = re.compile(rb'"[^"]*+"')
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # 1 and -1 as signed bytes

decode_json: JsonDecoder[Any] = JsonDecoder(Any)  # Any: any JSON
"""Decodes any JSON."""
