"""Runs what a command of the shell does, until it is done or Ctrl-C ends it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred

INTERRUPTED = 130
"""Exit status where Ctrl-C came first: 128 and the number of SIGINT, as shells have it."""


Main = Callable[[Any], Coroutine[Deferred[Any], Any, object]]  # Any: reactors have no one type


def run_to_the_end(main: Main) -> NoReturn:
    """
    Run the reactor while *main* does what it does, then end the process.

    It begins once the reactor runs, and so Ctrl-C and SIGTERM cancel it, and wait for it to clean
    up; Twisted's own ``react`` begins before, and leaves it where it is. Before that, Ctrl-C ends
    the process without a word.

    :param main: is given the reactor; it may raise SystemExit with a status of its own.
    :raises SystemExit: with 0, the status that *main* raised, 1 for a bug of its, which is
        printed, or :data:`INTERRUPTED` where it was cancelled.
    """
    # It brings the reactor, if none is installed.
    from twisted.internet.task import react

    async def begin(reactor: Any) -> None:  # Any: as above
        runs: Deferred[None] = Deferred()
        reactor.callWhenRunning(runs.callback, None)
        await runs
        work = Deferred.fromCoroutine(main(reactor))
        ended: Deferred[None] = Deferred()

        def stop() -> Deferred[None] | None:
            if work.called:
                return None
            work.cancel()
            return ended

        reactor.addSystemEventTrigger("before", "shutdown", stop)
        try:
            await work
        except CancelledError:
            raise SystemExit(INTERRUPTED) from None
        finally:
            ended.callback(None)

    try:
        react(begin)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
