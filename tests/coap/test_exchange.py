"""Tests for the tables of :mod:`twisted_net.coap.exchange`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.exchange import (
    NEXT_RECEIVING,
    NEXT_SENDING,
    Receiving,
    Sending,
    Step,
    Stimulus,
)


class TableTests(SynchronousTestCase):
    """The tables of states."""

    def reached(self, start: int, table: dict[tuple[int, int], int]) -> set[int]:
        """Give the states to which a table leads."""
        found, new = {start}, {start}
        while new:
            new = {after for (before, _), after in table.items() if before in new} - found
            found |= new
        return found

    def test_sending(self) -> None:
        """Each state is reached; the last two are final, the others end by silence or will."""
        table = {(int(state), int(what)): int(end) for (state, what), end in NEXT_SENDING.items()}
        self.assertEqual(self.reached(Sending.QUEUED, table), set(Sending))
        last = {Sending.DONE, Sending.FAILED}
        self.assertEqual({state for state, _ in table} & last, set())
        for state in set(Sending) - last:
            self.assertEqual(table[state, Stimulus.CANCEL], Sending.FAILED)
            if state is not Sending.QUEUED:
                self.assertGreater(table[state, Stimulus.SILENCE], state)

    def test_receiving(self) -> None:
        """A request is settled by its response, acknowledged before or not, and by nothing else."""
        table = {(int(state), int(what)): int(end) for (state, what), end in NEXT_RECEIVING.items()}
        self.assertEqual(self.reached(Receiving.PENDING, table), set(Receiving))
        self.assertEqual(
            {pair for pair, end in table.items() if end == Receiving.SETTLED},
            {(Receiving.PENDING, Step.RESPONSE), (Receiving.PROMISED, Step.RESPONSE)},
        )
