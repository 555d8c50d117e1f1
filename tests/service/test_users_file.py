"""Users are read from a file, and again when it has changed."""

from __future__ import annotations

import builtins
from typing import Any

from twisted.logger import LogLevel

from tests.service.users_case import UsersFileTestCase
from twisted_net.service.users_file import UsersFile


class UsersFileTests(UsersFileTestCase):
    """:class:`UsersFile` reads a file again when it changes."""

    def test_changes(self) -> None:
        """A changed file is read again; an unchanged one is not."""
        self.write("[ann]")
        file = UsersFile(str(self.path))
        users = file.current()
        self.assertIs(file.current(), users)
        self.write("[ann]\n[bob]")
        self.assertEqual(len(file.current()), 2)

    def test_broken_change(self) -> None:
        """If a changed file has a mistake or is missing, that is logged, and the users stay."""
        self.write("[ann]")
        file = UsersFile(str(self.path))
        self.write("[ann")
        self.assertIsNotNone(file.current().get("ann"))
        self.path.unlink()
        self.assertIsNotNone(file.current().get("ann"))
        levels = [event["log_level"] for event in self.logged]
        self.assertEqual(levels, [LogLevel.error, LogLevel.error])
        self.flushLoggedErrors()

    def test_readable_by_all(self) -> None:
        """If the file is world-readable, that is logged as a warning."""
        self.write("[ann]")
        self.path.chmod(0o644)
        UsersFile(str(self.path))
        self.assertEqual([event["log_level"] for event in self.logged], [LogLevel.warn])

    def test_mistakes(self) -> None:
        """Files that cannot be read, and invalid hashes, are reported at the start."""
        self.assertEqual(self.mistakes(), ["No such file or directory"])
        self.path.write_bytes(b"\xff")
        self.assertEqual(self.mistakes(), ["byte 0 is not UTF-8"])
        self.write('[ann]\npassword = "$scrypt$ln=99,r=8,p=1$AA$AA"')
        self.assertEqual(
            self.mistakes(), ["user ann: password: the parameters of this hash are out of bounds"]
        )
        self.path.unlink()
        self.path.mkdir()
        self.assertEqual(self.mistakes(), ["Is a directory"])

    def test_without_the_extra(self) -> None:
        """An argon2 hash is a mistake if the extra is not installed."""
        self.write('[ann]\npassword = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$aGFzaA"')
        real = builtins.__import__

        def missing(name: str, *rest: Any) -> Any:  # Any: as the original's
            if name.partition(".")[0] == "argon2":
                raise ImportError("no argon2")
            return real(name, *rest)

        self.patch(builtins, "__import__", missing)
        self.assertEqual(self.mistakes(), ["user ann: password: argon2 requires twisted_net[auth]"])
