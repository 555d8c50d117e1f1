"""Which requests a stored answer serves: ``Vary``, and who asked (RFC 9111 §4.1)."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

from twisted_net.http.fields import HeaderFields

USER_FIELDS = frozenset({"authorization", "cookie"})
"""
The request fields that say who asks.

One private cache may serve a program that acts for many users; what came for one of them is for
that one alone.
"""

_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t]*,[ \t]*')
_SEMICOLON = re.compile(r"[ \t]*;[ \t]*")
# Lists whose order has no meaning and whose members are in any case (RFC 9110 §12.5.3, §12.5.4).
_PREFERENCES = frozenset({"accept-encoding", "accept-language", "accept-charset"})


def vary_names(fields: HeaderFields) -> frozenset[str]:
    """Give the names that ``Vary`` lists, in lower case; ``*`` among them as it is."""
    text = fields.get("vary")
    if text is None:
        return frozenset()
    return frozenset(name.strip().lower() for name in text.split(",") if name.strip())


def variant(fields: HeaderFields, names: tuple[str, ...]) -> bytes:
    """
    Give a digest of the named request fields: requests of one digest get one answer.

    A digest, so that no credential lies in a store. It is empty where none of them is there:
    absent and empty fields differ (§4.1).
    """
    if fields.has_none(names):
        return b""
    values = tuple([fields.joined(name) for name in names])
    # Most requests of a program have the same values. Those that name a user are not remembered.
    if fields.has_none(USER_FIELDS):
        return _remembered_digest(names, values)
    return _digest(names, values)


def _digest(names: tuple[str, ...], values: tuple[str | None, ...]) -> bytes:
    digest = blake2b(digest_size=16)
    for name, value in zip(names, values, strict=True):
        digest.update(repr((name, None if value is None else _normal(name, value))).encode())
    return digest.digest()


_remembered_digest = lru_cache(maxsize=256)(_digest)


def _normal(name: str, value: str) -> str:
    """The value in a form that is one for all values of the same meaning."""
    text = _COMMA.sub(lambda match: match[1] or ",", value.strip(" \t"))
    if name not in _PREFERENCES:
        return text
    members = (_SEMICOLON.sub(";", member) for member in text.lower().split(","))
    return ",".join(sorted(member for member in members if member))
