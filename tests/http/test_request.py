"""Tests of :mod:`twisted_net.http.request`; :mod:`tests.http.test_client` has more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.http.fakes import HttpTestCase
from twisted_net.http.errors import InvalidURL
from twisted_net.http.request import RequestBody, _EncodedUrl, encode_url
from twisted_net.http.urls import parse_target

_SAFE = "abcXYZ019-._~/=&"


class EncodeTests(HttpTestCase):
    """:func:`encode_url` encodes a URL for the wire."""

    @given(path=st.text(_SAFE, max_size=20), query=st.none() | st.text(_SAFE, max_size=20))
    def test_short_way(self, path: str, query: str | None) -> None:
        """The shortcut returns what the full encoding does."""
        url = f"http://h.example:81/{path}" + ("" if query is None else f"?{query}")
        self.assertEqual(encode_url(url), _EncodedUrl.encode(url).to_text())

    def test_long_way(self) -> None:
        """All other URLs are encoded, or refused."""
        self.assertEqual(encode_url("http://h/ü?ä b#c"), "http://h/%C3%BC?%C3%A4%20b#c")
        self.assertRaises(InvalidURL, encode_url, "http://[x/")

    def test_no_secret_in_the_error(self) -> None:
        """The error does not contain user name and password."""
        for url in ("//me:s3cret@[h/ü", "me:s3cret@h/ü", "//me:s3cret@h:1:2/ü", "//me:s3cret@h ü/"):
            with self.subTest(url=url):
                error = self.assertRaises(InvalidURL, lambda u: parse_target(encode_url(u)), url)
                self.assertNotIn("s3cret", str(error))


class BodyTests(HttpTestCase):
    """:class:`RequestBody` says whether treq is needed."""

    def test_ready(self) -> None:
        """Bytes and no body are plain; forms, files and queries are not."""
        for body in (RequestBody(), RequestBody(data=b"x"), RequestBody(data=b"")):
            self.assertTrue(body.is_plain)
        for body in (
            RequestBody({"a": 1}),
            RequestBody(data={"a": 1}),
            RequestBody(files={"f": object()}),
        ):
            self.assertFalse(body.is_plain)
