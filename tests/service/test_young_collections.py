"""When young collections are made: more often, the longer they take."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.reactor import ServiceReactor
from twisted_net.service.young_collections import LONGEST, SHORTEST, WANTED, YoungCollections


class YoungCollectionsTests(SynchronousTestCase):
    """:class:`YoungCollections`, with collections that take the time that they are to."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()  # Any: without what the service does not use
        self.per_second = 0.0
        self.collections: list[float] = []  # when they began
        self.service = YoungCollections(cast(ServiceReactor, self.reactor), self.collect)
        self.service.startService()

    def collect(self) -> None:
        """Take the more time, the longer ago the last collection was."""
        now = self.reactor.seconds()
        last = self.collections[-1] if self.collections else 0.0
        self.collections.append(now)
        self.reactor.rightNow += self.per_second * (now - last)

    def run_for(self, seconds: float) -> list[float]:
        """Let time pass, and return the time from each collection to the next one."""
        before = len(self.collections)
        self.reactor.pump([SHORTEST / 4] * int(seconds * 4 / SHORTEST))
        made = self.collections[before:]
        return [after - one for one, after in pairwise(made)]

    def test_quiet(self) -> None:
        """One a second."""
        gaps = self.run_for(10)
        self.assertGreater(len(gaps), 7)
        self.assertTrue(all(abs(gap - LONGEST) < SHORTEST for gap in gaps), gaps)

    def test_crowd(self) -> None:
        """So many that each takes what it may; fewer again when the crowd is gone."""
        self.run_for(3)
        self.per_second = 0.01  # ten times what is wanted, with one a second
        *_, gap = self.run_for(5)
        self.assertLess(abs(gap - WANTED / 0.01), SHORTEST)
        self.per_second = 0.0
        *_, gap = self.run_for(10)
        self.assertLess(abs(gap - LONGEST), SHORTEST)
        self.assertEqual(self.service.made, len(self.collections))
        self.assertGreater(self.service.seconds, 0.04)

    def test_shortest(self) -> None:
        """However long they take."""
        self.per_second = 0.9
        gaps = self.run_for(5)
        self.assertGreaterEqual(min(gaps[5:]), SHORTEST)

    def test_turned_off(self) -> None:
        """None is made while the application has turned collections off."""
        self.addCleanup(gc.enable)
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        for turn_off in (gc.disable, lambda: gc.set_threshold(0)):
            turn_off()
            self.run_for(3)
            self.assertEqual(self.collections, [])
            gc.enable()
        gc.set_threshold(700)
        self.run_for(3)
        self.assertTrue(self.collections)

    def test_stop(self) -> None:
        """It leaves no timer, and can start again."""
        self.service.stopService()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.service.stopService()
        self.service.startService()
        self.service.startService()
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
