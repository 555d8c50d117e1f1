"""Turn scheduler: divides long work over reactor turns, with other connections in between."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from types import GeneratorType
from typing import Any, Generic, Protocol, TypeVar

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

TURN_BUDGET = 0.001
"""
Seconds of one reactor turn for the lines of all connections that wait for a turn.

A client that asks for little is answered between two of these, however much others ask for. Without
a budget a turn took as long as there were clients: 170 ms where 50 asked for CLIENTS repeatedly.
"""

FREE_LINES = 4
"""Lines that a connection may run as they arrive, although others wait for a turn."""

_T = TypeVar("_T")


class TurnTaker(Protocol):
    """A connection that has lines left to run."""

    def take_turn(self) -> None:
        """Run some of them; it may ask for another turn."""
        ...


class TurnScheduler:
    """
    The connections that have lines left to run, in the order in which they asked for a turn.

    :ivar busy: whether some wait, or this turn has been long: a connection with much to run waits
        too then.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.busy = False
        self._reactor = reactor
        # Ordered: the oldest key of a plain dict is slow to find after many deletions.
        self._waiting: OrderedDict[TurnTaker, None] = OrderedDict()
        self._next: IDelayedCall | None = None

    def add(self, connection: TurnTaker) -> None:
        """Schedule a turn for a connection, never within this call; idempotent."""
        self._waiting[connection] = None
        self.mark_busy()

    def discard(self, connection: TurnTaker) -> None:
        """Cancel the turn of a connection, if it has one."""
        self._waiting.pop(connection, None)

    def mark_busy(self) -> None:
        """Make connections with much to run wait until the next turn, as this one has been long."""
        self.busy = True
        if self._next is None:
            self._next = self._reactor.callLater(0, self._take)

    def stop(self) -> None:
        """Cancel all turns."""
        self._waiting.clear()
        self.busy = False
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _take(self) -> None:
        self._next = None
        waiting = self._waiting
        until = self._reactor.seconds() + TURN_BUDGET
        try:
            # Each once: a connection that asks again comes after all others.
            for _ in range(len(waiting)):
                if not waiting:
                    break  # a turn has ended other connections
                connection, _ = waiting.popitem(last=False)
                connection.take_turn()
                if self._reactor.seconds() >= until:
                    break
        finally:
            self.busy = False
            if waiting:
                self.mark_busy()


@define(eq=False)
class _Job(Generic[_T]):
    """An iterable that is consumed: what its steps have returned so far, and who waits for it."""

    steps: Iterator[_T]
    values: list[_T]
    done: Deferred[list[_T]]


class StepScheduler:
    """
    Consumes iterables, one after the other: the first step at once, then one per reactor turn.

    Every iterable must be finite.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._jobs: deque[_Job[Any]] = deque()  # Any: each has values of its own type
        self._next: IDelayedCall | None = None
        self._stepping = False

    def __call__(self, steps: Iterable[_T]) -> Deferred[list[_T]]:
        """
        Consume an iterable.

        :return: fires a turn after the last step with the values of all steps, or with the
            failure of one. If it is cancelled it fails at once, but the steps run to their end.
        """
        done: Deferred[list[_T]] = Deferred()
        self._jobs.append(_Job(iter(steps), [], done))
        # A step may add another iterable.
        if self._next is None and not self._stepping:
            self._take()
        return done

    def stop(self) -> None:
        """Drop the steps that are left: what waits for them gets the values so far."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            _drop(job)
            job.done.callback(job.values)

    def _take(self) -> None:
        self._next = None
        ended = []
        while self._jobs and self._next is None:
            job = self._jobs[0]
            outcome = self._step(job)
            if not self._jobs or self._jobs[0] is not job:
                _drop(job)  # the step itself has stopped all of them
            elif outcome is None:
                self._next = self._reactor.callLater(0, self._take)
            else:
                self._jobs.popleft()
                ended.append((job, outcome))
        # Last, so that what waits finds the next one begun.
        for job, outcome in ended:
            job.done.callback(outcome)

    def _step(self, job: _Job[Any]) -> list[Any] | Failure | None:  # Any: as above
        """Do one step; return the outcome if there is none left."""
        self._stepping = True
        try:
            job.values.append(next(job.steps))
        except StopIteration:
            return job.values
        except BaseException:
            return Failure()
        finally:
            self._stepping = False
        return None


def _drop(job: _Job[Any]) -> None:  # Any: as above
    # A generator may have to clean up; while it runs, it cannot.
    if isinstance(job.steps, GeneratorType) and not job.steps.gi_running:
        job.steps.close()
