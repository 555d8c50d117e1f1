"""Tests of :mod:`twisted_net.http.urls`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.errors import InvalidURL
from twisted_net.http.urls import (
    MAX_URL,
    HttpTarget,
    encode_url,
    join,
    parse_target,
    resolve,
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

    def test_one_spelling(self) -> None:
        """An IPv4 address has one spelling, whatever the URL has."""
        for host in ("0x7f.1", "127.1", "0177.0.0.1", "2130706433", "127.0.0.1."):
            with self.subTest(host=host):
                self.assertEqual(parse_target(f"http://{host}/").host, "127.0.0.1")
        self.assertEqual(parse_target("http://[0:0::0:1]/").url, "http://[::1]/")

    def test_final_dot(self) -> None:
        """TLS names a host without its final dot (RFC 6066 §3); all else keeps it."""
        target = parse_target("https://a.example./")
        self.assertEqual(target.url, "https://a.example./")
        self.assertEqual(target.server_name, "a.example")

    def test_port(self) -> None:
        """An empty port is the default one; leading zeros do not count."""
        self.assertEqual(parse_target("http://a:/").port, 80)
        self.assertEqual(parse_target("http://a:00000080/").port, 80)
        self.assertEqual(parse_target("http://a:0000000081/").url, "http://a:81/")

    def test_empty_query(self) -> None:
        """A question mark without a query stays."""
        self.assertEqual(parse_target("http://a/?").url, "http://a/?")
        self.assertEqual(parse_target("http://a?#x").url, "http://a/?")

    def test_dot_segments(self) -> None:
        """They are removed (RFC 3986 §5.2.4), percent-encoded ones too; a query has none."""
        for path, expected in (
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a//../b", "/a/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/%2E%2e/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e./b", "/b"),
            ("/mid/content=5/../6", "/mid/6"),
            ("/a/...", "/a/..."),
            ("/a/.b/c.", "/a/.b/c."),
            ("/a/%252e%252e/b", "/a/%252e%252e/b"),
            ("/a/..;/b", "/a/..;/b"),
            ("/a?/../b", "/a?/../b"),
        ):
            with self.subTest(path=path):
                self.assertEqual(parse_target(f"http://h{path}").path, expected)

    def test_long_fragment(self) -> None:
        """A fragment, which is not sent, does not count."""
        self.assertEqual(parse_target("http://a/#" + "x" * MAX_URL).url, "http://a/")

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
            "http://a:000/",
            "http://a:0000065536/",
            "http://a..b/",
            "http://./",
            "http://" + "a" * 64 + "/",
            "http://1.2.3.4.5/",
            "http://[::ffff:127.1]/",
            "http://[::1]a/",
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


class EncodeTests(SynchronousTestCase):
    """:func:`encode_url` encodes a URL for the wire."""

    def test_encoded(self) -> None:
        """Path and query are percent-encoded as UTF-8; what is encoded already stays."""
        for url, expected in (
            ("http://h/ü?ä b#c d", "http://h/%C3%BC?%C3%A4%20b"),
            ("http://h/%e9%C3é", "http://h/%e9%C3%C3%A9"),
            ("http://h/100%", "http://h/100%"),
            (
                'http://h/a"<>[\\]^`{|}\r\n\t\x7fb',
                "http://h/a%22%3C%3E%5B%5C%5D%5E%60%7B%7C%7D%0D%0A%09%7Fb",
            ),
            (
                "http://h/!$&'()*+,/:;=@~?!$&'()*+,/:;=@~?",
                "http://h/!$&'()*+,/:;=@~?!$&'()*+,/:;=@~?",
            ),
            ("  http://h/  ", "http://h/"),
            ("http://h:/", "http://h/"),
            ("http://h:/é", "http://h/%C3%A9"),
            ("http://h/é?", "http://h/%C3%A9?"),
            ("http://h?", "http://h/?"),
            ("http://bücher.example:81?é", "http://xn--bcher-kva.example:81/?%C3%A9"),
            ("http://[::1]:81/é", "http://[::1]:81/%C3%A9"),
        ):
            with self.subTest(url=url):
                self.assertEqual(encode_url(url), expected)
                self.assertEqual(encode_url(expected), expected)

    def test_refused(self) -> None:
        """What is no URL is refused, also what becomes one only by the encoding of its host."""
        for url in (
            "",
            "h/é",
            "http://",
            "http://é@h/",
            "http://h\\@é/",
            "http://℀.example/",
            "http://h/\ud800",
            "http://h:é/",
            "http://[x/",
        ):
            with self.subTest(url=ascii(url)):
                error = self.assertRaises(InvalidURL, encode_url, url)
                str(error).encode()

    def test_what_is_wrong(self) -> None:
        """What was left out is named, and a scheme before the host that it has not."""
        for url, said in (
            ("h.example/p", "it is not an absolute URL, which begins with http:// or https://"),
            ("localhost:80", "which begins with http:// or https://"),
            ("http:/h.example", "which begins with http:// or https://"),
            ("file:///etc/passwd", "its scheme is neither http nor https"),
            ("http:///p", "its host is empty"),
        ):
            error = self.assertRaises(InvalidURL, encode_url, url)
            self.assertIn(said, error.reason)

    def test_long(self) -> None:
        """A URL that is too long is refused before it is encoded."""
        for letter in "aé %":
            url = "http://h/" + letter * MAX_URL + "b"
            self.assertIn("longer", str(self.assertRaises(InvalidURL, encode_url, url)))

    @given(st.text(max_size=40))
    def test_anything(self, text: str) -> None:
        """What is encoded is in ASCII, and does not change when it is encoded again."""
        try:
            encoded = encode_url("http://h/" + text)
        except InvalidURL:
            return
        self.assertEqual(encode_url(encoded), encoded)
        parse_target(encoded)


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

    def test_rfc_3986(self) -> None:
        """The examples of §5.4."""
        for reference, expected in (
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g#s", "http://a/b/c/g"),
            ("g?y#s", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("http:g", "http://a/b/c/g"),
            ("mailto:x", "mailto:x"),
            ("?", "http://a/b/c/d;p?"),
            ("g?", "http://a/b/c/g?"),
        ):
            with self.subTest(reference=reference):
                self.assertEqual(join("http://a/b/c/d;p?q", reference), expected)


class ResolveTests(SynchronousTestCase):
    """:func:`resolve` reads ``Location`` as servers send it."""

    def test_octets(self) -> None:
        """Octets beyond ASCII and spaces are percent-encoded, whether they are UTF-8 or not."""
        for octets, expected in (
            ("/caf\u00e9 x?\u00e9 y".encode(), "http://h/caf%C3%A9%20x?%C3%A9%20y"),
            (b"/caf\xe9 x", "http://h/caf%E9%20x"),
            ("//b\u00fccher.example/".encode(), "http://xn--bcher-kva.example/"),
            (b"/a%20b#c", "http://h/a%20b"),
            (b"/a/../%2e%2e/b", "http://h/b"),
            (b"?", "http://h/x?"),
        ):
            with self.subTest(octets=octets):
                self.assertEqual(resolve("http://h/x?y", octets.decode("latin-1")).url, expected)
        self.assertEqual(resolve("http://h/x", "/\u20ac").url, "http://h/%E2%82%AC")

    def test_refused(self) -> None:
        """What is no URL of HTTP is refused."""
        for location in (
            "http://[x/",
            "http:///a",
            "///a",
            "javascript:x",
            "//b\xfc/",
            "//1.2.3.999/",
            "//a..b/",
        ):
            with self.subTest(location=location):
                self.assertRaises(InvalidURL, resolve, "http://a/", location)

    def test_no_secret_in_the_error(self) -> None:
        """The error does not contain user name and password."""
        for reference in ("http://me:s3cret@[x/", "//me:s3cret@h\u2100/"):
            error = self.assertRaises(InvalidURL, resolve, "http://a/", reference)
            self.assertNotIn("s3cret", str(error))
