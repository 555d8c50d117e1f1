"""Tests of :mod:`twisted_net.http.cache.freshness`; see ``test_rules`` for their interplay."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.freshness import (
    HEURISTICALLY_CACHEABLE,
    explicit_lifetime,
    heuristic_lifetime,
    initial_age,
)
from twisted_net.http.dates import format_date
from twisted_net.http.fields import HeaderFields

NOW = 1_795_305_600.0


class InitialAgeTests(SynchronousTestCase):
    """RFC 9111 §4.2.3: *corrected_initial_age*."""

    def test_greater(self) -> None:
        """The time since ``Date``, or ``Age`` and the time it took, whichever is greater."""
        for age, since_date, took, expected in (
            ("5", 0, 0, 5),
            ("5", 9, 0, 9),
            ("5", 9, 6, 11),
            ("5", -100, 2, 7),
            ("x", 3, 0, 3),
        ):
            fields = HeaderFields([("Age", age), ("Date", format_date(NOW - since_date))])
            self.assertEqual(initial_age(fields, took, NOW), expected)


class ExplicitLifetimeTests(SynchronousTestCase):
    """RFC 9111 §4.2.1."""

    def test_expires_without_date(self) -> None:
        """``Expires`` counts from ``Date``, and from the receipt where there is none."""
        expires = ("Expires", format_date(NOW + 60))
        date = ("Date", format_date(NOW - 30))
        for pairs, lifetime in (([expires], 60), ([expires, date], 90)):
            found = explicit_lifetime({}, HeaderFields(pairs), NOW, shared=False)
            self.assertEqual(found, lifetime)


class HeuristicLifetimeTests(SynchronousTestCase):
    """RFC 9111 §4.2.2."""

    def guess(self, modified: float, date: float | None, fraction: float = 0.1) -> float | None:
        """Return the lifetime of a response received now; times are seconds before that."""
        pairs = [("Last-Modified", format_date(NOW - modified))]
        if date is not None:
            pairs.append(("Date", format_date(NOW - date)))
        return heuristic_lifetime(HeaderFields(pairs), NOW, fraction=fraction, limit=1000.0)

    def test_fraction(self) -> None:
        """A fraction of the time since the last change, from 0 to the limit."""
        for modified, date, lifetime in (
            (100, 0, 10.0),
            (100, None, 10.0),
            (100, 50, 5.0),
            (1e6, 0, 1000.0),
            (-50, 0, 0.0),
        ):
            self.assertAlmostEqual(self.guess(modified, date), lifetime)

    def test_date_ahead(self) -> None:
        """A ``Date`` in the future makes no lifetime longer."""
        self.assertAlmostEqual(self.guess(100, -10_000), 10.0)

    def test_none(self) -> None:
        """Without ``Last-Modified``, or with a fraction of 0, there is none."""
        self.assertIsNone(self.guess(100, 0, fraction=0))
        self.assertIsNone(heuristic_lifetime(HeaderFields(), NOW, fraction=0.1, limit=1000.0))


class StatusTests(SynchronousTestCase):
    """RFC 9110 §15.1: the statuses that are heuristically cacheable."""

    def test_statuses(self) -> None:
        """These and no others."""
        self.assertEqual(
            sorted(HEURISTICALLY_CACHEABLE),
            [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501],
        )
