"""Tests of :mod:`twisted_net.udp.limits`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.config.loader import settings
from twisted_net.udp.groups import ALL_COAP_NODES, MAX_GROUPS
from twisted_net.udp.limits import MAX_PAYLOAD, DatagramLimits, GroupSettings


class DatagramLimitsTests(SynchronousTestCase):
    """:class:`DatagramLimits` holds every bound, with the original's figures as defaults."""

    def test_defaults(self) -> None:
        """The datagram limit and the summary's interval are those of the original."""
        limits = DatagramLimits()
        self.assertEqual((limits.max_datagram, limits.summary_interval), (4096, 10.0))
        self.assertEqual(limits.datagrams_per_turn, 64)

    def test_bounds(self) -> None:
        """A value at a bound is taken; one step outside it is refused with the field's name."""
        bounds: tuple[tuple[str, int, int], ...] = (
            ("max_datagram", 1, MAX_PAYLOAD),
            ("max_clients", 1, 10_000_000),
            ("datagrams_per_turn", 1, 100_000),
            ("receive_buffer", 4096, 1 << 30),
            ("summary_interval", 0, 86_400),
            ("send_buffer", 4096, 1 << 30),
            ("send_queue", 0, 1 << 30),
            ("lowest_source_port", 1, 65_535),
        )
        make: Any = DatagramLimits  # Any: mypy knows no keywords that are text
        for name, low, high in bounds:
            with self.subTest(name=name):
                for value in (low, high):
                    self.assertEqual(getattr(make(**{name: value}), name), value)
                for value in (low - 1, high + 1):
                    error = self.assertRaises(ValueError, make, **{name: value})
                    self.assertIn(f"DatagramLimits.{name} must be", str(error))

    def test_descriptions(self) -> None:
        """Each field says what it is: the description becomes the help of its option."""
        for setting in settings(DatagramLimits()):
            with self.subTest(name=setting.key):
                self.assertTrue(setting.description)
                self.assertTrue(setting.allowed)


class GroupSettingsTests(SynchronousTestCase):
    """:class:`GroupSettings`."""

    def refused(self, **settings: tuple[str, ...]) -> str:
        """Return the reason why settings are rejected."""
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
