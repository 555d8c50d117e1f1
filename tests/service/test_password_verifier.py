"""Passwords are verified in threads of low priority, one at a time."""

from __future__ import annotations

import os
import sys
import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.threads import ThreadClock
from twisted_net.auth.passwords import hash_password
from twisted_net.errors import TooBusy
from twisted_net.service import password_verifier
from twisted_net.service.password_verifier import (
    NICENESS,
    PasswordVerifier,
    verify_at_low_priority,
)

HASH = hash_password("sesame", bytes(16), cost=4)


class PasswordVerifierTests(SynchronousTestCase):
    """:class:`PasswordVerifier` runs one verification at a time."""

    def setUp(self) -> None:
        self.reactor = ThreadClock()
        self.checks = PasswordVerifier(self.reactor, 2)

    def test_one_at_a_time(self) -> None:
        """The second verification starts after the first; each has its own result."""
        first = self.checks.verify(HASH, "sesame")
        second = self.checks.verify(HASH, "wrong")
        self.assertEqual(len(self.reactor.threads), 1)
        self.reactor.run_thread()
        self.assertTrue(self.successResultOf(first))
        self.assertEqual(len(self.reactor.threads), 1)
        self.reactor.run_thread()
        self.assertFalse(self.successResultOf(second))

    def test_limit(self) -> None:
        """One over the limit is refused; later ones are accepted."""
        checks = [self.checks.verify(HASH, "sesame") for _ in range(2)]
        self.assertRaises(TooBusy, self.checks.verify, HASH, "sesame")
        self.reactor.run_thread()
        self.checks.verify(HASH, "sesame").addErrback(lambda _: None)
        self.assertTrue(self.successResultOf(checks[0]))

    def test_cancelled(self) -> None:
        """A cancelled verification is not started; a running one is completed."""
        running, waiting = (self.checks.verify(HASH, "sesame") for _ in range(2))
        running.cancel()
        waiting.cancel()
        for gone in (running, waiting):
            self.failureResultOf(gone)
        self.assertRaises(TooBusy, self.checks.verify, HASH, "sesame")
        self.reactor.run_thread()
        self.assertEqual(len(self.reactor.threads), 0)
        last = self.checks.verify(HASH, "sesame")
        self.reactor.run_thread()
        self.assertTrue(self.successResultOf(last))

    def test_failure(self) -> None:
        """An invalid hash fails its own verification only."""
        broken = self.checks.verify("nonsense", "sesame")
        self.reactor.run_thread()
        self.failureResultOf(broken, ValueError)


class VerifyBelowTests(SynchronousTestCase):
    """:func:`verify_at_low_priority` verifies in a thread of lower priority."""

    def test_verdict(self) -> None:
        """It returns the result of the verification, or raises its error."""
        self.assertTrue(verify_at_low_priority(HASH, "sesame"))
        self.assertFalse(verify_at_low_priority(HASH, "wrong"))
        self.assertRaises(ValueError, verify_at_low_priority, "nonsense", "sesame")

    def test_priority(self) -> None:
        """The thread has a higher niceness than its caller, whose niceness does not change."""
        if sys.platform != "linux":
            self.skipTest("threads have no priority of their own here")

        def niceness(*_: str) -> int:
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

        self.patch(password_verifier, "verify", niceness)
        before = niceness()
        self.assertEqual(verify_at_low_priority("", ""), min(before + NICENESS, 19))
        self.assertEqual(niceness(), before)

    def test_forbidden(self) -> None:
        """If that is not permitted, the password is verified anyway."""

        def forbidden(by: int) -> int:
            raise PermissionError(by)

        self.patch(os, "nice", forbidden)
        self.assertTrue(verify_at_low_priority(HASH, "sesame"))
