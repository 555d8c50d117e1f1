"""What is no group is refused with the reason; groups are joined where they can be."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.discovery.settings import DiscoveryPlace, DiscoverySettings
from twisted_net.udp.groups import (
    ALL_COAP_NODES,
    MAX_GROUPS,
    Group,
    check_family,
    groups_on,
    is_broadcast,
    is_loopback_interface,
)
from twisted_net.udp.limits import GroupSettings


class GroupSettingsTests(SynchronousTestCase):
    """:class:`GroupSettings`."""

    def refused(self, **settings: tuple[str, ...]) -> str:
        """Give the reason for which settings are refused."""
        with self.assertRaises(ValueError) as raised:
            GroupSettings(**settings)
        return str(raised.exception)

    def test_groups(self) -> None:
        """Multicast addresses of both versions are groups; so are those of RFC 7252."""
        self.assertEqual(
            GroupSettings(groups=ALL_COAP_NODES, interfaces=("lo",)).groups[1], "ff02::fd"
        )

    def test_no_groups(self) -> None:
        """Another address, and what is none, is refused."""
        for wrong in ("192.0.2.1", "fe80::1", "240.0.0.1", "all", ""):
            self.assertIn(f"{wrong!r} is not a multicast address", self.refused(groups=(wrong,)))

    def test_too_many(self) -> None:
        """There are at most as many as Linux lets one socket join."""
        groups = tuple(f"239.0.0.{i}" for i in range(MAX_GROUPS + 1))
        self.assertIn("at most 20 groups, not 21", self.refused(groups=groups))
        GroupSettings(groups=groups[:-1])

    def test_interfaces(self) -> None:
        """An interface is a name, or for groups of IPv4 an address of IPv4."""
        self.assertIn(
            "by its name, not its address", self.refused(groups=("ff02::1",), interfaces=("::1",))
        )
        wrong = self.refused(groups=("ff02::1",), interfaces=("127.0.0.1",))
        self.assertIn("needs an interface name", wrong)
        GroupSettings(groups=("224.0.0.9", "ff02::1"), interfaces=("127.0.0.1", "lo"))


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


class DiscoveryPlaceTests(SynchronousTestCase):
    """:class:`DiscoveryPlace`."""

    def test_broadcast(self) -> None:
        """Servers may find each other by broadcast, too."""
        self.assertEqual(DiscoveryPlace(group="192.0.2.255").places, [Group("192.0.2.255")])

    def test_broadcast_leaves_from_addresses(self) -> None:
        """The interfaces of a broadcast are addresses, as a socket is bound to them."""
        DiscoveryPlace(group="192.0.2.255", interfaces=("192.0.2.1",))
        with self.assertRaises(ValueError) as raised:
            DiscoveryPlace(group="192.0.2.255", interfaces=("eth0",))
        self.assertIn("from addresses, not from names", str(raised.exception))

    def test_local(self) -> None:
        """Who hears it is told by the interfaces, or by the address of a broadcast."""
        for local, settings in (
            (True, {"interfaces": ("lo", "127.0.0.1")}),
            (True, {"group": "127.255.255.255"}),
            (False, {}),
            (False, {"interfaces": ("lo", "eth0")}),
            (False, {"group": "192.0.2.255", "interfaces": ("127.0.0.1",)}),
        ):
            self.assertEqual(DiscoveryPlace(**settings).local, local, settings)

    def test_name(self) -> None:
        """A name that no listener would take is refused here."""
        for name in ("a\nb", "x" * 65):
            with self.assertRaises(ValueError):
                DiscoverySettings(name=name)

    def test_wrong(self) -> None:
        """What is neither is refused, with the name of the setting."""
        with self.assertRaises(ValueError) as raised:
            DiscoveryPlace(group="192.0.2.1")
        self.assertIn("'192.0.2.1' is not a multicast address", str(raised.exception))
