"""Tests of :mod:`twisted_net.discovery.settings`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.discovery.settings import DiscoveryGroup, DiscoverySettings
from twisted_net.udp.groups import Group


class DiscoveryGroupTests(SynchronousTestCase):
    """:class:`DiscoveryGroup`."""

    def test_broadcast(self) -> None:
        """Servers may find each other by broadcast, too."""
        self.assertEqual(DiscoveryGroup(group="192.0.2.255").groups, [Group("192.0.2.255")])

    def test_broadcast_leaves_from_addresses(self) -> None:
        """The interfaces of a broadcast are addresses, as a socket is bound to them."""
        DiscoveryGroup(group="192.0.2.255", interfaces=("192.0.2.1",))
        with self.assertRaises(ValueError) as raised:
            DiscoveryGroup(group="192.0.2.255", interfaces=("eth0",))
        self.assertIn("name interfaces by IPv4 address", str(raised.exception))

    def test_local(self) -> None:
        """Who hears it is told by the interfaces, or by the address of a broadcast."""
        for local, settings in (
            (True, {"interfaces": ("lo", "127.0.0.1")}),
            (True, {"group": "127.255.255.255"}),
            (False, {}),
            (False, {"interfaces": ("lo", "eth0")}),
            (False, {"group": "192.0.2.255", "interfaces": ("127.0.0.1",)}),
        ):
            self.assertEqual(DiscoveryGroup(**settings).local, local, settings)

    def test_name(self) -> None:
        """A name that no listener would take is refused here."""
        for name in ("a\nb", "x" * 65):
            with self.assertRaises(ValueError):
                DiscoverySettings(name=name)

    def test_wrong(self) -> None:
        """What is neither is refused, with the name of the setting."""
        with self.assertRaises(ValueError) as raised:
            DiscoveryGroup(group="192.0.2.1")
        self.assertIn("'192.0.2.1' is not a multicast address", str(raised.exception))
