"""The console script ``twisted-net``: dispatches to the subcommand named by its first word."""

from __future__ import annotations

import os
import signal
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
    if sys.stdout is None:
        # Closed by who started us: it is as if nobody read it.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # until the end
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words.pop(0) if words and words[0] in SUBCOMMANDS else "run"
    # Import one module only: clients start faster without the modules of the service.
    module, _, function = SUBCOMMANDS[name].partition(":")
    try:
        try:
            getattr(import_module(f"twisted_net.cli.{module}"), function)(words)
        finally:
            # Here, as a failure of the interpreter's own flush is a traceback.
            sys.stdout.flush()
    except KeyboardInterrupt:
        # Before the reactor runs: the convention of shells, 128 plus the number of SIGINT.
        raise SystemExit(130) from None
    except BrokenPipeError:
        # Who read standard output, such as head, is gone; what is buffered needs another place.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(128 + signal.SIGPIPE) from None


if __name__ == "__main__":
    main()
