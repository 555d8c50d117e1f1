"""Grouped items know their order, their groups, and which group is the largest."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.grouped_items import GroupedItems


class GroupedItemsTests(SynchronousTestCase):
    """:class:`GroupedItems` beside what was added."""

    def setUp(self) -> None:
        self.items: GroupedItems[str] = GroupedItems()
        for item in ("a1", "b1", "a2", "c1", "b2"):
            self.items.add(item, item[0])

    def test_newest(self) -> None:
        """The newest is known, of all and of a group."""
        self.assertEqual(self.items.newest(), "b2")
        self.assertEqual(self.items.newest_of("a"), "a2")
        self.assertEqual(self.items.group_of("a2"), "a")
        self.items.discard("a2")
        self.assertEqual(self.items.newest_of("a"), "a1")

    def test_largest(self) -> None:
        """The oldest of a largest group is the one to remove."""
        removed = []
        while len(self.items):
            removed.append(self.items.oldest_of_largest())
            self.items.discard(removed[-1])
        self.assertEqual(sorted(removed[:2]), ["a1", "b1"])
        self.assertEqual(sorted(removed[2:]), ["a2", "b2", "c1"])

    def test_alone(self) -> None:
        """It tells of the first and of the last item of a group."""
        self.assertTrue(self.items.add("d1", "d"))
        self.assertFalse(self.items.add("d2", "d"))
        self.assertIsNone(self.items.discard("d1"))
        self.assertEqual(self.items.discard("d2"), "d")
        self.assertIsNone(self.items.discard("d2"))
        self.assertNotIn("d2", self.items)
        self.assertIn("a1", self.items)
