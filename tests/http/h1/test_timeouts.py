"""Tests of :mod:`twisted_net.http.h1.timeouts`."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.h1.timeouts import CHECKED_PER_SECOND, EXPIRED_PER_TURN, ExchangeTimeouts


class Waiting:
    """Something that waits, and notes when it expired."""

    def __init__(self, timeouts: ExchangeTimeouts, due: float, later: float | None = None) -> None:
        self.timeouts = timeouts
        self.due = due
        self.later = later
        self.expired: list[float] = []

    def expire(self, now: float) -> None:
        """Wait once more, or end."""
        self.expired.append(now)
        if self.later is None:
            self.timeouts.discard(self)
        else:
            self.due, self.later = self.later, None


class TimeoutsTests(SynchronousTestCase):
    """:class:`ExchangeTimeouts` has one timer for all."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.timeouts = ExchangeTimeouts(self.clock)

    def wait(self, due: float, later: float | None = None) -> Waiting:
        """Return something that waits."""
        waiting = Waiting(self.timeouts, due, later)
        self.timeouts.add(waiting)
        return waiting

    def turns(self) -> int:
        """Let the time of all end, and return the turns in which some expired."""
        self.clock.rightNow = max(self.clock.rightNow, 0.9)
        turns = 0
        while self.clock.getDelayedCalls():
            # A clock for tests runs what is due at once in the same step.
            (call,) = self.clock.calls
            self.clock.rightNow = max(self.clock.rightNow, call.getTime())
            self.clock.calls.remove(call)
            call.called = 1
            call.func(*call.args)
            turns += 1
        return turns

    def test_each_in_time(self) -> None:
        """Each expires when it is due, in whatever order they came."""
        late, early, later = self.wait(3.0), self.wait(1.0), self.wait(4.0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for _ in range(50):
            self.clock.advance(0.1)
        for waiting, due in ((early, 1.0), (late, 3.0), (later, 4.0)):
            self.assertEqual(len(waiting.expired), 1)
            self.assertTrue(due <= waiting.expired[0] < due + 0.11)
        self.assertEqual((len(self.timeouts), self.clock.getDelayedCalls()), (0, []))

    def test_more_time(self) -> None:
        """What is given more time when it is due expires later."""
        waiting = self.wait(1.0, 2.5)
        for _ in range(30):
            self.clock.advance(0.1)
        first, second = waiting.expired
        self.assertTrue(1.0 <= first < 1.11 and 2.5 <= second < 2.61)

    def test_earlier(self) -> None:
        """What is due earlier than before expires then."""
        waiting = self.wait(9.0)
        waiting.due = 1.0
        self.timeouts.add(waiting)
        self.clock.advance(1.0)
        self.assertEqual(waiting.expired, [1.0])

    def test_no_timer_for_each(self) -> None:
        """Requests that are answered in time set no timer, but the first."""
        set_timers: list[float] = []
        set_timer = self.timeouts._set

        def counted(due: float) -> None:
            set_timers.append(due)
            set_timer(due)

        self.patch(self.timeouts, "_set", counted)
        for _ in range(100):
            waiting = self.wait(self.clock.seconds() + 30.0)
            self.clock.advance(0.01)
            self.timeouts.discard(waiting)
        self.assertEqual(len(set_timers), 1)

    def test_many_at_once(self) -> None:
        """Of many whose time ends at once, some expire in each turn, none twice."""
        every = [self.wait(1.0) for _ in range(3 * EXPIRED_PER_TURN + 1)]
        self.assertEqual(self.turns(), 4)
        self.assertEqual({len(each.expired) for each in every}, {1})

    def test_held_up(self) -> None:
        """After the reactor was held up, what has come is read before anything expires."""
        for late, turns in ((0.0, 1), (0.04, 1), (0.06, 2), (9.0, 2)):
            self.setUp()
            waiting = self.wait(1.0)
            self.clock.rightNow = 1.0 + late
            self.assertEqual(self.turns(), turns)
            self.assertEqual(len(waiting.expired), 1)
        self.setUp()
        answered = self.wait(1.0)
        self.clock.rightNow = 3.0
        (call,) = self.clock.calls
        self.clock.calls.remove(call)
        call.called = 1
        call.func()
        self.timeouts.discard(answered)
        self.clock.advance(1.0)
        self.assertEqual(answered.expired, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ended_meanwhile(self) -> None:
        """What ends while it waits to expire does not."""
        first, *_, last = [self.wait(1.0) for _ in range(EXPIRED_PER_TURN + 1)]

        def expire(now: float) -> None:
            self.timeouts.discard(first)
            self.timeouts.discard(last)

        self.patch(first, "expire", expire)
        self.turns()
        self.assertEqual(last.expired, [])

    def test_looks_are_bounded(self) -> None:
        """Many whose times end one after the other are looked at so many times in a second."""
        looks = 0

        class Counted(Waiting):
            @property
            def due(self) -> float:
                nonlocal looks
                looks += 1
                return self._due

            @due.setter
            def due(self, due: float) -> None:
                self._due = due

        count = 500
        for i in range(count):
            self.timeouts.add(Counted(self.timeouts, 1.0 + i / count))
        looks = 0
        for _ in range(2000):
            self.clock.advance(0.001)
        self.assertEqual(len(self.timeouts), 0)
        self.assertLess(looks, 4 * CHECKED_PER_SECOND)

    def test_failure(self) -> None:
        """One that fails as it expires does not keep the others from expiring."""
        failing, others = self.wait(1.0), [self.wait(1.0), self.wait(2.0)]

        def fail(now: float) -> None:
            self.timeouts.discard(failing)
            raise ZeroDivisionError

        self.patch(failing, "expire", fail)
        with self.assertRaises(ZeroDivisionError):
            self.clock.advance(1.0)
        self.clock.advance(0)
        self.clock.advance(1.0)
        self.assertEqual([len(waiting.expired) for waiting in others], [1, 1])
        last = self.wait(4.0)
        self.clock.advance(2.0)
        self.assertEqual(len(last.expired), 1)

    def test_stopped_by_one(self) -> None:
        """The end of one may stop all, as its caller may close the client."""
        first, second = self.wait(1.0), self.wait(1.0)

        def stop(now: float) -> None:
            self.timeouts.stop()

        self.patch(first, "expire", stop)
        self.clock.advance(1.0)
        self.assertEqual((second.expired, self.clock.getDelayedCalls()), ([], []))

    def test_stop(self) -> None:
        """After the end there is no timer, and nothing expires."""
        waiting = self.wait(1.0)
        self.timeouts.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(2.0)
        self.assertEqual(waiting.expired, [])
        again = self.wait(3.0)
        self.clock.advance(1.0)
        self.assertEqual(len(again.expired), 1)

    def test_never(self) -> None:
        """What has no time limit sets no timer."""
        self.wait(inf)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
    def test_model(self, events: list[tuple[int, int]]) -> None:
        """Whenever they come, each expires once, not before it is due and not much later."""
        clock = Clock()
        timeouts = ExchangeTimeouts(clock)
        every = []
        for gap, seconds in events:
            for _ in range(gap * 10):
                clock.advance(0.1)
            waiting = Waiting(timeouts, clock.seconds() + seconds)
            timeouts.add(waiting)
            every.append((waiting, waiting.due))
        for _ in range(120):
            clock.advance(0.1)
        for waiting, due in every:
            self.assertEqual(len(waiting.expired), 1)
            self.assertTrue(due <= waiting.expired[0] < due + 0.11)
