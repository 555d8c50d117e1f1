"""How many retries an origin is worth while it fails: a budget that successes fill again."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from twisted_net.config.record import Record

REWARD = 1
"""Tokens that a call gives back which succeeded at once."""


class BudgetSettings(Record, frozen=True):
    """
    What retries to one origin cost.

    The figures of the AWS SDKs (their retry behaviour of 2026): 500 tokens, 14 for a retry, 5
    after an answer that asks for patience, one back for each call that succeeds at once. While all
    goes well the budget is never felt; when an origin fails altogether, some 35 retries are made
    and then one for every fourteen successes, so that its recovery is not drowned in retries.
    """

    capacity: (
        Annotated[
            int,
            Meta(ge=0, description="tokens for retries to one origin; none: retries are free"),
        ]
        | None
    ) = 500
    retry_cost: Annotated[int, Meta(ge=0, description="tokens that a retry costs")] = 14
    throttled_cost: Annotated[
        int, Meta(ge=0, description="tokens for a retry after an answer that asks for patience")
    ] = 5


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
