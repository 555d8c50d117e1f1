"""Tests for :mod:`twisted_net.coap.message_ids`: RFC 7252 §4.4."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap import message_ids
from twisted_net.coap.message_ids import BLOCK, COUNT, MessageIds
from twisted_net.coap.settings import TransmissionParameters

LIFETIME = TransmissionParameters().exchange_lifetime
NON_LIFETIME = TransmissionParameters().non_lifetime


class MessageIdsTests(SynchronousTestCase):
    """:class:`MessageIds` uses no ID again within its lifetime."""

    @settings(max_examples=300)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([0.0, 0.5, 3.0, 60.0, 130.0, NON_LIFETIME, 200.0, LIFETIME]),
                st.integers(1, 40),
                st.sampled_from([LIFETIME, NON_LIFETIME, NON_LIFETIME + 5]),
            ),
            max_size=40,
        ),
        st.integers(0, COUNT - 1),
    )
    def test_model(self, steps: list[tuple[float, int, float]], first: int) -> None:
        """
        However messages are spread over time, each ID is free when it is used.

        The model keeps all that was ever used. An ID is given as soon as those of its block are
        free, and no later. 32 IDs in blocks of 4 stand for the 65,536 that there are.
        """
        self.patch(message_ids, "COUNT", 32)
        self.patch(message_ids, "BLOCK", 4)
        ids = MessageIds(first)
        used: list[float] = []
        now = 0.0
        for passed, count, lifetime in steps:
            now += passed
            for _ in range(count):
                number = len(used)
                free_at = ids.free_at()
                block = used[number - 32 : number - 28] if number >= 32 else []
                if number % 4 == 0 and block:
                    self.assertEqual(free_at, max(block))
                now = max(now, free_at)
                self.assertEqual(ids.take(now + lifetime), (first + number) % 32)
                self.assertTrue(number < 32 or used[number - 32] <= now)
                used.append(now + lifetime)
                self.assertEqual(ids.expires, max(used))

    def test_all_at_once(self) -> None:
        """All 65,536 IDs may be used at once, each one time; the next is free after a lifetime."""
        ids = MessageIds(65_000)
        seen = set()
        for _ in range(COUNT):
            self.assertLess(ids.free_at(), 0.0)
            seen.add(ids.take(LIFETIME))
        self.assertEqual(seen, set(range(65_536)))
        self.assertEqual(ids.free_at(), LIFETIME)

    def test_end_of_a_block(self) -> None:
        """
        IDs used late in their block are not reused early.

        The first ID leaves alone; all others of its block follow 100 s later.
        """
        ids = MessageIds(0)
        ids.take(LIFETIME)
        for _ in range(COUNT - 1):
            ids.take(100 + LIFETIME)
        self.assertEqual(ids.free_at(), 100 + LIFETIME)

    def test_sustained(self) -> None:
        """In each lifetime all IDs but one block can be used, without end."""
        ids = MessageIds(0)
        now = 0.0
        for _ in range(3 * (COUNT - BLOCK)):
            now += LIFETIME / (COUNT - BLOCK)
            self.assertLessEqual(ids.free_at(), now + 1e-6)
            ids.take(now + LIFETIME)
