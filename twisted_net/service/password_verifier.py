"""Password verifier: checks passwords against hashes in threads of low priority."""

from __future__ import annotations

import os
import sys
from collections import deque
from contextlib import suppress
from functools import partial
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from twisted_net.auth.passwords import verify
from twisted_net.errors import TooBusy

DECOY = "$scrypt$ln=15,r=8,p=3$MDAwMDAwMDAwMDAwMDAwMA$yXEwQhQlQqk5vRfijBEsILiVw39bwFM7s+citMRbpAc"
"""Hash that is verified for unknown users, so that the time does not show which users exist."""

NICENESS = 10
"""
The niceness (nice(2)), above that of the reactor, of the thread that verifies a password.

If they share a busy core, the thread gets a tenth of it. With a higher niceness, clients with the
right password would exceed the time limit of logins, and the reactor would gain little.
"""


def verify_at_low_priority(hashed: str, password: str) -> bool:
    """
    Verify as :func:`~twisted_net.auth.passwords.verify` does, in a thread of lower priority.

    The priority is lowered on Linux only, the one system where threads have their own. A thread
    cannot raise its priority again: hence a new thread, not one of the reactor's pool.
    """
    # Not at the top: it takes a while to import, and only this function needs it.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, initializer=_lower_priority) as executor:
        return executor.submit(verify, hashed, password).result()


def _lower_priority() -> None:
    if sys.platform == "linux":
        # A sandbox may forbid it; the password is verified anyway.
        with suppress(OSError):
            os.nice(NICENESS)


class PasswordVerifier:
    """
    Verifies passwords in threads, one at a time and in order.

    One verification takes tens of megabytes and up to half a second of CPU time: nothing else that
    a client can request before it has logged in costs as much. It runs at a lower priority than
    the reactor.

    :param limit: verifications that may wait or run; one whose client has disconnected counts
        until its turn.
    """

    def __init__(self, reactor: IReactorTime, limit: int) -> None:
        self._reactor = reactor
        self._limit = limit
        self._busy = False
        self._waiting: deque[tuple[Deferred[bool], str, str]] = deque()

    def verify(self, hashed: str, password: str) -> Deferred[bool]:
        """
        Return whether the password is the hashed one.

        :raises TooBusy: at the limit.
        """
        if len(self._waiting) + self._busy >= self._limit:
            raise TooBusy(self._limit)
        result: Deferred[bool] = Deferred()
        self._waiting.append((result, hashed, password))
        self._next()
        return result

    def _next(self) -> None:
        while self._waiting and not self._busy:
            result, hashed, password = self._waiting.popleft()
            if not result.called:
                self._busy = True
                pool = cast(IReactorThreads, self._reactor).getThreadPool()
                reactor = cast(IReactorFromThreads, self._reactor)
                checked = deferToThreadPool(
                    reactor, pool, partial(verify_at_low_priority, hashed, password)
                )
                checked.addBoth(self._done, result)

    def _done(self, value: bool | Failure, result: Deferred[bool]) -> None:
        self._busy = False
        if not result.called:
            result.callback(cast(bool, value))  # a Failure calls the errbacks
        self._next()
