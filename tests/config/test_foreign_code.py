"""What foreign code raises is described in one short line that a terminal can show."""

from __future__ import annotations

import traceback

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.config.foreign_code import MAX_DESCRIPTION, describe_failure


def raised(error: BaseException) -> BaseException:
    """Raise an error, and return it with its traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


class DescribeFailureTests(SynchronousTestCase):
    """:func:`describe_failure` says what was raised, and where."""

    def test_where(self) -> None:
        """The file and the line are named."""
        error = raised(ValueError("two\nlines"))
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        self.assertEqual(
            describe_failure(error), f"ValueError: two lines ({__file__}, line {line})"
        )

    def test_unprintable(self) -> None:
        """What a terminal would obey, or cannot encode, is shown as an escape."""
        found = describe_failure(ValueError("\x1b[31m\u202e\x9b\ud800"))
        self.assertEqual(found, "ValueError: \\x1b[31m\\u202e\\x9b\\ud800")

    def test_long(self) -> None:
        """A long message is cut; where it was raised is not."""
        found = describe_failure(raised(ValueError("x" * 1_000_000)))
        self.assertIn(__file__, found)
        self.assertIn("x…", found)
        self.assertLess(len(found), MAX_DESCRIPTION + len(__file__) + 20)

    def test_groups(self) -> None:
        """Of several errors at once, the first is described."""
        group = BaseExceptionGroup("both", [raised(SystemExit(3)), ValueError("x")])
        found = describe_failure(group)
        self.assertIn("both (2 sub-exceptions)", found)
        self.assertIn("it ends the process (SystemExit: 3)", found)

    def test_source_that_is_none(self) -> None:
        """An error of syntax without a file is described without one."""
        error = self.assertRaises(SyntaxError, compile, "x\0", "", "exec")
        self.assertNotIn("None", describe_failure(error))

    def test_secret(self) -> None:
        """Where the message may repeat secrets, the type alone is shown."""
        group = ExceptionGroup("hunter2", [ValueError("hunter2")])
        for error in (ValueError("hunter2"), SystemExit("hunter2"), group):
            self.assertNotIn("hunter2", describe_failure(error, secret=True))
