"""
The short way for a response that came whole in one piece, as most answers of an API do.

Twisted's parser goes through a response line by line and builds the machinery for a body that is
still to come, which costs more than all else that a client does for one. Whatever is unusual, or
could be read in more than one way, is left to that parser.
"""

from __future__ import annotations

import re

from attrs import frozen

_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
# Possessive: a value may begin with spaces too, and to share them out anew is quadratic work.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*+([\x20-\x7e\x80-\xff]*)")
_LEFT_TO_THE_PARSER = frozenset({b"transfer-encoding", b"connection", b"upgrade", b"trailer"})
_WITHOUT_BODY = frozenset({204, 304})


@frozen(slots=True)
class Whole:
    """
    A response that is all there.

    :param fields: name and value of each line, in order, without ``Content-Length``.
    """

    code: int
    phrase: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes


def read_whole(data: bytes, max_head: int) -> Whole | None:
    """
    Read a response to a request other than HEAD, if *data* is exactly that, from end to end.

    None where it is not, where its length is not stated once by ``Content-Length``, and for all
    that a parser should look at more closely: other versions, interim responses, folded lines,
    the fields of one connection only, a header over *max_head* bytes.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or end + 4 > max_head:
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
            continue  # as Twisted's parser has it: it is IResponse.length
        if folded in _LEFT_TO_THE_PARSER:
            return None
        fields.append((name, value.rstrip()))
    code = int(status[1])
    if length != len(data) - end - 4 or code in _WITHOUT_BODY:
        return None
    return Whole(code, status[2], fields, data[end + 4 :])
