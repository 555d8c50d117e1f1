"""The console script dispatches to subcommands."""

from __future__ import annotations

import io
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.__main__ import main
from twisted_net.cli import hashing
from twisted_net.errors import CannotStart


class MainTests(SynchronousTestCase):
    """:func:`main` runs the subcommand that the first argument names."""

    def setUp(self) -> None:
        self.printed = io.StringIO()
        self.patch(sys, "stdout", self.printed)
        self.patch(os, "environ", {})
        self.patch(sys, "path", [*sys.path])

    def test_arguments_of_the_process(self) -> None:
        """Without arguments it uses those of the process."""
        self.patch(sys, "argv", ["twisted-net", "check-config"])
        main()
        self.assertEqual(self.printed.getvalue(), "the configuration is valid\n")

    def test_help(self) -> None:
        """``--help`` lists the subcommands, and exits with status 0."""
        error = self.assertRaises(SystemExit, main, ["--help"])
        self.assertEqual(error.code, 0)
        words = self.printed.getvalue().split("[", 1)[1].split("]")[0].split(" | ")
        known = {"run", "check-config", "print-config", "hash-password", "hash-token"}
        self.assertEqual(known - set(words), set())

    def test_unknown_command(self) -> None:
        """An unknown subcommand is a mistake."""
        error = self.assertRaises(CannotStart, main, ["chek-config"])
        self.assertIn("chek-config", str(error.code))

    def test_reader_that_is_gone(self) -> None:
        """A reader of standard output that ends early, such as ``head``, causes no traceback."""
        program = "import sys; sys.stdin.read(); from twisted_net.__main__ import main; main()"
        for word in ("--help", "print-config", "check-config"):
            reading, writing = os.pipe()
            os.close(reading)
            ended = subprocess.run(
                [sys.executable, "-c", program, word],
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.PIPE,
                check=False,
            )
            os.close(writing)
            self.assertEqual((ended.returncode, ended.stderr), (141, b""))

    def test_closed_output(self) -> None:
        """It does as well without a standard output (``>&-``)."""
        for words in (["--version"], ["print-config"]):
            ended = subprocess.run(
                ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "twisted_net", *words],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
            self.assertEqual((ended.returncode, ended.stderr), (0, b""))

    def test_interrupted(self) -> None:
        """Ctrl-C before a reactor runs ends it without a traceback, with the status of shells."""

        def interrupt(words: list[str]) -> None:
            raise KeyboardInterrupt

        self.patch(hashing, "print_password_hash", interrupt)
        error = self.assertRaises(SystemExit, main, ["hash-password"])
        self.assertEqual(error.code, 130)
