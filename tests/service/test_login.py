"""Logins are checked by checkers, in threads, with growing delays after failures."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.patience import wait_until
from tests.service.users_case import UsersFileTestCase
from tests.tcp.memory import Reactor
from tests.threads import ThreadClock, ThreadReactor
from twisted_net.auth.password_queue import Applicant
from twisted_net.auth.passwords import hash_password
from twisted_net.auth.users import (
    AuthSettings,
    Permissions,
    User,
    Users,
    hash_token,
    read_users,
)
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import (
    AuthDelayed,
    AuthFailed,
    ConfigError,
    TooBusy,
    TooManyConnections,
)
from twisted_net.ops.instruments import Instruments
from twisted_net.reasons import Audited, Refusal
from twisted_net.service import login, users_file
from twisted_net.service.login import (
    REFUSAL_PAUSE,
    Authenticator,
    CheckerChain,
    IPermissions,
    IToken,
    PermissionsRealm,
    Token,
    UsersChecker,
    configured_authenticator,
)
from twisted_net.service.password_verifier import PasswordCheck, PasswordVerifier
from twisted_net.sessions import Session, Sessions
from twisted_net.tcp.admission import Access
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory

HASH = hash_password("sesame", bytes(16), cost=4)
OTHER = hash_password("other", bytes(16), cost=4)


class AuthenticatorTests(SynchronousTestCase):
    """:class:`Authenticator` with the users of a file and another checker."""

    def setUp(self) -> None:
        self.reactor = ThreadClock()
        self.users = Users(
            {
                "ann": User(password=HASH, tokens=(hash_token("letmein"),)),
                "tom": User(tokens=(hash_token("purr"),), commands=("PING",)),
            }
        )
        self.verified: list[tuple[str | None, str]] = []
        self.applicants: list[Applicant] = []
        self.chance = 1.0
        self.serve(AuthSettings(users="x"))
        self.heard: list[str] = []
        self.sessions = Sessions(lambda: 0.0, instruments=Instruments(self.hear))

    def serve(self, settings: AuthSettings) -> None:
        """Make the authenticator."""
        others = InMemoryUsernamePasswordDatabaseDontUse(eve=b"apple", tom=b"cat")
        checker = UsersChecker(lambda: self.users, self.verify)
        self.logins = Authenticator(
            self.reactor,
            settings,
            [checker, others],
            lambda: self.users,
            chance=lambda: self.chance,
        )

    def hear(self, event: str, client: Audited, what: str) -> None:
        """Record a line of the audit log."""
        self.heard.append(f"{event} {what}")

    def verify(self, check: PasswordCheck) -> Deferred[bool]:
        """Verify a password synchronously."""
        self.applicants.append(check.applicant)
        self.verified.append((check.hashed, check.password))
        return succeed(check.run())

    def session(self, host: str = "192.0.2.1") -> Session:
        """Open a session."""
        return self.sessions.open(host, 5000, lambda line: None)

    def log_in(self, session: Session, who: str, password: str = "") -> Deferred[str]:
        """Log in."""
        return Deferred.fromCoroutine(self.logins.log_in(session, who, password))

    def test_password(self) -> None:
        """The right password logs the session in."""
        session = self.session()
        self.assertEqual(self.successResultOf(self.log_in(session, "ann", "sesame")), "ann")
        self.assertIs(session.permissions, self.users.permissions("ann"))
        self.assertEqual(self.heard, ["login by password"])

    def test_token(self) -> None:
        """A token identifies its user."""
        session = self.session()
        self.assertEqual(self.successResultOf(self.log_in(session, "purr")), "tom")
        self.assertEqual((session.user, self.heard), ("tom", ["login by token"]))
        self.assertEqual(self.verified, [])

    def test_other_checkers(self) -> None:
        """Another checker can accept users; their permissions are those of the file."""
        session = self.session()
        self.assertEqual(self.successResultOf(self.log_in(session, "tom", "cat")), "tom")
        self.assertIs(session.permissions, self.users.permissions("tom"))

    def test_unlisted(self) -> None:
        """Whom a checker accepts but the file does not list is refused as any other failure."""
        session = self.session()
        session.permissions = before = Permissions(None, User())
        failure = self.failureResultOf(self.log_in(session, "eve", "apple"), AuthFailed)
        self.assertEqual(str(failure.value), str(AuthFailed()))
        self.assertIs(session.permissions, before)
        self.assertEqual(self.heard, ["refused auth_failed: as eve, who is not in the users file"])

    def test_unlisted_by_name(self) -> None:
        """Where it is asked for, one who is not listed has the permissions of ``default``."""
        self.users = Users({"default": User(commands=("TIME",))})
        self.serve(AuthSettings(users="x", unlisted="default"))
        session = self.session()
        self.assertEqual(self.successResultOf(self.log_in(session, "eve", "apple")), "eve")
        assert session.permissions is not None
        self.assertTrue(session.permissions.allows_command("TIME", False))
        self.assertFalse(session.permissions.allows_command("PING", False))
        # By a password alone: a certificate of that name is no login.
        self.assertIsNone(self.logins.permissions_of("eve"))

    def test_proof(self) -> None:
        """A login lasts as long as the file has its password or token."""
        for who, password, proof in (
            ("ann", "sesame", HASH),
            ("letmein", "", hash_token("letmein")),
            ("tom", "cat", None),
        ):
            session = self.session()
            self.successResultOf(self.log_in(session, who, password))
            self.assertEqual(session.proof, proof)

    def test_changed_meanwhile(self) -> None:
        """A password that is replaced, or whose user is removed, during its check is wrong."""
        for after in ({"ann": User(password=OTHER)}, {"tom": User()}):
            self.users = Users({"ann": User(password=HASH)})
            verdict: Deferred[bool] = Deferred()
            self.patch(self, "verify", lambda check, verdict=verdict: verdict)
            self.serve(AuthSettings(users="x"))
            login = self.log_in(self.session(), "ann", "sesame")
            self.users = Users(after)
            verdict.callback(True)
            self.failureResultOf(login, AuthFailed)

    def test_failures(self) -> None:
        """Whatever part is wrong, the answer is the same, and nothing changes."""
        for i, (who, password) in enumerate(
            (("ann", "wrong"), ("nobody", "sesame"), ("tom", "sesame"), ("ann", ""), ("x", ""))
        ):
            session = self.session(f"192.0.2.{i}")
            self.failureResultOf(self.log_in(session, who, password), AuthFailed)
            self.assertIsNone(session.permissions)
        self.assertEqual(self.sessions.counters.refusals[Refusal.AUTH_FAILED], 5)
        self.assertEqual(self.heard[0], "refused auth_failed: as ann")
        self.assertEqual(self.heard[1], "refused auth_failed: as nob…")
        self.assertEqual(self.heard[-1], "refused auth_failed: with a token")

    def test_applicants(self) -> None:
        """A check is told where its client is: of IPv6 the /64, and its networks."""
        for host in ("192.0.2.1", "2001:db8:1:2::3", "::ffff:192.0.2.1"):
            self.failureResultOf(self.log_in(self.session(host), "x", "y"), AuthFailed)
        self.assertEqual(
            self.applicants,
            [
                Applicant("192.0.2.1", ("192.0.2.0/24", "192.0.0.0/16"), "x"),
                Applicant("2001:db8:1:2::/64", ("2001:db8:1::/48", "2001:db8::/32"), "x"),
                Applicant("192.0.2.1", ("192.0.2.0/24", "192.0.0.0/16"), "x"),
            ],
        )

    def test_other_credentials(self) -> None:
        """A checker that is used without a client checks passwords, too."""
        checker = UsersChecker(lambda: self.users, self.verify)
        found = checker.requestAvatarId(UsernamePassword(b"ann", b"sesame"))
        self.assertEqual(self.successResultOf(found), "ann")

    def test_delays(self) -> None:
        """After three failures of an address, no login is checked for a while."""
        session = self.session()
        for _ in range(3):
            self.failureResultOf(self.log_in(session, "ann", "wrong"), AuthFailed)
        delayed = self.log_in(session, "ann", "sesame")
        self.reactor.advance(0.0)
        self.assertNoResult(delayed)
        self.assertEqual(len(self.verified), 3)
        self.assertEqual(self.sessions.counters.refusals[Refusal.AUTH_DELAYED], 1)
        self.successResultOf(self.log_in(self.session("192.0.2.2"), "ann", "sesame"))
        self.reactor.advance(REFUSAL_PAUSE)
        failure = self.failureResultOf(delayed, AuthDelayed)
        self.assertEqual(failure.value.details(), {"retry_after": 1.0})
        self.assertEqual(self.successResultOf(self.log_in(session, "ann", "sesame")), "ann")

    def test_unix_users(self) -> None:
        """One user of a Unix socket does not delay the logins of another."""
        for _ in range(3):
            self.failureResultOf(
                self.log_in(self.session("unix:uid=1"), "ann", "wrong"), AuthFailed
            )
        self.successResultOf(self.log_in(self.session("unix:uid=2"), "ann", "sesame"))
        delayed = self.log_in(self.session("unix:uid=1"), "ann", "sesame")
        self.reactor.advance(1.0)
        self.failureResultOf(delayed, AuthDelayed)

    def test_answers_that_are_held(self) -> None:
        """
        Who comes too early waits for its answer, and may be disconnected meanwhile.

        It waits two seconds at most, not for longer than until it may come, and by chance half as
        long, so that many do not get theirs in one turn.
        """
        session = self.session()
        for _ in range(3):
            self.failureResultOf(self.log_in(session, "x"), AuthFailed)
            self.assertFalse(session.login_refused)
        self.reactor.advance(0.75)
        early = self.log_in(session, "x")
        self.reactor.advance(0.125)
        self.assertTrue(session.login_refused)
        self.assertNoResult(early)
        self.reactor.advance(0.125)
        self.assertFalse(session.login_refused)
        self.failureResultOf(early, AuthDelayed)
        for _ in range(2):
            self.failureResultOf(self.log_in(session, "x"), AuthFailed)
            self.reactor.advance(2.0)
        for self.chance, pause in ((1.0, REFUSAL_PAUSE), (0.0, REFUSAL_PAUSE / 2)):
            much_too_early = self.log_in(session, "x")
            self.reactor.advance(pause - 0.125)
            self.assertNoResult(much_too_early)
            self.reactor.advance(0.125)
            self.failureResultOf(much_too_early, AuthDelayed)
            self.reactor.advance(60.0)
            self.failureResultOf(self.log_in(session, "x"), AuthFailed)

    def test_gone(self) -> None:
        """A client that leaves meanwhile leaves no timer behind."""
        session = self.session()
        for _ in range(3):
            self.failureResultOf(self.log_in(session, "x"), AuthFailed)
        result = self.log_in(session, "x")
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        result.cancel()
        self.failureResultOf(result, AuthDelayed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_hung_up(self) -> None:
        """A client that leaves before the outcome has failed only if its password is wrong."""
        verifier = PasswordVerifier(self.reactor, AuthSettings(users="x"), self.reactor)
        self.reactor.limit = 1
        checker = UsersChecker(lambda: self.users, verifier.verify)
        self.logins = Authenticator(self.reactor, AuthSettings(users="x"), [checker])
        first = self.log_in(self.session("192.0.2.9"), "x", "y")
        for _ in range(10):
            waiting = self.log_in(self.session(), "ann", "wrong")
            self.assertNoResult(waiting)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        self.reactor.run_thread()
        self.failureResultOf(first, AuthFailed)
        for password in ["sesame"] * 10 + ["wrong"] * 3:
            checked = self.log_in(self.session(), "ann", password)
            self.assertNoResult(checked)
            checked.cancel()
            self.reactor.run_thread()
            self.failureResultOf(checked, CancelledError)
        delayed = self.log_in(self.session(), "bob", "wrong")
        self.reactor.advance(REFUSAL_PAUSE)
        self.failureResultOf(delayed, AuthDelayed)

    def test_after_success(self) -> None:
        """After a success another login may follow at once, as it might have before."""
        for _ in range(3):
            self.failureResultOf(self.log_in(self.session(), "ann", "wrong"), AuthFailed)
        self.reactor.advance(1.0)
        for _ in range(3):
            self.successResultOf(self.log_in(self.session(), "ann", "sesame"))

    def test_not_admitted(self) -> None:
        """A user at the limit of connections is refused; that is not a failed attempt."""

        def refuse(permissions: Permissions) -> None:
            raise TooManyConnections(1, "user")

        session = self.session()
        session.admit = refuse
        for _ in range(10):
            self.failureResultOf(self.log_in(session, "purr"), TooManyConnections)

    def test_too_busy(self) -> None:
        """A refusal because too many wait is not a failed attempt."""

        def busy(check: PasswordCheck) -> Deferred[bool]:
            raise TooBusy(1, retry_after=0.5)

        checker = UsersChecker(lambda: self.users, busy)
        self.logins = Authenticator(
            self.reactor, AuthSettings(users="x"), [checker], chance=lambda: 1.0
        )
        session = self.session()
        for _ in range(10):
            result = self.log_in(session, "ann", "sesame")
            self.reactor.advance(0.25)
            self.assertTrue(session.login_refused)
            self.assertNoResult(result)
            self.reactor.advance(0.25)
            self.failureResultOf(result, TooBusy)

    def test_broken_checker(self) -> None:
        """A checker that fails has refused no guess: the next attempt has no delay."""

        def broken(check: PasswordCheck) -> Deferred[bool]:
            raise ZeroDivisionError

        checker = UsersChecker(lambda: self.users, broken)
        self.logins = Authenticator(self.reactor, AuthSettings(users="x"), [checker])
        for _ in range(10):
            result = self.log_in(self.session(), "ann", "sesame")
            self.failureResultOf(result, ZeroDivisionError)
        self.assertEqual(self.heard, [])

    def test_broken_verification(self) -> None:
        """Nor has a verification that fails after the client has left."""
        verifier = PasswordVerifier(self.reactor, AuthSettings(users="x"), self.reactor)
        self.reactor.limit = 1
        checker = UsersChecker(lambda: self.users, verifier.verify)
        self.logins = Authenticator(self.reactor, AuthSettings(users="x"), [checker])

        def broken(check: PasswordCheck) -> bool:
            raise MemoryError

        self.patch(PasswordCheck, "run", broken)
        for _ in range(10):
            checked = self.log_in(self.session(), "ann", "wrong")
            self.assertNoResult(checked)
            checked.cancel()
            self.reactor.run_thread()
            self.failureResultOf(checked, CancelledError)

    def test_no_checker(self) -> None:
        """A token is wrong if no checker accepts tokens."""
        others = InMemoryUsernamePasswordDatabaseDontUse(eve=b"apple")
        self.logins = Authenticator(self.reactor, AuthSettings(checkers=("x",)), [others])
        self.failureResultOf(self.log_in(self.session(), "letmein"), AuthFailed)
        self.assertEqual(
            self.successResultOf(self.log_in(self.session("h"), "eve", "apple")), "eve"
        )


class Accepting:
    """A checker that accepts all credentials."""

    def __init__(self, found: object) -> None:
        self.found = found

    def requestAvatarId(self, credentials: object) -> object:
        return self.found


class FloodTests(SynchronousTestCase):
    """Refused logins leave nothing to the garbage collector, which would stop all clients."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.reactor.limit = 1
        users = Users({"ann": User(password=HASH)})
        settings = AuthSettings(users="x", timeout=0, max_waiting=1, first_delay=60.0)
        verifier = PasswordVerifier(self.reactor, settings, self.reactor)
        self.logins = Authenticator(
            self.reactor,
            settings,
            [UsersChecker(lambda: users, verifier.verify)],
            lambda: users,
            verifier=verifier,
        )
        self.factory = CommandFactory(
            self.reactor,
            standard_commands(None, self.logins.log_in),
            access=Access(settings, self.logins.permissions_of),
        )

    def try_login(self, line: bytes, check: bool = True) -> object:
        """Send a line on a connection of its own; return the code of its answer."""
        client = self.reactor.connect(self.factory, IPv4Address("TCP", "192.0.2.99", 5000))
        client.send(line)
        self.reactor.settle()
        while check and self.reactor.threads:
            self.reactor.run_thread()
        self.reactor.pass_time(REFUSAL_PAUSE)
        return client.answers()[0]["code"]

    def assert_leaves_nothing(self, line: bytes, code: str, check: bool = True) -> None:
        """Send a line that is refused so, and look at what it leaves."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.assertEqual(self.try_login(line, check=check), code)
        gc.set_debug(gc.DEBUG_SAVEALL)
        self.addCleanup(gc.garbage.clear)
        self.addCleanup(gc.set_debug, 0)
        gc.collect()
        left = [item for item in gc.garbage if isinstance(item, BaseException | Deferred)]
        self.assertEqual(left, [])

    def test_wrong_token(self) -> None:
        """A token that nobody has."""
        self.assert_leaves_nothing(b"AUTH x\n", "auth_failed")

    def test_wrong_password(self) -> None:
        """A password that is wrong."""
        self.assert_leaves_nothing(b"AUTH ann x\n", "auth_failed")

    def test_too_early(self) -> None:
        """An attempt that comes too early."""
        for _ in range(6):
            self.try_login(b"AUTH x\n")
        self.assert_leaves_nothing(b"AUTH x\n", "auth_delayed")

    def test_too_early_for_the_time_limit(self) -> None:
        """Where commands have less time than the pause, it ends earlier, with the same answer."""
        self.factory = CommandFactory(
            self.reactor,
            standard_commands(None, self.logins.log_in),
            limits=Limits(command_timeout=REFUSAL_PAUSE / 4),
            access=Access(AuthSettings(users="x"), self.logins.permissions_of),
        )
        for _ in range(6):
            self.try_login(b"AUTH x\n")
        self.assertEqual(self.try_login(b"AUTH x\n"), "auth_delayed")

    def test_too_busy(self) -> None:
        """An attempt for which there is no place, of a source that has tried more than others."""
        self.try_login(b"AUTH ann x\n")
        others = [
            self.reactor.connect(self.factory, IPv4Address("TCP", f"192.0.2.{i}", 5000))
            for i in range(2)
        ]
        for other in others:
            other.send(b"AUTH ann x\n")
            self.reactor.settle()
        self.assert_leaves_nothing(b"AUTH ann x\n", "busy", check=False)


class CredTests(SynchronousTestCase):
    """The parts fit into twisted.cred."""

    def test_token(self) -> None:
        """Other checkers can accept tokens."""
        self.assertTrue(IToken.providedBy(Token("x")))

    def test_realm(self) -> None:
        """The avatars are permissions only; there is no anonymous avatar."""
        realm = PermissionsRealm(lambda name: Permissions(name, User()))
        _, permissions, log_out = realm.requestAvatar(b"ann", None, IPermissions)
        assert isinstance(permissions, Permissions)
        self.assertEqual(permissions.name, "ann")
        log_out()
        self.assertRaises(UnauthorizedLogin, realm.requestAvatar, (), None, IPermissions)
        self.assertRaises(NotImplementedError, realm.requestAvatar, b"ann", None)

    def test_no_name(self) -> None:
        """What a checker returns in place of a name is no login, and its author is told."""
        wrong: list[Any] = [None, 5, (), "", b"", "a\nb", b"\x1b[31m", b"\xff"]  # Any: no names
        for found in wrong:
            with self.subTest(found=found):
                chain = CheckerChain(IToken, [Accepting(found)])
                self.failureResultOf(chain.requestAvatarId(Token("x")), UnauthorizedLogin)
                (logged,) = self.flushLoggedErrors(TypeError)
                self.assertIn("Accepting", str(logged.value))

    def test_first_of(self) -> None:
        """A checker may return a plain value; an unexpected exception is not a wrong password."""

        class Plain:
            def requestAvatarId(self, credentials: object) -> object:
                return b"ann"

        class Broken:
            def requestAvatarId(self, credentials: object) -> object:
                raise ZeroDivisionError

        self.assertEqual(
            self.successResultOf(CheckerChain(IToken, [Plain()]).requestAvatarId(None)), "ann"
        )
        broken = CheckerChain(IToken, [Broken(), Plain()]).requestAvatarId(None)
        self.failureResultOf(broken, ZeroDivisionError)


class ConfiguredAuthenticatorTests(UsersFileTestCase):
    """:func:`configured_authenticator` follows the settings."""

    def test_nobody(self) -> None:
        """Without users and checkers there is no authenticator."""
        self.assertIsNone(configured_authenticator(ThreadClock(), AuthSettings()))

    def test_neighbour(self) -> None:
        """A neighbour who guesses delays nobody who has logged in from there before."""
        self.write(f'[ann]\npassword = "{HASH}"\n[bob]\npassword = "{HASH}"')
        reactor = ThreadClock()
        settings = AuthSettings(users=str(self.path), first_delay=60.0)
        made = configured_authenticator(reactor, settings, reactor)
        assert made is not None
        sessions = Sessions(lambda: 0.0)

        def log_in(name: str, password: str) -> Deferred[str]:
            session = sessions.open("192.0.2.1", 1, lambda line: None)
            result = Deferred.fromCoroutine(made.log_in(session, name, password))
            while reactor.threads:
                reactor.run_thread()
            reactor.advance(REFUSAL_PAUSE)
            return result

        self.assertEqual(self.successResultOf(log_in("ann", "sesame")), "ann")
        for name in ("ann", "bob", "x", "bob", "x"):
            log_in(name, "wrong").addErrback(lambda _: None)
        self.assertEqual(self.successResultOf(log_in("ann", "sesame")), "ann")
        self.failureResultOf(log_in("bob", "sesame"), AuthDelayed)
        # What it guesses at her name delays her: nothing tells them apart.
        for _ in range(2):
            self.failureResultOf(log_in("ann", "wrong"), AuthFailed)
        self.failureResultOf(log_in("ann", "sesame"), AuthDelayed)
        made.stop()
        self.assertTrue(reactor.stopped)

    def test_changed_file(self) -> None:
        """The users file is looked at in a thread of its own, which stays until the stop."""
        threads: set[str] = set()

        def read(*arguments: Any) -> Users:
            threads.add(threading.current_thread().name)
            return read_users(*arguments)

        self.write("[ann]\n[bob]")
        reactor: Any = ThreadReactor()  # Any: it is a few interfaces at once
        made = configured_authenticator(reactor, AuthSettings(users=str(self.path)))
        assert made is not None
        self.patch(users_file, "read_users", read)
        ann = made.permissions_of("ann")
        assert ann is not None
        made.start()
        for text, withdrawn in (("[ann", False), ("[bob]", True)):
            self.write(text)
            made.refresh()
            reactor.run_one()
            made.refresh()
            # Not before the thread has read it.
            self.assertFalse(ann.withdrawn)
            reactor.run_one()
            self.assertEqual(ann.withdrawn, withdrawn)
        self.assertEqual(threads, {"users file 1"})
        self.assertTrue(threads & {thread.name for thread in threading.enumerate()})
        self.assertEqual(reactor.at_shutdown, [])
        made.stop()
        wait_until(lambda: threads.isdisjoint(thread.name for thread in threading.enumerate()))
        self.flushLoggedErrors()

    def test_both(self) -> None:
        """A users file and a checker plugin are used together, with passwords in a thread."""
        self.write(f'[ann]\npassword = "{HASH}"\ntokens = ["{hash_token("letmein")}"]')
        passwd = self.path.with_name("passwd")
        passwd.write_text("eve:apple\n")
        settings = AuthSettings(
            users=str(self.path), checkers=(f"file:{passwd}",), unlisted="default"
        )
        reactor = ThreadClock()
        made = configured_authenticator(reactor, settings, reactor)
        assert made is not None
        sessions = Sessions(lambda: 0.0)
        for who, password, threads in (
            ("ann", "sesame", 1),
            ("letmein", "", 0),
            ("eve", "apple", 1),
        ):
            session = sessions.open("h", 1, lambda line: None)
            result = Deferred.fromCoroutine(made.log_in(session, who, password))
            for _ in range(threads):
                reactor.run_thread()
            self.assertIn(self.successResultOf(result), ("ann", "eve"))

    def test_file_that_is_none(self) -> None:
        """A checker of a file is refused one that is none, which it would wait for at a login."""
        pipe = self.path.with_name("pipe")
        os.mkfifo(pipe)
        for path in (pipe, pipe.parent, "/dev/zero"):
            settings = AuthSettings(checkers=(f"file:{path}",))
            error: ConfigError = self.assertRaises(
                ConfigError, configured_authenticator, ThreadClock(), settings
            )
            (mistake,) = error.mistakes
            self.assertEqual(mistake, "auth.checkers[0]: the checker file needs a regular file")

    def test_plugin_that_fails(self) -> None:
        """A checker's plugin may raise anything; its message may be secret, and is not shown."""
        for raised in (ValueError("sesame"), SystemExit("sesame"), KeyboardInterrupt("sesame")):

            def make(description: str, raised: BaseException = raised) -> object:
                raise raised

            self.patch(login, "makeChecker", make)
            settings = AuthSettings(checkers=("odd:sesame",))
            error: ConfigError = self.assertRaises(
                ConfigError, configured_authenticator, ThreadClock(), settings
            )
            (mistake,) = error.mistakes
            self.assertTrue(
                mistake.startswith("auth.checkers[0]: the checker odd cannot be made: ")
            )
            self.assertIn(type(raised).__name__, mistake)
            self.assertNotIn("sesame", mistake)

    def test_mistakes(self) -> None:
        """All mistakes are reported at once, without the arguments of checkers."""
        settings = AuthSettings(
            users=str(self.path),
            checkers=("nonsense:sesame", "memory:sesame", "anonymous", "memory:a:b"),
        )
        error: ConfigError = self.assertRaises(
            ConfigError, configured_authenticator, ThreadClock(), settings
        )
        self.assertEqual(
            error.mistakes,
            [
                f"auth.users: {self.path}: No such file or directory",
                "auth.checkers[0]: there is no checker nonsense; --help-auth lists the checkers",
                "auth.checkers[1]: the checker memory does not accept these arguments",
                "auth.checkers[2]: the checker anonymous accepts neither passwords nor tokens",
            ],
        )
