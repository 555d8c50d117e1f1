"""Tests of :mod:`twisted_net.http.response`."""

from __future__ import annotations

from typing import Any

from tests.http.fakes import HttpTestCase
from twisted_net.http import response as response_module
from twisted_net.http.errors import BadStatus, BodyMismatch
from twisted_net.http.fields import HeaderFields
from twisted_net.http.response import EXCERPT, MAX_PARAMETERS, Response

URL = "http://h.example/p"


class ResponseTests(HttpTestCase):
    """:class:`Response` decodes."""

    def response(self, body: bytes, kind: str = "", status: int = 200) -> Response:
        """Return a response."""
        return Response(
            "GET", URL, status, "", HeaderFields([("Content-Type", kind)]), body, 1, 0.0, None
        )

    def test_text(self) -> None:
        """Text is decoded by its charset, or as UTF-8; malformed bytes become U+FFFD."""
        for body, kind, text in (
            ("ü".encode(), "text/plain", "ü"),
            (b"\xfc", "text/plain; charset=ISO-8859-1", "ü"),
            (b"\xfc", 'text/plain;x=y; CHARSET="latin-1"', "ü"),
            (b"\xfc", "text/plain", "\ufffd"),
            ("ü".encode(), "text/plain; charset=nonsense", "ü"),
            ("ü".encode(), "text/plain; charset=a\0b", "ü"),
            ("ü".encode(), "text/plain; charset", "ü"),
        ):
            with self.subTest(kind=kind):
                self.assertEqual(self.response(body, kind).text(), text)

    def test_labels_of_the_web(self) -> None:
        """Old labels stand for what browsers read; a byte order mark counts more than a label."""
        for body, kind, text in (
            (b"\x93a\x94", "text/plain; charset=iso-8859-1", "\u201ca\u201d"),
            (b"\x87\x40", "text/plain; charset=shift_jis", "\u2460"),
            (b"\xef\xbb\xbf\xc3\xbc", "text/plain; charset=latin1", "ü"),
            (b"\xff\xfe\xfc\x00", "text/plain", "ü"),
            (b"\xef\xbb\xbfa", "text/plain", "a"),
        ):
            with self.subTest(body=body):
                self.assertEqual(self.response(body, kind).text(), text)

    def test_excerpt(self) -> None:
        """Of the body of an error no more is decoded than its beginning, which is shown."""

        def decode_all(*_: object) -> str:
            raise AssertionError("the whole body is decoded")

        self.patch(response_module, "decode_text", decode_all)
        for charset in ("utf-8", "shift_jis", "utf-16", "windows-1253", "nonsense"):
            response = self.response(b"\xff" * 100_000, f"a/b; charset={charset}", 500)
            error = self.assertRaises(BadStatus, response.raise_for_status)
            self.assertEqual(len(error.excerpt), EXCERPT)

    def test_many_parameters(self) -> None:
        """The charset is looked for in as many parameters as the limit says."""
        for count, text in ((MAX_PARAMETERS - 1, "ü"), (MAX_PARAMETERS, "\ufffd")):
            kind = "text/plain" + ";a=b" * count + ";charset=latin-1;c=d"
            self.assertEqual(self.response(b"\xfc", kind).text(), text)

    def test_encoding(self) -> None:
        """A caller may name another charset of the web."""
        response = self.response(b"\xe4\x80", "text/plain; charset=utf-8")
        self.assertEqual((response.encoding, response.text("windows-1252")), ("utf_8", "ä€"))
        error = self.assertRaises(ValueError, response.text, "punycode")
        self.assertIn("encoding: 'punycode' is no charset of the web", str(error))

    def test_encoding_of_a_mark(self) -> None:
        """A byte order mark decides, but not before what the caller names."""
        response = self.response(b"\xef\xbb\xbfa", "text/plain; charset=latin-1")
        self.assertEqual((response.encoding, response.text()), ("utf_8_sig", "a"))
        self.assertEqual(response.text("latin-1"), "ï»¿a")

    def test_links(self) -> None:
        """The first link of each relation type is found by it."""
        fields = [("Link", '</2>; rel="next last", </3>; rel=last'), ("Link", "<>; rel=self")]
        response = Response("GET", URL, 200, "", HeaderFields(fields), b"", 1, 0.0, None)
        self.assertEqual(
            {relation: link.url for relation, link in response.links.items()},
            {"next": "http://h.example/2", "last": "http://h.example/2", "self": URL},
        )

    def test_no_json(self) -> None:
        """What is no JSON is told by its type; an empty body, by its status."""
        for body, kind, status, said in (
            (b"", "", 204, f"the body from {URL} is empty, and no JSON; the status is 204"),
            (b"<p>", "text/HTML; charset=x", 200, f"the body from {URL} (of type text/html): JSON"),
            (b"<p>", "application/problem+json", 200, f"the body from {URL}: JSON is malformed"),
            (b"<p>", "", 200, f"the body from {URL}: JSON is malformed"),
        ):
            error = self.assertRaises(BodyMismatch, self.response(body, kind, status).json)
            self.assertIn(said, str(error))
        wrong: Any = 5
        mistake = self.assertRaises(TypeError, self.response(b"1").json, wrong)
        self.assertIn("json: Type '5' is not supported", str(mistake))

    def test_raise_for_status(self) -> None:
        """Success returns the response itself."""
        for status in (200, 204, 299):
            response = self.response(b"", status=status)
            self.assertIs(response.raise_for_status(), response)
        for status in (199, 300, 500):
            self.assertRaises(BadStatus, self.response(b"", status=status).raise_for_status)
