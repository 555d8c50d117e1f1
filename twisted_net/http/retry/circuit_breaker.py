"""The circuit breaker: an origin that fails and fails is left alone for a while."""

from __future__ import annotations

from enum import Enum

from twisted_net.http.retry.settings import BreakerSettings


class State(Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """All pass."""

    OPEN = "open"
    """None passes."""

    HALF_OPEN = "half_open"
    """One at a time passes, to try."""


class Breaker:
    """
    The breaker of one origin.

    Every call asks :meth:`begin` and, where it may begin, tells its end with :meth:`end`. What a
    call from before the last change of state comes to changes nothing any more.

    :ivar state: what is done with calls.
    """

    __slots__ = ("_failures", "_settings", "_term", "_until", "state")

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self.state = State.CLOSED
        self._failures = 0
        self._until = 0.0
        # Counts the changes of state, so that each call belongs to one term.
        self._term = 0

    def wait(self, now: float) -> float:
        """Seconds until a call may begin, as far as is known now; 0 where it may at once."""
        return 0.0 if self.state is State.CLOSED else max(0.0, self._until - now)

    def begin(self, now: float) -> int | None:
        """Give the ticket of a call that begins, for :meth:`end`; None where it must not."""
        if self.state is State.CLOSED:
            return self._term
        if now < self._until:
            return None
        # The rest is over, or the probe before has taken too long: this call is the next probe.
        self._become(State.HALF_OPEN, now + self._settings.probe_timeout)
        return self._term

    def end(self, ticket: int, ok: bool | None, now: float) -> None:
        """
        Note how a call ended.

        :param ok: whether the origin did its work; None where that did not come out.
        """
        if ticket != self._term:
            return
        if self.state is State.HALF_OPEN:
            if ok:
                self._become(State.CLOSED, 0.0)
            elif ok is None:
                self._become(State.OPEN, now)
            else:
                self._become(State.OPEN, now + self._settings.rest)
        elif ok:
            self._failures = 0
        elif ok is False and self._settings.failures is not None:
            self._failures += 1
            if self._failures >= self._settings.failures:
                self._become(State.OPEN, now + self._settings.rest)

    def _become(self, state: State, until: float) -> None:
        self.state = state
        self._until = until
        self._term += 1
        self._failures = 0
