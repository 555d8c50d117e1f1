"""Tests of :mod:`twisted_net.udp.groups`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.udp.groups import (
    Group,
    check_family,
    groups_on,
    is_broadcast,
    is_loopback_interface,
)


class FamilyTests(SynchronousTestCase):
    """:func:`check_family`: a port answers groups of its own version of IP."""

    def test_families(self) -> None:
        """Other groups are refused, and named."""
        check_family(("224.0.0.9",), "")
        check_family(("ff02::1",), "::")
        for group, interface in (("ff02::1", "127.0.0.1"), ("224.0.0.9", "::1")):
            with self.assertRaises(ValueError) as raised:
                check_family((group,), interface)
            self.assertIn(f"multicast.groups: {group} is not an IPv", str(raised.exception))


class GroupsOnTests(SynchronousTestCase):
    """:func:`groups_on` gives each group on each interface."""

    def test_as_routed(self) -> None:
        """Without interfaces it is where the routes lead to."""
        self.assertEqual(groups_on(["ff02::1"], []), [Group("ff02::1")])

    def test_each(self) -> None:
        """A group of IPv6 is not joined at an address of IPv4."""
        found = [str(group) for group in groups_on(["224.0.0.9", "ff02::1"], ["lo", "10.0.0.1"])]
        self.assertEqual(found, ["224.0.0.9 on lo", "224.0.0.9 on 10.0.0.1", "ff02::1 on lo"])

    def test_own(self) -> None:
        """Loopback is this machine's own."""
        self.assertTrue(is_loopback_interface("lo"))
        self.assertTrue(is_loopback_interface("127.0.0.1"))
        self.assertFalse(is_loopback_interface("eth0"))
        self.assertFalse(is_loopback_interface(""))

    def test_broadcast(self) -> None:
        """Addresses of IPv4 that end with .255 may be those of all hosts."""
        self.assertTrue(is_broadcast("255.255.255.255"))
        self.assertTrue(is_broadcast("192.0.2.255"))
        for other in ("239.0.0.255", "192.0.2.1", "ff02::255", "all"):
            self.assertFalse(is_broadcast(other), other)
