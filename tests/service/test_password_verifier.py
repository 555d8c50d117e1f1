"""Passwords are verified in threads of low priority, at the same cost whoever is named."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.threads import ThreadClock
from twisted_net.auth.password_queue import FIRST_ESTIMATE, Applicant
from twisted_net.auth.passwords import hash_password, settings_of
from twisted_net.auth.users import AuthSettings, User, Users
from twisted_net.errors import TooBusy
from twisted_net.net.worker_threads import WorkerThreads
from twisted_net.service import password_verifier
from twisted_net.service.login import ClientPassword, UsersChecker
from twisted_net.service.password_verifier import (
    NICENESS,
    PasswordCheck,
    PasswordVerifier,
    lower_priority,
)

CHEAP = hash_password("sesame", bytes(16), cost=3)
HASH = hash_password("sesame", bytes(16), cost=4)
DEAR = hash_password("sesame", bytes(16), cost=5)


def check(host: str, password: str = "sesame", hashed: str | None = HASH) -> PasswordCheck:
    """Return a check of somebody's password."""
    return PasswordCheck(Applicant(host, (), "ann"), hashed, (HASH,), password)


class PasswordVerifierTests(SynchronousTestCase):
    """:class:`PasswordVerifier` runs as many verifications at a time as it has threads."""

    def setUp(self) -> None:
        self.reactor = ThreadClock()
        self.reactor.limit = 1
        self.verifier = self.make(max_waiting=2)

    def make(self, **settings: Any) -> PasswordVerifier:  # Any: fields of AuthSettings
        """Return a verifier."""
        return PasswordVerifier(self.reactor, AuthSettings(**settings), self.reactor)

    def test_one_at_a_time(self) -> None:
        """The second verification starts after the first; each has its own result."""
        first = self.verifier.verify(check("a"))
        second = self.verifier.verify(check("b", "wrong"))
        self.assertEqual(len(self.reactor.threads), 1)
        self.reactor.run_thread()
        self.assertTrue(self.successResultOf(first))
        self.assertEqual(len(self.reactor.threads), 1)
        self.reactor.run_thread()
        self.assertFalse(self.successResultOf(second))

    def test_several(self) -> None:
        """With two threads two run at a time."""
        self.reactor.limit = 2
        results = [self.verifier.verify(check(host)) for host in "abc"]
        self.assertEqual(len(self.reactor.threads), 2)
        for _ in range(3):
            self.reactor.run_thread()
        self.assertEqual([self.successResultOf(result) for result in results], [True] * 3)

    def test_limit(self) -> None:
        """One over the limit is refused, with the time after which there is room."""
        checks = [self.verifier.verify(check("a")) for _ in range(4)]
        refused = self.failureResultOf(checks.pop(1), TooBusy).value
        self.assertEqual(refused.details(), {"limit": 2, "retry_after": 1})
        for done in (checks[0], checks[2], checks[1]):
            self.reactor.run_thread()
            self.assertTrue(self.successResultOf(done))

    def test_gives_way(self) -> None:
        """A newcomer is checked next; who has asked most loses a place to it."""
        checks = [self.verifier.verify(check("a")) for _ in range(3)]
        newcomer = self.verifier.verify(check("b"))
        self.failureResultOf(checks.pop(1), TooBusy)
        for result in (checks[0], newcomer, checks[1]):
            self.assertNoResult(result)
            self.reactor.run_thread()
            self.assertTrue(self.successResultOf(result))

    def test_in_time(self) -> None:
        """No more wait than can be checked within the time for a login."""
        verifier = self.make(timeout=4 * FIRST_ESTIMATE)
        results = [verifier.verify(check(host)) for host in "abcdef"]
        self.failureResultOf(results.pop(2), TooBusy)
        while self.reactor.threads:
            self.reactor.advance(2.0)
            self.reactor.run_thread()
        self.assertEqual([self.successResultOf(result) for result in results], [True] * 5)
        slower = [verifier.verify(check(host)) for host in "ghijkl"]
        refused = [result for result in slower if result.called]
        self.assertEqual(len(refused), 4)
        for result in refused:
            self.failureResultOf(result, TooBusy)
        while self.reactor.threads:
            self.reactor.run_thread()

    def test_cancelled(self) -> None:
        """One that waits is forgotten at once; the thread is busy until one that runs is done."""
        running, waiting, other = (self.verifier.verify(check("a")) for _ in range(3))
        running.cancel()
        waiting.cancel()
        for gone in (running, waiting):
            self.failureResultOf(gone, CancelledError)
        last = self.verifier.verify(check("a"))
        self.assertEqual(len(self.reactor.threads), 1)
        for result in (last, other):
            self.reactor.run_thread()
            self.assertNoResult(result)
        self.reactor.run_thread()
        self.assertEqual([self.successResultOf(other), self.successResultOf(last)], [True] * 2)

    def test_known(self) -> None:
        """A name is known where its password was right."""
        for host, password in (("a", "sesame"), ("b", "wrong")):
            self.verifier.verify(check(host, password))
            self.reactor.run_thread()
        self.assertTrue(self.verifier.knows("a", "ann"))
        self.assertFalse(self.verifier.knows("b", "ann"))

    def test_failure(self) -> None:
        """An invalid hash fails its own verification only."""
        broken = self.verifier.verify(check("a", hashed="nonsense"))
        self.reactor.run_thread()
        self.failureResultOf(broken, ValueError)
        self.verifier.stop()
        self.assertTrue(self.reactor.stopped)

    def test_failure_is_no_check(self) -> None:
        """A verification that failed does not say how long one takes."""
        verifier = self.make(timeout=4 * FIRST_ESTIMATE)
        for _ in range(20):
            verifier.verify(check("a", hashed="nonsense")).addErrback(lambda _: None)
            self.reactor.run_thread()
        results = [verifier.verify(check(host)) for host in "bcdefg"]
        (refused,) = (result for result in results if result.called)
        self.failureResultOf(refused, TooBusy)
        while self.reactor.threads:
            self.reactor.run_thread()

    def test_own_threads(self) -> None:
        """By default it has threads of its own, as many as the setting says."""
        verifier = PasswordVerifier(self.reactor, AuthSettings(password_threads=3))
        assert isinstance(verifier._threads, WorkerThreads)
        self.assertEqual(verifier._threads.limit, 3)


class EqualCostTests(SynchronousTestCase):
    """A refusal costs the same work whoever is named."""

    def setUp(self) -> None:
        self.work: list[str] = []
        self.patch(password_verifier, "verify", self.verify)

    def verify(self, hashed: str, password: str) -> bool:
        """Note the kind and the cost of a verification."""
        self.work.append(settings_of(hashed))
        return password == "sesame"

    def log_in(self, users: Users, name: str, password: str = "wrong") -> list[str]:
        """Try a password; return the work that it was."""
        self.work = []

        def run(check: PasswordCheck) -> Deferred[bool]:
            result: Deferred[bool] = Deferred()
            result.callback(check.run())
            return result

        checker = UsersChecker(lambda: users, run)
        tried = checker.requestAvatarId(ClientPassword(name, password, "192.0.2.1"))
        tried.addErrback(lambda _: None)
        self.successResultOf(tried)
        return self.work

    def test_different_costs(self) -> None:
        """Each kind and cost is verified once, whether the user exists, and whatever it has."""
        argon2 = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA"
        users = Users(
            {
                "cheap": User(password=CHEAP),
                "ann": User(password=HASH),
                "bob": User(password=HASH),
                "dear": User(password=DEAR),
                "argon": User(password=argon2),
                "token": User(tokens=("0" * 64,)),
                "none": User(),
            }
        )
        expected = sorted({settings_of(hashed) for hashed in (CHEAP, HASH, DEAR, argon2)})
        names = ("cheap", "ann", "bob", "dear", "argon", "token", "none", "nobody", "x" * 1000)
        for name in names:
            with self.subTest(name=name):
                self.assertEqual(sorted(self.log_in(users, name)), expected)
        for name in ("token", "none", "nobody"):
            with self.subTest(name=name, password="that of others"):
                self.assertEqual(sorted(self.log_in(users, name, "sesame")), expected)

    def test_right(self) -> None:
        """The right password costs its own verification alone."""
        users = Users({"cheap": User(password=CHEAP), "dear": User(password=DEAR)})
        self.assertEqual(self.log_in(users, "cheap", "sesame"), [settings_of(CHEAP)])

    def test_no_passwords(self) -> None:
        """If no user has a password, a refusal costs as much as with the default hash."""
        default = settings_of(hash_password("sesame", bytes(16)))
        users = Users({"tom": User()})
        for name in ("tom", "nobody"):
            self.assertEqual(self.log_in(users, name), [default])


class LowerPriorityTests(SynchronousTestCase):
    """:func:`lower_priority` lowers that of the calling thread."""

    def in_thread(self) -> list[int]:
        """Return the niceness of a thread before and after."""
        seen: list[int] = []

        def look() -> None:
            seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            lower_priority()
            seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return seen

    def test_priority(self) -> None:
        """The thread has a higher niceness afterwards; its caller keeps its own."""
        if sys.platform != "linux":
            self.skipTest("threads have no priority of their own here")
        own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        before, after = self.in_thread()
        self.assertEqual(after, min(before + NICENESS, 19))
        self.assertEqual(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), own)

    def test_forbidden(self) -> None:
        """If that is not permitted, the thread goes on."""

        def forbidden(by: int) -> int:
            raise PermissionError(by)

        self.patch(os, "nice", forbidden)
        before, after = self.in_thread()
        self.assertEqual(before, after)
