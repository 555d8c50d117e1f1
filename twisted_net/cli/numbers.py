"""Numbers on the command line: conversions that say what is wrong, and of which option."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from twisted.python.usage import UsageError

_N = TypeVar("_N", int, float)


def seconds(option: str) -> Callable[[str], float]:
    """
    Return what converts the value of an option that is a time.

    It raises UsageError: a ValueError would be shown without the option's name.
    """
    return _converter(option, float, "a number of seconds")


def integer(option: str) -> Callable[[str], int]:
    """Return what converts the value of an option that is a whole number, as :func:`seconds`."""
    return _converter(option, int, "a whole number")


def out_of_bounds(error: ValueError, **options: str) -> UsageError:
    """
    Return what to raise for a record that refused a value: the option has its name there.

    :param error: of the record; it begins with the name of the record and of the field.
    :param options: names of options by fields, if they differ by more than hyphens.
    """

    def option(field: re.Match[str]) -> str:
        name = field[1]
        return f"--{options.get(name) or name.replace('_', '-')}"

    return UsageError(re.sub(r"\A[A-Z]\w*\.(\w+)", option, str(error)))


def _converter(option: str, kind: Callable[[str], _N], what: str) -> Callable[[str], _N]:
    def convert(text: str) -> _N:
        try:
            return kind(text)
        except ValueError:
            raise UsageError(f"--{option}: {text!r} is not {what}") from None

    return convert
