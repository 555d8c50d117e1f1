"""A clock whose threads run when the test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

_T = TypeVar("_T")


class ThreadClock(Clock):
    """
    A clock that is its own pool of threads (:class:`~twisted_net.net.worker_threads.Threads`).

    Functions wait until :meth:`run_thread` runs them, one at a time, oldest first.

    :ivar limit: how many may wait to be run.
    :ivar stopped: whether the threads were stopped.
    """

    limit = 10
    stopped = False

    def __init__(self) -> None:
        super().__init__()
        self.threads: deque[Callable[[], None]] = deque()

    @property
    def busy(self) -> int:
        """How many functions wait to be run."""
        return len(self.threads)

    def call(self, function: Callable[[], _T]) -> Deferred[_T]:
        """Let *function* wait for a thread."""
        assert len(self.threads) < self.limit
        result: Deferred[Any] = Deferred(lambda _: None)  # Any: a Failure, too

        def run() -> None:
            value: object
            try:
                value = function()
            except BaseException:  # as in a thread
                value = Failure()
            self.threads.popleft()
            if not result.called:
                result.callback(value)

        self.threads.append(run)
        return result

    def run_thread(self) -> None:
        """Run the function that has waited longest, to its end."""
        self.threads[0]()

    def start(self) -> None:
        """Keep idle threads."""
        self.stopped = False

    def stop(self) -> None:
        """End the idle threads."""
        self.stopped = True
