"""Tests for :mod:`twisted_net.service.descriptors`."""

from __future__ import annotations

import errno
import resource
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.commands.registry import Commands
from twisted_net.service.descriptors import (
    SPARE_DESCRIPTORS,
    fit_connections,
    raise_descriptor_limit,
)
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory

UNLIMITED = resource.RLIM_INFINITY

FAILURES = (
    PermissionError(errno.EPERM, "Operation not permitted"),
    OSError(errno.EINVAL, "Invalid argument"),
    ValueError("not allowed to raise maximum limit"),
)
"""What the system may say in place of raising the limit."""


class LimitCase(SynchronousTestCase):
    """Has limits of file descriptors that a test sets."""

    def set_limits(self, soft: int, hard: int, failure: Exception | None = None) -> list[int]:
        """Set the limits, and return the list of those that will be set."""
        made: list[int] = []

        def setrlimit(which: int, pair: tuple[int, int]) -> None:
            if failure is not None:
                raise failure
            made.append(pair[0])

        self.patch(resource, "getrlimit", lambda _: (soft, hard))
        self.patch(resource, "setrlimit", setrlimit)
        return made


class RaiseTests(LimitCase):
    """:func:`raise_descriptor_limit` raises the soft limit, at most to the hard one."""

    def test_enough(self) -> None:
        """A sufficient limit is not changed."""
        for soft, allowed in ((5000, 5000), (6000, 6000), (UNLIMITED, None)):
            made = self.set_limits(soft, UNLIMITED)
            self.assertEqual(raise_descriptor_limit(5000), (allowed, ""))
            self.assertEqual(made, [])

    def test_raised(self) -> None:
        """A lower soft limit is raised to the number needed."""
        for hard in (5000, 9000, UNLIMITED):
            made = self.set_limits(1024, hard)
            self.assertEqual(raise_descriptor_limit(5000), (5000, ""))
            self.assertEqual(made, [5000])

    def test_hard_limit(self) -> None:
        """If the hard limit is too low, the soft limit is raised to it, if it is lower."""
        for soft, made_now in ((1024, [4096]), (4096, [])):
            made = self.set_limits(soft, 4096)
            self.assertEqual(raise_descriptor_limit(5000), (4096, ""))
            self.assertEqual(made, made_now)

    def test_impossible(self) -> None:
        """A limit that cannot be raised stays, with the reason."""
        for failure in FAILURES:
            self.set_limits(1024, UNLIMITED, failure)
            self.assertEqual(raise_descriptor_limit(5000), (1024, str(failure)))


class FitTests(LimitCase):
    """:func:`fit_connections` lowers the limits of servers to the descriptors that there are."""

    def fit(self, *wanted: int) -> tuple[list[int], list[LogEvent]]:
        """Return the limits of servers that want so many connections, and what was logged."""
        reactor = Clock()
        servers = [
            CommandFactory(reactor, Commands(), Limits(max_connections=number)) for number in wanted
        ]
        logged: list[LogEvent] = []
        observe: Any = logged.append  # Any: an observer is any callable
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        fit_connections(servers)
        globalLogPublisher.removeObserver(observe)
        return [min(s.limits.max_connections, s.max_descriptors) for s in servers], logged

    def test_enough(self) -> None:
        """With enough of them, nothing changes; the limits of all servers count."""
        made = self.set_limits(1024, UNLIMITED)
        self.assertEqual(self.fit(5000, 300), ([5000, 300], []))
        self.assertEqual(made, [5300 + SPARE_DESCRIPTORS])
        self.assertEqual(self.fit(), ([], []))

    def test_shares(self) -> None:
        """Each server has its share of those that are left, and a warning says so."""
        self.set_limits(1024, 4096)
        limits, (event,) = self.fit(9000, 1000)
        left = 4096 - SPARE_DESCRIPTORS
        self.assertEqual(limits, [left * 9 // 10, left // 10])
        self.assertEqual(event["log_level"].name, "warn")
        self.assertEqual((event["allowed"], event["needed"]), (4096, 10_000 + SPARE_DESCRIPTORS))

    def test_impossible(self) -> None:
        """A limit that cannot be raised is a warning with the reason, and no end."""
        for failure in FAILURES:
            self.set_limits(1024, UNLIMITED, failure)
            limits, (event,) = self.fit(10_000)
            self.assertEqual(limits, [1024 - SPARE_DESCRIPTORS])
            self.assertIn(str(failure), event["reason"])

    def test_very_few(self) -> None:
        """Half of a very low limit is for clients, and each server serves one at least."""
        self.set_limits(100, 100)
        self.assertEqual(self.fit(10_000)[0], [50])
        self.set_limits(4, 4)
        self.assertEqual(self.fit(10_000, 1)[0], [1, 1])
