"""
Serialization of cache entries, for stores that outlive the process.

The format is derived from the declaration of :class:`~twisted_net.http.cache.entry.Entry`: adding,
removing or retyping a field there changes the format here, and :data:`FORMAT` with it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from types import GenericAlias
from typing import Any, Final, get_type_hints

import attrs
import msgspec

from twisted_net.http.cache.entry import Entry
from twisted_net.http.fields import HeaderFields


def encode_head(entry: Entry) -> bytes:
    """Return all of *entry* but its body as bytes; the body is bytes already, and may be large."""
    return _encoder.encode([getattr(entry, name) for name in _NAMES])


def decode_head(head: bytes, body: bytes) -> Entry:
    """
    Return the entry that :func:`encode_head` encoded, with *body*.

    :raises ValueError: if *head* is malformed.
    """
    values = _decoder.decode(head)
    # By position, which takes half the time that names do.
    return _make(
        *values[:_FIELDS],
        HeaderFields(values[_FIELDS]),
        *values[_FIELDS + 1 : _BODY],
        body,
        *values[_BODY:],
    )


def format_of(record: type) -> int:
    """Return a hash, of 31 bits, of the fields of an attrs class, their order and their types."""
    hints = get_type_hints(record)
    fields = [
        (each.name, msgspec.inspect.type_info(hints[each.name]))
        for each in attrs.fields(record)
        if each.init
    ]
    return zlib.crc32(repr(fields).encode()) & 0x7FFF_FFFF


FORMAT: Final = format_of(Entry)
"""Identifies the format: bytes with another number must not be decoded."""


def _encode_hook(value: object) -> object:
    if isinstance(value, HeaderFields):
        return value.pairs
    raise TypeError(f"an entry holds a {type(value).__name__}, which has no serialized form")


_ARGUMENTS = [each.name for each in attrs.fields(Entry) if each.init and not each.kw_only]
_BODY = _ARGUMENTS.index("body")
_NAMES = [name for name in _ARGUMENTS if name != "body"]
_FIELDS = _NAMES.index("fields")
_HINTS = get_type_hints(Entry) | {"fields": tuple[tuple[str, str], ...]}
_make: Callable[..., Entry] = Entry
_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_hook)
# Any: the type is made from the declaration of Entry, which mypy cannot follow.
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(
    GenericAlias(tuple, tuple(_HINTS[name] for name in _NAMES))
)
