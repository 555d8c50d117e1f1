"""Full collections: when a process of its own looks through all its objects for garbage."""

from __future__ import annotations

import gc
from collections.abc import Callable

from typing_extensions import override

from twisted_net.net.periodic_call import PeriodicCall
from twisted_net.net.reactor import ServiceReactor
from twisted_net.net.steady_clock import steady, stopwatch

LOOK_EVERY = 1.0
"""Seconds between two looks at whether a full collection is due."""

MAX_SHARE = 0.01
"""The largest share of the time that full collections take."""

NEVER = 2**31 - 1
"""The largest threshold that :func:`gc.set_threshold` takes."""


class FullCollections(PeriodicCall):
    """
    Starts the full collections of garbage of this process, for at most 1 % of the time.

    CPython starts one when the tracked objects are a quarter more than after the last one, thus
    several while thousands of clients come. Each takes some 1 µs for each object, in which no
    client is served. They can wait: what has no references is freed at once, and what is in a
    cycle and young by the collections of the young, which take 1 to 4 ms. So a full one is made
    here when the third number of :func:`gc.get_threshold` says so, and a hundred times as long
    after the last one as that one took.

    When the reactor runs, what exists is collected and then excluded for ever: modules, mostly,
    30 ms of each collection. Nothing is done where the application has turned collections off,
    and no full ones are made where Python does not count towards them (since 3.14).

    :param collect: makes a full collection.
    """

    def __init__(self, reactor: ServiceReactor, collect: Callable[[], object] = gc.collect) -> None:
        super().__init__(steady(reactor), LOOK_EVERY, self._look)
        self._when_running = reactor.callWhenRunning
        self._seconds = stopwatch(reactor)
        self._collect = collect
        self._threshold = (
            0  # collections of the middle generation after which one is due; 0 for never
        )
        self._not_before = 0.0

    @override
    def startService(self) -> None:
        super().startService()
        self._when_running(self._begin)

    @override
    def stopService(self) -> None:
        super().stopService()
        if self._threshold:
            young, middle, _ = gc.get_threshold()
            gc.set_threshold(young, middle, self._threshold)
            self._threshold = 0

    def _begin(self) -> None:
        young, middle, old = gc.get_threshold()
        if not self.running or not young or not gc.isenabled():
            return
        self._collect()
        gc.freeze()
        if old and not self._threshold:
            self._threshold = old
            gc.set_threshold(young, middle, NEVER)

    def _look(self, late: float) -> None:
        began = self._seconds()
        if self._threshold and gc.get_count()[2] >= self._threshold and began >= self._not_before:
            self._collect()
            ended = self._seconds()
            self._not_before = ended + (ended - began) / MAX_SHARE
