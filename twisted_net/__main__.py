"""The console script ``twisted-net``: chooses the subcommand that its first word names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from twisted_net.cli.subcommands import SUBCOMMANDS


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the subcommand that the command line names; ``run`` if it names none.

    :param arguments: without the name of the script; those of the process if None.
    :raises SystemExit: with 0, 1 or 2, or with the mistakes, which Python prints for status 1.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words.pop(0) if words and words[0] in SUBCOMMANDS else "run"
    # Only the module that is asked for: clients start without what only the service needs.
    module, _, function = SUBCOMMANDS[name].partition(":")
    getattr(import_module(f"twisted_net.cli.{module}"), function)(words)


if __name__ == "__main__":
    main()
