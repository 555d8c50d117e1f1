"""What :mod:`tests.coap.simulation` shows of message layers on a bad network."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.coap.simulation import simulate
from twisted_net.coap.settings import TransmissionParameters


class SimulationTests(SynchronousTestCase):
    """Many exchanges over a bad network: ``python -m tests.coap.simulation`` runs many more."""

    def check(self, count: int, **conditions: float) -> None:
        """Simulate, and hold the outcome to what is promised."""
        outcome = simulate(count, 2026, **conditions)  # type: ignore[arg-type]  # also integers
        self.assertEqual(outcome.wrong, [])
        self.assertEqual(outcome.ran_twice, [])
        self.assertEqual(outcome.right + outcome.failed, count)
        self.assertEqual(outcome.over_limits, {})
        self.assertEqual(outcome.evicted, 0)
        self.assertEqual(set(outcome.left.values()), {0})
        self.assertTrue(outcome.largest["peers"] <= 100)

    def test_bad_network(self) -> None:
        """At 30 % loss each command runs once, each answer is right or its failure clear."""
        self.check(10_000)

    def test_good_network(self) -> None:
        """Where nothing is lost, nothing fails."""
        outcome = simulate(2000, 1, loss=0)
        self.assertEqual((outcome.right, outcome.failed), (2000, 0))

    def test_little_memory(self) -> None:
        """Where far less may be remembered than comes, limits hold and answers are right."""
        limits = TransmissionParameters(
            nstart=4, max_exchanges=400, max_exchange_bytes=4096, max_peers=50, max_latency=0.5
        )
        outcome = simulate(5000, 2026, limits=limits)
        self.assertEqual(outcome.wrong, [])
        self.assertEqual(outcome.over_limits, {})
        self.assertEqual(outcome.right + outcome.failed, 5000)
        self.assertTrue(outcome.evicted > 100)
        self.assertEqual(set(outcome.left.values()), {0})

    def test_one_at_a_time(self) -> None:
        """The same holds with NSTART at 1."""
        self.check(2000, nstart=1)
