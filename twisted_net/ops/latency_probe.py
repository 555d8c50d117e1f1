"""Latency probe: a service that measures how late the reactor runs its timers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.steady_clock import steady
from twisted_net.ops.latency import PROBE_INTERVAL, Latency


@check_arguments
class LatencyProbe(Service):
    """
    Sets a timer every :data:`~twisted_net.ops.latency.PROBE_INTERVAL` while it runs, and records
    how late each runs.

    :param latency: where they are recorded.
    :param wall: returns the seconds of the wall clock.
    """

    def __init__(self, reactor: IReactorTime, latency: Latency, wall: Callable[[], float]) -> None:
        self._reactor = steady(reactor)
        self._latency = latency
        self._wall = wall
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
        self._due = self._reactor.seconds() + PROBE_INTERVAL
        self._call = self._reactor.callLater(PROBE_INTERVAL, self._called)

    def _called(self) -> None:
        self._latency.note(self._reactor.seconds() - self._due, self._wall())
        self._wait()
