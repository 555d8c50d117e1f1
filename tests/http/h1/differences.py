"""
Where other parsers make something else of a response than ours does, and why.

``python -m tests.http.h1.differences 100000`` compares them on so many responses, with small
changes to those of ``hostile.py``, and prints those that differ without a reason in the table. A
second argument is the seed of the first one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from zlib import crc32

from attrs import frozen

from tests.http.h1.hostile import ROWS
from tests.http.h1.mutations import mutated
from tests.http.h1.others import Verdict, of_aiohttp, of_h11, ours

PARSERS: dict[str, Callable[[bytes], Verdict]] = {"h11": of_h11, "aiohttp": of_aiohttp}

MAX_STREAM = 1000
"""Bytes of a response that is changed and compared."""


@frozen
class Difference:
    """
    A way in which verdicts differ.

    :param parsers: those that differ from ours.
    :param why: with the section.
    :param ours: in our error, where we refuse what they read.
    :param theirs: in their error, where they refuse what we read.
    :param stream: a regular expression that must be found in the stream.
    """

    parsers: tuple[str, ...]
    why: str
    ours: str = ""
    theirs: str = ""
    stream: bytes = b""

    def explains(self, parser: str, mine: Verdict, other: Verdict, stream: bytes) -> bool:
        """Whether it is this one."""
        return (
            parser in self.parsers
            and bool(mine.error) == bool(self.ours)
            and bool(other.error) == bool(self.theirs)
            and self.ours in mine.error
            and self.theirs in other.error
            and re.search(self.stream, stream) is not None
        )


BOTH = ("h11", "aiohttp")

STRICTER = (
    Difference(BOTH, "RFC 9110 §5.5 allows to keep controls", ours="has a control character"),
    Difference(
        ("h11",),
        "RFC 9110 §5.5, in a folded line",
        ours="a line of its",
        stream=rb"\n[ \t][^\n]*[\x01-\x08\x0b-\x1f\x7f]",
    ),
    Difference(BOTH, "RFC 9112 §7.1 has CRLF in trailers", ours="ends without a carriage return"),
    Difference(
        BOTH, "RFC 9112 §6.1: the framing is faulty", ours="Transfer-Encoding, and is HTTP/1"
    ),
    Difference(
        BOTH, "RFC 9112 §2.3: another version", ours="not HTTP/1", stream=rb"HTTP/[02-9]\.\d"
    ),
    Difference(
        ("aiohttp",), "RFC 9112 §2.2 is for servers", ours="not HTTP/1", stream=rb"(\A|\n)\r?\n"
    ),
    Difference(
        BOTH,
        "RFC 9112 §7.1.1: the characters of an extension",
        ours="the size of a chunk is malformed",
        stream=rb";[^\r\n]*[\x00-\x08\x0b-\x1f\x7f]",
    ),
    Difference(
        ("aiohttp",),
        "RFC 9112 §7.1 has CRLF behind a size",
        ours="the size of a chunk is malformed",
        stream=rb"(?<!\r)\n",
    ),
    Difference(
        ("aiohttp",), "RFC 9112 §7.1 has CRLF behind a chunk", ours="a chunk does not end where"
    ),
    Difference(("h11",), "RFC 9112 §6.3 item 3: ought to be an error", ours="it has both"),
    Difference(
        ("aiohttp",),
        "RFC 9112 §6.3 item 3, of a Transfer-Encoding without a coding",
        ours="it has both",
        stream=rb"(?i:Transfer-Encoding):[ \t]*\r?\n",
    ),
    Difference(
        ("aiohttp",),
        "RFC 9112 §5.1 and §5.2: white space before a colon, a fold before any field",
        ours="a line of its header is malformed",
        stream=rb"[ \t][^\n]*:|\n[ \t]",
    ),
    Difference(
        ("aiohttp",),
        "it takes white space before any field for the empty line",
        ours="within a header",
        stream=rb"\n[ \t]+\r?\n",
    ),
    Difference(
        ("aiohttp",),
        "RFC 9110 §15: a status is 100 to 999",
        ours="its status line is malformed",
        stream=rb"HTTP/1\.[0-9] 0[0-9][0-9]",
    ),
    Difference(
        ("aiohttp",),
        "RFC 9112 §2.2: it takes a bare CR before CR LF for a line end",
        ours="within a header",
        stream=rb"\r\r\n",
    ),
    Difference(("aiohttp",), "RFC 9110 §7.8: 101 was not asked for", ours="it switches protocols"),
    Difference(
        ("aiohttp",),
        "RFC 9112 §6.3 item 4 reads until the end; but §7 allows no coding without a TE",
        ours="Transfer-Encoding is not chunked alone",
    ),
    Difference(
        ("aiohttp",),
        "RFC 9112 §7.1.2: trailers are fields",
        ours="a line of its trailer is malformed",
    ),
    Difference(
        ("aiohttp",),
        "RFC 9112 §5.1: white space around the coding belongs to it there",
        ours="chunk",
        stream=rb"(?i:chunked)[ \t\r\n]*[\t\n]",
    ),
)

LAXER = (
    Difference(
        ("aiohttp",),
        "RFC 9112 §6.3 item 5: a length that is there twice",
        theirs="Duplicate Content-Length",
    ),
    Difference(
        ("aiohttp",),
        "RFC 9112 §6.3 item 5, and item 1 for a 304",
        theirs="Invalid character in Content-Length",
        stream=rb":[^\n]*(\n[ \t][^\n]*)*,|HTTP/1\.[0-9] (1|[23]04)",
    ),
    Difference(
        ("aiohttp",),
        "RFC 9112 §6.3 item 1",
        theirs="Content-Length",
        stream=rb"HTTP/1\.[0-9] (1|[23]04)",
    ),
    Difference(
        ("h11",),
        "RFC 9110 §8.6: zeros before a length",
        theirs="bad Content-Length",
        stream=rb"Content-Length:\s*0",
    ),
    Difference(
        ("h11",),
        "RFC 9112 §7.1.1: white space before an extension is removed",
        theirs="illegal chunk header",
        stream=rb"[0-9A-Fa-f][ \t]+;",
    ),
    Difference(
        ("h11",),
        "RFC 9112 §7.1: zeros before a size",
        theirs="illegal chunk header",
        stream=rb"\n0{10}",
    ),
    Difference(
        ("h11",),
        "RFC 9112 §6.3 item 1",
        theirs="Content-Length",
        stream=rb"HTTP/1\.[0-9] [23]04",
    ),
    Difference(
        ("h11",),
        "RFC 9112 §6.3 item 1",
        theirs="Only Transfer-Encoding",
        stream=rb"HTTP/1\.[0-9] [23]04",
    ),
    Difference(
        ("h11",),
        "RFC 9110 §6.5.1: trailers are apart from the header",
        theirs="Content-Length",
        stream=rb"(?s)\n0.*Content-Length",
    ),
    Difference(
        ("aiohttp",),
        "RFC 9110 §6.5.1: trailers are apart from the header",
        theirs="Content-Length can't be present with Transfer-Encoding",
        stream=rb"(?s)\n0.*Content-Length",
    ),
    Difference(("aiohttp",), "RFC 9112 §7.1.1: extensions are ignored", theirs="chunk extensions"),
    Difference(
        ("aiohttp",),
        "RFC 9110 §15.2: a final response follows any interim one",
        theirs="Data after `Connection: close`",
        stream=rb"\AHTTP/1\.[0-9] 1",
    ),
    Difference(
        ("aiohttp",),
        "RFC 9110 §2.5: a higher minor version",
        theirs="Invalid HTTP version",
        stream=rb"HTTP/1\.[2-9]",
    ),
    Difference(
        ("aiohttp",),
        "RFC 9112 §5.1: white space around the coding belongs to it there",
        stream=rb"(?i:chunked)[ \t\r\n]*[\t\n]",
    ),
)

DIFFERENCES = (*STRICTER, *LAXER)


@frozen
class Found:
    """A difference without a reason."""

    stream: bytes
    parser: str
    mine: Verdict
    other: Verdict


def unexplained(stream: bytes) -> Iterator[Found]:
    """
    Yield what the parsers differ in, on one stream, and no row explains.

    Ours must make the same of it when it is cut.
    """
    mine = ours(stream)
    i, j = sorted((crc32(stream) % (len(stream) + 1), len(stream) // 2))
    cut = ours(stream[:i], stream[i:j], stream[j:])
    if cut != mine:
        yield Found(stream, "ours", mine, cut)
    for name, parser in PARSERS.items():
        other = parser(stream)
        if not mine.agrees(other) and not any(
            row.explains(name, mine, other, stream) for row in DIFFERENCES
        ):
            yield Found(stream, name, mine, other)


def compare(count: int, seed: int) -> list[Found]:
    """Compare the parsers on so many responses; return what is not explained."""
    streams = [row.stream for row in ROWS if len(row.stream) < MAX_STREAM]
    changed = [mutated(streams[i % len(streams)], seed + i) for i in range(count)]
    return [found for stream in changed for found in unexplained(stream)]


def main() -> int:
    """Compare as many as the arguments say."""
    count, seed = [*map(int, sys.argv[1:]), *(100_000, 0)[len(sys.argv) - 1 :]]
    found = compare(count, seed)
    for one in found:
        sys.stdout.write(f"{one}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
