"""The retry budget: limits the retries to a failing origin; successes refill it."""

from __future__ import annotations

from twisted_net.http.retry.settings import BudgetSettings

REWARD = 1
"""Tokens refunded for a call that succeeds at its first attempt."""


class RetryBudget:
    """
    A token bucket for the retries to one origin.

    Tokens are acquired when the delay before a retry begins, not when it ends, so that calls
    which wait at the same time cannot all use the same tokens.

    :ivar tokens: available now.
    """

    __slots__ = ("_settings", "tokens")

    def __init__(self, settings: BudgetSettings) -> None:
        self._settings = settings
        self.tokens = settings.capacity or 0

    def acquire(self, *, throttled: bool = False) -> int | None:
        """
        Acquire the tokens for one retry; return their number, or None if there are too few.

        :param throttled: whether the server asked to slow down, and so is alive.
        """
        if self._settings.capacity is None:
            return 0
        cost = self._settings.throttled_cost if throttled else self._settings.retry_cost
        if cost > self.tokens:
            return None
        self.tokens -= cost
        return cost

    def refund(self, tokens: int) -> None:
        """Return tokens to the budget: of a retry that succeeded or was never made, or a reward."""
        capacity = self._settings.capacity
        if capacity is not None and self.tokens < capacity:
            self.tokens = min(capacity, self.tokens + tokens)
