"""Callbacks that cannot be called as they will be are refused when they are passed."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.config.callbacks import check_callback


def both(first: object, second: object, third: object = None) -> None:
    """Take two arguments or three."""


async def later(first: object, second: object) -> None:
    """Take two arguments, and be awaited."""


class Waits:
    """Is awaited when it is called."""

    async def __call__(self, first: object, second: object) -> None:
        """Take two arguments."""


class CheckCallbackTests(SynchronousTestCase):
    """:func:`check_callback` asks what a callback takes."""

    def test_right(self) -> None:
        """Functions, methods, classes, builtins and partial calls may be callbacks."""
        for callback in (both, print, max, partial(both, third=1), lambda *all_: None, type):
            with self.subTest(callback=callback):
                check_callback("x", callback, "first", "second", plain=True)
        check_callback("x", later, "first", "second")

    def test_wrong(self) -> None:
        """The error says what the callback is called with."""

        def rows(first: object, second: object) -> Any:  # Any: an iterator
            yield first

        one: Any = lambda first: None  # noqa: E731  # it is called wrongly
        error = self.assertRaises(TypeError, check_callback, "the x", one, "data", "source")
        self.assertIn("the x is called with (data, source): ", str(error))
        wrong: list[Any] = [5, None, b"x", rows, lambda: None, lambda a, b, c: None, partial(one)]
        for callback in (*wrong, later, Waits()):
            with self.subTest(callback=callback):
                self.assertRaises(
                    TypeError, check_callback, "x", callback, "first", "second", plain=True
                )
