"""Logins through twisted.cred: users and checkers; each failure delays the next login."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials, IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.cred.strcred import InvalidAuthArgumentString, InvalidAuthType, makeChecker
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from twisted_net.auth.password_queue import NAME_LENGTH, Applicant
from twisted_net.auth.users import AuthSettings, Permissions, Users, hash_token
from twisted_net.config.foreign_code import describe_failure
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import AuthDelayed, AuthFailed, CommandError, ConfigError, TooBusy
from twisted_net.net.addresses import client_prefix, networks_around
from twisted_net.net.rate_limit import FailureDelays
from twisted_net.net.redaction import shown_word
from twisted_net.net.steady_clock import steady
from twisted_net.net.worker_threads import Threads, WorkerThreads
from twisted_net.reasons import Refusal
from twisted_net.service.password_verifier import PasswordCheck, PasswordVerifier
from twisted_net.service.users_file import UsersFile
from twisted_net.sessions.session import Session
from twisted_net.turns.step_scheduler import StepScheduler

_log = Logger()

_E = TypeVar("_E", bound=CommandError)

REFUSAL_PAUSE = 2.0
"""
Longest time, in seconds, for which the answer to a login that came too early is held back. Until
then the client's next line does not run: 200 clients that do not heed ``retry_after`` otherwise
take a whole processor, of which the checks of the others' passwords then get too little.
"""


class IToken(ICredentials):
    """Credentials that are one token, from ``AUTH <token>``; plugins may accept them."""

    token = Attribute("the token, as text")


@implementer(IToken)
class Token:
    """The credentials of a client that logs in with a token."""

    def __init__(self, token: str) -> None:
        self.token = token


class ClientPassword(UsernamePassword):
    """
    A name and a password, and where the client is that gave them.

    :param spare: called if the client leaves before the outcome and its password is not found to be
        wrong.
    """

    def __init__(
        self, name: str, password: str, host: str, spare: Callable[[], None] | None = None
    ) -> None:
        super().__init__(name.encode(), password.encode())
        self.applicant = Applicant(client_prefix(host), networks_around(host), name)
        self.spare = spare


class IPermissions(Interface):
    """The avatar of a client: its :class:`~twisted_net.auth.users.Permissions`."""


@implementer(ICredentialsChecker)
class UsersChecker:
    """
    Credentials checker: names with passwords, and tokens, against a users file.

    :param users: returns the users.
    :param verify: checks a password.
    """

    credentialInterfaces = (IUsernamePassword, IToken)

    def __init__(
        self, users: Callable[[], Users], verify: Callable[[PasswordCheck], Deferred[bool]]
    ) -> None:
        self._users = users
        self._verify = verify

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:  # Any: zope is untyped
        users = self._users()
        if IToken.providedBy(credentials):
            known = users.named_by_token(credentials.token)
            return _refused() if known is None else succeed(known)
        name = _text(credentials.username)
        user = users.get(name)
        hashed = None if user is None else user.password
        applicant = getattr(credentials, "applicant", None) or Applicant("", (), name)
        password, spare = _text(credentials.password), getattr(credentials, "spare", None)
        check = PasswordCheck(applicant, hashed, users.decoys, password, spare)

        def decide(right: bool) -> str | Deferred[Any]:  # Any: as above
            # The file may have changed meanwhile.
            user = self._users().get(name)
            if not right or user is None or user.password != hashed:
                return _refused()
            return name

        return self._verify(check).addCallback(decide)


@implementer(ICredentialsChecker)
class CheckerChain:
    """Credentials checker that tries several checkers, in order, until one accepts."""

    def __init__(self, interface: Any, checkers: Sequence[Any]) -> None:  # Any: zope interfaces
        self.credentialInterfaces = (interface,)
        self._checkers = checkers

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:  # Any: as above
        return self._ask(credentials, 0)

    def _ask(self, credentials: object, index: int) -> Deferred[Any]:  # Any: as above
        if index == len(self._checkers):
            return _refused()
        checker = self._checkers[index]
        found: Deferred[Any] = maybeDeferred(checker.requestAvatarId, credentials)  # Any: as above
        found.addCallback(partial(_user_named, checker))

        def go_on(failure: Failure) -> Failure | Deferred[Any]:  # Any: as above
            if failure.check(UnauthorizedLogin) is None:
                return failure
            return self._ask(credentials, index + 1)

        return found.addErrback(go_on)


class Unlisted(UnauthorizedLogin):
    """
    A checker accepts the credentials, but the users file does not list the user.

    :ivar name: of the user.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@implementer(IRealm)
class PermissionsRealm:
    """
    Realm whose avatars are the permissions of users.

    :param permissions_of: returns the permissions, by the name of the user; None if there is no
        such user.
    """

    def __init__(self, permissions_of: Callable[[str], Permissions | None]) -> None:
        self._permissions_of = permissions_of

    def requestAvatar(
        self, avatarId: object, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        if IPermissions not in interfaces:
            raise NotImplementedError("the avatars of this realm are permissions only")
        # The anonymous avatar ID of twisted.cred is an empty tuple; there are no anonymous logins.
        if not isinstance(avatarId, str | bytes):
            raise UnauthorizedLogin
        name = _text(avatarId)
        permissions = self._permissions_of(name)
        if permissions is None:
            raise Unlisted(name)
        return IPermissions, permissions, _log_out


@check_arguments
class Authenticator:
    """
    Logs clients in; each failure delays the next attempt from the same source.

    A source is an IPv4 address, an IPv6 /64 or the user of a Unix socket: all who share it share
    its delays. A user who has logged in from there before has a count of failures apart from that
    of the source, so that a neighbour who guesses does not lock it out.

    :param checkers: credentials checkers (twisted.cred) of passwords and tokens; tried in order.
    :param users: returns the users, for their permissions. Who is not listed is refused, unless
        ``settings.unlisted`` says otherwise. If None, all that a checker accepts are users, with
        the permissions of a record that sets nothing.
    :param look: looks whether these have changed, see :meth:`refresh`.
    :param verifier: knows which users have logged in from a source before.
    :param look_threads: those in which *look* reads; kept and ended as those of *verifier* are.
    :param chance: returns a number drawn evenly from 0 to 1.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        settings: AuthSettings,
        checkers: Iterable[Any],  # Any: ICredentialsChecker, which zope does not type
        users: Callable[[], Users] | None = None,
        look: Callable[[], None] | None = None,
        verifier: PasswordVerifier | None = None,
        look_threads: Threads | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = steady(reactor)
        nobody = Users({})
        self._users = users or (lambda: nobody)
        self._look = look
        self._refuses_unlisted = users is not None and settings.unlisted == "refuse"
        self._verifier = verifier
        self._look_threads = look_threads
        self._chance = chance
        self._delays = FailureDelays(
            settings.free_attempts, settings.first_delay, settings.longest_delay
        )
        by_interface: dict[Any, list[Any]] = {}  # Any: as above
        for checker in checkers:
            for interface in checker.credentialInterfaces:
                by_interface.setdefault(interface, []).append(checker)
        self._portal = Portal(
            PermissionsRealm(self._permissions_by_checker),
            [CheckerChain(interface, found) for interface, found in by_interface.items()],
        )

    def permissions_of(self, name: str) -> Permissions | None:
        """
        Return the permissions of a user, as they are in the users file.

        :return: None if it has no user of exactly this name: a certificate with it is no login.
        """
        return self._users().permissions(name)

    def refresh(self) -> None:
        """
        Look whether the users file has changed, and apply the changes to open connections.

        A service calls it twice in each ``auth.refresh_interval``: a changed file is read if it has
        not changed any more since the call before. Both are done in a thread.
        """
        if self._look is not None:
            self._look()

    def _permissions_by_checker(self, name: str) -> Permissions | None:
        users = self._users()
        return users.permissions(name) if self._refuses_unlisted else users.unlisted(name)

    @property
    def busy_threads(self) -> int:
        """How many threads verify a password."""
        return 0 if self._verifier is None else self._verifier.busy_threads

    def start(self) -> None:
        """Keep the threads of passwords and of the users file again, after :meth:`stop`."""
        for part in (self._verifier, self._look_threads):
            if part is not None:
                part.start()

    def stop(self) -> None:
        """End the threads of passwords and of the users file, once they are idle."""
        for part in (self._verifier, self._look_threads):
            if part is not None:
                part.stop()

    async def log_in(self, session: Session, who: str, password: str) -> str:
        """
        Log a client in.

        :param who: the name of the user or, if *password* is empty, a token.
        :return: the name of the user.
        :raises AuthFailed: if no checker accepts them.
        :raises AuthDelayed: after too many failures; nothing was checked.
        :raises TooManyConnections: at the limit of connections of this user.
        :raises TooBusy: if too many passwords wait to be verified.
        """
        host = session.client[0]
        source = client_prefix(host)
        if password and self._verifier is not None and self._verifier.knows(source, who):
            source = f"{source} {who[:NAME_LENGTH]}"
        began = self._reactor.seconds()
        wait = self._delays.attempt(source, began)
        if wait > 0:
            session.sessions.refuse_line(session, Refusal.AUTH_DELAYED, f"{wait:.3g} s")
            await self._hold_answer(session, wait)
            raise _counted(AuthDelayed(wait))
        take_back = partial(self._delays.take_back, source, began)
        credentials = ClientPassword(who, password, host, take_back) if password else Token(who)
        # A refusal comes as a value: each exception that passes through coroutines leaves a hundred
        # objects to the garbage collector, which then stops all clients for up to a second.
        login = self._portal.login(credentials, None, IPermissions)
        outcome = await login.addErrback(_refusal, take_back)
        if isinstance(outcome, UnauthorizedLogin | UnhandledCredentials):
            # Not the token itself: it may be a valid one with a typing error. Nor a name that is
            # none: it may be the password.
            name = shown_word(who) if self._users().get(who) is None else who
            what = f"as {name}" if password else "with a token"
            if isinstance(outcome, Unlisted):
                what = f"as {outcome.name}, who is not in the users file"
            session.sessions.refuse_line(session, Refusal.AUTH_FAILED, what)
            raise _counted(AuthFailed())
        take_back()
        if isinstance(outcome, CommandError):
            if isinstance(outcome, TooBusy):
                await self._hold_answer(session, outcome.retry_after or 0.0)
            try:
                raise outcome
            finally:
                del outcome
        _, avatar, _ = cast(tuple[object, object, object], outcome)
        permissions = cast(Permissions, avatar)
        session.log_in(permissions, self._proof(permissions, who, password))
        session.sessions.audit("login", session, "by password" if password else "by token")
        return cast(str, permissions.name)

    def _proof(self, permissions: Permissions, who: str, password: str) -> str | None:
        """Return what the login needs to be in the users file as long as it lasts."""
        user = self._users().get(permissions.name or "")
        proof = None if user is None else user.password if password else hash_token(who)
        # None if another checker has accepted the token, or the password.
        return proof if permissions.accepts(proof) else None

    async def _hold_answer(self, session: Session, wait: float) -> None:
        """Wait for a while, in which the client may be disconnected to make room for others."""
        session.login_refused = True
        try:
            # By chance shorter, as many who came at one time would be answered in one turn.
            pause = min(wait, REFUSAL_PAUSE) * (0.5 + self._chance() / 2)
            # Cancelled at the time limit of commands: the answer is the refusal all the same.
            with suppress(CancelledError):
                await deferLater(self._reactor, pause)
        finally:
            session.login_refused = False


@check_arguments
def configured_authenticator(
    reactor: IReactorTime, settings: AuthSettings, threads: Threads | None = None
) -> Authenticator | None:
    """
    Return the authenticator, or None if there are neither users nor checkers.

    :param threads: those that verify passwords; of its own if None.
    :raises ConfigError: for a users file or a checker that cannot be used.
    """
    mistakes = []
    checkers: list[Any] = []  # Any: as above
    users = look = verifier = look_threads = None
    if settings.users is not None:
        # Not the reactor's, which may all be busy with what clients requested: a removed user must
        # not wait for these. A file system that does not answer must not keep the process alive.
        look_threads = WorkerThreads(reactor, "users file", 1, awaited=False)
        try:
            file = UsersFile(
                settings.users,
                StepScheduler(reactor),
                steady(reactor).seconds,
                look_threads.call,
            )
        except ConfigError as error:
            mistakes += [f"auth.users: {mistake}" for mistake in error.mistakes]
        else:
            users, look = file.current, file.look
            verifier = PasswordVerifier(reactor, settings, threads)
            checkers.append(UsersChecker(users, verifier.verify))
    for i, description in enumerate(settings.checkers):
        try:
            checkers.append(_make_checker(description))
        except ValueError as error:
            mistakes.append(f"auth.checkers[{i}]: {error}")
    if mistakes:
        raise ConfigError(mistakes)
    if not checkers:
        return None
    return Authenticator(reactor, settings, checkers, users, look, verifier, look_threads)


def _make_checker(description: str) -> Any:  # Any: as above
    """
    Return the checker of a plugin (twisted.cred.strcred).

    :raises ValueError: if there is none, or if it does not fit. The message does not repeat its
        arguments, which may be secret.
    """
    kind = description.partition(":")[0]
    try:
        checker: Any = makeChecker(description)  # Any: as above
    except InvalidAuthType:
        raise ValueError(f"there is no checker {kind}; --help-auth lists the checkers") from None
    except InvalidAuthArgumentString:
        raise ValueError(f"the checker {kind} does not accept these arguments") from None
    # A plugin may raise anything, SystemExit included.
    except BaseException as error:
        failure = describe_failure(error, secret=True)
        raise ValueError(f"the checker {kind} cannot be made: {failure}") from None
    if isinstance(checker, type):
        raise ValueError(f"the plugin of the checker {kind} returns a class, not an instance of it")
    if not {IUsernamePassword, IToken} & set(getattr(checker, "credentialInterfaces", ())):
        raise ValueError(f"the checker {kind} accepts neither passwords nor tokens")
    file = getattr(checker, "filename", None)
    # Twisted's checker of a file would wait for the writer of a pipe, at the first login.
    if isinstance(file, str) and os.path.exists(file) and not os.path.isfile(file):
        raise ValueError(f"the checker {kind} needs a regular file")
    return checker


def _user_named(checker: object, found: object) -> str:
    """
    Return the name of the user that a checker found.

    :raises UnauthorizedLogin: if it is none, such as the empty tuple for an anonymous user.
    """
    try:
        name = found.decode() if isinstance(found, bytes) else found
    except UnicodeDecodeError:
        name = None
    if isinstance(name, str) and name and name.isprintable():
        return name
    kind = f"{type(checker).__module__}.{type(checker).__qualname__}"
    # Not shown: it may be any object.
    error = TypeError(f"{kind} returned what is no name of a user: a {type(found).__name__}")
    _log.failure("a checker of logins is broken", Failure(error))
    raise UnauthorizedLogin


def _refused() -> Deferred[Any]:  # Any: it has no value
    """Return the failure of credentials, without a traceback."""
    return fail(UnauthorizedLogin())


def _refusal(failure: Failure, take_back: Callable[[], None]) -> BaseException | Failure:
    """
    Return the exception by which a login is refused as a value; any other stays a failure.

    :param take_back: called if a checker has failed: it has refused no guess.
    """
    if failure.check(UnauthorizedLogin, UnhandledCredentials, CommandError) is not None:
        return cast(BaseException, failure.value)
    # The client left: a guess that is being checked may be wrong, see ClientPassword.
    if failure.check(CancelledError) is None:
        take_back()
    return failure


def _counted(error: _E) -> _E:
    """Mark an error as counted and audited."""
    error.counted = True
    return error


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _log_out() -> None:
    """Release nothing: permissions hold no resources."""
