"""``Vary``: which requests a stored response may be selected for (RFC 9111 §4.1)."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

from twisted_net.http.fields import HeaderFields

USER_FIELDS = frozenset({"authorization", "cookie"})
"""
The request fields that identify a user.

A private cache may serve a program that acts for many users: a response to one of them is for that
user alone.
"""

KEY_FIELDS = frozenset({"host"})
"""
The request fields that are part of the target, beside the URL (RFC 9110 §7.1).

A caller who sets ``Host`` asks for another resource than the URL names.
"""

MAX_NAMES = 64
"""Field names of ``Vary``, by its commas; more count as ``*``: no other request gets it."""

# A separator with the white space around it; or, in the group, text without a separator: a quoted
# string, closed or not, or white space. The group is matched so that the search does not restart
# at each quote or space in it, which would take quadratic time.
_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+"?|[ \t]++(?!,))|[ \t]*+,[ \t]*+', re.DOTALL)
_SEMICOLON = re.compile(r"([ \t]++(?!;))|[ \t]*+;[ \t]*+")
# Lists in any order, with case-insensitive members (RFC 9110 §12.5.3, §12.5.4).
_PREFERENCES = frozenset({"accept-encoding", "accept-language", "accept-charset"})


def vary_names(fields: HeaderFields) -> frozenset[str]:
    """
    Return the field names of ``Vary``, in lower case, and ``*`` where it is a member.

    More than :data:`MAX_NAMES` are ``*`` alone.
    """
    text = fields.get("vary")
    if text is None:
        return frozenset()
    if text.count(",") >= MAX_NAMES:
        return frozenset("*")
    return frozenset(name.strip().lower() for name in text.split(",") if name.strip())


def variant(fields: HeaderFields, names: tuple[str, ...]) -> bytes:
    """
    Return a digest of the named request fields: requests of the same digest share a response.

    It is a digest so that no credentials are in a store. It is empty where the request has none of
    the fields; an absent and an empty field differ (§4.1).
    """
    if fields.has_none(names):
        return b""
    values = tuple([fields.joined(name) for name in names])
    # Most requests of a program have the same values. Credentials must not stay in the LRU cache.
    if fields.has_none(USER_FIELDS):
        return _cached_digest(names, values)
    return _digest(names, values)


def _digest(names: tuple[str, ...], values: tuple[str | None, ...]) -> bytes:
    digest = blake2b(digest_size=16)
    for name, value in zip(names, values, strict=True):
        digest.update(repr((name, None if value is None else _normalized(name, value))).encode())
    return digest.digest()


_cached_digest = lru_cache(maxsize=256)(_digest)


def _normalized(name: str, value: str) -> str:
    """Return the value in a form that is the same for all values of the same meaning."""
    text = _COMMA.sub(lambda match: match[1] or ",", value.strip(" \t"))
    if name not in _PREFERENCES:
        return text
    members = (
        _SEMICOLON.sub(lambda match: match[1] or ";", member) for member in text.lower().split(",")
    )
    return ",".join(sorted(member for member in members if member))
