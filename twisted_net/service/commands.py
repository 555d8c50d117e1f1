"""Gathers the commands that a configuration asks for: the standard ones and the operator's own."""

from __future__ import annotations

import importlib
import re
import traceback
from difflib import get_close_matches

from twisted_net.commands.registry import Commands
from twisted_net.commands.standard import Fetch, LogIn, acknowledge, standard_commands
from twisted_net.errors import ConfigError
from twisted_net.service.config import Config


def configured_commands(config: Config, fetch: Fetch, log_in: LogIn | None = None) -> Commands:
    """
    Make one registry out of the standard commands and those that ``commands`` names.

    An entry ``shop.orders:commands`` is the :class:`~twisted_net.commands.Commands` of that name
    in the module ``shop.orders``, which is imported as any module is: where it is looked for is
    the caller's affair.

    :param fetch: gets a URL, for FETCH.
    :param log_in: logs a client in, for AUTH, which is left out where there is none.
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
    Find one registry.

    :raises ValueError: where there is none.
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", entry):
        raise ValueError("an entry is written as module:name, such as shop.orders:commands")
    module_name, _, name = entry.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"there is no module {error.name}") from error
        raise ValueError(_import_failure(error)) from error
    except Exception as error:
        # Somebody else's module: whatever it raises is a reason for its author to read.
        raise ValueError(_import_failure(error)) from error
    if not hasattr(module, name):
        near = get_close_matches(name, vars(module), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{module_name} has no {name}{hint}")
    registry = getattr(module, name)
    if not isinstance(registry, Commands):
        raise ValueError(
            f"{name} is of type {type(registry).__name__}, not twisted_net.commands.Commands"
        )
    return registry


def _import_failure(error: Exception) -> str:
    """Say in one line what an import died of, and where."""
    what = " ".join(traceback.format_exception_only(error)[-1].split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    return f"the module cannot be imported: {what}{where}"
