"""Users file: the users as they are in a file, which is read again when it has changed."""

from __future__ import annotations

import os
import stat

from twisted.logger import Logger

from twisted_net.auth.passwords import check_hash
from twisted_net.auth.users import Users, read_users
from twisted_net.errors import ConfigError

log = Logger()


class UsersFile:
    """
    The users of a file, which is read again when it has changed.

    A change takes effect at the next login; clients that are logged in keep their permissions. A
    mistake in a changed file is logged, and the users stay as they were.

    :raises ConfigError: if the file cannot be read, or has a mistake, when it is first read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._state = self._file_state()
        self._users = self._read()

    def current(self) -> Users:
        """Return the users; read the file if it has changed."""
        try:
            state = self._file_state()
            if state != self._state:
                self._state = state
                self._users = self._read()
                log.info(
                    "{path} has changed and was read: {count} users",
                    path=self._path,
                    count=len(self._users),
                )
        except ConfigError as error:
            for mistake in error.mistakes:
                log.error("users not updated: {mistake}", mistake=mistake)
        return self._users

    def _file_state(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise ConfigError([f"{self._path}: {error.strerror}"]) from None
        if found.st_mode & stat.S_IROTH:
            log.warn("{path} is readable by all users of this machine", path=self._path)
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
                    f"{self._path}: user {name}: password: argon2 requires twisted_net[auth]"
                )
        if mistakes:
            raise ConfigError(mistakes)
        return users
