"""A clock whose threads run when the test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.python.failure import Failure


class ThreadClock(Clock):
    """
    A clock that is its own thread pool, as much of one as ``deferToThreadPool`` needs.

    Functions wait until :meth:`run_thread` runs them, one at a time, oldest first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.threads: deque[Callable[[], None]] = deque()

    def getThreadPool(self) -> ThreadClock:
        """Give the pool."""
        return self

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, object], None], function: Callable[[], object]
    ) -> None:
        """Let *function* wait for a thread."""

        def run() -> None:
            try:
                value = function()
            except BaseException:  # as twisted.python.threadpool does
                onResult(False, Failure())
            else:
                onResult(True, value)

        self.threads.append(run)

    def callFromThread(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the reactor's thread: here and now."""
        function(*args)

    def run_thread(self) -> None:
        """Run the function that has waited longest, to its end."""
        self.threads.popleft()()
