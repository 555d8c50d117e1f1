"""Tests of :mod:`twisted_net.http.h1.plain_heads`."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.errors import BadResponse
from twisted_net.http.h1 import heads, plain_heads
from twisted_net.http.h1.plain_heads import MAX_LINES, MAX_REMEMBERED, plain_head

LINES = (
    *(
        b"Content-Type: text/plain",
        b"content-type:\ttext/html \t",
        b"Server: a",
        b"Server:",
        b"Date: x",
    ),
    *(b"Cache-Control: no-store", b"Content-Length: 5", b"Content-Length: 05", b"Vary: \xe9"),
    *(
        b"X-A: b",
        b"X-B: c",
        b"Set-Cookie: a=b",
        b"Connection: close",
        b"Transfer-Encoding: chunked",
    ),
    *(b"A : b", b": b", b"A", b" folded", b"A: b\nC: d", b"A: \x00", b"A: b\rc", b"A: \x7f", b""),
)
STATUS_LINES = (
    *(b"HTTP/1.1 200 OK", b"HTTP/1.0 404 Not Found", b"HTTP/1.1 200 ", b"HTTP/1.1 200"),
    *(b"HTTP/1.1 200 a\x00", b"HTTP/1.1 099 a", b"HTTP/2 200 OK", b"HTTP/1.1  200 OK", b""),
)


class PlainHeadTests(SynchronousTestCase):
    """A head gives the same as without what is remembered of others."""

    def setUp(self) -> None:
        self.patch(plain_heads, "_remembered", {})

    def parsed(self, head: bytes) -> object:
        """Return what a head is, or its error."""
        try:
            found = heads.parse_response_head(head, "GET")
        except BadResponse as error:
            return str(error)
        return (
            *(found.minor, found.status, found.reason, found.length, found.persistent),
            *(found.fields.pairs, dict(found.fields)),
        )

    def test_same(self) -> None:
        """Random heads of many kinds of lines, most of them remembered."""
        random = Random(1)
        plain = 0
        for _ in range(4000):
            kinds = random.choice((LINES, LINES[:9], LINES[:12]))
            lines = random.choices(kinds, k=random.randrange(6))
            ends = b"\r\n" if random.random() < 0.95 else b"\n"
            head = ends.join(
                [random.choice(STATUS_LINES[: random.choice((1, 9))]), *lines, b"", b""]
            )
            if head.count(b"\n\r\n") + head.count(b"\n\n") != 1:
                continue
            seen = self.parsed(head)
            plain += plain_head(head) is not None
            with self.subTest(head=head):
                self.patch(heads, "plain_head", lambda head: None)
                self.assertEqual(seen, self.parsed(head))
                self.patch(heads, "plain_head", plain_head)
        self.assertGreater(plain, 500)

    def test_remembered(self) -> None:
        """Lines that others may have are remembered, of names that have no secrets."""
        head = b"HTTP/1.1 200 OK\r\nServer: a\r\nDate: b\r\nSet-Cookie: c=d\r\nX: y\r\n\r\n"
        for _ in range(8):
            plain_head(head)
        self.assertEqual(set(plain_heads._remembered), {b"Server: a", b"Date: b"})
        self.assertIsNotNone(plain_head(head))
        self.assertEqual(len(plain_heads._remembered), 2)

    def test_bounded(self) -> None:
        """No more than the limit are remembered, and none that is long."""
        for _ in range(3):
            plain_head(b"HTTP/1.1 200 OK\r\nServer: a\r\nAge: 1\r\n\r\n")
        for i in range(MAX_REMEMBERED + 5):
            plain_head(b"HTTP/1.1 200 OK\r\nServer: a\r\nDate: %d\r\nAge: 1\r\n\r\n" % i)
            self.assertLessEqual(len(plain_heads._remembered), MAX_REMEMBERED)
        plain_heads._remembered.clear()
        for _ in range(3):
            plain_head(b"HTTP/1.1 200 OK\r\nServer: a\r\nDate: %s\r\n\r\n" % (b"x" * 200))
        self.assertEqual(list(plain_heads._remembered), [b"Server: a"])

    def test_many(self) -> None:
        """Of a head with many new lines one is remembered each time."""
        lines = b"".join(b"Date: %d\r\n" % i for i in range(60))
        for i in range(1, 20):
            self.assertIsNone(plain_head(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n"))
            self.assertEqual(len(plain_heads._remembered), i)

    def test_lines(self) -> None:
        """The lines of a head that has too many are not looked at."""
        line = b"Date: a"
        for lines, looked_up in ((MAX_LINES - 2, MAX_LINES - 2), (MAX_LINES - 1, 0), (9000, 0)):
            remembered = CountedTable({line: plain_heads._parse(line)})
            self.patch(plain_heads, "_remembered", remembered)
            head = b"\r\n".join([b"HTTP/1.1 200 OK", *[line] * lines, b"", b""])
            with self.subTest(lines=lines):
                self.assertIsNone(plain_head(head))
                self.assertEqual(remembered.looked_up, looked_up)


class CountedTable(dict[bytes, Any]):
    """Counts how often it is asked."""

    looked_up = 0

    def get(self, key: bytes, default: Any = None) -> Any:
        self.looked_up += 1
        return super().get(key, default)
