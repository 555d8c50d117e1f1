"""Rate of one command: how often each user, or address without one, may call it."""

from __future__ import annotations

import math

from twisted_net.errors import RateLimited
from twisted_net.net.rate_limit import RateLimiter
from twisted_net.sessions.session import Session


class CommandRate:
    """
    The calls of one command, by the :attr:`~twisted_net.sessions.Session.owner` of the caller.

    :param per_second: calls of each owner per second, on all doors together.
    :param burst: calls at once after a pause; if None those of a second, one at least.
    :raises ValueError: if the rate is not positive, or not even one call is allowed at once.
    """

    def __init__(self, per_second: float, burst: int | None = None) -> None:
        if not 0 < per_second < math.inf or (burst is not None and burst < 1):
            raise ValueError("per_second is above 0, and burst at least 1")
        self._calls = RateLimiter(per_second, max(per_second, 1.0) if burst is None else burst)

    def charge(self, session: Session) -> None:
        """
        Count a call.

        :raises RateLimited: if its owner has used up the rate; then it is not counted.
        """
        wait = self._calls.take(session.owner, session.sessions.doors.seconds())
        if wait:
            raise RateLimited("address" if session.user is None else "user", wait)
