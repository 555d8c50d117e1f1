"""When full collections are made: as often as Python would, and for 1 % of the time."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.reactor import ServiceReactor
from twisted_net.service.full_collections import LOOK_EVERY, MAX_SHARE, NEVER, FullCollections


class FullCollectionsTests(SynchronousTestCase):
    """:class:`FullCollections`, with collections of its own that take the time that they are to."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()  # Any: without what the service does not use
        self.took = 0.0
        self.collections: list[float] = []  # when they began
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        # No collection but those of the tests.
        gc.set_threshold(100_000, 10, 3)
        self.count = 0
        self.patch(gc, "get_count", lambda: (0, 0, self.count))
        self.service = FullCollections(cast(ServiceReactor, self.reactor), self.collect)

    def collect(self) -> None:
        """Note when a full collection begins, and let it take its time."""
        self.collections.append(self.reactor.seconds())
        self.reactor.rightNow += self.took
        self.count = 0

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

    def test_share(self) -> None:
        """However many are due, they take 1 % of the time."""
        self.start()
        self.took = 0.2
        for _ in range(1000):
            self.count = 1000
            self.looks(1)
        _, *later = self.collections
        gaps = [after - before for before, after in pairwise(later)]
        self.assertGreater(len(gaps), 30)
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
