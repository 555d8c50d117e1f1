"""How many retries an origin is worth while it fails: a budget that successes fill again."""

from __future__ import annotations

from twisted_net.http.retry.settings import BudgetSettings

REWARD = 1
"""Tokens that a call gives back which succeeded at once."""


class RetryBudget:
    """
    The tokens of one origin.

    They are taken when the wait for a retry begins, not when it ends: however many calls wait at a
    time, they have paid for their retries.

    :ivar left: tokens that may be taken.
    """

    __slots__ = ("_settings", "left")

    def __init__(self, settings: BudgetSettings) -> None:
        self._settings = settings
        self.left = settings.capacity or 0

    def reserve(self, *, throttled: bool = False) -> int | None:
        """
        Take the tokens for one retry; give their number, or None where too few are left.

        :param throttled: whether the server asked for patience, and so is alive.
        """
        if self._settings.capacity is None:
            return 0
        cost = self._settings.throttled_cost if throttled else self._settings.retry_cost
        if cost > self.left:
            return None
        self.left -= cost
        return cost

    def refund(self, tokens: int) -> None:
        """Give back tokens: of a retry that succeeded or was never made, or :data:`REWARD`."""
        capacity = self._settings.capacity
        if capacity is not None:
            self.left = min(capacity, self.left + tokens)
