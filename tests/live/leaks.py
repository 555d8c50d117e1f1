"""Finds what a test leaves behind in the reactor and in the log."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

from twisted.internet import process
from twisted.internet.base import DelayedCall
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

LOOKS = 200
"""
How often a closed connection is looked at until it must be gone; on loopback a few times do.

They are a second on an idle machine. Not seconds: a process that waits for a processor closes
nothing meanwhile.
"""


@implementer(ILogObserver)
class LoggedErrors:
    """
    The errors that were logged since :meth:`start`.

    A test that expects some takes them out with :meth:`flush`; what is left fails it.
    """

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def start(self) -> None:
        """Begin to listen to everything that is logged."""
        globalLogPublisher.addObserver(self)

    def stop(self) -> None:
        """Listen no more; what was heard is kept."""
        globalLogPublisher.removeObserver(self)

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        if event.get("log_format") == "Unhandled error in Deferred:":
            return  # a heading: the event that follows carries the failure
        if "log_failure" in event or (level is not None and level >= LogLevel.error):
            self._events.append(event)

    def flush(self, *kinds: type[BaseException]) -> list[LogEvent]:
        """
        Take out the errors heard so far, oldest first.

        :param kinds: take only events that carry a failure of one of these types; all if none.
        """
        gc.collect()
        taken = [event for event in self._events if not kinds or _carries(event, kinds)]
        self._events = [event for event in self._events if event not in taken]
        return taken


class Watch:
    """
    Remembers what a reactor holds now, and tells later what has been added.

    :param reactor: the running reactor, epoll or asyncio.
    """

    def __init__(self, reactor: Any) -> None:  # Any: it is five zope interfaces at once
        self._reactor = reactor
        # The objects, not their ids alone: the id of one that is gone may be given again.
        self._before = [*reactor.getDelayedCalls(), *self._held()]
        self._known = set(map(id, self._before))

    async def leftovers(self) -> list[str]:
        """
        Say what has been added, a line each; nothing if all is gone after :data:`LOOKS` looks.

        A delayed call that runs while this waits is a leftover too.
        """
        await self._turn(0)
        suspects = self._new_calls()
        for _ in range(LOOKS):
            if not self._new_calls() and not self._new_selectables():
                break
            await self._turn(0.005)
        calls = [*self._new_calls(), *(call for call in suspects if call.called)]
        return [
            *(f"delayed call: {call}" for call in calls),
            *(f"open: {selectable}" for selectable in self._new_selectables()),
            *(f"child process: {pid}" for pid in process.reapProcessHandlers),
        ]

    def clear(self) -> None:
        """Cancel and close what has been added, so that it does not disturb the next test."""
        for call in self._new_calls():
            call.cancel()
        for selectable in self._new_selectables():
            self._reactor.removeReader(selectable)
            self._reactor.removeWriter(selectable)
            selectable.connectionLost(Failure(ConnectionAborted()))

    def _held(self) -> Iterable[Any]:  # Any: ports, connections, pipes
        return dict.fromkeys([*self._reactor.getReaders(), *self._reactor.getWriters()])

    def _new_calls(self) -> list[DelayedCall]:
        return [call for call in self._reactor.getDelayedCalls() if id(call) not in self._known]

    def _new_selectables(self) -> list[Any]:  # Any: as above
        return [item for item in self._held() if id(item) not in self._known]

    async def _turn(self, seconds: float) -> None:
        """Wait, and leave no trace of the waiting in what :meth:`leftovers` looks at."""
        await deferLater(self._reactor, seconds)


def describe_error(event: LogEvent) -> str:
    """Give the text of an event, with its traceback where it has one."""
    failure = event.get("log_failure")
    return "logged: " + formatEvent(event) + ("\n" + failure.getTraceback() if failure else "")


def _carries(event: LogEvent, kinds: tuple[type[BaseException], ...]) -> bool:
    failure = event.get("log_failure")
    return failure is not None and failure.check(*kinds) is not None
