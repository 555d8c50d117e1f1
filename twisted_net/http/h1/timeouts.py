"""Time limits of all requests of a client, with one timer."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

CHECKED_PER_SECOND = 100_000
"""
Waiting requests that are looked at in a second, at most: one takes 0.05 us, so it is 0.5 % of it.

Thus a thousand have their time limits to 10 ms, and fewer than that exactly.
"""

EXPIRED_PER_TURN = 32
"""Requests whose time ends in one reactor turn: each wakes its caller, who takes some 50 us."""


LATE = 0.05
"""
Seconds after its time at which the timer shows that the reactor was held up.

What servers have sent meanwhile is read first, in the next turn: it came in time.
"""


class Timed(Protocol):
    """
    Something that waits for no longer than a time.

    :ivar due: when its time is over, by the steady clock; it may be set to a later time.
    """

    due: float

    def expire(self, now: float) -> None:
        """Its time is over: end it, or set ``due`` to a later time."""


class ExchangeTimeouts:
    """
    Ends what waits for too long.

    A timer for each request would cost more than all else that is done for its time limits. There
    is one, for the first time that is due; when it runs, it looks at all that wait.

    :param clock: a steady one.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[Timed, None] = {}
        self._expired: deque[Timed] = deque()
        self._timer: IDelayedCall | None = None
        self._next = inf  # when the timer runs
        self._checked = -inf  # when all were looked at last
        self._held_up = False  # what has come is being read first

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, timed: Timed) -> None:
        """Watch something that waits, or note that it is due earlier than before."""
        self._waiting[timed] = None
        if timed.due < self._next:
            self._set(timed.due)

    def discard(self, timed: Timed) -> None:
        """Watch it no more; idempotent. The timer is left for what comes next."""
        self._waiting.pop(timed, None)

    def stop(self) -> None:
        """Leave no timer: nothing waits any more."""
        self._waiting.clear()
        self._expired.clear()
        self._set(inf)

    def _set(self, due: float) -> None:
        self._next = due
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due < inf:
            self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._check)

    def _check(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if now - self._next > LATE and not self._held_up:
            self._held_up = True
            self._set(now)
            return
        self._held_up = False
        expired = self._expired
        if not expired:
            self._checked = now
            expired.extend(timed for timed in self._waiting if timed.due <= now)
        try:
            for _ in range(EXPIRED_PER_TURN):
                if not expired:
                    break  # the end of one may have stopped all
                timed = expired.popleft()
                if timed in self._waiting and timed.due <= now:
                    timed.expire(now)
        finally:
            # It may call the receiver of a body, which may fail.
            self._set_next(now)

    def _set_next(self, now: float) -> None:
        """Set the timer for the next look."""
        if self._expired:
            self._set(now)
        elif self._waiting:
            earliest = min(timed.due for timed in self._waiting)
            self._set(max(earliest, self._checked + len(self._waiting) / CHECKED_PER_SECOND))
        else:
            self._next = inf
