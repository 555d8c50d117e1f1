"""The table of the complexity of each door says what was measured, and what can be asked for."""

from __future__ import annotations

import contextlib
import io

from twisted.trial.unittest import SynchronousTestCase

from tests.complexity.__main__ import main, shown
from tests.complexity.doors import DOORS, Input


class ShownTests(SynchronousTestCase):
    """:func:`shown` names an input."""

    def test_cut(self) -> None:
        """What is cut at either end is marked, so that no name looks like another command."""
        self.assertEqual(shown(Input(b"ECHO ", b"x")), "ECHO x")
        self.assertEqual(shown(Input(b"FETCH http://h/", b"a")), "…ETCH http://h/a")
        self.assertEqual(shown(Input(b"\0" * 14, b"x")), r"\x00" * 8 + "…")


class MainTests(SynchronousTestCase):
    """The command line says which doors there are."""

    def call(self, *words: str) -> tuple[int | str | None, str]:
        """Return the status and what was printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                main(words)
            except SystemExit as end:
                return end.code, " ".join(printed.getvalue().split())
        raise AssertionError("it ends with a status")

    def test_help(self) -> None:
        """It explains the columns, and has each door in quotes, as a shell needs it."""
        status, text = self.call("--help")
        self.assertEqual(status, 0)
        self.assertIn("calls of functions that 1,000 and 4,000 bytes take", text)
        for name in DOORS:
            self.assertIn(f'"{name}"', text)

    def test_mistake(self) -> None:
        """A door that there is not is told before anything is measured."""
        status, text = self.call("JSON", "a lin")
        self.assertEqual(status, 2)
        self.assertIn("""there is no door 'a lin'; there are "a first line", """, text)

    def test_one(self) -> None:
        """Only the doors that were asked for are measured."""
        status, text = self.call("JSON")
        self.assertEqual(status, 0)
        self.assertIn("fits a turn JSON 0 ", text)
        self.assertNotIn(" a line ", text)
