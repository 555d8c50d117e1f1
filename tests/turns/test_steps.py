"""Tests of :mod:`twisted_net.turns.steps`."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.turns.steps import (
    CHECK,
    CHECKS_AT_ONCE,
    CLIENTS_AT_ONCE,
    END,
    ENDS_AT_ONCE,
    WRITE,
    in_steps,
)


class InStepsTests(SynchronousTestCase):
    """:func:`in_steps` divides work by what each item takes."""

    def test_alike(self) -> None:
        """So many of one kind make a step, and the last step takes the rest."""
        for share, at_once in (
            (WRITE, CLIENTS_AT_ONCE),
            (END, ENDS_AT_ONCE),
            (CHECK, CHECKS_AT_ONCE),
        ):
            steps = list(in_steps(share for _ in range(2 * at_once + 1)))
            self.assertEqual(steps, [at_once, at_once, 1])
            self.assertEqual(list(in_steps(share for _ in range(at_once))), [at_once])

    def test_mixed(self) -> None:
        """What takes longer leaves less for others, and one item is done at least."""
        self.assertEqual(list(in_steps([0.5, 0.25, 0.5, 3, 0.5, 0.25])), [3, 1, 2])

    def test_nothing(self) -> None:
        """Nothing is no step."""
        self.assertEqual(list(in_steps([])), [])

    def test_lazy(self) -> None:
        """An item is done in its step, not before."""
        done = []

        def work() -> Iterator[float]:
            for i in range(4):
                done.append(i)
                yield 0.5

        steps = in_steps(work())
        self.assertEqual(done, [])
        next(steps)
        self.assertEqual(done, [0, 1])
