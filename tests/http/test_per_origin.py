"""Tests of :mod:`twisted_net.http.per_origin`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.per_origin import PerOrigin
from twisted_net.http.urls import Origin


def origin(name: str) -> Origin:
    """Return an origin of this host."""
    return "http", name, 80


class PerOriginTests(SynchronousTestCase):
    """:class:`PerOrigin` has one value for each origin."""

    def test_same(self) -> None:
        """The same origin has the same value, another origin another."""
        table: PerOrigin[list[int]] = PerOrigin(list, 10)
        table.get(origin("a")).append(1)
        self.assertEqual(table.get(origin("a")), [1])
        self.assertEqual(table.get(("https", "a", 443)), [])

    def test_limit(self) -> None:
        """Beyond the limit the least recently used origin is evicted."""
        table: PerOrigin[list[int]] = PerOrigin(list, 2)
        for name in ("a", "b"):
            table.get(origin(name)).append(1)
        table.get(origin("a"))
        table.get(origin("c"))
        self.assertEqual(len(table), 2)
        self.assertEqual((table.get(origin("a")), table.get(origin("b"))), ([1], []))
