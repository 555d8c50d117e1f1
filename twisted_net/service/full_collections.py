"""Full collections: when a process of its own looks through all its objects for garbage."""

from __future__ import annotations

import gc
from collections.abc import Callable

from typing_extensions import override

from twisted_net.net.periodic_call import PeriodicCall
from twisted_net.net.reactor import ServiceReactor
from twisted_net.net.steady_clock import stopwatch
from twisted_net.service.young_collections import WANTED, YoungCollections

LOOK_EVERY = 1.0
"""Seconds between two looks at whether a full collection is due."""

MAX_SHARE = 0.005
"""
The largest share of the time that full collections take: less than the one of a hundred requests
that the bound of the others leaves out.
"""

GROWTH = 1.25
"""How many times as many old objects as after the last full collection make one due, as CPython."""

NEVER = 2**31 - 1
"""The largest threshold that :func:`gc.set_threshold` takes."""


class FullCollections(PeriodicCall):
    """
    Starts the full collections of garbage of this process, for at most 0.5 % of the time.

    CPython starts one when the tracked objects are a quarter more than after the last one, thus
    several while thousands of clients come. Each takes some 1 µs for each object, in which no
    client is served. They can wait: what has no references is freed at once, and what is in a
    cycle and young by the collections of the young, which take 1 to 4 ms. So a full one is made
    here when the third number of :func:`gc.get_threshold` says so, there are :data:`GROWTH` times
    as many old objects, and the last one was :data:`MAX_SHARE` of the time since. Of the young
    collections that are made for us those count that take as long as one of Python's.

    When the reactor first runs, what exists is collected and then excluded for ever: modules,
    mostly, 30 ms of each collection. Nothing is done while the application has turned collections
    off, and no full ones are made where Python does not count towards them (since 3.14).

    :param young: makes the young collections.
    :param collect: makes a full collection.
    """

    def __init__(
        self,
        reactor: ServiceReactor,
        young: YoungCollections,
        collect: Callable[[], object] = gc.collect,
    ) -> None:
        super().__init__(reactor, LOOK_EVERY, self._look)
        self._when_running = reactor.callWhenRunning
        self._seconds = stopwatch(reactor)
        self._young = young
        self._counted = 0, 0.0  # of the young ones, at the last full one
        self._collect = collect
        # Collections of the middle generation after which one is due; 0 for never.
        self._threshold = 0
        self._not_before = 0.0
        self._left = 0  # old objects after the last one
        self._froze = False

    @override
    def startService(self) -> None:
        super().startService()
        self._when_running(self._begin)

    @override
    def stopService(self) -> None:
        super().stopService()
        threshold, self._threshold = self._threshold, 0
        young, middle, old = gc.get_threshold()
        if threshold and old == NEVER:
            gc.set_threshold(young, middle, threshold)

    def _begin(self) -> None:
        young, middle, old = gc.get_threshold()
        # At NEVER another service of this process does all this.
        if not self.running or not young or old == NEVER or not gc.isenabled():
            return
        if not self._froze:
            # Once: what exists when it is started again are clients and their garbage, too.
            self._froze = True
            self._collect()
            gc.freeze()
        if old:
            self._threshold = old
            gc.set_threshold(young, middle, NEVER)

    def _look(self, late: float) -> None:
        began = self._seconds()
        if not self._threshold or began < self._not_before or not gc.isenabled():
            return
        made, seconds = self._counted
        grown = gc.get_count()[2] - (self._young.made - made)
        grown += int((self._young.seconds - seconds) / WANTED)
        if grown < self._threshold:
            return
        if len(gc.get_objects(2)) >= GROWTH * self._left:
            self._collect()
            self._left = len(gc.get_objects(2))
            self._counted = self._young.made, self._young.seconds
        # To count the objects takes time, too: a tenth of what a collection does.
        ended = self._seconds()
        self._not_before = ended + (ended - began) / MAX_SHARE
