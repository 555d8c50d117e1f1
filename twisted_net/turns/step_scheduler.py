"""Step scheduler: long work is done in steps, one in a reactor turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from types import GeneratorType
from typing import Any, Generic, TypeVar

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

_T = TypeVar("_T")


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

    @property
    def busy(self) -> bool:
        """Whether steps are left."""
        return bool(self._jobs)

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
