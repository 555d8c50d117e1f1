"""A test case whose users are in a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.errors import ConfigError
from twisted_net.service.users_file import UsersFile


class UsersFileTestCase(SynchronousTestCase):
    """A test case with a directory and a log observer."""

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = Path(holder.name) / "users.toml"
        self.logged = EventLoggingObserver()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)

    def write(self, text: str) -> None:
        """Write the users file, all lines with an end, and with a new modification time."""
        self.write_cut(text if text.endswith("\n") else f"{text}\n")

    def write_cut(self, text: str) -> None:
        """Write the users file, as it is left if its writer is cut off."""
        self.path.write_text(text)
        self.path.chmod(0o600)
        os.utime(self.path, ns=(0, len(text)))

    def mistakes(self) -> list[str]:
        """Return the mistakes in the file, without its path."""
        error: ConfigError = self.assertRaises(ConfigError, UsersFile, str(self.path))
        return [line.removeprefix(f"{self.path}: ") for line in error.mistakes]
