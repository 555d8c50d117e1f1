"""The console script ``twisted-net``: dispatches to the subcommand named by its first word."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from twisted_net.cli.subcommands import SUBCOMMANDS


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run a subcommand; by default ``run``.

    :param arguments: the command line without the name of the program; None: that of the process.
    :raises SystemExit: with the exit status, or with a message, which Python prints, and status 1.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words.pop(0) if words and words[0] in SUBCOMMANDS else "run"
    # Import one module only: clients start faster without the modules of the service.
    module, _, function = SUBCOMMANDS[name].partition(":")
    try:
        getattr(import_module(f"twisted_net.cli.{module}"), function)(words)
    except KeyboardInterrupt:
        # Before the reactor runs: the convention of shells, 128 plus the number of SIGINT.
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
