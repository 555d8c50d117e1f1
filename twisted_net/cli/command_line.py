"""Command line: parses the words of a subcommand, and prints what is wrong."""

# mypy: disallow-untyped-calls=False
# The base class of the options is untyped.

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeVar

from twisted.python.usage import Options, UsageError

from twisted_net.net.characters import printable

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
        print_error(name, f"{mistake}; see twisted-net {name} --help")
        raise SystemExit(MISTAKE) from None
    return options


def print_error(name: str, error: object) -> None:
    """
    Print what is wrong to standard error, in one line.

    :param error: an exception, or a sentence. A server may have chosen its words: what a terminal
        would obey is escaped.
    """
    sys.stderr.write(f"twisted-net {name}: {printable(str(error))}\n")
