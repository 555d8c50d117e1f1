"""When full collections are made: as often as Python would, and for 0.5 % of the time."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.reactor import ServiceReactor
from twisted_net.service.full_collections import LOOK_EVERY, MAX_SHARE, NEVER, FullCollections
from twisted_net.service.young_collections import WANTED, YoungCollections


class FullCollectionsTests(SynchronousTestCase):
    """:class:`FullCollections`, with collections of its own that take the time that they are to."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()  # Any: without what the service does not use
        self.took = 0.0
        self.collections: list[float] = []  # when they began
        self.counted: list[float] = []  # when the objects were
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        # No collection but those of the tests.
        gc.set_threshold(100_000, 10, 3)
        self.count = 0
        self.objects = 0  # old ones; none are garbage
        self.counting = 0.0  # seconds that it takes to count them
        self.patch(gc, "get_objects", self.get_objects)
        self.young = YoungCollections(cast(ServiceReactor, self.reactor))
        self.patch(gc, "get_count", lambda: (0, 0, self.count))
        self.service = FullCollections(cast(ServiceReactor, self.reactor), self.young, self.collect)

    def collect(self) -> None:
        """Note when a full collection begins, and let it take its time."""
        self.collections.append(self.reactor.seconds())
        self.reactor.rightNow += self.took
        self.count = 0

    def get_objects(self, generation: int) -> range:
        """Return so many objects, and let that take its time."""
        self.reactor.rightNow += self.counting
        self.counted.append(self.reactor.seconds())
        return range(self.objects)

    def start(self) -> None:
        """Start the service, and the reactor."""
        self.service.startService()
        self.run_reactor()

    def run_reactor(self) -> None:
        """Start the reactor."""
        hooks, self.reactor.whenRunningHooks = self.reactor.whenRunningHooks, []
        for hook, arguments, options in hooks:
            hook(*arguments, **options)

    def looks(self, number: int) -> None:
        """Let the service look so many times."""
        self.reactor.pump([LOOK_EVERY] * number)

    def test_start(self) -> None:
        """What exists when the reactor runs is collected once and excluded."""
        before = gc.get_freeze_count()
        self.service.startService()
        self.assertEqual((self.collections, gc.get_freeze_count()), ([], before))
        self.run_reactor()
        self.assertEqual(len(self.collections), 1)
        self.assertGreater(gc.get_freeze_count(), before)

    def test_thresholds(self) -> None:
        """Python makes no full ones meanwhile; the others, and all afterwards, as before."""
        self.start()
        self.assertEqual(gc.get_threshold(), (100_000, 10, NEVER))
        self.service.stopService()
        self.assertEqual(gc.get_threshold(), (100_000, 10, 3))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.start()
        self.assertEqual(gc.get_threshold(), (100_000, 10, NEVER))

    def test_due(self) -> None:
        """One is made when as many of the middle generation were as the threshold says."""
        self.start()
        self.count = 2
        self.looks(5)
        self.assertEqual(len(self.collections), 1)
        self.count = 3
        self.looks(5)
        self.assertEqual(self.collections, [0.0, 6 * LOOK_EVERY])

    def test_growth(self) -> None:
        """None is made while there are hardly more objects than after the last one."""
        self.start()
        self.objects, self.count = 1000, 1000
        self.looks(1)
        for objects, made in ((1249, 2), (1250, 3), (1250, 3), (1600, 4)):
            self.objects, self.count = objects, 1000
            self.looks(3)
            self.assertEqual(len(self.collections), made)

    def test_counting(self) -> None:
        """To find that there are no more objects takes no larger share of the time either."""
        self.start()
        self.objects, self.counting, self.count = 1000, 0.02, 1000
        self.looks(100)
        self.assertEqual(len(self.collections), 2)
        self.count = 1000
        self.counted.clear()
        self.looks(100)
        self.assertEqual(len(self.collections), 2)
        gaps = [after - before for before, after in pairwise(self.counted)]
        self.assertGreater(len(gaps), 10)
        self.assertGreaterEqual(min(gaps), 0.02 / MAX_SHARE)

    def test_young_ones(self) -> None:
        """Of the young collections that are made for us those count that took long."""
        self.start()
        self.young.made = self.count = 1000
        self.young.seconds = 2.9 * WANTED
        self.looks(5)
        self.assertEqual(len(self.collections), 1)
        self.young.seconds = 3.1 * WANTED
        for _ in range(2):  # once
            self.looks(5)
            self.assertEqual(len(self.collections), 2)

    def test_share(self) -> None:
        """However many are due, they take 0.5 % of the time."""
        self.start()
        self.took = 0.2
        for _ in range(1000):
            self.count = 1000
            self.looks(1)
        _, *later = self.collections
        gaps = [after - before for before, after in pairwise(later)]
        self.assertGreater(len(gaps), 20)
        self.assertTrue(all(0.2 / MAX_SHARE <= gap <= 0.2 / MAX_SHARE + 2 for gap in gaps), gaps)

    def test_turned_off(self) -> None:
        """An application that has turned collections off keeps it so."""
        self.addCleanup(gc.enable)
        for turn_off in (gc.disable, lambda: gc.set_threshold(0, 10, 3)):
            turn_off()
            before = gc.get_threshold(), gc.get_freeze_count()
            self.start()
            self.count = 1000
            self.looks(3)
            self.assertEqual(self.collections, [])
            self.assertEqual((gc.get_threshold(), gc.get_freeze_count()), before)
            self.service.stopService()
            gc.enable()

    def test_turned_off_later(self) -> None:
        """The same while it runs."""
        self.start()
        gc.disable()
        self.addCleanup(gc.enable)
        self.count = 1000
        self.looks(3)
        self.assertEqual(len(self.collections), 1)
        gc.enable()
        self.looks(1)
        self.assertEqual(len(self.collections), 2)

    def test_started_again(self) -> None:
        """What exists when it starts once more are clients, too: it is not excluded."""
        self.start()
        self.service.stopService()
        before = gc.get_freeze_count()
        self.start()
        self.assertEqual(len(self.collections), 1)
        self.assertLessEqual(gc.get_freeze_count(), before)

    def test_two(self) -> None:
        """Of two services in a process the first does it all, and puts the threshold back."""
        self.start()
        other = FullCollections(cast(ServiceReactor, self.reactor), self.young, self.collect)
        for first, second in ((self.service, other), (other, self.service)):
            first.startService()
            self.run_reactor()
            second.startService()
            self.run_reactor()
            self.count = 1000
            before = len(self.collections)
            self.looks(1)
            self.assertEqual(len(self.collections), before + 1)
            for each in (first, second):
                each.stopService()
            self.assertEqual(gc.get_threshold(), (100_000, 10, 3))

    def test_changed_by_others(self) -> None:
        """A threshold that the application has set meanwhile stays."""
        self.start()
        gc.set_threshold(100_000, 10, 5)
        self.service.stopService()
        self.assertEqual(gc.get_threshold(), (100_000, 10, 5))

    def test_not_counted(self) -> None:
        """Where Python does not count towards full collections, only the first is made."""
        gc.set_threshold(100_000, 10, 0)
        self.start()
        self.count = 1000
        self.looks(5)
        self.assertEqual(len(self.collections), 1)
        self.service.stopService()
        self.assertEqual(gc.get_threshold(), (100_000, 10, 0))

    def test_stopped_before(self) -> None:
        """A service that is stopped before the reactor runs changes nothing."""
        self.service.startService()
        self.service.stopService()
        self.run_reactor()
        self.assertEqual(self.collections, [])
        self.assertEqual(gc.get_threshold(), (100_000, 10, 3))
