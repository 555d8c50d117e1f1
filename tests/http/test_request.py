"""Tests of :mod:`twisted_net.http.request`; :mod:`tests.http.test_client` has more."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.web.http_headers import Headers

from tests.http.fakes import FakeAgent, HttpTestCase, canned
from twisted_net.http.bodies import collect
from twisted_net.http.errors import InvalidURL
from twisted_net.http.request import (
    MAX_COOKIE_ATTRIBUTES,
    MAX_COOKIE_SIZE,
    MAX_COOKIES,
    RequestBody,
    RequestSender,
    _EncodedUrl,
    limit_cookies,
)


class EncodedUrlTests(HttpTestCase):
    """treq sends URLs as :func:`~twisted_net.http.urls.encode_url` returns them."""

    def test_params(self) -> None:
        """Parameters are added after those of the URL, of which none changes."""
        for url, expected in (
            ("http://h/?", "http://h/?q=1"),
            ("http://h", "http://h/?q=1"),
            ("http://h/?a+b=c=d&&e", "http://h/?a+b=c=d&&e&q=1"),
            ("http://h/?a&", "http://h/?a&q=1"),
        ):
            with self.subTest(url=url):
                self.assertEqual(
                    _EncodedUrl.of(url).replace(query=[("q", "1")]).to_text(), expected
                )

    def test_no_secret_in_the_error(self) -> None:
        """The error does not contain user name and password."""
        for url in ("//me:s3cret@[h/ü", "me:s3cret@h/ü", "//me:s3cret@h:1:2/ü", "//me:s3cret@h ü/"):
            with self.subTest(url=url):
                error = self.assertRaises(InvalidURL, _EncodedUrl.of, url)
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


class CookieTests(HttpTestCase):
    """:func:`limit_cookies` keeps what a browser would keep."""

    def kept(self, *lines: str) -> list[bytes]:
        """Return the cookies that are kept."""
        response = canned(headers=[("Set-Cookie", line) for line in lines])
        return list(limit_cookies(response).headers.getRawHeaders(b"set-cookie", []))

    def test_number(self) -> None:
        """The first of many are kept."""
        lines = [f"a{i}=b" for i in range(MAX_COOKIES + 5)]
        self.assertEqual(self.kept(*lines), [line.encode() for line in lines[:MAX_COOKIES]])

    def test_large(self) -> None:
        """One that is too long, or has too many attributes, is not kept; the others are."""
        longest = "a=" + "b" * (MAX_COOKIE_SIZE - 2)
        most = "a=b" + "; c" * MAX_COOKIE_ATTRIBUTES
        found = self.kept("x=1", longest, most, longest + "b", most + ";", "y=2")
        self.assertEqual(found, [line.encode() for line in ("x=1", longest, most, "y=2")])

    def test_others(self) -> None:
        """A response without cookies is left as it is; those of RFC 2965 are dropped."""
        response = canned(headers=[("X", "y")])
        self.assertIs(limit_cookies(response), response)
        response = canned(body=b"z", headers=[("Set-Cookie", "a=b"), ("Set-Cookie2", "c=d")])
        limited = limit_cookies(response)
        self.assertFalse(limited.headers.hasHeader(b"set-cookie2"))
        self.assertEqual(self.successResultOf(collect(limited))[0], b"z")

    def test_both_ways(self) -> None:
        """Cookies are limited whether treq makes the request or not."""
        for cookies in (None, {"own": "1"}):
            with self.subTest(cookies=cookies):
                lines = [("Set-Cookie", f"a{i}=b") for i in range(MAX_COOKIES + 5)]
                agent = FakeAgent([canned(headers=lines), canned()])
                url = "http://1.2.3.4/"
                reactor = cast(Any, MemoryReactorClock())  # Any: reactors have no one type
                sender = RequestSender(agent, reactor, None, url, cookies)
                for _ in range(2):
                    sending = sender.send("GET", url, Headers(), RequestBody())
                    self.successResultOf(Deferred.fromCoroutine(sending))
                sent = agent.sent[1].header("cookie")[0].split("; ")
                self.assertEqual(len(sent), MAX_COOKIES + len(cookies or {}))
