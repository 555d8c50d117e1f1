"""Grouped items know their order, their groups, and which group is the largest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
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
        self.assertIsNone(self.items.group_of("z"))
        self.items.discard("a2")
        self.assertEqual(self.items.newest_of("a"), "a1")

    @given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=80))
    def test_model(self, changes: list[tuple[str, bool]]) -> None:
        """After each change a largest group is known, as in a plain dictionary of lists."""
        items: GroupedItems[int] = GroupedItems()
        groups: dict[str, list[int]] = {group: [] for group in "abcd"}
        for number, (group, grows) in enumerate(changes):
            if grows:
                groups[group].append(number)
                items.add(number, group)
            elif groups[group]:
                items.discard(groups[group].pop(number % len(groups[group])))
            largest = max(len(found) for found in groups.values())
            self.assertEqual(items.largest_size, largest)
            self.assertEqual(len(items), sum(map(len, groups.values())))
            if largest:
                self.assertEqual(len(groups[items.largest_group()]), largest)
            for name, found in groups.items():
                self.assertEqual(items.size_of(name), len(found))
                if found:
                    self.assertEqual(items.oldest_of(name), found[0])
                    self.assertEqual(items.newest_of(name), found[-1])

    def test_equals(self) -> None:
        """Of several largest groups the first is that which became so first."""
        items: GroupedItems[str] = GroupedItems()
        items.add("a1", "a")
        items.add("b1", "b")
        self.assertEqual(items.largest_group(), "a")
        items.add("a2", "a")
        items.discard("a2")
        self.assertEqual(items.largest_group(), "b")

    def test_largest(self) -> None:
        """The oldest of a largest group is the one to remove."""
        removed = []
        while len(self.items):
            removed.append(self.items.oldest_of(self.items.largest_group()))
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
