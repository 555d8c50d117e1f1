"""Tests of :mod:`twisted_net.http.redirects`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.errors import InvalidURL
from twisted_net.http.redirects import Redirect, parse_redirect

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


class NextHopTests(SynchronousTestCase):
    """:func:`parse_redirect` follows RFC 9110 §15.4."""

    def test_methods(self) -> None:
        """The next method, for each status and method."""
        for method in METHODS:
            expected = {
                301: "GET" if method == "POST" else method,
                302: "GET" if method == "POST" else method,
                303: "HEAD" if method == "HEAD" else "GET",
                307: method,
                308: method,
            }
            for status, name in expected.items():
                with self.subTest(method=method, status=status):
                    hop = parse_redirect(method, "http://a/b", status, "c")
                    assert hop is not None
                    self.assertEqual((hop.method, hop.url), (name, "http://a/c"))
                    self.assertEqual(hop.with_body, name == method)

    def test_no_redirect(self) -> None:
        """Other statuses, and a redirect without Location, are not redirects."""
        for status in (200, 201, 300, 304, 305, 306, 404):
            self.assertIsNone(parse_redirect("GET", "http://a/", status, "/b"))
        self.assertIsNone(parse_redirect("GET", "http://a/", 302, None))

    def test_credentials(self) -> None:
        """Credentials and Host are kept for the same origin only: scheme, host and port."""
        for location, same in (
            ("/x", True),
            ("http://A:80/x", True),
            ("https://a/x", False),
            ("http://a:81/x", False),
            ("http://b/x", False),
            ("//b/x", False),
        ):
            with self.subTest(location=location):
                hop = parse_redirect("GET", "http://a/", 302, location)
                assert hop is not None
                self.assertEqual(hop.same_origin, same)

    def test_fragment(self) -> None:
        """A fragment is not sent."""
        hop = Redirect("GET", "http://a/x?y", True, True)
        self.assertEqual(parse_redirect("GET", "http://a/", 301, "x?y#z"), hop)

    def test_refused(self) -> None:
        """A redirect to a URL that cannot be requested is an error."""
        for location in ("ftp://b/", "http://me:pw@b/", "http://[", "javascript:alert(1)"):
            with self.subTest(location=location):
                self.assertRaises(InvalidURL, parse_redirect, "GET", "http://a/", 302, location)
