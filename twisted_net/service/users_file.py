"""Users file: the users as they are in a file, which is read again when it has changed."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_net.auth.passwords import check_hash
from twisted_net.auth.users import Permissions, Users, read_users
from twisted_net.errors import ConfigError, OutOfThreads
from twisted_net.net.files import read_file
from twisted_net.turns.steps import CHECK, WRITE, Pacing, in_steps, unpaced

COMPLAINT_INTERVAL = 60.0
"""Seconds between two complaints about a file that cannot be read, which is tried each second."""

MISTAKES_LOGGED = 20
"""Mistakes in a changed file that are logged; all of them are counted."""

MAX_BYTES = 16_777_216
"""Size of the largest users file that is read: a hundred thousand users with a password each."""

_UNFIT = (errno.EINVAL, errno.EFBIG)  # of read_file, for no regular file and one too large

log = Logger()

SUBSCRIPTIONS_PER_CLIENT = 8
"""
Subscriptions whose review takes as long as that of a client without any, or longer.

Those of 64 clients with a thousand each, reviewed at once, kept all others waiting for 0.8 s.
"""

_T = TypeVar("_T")

Threading: TypeAlias = Callable[[Callable[[], Users | None]], Awaitable[Users | None]]
"""Calls a function outside of the reactor's thread, and returns its value."""


async def unthreaded(function: Callable[[], _T]) -> _T:
    """Call a function here and now: the :data:`Threading` without a reactor."""
    return function()


class UsersFile:
    """
    The users of a file, which is read again when it has changed.

    :meth:`look` is to be called from time to time. A file that is being written is not read: it
    must be found the same by two calls. All is done in a thread: to read and check thousands of
    users takes long, and a file system may take forever, even to say whether a file has changed.

    What has changed holds at once for clients that are logged in, and what they have begun is
    reviewed: see :meth:`~twisted_net.sessions.Session.review`. A mistake in a changed file is
    logged, and the users stay as they were; so they do while it is missing or unreadable, or its
    file system does not answer, which is logged once a minute.

    :param pacing: divides the reviews of many clients over turns of the reactor.
    :param seconds: returns the seconds of a steady clock, for the rate of complaints.
    :param threading: calls the function that looks at the file, one at a time. Where it fails with
        :class:`~twisted_net.errors.OutOfThreads` it is called at the next look again.
    :raises ConfigError: if the file cannot be read, or has a mistake, when it is first read.
    """

    def __init__(
        self,
        path: str,
        pacing: Pacing = unpaced,
        seconds: Callable[[], float] = time.monotonic,
        threading: Threading = unthreaded,
    ) -> None:
        self._path = path
        self._pacing = pacing
        self._seconds = seconds
        self._threading = threading
        self._may_complain = float("-inf")
        self._state = self._file_state()
        # That of a changed file, which is read if the next look finds it still. Set in the thread,
        # and read here when it has returned.
        self._changed_state: tuple[int, ...] | None = None
        self._looking = False
        self._began = float("-inf")  # when it was looked at last
        self._warn_if_open()
        self._users = self._read()

    def current(self) -> Users:
        """Return the users, as they were read last."""
        return self._users

    def look(self) -> None:
        """Look whether the file has changed; read it if it has, and not since the last look."""
        now = self._seconds()
        if self._looking:
            if now >= self._began + COMPLAINT_INTERVAL:
                self._complain([f"{self._path}: its file system has not answered yet"])
            return
        self._looking = True
        self._began = now
        looked = Deferred.fromCoroutine(self._look())
        looked.addErrback(lambda failure: log.failure("cannot read users", failure))

    async def _look(self) -> None:
        try:
            users = await self._threading(self._changed_users)
        except _Unreadable as error:
            # Tried again at the next look: it need not change to be readable then.
            self._complain(error.mistakes)
        except (OutOfThreads, MemoryError, OSError) as error:
            # So it is where the system lacks what it takes to read the file.
            self._complain([f"{self._path}: {str(error) or type(error).__name__}"])
        except ConfigError as error:
            self._mark_read()
            self._log_mistakes(error.mistakes)
        except BaseException:
            # A bug is not met again before the file has another state.
            self._mark_read()
            raise
        else:
            if users is not None:
                self._mark_read()
                self._warn_if_open()
                self._replace(users)
        finally:
            self._looking = False

    def _changed_users(self) -> Users | None:
        """
        Return the users of a file that has changed, and not since the last look; None of any other.

        It runs in a thread.

        :raises ConfigError: if the file cannot be read, or has a mistake.
        """
        before, self._changed_state = self._changed_state, None
        state = self._file_state()
        if state == self._state:
            return None
        self._changed_state = state
        if state != before:
            return None
        users = self._read_whole()
        # What has changed while it was read is not what was read.
        return users if self._file_state() == state else None

    def _mark_read(self) -> None:
        """Note that the changed file was read, and is not read again before it changes."""
        if self._changed_state is not None:
            self._state = self._changed_state

    def _replace(self, users: Users) -> None:
        changed = users.replace(self._users)
        self._users = users
        log.info(
            "{path} has changed and was read: {count} users",
            path=self._path,
            count=len(self._users),
        )
        reviewed = Deferred.fromCoroutine(self._review(changed))
        reviewed.addErrback(lambda failure: log.failure("cannot review logins", failure))

    async def _review(self, changed: Sequence[Permissions]) -> None:
        await self._pacing(in_steps(_reviews(changed)))

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
        """
        Read and check the file.

        :raises ConfigError: if it cannot be read, or has a mistake.
        """
        return self._checked(self._contents())

    def _checked(self, contents: bytes) -> Users:
        try:
            users = read_users(contents.decode("utf-8-sig"), self._path)
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

    def _read_whole(self) -> Users:
        """
        Read a file that has changed. Its writer may have been cut off, as by a full disk.

        :raises ConfigError: as :meth:`_read` does; and if the last line has no end.
        """
        contents = self._contents()
        if contents and not contents.endswith(b"\n"):
            raise ConfigError([f"{self._path}: the last line has no end; the file may be cut"])
        users = self._checked(contents)
        users.compare(self._users)
        return users

    def _contents(self) -> bytes:
        """
        Return what is in the file.

        :raises ConfigError: if it cannot be read, is too large, or is no file: a FIFO or a device
            may never end.
        """
        try:
            return read_file(self._path, MAX_BYTES)
        except OSError as error:
            if error.errno in _UNFIT:
                raise ConfigError([f"{self._path}: {error.strerror}"]) from None
            raise _Unreadable([f"{self._path}: {error.strerror}"]) from None


class _Unreadable(ConfigError):
    """The system does not let us read the file, at this time."""


def _reviews(changed: Sequence[Permissions]) -> Iterator[float]:
    """Let those who hold changed permissions review them; yield the share of a step each takes."""
    for permissions in changed:
        if not permissions.holders:
            yield CHECK
        for holder in list(permissions.holders):
            share = WRITE * (1 + holder.subscriptions / SUBSCRIPTIONS_PER_CLIENT)
            holder.review()
            yield share
