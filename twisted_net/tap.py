"""The options of ``twistd net``, and the service that they make."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.python import usage
from typing_extensions import override

from twisted_net import __version__
from twisted_net.config.loader import Loaded, settings
from twisted_net.errors import CannotStart, ConfigError
from twisted_net.service.config import Config, load_config


class Options(usage.Options, AuthOptionMixin):
    """
    A file, and an option for every setting that the file may hold.

    A mistake ends the process with one line: a page of usage in front of it would hide it.
    """

    longdesc = (
        "Each setting may stand in the file, in the environment (tcp.port is "
        "TWISTED_NET_TCP__PORT there) and among the options; the later of these wins. Lists are "
        "written with commas. Modules with own commands are also looked for in the directory "
        "where this is started."
    )
    optParameters: ClassVar[list[list[Any]]] = [  # Any: as usage.Options wants them
        ["config", "c", None, "TOML file with the settings"],
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
        """Add a checker of twisted.cred to auth.checkers; --help-auth lists them."""
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
            raise usage.UsageError(f"{arguments[0]} is not an option, nor anything else known here")

    def opt_version(self) -> None:
        """Print the version of twisted_net and exit."""
        sys.stdout.write(f"twisted_net {__version__}\n")
        raise SystemExit(0)

    def load(self, environ: Mapping[str, str]) -> Loaded[Config]:
        """
        Make the configuration out of the file, the environment and these options.

        :raises ConfigError: with all mistakes.
        """
        mistakes = []
        file = None
        name = self["config"]
        if name is not None:
            try:
                with open(name, encoding="utf-8") as opened:
                    file = (name, opened.read())
            except OSError as error:
                mistakes.append(f"{name}: {error.strerror}")
            except UnicodeDecodeError as error:
                mistakes.append(f"{name}: byte {error.start} is not UTF-8")
        given = {
            setting.option: self[setting.option]
            for setting in settings(Config())
            if self[setting.option] is not None
        }
        if self._checkers:
            given["auth-checkers"] = json.dumps(self._checkers)
        return load_config(file, environ, given, mistakes)

    def _suggest(self, message: str) -> str:
        words = [word.removeprefix("--") for word in message.split() if word.startswith("--")]
        near = get_close_matches(words[0], self.longOpt, 1) if words else []
        hints = [name.removesuffix("=") for name in near]
        return f"; did you mean --{hints[0]}?" if hints and hints != words else ""


def makeService(options: Options) -> IService:
    """
    Make the service for twistd, twist or the console script.

    :raises CannotStart: with all mistakes of the configuration, a line each.
    """
    # Not at the top: whoever only checks a configuration needs neither a reactor nor treq.
    from twisted.internet import reactor

    from twisted_net.service.process import ProcessService

    try:
        config = options.load(os.environ).record
        look_for_modules_here()
        return ProcessService(reactor, config)
    except ConfigError as error:
        raise CannotStart(str(error)) from None


def look_for_modules_here() -> None:
    """
    Let modules of own commands lie in the working directory, under every launcher alike.

    It comes last on the path: a file there must not take the place of an installed module.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
