"""Bans: users and addresses that an operator keeps out for a while, on all doors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted_net.errors import Banned
from twisted_net.net.addresses import client_prefix, is_unix
from twisted_net.net.bounded_table import BoundedTable

MAX_BANS = 10_000
"""Bans at a time; over it, the oldest one ends."""

LONGEST_BAN = 31 * 86_400
"""Seconds: what is to last longer belongs into the users file, or a firewall."""


class Bans:
    """
    The users and addresses that are kept out, each until its time is over.

    They are in memory, and end with the process.

    :param seconds: a steady clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._until: BoundedTable[tuple[str, str], float] = BoundedTable(MAX_BANS)

    def add(self, kind: str, name: str, seconds: float) -> None:
        """
        Ban a user or an address from now on, in place of the ban before.

        :param kind: ``user`` or ``address``.
        :param name: an address in any spelling, of IPv6 its /64 is banned; clients of a Unix socket
            are not kept out.
        :param seconds: how long; 0 ends the ban that there is.
        """
        key = _key(kind, name)
        self._until.pop(key)
        if seconds > 0:
            self._until[key] = self._seconds() + seconds

    def left(self, kind: str, name: str) -> float:
        """Return the seconds until the ban of a user or an address ends; 0 if there is none."""
        if not len(self._until) or (kind == "address" and is_unix(name)):
            return 0.0
        key = _key(kind, name)
        until = self._until.get(key)
        if until is None:
            return 0.0
        left = until - self._seconds()
        if left <= 0:
            self._until.pop(key)
            return 0.0
        return left

    def check_user(self, name: str | None) -> None:
        """
        Check that a user may come.

        :raises Banned: if not.
        """
        if name is not None and (left := self.left("user", name)):
            raise Banned("user", left)

    def check_address(self, host: str) -> None:
        """
        Check that a client may come from an address.

        :raises Banned: if not.
        """
        if left := self.left("address", host):
            raise Banned("address", left)

    def __iter__(self) -> Iterator[tuple[str, str, float]]:
        """Iterate over the bans, oldest first: kind, name, and the seconds that are left."""
        now = self._seconds()
        for kind, name in list(self._until):
            until = self._until[kind, name]
            if until > now:
                yield kind, name, until - now


def _key(kind: str, name: str) -> tuple[str, str]:
    return kind, client_prefix(name) if kind == "address" else name
