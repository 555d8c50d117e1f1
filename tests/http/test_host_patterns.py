"""Tests of :mod:`twisted_net.http.host_patterns`."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.host_patterns import HostPatterns


class HostPatternsTests(SynchronousTestCase):
    """:class:`HostPatterns` matches names and addresses."""

    def test_names(self) -> None:
        """A name matches itself, a domain the names below it; a final dot does not matter."""
        patterns = HostPatterns(["LocalHost.", "*.example.org", ".example.net"])
        for host in ("localhost", "localhost.", "a.example.org", "a.b.example.net"):
            self.assertTrue(patterns.has_name(host), host)
        for host in ("a.localhost", "example.org", "badexample.org", "10.0.0.1"):
            self.assertFalse(patterns.has_name(host), host)

    def test_addresses(self) -> None:
        """An address matches itself, a network the addresses of its family in it."""
        patterns = HostPatterns(["127.0.0.1", "[::1]", "10.0.0.0/8", "fd00::/8"])
        for address in ("127.0.0.1", "::1", "10.255.0.1", "fdff::1"):
            self.assertTrue(patterns.has_address(ip_address(address)), address)
        for address in ("127.0.0.2", "::2", "11.0.0.0", "fe00::"):
            self.assertFalse(patterns.has_address(ip_address(address)), address)

    def test_any_spelling(self) -> None:
        """An entry is in any spelling that a URL may have, and matches that host in all of them."""
        for entry in ("127.1", "0x7f.1", "2130706433", "::ffff:127.0.0.1", "[::ffff:7f00:1]"):
            with self.subTest(entry=entry):
                patterns = HostPatterns([entry])
                self.assertTrue(patterns.has_address(ip_address("127.0.0.1")))
                self.assertFalse(patterns.has_name("127.1"))
        patterns = HostPatterns(["Bücher.example", "*.ÉTÉ.example", "::ffff:10.0.0.0/104"])
        self.assertTrue(patterns.has_name("xn--bcher-kva.example"))
        self.assertTrue(patterns.has_name("a.xn--t-9fab.example"))
        self.assertTrue(patterns.has_address(ip_address("10.1.2.3")))

    def test_malformed(self) -> None:
        """Any other entry is refused; the message shows it."""
        for entry in (
            "",
            "a b",
            "10.0.0.1/8",
            "http://a",
            "-a",
            "a/8",
            "a..b",
            "a..",
            "1.2.3.4.5",
            "*.127.1",
            "*",
            ".",
        ):
            with self.subTest(entry=entry):
                self.assertRaises(ValueError, HostPatterns, [entry])
        error = self.assertRaises(ValueError, HostPatterns, ["A_b c"])
        self.assertIn("'A_b c' is not a host name", str(error))
