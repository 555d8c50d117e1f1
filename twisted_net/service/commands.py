"""The configured commands: the standard ones, and those of the operator's modules."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import cast

from twisted_net.commands.registry import Commands
from twisted_net.commands.standard import Fetch, LogIn, acknowledge, standard_commands
from twisted_net.config.callbacks import check_callback
from twisted_net.config.foreign_code import describe_failure
from twisted_net.errors import ConfigError
from twisted_net.service.application import Application
from twisted_net.service.config import Config
from twisted_net.udp.responder import DatagramHandler


def configured_commands(config: Config, fetch: Fetch, log_in: LogIn | None = None) -> Commands:
    """
    Return one registry with the standard commands and those that ``commands`` names.

    An entry ``shop.orders:commands`` is the :class:`~twisted_net.commands.Commands` or the
    :class:`~twisted_net.service.Application` of that name in the module ``shop.orders``. The module
    is imported from ``sys.path``, which the caller prepares.

    :param fetch: requests a URL, for FETCH.
    :param log_in: logs a client in, for AUTH; without it there is no AUTH.
    :raises ConfigError: with a line for each entry that cannot be used, and for each mistake in the
        settings of an application.
    """
    return configured_applications(config, (), fetch, log_in)[0]


def configured_applications(
    config: Config, embedded: Sequence[Application], fetch: Fetch, log_in: LogIn | None = None
) -> tuple[Commands, list[Application]]:
    """
    Return the commands as :func:`configured_commands` does, and the applications.

    :param embedded: more applications, which come last.
    :raises ConfigError: as :func:`configured_commands` does.
    """
    commands = standard_commands(fetch, log_in)
    if config.tcp.fallback == "acknowledge":
        commands.fallback = acknowledge
    mistakes: list[str] = []
    applications: list[Application] = []
    for entry in config.commands:
        try:
            found = _named(entry)
            commands.update(found.commands if isinstance(found, Application) else found)
        except ValueError as error:
            mistakes.append(f"commands: {entry}: {error}")
            continue
        if isinstance(found, Application):
            applications.append(found)
    for application in embedded:
        try:
            commands.update(application.commands)
        except ValueError as error:
            mistakes.append(f"application {application.name}: {error}")
        applications.append(application)
    mistakes += _mistakes(config, applications)
    if mistakes:
        raise ConfigError(mistakes)
    return commands, applications


def _mistakes(config: Config, applications: Sequence[Application]) -> list[str]:
    """Return a line for each mistake in the settings of applications."""
    names = [application.name for application in applications]
    mistakes = [
        f"there are {names.count(name)} applications of the name {name}"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    for name in config.app:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"; did you mean app.{near[0]}?" if near else ""
            mistakes.append(f"app.{name}: commands names no application {name}{hint}")
    for application in applications:
        try:
            application.configured(config.app.get(application.name))
        except ConfigError as error:
            mistakes += error.mistakes
    return mistakes


def configured_handler(config: Config) -> DatagramHandler | None:
    """
    Return the function that ``udp.handler`` names; None if it names none.

    :raises ConfigError: if there is none, or it cannot be called with a datagram and its source.
    """
    entry = config.udp.handler
    if not entry:
        return None
    try:
        handler = _imported(entry)
        check_callback(entry, cast("DatagramHandler", handler), "data", "source", plain=True)
    except (ValueError, TypeError) as error:
        raise ConfigError([f"udp.handler: {entry}: {error}"]) from error
    return cast("DatagramHandler", handler)


def _named(entry: str) -> Commands | Application:
    """
    Import the registry or the application that an entry names.

    :raises ValueError: if there is none; the message says why.
    """
    found = _imported(entry)
    name = entry.partition(":")[2]
    try:
        known = isinstance(found, Commands | Application)
    except BaseException as error:
        raise ValueError(f"{name} cannot be read: {describe_failure(error)}") from error
    if not known:
        raise ValueError(
            f"{name} is of type {type(found).__name__}, "
            "neither twisted_net.commands.Commands nor twisted_net.service.Application"
        )
    return cast("Commands | Application", found)


def _imported(entry: str) -> object:
    """
    Import what an entry names.

    :raises ValueError: if there is none; the message says why.
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", entry):
        raise ValueError("write an entry as module:name, such as shop.orders:commands")
    module_name, _, name = entry.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"there is no module {error.name}") from error
        raise ValueError(_import_failure(error)) from error
    # The module is not ours and may raise anything; its author needs the reason.
    except BaseException as error:
        raise ValueError(_import_failure(error)) from error
    try:
        found: object = getattr(module, name, _MISSING)
    except BaseException as error:
        raise ValueError(f"{name} cannot be read: {describe_failure(error)}") from error
    if found is _MISSING:
        near = get_close_matches(name, vars(module), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{module_name} has no {name}{hint}")
    return found


def _import_failure(error: BaseException) -> str:
    return f"the module cannot be imported: {describe_failure(error)}"


_MISSING = object()
