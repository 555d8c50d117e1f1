"""
Heads of HTTP/1.1 responses, from bytes: status line, fields, framing of the body (RFC 9112).

A trailer section is read by the same rules as a header section, but nothing is made of its fields.
"""

from __future__ import annotations

import re

from attrs import define

from twisted_net.http.errors import BadResponse
from twisted_net.http.fields import TCHAR, HeaderFields
from twisted_net.http.h1.plain_heads import plain_head
from twisted_net.net.characters import printable

MAX_HEAD_LINES = 256
"""
Lines of a head or a trailer section, with the status line and the empty line at its end.

Usual responses have fewer than 50. It bounds the time for one head to some 0.1 ms.
"""

CHUNKED = -1
"""The length of a body that comes in chunks."""

UNTIL_CLOSE = -2
"""The length of a body that ends with the connection."""

MAX_SHOWN = 60
"""Bytes of a malformed line that an error shows."""

_LOOKED_AT = MAX_SHOWN + 5
"""Bytes of a head that tell whether it is one: more than are shown, so that errors say so."""

_VISIBLE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LINE_END = re.compile(r"\r?\n")

# Of text whose lines end with CR LF and have none of them within. They begin with a literal, which
# a search is fastest with, and take all that they can: no text makes them search twice.
_STATUS_LINE = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([^\r\n]*))?(?=\r?\n)")
_FIELD_LINE = re.compile(rf"\n({TCHAR}++):[ \t]*+([^\r]*)")
_FOLD = re.compile(r"\r\n[ \t]++")
_NAME = re.compile(rf"{TCHAR}++(?=:)")

_EMPTY_LINE = re.compile(rb"\n\r?\n")
_CLOSE = re.compile(r"(?<![^,])[ \t]*+(?i:close)[ \t]*+(?![^,])")
_KEEP_ALIVE = re.compile(r"(?<![^,])[ \t]*+(?i:keep-alive)[ \t]*+(?![^,])")

_MAX_DIGITS = 15
"""Digits of a length but for zeros before it: 999 TB at most."""

_SAME = re.compile(r"([0-9]++)(?:[ \t]*+,[ \t]*+\1(?![0-9]))*+")
_LENGTH = re.compile(rf"0*([0-9]{{1,{_MAX_DIGITS}}})")


@define(eq=False)
class ResponseHead:
    """
    The head of a response.

    :ivar minor: of the version HTTP/1.x.
    :ivar status: 100 to 999. RFC 9110 §15: those over 599 are to be taken as 5xx.
    :ivar reason: the reason phrase, which may be empty.
    :ivar length: bytes of the body; or :data:`CHUNKED`, or :data:`UNTIL_CLOSE`.
    :ivar persistent: whether the connection may be used for another request, once the body has
        been read to its end.
    """

    minor: int
    status: int
    reason: str
    fields: HeaderFields
    length: int
    persistent: bool


def parse_response_head(head: bytes, method: str) -> ResponseHead:
    """
    Parse a head.

    :param head: one head, with the empty line at its end and no other one.
    :param method: of the request, in upper case; the framing of the body depends on it.
    :raises BadResponse: if it is malformed, or the end of its body is not known for certain.
    """
    plain = plain_head(head)
    if plain is not None:
        return framed_head(*plain, strict=True, method=method)
    return parse_lines(head, method)


def parse_lines(head: bytes, method: str) -> ResponseHead:
    """
    Parse a head that is not plain, all of its lines at once.

    It does as :func:`parse_response_head`, also with one that is.
    """
    text = head.decode("latin-1")
    found = _STATUS_LINE.match(text)
    if found is None:
        raise bad_start(head)
    minor, status, reason = found.groups()
    fields, strict = _parse_fields(head, text, found.end(), "header")
    start = minor, int(status), reason or ""
    return framed_head(start, fields, strict=strict, method=method)


def framed_head(
    start: tuple[str, int, str], fields: HeaderFields, *, strict: bool, method: str
) -> ResponseHead:
    """
    Return a head that was taken apart, with the framing of its body.

    :param start: the minor version, status and reason phrase.
    :param strict: whether all lines end with CR LF.
    :raises BadResponse: if the end of the body is not known for certain.
    """
    minor, status, reason = start
    # RFC 9112 §2.2: a line may end with LF alone. Where one end of a connection reads that and the
    # other does not, one response is taken for another, so it ends with this one.
    connection = fields.joined("connection")
    if connection is None:
        persistent = strict and minor != "0"
    else:
        persistent = strict and _is_persistent(minor, connection)
    if status < 200 or status in (204, 304) or method == "HEAD":
        length = 0
        persistent = persistent and _is_framed_without_body(status, minor, fields)
    elif method == "CONNECT" and status < 300:
        length = 0
    else:
        length = _body_length(minor, fields)
        persistent = persistent and length != UNTIL_CLOSE
    return ResponseHead(int(minor), status, reason, fields, length, persistent)


def check_trailer(section: bytes) -> None:
    """
    Check a trailer section, whose fields are not used (RFC 9110 §6.5.1).

    :param section: the line of the last chunk, the field lines, and the empty line.
    :raises BadResponse: if it is malformed.
    """
    text = section.decode("latin-1")
    _, strict = _parse_fields(section, text, 0, "trailer")
    if not strict:
        # As in the lines of chunks, and unlike in a head: no server that sends chunks does this.
        raise BadResponse("a line of its trailer ends without a carriage return")


def bad_start(head: bytes) -> BadResponse:
    """Return the error for what begins as no response of HTTP/1 does."""
    line = head[:_LOOKED_AT].partition(b"\n")[0].removesuffix(b"\r")
    if head.startswith(b"HTTP/1."):
        return BadResponse(f"its status line is malformed: {shown(line)}")
    return BadResponse(f"it is not HTTP/1: {shown(line)}")


def shown(line: bytes) -> str:
    """Return the beginning of what the server sent, printable and in quotes."""
    more = "…" if len(line) > MAX_SHOWN else ""
    return f'"{printable(line[:MAX_SHOWN].decode("latin-1"))}{more}"'


def _parse_fields(data: bytes, text: str, start: int, section: str) -> tuple[HeaderFields, bool]:
    """
    Parse field lines.

    :param text: *data* as text.
    :param start: where in it the first line ends, which is none of them.
    :return: the fields, and whether all lines end with CR LF.
    """
    lines = data.count(b"\r\n")
    pairs = _FIELD_LINE.findall(text, start)
    # Without visible characters, only line ends may be left. This is done in C, and faster than a
    # class of characters in a regular expression.
    strict = data.translate(None, _VISIBLE) == b"\r\n" * lines
    if not strict or len(pairs) != lines - 2:
        first, *others = _LINE_END.split(text)
        if any(map(_CONTROL.search, [first, *others])) or others[0].startswith((" ", "\t")):
            raise _malformed(first, others, section)
        # RFC 9112 §5.2: a client unfolds lines.
        text = _FOLD.sub(" ", "\r\n".join(["", *others]))
        pairs = _FIELD_LINE.findall(text)
        if len(pairs) != text.count("\n") - 2:
            raise _malformed(first, others, section)
    if " \r" in text or "\t\r" in text:
        pairs = [(name, value.rstrip(" \t")) for name, value in pairs]
    return HeaderFields.of_text(pairs), strict


def _malformed(first: str, lines: list[str], section: str) -> BadResponse:
    """
    Return the error for the first line of a section that is not well-formed.

    It does not show values, which may be secret.
    """
    control = _CONTROL.search(first)
    if control is not None:
        return BadResponse(f"its status line has a control character, {printable(control[0])}")
    line = ""
    for i, line in enumerate(lines):
        found, control = _NAME.match(line), _CONTROL.search(line)
        if found is not None and control is not None:
            field, character = shown(found[0].encode()), printable(control[0])
            return BadResponse(f"its field {field} has a control character, {character}")
        if found is None and (control is not None or i == 0 or line[:1] not in (" ", "\t")):
            break
    name, colon, _ = line.encode("latin-1").partition(b":")
    return BadResponse(
        f"a line of its {section} is malformed; it begins with {shown(name + colon)}"
    )


def _is_persistent(minor: str, connection: str) -> bool:
    """Return whether a connection may be used again, by its ``Connection`` (RFC 9112 §9.3)."""
    if has_close(connection):
        return False
    return minor != "0" or _KEEP_ALIVE.search(connection) is not None


def has_close(connection: str) -> bool:
    """Return whether a value of ``Connection`` has the option ``close`` (RFC 9112 §9.6)."""
    return _CLOSE.search(connection) is not None


def _is_framed_without_body(status: int, minor: str, fields: HeaderFields) -> bool:
    """
    Return whether a response that has no body is framed as one that has none.

    It ends with its head, whatever its fields say (RFC 9112 §6.3). But where they contradict that,
    a body may follow, which the next response must not begin with.
    """
    if fields.has_none(("content-length", "transfer-encoding")):
        return True
    try:
        length = _body_length(minor, fields)
    except BadResponse:
        return False
    # RFC 9110 §8.6 and §6.1 of RFC 9112: a HEAD and a 304 have the length of another response.
    return length == 0 or (status >= 200 and status != 204)


def _body_length(minor: str, fields: HeaderFields) -> int:
    """Return the length of a body (RFC 9112 §6.3)."""
    coding, length = fields.joined("transfer-encoding"), fields.joined("content-length")
    if coding is not None:
        if length is not None:
            raise BadResponse("it has both a Content-Length and a Transfer-Encoding")
        if minor == "0":
            raise BadResponse("it has a Transfer-Encoding, and is HTTP/1.0")  # §6.1
        if coding.lower() != "chunked":
            coding = shown(coding.encode("latin-1"))
            raise BadResponse(f"its Transfer-Encoding is not chunked alone: {coding}")
        return CHUNKED
    if length is None:
        return UNTIL_CLOSE
    if len(length) <= _MAX_DIGITS and length.isdecimal():
        return int(length)
    # RFC 9110 §8.6: the same length several times is that length.
    same = _SAME.fullmatch(length)
    found = None if same is None else _LENGTH.fullmatch(same[1])
    if found is None:
        raise BadResponse(f"its Content-Length is malformed: {shown(length.encode('latin-1'))}")
    return int(found[1])


class HeadAssembler:
    """
    Assembles a head, or a trailer section, that comes in pieces.

    It ends with its first empty line. What it raises does not depend on how the bytes are cut.

    :param limit: bytes of the section; at least :data:`MAX_SHOWN` and some.
    :param section: the name of it in errors.
    :param begin: what the section begins with, and has been read already.
    """

    __slots__ = ("_buffer", "_limit", "_lines", "_section")

    def __init__(self, limit: int, section: str = "header", begin: bytes = b"") -> None:
        self._limit = limit
        self._section = section
        self._buffer = bytearray(begin)
        self._lines = begin.count(b"\n")

    def __len__(self) -> int:
        return len(self._buffer)

    def take(self, data: bytes, position: int) -> tuple[bytes | None, int]:
        """
        Take bytes from *position* on.

        :return: the section, or None while it is not complete; and the position of the first
            byte that was not taken.
        :raises BadResponse: if the section is too long, or does not begin as a head does.
        """
        buffer, limit = self._buffer, self._limit
        had = len(buffer)
        buffer += data[position : position + limit + 1 - had]
        if self._section == "header":
            self._check_start()
        found = _EMPTY_LINE.search(buffer, max(had - 2, 0))
        end = len(buffer) if found is None else found.end()
        self._lines += buffer.count(b"\n", had, min(end, limit))
        if self._lines > MAX_HEAD_LINES:
            raise BadResponse(f"its {self._section} has more than {MAX_HEAD_LINES} lines")
        if end > limit:
            raise BadResponse(f"its {self._section} is larger than {limit} bytes")
        return None if found is None else bytes(buffer[:end]), position + end - had

    def end(self) -> None:
        """
        Check what there is of a head, since nothing more comes.

        :raises BadResponse: if it does not begin as a head does.
        """
        if self._section == "header" and not b"HTTP/1.".startswith(self._buffer[:7]):
            raise bad_start(bytes(self._buffer[:_LOOKED_AT]))

    def _check_start(self) -> None:
        """Check the first line when it is there, or as much of it as an error shows."""
        buffer = self._buffer
        if not buffer.startswith(b"HTTP/1.") and (
            len(buffer) >= _LOOKED_AT or b"\n" in buffer[:_LOOKED_AT]
        ):
            raise bad_start(bytes(buffer[:_LOOKED_AT]))
