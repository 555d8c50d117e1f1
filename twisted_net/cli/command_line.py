"""Command line: the words of a subcommand are parsed, or the process ends with what is wrong."""

# mypy: disallow-untyped-calls=False
# The base class of the options is untyped.

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeVar

from twisted.python.usage import Options, UsageError

_O = TypeVar("_O", bound=Options)

MISTAKE = 2
"""Exit status for a mistake in the words; standard error has it."""


def parse_or_exit(options: _O, name: str, arguments: Sequence[str]) -> _O:
    """
    Parse the arguments of a subcommand.

    :return: *options*.
    :raises SystemExit: with :data:`MISTAKE` for mistakes, which are printed to standard error.
    """
    try:
        options.parseOptions(list(arguments))
    except UsageError as error:
        mistake = str(error).rstrip(".")  # Some of Twisted's sentences end with a full stop.
        sys.stderr.write(f"twisted-net {name}: {mistake}; see twisted-net {name} --help\n")
        raise SystemExit(MISTAKE) from None
    return options
