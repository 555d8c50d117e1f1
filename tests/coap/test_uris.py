"""Tests for :mod:`twisted_net.coap.uris`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.codec import Option
from twisted_net.coap.errors import InvalidCoapURI
from twisted_net.coap.uris import parse_uri


class ParseURITests(SynchronousTestCase):
    """:func:`parse_uri` is RFC 7252 §6.4."""

    def test_parts(self) -> None:
        """Escapes stand for bytes; a name is an option, an address and the usual port are not."""
        target = parse_uri("coap://Ex%41mple.org:5683/%7Esensors//x?a%26b&c=1")
        self.assertEqual((target.host, target.port, target.numeric), ("example.org", 5683, False))
        self.assertEqual(
            [(int(number), value) for number, value in target.options],
            [
                (3, b"example.org"),
                (11, b"~sensors"),
                (11, b""),
                (11, b"x"),
                (15, b"a&b"),
                (15, b"c=1"),
            ],
        )
        six = parse_uri("coap://[2001:db8::1]:61616/")
        self.assertEqual((six.host, six.port, six.numeric), ("2001:db8::1", 61_616, True))
        self.assertEqual(list(six.options), [(Option.URI_PORT, (61_616).to_bytes(2, "big"))])

    def test_secure(self) -> None:
        """The port of coaps is 5684; only another one is told to the server."""
        target = parse_uri("coaps://a/x")
        self.assertEqual((target.secure, target.port), (True, 5684))
        self.assertFalse(any(number == Option.URI_PORT for number, _ in target.options))
        for uri in ("coaps://a:5683/x", "coap://a:5684/x"):
            options = dict(parse_uri(uri).options)
            self.assertIn(Option.URI_PORT, options)
        self.assertFalse(parse_uri("coap://a/").secure)

    def test_dot_segments(self) -> None:
        """No segment of a path is a dot or two, escaped or not (RFC 7252 §5.10.1)."""
        for path, expected in (
            ("/a/./b", [b"a", b"b"]),
            ("/a/../b", [b"b"]),
            ("/../a", [b"a"]),
            ("/a/%2E%2e/b/", [b"b", b""]),
            ("/a/b/..", [b"a", b""]),
            ("/a/.", [b"a", b""]),
            ("/a/..", []),
            ("/.", []),
            ("/...", [b"..."]),
            ("//", [b"", b""]),
        ):
            options = parse_uri(f"coap://a{path}").options
            segments = [value for number, value in options if number == Option.URI_PATH]
            self.assertEqual(segments, expected, path)

    def test_refused(self) -> None:
        """What is no such URI is refused, with the reason."""
        for uri in ("", "coap:x", "http://a/", "coap://a:99999/", "coap://[::1/", "coap://a:0/"):
            with self.assertRaises(InvalidCoapURI):
                parse_uri(uri)
