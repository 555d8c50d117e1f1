"""Users file: the users as they are in a file, which is read again when it has changed."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.auth.passwords import check_hash
from twisted_net.auth.users import Permissions, Users, read_users
from twisted_net.broadcasts import CLIENTS_AT_ONCE, Pacing, unpaced
from twisted_net.errors import ConfigError

COMPLAINT_INTERVAL = 60.0
"""Seconds between two complaints about a file that cannot be read, which is tried each second."""

MISTAKES_LOGGED = 20
"""Mistakes in a changed file that are logged; all of them are counted."""

log = Logger()


class UsersFile:
    """
    The users of a file, which is read again when it has changed.

    What has changed holds at once for clients that are logged in, and what they have begun is
    reviewed: see :meth:`~twisted_net.sessions.Session.review`. A mistake in a changed file is
    logged, and the users stay as they were; so they do while it is missing or unreadable.

    :param pacing: divides the reviews of many clients over turns of the reactor.
    :param seconds: returns the seconds of a steady clock, for the rate of complaints.
    :raises ConfigError: if the file cannot be read, or has a mistake, when it is first read.
    """

    def __init__(
        self,
        path: str,
        pacing: Pacing = unpaced,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._pacing = pacing
        self._seconds = seconds
        self._may_complain = float("-inf")
        self._state = self._file_state()
        self._warn_if_open()
        self._users = self._read()

    def current(self) -> Users:
        """Return the users; read the file if it has changed."""
        try:
            state = self._file_state()
            if state == self._state:
                return self._users
            users = self._read()
        except _Unreadable as error:
            # Tried again at the next call: it need not change to be readable then.
            self._complain(error.mistakes)
            return self._users
        except ConfigError as error:
            self._state = state
            self._log_mistakes(error.mistakes)
            return self._users
        self._state = state
        self._warn_if_open()
        changed = users.replace(self._users)
        self._users = users
        log.info(
            "{path} has changed and was read: {count} users",
            path=self._path,
            count=len(self._users),
        )
        reviewed = Deferred.fromCoroutine(self._review(changed))
        reviewed.addErrback(lambda failure: log.failure("cannot review logins", failure))
        return self._users

    async def _review(self, changed: Sequence[Permissions]) -> None:
        await self._pacing(_reviews(changed))

    def _complain(self, mistakes: Sequence[str]) -> None:
        now = self._seconds()
        if now >= self._may_complain:
            self._may_complain = now + COMPLAINT_INTERVAL
            self._log_mistakes(mistakes)

    def _log_mistakes(self, mistakes: Sequence[str]) -> None:
        for mistake in mistakes[:MISTAKES_LOGGED]:
            log.error("users not updated: {mistake}", mistake=mistake)
        if len(mistakes) > MISTAKES_LOGGED:
            more = len(mistakes) - MISTAKES_LOGGED
            log.error("users not updated: {more} more mistakes", more=more)

    def _file_state(self) -> tuple[int, ...]:
        """Return what differs when the file has changed, has another mode or was replaced."""
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise _Unreadable([f"{self._path}: {error.strerror}"]) from None
        return (
            *(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev),
            found.st_mode,
        )

    def _warn_if_open(self) -> None:
        if self._state[-1] & stat.S_IROTH:
            log.warn("{path} is readable by all users of this machine", path=self._path)

    def _read(self) -> Users:
        try:
            with open(self._path, encoding="utf-8") as opened:
                users = read_users(opened.read(), self._path)
        except OSError as error:
            raise _Unreadable([f"{self._path}: {error.strerror}"]) from None
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
                    f"{self._path}: user {name}: password: argon2 requires twisted_net[auth]"
                )
        if mistakes:
            raise ConfigError(mistakes)
        return users


class UsersRefresher(Service):
    """
    Looks from time to time, while it runs, whether a users file has changed.

    :param interval: seconds between two looks.
    :param refresh: reads the file if it has changed.
    """

    def __init__(
        self, reactor: IReactorTime, interval: float, refresh: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._interval = interval
        self._refresh = refresh
        self._call: IDelayedCall | None = None

    @override
    def startService(self) -> None:
        Service.startService(self)
        if self._call is None:
            self._wait()

    @override
    def stopService(self) -> None:
        Service.stopService(self)
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait(self) -> None:
        self._call = self._reactor.callLater(self._interval, self._look)

    def _look(self) -> None:
        # First: whatever happens, it is looked again.
        self._wait()
        self._refresh()


class _Unreadable(ConfigError):
    """The system does not let us read the file, at this time."""


def _reviews(changed: Sequence[Permissions]) -> Iterator[int]:
    """Let those who hold changed permissions review them, some in each step; yield how many."""
    for permissions in changed:
        holders = list(permissions.holders)
        for begin in range(0, len(holders), CLIENTS_AT_ONCE):
            some = holders[begin : begin + CLIENTS_AT_ONCE]
            for holder in some:
                holder.review()
            yield len(some)
