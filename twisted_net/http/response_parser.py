"""
Fast parser for a response that arrives complete in one read; limits of the header of any other.

Most responses of an API arrive so. Twisted's parser reads a response line by line and prepares for
a body that arrives later, which costs more than all other work of a client for one request.
Anything unusual or ambiguous is left to that parser.
"""

from __future__ import annotations

import re

from attrs import frozen

from twisted_net.http.errors import BadResponse

MAX_HEAD_LINES = 256
"""
Lines of a response's header, those of interim responses before it included.

Usual responses have fewer than 50. A line takes 3 us, and an interim response, which has two, 15:
64 KiB of them took 70 ms of one reactor turn.
"""

_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
# Possessive: a value may begin with spaces too, and backtracking over them would be quadratic.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*+([\x20-\x7e\x80-\xff]*)")
_NEEDS_FULL_PARSER = frozenset({b"transfer-encoding", b"connection", b"upgrade", b"trailer"})
_WITHOUT_BODY = frozenset({204, 304})


@frozen(slots=True)
class ParsedResponse:
    """
    A complete response.

    :param fields: name and value of each line, in order, without ``Content-Length``.
    """

    code: int
    phrase: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes


def parse_complete_response(data: bytes, max_head: int) -> ParsedResponse | None:
    """
    Parse *data* if it is exactly one response to a request other than HEAD; else return None.

    It returns None also if the length is not stated by exactly one ``Content-Length``, and for
    everything that needs the full parser: other versions, interim responses, folded lines,
    connection-specific fields, a header over *max_head* bytes or many lines.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or end + 4 > max_head or data.count(b"\n", 0, end + 4) > MAX_HEAD_LINES:
        return None
    lines = data[:end].split(b"\r\n")
    status = _STATUS.fullmatch(lines[0])
    if status is None:
        return None
    fields = []
    length = None
    for line in lines[1:]:
        match = _FIELD.fullmatch(line)
        if match is None:
            return None
        name, value = match.groups()
        folded = name.lower()
        if folded == b"content-length":
            if length is not None or not value.isdigit() or len(value) > 15:
                return None
            length = int(value)
            continue  # as in Twisted's parser, which puts it into IResponse.length
        if folded in _NEEDS_FULL_PARSER:
            return None
        fields.append((name, value.rstrip()))
    code = int(status[1])
    if length != len(data) - end - 4 or code in _WITHOUT_BODY:
        return None
    return ParsedResponse(code, status[2], fields, data[end + 4 :])


class HeadLimit:
    """
    Limits one header, which may come in any number of pieces.

    :param max_bytes: bytes over which it is refused, by :meth:`check`.
    """

    __slots__ = ("_lines", "_max_bytes", "_size")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._lines = 0

    def cut(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the part of the next bytes that may be parsed, and what follows the last line."""
        left = MAX_HEAD_LINES - self._lines
        lines = data.count(b"\n")
        rest = b"" if lines <= left else data.split(b"\n", left)[-1]
        self._lines += min(lines, left)
        self._size += len(data) - len(rest)
        return data[: len(data) - len(rest)], rest

    def check(self, rest: bytes) -> None:
        """
        Check a header that is not complete yet.

        :param rest: what was cut off.
        :raises BadResponse: if it exceeds a limit.
        """
        if self._size > self._max_bytes:
            raise BadResponse(f"its header is larger than {self._max_bytes} bytes")
        if rest:
            raise BadResponse(f"its header has more than {MAX_HEAD_LINES} lines")
