"""Tests of :mod:`twisted_net.http.urls`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.errors import InvalidURL
from twisted_net.http.urls import (
    MAX_URL,
    HttpTarget,
    join,
    parse_target,
    split_credentials,
)


class ParseTargetTests(SynchronousTestCase):
    """:func:`parse_target` parses URLs that can be sent, and refuses all others."""

    def test_parts(self) -> None:
        """Scheme, host, port and path are separated; the fragment is dropped."""
        target = parse_target("HTTP://Example.ORG:8080/a/b?c=d/e#f")
        self.assertEqual(target, HttpTarget("http", "example.org", 8080, "/a/b?c=d/e"))
        self.assertEqual(target.origin, ("http", "example.org", 8080))
        self.assertEqual(target.authority, "example.org:8080")

    def test_canonical(self) -> None:
        """URLs that differ by case of the host, default port or empty path are equal."""
        for url in ("http://a.b", "HTTP://A.B:80", "http://a.b:80/", "http://a.b:/#x"):
            with self.subTest(url=url):
                self.assertEqual(parse_target(url).url, "http://a.b/")
        self.assertEqual(parse_target("https://a.b:443?q").url, "https://a.b/?q")
        self.assertEqual(parse_target("https://a.b:80/").url, "https://a.b:80/")

    def test_ipv6(self) -> None:
        """An IPv6 address has brackets in the authority only."""
        target = parse_target("http://[2001:DB8::1]:81/")
        self.assertEqual(target.host, "2001:db8::1")
        self.assertEqual(target.url, "http://[2001:db8::1]:81/")
        self.assertEqual(parse_target("http://[::1]").authority, "[::1]")

    def test_refused(self) -> None:
        """Each of these is refused, most because URL parsers differ about its host."""
        for url in (
            "",
            "example.org",
            "//example.org/",
            "/path",
            "ftp://example.org/",
            "file:///etc/passwd",
            "http:/example.org",
            "http://",
            "http:///path",
            "http://?x",
            "http://:80/",
            "http://a b/",
            "http://a/ b",
            "http://a/\r\nX: y",
            "http://a/\u00e9",
            "http://b\u00fccher.example/",
            "http://a\\@b/",
            "http://user@a/",
            "http://user:pw@a/",
            "http://%31/",
            "http://[::1%25eth0]/",
            "http://[::1/",
            "http://::1/",
            "http://a:0/",
            "http://a:65536/",
            "http://a:655350/",
            "http://a:808080/",
            "http://a:99999999999999999999/",
            "http://a:-1/",
            "http://a:8o/",
            "http://-a/",
            "http://a/" + "x" * MAX_URL,
        ):
            with self.subTest(url=url[:50]):
                self.assertRaises(InvalidURL, parse_target, url)

    def test_no_secret_in_the_error(self) -> None:
        """The error shows the URL without its credentials."""
        error = self.assertRaises(InvalidURL, parse_target, "http://me:hunter2@a/?token=s3cret")
        self.assertNotIn("hunter2", str(error))
        self.assertNotIn("s3cret", str(error))
        self.assertIn("http://***@a/?token=***", str(error))

    def test_longest(self) -> None:
        """A URL of the greatest length is accepted."""
        url = "http://a/" + "x" * (MAX_URL - 9)
        self.assertEqual(parse_target(url).url, url)

    @given(st.text(max_size=60))
    def test_canonical_form_is_stable(self, text: str) -> None:
        """The canonical form of a URL parses to the same target."""
        try:
            target = parse_target("http://" + text)
        except InvalidURL:
            return
        self.assertEqual(parse_target(target.url), target)
        self.assertTrue(target.url.isascii())


class SplitCredentialsTests(SynchronousTestCase):
    """:func:`split_credentials` removes user name and password from a URL."""

    def test_none(self) -> None:
        """A URL without them is unchanged, also with an @ after the host."""
        for url in ("http://a/@b", "http://a?x@y", "http://a#x@y", "nonsense"):
            self.assertEqual(split_credentials(url), (url, None))

    def test_both(self) -> None:
        """They are decoded; they end at the last @."""
        self.assertEqual(
            split_credentials("http://m%40e:p:w@x@host:1/p"),
            ("http://host:1/p", ("m@e", "p:w@x")),
        )
        self.assertEqual(split_credentials("http://me@host"), ("http://host", ("me", "")))


class JoinTests(SynchronousTestCase):
    """:func:`join` follows RFC 3986 §5."""

    def test_relative(self) -> None:
        """A reference is resolved against its base."""
        self.assertEqual(join("http://a/b/c?d", "e"), "http://a/b/e")
        self.assertEqual(join("http://a/b/c", "/e"), "http://a/e")
        self.assertEqual(join("http://a/b", "//x/y"), "http://x/y")
        self.assertEqual(join("http://a/b", "https://x/"), "https://x/")

    def test_malformed(self) -> None:
        """A malformed reference is refused."""
        self.assertRaises(InvalidURL, join, "http://a/", "http://[x/")

    def test_no_secret_in_the_error(self) -> None:
        """The error does not contain user name and password."""
        for reference in ("http://me:s3cret@[x/", "//me:s3cret@h\u2100/"):
            error = self.assertRaises(InvalidURL, join, "http://a/", reference)
            self.assertNotIn("s3cret", str(error))
