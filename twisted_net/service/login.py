"""Logs clients in: by twisted.cred, passwords off the reactor's thread, slower each failure."""

from __future__ import annotations

import os
import stat
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials, IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.cred.strcred import InvalidAuthArgumentString, InvalidAuthType, makeChecker
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from twisted_net.auth.passwords import check_hash, verify
from twisted_net.auth.users import AuthSettings, Permissions, Users, read_users
from twisted_net.errors import AuthDelayed, AuthFailed, CommandError, ConfigError, TooBusy
from twisted_net.net.addresses import client_prefix
from twisted_net.net.rate_limit import FailureDelays
from twisted_net.reasons import Refusal
from twisted_net.sessions import Session

DECOY = "$scrypt$ln=15,r=8,p=3$MDAwMDAwMDAwMDAwMDAwMA$yXEwQhQlQqk5vRfijBEsILiVw39bwFM7s+citMRbpAc"
"""Checked where there is no such user, so that it takes as long as where there is one."""

log = Logger()


class IToken(ICredentials):
    """A token alone, from ``AUTH <token>``; checkers of others may take it too."""

    token = Attribute("the token, as text")


@implementer(IToken)
class Token:
    """What a client gives that logs in with a token."""

    def __init__(self, token: str) -> None:
        self.token = token


class IPermitted(Interface):
    """The avatar of a client: its :class:`~twisted_net.auth.users.Permissions`."""


GIVES_WAY = 10
"""
How much nicer than the reactor (nice(2)) the thread is that checks a password.

Where they share a core that is busy it has a tenth of it. More would keep who has the right
password waiting until the time to log in is over; the reactor gains little by it.
"""


def verify_below(hashed: str, password: str) -> bool:
    """
    Verify as :func:`~twisted_net.auth.passwords.verify` does, in a thread of lower priority.

    A thread has a priority of its own on Linux alone, and cannot take it back: it is not one of
    the pool's.
    """
    # Nobody else has a use for it, and it takes a while to import.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, initializer=_give_way) as below:
        return below.submit(verify, hashed, password).result()


def _give_way() -> None:
    if sys.platform == "linux":
        # A sandbox may forbid it; the check is made all the same.
        with suppress(OSError):
            os.nice(GIVES_WAY)


class PasswordChecks:
    """
    Checks passwords in threads, one at a time and in order.

    One check takes tens of megabytes and a good part of a second of a core: of all that clients
    may ask for before they are known, nothing else is as dear. So it gives way to the reactor
    where both want the same core.

    :param limit: checks that wait or run; one whose client has gone counts until its turn.
    """

    def __init__(self, reactor: IReactorTime, limit: int) -> None:
        self._reactor = reactor
        self._limit = limit
        self._busy = False
        self._waiting: deque[tuple[Deferred[bool], str, str]] = deque()

    def verify(self, hashed: str, password: str) -> Deferred[bool]:
        """
        Say whether this is the password.

        :raises TooBusy: where as many wait as may.
        """
        if len(self._waiting) + self._busy >= self._limit:
            raise TooBusy(self._limit)
        result: Deferred[bool] = Deferred()
        self._waiting.append((result, hashed, password))
        self._next()
        return result

    def _next(self) -> None:
        while self._waiting and not self._busy:
            result, hashed, password = self._waiting.popleft()
            if not result.called:
                self._busy = True
                pool = cast(IReactorThreads, self._reactor).getThreadPool()
                reactor = cast(IReactorFromThreads, self._reactor)
                checked = deferToThreadPool(reactor, pool, partial(verify_below, hashed, password))
                checked.addBoth(self._done, result)

    def _done(self, value: bool | Failure, result: Deferred[bool]) -> None:
        self._busy = False
        if not result.called:
            result.callback(cast(bool, value))  # a Failure makes it fail
        self._next()


class UsersFile:
    """
    The users in a file, which is read again once it has changed.

    A change is seen at the next login; who is logged in keeps what it had. A mistake in a changed
    file is logged, and the users before it stay.

    :raises ConfigError: where the file cannot be read, or has a mistake, in the beginning.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp = self._look()
        self._users = self._read()

    def current(self) -> Users:
        """Give the users as the file has them now."""
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._users = self._read()
                log.info(
                    "{path} was read again: {count} users", path=self._path, count=len(self._users)
                )
        except ConfigError as error:
            for mistake in error.mistakes:
                log.error("the users stay as they were: {mistake}", mistake=mistake)
        return self._users

    def _look(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise ConfigError([f"{self._path}: {error.strerror}"]) from None
        if found.st_mode & stat.S_IROTH:
            log.warn("{path} can be read by everybody on this machine", path=self._path)
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> Users:
        try:
            with open(self._path, encoding="utf-8") as opened:
                users = read_users(opened.read(), self._path)
        except OSError as error:
            raise ConfigError([f"{self._path}: {error.strerror}"]) from None
        except UnicodeDecodeError as error:
            raise ConfigError([f"{self._path}: byte {error.start} is not UTF-8"]) from None
        mistakes = []
        for name, user in users.items():
            try:
                if user.password is not None:
                    check_hash(user.password)
            except ValueError as error:
                mistakes.append(f"{self._path}: user {name}: password: {error}")
            except ImportError:
                mistakes.append(
                    f"{self._path}: user {name}: password: argon2 needs twisted_net[auth]"
                )
        if mistakes:
            raise ConfigError(mistakes)
        return users


@implementer(ICredentialsChecker)
class UsersChecker:
    """
    Checks names with passwords, and tokens, against a users file.

    :param users: gives the users.
    :param verify: checks a password against a hash.
    """

    credentialInterfaces = (IUsernamePassword, IToken)

    def __init__(
        self, users: Callable[[], Users], verify: Callable[[str, str], Deferred[bool]]
    ) -> None:
        self._users = users
        self._verify = verify

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:  # Any: zope knows no types
        return Deferred.fromCoroutine(self._check(credentials))

    async def _check(self, credentials: Any) -> str:  # Any: as above
        users = self._users()
        if IToken.providedBy(credentials):
            name = users.named_by_token(credentials.token)
            if name is None:
                raise UnauthorizedLogin
            return name
        name = _text(credentials.username)
        user = users.get(name)
        hashed = None if user is None else user.password
        right = await self._verify(hashed or users.decoy or DECOY, _text(credentials.password))
        if hashed is None or not right:
            raise UnauthorizedLogin
        return name


@implementer(ICredentialsChecker)
class FirstOf:
    """Asks several checkers, in order, until one knows the client."""

    def __init__(self, interface: Any, checkers: Sequence[Any]) -> None:  # Any: zope interfaces
        self.credentialInterfaces = (interface,)
        self._checkers = checkers

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:  # Any: as above
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: object) -> object:
        for checker in self._checkers:
            try:
                found = checker.requestAvatarId(credentials)
                return await found if isinstance(found, Awaitable) else found
            except UnauthorizedLogin:
                continue
        raise UnauthorizedLogin


@implementer(IRealm)
class Realm:
    """
    Gives each user its permissions.

    :param permissions_of: by name.
    """

    def __init__(self, permissions_of: Callable[[str], Permissions]) -> None:
        self._permissions_of = permissions_of

    def requestAvatar(
        self, avatarId: object, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        if IPermitted not in interfaces:
            raise NotImplementedError("this realm gives permissions alone")
        # The anonymous avatar is an empty tuple, which is nobody here.
        if not isinstance(avatarId, str | bytes):
            raise UnauthorizedLogin
        return IPermitted, self._permissions_of(_text(avatarId)), _log_out


class Logins:
    """
    Logs clients in, and makes whoever fails wait longer each time.

    :param checkers: of twisted.cred, for names with passwords and for tokens; asked in order.
    :param users: gives the users, for what they may do; nobody is known if None.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        settings: AuthSettings,
        checkers: Iterable[Any],  # Any: ICredentialsChecker, which zope does not type
        users: Callable[[], Users] | None = None,
    ) -> None:
        self._reactor = reactor
        self._users = users or (lambda: Users({}))
        self._delays = FailureDelays(
            settings.free_attempts, settings.first_delay, settings.longest_delay
        )
        by_interface: dict[Any, list[Any]] = {}  # Any: as above
        for checker in checkers:
            for interface in checker.credentialInterfaces:
                by_interface.setdefault(interface, []).append(checker)
        self._portal = Portal(
            Realm(self.permissions_of),
            [FirstOf(interface, found) for interface, found in by_interface.items()],
        )

    def permissions_of(self, name: str) -> Permissions:
        """Give what a user may do, as the users file has it now."""
        return self._users().permissions(name)

    async def log_in(self, session: Session, who: str, password: str) -> str:
        """
        Log a client in.

        :param who: the user or, without a password, the token.
        :return: the name of the user.
        :raises AuthFailed: where nobody knows it.
        :raises AuthDelayed: where it failed too often; then nothing was checked.
        :raises TooManyConnections: where this user has as many connections as it may.
        :raises TooBusy: where too many passwords wait to be checked.
        """
        source = client_prefix(session.client[0])
        wait = self._delays.attempt(source, self._reactor.seconds())
        if wait > 0:
            session.sessions.refuse_line(session, Refusal.AUTH_DELAYED, f"{wait:.3g} s")
            delayed = AuthDelayed(wait)
            delayed.counted = True
            raise delayed
        given = UsernamePassword(who.encode(), password.encode()) if password else Token(who)
        try:
            _, avatar, _ = await self._portal.login(given, None, IPermitted)
        except (UnauthorizedLogin, UnhandledCredentials):
            # Not the token, which may be one letter off.
            what = f"as {who}" if password else "with a token"
            session.sessions.refuse_line(session, Refusal.AUTH_FAILED, what)
            failed = AuthFailed()
            failed.counted = True
            raise failed from None
        except CommandError:
            self._delays.succeeded(source)
            raise
        self._delays.succeeded(source)
        permissions = cast(Permissions, avatar)
        session.log_in(permissions)
        session.sessions.audit("login", session, "by password" if password else "by token")
        return cast(str, permissions.name)


def configured_logins(reactor: IReactorTime, settings: AuthSettings) -> Logins | None:
    """
    Make what logs clients in; None where nobody can.

    :raises ConfigError: for a users file or a checker that cannot be used.
    """
    mistakes = []
    checkers: list[Any] = []  # Any: as above
    users = None
    if settings.users is not None:
        try:
            users = UsersFile(settings.users).current
        except ConfigError as error:
            mistakes += [f"auth.users: {mistake}" for mistake in error.mistakes]
        else:
            checks = PasswordChecks(reactor, settings.max_waiting)
            checkers.append(UsersChecker(users, checks.verify))
    for i, description in enumerate(settings.checkers):
        try:
            checkers.append(_make_checker(description))
        except ValueError as error:
            mistakes.append(f"auth.checkers[{i}]: {error}")
    if mistakes:
        raise ConfigError(mistakes)
    return Logins(reactor, settings, checkers, users) if checkers else None


def _make_checker(description: str) -> Any:  # Any: as above
    """
    Make a checker of a plugin.

    :raises ValueError: where there is none such, or it is of no use; its arguments, which may be
        secret, are not repeated.
    """
    kind = description.partition(":")[0]
    try:
        checker: Any = makeChecker(description)  # Any: as above
    except InvalidAuthType:
        raise ValueError(f"there is no checker {kind}; --help-auth lists them") from None
    except InvalidAuthArgumentString:
        raise ValueError(f"the checker {kind} does not take these arguments") from None
    if not {IUsernamePassword, IToken} & set(checker.credentialInterfaces):
        raise ValueError(f"the checker {kind} takes neither passwords nor tokens")
    return checker


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _log_out() -> None:
    """Nothing is kept for a user who leaves."""
