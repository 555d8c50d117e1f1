"""A bounded table is an ordered dictionary that never has more entries than its limit."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.table_cost import FACTOR, Add, cost_ratio
from twisted_net.net.bounded_table import BoundedTable

LIMIT = 4
KEYS = st.integers(0, 10 * LIMIT - 1)
VALUES = st.integers()


class Model(RuleBasedStateMachine):
    """A table beside a list of pairs, with ten times as many keys as it has places."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[tuple[int, int]] = []
        self.table: BoundedTable[int, int] = BoundedTable(
            LIMIT, lambda key, value: self.gone.append((key, value))
        )
        self.pairs: list[tuple[int, int]] = []
        self.evicted: list[tuple[int, int]] = []

    def place_of(self, key: int) -> int | None:
        """Return where the list has a key."""
        return next((place for place, pair in enumerate(self.pairs) if pair[0] == key), None)

    @rule(key=KEYS, value=VALUES)
    def set(self, key: int, value: int) -> None:
        """A known key keeps its place; a new one is the newest, and may evict the oldest."""
        place = self.place_of(key)
        if place is not None:
            self.pairs[place] = key, value
        else:
            self.pairs.append((key, value))
        if len(self.pairs) > LIMIT:
            self.evicted.append(self.pairs.pop(0))
        self.table[key] = value

    @rule(first=KEYS)
    def set_many(self, first: int) -> None:
        """Many new keys one after the other leave the last ones."""
        for key in range(first, first + 10 * LIMIT):
            self.set(key, key)

    @rule(key=KEYS)
    def move_to_end(self, key: int) -> None:
        """A known key becomes the newest; another one is an error."""
        place = self.place_of(key)
        try:
            self.table.move_to_end(key)
        except KeyError:
            assert place is None
        else:
            assert place is not None
            self.pairs.append(self.pairs.pop(place))

    @rule(key=KEYS)
    def pop(self, key: int) -> None:
        """What is removed is returned, and does not count as evicted."""
        place = self.place_of(key)
        value = None if place is None else self.pairs.pop(place)[1]
        assert self.table.pop(key) == value

    @rule(key=KEYS)
    def delete(self, key: int) -> None:
        """To delete a key that is not here is an error."""
        place = self.place_of(key)
        try:
            del self.table[key]
        except KeyError:
            assert place is None
        else:
            assert place is not None
            self.pairs.pop(place)

    @rule()
    def clear(self) -> None:
        """Nothing is left, and nothing of it counts as evicted."""
        self.table.clear()
        self.pairs.clear()

    @rule(key=KEYS)
    def look_up(self, key: int) -> None:
        """Looking up changes nothing."""
        place = self.place_of(key)
        assert (key in self.table) == (place is not None)
        assert self.table.get(key) == (None if place is None else self.pairs[place][1])
        try:
            assert self.table[key] == self.table.get(key)
        except KeyError:
            assert place is None

    @invariant()
    def same(self) -> None:
        """Both have the same entries in the same order, and have evicted the same."""
        assert len(self.table) == len(self.pairs) <= LIMIT
        assert list(self.table) == [key for key, _ in self.pairs]
        assert list(self.table.values()) == [value for _, value in self.pairs]
        for count in (0, 2, 2 * LIMIT):
            assert self.table.newest(count) == self.pairs[::-1][:count]
        assert self.table.oldest() == (self.pairs[0] if self.pairs else None)
        assert self.gone == self.evicted


class BoundedTableTests(SynchronousTestCase):
    """:class:`BoundedTable` at its limit, and far beyond."""

    def test_model(self) -> None:
        """It does what a slow, obvious table does."""
        run_state_machine_as_test(Model, settings=settings(stateful_step_count=40))

    def test_nothing_kept(self) -> None:
        """A table without a place evicts what it is given."""
        gone: list[tuple[str, int]] = []
        table: BoundedTable[str, int] = BoundedTable(
            0, lambda key, value: gone.append((key, value))
        )
        table["a"] = 1
        self.assertEqual((gone, len(table), table.oldest()), ([("a", 1)], 0, None))

    def test_changed_when_evicted(self) -> None:
        """Who is told of an eviction finds the new entry, and may set and remove others."""
        found: list[list[str]] = []

        def put_back(key: str, value: int) -> None:
            found.append(list(table))
            if value:
                table.pop("c")
                table[key] = value - 1

        table: BoundedTable[str, int] = BoundedTable(2, put_back)
        for key in "abc":
            table[key] = 1
        self.assertEqual((found, list(table)), ([["b", "c"]], ["b", "a"]))

    def test_cost(self) -> None:
        """A further entry costs a large table as much as a small one."""

        def make(limit: int) -> Add:
            table: BoundedTable[int, int] = BoundedTable(limit)
            return lambda key: table.__setitem__(key, key)

        self.assertLess(cost_ratio(make), FACTOR)
