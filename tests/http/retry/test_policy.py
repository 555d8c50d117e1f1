"""Tests of :mod:`twisted_net.http.retry.policy`."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.dates import format_date
from twisted_net.http.retry.policy import Attempt, may_repeat, parse_retry_after, retry_delay
from twisted_net.http.retry.settings import RetryPolicy

NOW = 1_795_305_600.0


class RetryDelayTests(SynchronousTestCase):
    """:func:`retry_delay` grows with each attempt, and ends before the deadline."""

    def test_three_retries_are_four_calls(self) -> None:
        """After the fourth attempt it gives up."""
        waits = [retry_delay(RetryPolicy(), made, 1.0) for made in (1, 2, 3, 4)]
        self.assertEqual(waits, [0.5, 1.0, 2.0, None])

    def test_no_retries(self) -> None:
        """With none, the first attempt is the last."""
        self.assertIsNone(retry_delay(RetryPolicy(retries=0), 1, 0.5))

    def test_full_jitter(self) -> None:
        """The delay is drawn from zero to the longest."""
        policy = RetryPolicy()
        self.assertEqual(retry_delay(policy, 2, 0.0), 0.0)
        self.assertEqual(retry_delay(policy, 2, 0.25), 0.25)

    def test_cap(self) -> None:
        """No drawn delay exceeds the cap, after however many attempts."""
        policy = RetryPolicy(retries=100, cap=3.0)
        self.assertEqual([retry_delay(policy, made, 1.0) for made in (3, 4, 100)], [2.0, 3.0, 3.0])

    def test_floor(self) -> None:
        """``Retry-After`` is the minimum, and the drawn delay is added."""
        self.assertEqual(retry_delay(RetryPolicy(), 1, 0.5, floor=7.0), 7.25)
        self.assertEqual(retry_delay(RetryPolicy(cap=1.0), 1, 0.0, floor=60.0), 60.0)

    def test_deadline(self) -> None:
        """It gives up if the delay would not end before the deadline."""
        policy = RetryPolicy()
        self.assertEqual(retry_delay(policy, 1, 1.0, remaining=0.6), 0.5)
        self.assertIsNone(retry_delay(policy, 1, 1.0, remaining=0.5))
        self.assertIsNone(retry_delay(policy, 1, 0.0, remaining=0.0))
        self.assertIsNone(retry_delay(policy, 1, 0.0, remaining=-1.0))

    def test_floor_and_deadline(self) -> None:
        """If only the jitter exceeds the deadline, the floor alone is the delay."""
        policy = RetryPolicy()
        self.assertEqual(retry_delay(policy, 1, 1.0, floor=5.0, remaining=5.2), 5.0)
        self.assertIsNone(retry_delay(policy, 1, 1.0, floor=5.0, remaining=5.0))
        self.assertIsNone(retry_delay(policy, 1, 0.0, floor=math.inf, remaining=30.0))

    @given(
        retries=st.integers(0, 10),
        base=st.floats(0.01, 10),
        cap=st.floats(0.01, 100),
        made=st.integers(1, 12),
        chance=st.floats(0, 1),
        floor=st.none() | st.floats(0, 100),
        left=st.none() | st.floats(-1, 200),
    )
    def test_model(
        self,
        retries: int,
        base: float,
        cap: float,
        made: int,
        chance: float,
        floor: float | None,
        left: float | None,
    ) -> None:
        """Any delay is at least the floor, ends before the deadline, and is bounded."""
        wait = retry_delay(
            RetryPolicy(retries=retries, base=base, cap=cap),
            made,
            chance,
            floor=floor,
            remaining=left,
        )
        longest = base
        for _ in range(made - 1):
            longest *= 2
        drawn = min(cap, longest) * chance
        least = 0.0 if floor is None else floor
        needed = drawn if floor is None else floor
        if made > retries or (left is not None and needed >= left):
            self.assertIsNone(wait)
        else:
            assert wait is not None
            self.assertGreaterEqual(wait, least)
            self.assertLessEqual(wait, least + drawn + 1e-9)
            self.assertTrue(left is None or wait < left)


class MayRepeatTests(SynchronousTestCase):
    """:func:`may_repeat` allows idempotent requests, and those that carry a key."""

    def test_repeatable(self) -> None:
        """Idempotent methods may be retried, POST only with a key or by the settings."""
        policy = RetryPolicy()
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
            self.assertTrue(may_repeat(policy, method, idempotency_key=False))
        for method in ("POST", "PATCH", "BREW"):
            self.assertFalse(may_repeat(policy, method, idempotency_key=False))
            self.assertTrue(may_repeat(policy, method, idempotency_key=True))
        policy = RetryPolicy(methods=("GET", "POST"))
        self.assertTrue(may_repeat(policy, "POST", idempotency_key=False))
        self.assertFalse(may_repeat(policy, "PUT", idempotency_key=False))


class AttemptTests(SynchronousTestCase):
    """:class:`Attempt` has its outcome as a text."""

    def test_outcome(self) -> None:
        """The status, or the error."""
        attempt = Attempt("GET", "http://a/", 1, 0.1, 503, None, None)
        self.assertEqual(attempt.outcome, "503")
        attempt = Attempt("GET", "http://a/", 1, 0.1, 200, "the body broke off", None)
        self.assertEqual(attempt.outcome, "the body broke off")
        attempt = Attempt("GET", "http://a/", 1, 0.1, None, "no luck", None)
        self.assertEqual(attempt.outcome, "no luck")


class ParseRetryAfterTests(SynchronousTestCase):
    """:func:`parse_retry_after` reads RFC 9110 §10.2.3 and ignores anything else."""

    def test_seconds(self) -> None:
        """Digits are seconds."""
        self.assertEqual(parse_retry_after("120", NOW), 120.0)
        self.assertEqual(parse_retry_after(" 0\t", NOW), 0.0)
        for digits in (5, 6, 15):
            self.assertEqual(parse_retry_after("9" * digits, NOW), 10.0**digits - 1)
        self.assertIsNone(parse_retry_after("\x0b5", NOW))

    def test_huge(self) -> None:
        """Very many digits are an infinite time."""
        self.assertEqual(parse_retry_after("9" * 10_000, NOW), math.inf)

    def test_dates(self) -> None:
        """Each form of a date is the time until it."""
        self.assertEqual(parse_retry_after(format_date(NOW + 90), NOW), 90.0)
        self.assertEqual(parse_retry_after("Sunday, 22-Nov-26 00:02:00 GMT", NOW), 120.0)
        self.assertEqual(parse_retry_after("Sun Nov 22 00:02:00 2026", NOW), 120.0)

    def test_past(self) -> None:
        """A date in the past is 0."""
        self.assertEqual(parse_retry_after(format_date(NOW - 90), NOW), 0.0)

    def test_malformed(self) -> None:
        """A malformed field is ignored."""
        for text in (None, "", "soon", "-1", "+1", "1.5", "1e3", "٣", "1, 2", "Sun", "0x10"):
            with self.subTest(text=text):
                self.assertIsNone(parse_retry_after(text, NOW))

    @given(st.text(max_size=40))
    def test_never_raises(self, text: str) -> None:
        """Any text is None or at least 0."""
        found = parse_retry_after(text, NOW)
        self.assertTrue(found is None or found >= 0)
