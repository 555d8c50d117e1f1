"""Reactors in memory for what runs in threads: those of the test, or real ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from tests.patience import PATIENCE

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


class ThreadReactor(MemoryReactorClock):
    """A reactor in memory that takes calls from threads."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # it has no annotations
        self.calls_from_threads: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.at_shutdown: list[Callable[[], None]] = []

    def callFromThread(self, function: Callable[..., object], *args: object) -> None:
        """Let a function wait for :meth:`run_one`."""
        self.calls_from_threads.put(lambda: function(*args))

    def run_one(self) -> None:
        """Wait for a call from a thread, and make it."""
        self.calls_from_threads.get(timeout=PATIENCE)()

    def addSystemEventTrigger(  # type: ignore[override]  # it returns nothing
        self, phase: str, event: str, function: Any, *_: object
    ) -> object:
        """Keep a function for :meth:`shut_down`."""
        assert (phase, event) == ("during", "shutdown")
        self.at_shutdown.append(function)
        return function

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        """Forget a function."""
        self.at_shutdown.remove(trigger)

    def shut_down(self) -> None:
        """Fire the triggers of a shutdown."""
        found, self.at_shutdown = self.at_shutdown, []
        for function in found:
            function()
