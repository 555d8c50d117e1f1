"""
Plain heads of responses: most lines repeat those of an earlier response, and are parsed once.

A server sends the same ``Content-Type``, ``Server`` and ``Cache-Control`` with each response, and
the same ``Date`` for a second. What is not plain is left to :mod:`twisted_net.http.h1.heads`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import count

from twisted_net.http.fields import TCHAR, HeaderFields

MAX_REMEMBERED = 1024
"""Limit of the lines that are remembered; at it all are forgotten."""

MAX_NEW = 8
"""Lines of one head that are parsed one by one, at most."""

MAX_LINE = 128
"""Bytes of a line that is remembered."""

MAX_LINES = 64
"""
Lines of a plain head, at most, with the status line and the empty line at its end.

Nobody has counted those of a head before it is here, and 64 KiB may have thousands of them.
"""

REPEATED = frozenset(
    {"accept-ranges", "access-control-allow-origin", "age", "alt-svc", "cache-control"}
    | {"connection", "content-encoding", "content-language", "content-length", "content-type"}
    | {"date", "expires", "keep-alive", "last-modified", "pragma", "referrer-policy", "server"}
    | {"strict-transport-security", "transfer-encoding", "vary", "via", "x-content-type-options"}
    | {"x-frame-options", "x-powered-by", "x-xss-protection"}
)
"""Names of the fields that are remembered: none that may have a secret."""

_turn = count()
_REPEATED = frozenset(name.encode() for name in REPEATED)

_Line = tuple[tuple[str, str], str, list[str]]
"""Name and value, the name in lower case, and the value in a list, which is not changed."""

# With visible characters only, and no white space at the end.
_PLAIN = re.compile(rf"({TCHAR}++):[ \t]*+((?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)")

_STATUS_LINE = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")

_remembered: dict[bytes, _Line] = {}


def plain_head(head: bytes) -> tuple[tuple[str, int, str], HeaderFields] | None:
    """
    Take a head apart: the minor version, status and reason phrase; and the fields.

    :param head: with the empty line at its end.
    :return: None if a line is not plain, there are more than :data:`MAX_LINES`, two fields have
        the same name, or more than :data:`MAX_NEW` or half of the fields are new: to parse all at
        once costs less then.
    """
    lines = head.split(b"\r\n", MAX_LINES)
    status_line = _status_line(lines[0]) if len(lines[0]) <= MAX_LINE else None
    # The last two are the empty line and what follows it, unless there are more lines.
    if status_line is None or lines[-2]:
        return None
    lines = lines[1:-2]
    known = list(map(_remembered.get, lines))
    new = known.count(None)
    if new > MAX_NEW or new > len(lines) // 2:
        # One at a time, each in its turn: soon most are known.
        _learn(lines[next(_turn) % len(lines)])
        return None
    pairs, index = [], {}
    for i, parsed in enumerate(known):
        if parsed is None:
            parsed = _parse(lines[i])
            if parsed is None:
                return None
        pair, name, values = parsed
        pairs.append(pair)
        index[name] = values
    if len(index) < len(pairs):
        return None
    return status_line, HeaderFields.of_parts(tuple(pairs), index)


@lru_cache(maxsize=64)
def _status_line(line: bytes) -> tuple[str, int, str] | None:
    """Parse a plain status line."""
    found = _STATUS_LINE.fullmatch(line.decode("latin-1"))
    return None if found is None else (found[1], int(found[2]), found[3])


def _learn(line: bytes) -> None:
    """Remember a line, if others may be the same."""
    if line.partition(b":")[0].lower() in _REPEATED:
        _parse(line)


def _parse(line: bytes) -> _Line | None:
    """Parse a plain line, and remember it if others may be the same."""
    found = _PLAIN.fullmatch(line.decode("latin-1"))
    if found is None:
        return None
    name, value = found.groups()
    lower = name.lower()
    parsed = (name, value), lower, [value]
    if lower in REPEATED and len(line) <= MAX_LINE:
        if len(_remembered) >= MAX_REMEMBERED:
            _remembered.clear()
        _remembered[line] = parsed
    return parsed
