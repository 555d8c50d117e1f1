"""A mistake in the words of a subcommand ends the process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.cli.call import call
from twisted_net.cli.command_line import MISTAKE
from twisted_net.cli.discover import discover


class MistakeTests(SynchronousTestCase):
    """:func:`~twisted_net.cli.command_line.parse_or_exit`."""

    def test_mistakes(self) -> None:
        """A mistake ends the process with the status for mistakes, after one line."""
        for words in ([], ["host"], ["--nope", "host", "X"], ["--timeout=x", "host", "X"]):
            with self.subTest(words=words):
                self.assert_mistake("call", call, words)

    def test_mistakes_of_discover(self) -> None:
        """So does one in the words of ``discover``, or a timeout of what has no end."""
        for words in (["host"], ["--port=0"], ["--timeout=0"], ["--watch", "--timeout=5"]):
            with self.subTest(words=words):
                self.assert_mistake("discover", discover, words)

    def assert_mistake(
        self, name: str, subcommand: Callable[[Sequence[str]], object], words: list[str]
    ) -> None:
        """Check the end of a subcommand after a mistake."""
        stderr = StringIO()
        self.patch(sys, "stderr", stderr)
        error = self.assertRaises(SystemExit, subcommand, words)
        self.assertEqual(error.code, MISTAKE)
        line = rf"twisted-net {name}: .*[^.]; see twisted-net {name} --help\n"
        self.assertRegex(stderr.getvalue(), rf"\A{line}\Z")
