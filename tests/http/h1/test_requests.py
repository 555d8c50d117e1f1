"""Tests of :mod:`twisted_net.http.h1.requests`."""

from __future__ import annotations

import h11
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.fields import HeaderFields
from twisted_net.http.h1.heads import CHUNKED
from twisted_net.http.h1.requests import RequestEncoder

TEXT = st.text("abcXYZ019-_", max_size=8) | st.text("aB-: \t\r\n\0\x7f/?é€", max_size=8)
"""What is sent as it is, and what is not or may not be."""

COMMON = [("User-Agent", "test/1"), ("Accept", "*/*")]


class RequestEncoderTests(SynchronousTestCase):
    """:class:`RequestEncoder` encodes heads that nothing can break out of."""

    def encoder(self) -> RequestEncoder:
        """Return one for a host."""
        return RequestEncoder("a.test:8080", COMMON)

    def test_get(self) -> None:
        """Request line, ``Host`` first, the common fields and those of the call."""
        head, closes = self.encoder().encode(
            "GET", "/a?b=c", HeaderFields([("X", " y\t"), ("X", "z")])
        )
        self.assertEqual(
            head,
            b"GET /a?b=c HTTP/1.1\r\nHost: a.test:8080\r\nUser-Agent: test/1\r\nAccept: */*\r\n"
            b"X: y\r\nX: z\r\n\r\n",
        )
        self.assertFalse(closes)

    def test_own_fields(self) -> None:
        """A field of the call replaces a common one; ``Host`` stays the first."""
        own = HeaderFields([("accept", "a"), ("X", "y"), ("HOST", "b")])
        head, _ = self.encoder().encode("GET", "/", own)
        self.assertEqual(
            head,
            b"GET / HTTP/1.1\r\nHOST: b\r\nUser-Agent: test/1\r\naccept: a\r\nX: y\r\n\r\n",
        )

    def test_again(self) -> None:
        """Fields that have been sent are sent as before, to another origin too."""
        own = HeaderFields([("X", " y"), ("User-Agent", "own"), ("Connection", "close")])
        for host in ("a", "a", "b"):
            head, closes = RequestEncoder(host, COMMON).encode("GET", "/", own)
            lines = b"Accept: */*\r\nX: y\r\nUser-Agent: own\r\nConnection: close\r\n\r\n"
            self.assertEqual(head, b"GET / HTTP/1.1\r\nHost: %b\r\n" % host.encode() + lines)
            self.assertTrue(closes)

    def test_framing(self) -> None:
        """It is that of the body, whatever the fields say (RFC 9112 §6)."""
        fields = HeaderFields([("content-length", "9"), ("Transfer-Encoding", "gzip")])
        for method, length, framing in (
            ("GET", None, b""),
            ("GET", 0, b"Content-Length: 0\r\n"),
            ("POST", None, b"Content-Length: 0\r\n"),
            ("PUT", 7, b"Content-Length: 7\r\n"),
            ("DELETE", None, b""),
            ("POST", CHUNKED, b"Transfer-Encoding: chunked\r\n"),
        ):
            head, _ = RequestEncoder("a").encode(method, "/", fields, length=length)
            first = b"%b / HTTP/1.1\r\nHost: a\r\n" % method.encode()
            self.assertEqual(head, first + framing + b"\r\n", (method, length))

    def test_close(self) -> None:
        """Whether the connection closes is known from all fields that are sent."""
        for common, own, closes in (
            ([], [("Connection", "close")], True),
            ([], [("connection", "x, CLOSE")], True),
            ([("Connection", "close")], [], True),
            ([("Connection", "close")], [("X", "y")], True),
            ([("Connection", "close")], [("Connection", "keep-alive")], False),
            ([("Connection", "x")], [("Connection", "close")], True),
            ([], [("X", "close")], False),
        ):
            encoder = RequestEncoder("a", common)
            self.assertEqual(
                encoder.encode("GET", "/", HeaderFields(own))[1], closes, (common, own)
            )

    def test_refused(self) -> None:
        """What cannot be sent is refused, by a sentence that shows no value."""
        encoder = self.encoder()
        for method, target, fields, text in (
            ("GE T", "/", (), '"GE T" is not a method'),
            ("GET\r\nX: y", "/", (), r'"GET\r\nX: y" is not a method'),
            ("", "/", (), "not a method"),
            ("GET", "/a b", (), "the target of a request must be"),
            ("GET", "/\r\nX: y", (), "the target"),
            ("GET", "/\xfc", (), "the target"),
            ("GET", "", (), "the target"),
            ("GET", "/", [("X Y", "z")], '"X Y" is not the name of a header field'),
            ("GET", "/", [("X:", "z")], "is not the name"),
            ("GET", "/", [("", "z")], "is not the name"),
            ("GET", "/", [("X", "z\r\nY: a")], r'"X" cannot have the character \r'),
            ("GET", "/", [("X", "z\n")], r"the character \n"),
            ("GET", "/", [("X", "\0")], r"the character \x00"),
            ("GET", "/", [("X", "\x7f")], r"the character \x7f"),
            ("GET", "/", [("X", "\u20ac")], "the character \u20ac"),
            ("GET", "/", [("Host", "a"), ("host", "b")], "a request has one Host"),
            ("GET", "/", [("Content-Length", "\n")], "the character"),
        ):
            error = self.assertRaises(
                ValueError, encoder.encode, method, target, HeaderFields(fields)
            )
            self.assertIn(text, str(error))
        self.assertRaises(ValueError, RequestEncoder, "a\r\n")
        self.assertRaises(ValueError, RequestEncoder, "a", [("Host", "b")])

    @given(
        TEXT,
        TEXT,
        st.lists(st.tuples(TEXT.map("X{}".format), TEXT), max_size=3),
        st.sampled_from([None, 0, 5, CHUNKED]),
    )
    def test_read_back(
        self,
        method: str,
        target: str,
        fields: list[tuple[str, str]],
        length: int | None,
    ) -> None:
        """A server reads one request of what was encoded, with these fields and no others."""
        try:
            head, _ = self.encoder().encode(
                "M" + method, "/" + target, HeaderFields(fields), length=length
            )
        except ValueError:
            return
        server = h11.Connection(h11.SERVER)
        server.receive_data(head)
        request = server.next_event()
        assert isinstance(request, h11.Request)
        self.assertEqual(request.method.decode(), "M" + method)
        self.assertEqual(request.target.decode(), "/" + target)
        framing = {b"content-length", b"transfer-encoding"}
        usual = {b"host", b"user-agent", b"accept"}
        own = [name for name, _ in request.headers if name not in usual | framing]
        sent = [name.lower().encode() for name, _ in fields]
        self.assertEqual(own, [name for name in sent if name not in usual | framing])
        self.assertEqual(server.trailing_data[0], b"")
