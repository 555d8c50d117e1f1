"""Periodic call: a service that calls a function at an interval, while it runs."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from typing_extensions import override

from twisted_net.net.steady_clock import steady


class PeriodicCall(Service):
    """
    Calls a function at an interval while it runs, the first time after one interval.

    Other than with Twisted's TimerService a function that raises is called again, as is one of a
    service that is started anew.

    :param interval: seconds from one call to the next.
    :param function: takes the seconds by which the reactor is late.
    """

    def __init__(
        self, reactor: IReactorTime, interval: float, function: Callable[[float], object]
    ) -> None:
        self._reactor = steady(reactor)
        self._interval = interval
        self._function = function
        self._call: IDelayedCall | None = None
        self._due = 0.0

    @override
    def startService(self) -> None:
        Service.startService(self)
        if self._call is None:
            self._wait()

    @override
    def stopService(self) -> None:
        Service.stopService(self)
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait(self) -> None:
        self._due = self._reactor.seconds() + self._interval
        self._call = self._reactor.callLater(self._interval, self._called)

    def _called(self) -> None:
        late = self._reactor.seconds() - self._due
        # First: the function may raise, and may stop this service.
        self._wait()
        self._function(late)
