"""Tests of :mod:`twisted_net.http.retry.settings`."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.retry.settings import BudgetSettings, CircuitBreakerSettings, RetryPolicy


class RetryPolicyTests(SynchronousTestCase):
    """:class:`RetryPolicy` holds what an operator can set."""

    def test_defaults(self) -> None:
        """The defaults are those of the original client."""
        policy = RetryPolicy()
        self.assertEqual((policy.retries, policy.base), (3, 0.5))
        self.assertEqual(policy.statuses, (429, 500, 502, 503, 504))

    def test_bounds(self) -> None:
        """A value that cannot work is rejected, by the name of its field."""
        for name, value in (
            ("retries", -1),
            ("retries", 101),
            ("base", 0.0),
            ("cap", 86_401.0),
            ("statuses", [399]),
            ("hedge_after", 0.0),
        ):
            with self.subTest(name=name):
                error = self.assertRaises(ValueError, msgspec.convert, {name: value}, RetryPolicy)
                self.assertIn(name, str(error))


class BudgetSettingsTests(SynchronousTestCase):
    """:class:`BudgetSettings` has the figures of the AWS SDKs."""

    def test_defaults(self) -> None:
        """500 tokens, 14 for a retry, 5 for one after a response that asks to slow down."""
        settings = BudgetSettings()
        self.assertEqual((settings.capacity, settings.retry_cost), (500, 14))
        self.assertEqual(settings.throttled_cost, 5)


class CircuitBreakerSettingsTests(SynchronousTestCase):
    """:class:`CircuitBreakerSettings` opens after ten failures in a row, for 10 s."""

    def test_defaults(self) -> None:
        """Ten failures, 10 s open, 10 s for a probe."""
        settings = CircuitBreakerSettings()
        self.assertEqual((settings.failures, settings.rest), (10, 10.0))
        self.assertEqual(settings.probe_timeout, 10.0)
