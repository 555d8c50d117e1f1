"""Recent use decays, in step for all keys, in a table of bounded size."""

from __future__ import annotations

from math import exp2

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.recent_use import NEVER, RecentUse, joint_level

HALF_LIFE = 10.0
charges = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 400), st.sampled_from([0.125, 1.0, 3.0])),
    max_size=40,
)


def used(made: list[tuple[str, int, float]], key: str, now: float) -> float:
    """Return how much a key has used, each unit weighted by its age."""
    return sum(units * exp2((at - now) / HALF_LIFE) for of, at, units in made if of == key)


class RecentUseTests(SynchronousTestCase):
    """:class:`RecentUse` compares what keys have used lately."""

    @given(charges, st.integers(0, 1000))
    def test_order(self, made: list[tuple[str, int, float]], later: int) -> None:
        """The levels of two keys differ as the binary logarithms of their decayed sums do."""
        made.sort(key=lambda charge: charge[1])
        use = RecentUse(HALF_LIFE)
        for key, at, units in made:
            use.charge(key, float(at), units)
        for one, other in ("ab", "bc", "ac"):
            first, second = used(made, one, later), used(made, other, later)
            if first and second:
                ratio = 2.0 ** (use.level(one) - use.level(other))
                self.assertAlmostEqual(ratio * second / first, 1.0)
            else:
                self.assertEqual(use.level(one) == NEVER, not first)

    def test_half_life(self) -> None:
        """After a half-life one unit outweighs one of two before."""
        use = RecentUse(HALF_LIFE)
        use.charge("old", 0.0, 2.0)
        use.charge("new", HALF_LIFE)
        self.assertAlmostEqual(use.level("old"), use.level("new"))

    def test_exceeds(self) -> None:
        """Three units and one of a half-life ago are more than three and a quarter, and no more."""
        use = RecentUse(HALF_LIFE)
        self.assertFalse(use.exceeds("a", 0.0, 0.001))
        use.charge("a", 0.0)
        use.charge("a", HALF_LIFE, 3.0)
        self.assertTrue(use.exceeds("a", HALF_LIFE, 3.25))
        self.assertFalse(use.exceeds("a", HALF_LIFE, 3.75))
        self.assertFalse(use.exceeds("a", 3 * HALF_LIFE, 1.0))

    @given(charges, st.sampled_from([0.125, 1.0, 3.0]))
    def test_take_back(self, made: list[tuple[str, int, float]], units: float) -> None:
        """What is taken back at once leaves what was there before."""
        made.sort(key=lambda charge: charge[1])
        use = RecentUse(HALF_LIFE)
        for key, at, charged in made:
            use.charge(key, float(at), charged)
        before = use.level("a")
        use.charge("a", 410.0, units)
        use.take_back("a", 410.0, units)
        # As exactly as floats are beside so much more.
        error = 2.0 ** (410.0 / HALF_LIFE - 30) * units
        self.assertLess(abs(2.0 ** use.level("a") - 2.0**before), error)
        self.assertEqual(use.level("b") == NEVER, not used(made, "b", 410))

    def test_take_back_more(self) -> None:
        """More than there is leaves nothing, also of a key that never was charged."""
        use = RecentUse(HALF_LIFE)
        use.charge("a", 0.0)
        use.take_back("a", 1.0, 1.0)
        use.take_back("b", 1.0, 1.0)
        self.assertEqual([use.level("a"), use.level("b"), len(use)], [NEVER, NEVER, 0])

    def test_joint(self) -> None:
        """Two keys of the same use have twice as much together; one that is new adds nothing."""
        self.assertEqual(joint_level(3.0, 3.0), 4.0)
        self.assertEqual(joint_level(3.0, NEVER), 3.0)
        self.assertEqual(joint_level(NEVER, NEVER), NEVER)

    def test_bounded(self) -> None:
        """At the bound the key that was charged longest ago is forgotten, and no other."""
        use = RecentUse(HALF_LIFE, max_keys=3)
        for key in ("a", "b", "a", "c", "d"):
            use.charge(key, 0.0)
        self.assertEqual(len(use), 3)
        self.assertEqual([use.level(key) > NEVER for key in "abcd"], [True, False, True, True])
