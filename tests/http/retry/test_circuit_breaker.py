"""Tests of :mod:`twisted_net.http.retry.circuit_breaker`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.retry.circuit_breaker import CircuitBreaker, CircuitState
from twisted_net.http.retry.settings import CircuitBreakerSettings


class BreakerTestCase(SynchronousTestCase):
    """A breaker that opens after three failures for 10 s; a probe has 4 s."""

    def setUp(self) -> None:
        self.breaker = CircuitBreaker(
            CircuitBreakerSettings(failures=3, rest=10.0, probe_timeout=4.0)
        )

    def call(self, ok: bool | None, now: float = 0.0) -> None:
        """Make a call that ends at once."""
        self.breaker.release(self.begin(now), ok, now)

    def begin(self, now: float = 0.0) -> int:
        """Begin a call that is allowed."""
        ticket = self.breaker.acquire(now)
        assert ticket is not None
        return ticket

    def trip(self) -> None:
        """Make it open, at 0 s."""
        for _ in range(3):
            self.call(False)


class ClosedTests(BreakerTestCase):
    """While it is closed all calls are allowed."""

    def test_failures_in_a_row(self) -> None:
        """It opens after so many failures in a row; a success resets the count."""
        for ok in (False, False, True, False, False, None):
            self.call(ok)
            self.assertEqual(self.breaker.state, CircuitState.CLOSED)
        self.assertEqual(self.breaker.retry_after(0.0), 0.0)
        self.call(False)
        self.assertEqual(self.breaker.state, CircuitState.OPEN)

    def test_never(self) -> None:
        """Without a number of failures it never opens."""
        self.breaker = CircuitBreaker(CircuitBreakerSettings(failures=None))
        for _ in range(100):
            self.call(False)
        self.assertEqual(self.breaker.state, CircuitState.CLOSED)


class OpenTests(BreakerTestCase):
    """While it is open all calls are rejected."""

    def test_rest(self) -> None:
        """No call is allowed until its time is over; ``retry_after`` returns how long that is."""
        self.trip()
        for now in (0.0, 9.9):
            self.assertIsNone(self.breaker.acquire(now))
        self.assertEqual(self.breaker.retry_after(4.0), 6.0)
        self.assertEqual(self.breaker.retry_after(11.0), 0.0)

    @given(st.floats(0, 9.9), st.floats(0, 7200))
    def test_step_back(self, now: float, step: float) -> None:
        """If its clock is set back, it is open for no longer than its time from then on."""
        self.setUp()
        self.trip()
        back = now - step
        self.assertIsNone(self.breaker.acquire(back))
        wait = self.breaker.retry_after(back)
        self.assertLessEqual(wait, 10.0)
        self.begin(back + wait + 1e-6)

    def test_late_results(self) -> None:
        """The outcome of a call that began before it opened is ignored."""
        late = [self.begin() for _ in range(2)]
        self.trip()
        for ticket, ok in zip(late, (True, False), strict=True):
            self.breaker.release(ticket, ok, 5.0)
        self.assertEqual(
            (self.breaker.state, self.breaker.retry_after(5.0)), (CircuitState.OPEN, 5.0)
        )


class HalfOpenTests(BreakerTestCase):
    """After its open time one call at a time is allowed."""

    def setUp(self) -> None:
        super().setUp()
        self.trip()
        self.probe = self.begin(10.0)

    def test_one_at_a_time(self) -> None:
        """A second call must not begin beside the probe."""
        self.assertEqual(self.breaker.state, CircuitState.HALF_OPEN)
        self.assertIsNone(self.breaker.acquire(13.9))
        self.assertEqual(self.breaker.retry_after(13.0), 1.0)
        self.assertEqual(self.breaker.retry_after(-3600.0), 4.0)
        self.assertIsNone(self.breaker.acquire(-3600.0))
        self.begin(-3596.0)

    def test_success(self) -> None:
        """A probe that succeeds closes it, with a new count."""
        self.breaker.release(self.probe, True, 11.0)
        self.assertEqual(self.breaker.state, CircuitState.CLOSED)
        for _ in range(2):
            self.call(False, 11.0)
        self.assertEqual(self.breaker.state, CircuitState.CLOSED)

    def test_failure(self) -> None:
        """A probe that fails opens it again."""
        self.breaker.release(self.probe, False, 11.0)
        self.assertEqual(
            (self.breaker.state, self.breaker.retry_after(11.0)), (CircuitState.OPEN, 10.0)
        )

    def test_given_up(self) -> None:
        """After a cancelled probe the next is allowed."""
        self.breaker.release(self.probe, None, 11.0)
        self.assertIsNotNone(self.breaker.acquire(11.0))

    def test_probes_time_out(self) -> None:
        """A probe that never ends is replaced after its timeout, and its outcome is ignored."""
        second = self.begin(14.0)
        self.breaker.release(self.probe, True, 14.5)
        self.assertEqual(self.breaker.state, CircuitState.HALF_OPEN)
        self.breaker.release(second, True, 15.0)
        self.assertEqual(self.breaker.state, CircuitState.CLOSED)


class ModelTests(SynchronousTestCase):
    """After any calls, a call is allowed at some time."""

    @given(
        st.lists(
            st.tuples(st.sampled_from([0.0, 1.0, 4.0, 10.0]), st.sampled_from([True, False, None])),
            max_size=60,
        )
    )
    def test_always_recovers(self, steps: list[tuple[float, bool | None]]) -> None:
        """After the longer of both times a call is allowed, and its success closes the breaker."""
        breaker = CircuitBreaker(CircuitBreakerSettings(failures=2, rest=10.0, probe_timeout=4.0))
        now = 0.0
        under_way: list[int] = []
        for passed, ok in steps:
            now += passed
            ticket = breaker.acquire(now)
            if ticket is None:
                self.assertIsNot(breaker.state, CircuitState.CLOSED)
            else:
                under_way.append(ticket)
            if ok is not None and under_way:
                breaker.release(under_way.pop(0), ok, now)
            self.assertTrue(breaker.retry_after(now) <= 10.0)
        now += 10.0
        ticket = breaker.acquire(now)
        assert ticket is not None
        breaker.release(ticket, True, now)
        self.assertEqual(breaker.state, CircuitState.CLOSED)
