"""Tests of :mod:`twisted_net.net.rate_limit`."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.rate_limit import FailureDelays, KeyedCounts, RateLimiter


class Bucket:
    """The slow model: a bucket of tokens that fills with time, in exact arithmetic."""

    def __init__(self, per_second: int, burst: int) -> None:
        self.per_second = per_second
        self.burst = burst
        self.tokens = Fraction(burst)
        self.last = Fraction(0)

    def take(self, now: Fraction, units: int) -> bool:
        """Take so many tokens if there are as many."""
        filled = self.tokens + (now - self.last) * self.per_second
        self.tokens, self.last = min(Fraction(self.burst), filled), now
        if self.tokens < units:
            return False
        self.tokens -= units
        return True


class RatesTests(SynchronousTestCase):
    """:class:`RateLimiter` lets through what a bucket of tokens lets through."""

    @given(
        st.sampled_from([1, 2, 4, 64, 1024]),
        st.integers(1, 50),
        st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 5), st.sampled_from("ab"))),
    )
    def test_as_a_bucket(
        self, per_second: int, burst: int, events: list[tuple[int, int, str]]
    ) -> None:
        """Any sequence of takings, at times that floats hold exactly, fares as in the model."""
        rates = RateLimiter(per_second, burst)
        buckets = {key: Bucket(per_second, burst) for key in "ab"}
        now = Fraction(0)
        for later, units, key in events:
            now += Fraction(later, 1024)
            units = min(units, burst)
            allowed = rates.wait(key, float(now), units) == 0
            if allowed:
                rates.charge(key, float(now), units)
            self.assertEqual(allowed, buckets[key].take(now, units))

    @given(st.integers(1, 1000), st.integers(1, 100), st.integers(1, 100))
    def test_wait_is_enough(self, per_second: int, burst: int, units: int) -> None:
        """Who waits as long as it is told may take what it asked for."""
        units = min(units, burst)
        rates = RateLimiter(per_second, burst)
        rates.charge("a", 5.0, burst)
        wait = rates.wait("a", 5.0, units)
        self.assertTrue(wait > 0)
        self.assertTrue(rates.wait("a", 5.0 + wait, units) < 1e-9)

    def test_debt(self) -> None:
        """A charge above the burst is a debt, paid off at the rate."""
        rates = RateLimiter(10, 5)
        rates.charge("a", 0.0, 25)
        self.assertAlmostEqual(rates.wait("a", 0.0, 0), 2.0)
        self.assertAlmostEqual(rates.wait("a", 0.0, 100), 2.5)
        self.assertEqual(rates.wait("a", 2.5), 0.0)

    def test_bounded(self) -> None:
        """At the bound the key that was charged longest ago is forgotten, and no other."""
        rates = RateLimiter(1, 1, max_keys=3)
        for key in ("a", "b", "a", "c", "d"):
            rates.charge(key, 0.0)
        self.assertEqual(len(rates), 3)
        self.assertEqual([rates.wait(key, 0.0) > 0 for key in "abcd"], [True, False, True, True])


class EvictionTests(SynchronousTestCase):
    """A full table makes room for many keys at a time, the oldest ones."""

    def test_oldest(self) -> None:
        """Of 640 keys ten are evicted, and the next nine need no room."""
        rates = RateLimiter(1, 1, max_keys=640)
        delays = FailureDelays(free=1, max_keys=640)
        for i in range(640):
            rates.charge(str(i), 0.0)
            delays.attempt(str(i), 0.0)
        for i in range(640, 650):
            rates.charge(str(i), 0.0)
            delays.attempt(str(i), 0.0)
            self.assertEqual((len(rates), len(delays)), (i - 9, i - 9))
        waits = [rates.wait(str(i), 0.0) > 0 for i in range(650)]
        self.assertEqual(waits, [False] * 10 + [True] * 640)
        self.assertEqual(delays.attempt("10", 0.5), 0.5)


class DelaysTests(SynchronousTestCase):
    """:class:`FailureDelays` makes each failure after the free ones wait twice as long."""

    def test_growing(self) -> None:
        """Three attempts are free; then the delays double up to the longest."""
        delays = FailureDelays()
        now = 0.0
        waits = []
        for _ in range(12):
            wait = delays.attempt("a", now)
            waits.append(wait)
            if wait:
                now += wait
                self.assertEqual(delays.attempt("a", now), 0.0)
        self.assertEqual(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60])

    def test_refused_is_not_counted(self) -> None:
        """An attempt that comes too early changes nothing, however often it is made."""
        delays = FailureDelays(free=1)
        delays.attempt("a", 0.0)
        for _ in range(10):
            self.assertAlmostEqual(delays.attempt("a", 0.75), 0.25)
        self.assertEqual(delays.attempt("a", 1.0), 0.0)

    def test_taken_back(self) -> None:
        """One that did not fail is as if not made, and leaves the failures before it."""
        delays = FailureDelays(free=2)
        for _ in range(2):
            delays.attempt("a", 0.0)
        for _ in range(5):
            self.assertEqual(delays.attempt("a", 1.0), 0.0)
            delays.take_back("a", 1.0)
        self.assertEqual(delays.attempt("a", 1.0), 0.0)
        self.assertAlmostEqual(delays.attempt("a", 1.5), 1.5)

    def test_taken_back_late(self) -> None:
        """What began after it counts from its own begin."""
        delays = FailureDelays(free=2)
        for now in (0.0, 0.0, 1.0, 3.0):
            self.assertEqual(delays.attempt("a", now), 0.0)
        delays.take_back("a", 1.0)
        self.assertAlmostEqual(delays.attempt("a", 3.5), 1.5)

    def test_taken_back_alone(self) -> None:
        """A source that never failed takes no room after its success."""
        delays = FailureDelays()
        delays.attempt("a", 0.0)
        for _ in range(2):
            delays.take_back("a", 0.0)
            self.assertEqual(len(delays), 0)

    def test_forgotten(self) -> None:
        """After ten times the longest delay the attempts are free again."""
        delays = FailureDelays(free=1, longest=4.0)
        for now in (0.0, 1.0, 3.0):
            self.assertEqual(delays.attempt("a", now), 0.0)
        self.assertEqual(delays.attempt("a", 43.0), 0.0)
        self.assertAlmostEqual(delays.attempt("a", 43.0), 4.0)
        self.assertEqual(delays.attempt("a", 83.1), 0.0)
        self.assertAlmostEqual(delays.attempt("a", 83.1), 1.0)

    def test_countless_failures(self) -> None:
        """Failures without end are no number that is too large."""
        delays = FailureDelays(longest=0.5)
        for i in range(2000):
            self.assertEqual(delays.attempt("a", float(i)), 0.0)

    def test_bounded(self) -> None:
        """At the bound the source that tried longest ago is forgotten."""
        delays = FailureDelays(free=1, max_keys=2)
        for key in "abc":
            delays.attempt(key, 0.0)
        self.assertEqual(len(delays), 2)
        self.assertEqual([delays.attempt(key, 0.0) > 0 for key in "cb"], [True, True])


STEPS = st.lists(st.tuples(st.floats(0, 30), st.floats(-7200, 7200), st.sampled_from("ab")))
"""Seconds that pass, a step of the clock after them, and who then acts."""


class ClockStepTests(SynchronousTestCase):
    """No rule makes a client wait longer than it can be worth, though its clock steps."""

    @given(STEPS, st.integers(1, 5))
    def test_rate(self, events: list[tuple[float, float, str]], burst: int) -> None:
        """
        A command waits for the time of one command, whatever the steps; the burst is not exceeded.

        What is let through without a step forward is what the seconds that passed are worth.
        """
        rates, per_second = RateLimiter(0.5, burst), 0.5
        now, earned, taken = 0.0, 0.0, dict.fromkeys("ab", 0)
        for passed, step, key in events:
            now += passed + step
            earned += max(passed + step, 0.0)
            wait = rates.take(key, now)
            self.assertLessEqual(wait, 1 / per_second + 1e-6)
            self.assertAlmostEqual(rates.wait(key, now), wait if wait else rates.wait(key, now))
            taken[key] += wait == 0.0
            self.assertLessEqual(taken[key], burst + earned * per_second + 1e-6)

    @given(st.floats(0, 7200), st.integers(1, 1000), st.floats(0, 100))
    def test_debt(self, step: float, units: int, passed: float) -> None:
        """A debt stays what it was when the clock is set back, and is paid off from then on."""
        rates = RateLimiter(10.0, 5)
        rates.charge("a", 7200.0, units)
        before = rates.wait("a", 7200.0, 0)
        back = 7200.0 - step
        self.assertAlmostEqual(rates.wait("a", back, 0), before)
        self.assertAlmostEqual(rates.wait("a", back + passed, 0), max(before - passed, 0.0))

    @given(STEPS)
    def test_delays(self, events: list[tuple[float, float, str]]) -> None:
        """A source waits no longer than the longest delay, and may try when that has passed."""
        delays = FailureDelays(free=2, first=1.0, longest=8.0)
        now = 0.0
        for passed, step, key in events:
            now += passed + step
            wait = delays.attempt(key, now)
            self.assertLessEqual(wait, 8.0)
            if wait:
                now += wait + 1e-6
                self.assertEqual(delays.attempt(key, now), 0.0)

    def test_take(self) -> None:
        """Units are taken whole or not at all."""
        rates = RateLimiter(1.0, 3)
        self.assertEqual(rates.take("a", 0.0, 2), 0.0)
        self.assertEqual(rates.take("a", 0.0, 2), 1.0)
        self.assertEqual(rates.take("a", 0.0), 0.0)
        self.assertEqual(rates.take("a", 0.0), 1.0)
        self.assertEqual(rates.take("b", 0.0, 3), 0.0)


class CountsTests(SynchronousTestCase):
    """:class:`KeyedCounts` keeps only keys that hold something."""

    def test_counts(self) -> None:
        """What is added is counted; what is removed to nothing takes no room."""
        counts = KeyedCounts()
        counts.add("a")
        counts.add("a")
        counts.add("b")
        self.assertEqual((counts["a"], counts["b"], counts["c"]), (2, 1, 0))
        counts.remove("a")
        counts.remove("b")
        self.assertEqual((counts["a"], len(counts)), (1, 1))
