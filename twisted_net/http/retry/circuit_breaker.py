"""The circuit breaker: rejects requests to an origin for a while after repeated failures."""

from __future__ import annotations

from enum import Enum

from twisted_net.http.retry.settings import CircuitBreakerSettings


class CircuitState(Enum):
    """The states of a circuit breaker."""

    CLOSED = "closed"
    """All calls are allowed."""

    OPEN = "open"
    """All calls are rejected."""

    HALF_OPEN = "half_open"
    """One call at a time is allowed, as a probe."""


class CircuitBreaker:
    """
    The circuit breaker of one origin.

    Each call begins with :meth:`acquire` and, if it is allowed, ends with :meth:`release`. The
    outcome of a call that began before the last change of state is ignored.

    :ivar state: the current state.
    """

    __slots__ = ("_failures", "_generation", "_settings", "_until", "state")

    def __init__(self, settings: CircuitBreakerSettings) -> None:
        self._settings = settings
        self.state = CircuitState.CLOSED
        self._failures = 0
        self._until = 0.0
        # Counts the changes of state; a call belongs to the generation that it began in.
        self._generation = 0

    def retry_after(self, now: float) -> float:
        """Return the seconds until a call may be allowed, as far as is known; 0 for at once."""
        if self.state is CircuitState.CLOSED:
            return 0.0
        # More than this is left only if the clock was set back.
        if self._until - now > self._longest:
            self._until = now + self._longest
        return max(0.0, self._until - now)

    def acquire(self, now: float) -> int | None:
        """Return a ticket for :meth:`release` if a call may begin, or None if it is rejected."""
        if self.state is CircuitState.CLOSED:
            return self._generation
        if self.retry_after(now) > 0.0:
            return None
        # The open time is over, or the last probe has timed out: this call is the next probe.
        self._change_to(CircuitState.HALF_OPEN, now + self._settings.probe_timeout)
        return self._generation

    def release(self, ticket: int, ok: bool | None, now: float) -> None:
        """
        Record the outcome of a call.

        :param ok: whether the origin is healthy by it; None where it does not show that.
        """
        if ticket != self._generation:
            return
        if self.state is CircuitState.HALF_OPEN:
            if ok:
                self._change_to(CircuitState.CLOSED, 0.0)
            elif ok is None:
                self._change_to(CircuitState.OPEN, now)
            else:
                self._change_to(CircuitState.OPEN, now + self._settings.rest)
        elif ok:
            self._failures = 0
        elif ok is False and self._settings.failures is not None:
            self._failures += 1
            if self._failures >= self._settings.failures:
                self._change_to(CircuitState.OPEN, now + self._settings.rest)

    @property
    def _longest(self) -> float:
        """The most seconds that the present state, open or half open, may be worth."""
        half_open = self.state is CircuitState.HALF_OPEN
        return self._settings.probe_timeout if half_open else self._settings.rest

    def _change_to(self, state: CircuitState, until: float) -> None:
        self.state = state
        self._until = until
        self._generation += 1
        self._failures = 0
