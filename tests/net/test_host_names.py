"""Tests of :mod:`twisted_net.net.host_names`."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.host_names import (
    MAX_LABEL,
    MAX_NAME,
    canonical_host,
    canonical_network,
)


class CanonicalHostTests(SynchronousTestCase):
    """:func:`canonical_host` returns one spelling of each host, and refuses what is none."""

    def test_names(self) -> None:
        """Names are in lower case, and by IDNA; a final dot stays."""
        for text, expected in (
            ("Example.ORG", "example.org"),
            ("example.org.", "example.org."),
            ("a_b.internal", "a_b.internal"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("a_b.BÜCHER.example", "a_b.xn--bcher-kva.example"),
            ("faß.example", "xn--fa-hia.example"),
            ("a\u3002b\uff0ec", "a.b.c"),
            ("ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "localhost"),
            ("1e3", "1e3"),
            ("0xg", "0xg"),
            ("1.2.3.a", "1.2.3.a"),
            ("9.example", "9.example"),
        ):
            with self.subTest(text=text):
                self.assertEqual(canonical_host(text), expected)

    def test_ipv4(self) -> None:
        """A host that ends in a number is an IPv4 address, in any spelling of WHATWG's standard."""
        for text in (
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "0x7f.0x0.0x.0x1",
            "0177.0.0.01",
            "017700000001",
            "127.0.0.0x1",
            "0x00007f.0.0.1",
            "127\u30020\u30020\u30021",
            "\uff11\uff12\uff17.1",
            "①②⑦.1",
        ):
            with self.subTest(text=text):
                self.assertEqual(canonical_host(text), "127.0.0.1")
        self.assertEqual(canonical_host("0"), "0.0.0.0")
        self.assertEqual(canonical_host("0x"), "0.0.0.0")
        self.assertEqual(canonical_host("1.2.65535"), "1.2.255.255")

    def test_no_ipv4(self) -> None:
        """A host that ends in a number and is no address is refused: it is no name either."""
        for text in (
            "256.0.0.1",
            "1.2.3.256",
            "1.2.65536",
            "4294967296",
            "0x100000000",
            "1.2.3.4.5",
            "1.2.3.08",
            "09",
            "a.b.1",
            "example.0x1",
            "_.1",
            "9" * MAX_LABEL,
        ):
            with self.subTest(text=text):
                error = self.assertRaises(ValueError, canonical_host, text)
                self.assertIn("not an IPv4 address", str(error))

    def test_ipv6(self) -> None:
        """An IPv6 address has its shortest form, without brackets and dots."""
        for text, expected in (
            ("[::1]", "::1"),
            ("[0:0:0:0:0:0:0:1]", "::1"),
            ("[2001:DB8::0:1]", "2001:db8::1"),
            ("[::ffff:127.0.0.1]", "::ffff:7f00:1"),
            ("[::127.0.0.1]", "::7f00:1"),
        ):
            with self.subTest(text=text):
                self.assertEqual(canonical_host(text), expected)
        for text in ("[", "[]", "[::1", "[::1%25eth0]", "[::g]", "[1.2.3.4]", "[::ffff:127.1]"):
            with self.subTest(text=text):
                self.assertRaises(ValueError, canonical_host, text)

    def test_labels(self) -> None:
        """Labels and names have the lengths of RFC 1035 §2.3.4, and no label is empty."""
        longest = ".".join(["a" * MAX_LABEL] * 3 + ["b" * (MAX_NAME - 3 * MAX_LABEL - 3)])
        self.assertEqual(canonical_host(longest + "."), longest + ".")
        for text, reason in (
            ("", "empty"),
            (".", "empty"),
            ("..", "empty label"),
            (".a", "empty label"),
            ("a..b", "empty label"),
            ("a..", "empty label"),
            ("é..b", "empty label"),
            ("a" * (MAX_LABEL + 1), "longer than 63"),
            ("é" * MAX_LABEL, "by IDNA"),
            (longest + "c", "longer than 253"),
            ("é" * (MAX_NAME + 1), "longer than 253"),
        ):
            with self.subTest(text=text[:9]):
                self.assertIn(reason, str(self.assertRaises(ValueError, canonical_host, text)))

    def test_refused(self) -> None:
        """What URL parsers differ about, and what is no host, is refused."""
        for text in (
            "%31",
            "a b",
            "a\\b",
            "a/b",
            "℀.example",
            "-a",
            "a*",
            "☃.net",
            "a\0",
            "\ud800",
        ):
            with self.subTest(text=ascii(text)):
                self.assertRaises(ValueError, canonical_host, text)

    @given(st.text(max_size=30) | st.text("0123456789.xXaf", max_size=20))
    def test_stable(self, text: str) -> None:
        """The canonical form is that of itself, and in ASCII."""
        try:
            host = canonical_host(text)
        except ValueError:
            return
        self.assertTrue(host.isascii())
        self.assertEqual(canonical_host(f"[{host}]" if ":" in host else host), host)


class CanonicalNetworkTests(SynchronousTestCase):
    """:func:`canonical_network` returns networks as addresses are compared with them."""

    def test_mapped(self) -> None:
        """A network of IPv4-mapped addresses is that of IPv4; others are as they are."""
        for text, expected in (
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:127.0.0.1", "127.0.0.1/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
        ):
            self.assertEqual(canonical_network(text), ip_network(expected))
        self.assertRaises(ValueError, canonical_network, "10.0.0.1/8")
        self.assertRaises(ValueError, canonical_network, "127.1")
