"""Tests for :mod:`twisted_net.net.addresses`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain, count

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.addresses import (
    UNIX,
    ClientNames,
    client_prefix,
    format_address,
    is_local,
    is_loopback,
    is_numeric,
    network_of,
    networks_around,
    parse_ip,
    spellings_of,
    unix_host,
)

NAMES = ("localhost", "example.org", "2130706433", "0x7f.1", "127.1", "127.0.0.1.example", "")


class SpellingsOfTests(SynchronousTestCase):
    """:func:`spellings_of` is the same set, whichever spelling it is asked for."""

    def test_same(self) -> None:
        """All spellings of an address have the same ones; an IPv4 address has two more, mapped."""
        for host, others in (
            ("192.0.2.1", ("::ffff:192.0.2.1", "::ffff:c000:201")),
            ("2001:DB8:0:0::1", ("2001:db8::1",)),
            ("FE80::1%2", ("fe80::1%2",)),
        ):
            for other in others:
                self.assertIn(other, spellings_of(host))
                self.assertEqual(spellings_of(other), spellings_of(host))

    def test_others(self) -> None:
        """Without its zone an address is another one; a name is written in one way."""
        self.assertNotIn("fe80::1", spellings_of("fe80::1%2"))
        self.assertNotIn("fe80::1%2", spellings_of("fe80::1"))
        for host in (*NAMES, UNIX, unix_host(7)):
            self.assertEqual(spellings_of(host), {host})


class FormatAddressTests(SynchronousTestCase):
    """:func:`format_address` writes ``host:port``."""

    def test_families(self) -> None:
        """An IPv6 host stands in brackets, its scope kept; a name is written as it is."""
        for host, written in (
            ("10.1.2.3", "10.1.2.3:9"),
            ("::1", "[::1]:9"),
            ("fe80::1%2", "[fe80::1%2]:9"),
            ("example.org", "example.org:9"),
            ("unix", "unix:9"),
            ("unix:uid=1000", "unix:uid=1000:9"),
        ):
            self.assertEqual(format_address(host, 9), written)

    def test_all_interfaces(self) -> None:
        """An empty host is all of IPv4."""
        self.assertEqual(format_address("", 1), "0.0.0.0:1")


class ClientNamesTests(SynchronousTestCase):
    """:class:`ClientNames` numbers the clients that have the same address."""

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from(["::1", "a#b"]), st.integers(0, 9))))
    def test_model(self, events: list[tuple[bool, str, int]]) -> None:
        """Each gets the smallest number that is free, whoever has left before."""
        taken: dict[str, None] = {}
        names = ClientNames(taken)
        for opens, host, place in events:
            if opens:
                address = format_address(host, 1)
                numbered = (f"{address}#{number}" for number in count(2))
                expected = next(name for name in chain([address], numbered) if name not in taken)
                name = names.free_name(host, 1)
                self.assertEqual(name, expected)
                taken[name] = None
            elif taken:
                name = list(taken)[place % len(taken)]
                del taken[name]
                names.release(name)
        for name in list(taken):
            del taken[name]
            names.release(name)
        self.assertEqual(names._numbers, {})


class ParseTests(SynchronousTestCase):
    """:func:`parse_ip` and :func:`is_numeric` accept the standard spellings alone."""

    def test_addresses(self) -> None:
        """Both families are parsed, with a scope too; IPv4-mapped addresses become IPv4."""
        self.assertEqual(parse_ip("192.0.2.1"), ip_address("192.0.2.1"))
        self.assertEqual(parse_ip("fe80::1%lo"), ip_address("fe80::1%lo"))
        self.assertEqual(parse_ip("::ffff:192.0.2.1"), ip_address("192.0.2.1"))
        self.assertTrue(is_numeric("127.0.0.1") and is_numeric("::1"))

    def test_names(self) -> None:
        """Names, brackets and numbers that only libc reads as addresses are not addresses."""
        for text in (*NAMES, "[::1]", UNIX):
            self.assertIsNone(parse_ip(text), text)
            self.assertFalse(is_numeric(text), text)


class LoopbackTests(SynchronousTestCase):
    """:func:`is_loopback` and :func:`is_local` know this machine's addresses."""

    def test_loopback(self) -> None:
        """127.0.0.0/8 and ``::1`` are loopback in whatever spelling; nothing else is."""
        for host in (
            *("127.0.0.1", "127.255.255.255", "::1", "0:0:0:0:0:0:0:1", "::1%lo"),
            *("::ffff:127.0.0.1", "::ffff:127.8.8.8", "::FFFF:7f00:1"),
        ):
            self.assertTrue(is_loopback(host), host)
        for host in (
            *(*NAMES, UNIX, "0.0.0.0", "::", "192.0.2.1", "128.0.0.1", "12.7.0.0"),
            *("::ffff:192.0.2.1", "::2", "2001:db8::127.0.0.1", "::127.0.0.1", "fe80::1%lo"),
        ):
            self.assertFalse(is_loopback(host), host)

    @given(st.ip_addresses())
    def test_as_the_library(self, address: IPv4Address | IPv6Address) -> None:
        """The quick test and the library agree; mapped ones are none to Python before 3.13."""
        mapped = getattr(address, "ipv4_mapped", None)
        self.assertEqual(is_loopback(str(address)), (mapped or address).is_loopback)

    def test_local(self) -> None:
        """Clients of a Unix socket are local, and those on loopback."""
        for host in (UNIX, unix_host(0), "127.0.0.1", "::1", "::ffff:127.0.0.1"):
            self.assertTrue(is_local(host), host)
        for host in ("", "localhost", "192.0.2.1", "::", "unix.example.org", "unixes"):
            self.assertFalse(is_local(host), host)

    def test_unix_users(self) -> None:
        """Each user of a Unix socket is an address and a network of its own, without a site."""
        for uid in (0, 1000, 2**32 - 1):
            host = unix_host(uid)
            self.assertEqual(host, f"unix:uid={uid}")
            self.assertEqual((network_of(host), client_prefix(host)), (host, host))
            self.assertEqual(networks_around(host), ())


class PrefixTests(SynchronousTestCase):
    """Addresses are counted by who holds them."""

    def test_network(self) -> None:
        """IPv4 counts by /24, IPv6 by /64, IPv4-mapped addresses as IPv4, others for themselves."""
        for host, network in (
            ("192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::", "2001:db8:1:3::/64"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("::ffff:c000:24d", "192.0.2.0/24"),
            ("fe80::1%eth0", "fe80::/64"),
            ("2001:db8::192.0.2.77", "2001:db8::/64"),
            ("example.org", "example.org"),
            (UNIX, UNIX),
        ):
            self.assertEqual(network_of(host), network)

    def test_networks_around(self) -> None:
        """The smaller comes first; what is no address is in none."""
        ipv4 = ("192.0.2.0/24", "192.0.0.0/16")
        self.assertEqual(networks_around("192.0.2.77"), ipv4)
        self.assertEqual(networks_around("::ffff:192.0.2.77"), ipv4)
        ipv6 = ("2001:db8:1::/48", "2001:db8::/32")
        self.assertEqual(networks_around("2001:db8:1:2::3"), ipv6)
        self.assertEqual(networks_around("2001:db8:1:2::3%eth0"), ipv6)
        self.assertEqual(networks_around(UNIX), ())

    def test_client_prefix(self) -> None:
        """All of an IPv4 address counts, and the /64 of an IPv6 one."""
        self.assertEqual(client_prefix("192.0.2.77"), "192.0.2.77")
        self.assertEqual(client_prefix("::ffff:192.0.2.77"), "192.0.2.77")
        self.assertEqual(client_prefix("2001:db8::1"), client_prefix("2001:db8::2"))
        self.assertNotEqual(client_prefix("2001:db8::1"), client_prefix("2001:db8:0:1::1"))
        self.assertEqual(client_prefix(UNIX), UNIX)
