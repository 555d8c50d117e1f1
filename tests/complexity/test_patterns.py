"""No regular expression of the package takes more than linear time."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.complexity.patterns import Used, made_later, pumps, used_patterns
from tests.runaway import ended_if_runaway

SIZE = 32_768
"""Characters of a text: at a nanosecond a step, linear work takes 0.05 ms, quadratic work 0.5 s."""

LIMIT = 0.25
"""Seconds of processor time for one text."""

NOT_PUMPED = {
    "twisted_net.net.certificates._PRIVATE_KEY": "a file of the operator's, with one key",
}
"""Patterns that see nothing of a stranger's, and why."""

MADE_LATER = {
    "twisted_net.http.cache.settings: translate(pattern.strip())": (
        "from an operator's setting, for host names of at most 253 characters"
    ),
    "twisted_net.net.foreign_protocols: b'|'.join(groups)": (
        "for constants, which are found as such"
    ),
    r"twisted_net.net.redaction: f'(?i:(?<![\\w.-])(?:{joined})(?![\\w.-]))'": (
        "for a constant, which is found as such"
    ),
}
"""Patterns that a function makes, and why they need no test of their own."""


class PatternTests(SynchronousTestCase):
    """All patterns are found, and none runs away."""

    def test_linear(self) -> None:
        """Each is linear in the way it is used, whatever it repeats is repeated."""
        runaways = [
            str(used)
            for used in used_patterns("twisted_net")
            if used.name not in NOT_PUMPED and runs_away(used)
        ]
        self.assertEqual(runaways, [])

    def test_found(self) -> None:
        """No function makes a pattern but those whose patterns are tested by name."""
        self.assertEqual(sorted(made_later("twisted_net")), sorted(MADE_LATER))

    def test_exceptions(self) -> None:
        """The exceptions are patterns that there are."""
        names = {used.name for used in used_patterns("twisted_net")}
        self.assertLessEqual({*NOT_PUMPED}, names)

    def test_pumped(self) -> None:
        """A pattern that backtracks is found: as it begins, within it, and as it ends."""
        for source, method in (
            ("a+b", "search"),
            ("x(a|a)+b", "match"),
            (r"[ \t]*[ \x0b]*;", "fullmatch"),
            ("<!--.*?-->", "search"),
            (rb"a*bc?d", "search"),
        ):
            with self.subTest(source=source):
                used = Used("test", re.compile(source), method)
                self.assertTrue(runs_away(used))


def runs_away(used: Used) -> bool:
    """Whether one of the texts takes longer than :data:`LIMIT`."""
    for text in pumps(used.pattern, SIZE):
        try:
            with ended_if_runaway(LIMIT):
                used.apply(text)
        except AssertionError:
            return True
    return False
