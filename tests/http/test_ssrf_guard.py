"""Tests of :mod:`twisted_net.http.ssrf_guard`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.errors import AddressRefused
from twisted_net.http.settings import EgressPolicy
from twisted_net.http.ssrf_guard import SsrfGuard, is_public, unwrap

PUBLIC = (
    "8.8.8.8",
    "1.1.1.1",
    "93.184.216.34",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
)
NOT_PUBLIC = (
    # IPv4 special-purpose addresses (RFC 6890 and the IANA registry)
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    # IPv6
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "100::1",
    "2001::1",
    "2001:1::1",
    "2001:3::1",
    "2001:4:112::1",
    "2001:1ff::1",
    "2620:4f:8000::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "64:ff9b:1::1",
    # IPv4 inside IPv6; of the first five ipaddress.is_global says True in some Python
    "::ffff:100.100.100.200",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "::127.0.0.1",
    "::ffff:224.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::169.254.169.254",
    "2002:a00:1::1",
    "2001:0:7f00:1::",
    "2606:4700::5efe:127.0.0.1",
    "2606:4700::200:5efe:10.0.0.1",
)


class IsPublicTests(SynchronousTestCase):
    """:func:`is_public` is stricter than :mod:`ipaddress`."""

    def test_public(self) -> None:
        """Addresses of the internet are public, also inside IPv6 ones."""
        for text in PUBLIC:
            with self.subTest(address=text):
                self.assertTrue(is_public(ip_address(text)))

    def test_not_public(self) -> None:
        """Special ones are not, in any form."""
        for text in NOT_PUBLIC:
            with self.subTest(address=text):
                self.assertFalse(is_public(ip_address(text)))

    @given(st.ip_addresses(v=4))
    def test_wrapping_changes_nothing(self, inner: IPv4Address) -> None:
        """An IPv4 address that is not public is not public inside an IPv6 one either."""
        number = int(inner)
        wrapped = (
            IPv6Address((0xFFFF << 32) | number),
            IPv6Address(int(IPv6Address("64:ff9b::")) | number),
            IPv6Address((0x2002 << 112) | (number << 80) | 1),
        )
        for address in wrapped:
            self.assertEqual(is_public(address), is_public(inner))

    @given(st.ip_addresses())
    def test_never_wider_than_the_library(self, address: IPv4Address | IPv6Address) -> None:
        """Each form of a public address is global for :mod:`ipaddress`, or NAT64 or 6to4."""
        if is_public(address):
            plain = unwrap(address)[-1]
            self.assertTrue(plain.is_global, plain)
            self.assertFalse(plain.is_multicast, plain)


class UnwrapTests(SynchronousTestCase):
    """:func:`unwrap` finds every IPv4 address inside an IPv6 one."""

    def test_forms(self) -> None:
        """One address of each kind."""
        for text, expected in (
            ("1.2.3.4", ["1.2.3.4"]),
            ("2606::1", ["2606::1"]),
            ("::ffff:1.2.3.4", ["1.2.3.4"]),
            ("64:ff9b::1.2.3.4", ["64:ff9b::102:304", "1.2.3.4"]),
            ("::1.2.3.4", ["::102:304", "1.2.3.4"]),
            ("::192.168.0.1", ["::c0a8:1", "192.168.0.1"]),
            ("::ffff:0:1.2.3.4", ["::ffff:0:102:304", "1.2.3.4"]),
            ("2002:102:304::9", ["2002:102:304::9", "1.2.3.4"]),
            ("2001:0:102:304::fefe:fdfd", ["2001:0:102:304::fefe:fdfd", "1.2.3.4", "1.1.2.2"]),
            ("2606::5efe:1.2.3.4", ["2606::5efe:102:304", "1.2.3.4"]),
        ):
            with self.subTest(address=text):
                self.assertEqual(unwrap(ip_address(text)), [ip_address(x) for x in expected])


class ReachTests(SynchronousTestCase):
    """:class:`EgressPolicy` is checked when it is made."""

    def test_entries(self) -> None:
        """Names, domains, addresses and networks are accepted, in upper and lower case."""
        names = ("localhost", "*.Example.org", ".x.y")
        addresses = ("127.0.0.1", "::1", "[::1]", "10.0.0.0/8")
        self.assertEqual(EgressPolicy(allow=names + addresses).allow, names + addresses)

    def test_mistakes(self) -> None:
        """An error names the malformed entry."""
        for entry in ("", "a b", "http://x/", "10.0.0.1/8", "10.0.0.0/40", "*", "x/y", "a:1"):
            with self.subTest(entry=entry):
                error = self.assertRaises(ValueError, EgressPolicy, deny=(entry,))
                self.assertIn("EgressPolicy.deny", str(error))
                self.assertEqual("host bits" in str(error), entry == "10.0.0.1/8")

    def test_bad_port(self) -> None:
        """Ports have bounds too."""
        self.assertRaises(ValueError, EgressPolicy, ports=(0,))


class GuardTests(SynchronousTestCase):
    """:class:`SsrfGuard` allows what its :class:`EgressPolicy` allows, and nothing else."""

    def refused(self, policy: EgressPolicy, host: str, port: int, *addresses: str) -> str | None:
        """Return the message with which a destination is refused, or None."""
        guard = SsrfGuard(policy)
        try:
            guard.check_url("http", host, port)
            guard.check_addresses(host, port, addresses or (host,))
        except AddressRefused as error:
            self.assertEqual(error.code, "address_refused")
            self.assertEqual(error.details(), {"host": host})
            self.assertFalse(error.transient)
            return str(error)
        return None

    def test_public_by_default(self) -> None:
        """A name with public addresses only is reached at the ports of the web."""
        self.assertIsNone(self.refused(EgressPolicy(), "a.example", 80, "8.8.8.8", "2606:4700::1"))
        self.assertIsNone(self.refused(EgressPolicy(), "8.8.8.8", 443))

    def test_one_bad_address_is_enough(self) -> None:
        """A name with any address that is not allowed is refused."""
        for addresses in (("8.8.8.8", "10.0.0.1"), ("10.0.0.1", "8.8.8.8")):
            message = self.refused(EgressPolicy(), "a.example", 80, *addresses)
            self.assertEqual(
                message, "a.example may not be reached: its address 10.0.0.1 is not a public one"
            )

    def test_dot_at_the_end(self) -> None:
        """A dot at the end of a name or an entry is ignored."""
        for entry in ("a.example", "a.example.", "*.example."):
            for host in ("a.example", "a.example."):
                denied = self.refused(EgressPolicy(deny=(entry,)), host, 80, "8.8.8.8")
                self.assertIn("the name is denied", denied or "", (entry, host))
                allowed = EgressPolicy(allow=(entry,))
                self.assertIsNone(self.refused(allowed, host, 8080, "10.0.0.1"), (entry, host))

    def test_loopback_and_metadata(self) -> None:
        """The addresses that attackers try first are refused."""
        for host in ("127.0.0.1", "169.254.169.254", "::1", "0.0.0.0"):
            self.assertIn("not a public one", self.refused(EgressPolicy(), host, 80) or "")

    def test_ports(self) -> None:
        """Other ports are refused, unless none are listed."""
        message = self.refused(EgressPolicy(), "8.8.8.8", 25)
        self.assertEqual(
            message, "8.8.8.8 may not be reached: port 25 is not allowed, only 80, 443"
        )
        self.assertIsNone(self.refused(EgressPolicy(ports=()), "8.8.8.8", 25))

    def test_schemes(self) -> None:
        """A scheme that is not listed is refused."""
        guard = SsrfGuard(EgressPolicy(schemes=("https",)))
        guard.check_url("https", "a", 443)
        error = self.assertRaises(AddressRefused, guard.check_url, "http", "a", 80)
        self.assertIn("the scheme http is not allowed, only https", str(error))
        guard = SsrfGuard(EgressPolicy(schemes=()))
        error = self.assertRaises(AddressRefused, guard.check_url, "http", "a", 80)
        self.assertIn("only nothing", str(error))

    def test_allowed_address(self) -> None:
        """An allowed address is reached at any port, by any name that has it."""
        policy = EgressPolicy(allow=("127.0.0.1", "10.0.0.0/8"))
        self.assertIsNone(self.refused(policy, "127.0.0.1", 8080))
        self.assertIsNone(self.refused(policy, "a.example", 8080, "10.1.2.3"))
        self.assertIsNone(self.refused(policy, "::ffff:127.0.0.1", 8080))
        self.assertIsNotNone(self.refused(policy, "127.0.0.2", 8080))
        self.assertIsNotNone(self.refused(policy, "a.example", 80, "10.1.2.3", "192.168.0.1"))

    def test_allowed_address_inside_another(self) -> None:
        """An allowed IPv4 address does not allow the tunnels that lead to it."""
        policy = EgressPolicy(allow=("10.0.0.0/8",))
        self.assertIsNotNone(self.refused(policy, "64:ff9b::10.0.0.1", 80))

    def test_allowed_name(self) -> None:
        """An allowed name may have any address; a dot at its end does not matter."""
        policy = EgressPolicy(allow=("localhost",))
        self.assertIsNone(self.refused(policy, "localhost", 8080, "127.0.0.1", "::1"))
        self.assertIsNone(self.refused(policy, "localhost.", 8080, "127.0.0.1"))
        self.assertIsNotNone(self.refused(policy, "xlocalhost", 80, "127.0.0.1"))

    def test_allowed_domain(self) -> None:
        """A domain allows the names below it, but not itself or a name that only ends like it."""
        for entry in ("*.example.org", ".example.org"):
            policy = EgressPolicy(allow=(entry,))
            self.assertIsNone(self.refused(policy, "a.b.example.org", 8080, "10.0.0.1"))
            self.assertIsNotNone(self.refused(policy, "example.org", 8080, "10.0.0.1"))
            self.assertIsNotNone(self.refused(policy, "badexample.org", 8080, "10.0.0.1"))

    def test_deny_wins(self) -> None:
        """``deny`` has precedence over an allowed name or network."""
        policy = EgressPolicy(
            allow=("localhost", "10.0.0.0/8"), deny=("10.9.0.0/16", "evil.example")
        )
        self.assertIn("is denied", self.refused(policy, "10.9.1.1", 80) or "")
        self.assertIn("is denied", self.refused(policy, "localhost", 80, "10.9.1.1") or "")
        self.assertIn("name is denied", self.refused(policy, "evil.example", 80, "8.8.8.8") or "")
        self.assertIn("is denied", self.refused(policy, "64:ff9b::10.9.0.1", 80) or "")

    def test_allow_list_only(self) -> None:
        """Without public addresses only the allow list is reached."""
        policy = EgressPolicy(public=False, allow=("api.example",))
        self.assertIsNone(self.refused(policy, "api.example", 80, "8.8.8.8"))
        self.assertIn(
            "not in the allow list", self.refused(policy, "b.example", 80, "8.8.8.8") or ""
        )

    def test_no_address(self) -> None:
        """A look-up result that is not an address is refused."""
        self.assertIn(
            "that can be checked", self.refused(EgressPolicy(), "a", 80, "somewhere") or ""
        )
