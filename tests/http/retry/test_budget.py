"""Tests of :mod:`twisted_net.http.retry.budget`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.retry.budget import REWARD, RetryBudget
from twisted_net.http.retry.settings import BudgetSettings


class RetryBudgetTests(SynchronousTestCase):
    """:class:`RetryBudget` allows retries until it is empty."""

    def test_costs_of_the_aws_sdks(self) -> None:
        """500 tokens; 14 for a retry, 5 after throttling, one refunded for a success."""
        settings = BudgetSettings()
        self.assertEqual(
            (settings.capacity, settings.retry_cost, settings.throttled_cost, REWARD),
            (500, 14, 5, 1),
        )

    def test_empty(self) -> None:
        """When too few are left, there is no retry; a cheaper one may still be made."""
        budget = RetryBudget(BudgetSettings(capacity=20))
        self.assertEqual(budget.acquire(), 14)
        self.assertIsNone(budget.acquire())
        self.assertEqual(budget.acquire(throttled=True), 5)
        self.assertEqual(budget.tokens, 1)
        self.assertIsNone(budget.acquire(throttled=True))

    def test_refund(self) -> None:
        """Refunded tokens may be acquired again, up to the capacity."""
        budget = RetryBudget(BudgetSettings(capacity=14))
        self.assertEqual(budget.acquire(), 14)
        for _ in range(13):
            budget.refund(REWARD)
        self.assertIsNone(budget.acquire())
        budget.refund(REWARD)
        self.assertEqual(budget.acquire(), 14)
        budget.refund(14)
        budget.refund(14)
        self.assertEqual(budget.tokens, 14)

    def test_no_budget(self) -> None:
        """Without a capacity every retry is free; with one of 0 there is none."""
        free = RetryBudget(BudgetSettings(capacity=None))
        self.assertEqual([free.acquire() for _ in range(3)], [0, 0, 0])
        free.refund(REWARD)
        self.assertEqual(free.tokens, 0)
        self.assertIsNone(RetryBudget(BudgetSettings(capacity=0)).acquire())

    @given(st.lists(st.sampled_from(["retry", "throttled", "success", "reward"])))
    def test_bounds(self, steps: list[str]) -> None:
        """After any steps its tokens are between 0 and the capacity, and account for all calls."""
        budget = RetryBudget(BudgetSettings(capacity=50))
        held = 0
        for step in steps:
            if step == "success":
                budget.refund(held)
                held = 0
            elif step == "reward":
                budget.refund(REWARD)
            else:
                held = budget.acquire(throttled=step == "throttled") or 0
            self.assertTrue(0 <= budget.tokens <= 50)
