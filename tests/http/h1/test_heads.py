"""Tests of :mod:`twisted_net.http.h1.heads`; what is read of responses is in ``hostile.py``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.errors import BadResponse
from twisted_net.http.h1.heads import (
    CHUNKED,
    MAX_SHOWN,
    UNTIL_CLOSE,
    HeadAssembler,
    check_trailer,
    has_close,
    parse_response_head,
    shown,
)


class HeadTests(SynchronousTestCase):
    """:func:`parse_response_head` returns what a head says."""

    def test_fields(self) -> None:
        """Names and values as they were sent, without white space; the same in any case."""
        head = parse_response_head(
            b"HTTP/1.0 404 Not\tFound\xfc\r\nX-A:b\r\nx-a: \t c  d \t\r\nE:\r\n\r\n", "GET"
        )
        self.assertEqual((head.minor, head.status, head.reason), (0, 404, "Not\tFound\xfc"))
        self.assertEqual(head.fields.pairs, (("X-A", "b"), ("x-a", "c  d"), ("E", "")))
        self.assertEqual(head.fields["X-a"], "b, c  d")
        self.assertEqual((head.length, head.persistent), (UNTIL_CLOSE, False))

    def test_folds(self) -> None:
        """A folded line is one, with a space for each fold (RFC 9112 §5.2)."""
        head = parse_response_head(
            b"HTTP/1.1 200 OK\r\nX: a\r\n\t b\r\n c \r\nY:\r\n d\r\n \r\n\r\n", "GET"
        )
        self.assertEqual(head.fields.pairs, (("X", "a b c"), ("Y", "d")))

    def test_framing(self) -> None:
        """A coding is chunked in any case; a length has zeros before it, or is there twice."""
        for field, length in (
            (b"Transfer-Encoding:chunked \r\n", CHUNKED),
            (b"transfer-encoding: CHUNKED\r\n", CHUNKED),
            (b"Content-Length: 007\r\n", 7),
            (b"Content-Length: 7 , 7\r\ncontent-length: 7\r\n", 7),
            (b"Content-Length: %d\r\n" % (10**15 - 1), 10**15 - 1),
        ):
            head = parse_response_head(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n", "GET")
            self.assertEqual((head.length, head.persistent), (length, True))
        head = parse_response_head(b"HTTP/1.1 200 OK\r\n\r\n", "GET")
        self.assertEqual((head.length, head.persistent), (UNTIL_CLOSE, False))
        for field in (b"Content-Length: %d\r\n" % 10**15, b"Content-Length: 7,, 7\r\n"):
            data = b"HTTP/1.1 200 OK\r\n" + field + b"\r\n"
            self.assertRaises(BadResponse, parse_response_head, data, "GET")

    def test_trailer(self) -> None:
        """A trailer section is held to the same rules, and each of its lines to CR LF."""
        for section in (b"0\r\nX: y \r\n z\r\n\r\n", b"0\r\n\r\n"):
            check_trailer(section)
        for section in (b"0\r\nX\r\n\r\n", b"0\r\nX: y\n\r\n"):
            self.assertRaises(BadResponse, check_trailer, section)


class AssemblerTests(SynchronousTestCase):
    """:class:`HeadAssembler` ends a section with its first empty line."""

    def test_any_cut(self) -> None:
        """What follows is not taken, however it is cut."""
        for end in (b"\r\n\r\n", b"\n\n", b"\n\r\n", b"\r\n\n"):
            head = b"HTTP/1.1 200 OK\r\nX: y" + end
            stream = b"--" + head + b"\r\n\r\n\n\nbody"
            for cut in range(2, len(stream)):
                assembler = HeadAssembler(1000)
                section, position = assembler.take(stream[:cut], 2)
                if section is None:
                    self.assertEqual(position, cut)
                    section, position = assembler.take(stream, cut)
                self.assertEqual((section, position), (head, 2 + len(head)))


class CloseTests(SynchronousTestCase):
    """:func:`has_close` finds the option ``close``."""

    def test_values(self) -> None:
        """It is a member of a list, in any case."""
        for value in ("close", "Close", "x,close", "close , x", "\tCLOSE\t", ",close,"):
            self.assertTrue(has_close(value), value)
        for value in ("", "closed", "x-close", "x close", "close x", "x", "clos\u00e9"):
            self.assertFalse(has_close(value), value)


class ShownTests(SynchronousTestCase):
    """:func:`shown` shows what a terminal can, and not too much."""

    def test_cut(self) -> None:
        """A long line is cut."""
        self.assertEqual(shown(b"a" * MAX_SHOWN), f'"{"a" * MAX_SHOWN}"')
        self.assertEqual(shown(b"a" * (MAX_SHOWN + 1)), f'"{"a" * MAX_SHOWN}…"')

    def test_printable(self) -> None:
        """Controls are escaped."""
        self.assertEqual(shown(b"a\x1b[2J\x85\xe9\n"), '"a\\x1b[2J\\x85é\\n"')
