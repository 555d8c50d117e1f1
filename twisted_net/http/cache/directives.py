"""
What a message says about caching: ``Cache-Control``, ``Pragma``, and fields for one kind of cache.

RFC 9111 §5.2 and §5.4, RFC 9213, and as much of RFC 8941 as the latter needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from twisted_net.http.fields import HeaderFields

NEVER = 2**31
"""What a number of seconds too large to be held counts as (RFC 9111 §1.2.2)."""

Directives = Mapping[str, str | None]
"""Each directive, in lower case, with its argument or None."""

_DIRECTIVE = re.compile(
    r'[ \t,]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?'
    # What follows up to the next comma says nothing; a comma in quotes is none (RFC 9110 §5.6.1).
    r'(?:"(?:[^"\\]|\\.)*"|[^,])*'
)

# Directives of RFC 9111 and RFC 5861 whose argument is a number of seconds.
_DELTAS = frozenset(
    {"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "max-stale", "min-fresh"}
)


def directives(fields: HeaderFields) -> dict[str, str | None]:
    """
    Read ``Cache-Control``: each directive, in lower case, with its argument or None.

    Of a directive that comes twice the first counts (RFC 9111 §4.2.1). What cannot be read is
    passed over. ``Pragma: no-cache`` counts where there is no ``Cache-Control`` (§5.4).
    """
    text = fields.get("cache-control")
    if text is None:
        return {"no-cache": None} if fields.get("pragma", "").lower() == "no-cache" else {}
    found: dict[str, str | None] = {}
    for match in _DIRECTIVE.finditer(text):
        name, quoted, token = match.groups()
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
        found.setdefault(name.lower(), value)
    return found


def response_directives(fields: HeaderFields, targets: tuple[str, ...] = ()) -> Directives:
    """
    Read what a response says to a cache that *targets* names, best name first.

    ``Pragma`` has no meaning in a response (RFC 9111 §5.4). A valid, non-empty field of
    *targets* takes the place of ``Cache-Control`` (RFC 9213 §2.2), whatever that says;
    :func:`is_targeted` says whether there is one, since ``Expires`` then does not count either.
    """
    for name in targets:
        said = _targeted(fields, name)
        if said is not None:
            return said
    return directives(fields) if "cache-control" in fields else {}


def is_targeted(fields: HeaderFields, targets: tuple[str, ...]) -> bool:
    """Say whether a field for one kind of cache decides (RFC 9213 §2.2)."""
    return any(_targeted(fields, name) is not None for name in targets)


def seconds(text: str | None) -> float:
    """Read a delta in seconds; 0 for what is none: invalid freshness means stale (§4.2.1)."""
    if text is None or not (text.isascii() and text.isdigit()):
        return 0.0
    text = text.lstrip("0") or "0"
    return float(min(int(text), NEVER)) if len(text) <= 10 else float(NEVER)


def named_fields(argument: str | None) -> frozenset[str]:
    """Give the field names that ``no-cache`` or ``private`` is limited to; none for all."""
    if argument is None:
        return frozenset()
    return frozenset(name.strip().lower() for name in argument.split(",") if name.strip())


def _targeted(fields: HeaderFields, name: str) -> dict[str, str | None] | None:
    text = fields.get(name)
    if text is None:
        return None
    members = parse_dictionary(text)
    if not members:
        return None
    said: dict[str, str | None] = {}
    for key, value in members.items():
        # RFC 9213 §2.1: what has another type than the directive wants is ignored.
        if key in _DELTAS:
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                said[key] = str(value)
        elif value is True:
            said[key] = None
        elif isinstance(value, str) and key in ("no-cache", "private"):
            said[key] = value
    return said


_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
_NUMBER = re.compile(r"-?(?:[0-9]{1,12}\.[0-9]{1,3}(?![0-9])|[0-9]{1,15}(?![0-9.]))")
_STRING = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_BINARY = re.compile(r":[A-Za-z0-9+/=]*:")
_BOOLEAN = re.compile(r"\?([01])")
_COMMA = re.compile(r"[ \t]*,[ \t]*")

_Item = bool | int | float | str | None


def parse_dictionary(text: str) -> dict[str, _Item] | None:
    """
    Read a dictionary of structured fields (RFC 8941 §4.2.2), or give None where it is none.

    :returns: booleans, integers, decimals and strings as such; None for a member of another type
        (a token, bytes, a list). Parameters are read over. Of a key that comes twice the last
        counts.
    """
    text = text.strip(" ")
    found: dict[str, _Item] = {}
    at = 0
    while at < len(text):
        key = _KEY.match(text, at)
        if key is None:
            return None
        at, value = key.end(), True
        item: _Item = value
        if text.startswith("=", at):
            read = (
                _inner_list(text, at + 1) if text.startswith("(", at + 1) else _item(text, at + 1)
            )
            if read is None:
                return None
            item, at = read
        parameters = _parameters(text, at)
        if parameters is None:
            return None
        at = parameters
        found[key[0]] = item
        if at == len(text):
            return found
        comma = _COMMA.match(text, at)
        if comma is None or comma.end() == len(text):
            return None
        at = comma.end()
    return found


def _item(text: str, at: int) -> tuple[_Item, int] | None:
    """A bare item and where it ends (RFC 8941 §4.2.3.1)."""
    if match := _NUMBER.match(text, at):
        number = match[0]
        return (float(number) if "." in number else int(number)), match.end()
    if match := _STRING.match(text, at):
        return re.sub(r"\\(.)", r"\1", match[1]), match.end()
    if match := _BOOLEAN.match(text, at):
        return match[1] == "1", match.end()
    if match := _TOKEN.match(text, at) or _BINARY.match(text, at):
        return None, match.end()
    return None


def _inner_list(text: str, at: int) -> tuple[_Item, int] | None:
    """The end of a list in parentheses (RFC 8941 §4.2.1.2); its members do not matter here."""
    at += 1
    while True:
        while text.startswith(" ", at):
            at += 1
        if text.startswith(")", at):
            return None, at + 1
        read = _item(text, at)
        if read is None:
            return None
        after = _parameters(text, read[1])
        if after is None or text[after : after + 1] not in (" ", ")"):
            return None
        at = after


def _parameters(text: str, at: int) -> int | None:
    """Where the parameters of an item end (RFC 8941 §4.2.3.2), or None where they are none."""
    while text.startswith(";", at):
        at += 1
        while text.startswith(" ", at):
            at += 1
        key = _KEY.match(text, at)
        if key is None:
            return None
        at = key.end()
        if text.startswith("=", at):
            read = _item(text, at + 1)
            if read is None:
                return None
            at = read[1]
    return at
