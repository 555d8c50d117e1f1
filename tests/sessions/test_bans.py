"""Bans end in time, and are bounded."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.errors import Banned
from twisted_net.sessions.bans import MAX_BANS, Bans


class BansTests(SynchronousTestCase):
    """:class:`Bans` on a clock."""

    def setUp(self) -> None:
        self.now = 5.0
        self.bans = Bans(lambda: self.now)

    def test_in_time(self) -> None:
        """A ban lasts as long as it says; a later one replaces it."""
        self.bans.add("user", "ann", 10.0)
        self.now += 9.5
        self.assertEqual(self.bans.left("user", "ann"), 0.5)
        self.assertRaises(Banned, self.bans.check_user, "ann")
        self.bans.check_user("bob")
        self.bans.check_user(None)
        self.bans.add("user", "ann", 1.0)
        self.now += 1.0
        self.bans.check_user("ann")
        self.assertEqual(list(self.bans), [])

    def test_addresses(self) -> None:
        """An address is banned in all its spellings, of IPv6 its /64; a Unix socket is not."""
        for name, host in (
            ("192.0.2.1", "::ffff:192.0.2.1"),
            ("2001:db8::1", "2001:db8::ffff"),
        ):
            self.bans.add("address", name, 10.0)
            self.assertRaises(Banned, self.bans.check_address, host)
        self.bans.check_address("2001:db8:0:1::1")
        self.bans.add("address", "unix:uid=7", 10.0)
        self.bans.check_address("unix:uid=7")

    def test_bound(self) -> None:
        """Over the limit the oldest ban ends."""
        for i in range(MAX_BANS + 1):
            self.bans.add("user", str(i), 10.0)
        self.assertEqual((self.bans.left("user", "0"), self.bans.left("user", "1")), (0.0, 10.0))
