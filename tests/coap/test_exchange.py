"""Tests for the tables of :mod:`twisted_net.coap.exchange`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.exchange import (
    INCOMING_TRANSITIONS,
    OUTGOING_TRANSITIONS,
    IncomingState,
    IncomingTrigger,
    OutgoingState,
    OutgoingTrigger,
)


class TableTests(SynchronousTestCase):
    """The tables of states."""

    def reached(self, start: int, table: dict[tuple[int, int], int]) -> set[int]:
        """Return the states to which a table leads."""
        found, new = {start}, {start}
        while new:
            new = {after for (before, _), after in table.items() if before in new} - found
            found |= new
        return found

    def test_sending(self) -> None:
        """Each state is reached; the last two are final, the others end by silence or will."""
        table = {
            (int(state), int(what)): int(end) for (state, what), end in OUTGOING_TRANSITIONS.items()
        }
        self.assertEqual(self.reached(OutgoingState.QUEUED, table), set(OutgoingState))
        last = {OutgoingState.DONE, OutgoingState.FAILED}
        self.assertEqual({state for state, _ in table} & last, set())
        for state in set(OutgoingState) - last:
            self.assertEqual(table[state, OutgoingTrigger.CANCEL], OutgoingState.FAILED)
            if state is not OutgoingState.QUEUED:
                self.assertGreater(table[state, OutgoingTrigger.TIMEOUT], state)

    def test_receiving(self) -> None:
        """A request is settled by its response, acknowledged before or not, and by nothing else."""
        table = {
            (int(state), int(what)): int(end) for (state, what), end in INCOMING_TRANSITIONS.items()
        }
        self.assertEqual(self.reached(IncomingState.PENDING, table), set(IncomingState))
        self.assertEqual(
            {pair for pair, end in table.items() if end == IncomingState.SETTLED},
            {
                (IncomingState.PENDING, IncomingTrigger.RESPONSE),
                (IncomingState.ACKNOWLEDGED, IncomingTrigger.RESPONSE),
            },
        )
