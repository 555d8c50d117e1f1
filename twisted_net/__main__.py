"""The console script ``twisted-net``: runs the service, checks and prints its configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from twisted_net.config import Config
from twisted_net.errors import CannotStart, ConfigError
from twisted_net.layers import Loaded, to_toml
from twisted_net.registries import configured_commands
from twisted_net.tap import Options, look_for_modules_here, makeService

COMMANDS = ("run", "check-config", "print-config")


class ScriptOptions(Options):
    """The options of the service, and those that twistd has for a process."""

    synopsis = f"Usage: twisted-net [{' | '.join(COMMANDS)}] [options]"
    optParameters: ClassVar[list[list[Any]]] = [  # Any: as usage.Options wants them
        ["reactor", "r", "default", "reactor to run on, such as epoll or asyncio (run)"],
        ["log-level", None, "info", "debug, info, warn, error or critical (run)"],
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Do what the command line says.

    :param arguments: without the name of the script; those of the process if None.
    :raises SystemExit: with 0 or 1, or with the mistakes, which Python prints for status 1.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words.pop(0) if words and words[0] in COMMANDS else "run"
    options = ScriptOptions()
    options.parseOptions(words)
    if command == "run":
        _run(options)
        return
    try:
        loaded = options.load(os.environ)
        if command == "check-config":
            _check(options, loaded)
        else:
            sys.stdout.write(to_toml(loaded.record, loaded.origins))
    except ConfigError as error:
        raise CannotStart(str(error)) from None


def _check(options: ScriptOptions, loaded: Loaded[Config]) -> None:
    look_for_modules_here()
    configured_commands(loaded.record, _no_fetch)
    sys.stdout.write(f"{options['config'] or 'the configuration'} is fine\n")


async def _no_fetch(url: str) -> Mapping[str, object]:
    """Stand for the HTTP client where commands are declared and none is run."""
    raise NotImplementedError


def _run(options: ScriptOptions) -> None:
    from twisted.logger import (
        FilteringLogObserver,
        InvalidLogLevelError,
        LogLevel,
        LogLevelFilterPredicate,
        globalLogBeginner,
        textFileLogObserver,
    )

    try:
        level = LogLevel.levelWithName(options["log-level"])
    except InvalidLogLevelError:
        known = ", ".join(level.name for level in LogLevel.iterconstants())
        raise CannotStart(f"--log-level: {options['log-level']} is none of {known}") from None
    reactor = _install_reactor(options["reactor"])
    service = makeService(options)
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    # What was logged so far has been kept and comes now: a start that fails says it once.
    observer = FilteringLogObserver(
        textFileLogObserver(sys.stdout), [LogLevelFilterPredicate(defaultLogLevel=level)]
    )
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    reactor.run()


def _install_reactor(name: str) -> Any:  # Any: it has many interfaces and no type
    from twisted.application.reactors import NoSuchReactor, getReactorTypes, installReactor

    try:
        if name != "default":
            installReactor(name)
    except NoSuchReactor:
        known = ", ".join(sorted(kind.shortName for kind in getReactorTypes()))
        raise CannotStart(f"--reactor: {name} is none of default, {known}") from None
    except ImportError as error:
        raise CannotStart(f"--reactor: {name} cannot be used: {error}") from None
    from twisted.internet import reactor

    return reactor


if __name__ == "__main__":
    main()
