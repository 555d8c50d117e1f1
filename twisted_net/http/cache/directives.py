"""
Cache directives: parses ``Cache-Control``, ``Pragma`` and targeted cache-control fields.

RFC 9111 §5.2 and §5.4, RFC 9213, and as much of RFC 8941 as the latter needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from twisted_net.http.fields import TCHAR, HeaderFields, unescape

MAX_DELTA_SECONDS = 2**31
"""Stands for every larger number of seconds (RFC 9111 §1.2.2)."""

MAX_DIRECTIVES = 64
"""
Directives of a field that are parsed, by its commas, in :data:`MAX_LENGTH` characters at most.

A field with more counts as ``no-store``: a cache that does not know all of them stores nothing.
"""

MAX_LENGTH = 8192
"""Characters of such a field; parameters, and names in quotes, are no directives."""

Directives = Mapping[str, str | None]
"""The argument of each directive, by its name in lower case; None for no argument."""

_MAX_KEPT = 256
"""Characters of a field whose directives are kept parsed."""

_DIRECTIVE = re.compile(
    rf'({TCHAR}++)(?:=(?:"((?:[^"\\]|\\.)*+)"|([^\s,"]*+)))?+'
    # Text up to the next comma is skipped; one in quotes is no separator (RFC 9110 §5.6.1).
    r'(?:"(?:[^"\\]|\\.)*+"|[^,"])*+("?)',
    re.DOTALL,
)

# Directives of RFC 9111 and RFC 5861 whose argument is a number of seconds.
_DELTAS = frozenset(
    {"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "max-stale", "min-fresh"}
)

_OF_REQUESTS = frozenset(
    {"max-age", "max-stale", "min-fresh", "no-cache", "no-store", "only-if-cached"}
    | {"stale-if-error"}
)


def directives(fields: HeaderFields) -> Directives:
    """
    Parse ``Cache-Control``: return the argument, or None, of each directive in lower case.

    Of a directive that occurs twice the first counts (RFC 9111 §4.2.1). Malformed text is
    skipped, and a field over the limits is ``no-store``. Without ``Cache-Control``,
    ``Pragma: no-cache`` counts as ``no-cache`` (§5.4).
    """
    text = fields.joined("cache-control")
    if text is None:
        return {"no-cache": None} if fields.get("pragma", "").lower() == "no-cache" else {}
    return _of_text(text)


def request_directives(fields: HeaderFields) -> dict[str, str | None]:
    """
    Parse the directives of a request that a cache obeys (RFC 9111 §5.2.1, RFC 5861 §4).

    Unknown ones are ignored (§5.2.3), and ``no-transform``, as nothing is transformed here.
    """
    return {name: value for name, value in directives(fields).items() if name in _OF_REQUESTS}


def _of_text(text: str) -> Directives:
    return _kept(text) if len(text) <= _MAX_KEPT else _read(text)


def _read(text: str) -> Directives:
    return {"no-store": None} if _is_too_long(text) else _parse_directives(text)


def _is_too_long(text: str) -> bool:
    return len(text) > MAX_LENGTH or text.count(",") >= MAX_DIRECTIVES


def _parse_directives(text: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for match in _DIRECTIVE.finditer(text):
        name, quoted, token, unclosed = match.groups()
        value = unescape(quoted) if quoted is not None else token
        found.setdefault(name.lower(), value)
        if unclosed:
            # No later quote is closed either: searching for the end of each would take quadratic
            # time. A space ends a token as a quote does, and is skipped as well.
            _, _, rest = text[match.end() :].replace('"', " ").partition(",")
            return _parse_directives(rest) | found
    return found


# A server sends few different ones, and each of them is asked for several times.
_kept = lru_cache(maxsize=256)(_read)


def parse_response_directives(fields: HeaderFields, targets: tuple[str, ...] = ()) -> Directives:
    """
    Parse the directives of a response for a cache with this target list (RFC 9213 §2.2).

    A valid, non-empty field of *targets* replaces ``Cache-Control``, whatever that holds.
    ``Expires`` is ignored then too: :func:`has_targeted_field` returns whether this is the case.
    ``Pragma`` has no meaning in a response (RFC 9111 §5.4).

    :param targets: field names, the most specific first; empty for none.
    """
    for name in targets:
        targeted = _parse_targeted(fields, name)
        if targeted is not None:
            return targeted
    text = fields.joined("cache-control")
    return {} if text is None else _of_text(text)


def has_targeted_field(fields: HeaderFields, targets: tuple[str, ...]) -> bool:
    """Return whether a targeted field replaces ``Cache-Control`` (RFC 9213 §2.2)."""
    return any(_parse_targeted(fields, name) is not None for name in targets)


def seconds(text: str | None) -> float:
    """
    Parse a number of seconds (RFC 9111 §1.2.2).

    A malformed or missing one is 0, since invalid freshness information means stale (§4.2.1).
    """
    if text is None or not (text.isascii() and text.isdigit()):
        return 0.0
    text = text.lstrip("0") or "0"
    return float(min(int(text), MAX_DELTA_SECONDS)) if len(text) <= 10 else float(MAX_DELTA_SECONDS)


def listed_fields(argument: str | None) -> frozenset[str]:
    """
    Return the field names, in lower case, that ``no-cache`` or ``private`` is limited to.

    An empty set means that the directive is for the whole response.
    """
    if argument is None:
        return frozenset()
    return frozenset(name.strip().lower() for name in argument.split(",") if name.strip())


def _parse_targeted(fields: HeaderFields, name: str) -> dict[str, str | None] | None:
    text = fields.get(name)
    if text is None:
        return None
    if _is_too_long(text):
        return {"no-store": None}
    members = parse_dictionary(text)
    if not members:
        return None
    found: dict[str, str | None] = {}
    for key, value in members.items():
        # RFC 9213 §2.1: a value of another type than the directive's is ignored.
        if key in _DELTAS:
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                found[key] = str(value)
        elif value is True:
            found[key] = None
        elif isinstance(value, str) and key in ("no-cache", "private"):
            found[key] = value
    return found


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
    Parse a structured-field dictionary (RFC 8941 §4.2.2).

    :return: its members: booleans, integers, decimals and strings as such; None for a member of
        another type (a token, bytes, a list). Parameters are skipped. Of a key that occurs twice
        the last counts. None where *text* is not a dictionary.
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
    """Parse a bare item (RFC 8941 §4.2.3.1); return it and the index of its end."""
    if match := _NUMBER.match(text, at):
        number = match[0]
        return (float(number) if "." in number else int(number)), match.end()
    if match := _STRING.match(text, at):
        return unescape(match[1]), match.end()
    if match := _BOOLEAN.match(text, at):
        return match[1] == "1", match.end()
    if match := _TOKEN.match(text, at) or _BINARY.match(text, at):
        return None, match.end()
    return None


def _inner_list(text: str, at: int) -> tuple[_Item, int] | None:
    """Skip an inner list (RFC 8941 §4.2.1.2); return None for it and the index of its end."""
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
    """Skip parameters (RFC 8941 §4.2.3.2); return the index of their end, None if malformed."""
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
