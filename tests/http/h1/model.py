"""
A slow, obvious reader of responses: one character after the other, as the grammar says.

It has the whole stream, and says what must be made of it; no message of an error, but where in the
body it is found.
"""

from __future__ import annotations

from attrs import frozen

from twisted_net.http.h1.chunked import MAX_CHUNK_LINE, OVERHEAD_RATIO, OVERHEAD_RESERVE
from twisted_net.http.h1.heads import MAX_HEAD_LINES
from twisted_net.http.h1.messages import MAX_INTERIM_RESPONSES

TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
HEX_DIGITS = "0123456789abcdefABCDEF"
SPACE = " \t"


class Refused(Exception):
    """The response is malformed."""


class Cut(Exception):
    """The stream ends within the response."""


class TooLarge(Exception):
    """The body exceeds its limit."""


@frozen
class Request:
    """What a reader is told."""

    method: str = "GET"
    max_head: int = 64 * 2**10
    max_body: int | None = None
    close: bool = False


@frozen
class Head:
    """A head that is well-formed."""

    minor: int
    status: int
    reason: str
    fields: list[tuple[str, str]]
    strict: bool

    def all(self, name: str) -> list[str]:
        """Return all values of a field."""
        return [value for other, value in self.fields if other.lower() == name]


class Model:
    """
    Reads a stream.

    :ivar verdict: ``complete``, ``refused``, ``cut`` or ``too large``.
    """

    def __init__(self, stream: bytes, request: Request) -> None:
        self.text = stream.decode("latin-1")
        self.at = 0
        self.request = request
        self.head: Head | None = None
        self.body = ""
        self.interim: list[int] = []
        self.kept = not request.close
        self.verdict = "complete"
        try:
            self.read()
        except Refused:
            self.verdict = "refused"
        except Cut:
            self.verdict = "cut"
        except TooLarge:
            self.verdict = "too large"

    @property
    def surplus(self) -> str:
        """What follows the response."""
        return self.text[self.at :] if self.verdict == "complete" else ""

    @property
    def reusable(self) -> bool:
        """Whether the connection can be used again, while it is open."""
        return self.verdict == "complete" and self.kept and not self.surplus

    def read(self) -> None:
        """Read the response."""
        size = lines = 0
        while True:
            section = self.section(self.at, 0)
            if not section.startswith("HTTP/1."):
                raise Refused
            head = parse_head(section)
            self.kept = self.kept and persistent(head)
            if head.status == 101:
                raise Refused
            if head.status >= 200:
                break
            if framing_contradicts(head):
                self.kept = False
            self.interim.append(head.status)
            size += len(section)
            lines += section.count("\n")
            if (
                len(self.interim) > MAX_INTERIM_RESPONSES
                or size > self.request.max_head
                or lines > MAX_HEAD_LINES
            ):
                raise Refused
        self.read_body(head)

    def section(self, start: int, begun: int) -> str:
        """
        Read lines up to an empty one.

        :param begun: how many lines before *start* belong to it.
        """
        lines = begun
        for i in range(start, len(self.text)):
            if lines == 0 and i - start == 64 and not self.text.startswith("HTTP/1.", start):
                raise Refused  # this much is shown
            if i - self.begin(start, begun) >= self.request.max_head:
                raise Refused
            if self.text[i] == "\n":
                lines += 1
                if lines == 1 and not self.text.startswith("HTTP/1.", start):
                    raise Refused
                if lines > MAX_HEAD_LINES:
                    raise Refused
                before = self.text[self.begin(start, begun) : i]
                if before.endswith(("\n", "\n\r")):
                    self.at = i + 1
                    return self.text[start : i + 1]
        if not begun and not "HTTP/1.".startswith(self.text[start : start + 7]):
            raise Refused
        raise Cut

    def begin(self, start: int, begun: int) -> int:
        """Return where a section begins: a trailer section has the last chunk's line as ``0``."""
        return start - 3 if begun else start

    def read_body(self, head: Head) -> None:
        """Read the body that a head is followed by."""
        coding, length = head.all("transfer-encoding"), head.all("content-length")
        self.head = None
        tunnel = self.request.method == "CONNECT" and 200 <= head.status < 300
        if tunnel:
            self.kept = False
            self.head = head
        elif head.status in (204, 304) or self.request.method == "HEAD":
            self.kept = self.kept and not framing_contradicts(head)
            self.head = head
        elif coding:
            if length or head.minor == 0 or ", ".join(coding).lower() != "chunked":
                raise Refused
            self.head = head
            self.read_chunks()
        elif length:
            size = parse_length(length)
            self.head = head
            limit = self.request.max_body
            if limit is not None and size > limit:
                raise TooLarge
            self.body = self.text[self.at : self.at + size]
            self.at += len(self.body)
            if len(self.body) < size:
                raise Cut
        else:
            self.head, self.kept = head, False
            self.body = self.text[self.at :][: self.request.max_body]
            self.at += len(self.body)
            if self.at < len(self.text):
                raise TooLarge

    def line(self) -> str:
        """Read the line of a chunk."""
        end = self.text.find("\n", self.at, self.at + MAX_CHUNK_LINE)
        if end < 0:
            raise Refused if len(self.text) - self.at >= MAX_CHUNK_LINE else Cut
        line = self.text[self.at : end + 1]
        self.at = end + 1
        return line

    def read_chunks(self) -> None:
        """Read a body in chunks."""
        framing = total = 0
        while True:
            line = self.line()
            if not line.endswith("\r\n"):
                raise Refused
            size, _, extension = line[:-2].partition(";")
            digits = size.rstrip(SPACE)
            if not digits or any(character not in HEX_DIGITS for character in digits):
                raise Refused
            if has_control(extension) or len(digits.lstrip("0")) > 15:
                raise Refused
            length = int(digits, 16)
            if not length:
                break
            total += length
            framing += len(line) + 2
            limit = self.request.max_body
            if limit is not None and total > limit:
                raise TooLarge
            if framing > OVERHEAD_RATIO * total + OVERHEAD_RESERVE:
                raise Refused
            chunk = self.text[self.at : self.at + length]
            self.body += chunk
            self.at += len(chunk)
            end = self.text[self.at : self.at + 2]
            if len(end) < 2:
                raise Cut
            if end != "\r\n":
                raise Refused
            self.at += 2
        # The line of the last chunk counts as the first one, in its shortest form.
        text, at = self.text, self.at
        self.text, self.at = "0\r\n" + text[at:], 3
        try:
            section = self.section(3, 1)
        finally:
            self.text, self.at = text, at + self.at - 3
        _, strict = parse_fields(section)
        if not strict:
            raise Refused


def has_control(text: str) -> bool:
    """Whether a text has a control character but the tab."""
    return any((c < " " and c != "\t") or c == "\x7f" for c in text)


def parse_head(section: str) -> Head:
    """Parse a head with its empty line."""
    line, _, rest = section.partition("\n")
    strict = line.endswith("\r")
    line = line.removesuffix("\r")
    version, status, reason = line[:8], line[8:12], line[12:]
    if version[:7] != "HTTP/1." or len(version) < 8 or version[7] not in DIGITS:
        raise Refused
    if len(status) < 4 or status[0] != " " or any(c not in DIGITS for c in status[1:]):
        raise Refused
    if status[1] == "0" or (reason and reason[0] != " ") or has_control(reason):
        raise Refused
    fields, rest_strict = parse_fields(rest)
    return Head(int(version[7]), int(status), reason[1:], fields, strict and rest_strict)


def parse_fields(section: str) -> tuple[list[tuple[str, str]], bool]:
    """Parse field lines with their empty line; and whether each ends with CR LF."""
    ended = section.split("\n")[:-1]
    strict = all(line.endswith("\r") for line in ended)
    lines = [line.removesuffix("\r") for line in ended][:-1]
    unfolded: list[str] = []
    for line in lines:
        if has_control(line):
            raise Refused
        if line[0] in SPACE:
            if not unfolded:
                raise Refused
            unfolded[-1] += " " + line.lstrip(SPACE)
        else:
            unfolded.append(line)
    fields = []
    for line in unfolded:
        name, colon, value = line.partition(":")
        if not colon or not name or any(c not in TOKEN for c in name):
            raise Refused
        fields.append((name, value.strip(SPACE)))
    return fields, strict


def persistent(head: Head) -> bool:
    """Whether a connection is kept, by the head (RFC 9112 §9.3)."""
    options = [
        option.strip(SPACE).lower()
        for value in head.all("connection")
        for option in value.split(",")
    ]
    if "close" in options or not head.strict:
        return False
    return head.minor > 0 or "keep-alive" in options


def parse_length(values: list[str]) -> int:
    """Return the one length that all values say."""
    said = {value.strip(SPACE) for value in ",".join(values).split(",")}
    one = said.pop()
    if said or not one or any(c not in DIGITS for c in one) or len(one.lstrip("0")) > 15:
        raise Refused
    return int(one)


def framing_contradicts(head: Head) -> bool:
    """Whether the framing of a response without a body is not that of one."""
    coding, length = head.all("transfer-encoding"), head.all("content-length")
    if not coding and not length:
        return False
    if coding:
        if length or head.minor == 0 or ", ".join(coding).lower() != "chunked":
            return True
        size = -1
    else:
        try:
            size = parse_length(length)
        except Refused:
            return True
    return size != 0 and (head.status < 200 or head.status == 204)
