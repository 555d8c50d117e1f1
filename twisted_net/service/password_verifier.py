"""Password verifier: checks passwords in threads of low priority, in a fair order."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import ceil
from random import random

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_net.auth.password_queue import Applicant, PasswordQueue
from twisted_net.auth.passwords import settings_of, verify
from twisted_net.auth.users import AuthSettings
from twisted_net.errors import TooBusy
from twisted_net.net.steady_clock import steady
from twisted_net.net.worker_threads import Threads, WorkerThreads

NICENESS = 10
"""
The niceness (nice(2)), above that of the reactor, of the thread that verifies a password.

If they share a busy core, the thread gets a tenth of it. With a higher niceness, clients with the
right password would exceed the time limit of logins, and the reactor would gain little.
"""


def lower_priority() -> None:
    """
    Lower the priority of this thread, on Linux: the one system where threads have their own.

    A thread cannot raise its priority again, so that it must be one of these threads' own.
    """
    if sys.platform == "linux":
        # A sandbox may forbid it; the passwords are verified anyway.
        with suppress(OSError):
            os.nice(NICENESS)


@frozen(eq=False)
class PasswordCheck:
    """
    One password to check.

    :param hashed: the hash of the user's password; None if there is no such user, or if it has no
        password.
    :param decoys: a hash of each kind and cost that passwords are hashed with.
    :param spare: called if the check is cancelled before it began, or while it runs and does not
        find the password wrong: that was no failure. A wrong one is no free guess.
    """

    applicant: Applicant
    hashed: str | None
    decoys: Sequence[str]
    password: str
    spare: Callable[[], None] | None = None

    def run(self) -> bool:
        """
        Return whether the password is right; it takes a large part of a second.

        A refusal costs one verification of each kind and cost, whatever user it is and whether
        there is one, so that its time does not show which users exist.
        """
        if self.hashed is not None and verify(self.hashed, self.password):
            return True
        own = None if self.hashed is None else settings_of(self.hashed)
        for decoy in self.decoys:
            if settings_of(decoy) != own:
                verify(decoy, self.password)
        return False


class PasswordVerifier:
    """
    Verifies passwords in threads of low priority, in the order of a :class:`PasswordQueue`.

    One verification takes tens of megabytes and up to half a second of CPU time: nothing else that
    a client can request before it has logged in costs as much.

    :param threads: those that verify; of its own if None.
    """

    def __init__(
        self, reactor: IReactorTime, settings: AuthSettings, threads: Threads | None = None
    ) -> None:
        workers = settings.password_threads
        self._reactor = steady(reactor)
        if threads is None:
            threads = WorkerThreads(reactor, "password", workers, prepare=lower_priority)
        self._threads = threads
        self._queue: PasswordQueue[PasswordCheck] = PasswordQueue(
            settings.max_waiting, settings.timeout, workers
        )
        self._results: dict[PasswordCheck, Deferred[bool]] = {}

    def knows(self, source: str, name: str) -> bool:
        """Whether this name's password was right from this source, among the last ones."""
        return self._queue.knows(source, name)

    def verify(self, check: PasswordCheck) -> Deferred[bool]:
        """
        Return whether a password is right.

        When cancelled, one that waits is not checked.

        :return: fails with TooBusy if it has no place in the queue; later too, when it loses it.
        """
        result: Deferred[bool] = Deferred(partial(self._cancel, check))
        self._results[check] = result
        surplus = self._queue.add(check, check.applicant, self._reactor.seconds())
        delay = ceil(self._queue.delay)
        for refused in surplus:
            self._results.pop(refused).errback(
                TooBusy(self._queue.limit, "logins", retry_after=delay)
            )
        self._next()
        return result

    @property
    def busy_threads(self) -> int:
        """How many threads verify a password, be it one that nobody waits for any more."""
        return self._threads.busy

    def start(self) -> None:
        """Keep idle threads again, after :meth:`stop`."""
        self._threads.start()

    def stop(self) -> None:
        """End idle threads; one that is needed later ends after its verification."""
        self._threads.stop()

    def _next(self) -> None:
        while self._threads.busy < self._threads.limit:
            check = self._queue.take(self._reactor.seconds(), random())
            if check is None:
                return
            began = self._reactor.seconds()
            self._threads.call(check.run).addBoth(self._done, check, began)

    def _done(self, outcome: bool | Failure, check: PasswordCheck, began: float) -> None:
        if not isinstance(outcome, Failure):
            now = self._reactor.seconds()
            self._queue.checked(check.applicant, now, right=outcome, took=now - began)
        result = self._results.pop(check, None)
        if result is not None:
            result.callback(outcome)  # a Failure calls the errbacks
        elif outcome is not False and check.spare is not None:
            check.spare()
        self._next()

    def _cancel(self, check: PasswordCheck, _: Deferred[bool]) -> None:
        del self._results[check]
        if self._queue.discard(check) and check.spare is not None:
            check.spare()
