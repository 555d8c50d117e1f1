"""The longest of many queues is known at any time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.length_ranking import LengthRanking


class LengthRankingTests(SynchronousTestCase):
    """:class:`LengthRanking` agrees with a dictionary of lengths."""

    @given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=80))
    def test_model(self, changes: list[tuple[str, bool]]) -> None:
        """After each change the first key is a longest one, and the longest length is its own."""
        ranking = LengthRanking()
        lengths: dict[str, int] = {}
        for key, grows in changes:
            before = lengths.get(key, 0)
            if grows:
                lengths[key] = before + 1
                ranking.grown(key, before + 1)
            elif before:
                lengths[key] = before - 1
                ranking.shrunk(key, before - 1)
            longest = max(lengths.values(), default=0)
            self.assertEqual(ranking.longest, longest)
            if longest:
                self.assertEqual(lengths[ranking.first()], longest)

    def test_equals(self) -> None:
        """Of several longest keys the first is that which became so first."""
        ranking = LengthRanking()
        ranking.grown("a", 1)
        ranking.grown("b", 1)
        self.assertEqual(ranking.first(), "a")
        ranking.grown("a", 2)
        ranking.shrunk("a", 1)
        self.assertEqual(ranking.first(), "b")
