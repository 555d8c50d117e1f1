"""The configured command registry: standard commands and those of the operator's modules."""

from __future__ import annotations

import importlib
import re
from difflib import get_close_matches
from typing import cast

from twisted_net.commands.registry import Commands
from twisted_net.commands.standard import Fetch, LogIn, acknowledge, standard_commands
from twisted_net.config.foreign_code import describe_failure
from twisted_net.errors import ConfigError
from twisted_net.service.config import Config


def configured_commands(config: Config, fetch: Fetch, log_in: LogIn | None = None) -> Commands:
    """
    Return one registry with the standard commands and those that ``commands`` names.

    An entry ``shop.orders:commands`` is the :class:`~twisted_net.commands.Commands` of that name
    in the module ``shop.orders``. The module is imported from ``sys.path``, which the caller
    prepares.

    :param fetch: requests a URL, for FETCH.
    :param log_in: logs a client in, for AUTH; without it there is no AUTH.
    :raises ConfigError: with a line for each entry that cannot be used.
    """
    commands = standard_commands(fetch, log_in)
    if config.tcp.fallback == "acknowledge":
        commands.fallback = acknowledge
    mistakes = []
    for entry in config.commands:
        try:
            commands.update(_registry(entry))
        except ValueError as error:
            mistakes.append(f"commands: {entry}: {error}")
    if mistakes:
        raise ConfigError(mistakes)
    return commands


def _registry(entry: str) -> Commands:
    """
    Import the registry that an entry names.

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
        registry = getattr(module, name, _MISSING)
        is_registry = isinstance(registry, Commands)
    except BaseException as error:
        raise ValueError(f"{name} cannot be read: {describe_failure(error)}") from error
    if registry is _MISSING:
        near = get_close_matches(name, vars(module), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{module_name} has no {name}{hint}")
    if not is_registry:
        raise ValueError(
            f"{name} is of type {type(registry).__name__}, not twisted_net.commands.Commands"
        )
    return cast(Commands, registry)


def _import_failure(error: BaseException) -> str:
    return f"the module cannot be imported: {describe_failure(error)}"


_MISSING = object()
