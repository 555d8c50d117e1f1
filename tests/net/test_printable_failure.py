"""Failures in the log: what peers sent steers no terminal."""

from __future__ import annotations

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.printable_failure import EscapedMessage, printable_failure


def failed(error: BaseException) -> Failure:
    """Return the failure of a function that raises."""
    try:
        raise error
    except BaseException:
        return Failure()


class PrintableFailureTests(SynchronousTestCase):
    """:func:`printable_failure`."""

    def test_harmless(self) -> None:
        """A failure whose message is text, in lines or not, stays the same."""
        for message in ("", "no", "é 𝄞", "two\nlines\tand a tab"):
            failure = failed(ValueError(message))
            self.assertIs(printable_failure(failure), failure)

    def test_escaped(self) -> None:
        """Of any other the message is escaped, and the kind and the traceback are kept."""
        for message, shown in (
            ("\x1b[2J", r"\x1b[2J"),
            ("a\n\u202eb\u2028\x85\r", "a\n" + r"\u202eb\u2028\x85\r"),
            ("\udcff\x9b", r"\udcff\x9b"),
        ):
            failure = printable_failure(failed(ValueError(message)))
            self.assertIs(failure.type, EscapedMessage)
            self.assertEqual(failure.getErrorMessage(), f"ValueError: {shown}")
            self.assertIn("in failed", failure.getTraceback())
            self.assertTrue(failure.getTraceback().replace("\n", "").isprintable())

    def test_without_a_message(self) -> None:
        """An exception that cannot say what it is does not fail again."""

        class Silent(Exception):
            def __str__(self) -> str:
                raise ValueError

        self.assertIs(printable_failure(failed(Silent())).type, EscapedMessage)
