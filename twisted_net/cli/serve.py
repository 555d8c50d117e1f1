"""``twisted-net run``, ``check-config`` and ``print-config``: run the service, check settings."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from twisted.internet.task import Clock

from twisted_net.cli.subcommands import SUBCOMMANDS
from twisted_net.config.foreign_code import describe_failure
from twisted_net.config.loader import Loaded, to_toml
from twisted_net.errors import CannotStart, ConfigError
from twisted_net.service.commands import configured_commands, configured_handler
from twisted_net.service.config import Config
from twisted_net.service.login import configured_authenticator
from twisted_net.service.signals import hold_signals
from twisted_net.tap import (
    Options,
    add_working_directory_to_path,
    install_default_reactor,
    makeService,
)
from twisted_net.tcp.listener import load_websocket


class ScriptOptions(Options):
    """The options of the service, and those of the process, which ``twistd`` has itself."""

    synopsis = f"Usage: twisted-net [{' | '.join(SUBCOMMANDS)}] [options]"
    optParameters: ClassVar[list[list[Any]]] = [  # Any: as usage.Options wants them
        [
            *("reactor", "r", "default"),
            "reactor, such as quiet, epoll or asyncio; default: quiet if epoll is available, else "
            "the default of Twisted (run)",
        ],
        [
            "log-level",
            None,
            "info",
            "lowest level logged: debug, info, warn, error or critical (run)",
        ],
    ]


def parse_options(arguments: Sequence[str]) -> ScriptOptions:
    """
    Parse the options after the subcommand.

    :raises CannotStart: for an unknown option or argument.
    """
    options = ScriptOptions()
    options.parseOptions(list(arguments))
    return options


def check_config(arguments: Sequence[str]) -> None:
    """
    Check the configuration without starting: settings, commands, users, certificates.

    :raises CannotStart: with all mistakes.
    """
    options = parse_options(arguments)
    try:
        _check(options, options.load(os.environ))
    except ConfigError as error:
        raise CannotStart(str(error)) from None


def print_config(arguments: Sequence[str]) -> None:
    """
    Print the configuration that would be used, as TOML, with the origin of each value.

    :raises CannotStart: with all mistakes.
    """
    try:
        loaded = parse_options(arguments).load(os.environ)
    except ConfigError as error:
        raise CannotStart(str(error)) from None
    sys.stdout.write(to_toml(loaded.record, loaded.origins))


def _check(options: ScriptOptions, loaded: Loaded[Config]) -> None:
    add_working_directory_to_path()
    configured_commands(loaded.record, _no_fetch)
    configured_handler(loaded.record)
    # Any clock: there are no logins.
    configured_authenticator(Clock(), loaded.record.auth)
    _check_certificates(loaded.record)
    _check_websockets(loaded.record)
    sys.stdout.write(f"{options['config'] or 'the configuration'} is valid\n")


def _check_certificates(config: Config) -> None:
    # Not at the top: OpenSSL takes 0.1 s to import.
    from twisted_net.dtls.server import DtlsServer
    from twisted_net.net.certificates import check_certificates
    from twisted_net.net.tls_policy import check_tls_files

    sections = {f"listeners[{i}]": one.tls for i, one in enumerate(config.further_listeners)}
    more = {"udp.dtls": config.udp.dtls, "coap.dtls": config.coap.dtls}
    mistakes: list[str] = []
    for name, dtls in more.items():
        try:
            DtlsServer.make_psk(dtls)
        except ConfigError as error:
            mistakes += [f"{name}: {line}" for line in error.mistakes]
    for check in (
        partial(check_certificates, {**sections, **more}, time.time),
        partial(check_tls_files, config.http.tls, "http"),
    ):
        try:
            check()
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)


def _check_websockets(config: Config) -> None:
    if any(one.protocol == "websocket" for one in config.further_listeners):
        load_websocket()


async def _no_fetch(url: str) -> Mapping[str, object]:
    """Stand-in for the HTTP client: commands are declared here, and never run."""
    raise NotImplementedError


def run(arguments: Sequence[str]) -> None:
    """
    Run the service until a signal stops it.

    :raises CannotStart: if it cannot start.
    """
    hold_signals()
    options = parse_options(arguments)
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
        raise CannotStart(f"--log-level: {options['log-level']} is not one of {known}") from None
    reactor = _install_reactor(options["reactor"])
    service = makeService(options)
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    # Only now: if the start fails, its message is printed once. Earlier events are buffered.
    observer = FilteringLogObserver(
        textFileLogObserver(sys.stdout), [LogLevelFilterPredicate(defaultLogLevel=level)]
    )
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    reactor.run()


def _install_reactor(name: str) -> Any:  # Any: its class is unknown
    from twisted.application.reactors import NoSuchReactor, getReactorTypes, installReactor

    try:
        if name != "default":
            installReactor(name)
        else:
            install_default_reactor()
    except NoSuchReactor:
        known = ", ".join(sorted({kind.shortName for kind in getReactorTypes()} - {"default"}))
        raise CannotStart(f"--reactor: {name} is not one of default, {known}") from None
    except ImportError as error:
        raise CannotStart(f"--reactor: {name} cannot be used: {error}") from None
    # A reactor, or its library, may raise anything.
    except BaseException as error:
        reason = describe_failure(error)
        raise CannotStart(f"--reactor: {name} cannot be used: {reason}") from error
    from twisted.internet import reactor

    return reactor
