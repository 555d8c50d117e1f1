"""Latency probe: a service that measures how late the reactor runs its timers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.periodic_call import PeriodicCall
from twisted_net.ops.latency import PROBE_INTERVAL, Latency


@check_arguments
class LatencyProbe(PeriodicCall):
    """
    Sets a timer every :data:`~twisted_net.ops.latency.PROBE_INTERVAL` while it runs, and records
    how late each runs.

    :param latency: where they are recorded.
    :param wall: returns the seconds of the wall clock.
    """

    def __init__(self, reactor: IReactorTime, latency: Latency, wall: Callable[[], float]) -> None:
        super().__init__(reactor, PROBE_INTERVAL, lambda lateness: latency.note(lateness, wall()))
