"""Tests of :mod:`twisted_net.http.request`; :mod:`tests.http.test_client` has more."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.web.http_headers import Headers

from tests.http.fakes import FakeAgent, HttpTestCase, canned
from twisted_net.http.call import Call
from twisted_net.http.errors import InvalidURL
from twisted_net.http.request import (
    MAX_COOKIE_ATTRIBUTES,
    MAX_COOKIE_SIZE,
    MAX_COOKIES,
    RequestBody,
    RequestSender,
    _EncodedUrl,
    usual_cookies,
)
from twisted_net.http.retry.settings import RetryPolicy


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
    """:func:`usual_cookies` returns what a browser would keep."""

    def test_number(self) -> None:
        """The first of many are kept."""
        lines = [f"a{i}=b" for i in range(MAX_COOKIES + 5)]
        self.assertEqual(usual_cookies(lines), lines[:MAX_COOKIES])

    def test_large(self) -> None:
        """One that is too long, or has too many attributes, is not kept; the others are."""
        longest = "a=" + "b" * (MAX_COOKIE_SIZE - 2)
        most = "a=b" + "; c" * MAX_COOKIE_ATTRIBUTES
        found = usual_cookies(["x=1", longest, most, longest + "b", most + ";", "y=2"])
        self.assertEqual(found, ["x=1", longest, most, "y=2"])

    def sent_cookies(
        self, lines: list[tuple[str, str]], cookies: dict[str, str] | None
    ) -> set[str]:
        """Return the cookies of the request after a response with these fields."""
        agent = FakeAgent([canned(headers=lines), canned()])
        url = "http://1.2.3.4/"
        reactor = cast(Any, MemoryReactorClock())  # Any: reactors have no one type
        call = Call(None, RetryPolicy(), None, 0)
        sender = RequestSender(agent, call, reactor, None, url, cookies)
        for _ in range(2):
            sending = sender.send("GET", url, Headers(), RequestBody())
            self.successResultOf(Deferred.fromCoroutine(sending))
        return set(agent.sent[1].header("cookie")[0].split("; "))

    def test_old_field(self) -> None:
        """``Set-Cookie2`` (RFC 2965), which nobody sends, is not parsed."""
        lines = [("Set-Cookie", "a=b"), ("Set-Cookie2", "c=d; Version=1")]
        for cookies in (None, {"own": "1"}):
            found = self.sent_cookies(lines, cookies)
            self.assertEqual(found - {"own=1"}, {"a=b"})

    def test_both_ways(self) -> None:
        """Cookies are limited whether treq makes the request or not."""
        for cookies in (None, {"own": "1"}):
            with self.subTest(cookies=cookies):
                lines = [("Set-Cookie", f"a{i}=b") for i in range(MAX_COOKIES + 5)]
                sent = self.sent_cookies(lines, cookies)
                self.assertEqual(len(sent), MAX_COOKIES + len(cookies or {}))
