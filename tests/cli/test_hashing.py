"""``twisted-net hash-password`` and ``hash-token``."""

from __future__ import annotations

import io
import os
import sys

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.__main__ import main
from twisted_net.auth.passwords import verify
from twisted_net.auth.users import hash_token
from twisted_net.cli import hashing
from twisted_net.errors import CannotStart


class HashingTests(SynchronousTestCase):
    """Hashes of passwords and tokens, from a terminal and from a pipe."""

    def setUp(self) -> None:
        self.printed = io.StringIO()
        self.patch(sys, "stdout", self.printed)
        self.patch(os, "environ", {})
        self.patch(sys, "path", [*sys.path])

    def pipe(self, text: str, tty: bool = False) -> None:
        """Make standard input a pipe with this text, or a terminal."""
        stream = io.StringIO(text)
        stream.isatty = lambda: tty  # type: ignore[method-assign]  # as a terminal's
        self.patch(sys, "stdin", stream)

    def test_hash_password(self) -> None:
        """A password from a pipe or a terminal is hashed, with a new salt each time."""
        self.pipe("sesame\nmore\n")
        main(["hash-password"])
        self.pipe("", tty=True)
        self.patch(hashing, "getpass", lambda prompt: "sesame")
        main(["hash-password"])
        first, second = self.printed.getvalue().splitlines()
        self.assertNotEqual(first, second)
        self.assertTrue(verify(first, "sesame"))
        self.assertTrue(verify(second, "sesame"))

    def test_hash_password_argon2(self) -> None:
        """``--argon2`` selects argon2id, if it is installed."""
        self.pipe("sesame\n")
        main(["hash-password", "--argon2"])
        self.assertTrue(self.printed.getvalue().startswith("$argon2id$"))

        def missing(*arguments: object) -> str:
            raise ImportError("no argon2")

        self.patch(hashing, "hash_password", missing)
        error = self.assertRaises(CannotStart, main, ["hash-password", "--argon2"])
        self.assertEqual(error.code, 'argon2 requires an extra: pip install "twisted_net[auth]"')

    def test_hash_password_refused(self) -> None:
        """Two different passwords, an empty one, and one among the arguments are refused."""
        self.pipe("", tty=True)
        answers = iter(["one", "two"])
        self.patch(hashing, "getpass", lambda prompt: next(answers))
        error = self.assertRaises(CannotStart, main, ["hash-password"])
        self.assertEqual(error.code, "the two passwords differ")
        self.pipe("\n")
        self.assertRaises(CannotStart, main, ["hash-password"])
        error = self.assertRaises(CannotStart, main, ["hash-password", "sesame"])
        self.assertNotIn("sesame", str(error.code))

    def test_hash_token(self) -> None:
        """A new token is printed with its hash; a token from a pipe is hashed."""
        self.pipe("", tty=True)
        main(["hash-token"])
        token, digest = (line.split()[1] for line in self.printed.getvalue().splitlines())
        self.assertTrue(len(token) >= 43)
        self.assertEqual(digest, hash_token(token))
        self.printed.truncate(0)
        self.printed.seek(0)
        self.pipe("letmein\n")
        main(["hash-token"])
        self.assertEqual(self.printed.getvalue(), hash_token("letmein") + "\n")
        self.assertRaises(CannotStart, main, ["hash-token"])
        self.assertRaises(CannotStart, main, ["hash-token", "letmein"])
