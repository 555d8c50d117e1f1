"""The console script ``twisted-net``: runs the service, checks and prints its configuration."""

from __future__ import annotations

import os
import secrets
import select
import sys
import time
from collections.abc import Mapping, Sequence
from getpass import getpass
from typing import Any, ClassVar, Literal

from twisted.internet.task import Clock

from twisted_net.auth.passwords import hash_password
from twisted_net.auth.users import hash_token
from twisted_net.config.loader import Loaded, to_toml
from twisted_net.errors import CannotStart, ConfigError
from twisted_net.service.commands import configured_commands
from twisted_net.service.config import Config
from twisted_net.service.login import configured_logins
from twisted_net.tap import Options, look_for_modules_here, makeService

COMMANDS = ("run", "check-config", "print-config", "hash-password", "hash-token")


def _call(arguments: Sequence[str]) -> None:
    from twisted_net.calling import call

    call(arguments)


def _console(arguments: Sequence[str]) -> None:
    from twisted_net.console import console

    console(arguments)


def _coap(arguments: Sequence[str]) -> None:
    from twisted_net.coap_calling import coap

    coap(arguments)


def _discover(arguments: Sequence[str]) -> None:
    from twisted_net.discovering import discover

    discover(arguments)


CLIENT_COMMANDS = {"call": _call, "console": _console, "coap": _coap, "discover": _discover}
"""What is done with a server that runs; each has options of its own."""


class ScriptOptions(Options):
    """The options of the service, and those that twistd has for a process."""

    synopsis = f"Usage: twisted-net [{' | '.join([*COMMANDS, *CLIENT_COMMANDS])}] [options]"
    optParameters: ClassVar[list[list[Any]]] = [  # Any: as usage.Options wants them
        [
            *("reactor", "r", "default"),
            "reactor to run on, such as epoll or asyncio; by default quiet where there is epoll, "
            "and what Twisted chooses elsewhere (run)",
        ],
        ["log-level", None, "info", "debug, info, warn, error or critical (run)"],
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Do what the command line says: serve, or one of :data:`COMMANDS`.

    :param arguments: without the name of the script; those of the process if None.
    :raises SystemExit: with 0, 1 or 2, or with the mistakes, which Python prints for status 1.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in CLIENT_COMMANDS:
        CLIENT_COMMANDS[words[0]](words[1:])
        return
    command = words.pop(0) if words and words[0] in COMMANDS else "run"
    if command == "hash-password":
        _hash_password(words)
        return
    if command == "hash-token":
        _hash_token(words)
        return
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
    # A clock will do: nobody logs in here.
    configured_logins(Clock(), loaded.record.auth)
    _check_certificates(loaded.record)
    sys.stdout.write(f"{options['config'] or 'the configuration'} is fine\n")


def _check_certificates(config: Config) -> None:
    # Not at the top: OpenSSL takes a tenth of a second to import.
    from twisted_net.net.certificates import check_certificates

    sections = {f"listeners[{i}]": one.tls for i, one in enumerate(config.further_listeners)}
    more = {"udp.dtls": config.udp.dtls, "coap.dtls": config.coap.dtls}
    check_certificates({**sections, **more}, time.time)


async def _no_fetch(url: str) -> Mapping[str, object]:
    """Stand for the HTTP client where commands are declared and none is run."""
    raise NotImplementedError


def _hash_password(words: list[str]) -> None:
    """Print the hash of a password, which is asked for twice, or is the first line of a pipe."""
    if words not in ([], ["--argon2"]):
        raise CannotStart("hash-password takes no words but --argon2; the password is asked for")
    if sys.stdin.isatty():
        password = getpass("Password: ")
        if getpass("Again: ") != password:
            raise CannotStart("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    try:
        kind: Literal["argon2", "scrypt"] = "argon2" if words else "scrypt"
        sys.stdout.write(hash_password(password, secrets.token_bytes(16), kind) + "\n")
    except ValueError as error:
        raise CannotStart(str(error)) from None
    except ImportError:
        raise CannotStart("argon2 needs twisted_net[auth]") from None


def _hash_token(words: list[str]) -> None:
    """Make a token and print it with its hash, or print the hash of the first line of a pipe."""
    if words:
        raise CannotStart("hash-token takes no words; it makes a token, or reads one from a pipe")
    if sys.stdin.isatty():
        token = secrets.token_urlsafe(32)
        sys.stdout.write(f"token   {token}\nSHA-256 {hash_token(token)}\n")
        return
    token = sys.stdin.readline().rstrip("\n")
    if not token:
        raise CannotStart("there is no token on the standard input")
    sys.stdout.write(hash_token(token) + "\n")


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
        elif hasattr(select, "epoll") and "twisted.internet.reactor" not in sys.modules:
            # Known to be there, so not looked for among the plugins. With a Twisted that it does
            # not know it installs the stock epoll reactor, and says so.
            from twisted_net.reactor import install

            install()
    except NoSuchReactor:
        known = ", ".join(sorted(kind.shortName for kind in getReactorTypes()))
        raise CannotStart(f"--reactor: {name} is none of default, {known}") from None
    except ImportError as error:
        raise CannotStart(f"--reactor: {name} cannot be used: {error}") from None
    from twisted.internet import reactor

    return reactor


if __name__ == "__main__":
    main()
