"""The ``twistd`` plugin: command line options of ``twistd net``, and the service made from them."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, cast

from twisted.application.service import IService
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.python import usage
from typing_extensions import override

from twisted_net import __version__
from twisted_net.config.loader import Loaded, settings
from twisted_net.errors import CannotStart, ConfigError
from twisted_net.net.files import PIPE_PATIENCE, read_file
from twisted_net.service.config import Config, load_config

MAX_CONFIG_SIZE = 1 << 20
"""Bytes of a configuration file; one with all settings and a hundred listeners has 40 KiB."""


class Options(usage.Options, AuthOptionMixin):
    """
    Command line options: a configuration file, and one option for each setting.

    A mistake ends the process with one line. Twisted prints the usage first, some hundred lines
    that would hide the message.
    """

    longdesc = (
        "Each setting can be set in the file, by an environment variable (for tcp.port: "
        "TWISTED_NET_TCP__PORT), and by an option; later ones override earlier ones. Separate "
        "the items of lists with commas. Modules with your own commands are also searched for "
        "in the working directory."
    )
    optParameters: ClassVar[list[list[Any]]] = [  # Any: as usage.Options wants them
        ["config", "c", None, "configuration file (TOML)"],
        *(
            [setting.option, None, None, f"{setting.description} ({setting.allowed})"]
            for setting in settings(Config())
        ),
    ]

    supportedInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        usage.Options.__init__(self)
        self._checkers: list[str] = []

    def opt_auth(self, description: str) -> None:
        """Add a twisted.cred checker to auth.checkers; --help-auth lists the checkers."""
        self._checkers.append(description)

    @override
    def parseOptions(self, options: list[str] | None = None) -> None:
        try:
            usage.Options.parseOptions(self, options)
        except usage.UsageError as error:
            raise CannotStart(f"{error}{self._suggest(str(error))}") from None

    @override
    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"unexpected argument: {arguments[0]}")

    def opt_version(self) -> None:
        """Print the version of twisted_net and exit."""
        sys.stdout.write(f"twisted_net {__version__}\n")
        raise SystemExit(0)

    def load(self, environ: Mapping[str, str]) -> Loaded[Config]:
        """
        Load the configuration from the file, the environment and these options.

        :return: the configuration, and the origin of each value.
        :raises ConfigError: with all mistakes.
        """
        mistakes = []
        file = None
        name = self["config"]
        if name is not None:
            try:
                file = (name, read_file(name, MAX_CONFIG_SIZE, PIPE_PATIENCE).decode("utf-8-sig"))
            except OSError as error:
                mistakes.append(f"{name or '--config'}: {error.strerror}")
            except UnicodeDecodeError as error:
                mistakes.append(f"{name}: byte {error.start} is not UTF-8")
        values = {
            setting.option: self[setting.option]
            for setting in settings(Config())
            if self[setting.option] is not None
        }
        if self._checkers:
            values["auth-checkers"] = json.dumps(self._checkers)
        return load_config(file, environ, values, mistakes)

    def _suggest(self, message: str) -> str:
        words = [word.removeprefix("--") for word in message.split() if word.startswith("--")]
        near = get_close_matches(words[0], self.longOpt, 1) if words else []
        hints = [name.removesuffix("=") for name in near]
        return f"; did you mean --{hints[0]}?" if hints and hints != words else ""


def makeService(options: Options) -> IService:
    """
    Return the service for twistd, twist or the console script.

    :raises CannotStart: with all mistakes of the configuration, a line each.
    """
    install_default_reactor()
    # Not at the top: to check a configuration, neither a reactor nor treq is needed.
    from twisted.internet import reactor

    from twisted_net.net.reactor import ProcessReactor
    from twisted_net.net.steady_clock import steady
    from twisted_net.service.process import ProcessService
    from twisted_net.service.signals import hold_signals

    hold_signals()
    try:
        config = options.load(os.environ).record
        add_working_directory_to_path()
        return ProcessService(steady(cast(ProcessReactor, reactor)), config)
    except ConfigError as error:
        raise CannotStart(str(error)) from None


def install_default_reactor() -> None:
    """
    Install the quiet reactor, unless one is installed already, or the system has no epoll.

    It bounds what one turn may take, which no reactor of Twisted's does. With a version
    of Twisted that it does not support, the stock epoll reactor is installed, and a warning logged.
    """
    if hasattr(select, "epoll") and "twisted.internet.reactor" not in sys.modules:
        # Imported, not searched for among the plugins, which takes time.
        from twisted_net.quiet_reactor import install

        install()


def add_working_directory_to_path() -> None:
    """
    Let commands be imported from modules in the working directory, with every launcher.

    It is the last entry of ``sys.path``, so that no file in it replaces an installed module.
    """
    directory = os.getcwd()
    if directory not in sys.path and "" not in sys.path:
        sys.path.append(directory)
