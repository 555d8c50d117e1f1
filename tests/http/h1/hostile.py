"""
Responses that are odd, malformed or hostile, and what RFC 9112 has a reader make of them.

Where an RFC leaves the choice, the row says which one was made, and why.
"""

from __future__ import annotations

from attrs import frozen

from tests.http.h1.streams import CHUNKED, HELLO, LENGTH, response


@frozen
class Row:
    """
    One response.

    :param body: what a reader makes of it; None if it is refused.
    :param error: a part of the message then.
    :param kept: whether the connection may be used again.
    :param why: the section that says so, or the reason where it leaves the choice.
    """

    name: str
    stream: bytes
    body: bytes | None = b"hello"
    error: str = ""
    kept: bool = True
    why: str = ""


def good(
    name: str, stream: bytes, why: str = "", *, kept: bool = True, body: bytes = b"hello"
) -> Row:
    """Return a response that is read."""
    return Row(name, stream, body, kept=kept, why=why)


def refused(name: str, stream: bytes, error: str, why: str = "") -> Row:
    """Return a response that is refused."""
    return Row(name, stream, None, error, False, why)


def fields(lines: bytes, body: bytes = b"hello") -> bytes:
    """Return a response with some lines before its length."""
    return response(lines + LENGTH, body)


def length(value: bytes, body: bytes = b"hello") -> bytes:
    """Return a response with a length."""
    return response(b"Content-Length: " + value + b"\r\n", body)


def chunked(body: bytes, more: bytes = b"") -> bytes:
    """Return a response whose body comes in chunks."""
    return response(CHUNKED + more, body)


def started(line: bytes) -> bytes:
    """Return a response with a status line."""
    return response(start=line)


INTERIM = b"HTTP/1.1 102 P\r\n\r\n"

MALFORMED_LENGTH = "its Content-Length is malformed: "
MALFORMED_SIZE = "the size of a chunk is malformed: "
MALFORMED_LINE = "a line of its header is malformed; it begins with "
MALFORMED_STATUS = "its status line is malformed: "
BOTH = "it has both a Content-Length and a Transfer-Encoding"
CODING = "its Transfer-Encoding is not chunked alone: "
NOT_HTTP = "it is not HTTP/1: "
CLOSED = "the connection ended while waiting for body: the server closed it "

STATUS_LINES = (
    good("no reason phrase", started(b"HTTP/1.1 200 "), "RFC 9112 §4"),
    good(
        "no space behind the status",
        started(b"HTTP/1.1 200"),
        "RFC 9112 §4 has a client ignore the reason phrase; many servers send no space",
    ),
    good(
        "HTTP/1.9", started(b"HTTP/1.9 200 OK"), "RFC 9110 §2.5: as the highest minor version known"
    ),
    good(
        "status 999",
        started(b"HTTP/1.1 999 OK"),
        "RFC 9110 §15: a client treats an invalid status as 5xx, which its callers do",
    ),
    good("a reason beyond ASCII", started(b"HTTP/1.1 200 \xfcber\tall"), "RFC 9112 §4"),
    refused("status 20", started(b"HTTP/1.1 20 OK"), MALFORMED_STATUS + '"HTTP/1.1 20 OK"'),
    refused("status 2000", started(b"HTTP/1.1 2000 OK"), MALFORMED_STATUS),
    refused("status +20", started(b"HTTP/1.1 +20 OK"), MALFORMED_STATUS),
    refused(
        "status 099", started(b"HTTP/1.1 099 OK"), MALFORMED_STATUS, "RFC 9110 §15: 100 to 999"
    ),
    refused("two spaces", started(b"HTTP/1.1  200 OK"), MALFORMED_STATUS, "RFC 9112 §4"),
    refused("a tab", started(b"HTTP/1.1\t200 OK"), MALFORMED_STATUS, "RFC 9112 §4"),
    refused("NUL in the reason", started(b"HTTP/1.1 200 \0"), r"its status line has a control"),
    refused("HTTP/2.0", started(b"HTTP/2.0 200 OK"), NOT_HTTP + '"HTTP/2.0 200 OK"'),
    refused("HTTP/1.10", started(b"HTTP/1.10 200 OK"), MALFORMED_STATUS, "RFC 9112 §2.3"),
    refused("http/1.1", started(b"http/1.1 200 OK"), NOT_HTTP, "RFC 9112 §2.3: case-sensitive"),
    refused("ICY", started(b"ICY 200 OK"), NOT_HTTP + '"ICY 200 OK"'),
    refused("no header at all (HTTP/0.9)", b"hello", NOT_HTTP + '"hello"'),
    refused("another protocol", b"SSH-2.0-x\r\n", NOT_HTTP + '"SSH-2.0-x"'),
    refused("TLS", b"\x15\x03\x01\x00\x02\x02\x46", NOT_HTTP + r'"\x15\x03\x01\x00\x02\x02F"'),
    refused("much of another protocol", b"x" * 99, NOT_HTTP + '"' + "x" * 60 + "…"),
    refused(
        "an empty line before it",
        b"\r\n" + response(),
        NOT_HTTP + '""',
        "RFC 9112 §2.2 allows servers to skip one, not clients: it is the end of something else",
    ),
)

FIELDS = (
    good("plain", response()),
    good("no space behind the colon", response(b"Content-Length:5\r\n")),
    good("white space around a value", response(b"Content-Length: \t 5 \t\r\n"), "RFC 9112 §5.1"),
    good("an empty value", fields(b"X:\r\nY: \r\n")),
    good("a value beyond ASCII", fields(b"X: \xfc\x80\xff\r\n"), "RFC 9110 §5.5: obs-text"),
    good("a colon in a value", fields(b"X: a:b\r\n")),
    good("a folded line", fields(b"X: a\r\n b\r\n"), "RFC 9112 §5.2: a client unfolds it"),
    good("a line folded twice, and empty", fields(b"X: a\r\n\tb\r\n \r\n"), "RFC 9112 §5.2"),
    refused("a fold before any field", fields(b" X: a\r\n"), MALFORMED_LINE + '" X:"'),
    refused("a fold of white space", fields(b" \r\n"), MALFORMED_LINE + '" "'),
    refused("a name with a space behind it", response(b"Content-Length : 5\r\n"), MALFORMED_LINE),
    refused("a name with a space", fields(b"X A: b\r\n"), MALFORMED_LINE + '"X A:"'),
    refused("an empty name", fields(b": b\r\n"), MALFORMED_LINE + '":"'),
    refused("a name beyond ASCII", fields(b"\xfc: b\r\n"), MALFORMED_LINE),
    refused("a control in a name", fields(b"X\x01: b\r\n"), MALFORMED_LINE + r'"X\x01:"'),
    refused("a line without a colon", fields(b"bad\r\n"), MALFORMED_LINE + '"bad"'),
    refused("a long such line", fields(b"y" * 999 + b"\r\n"), '"' + "y" * 60 + '…"'),
    refused(
        "such a line behind a fold", fields(b"X: a\r\n b\r\nbad\r\n"), MALFORMED_LINE + '"bad"'
    ),
    refused("NUL in a value", fields(b"X: a\0b\r\n"), r'"X" has a control character, \x00'),
    refused(
        "NUL behind a long name", fields(b"y" * 999 + b": \0\r\n"), "y" * 60 + '…" has a control'
    ),
    refused("bare CR in a value", fields(b"X: a\rY: b\r\n"), r"control character, \r", "§2.2"),
    refused("bare CR before LF", fields(b"X: a\rb\n"), r"control character, \r", "§2.2"),
    refused("such a line without a colon", fields(b"bad\ra\n"), MALFORMED_LINE, "§2.2"),
    refused("CR CR LF", fields(b"X: a\r\r\n"), r'"X" has a control character, \r', "§2.2"),
    refused("CR before the empty line", fields(b"\r\r\n"), MALFORMED_LINE + r'"\r"', "§2.2"),
    refused(
        "another control in a value",
        fields(b"X: a\x7f\r\n"),
        r'"X" has a control character, \x7f',
        "RFC 9110 §5.5: invalid, and a recipient may keep it; others refuse it, too",
    ),
    refused("NUL behind a fold", fields(b"X: a\r\n \0\r\n"), MALFORMED_LINE + r'" \x00"'),
    good(
        "lines that end with LF",
        response().replace(b"\r\n", b"\n"),
        "RFC 9112 §2.2 allows it, and scripts of CGI send it",
        kept=False,
    ),
    good(
        "empty lines in the body behind such a head",
        response(b"Content-Length: 6\n", b"", b"HTTP/1.1 200 OK").replace(b"\r\n", b"\n")
        + b"a\r\n\r\nb",
        "as above",
        kept=False,
        body=b"a\r\n\r\nb",
    ),
    good("one line that ends with LF", fields(b"X: a\n"), "as above", kept=False),
    good(
        "an empty line that is LF",
        response().replace(b"\r\n\r\n", b"\r\n\n"),
        "as above",
        kept=False,
    ),
    good(
        "a status line that ends with LF",
        response().replace(b"\r\n", b"\n", 1),
        "as above",
        kept=False,
    ),
    good("a fold that ends with LF", fields(b"X: a\n b\n"), "as above", kept=False),
    refused("a header of 1 MB", fields(b"X: " + b"a" * 10**6 + b"\r\n"), "larger than 65536 bytes"),
    refused(
        "5000 fields",
        fields(b"".join(b"X%d: a\r\n" % i for i in range(5000))),
        "its header has more than 256 lines",
        "RFC 9110 §5.4 lets a client discard lines; to leave some out is to misread the others",
    ),
)

LENGTHS = (
    good(
        "the same length twice",
        response(LENGTH + LENGTH),
        "RFC 9112 §6.3 item 5: processed with that value",
    ),
    good("5, 5", length(b"5, 5"), "RFC 9112 §6.3 item 5"),
    good("zeros before it", length(b"0" * 30 + b"5"), "RFC 9110 §8.6: 1*DIGIT"),
    good("a body of no bytes", length(b"0", b""), body=b""),
    refused("5 and 3", response(LENGTH + b"Content-Length: 3\r\n"), MALFORMED_LENGTH + '"5, 3"'),
    refused("5, 05", length(b"5, 05"), MALFORMED_LENGTH),
    refused("5,", length(b"5,"), MALFORMED_LENGTH),
    *(
        refused(text.decode(), length(text), f'{MALFORMED_LENGTH}"{text.decode()}"')
        for text in (b"+5", b"0_5", b"-1", b"0x5", b"9" * 30, b"", b"5 5", b"5.0", b"5;5", b"five")
    ),
    refused("superscript 5", length(b"\xb2"), MALFORMED_LENGTH),
    refused("less than said", length(b"9"), CLOSED + "after 5 of 9 bytes", "RFC 9112 §8"),
)

CODINGS = (
    good("chunked", chunked(HELLO)),
    good("CHUNKED", response(b"Transfer-Encoding: CHUNKED\r\n", HELLO), "RFC 9112 §7"),
    refused("chunked and a length", chunked(HELLO, LENGTH), BOTH, "RFC 9112 §6.3 item 3"),
    refused(
        "chunked twice", chunked(HELLO, CHUNKED), CODING + '"chunked, chunked"', "RFC 9112 §6.1"
    ),
    refused("xchunked", response(b"Transfer-Encoding: xchunked\r\n", HELLO), CODING + '"xchunked"'),
    refused(
        "gzip, chunked",
        response(b"Transfer-Encoding: gzip, chunked\r\n", HELLO),
        CODING,
        "RFC 9112 §7: a request without TE accepts none",
    ),
    refused("an empty coding", response(b"Transfer-Encoding:\r\n", HELLO), CODING + '""'),
    refused(
        "an empty list member",
        response(b"Transfer-Encoding: chunked,\r\n", HELLO),
        CODING,
        "RFC 9110 §5.6.1 has recipients skip these; here two readers may differ",
    ),
    refused("vertical tab", response(b"Transfer-Encoding: \x0bchunked\r\n", HELLO), "control"),
    refused("identity and a length", response(b"Transfer-Encoding: identity\r\n" + LENGTH), BOTH),
    refused(
        "chunked in HTTP/1.0",
        response(CHUNKED, HELLO, b"HTTP/1.0 200 OK"),
        "it has a Transfer-Encoding, and is HTTP/1.0",
        "RFC 9112 §6.1: as if the framing is faulty",
    ),
)

CHUNKS = (
    good("extensions and a trailer", chunked(b'5;a=b;c="d"\r\nhello\r\n0;e\r\nX: y\r\n\r\n')),
    good("white space around extensions", chunked(b"5 ; a\r\nhello\r\n0\t;b\r\n\r\n"), "§7.1.1"),
    good("two chunks", chunked(b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")),
    good("zeros before sizes", chunked(b"0005\r\nhello\r\n000\r\n\r\n"), "RFC 9112 §7.1: 1*HEXDIG"),
    good("many zeros", chunked(b"0" * 20 + b"5\r\nhello\r\n" + b"0" * 20 + b"\r\n\r\n")),
    good(
        "spaces behind sizes",
        chunked(b"5  \r\nhello\r\n0 \t\r\n\r\n"),
        "not in the grammar; servers that fill up the size send it, and nobody reads it otherwise",
    ),
    good("a body of no bytes", chunked(b"0\r\n\r\n"), body=b""),
    good("a folded trailer", chunked(b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"), "RFC 9112 §5.2"),
    *(
        refused(
            f"size {line!r}",
            chunked(line + b"hello\r\n0\r\n\r\n"),
            MALFORMED_SIZE,
            "RFC 9112 §7.1",
        )
        for line in (
            *(b"0x5\r\n", b"+5\r\n", b"0_5\r\n", b"-5\r\n", b"\r\n", b" 5\r\n", b"5\n", b"5 5\r\n"),
            *(b"5;\na\r\n", b"5;\0\r\n", b"5\r\r\n", b";a\r\n", b"g\r\n", b"\xb25\r\n", b"5,\r\n"),
            b"F" * 20 + b"\r\n",
        )
    ),
    refused(
        "lines that end with LF",
        chunked(b"5\nhello\n0\n\n"),
        MALFORMED_SIZE + r'"5\n"',
        "RFC 9112 §2.2 is of lines of a head; §7.1 says CRLF",
    ),
    refused("a longer chunk than said", chunked(b"5\r\nhelloXX\r\n0\r\n\r\n"), 'size says: "XX"'),
    refused("a shorter one", chunked(b"6\r\nhello\r\n0\r\n\r\n"), r'size says: "\n0"'),
    refused("LF behind a chunk", chunked(b"5\r\nhello\n0\r\n\r\n"), r'size says: "\n0"'),
    refused("a long extension", chunked(b"5;" + b"a" * 4096 + b"\r\n"), "longer than 4096 bytes"),
    refused("a trailer without a colon", chunked(b"5\r\nhello\r\n0\r\nbad\r\n\r\n"), '"bad"'),
    refused(
        "a trailer with a fold first",
        chunked(b"0\r\n X: y\r\n\r\n"),
        'malformed; it begins with " X:"',
    ),
    refused(
        "a trailer with NUL", chunked(b"0\r\nX: \0\r\n\r\n"), 'field "X" has a control character'
    ),
    refused("a trailer that ends with LF", chunked(b"0\r\nX: y\n\r\n"), "ends without a carriage"),
    refused("an empty line that is LF", chunked(b"0\r\n\n"), "ends without a carriage"),
    refused(
        "a long trailer", chunked(b"0\r\nX: " + b"y" * 70_000), "its trailer is larger than 65536"
    ),
    refused(
        "many trailers", chunked(b"0\r\n" + b"X: y\r\n" * 300), "trailer has more than 256 lines"
    ),
    refused("no last chunk", chunked(b"5\r\nhello\r\n"), CLOSED + "before the last chunk", "§8"),
    refused("no end of the last chunk", chunked(b"5\r\nhello\r\n0\r\n"), CLOSED, "§8"),
    refused(
        "much framing",
        chunked(b"1\r\nx\r\n" * 22_000),
        "its chunks are too small: 109230 bytes of framing for 21846",
    ),
)

BODIES = (
    good("until the connection ends", response(b""), "RFC 9112 §6.3 item 8", kept=False),
    good("HTTP/1.0", response(start=b"HTTP/1.0 200 OK"), "RFC 9112 §9.3", kept=False),
    good(
        "HTTP/1.0 that is kept",
        response(LENGTH + b"Connection: keep-alive\r\n", start=b"HTTP/1.0 200 OK"),
        "RFC 9112 §9.3",
    ),
    good("204 with a body", started(b"HTTP/1.1 204 No"), "§6.3 item 1", kept=False, body=b""),
    good(
        "304 with a length", response(start=b"HTTP/1.1 304 No", body=b""), "§6.3 item 1", body=b""
    ),
    good("surplus", response() + b"x", "RFC 9112 §6.3: not asked for", kept=False),
    good("surplus behind chunks", chunked(HELLO) + b"\r\n", "as above", kept=False),
    good("another response", response() * 2, "as above", kept=False),
)

INTERIMS = (
    good("103 before it", b"HTTP/1.1 103 E\r\nLink: </a>\r\n\r\n" + response(), "RFC 9110 §15.2"),
    good("100 of them", b"HTTP/1.1 102 P\r\n\r\n" * 100 + response()),
    refused("a body of one", started(b"HTTP/1.1 100 C") + response(), NOT_HTTP + '"helloHTTP/1.1'),
    refused(
        "101 that was not asked for",
        response(b"Upgrade: x\r\nConnection: upgrade\r\n", b"", b"HTTP/1.1 101 S") + response(),
        "it switches protocols, which was not asked for",
        "RFC 9110 §7.8",
    ),
    refused(
        "3000 of them",
        INTERIM * 3000 + response(),
        "more than 100 interim responses precede it",
        "RFC 9110 §15.2 has a client parse one or more; bounded, since each takes time",
    ),
    refused(
        "large ones", (INTERIM[:-2] + b"X: " + b"x" * 9000 + b"\r\n\r\n") * 9, "than 65536 bytes"
    ),
    refused(
        "long ones", (INTERIM[:-2] + b"X: y\r\n" * 50 + b"\r\n") * 9, "responses have more than 256"
    ),
)

ROWS = (*STATUS_LINES, *FIELDS, *LENGTHS, *CODINGS, *CHUNKS, *BODIES, *INTERIMS)
