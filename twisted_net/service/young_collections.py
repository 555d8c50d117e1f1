"""Young collections: of the objects of the last moment, so often that each is short."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from typing_extensions import override

from twisted_net.net.reactor import ServiceReactor
from twisted_net.net.steady_clock import steady, stopwatch

WANTED = 0.001
"""Seconds that a collection is to take: 10,000 objects or so."""

SHORTEST, LONGEST = 0.02, 1.0
"""Seconds between two collections: while thousands of clients come and go, and in quiet times."""


collect_young = partial(gc.collect, 1)
"""Collects the two young generations."""


class YoungCollections(Service):
    """
    Makes the collections of young garbage of this process, before there is much of it.

    CPython begins one when 700 more objects were created than freed since the last one. While as
    many clients leave as come that is never so, though young objects become ever more, and the
    collection that comes in the end looks at all of them: 10 to 85 ms. So one is made every
    second, and more often while they take longer than :data:`WANTED`.

    Nothing is done while the application has turned collections off.

    :param collect: makes a collection.
    :ivar made: how many were made.
    :ivar seconds: how long all of them took.
    """

    def __init__(
        self, reactor: ServiceReactor, collect: Callable[[], object] = collect_young
    ) -> None:
        self.made = 0
        self.seconds = 0.0
        self._reactor = steady(reactor)
        self._stopwatch = stopwatch(reactor)
        self._collect = collect
        self._interval = LONGEST
        self._call: IDelayedCall | None = None

    @override
    def startService(self) -> None:
        Service.startService(self)
        if self._call is None:
            self._call = self._reactor.callLater(self._interval, self._look)

    @override
    def stopService(self) -> None:
        Service.stopService(self)
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        if gc.isenabled() and gc.get_threshold()[0]:
            began = self._stopwatch()
            self._collect()
            took = self._stopwatch() - began
            self.made += 1
            self.seconds += took
            # Twice the time at most, as a crowd may come at any moment.
            longer = 2.0 if took <= WANTED / 2 else WANTED / took
            self._interval = min(max(self._interval * longer, SHORTEST), LONGEST)
        self._call = self._reactor.callLater(self._interval, self._look)
