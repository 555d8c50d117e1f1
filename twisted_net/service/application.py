"""Applications: your commands and hooks with a start, a stop, timers and settings of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from twisted_net.commands.registry import Commands
from twisted_net.config.callbacks import check_callback
from twisted_net.config.loader import Layers
from twisted_net.config.record import Record
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import ConfigError
from twisted_net.sessions.hooks import SessionHooks

# To check a configuration, no Twisted is needed.
if TYPE_CHECKING:
    from twisted_net.service.application_runner import ApplicationContext

_F = TypeVar("_F", bound=Callable[..., object])

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@check_arguments
class Application:
    """
    Commands and hooks that belong together, with a start, a stop, timers and settings.

    A service starts it when its ports are bound, before it accepts anything, and stops it when the
    last client has gone. One object belongs to one service at a time.

    ::

        app = Application("shop")

        @app.start
        async def start(context: ApplicationContext) -> None:
            context.every(60.0, tidy_up)

    :param name: that of its settings, ``[app.shop]``: a-z, then a-z 0-9 _.
    :param settings: the class of its settings, a record with a default for each; None for none.
    :param commands: its commands, in addition to those of the service; its own if None.
    :ivar hooks: called for the clients of all ports of the service.
    :raises ValueError: for a name that is none.
    :raises TypeError: for settings that have no default for each field.
    """

    def __init__(
        self,
        name: str,
        settings: type[Record] | None = None,
        commands: Commands | None = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for an application: a-z, then a-z 0-9 _")
        self.name = name
        if settings is not None:
            settings()  # a TypeError names the field without a default
        self._settings = settings
        self.commands = Commands() if commands is None else commands
        self.hooks = SessionHooks()
        self.starts: list[Callable[[ApplicationContext], object]] = []
        self.stops: list[Callable[[], object]] = []

    def start(self, function: _F) -> _F:
        """
        Call ``function(context)`` at the start of the service, a decorator; it may be ``async``.

        Whatever it raises ends the start of the service.
        """
        check_callback("a function for start", function, "context")
        self.starts.append(function)
        return function

    def stop(self, function: _F) -> _F:
        """
        Call ``function()`` when the last client has gone, a decorator; it may be ``async``.

        It is called if the start had begun, in the order opposite to that of the registration. What
        it raises is logged; after ``drain_timeout`` it is cancelled.
        """
        check_callback("a function for stop", function)
        self.stops.append(function)
        return function

    def configured(self, table: Mapping[str, Any] | None) -> Record | None:  # Any: TOML
        """
        Return the settings.

        :param table: ``[app.NAME]``; None if the configuration has none.
        :raises ConfigError: with a line for each mistake.
        """
        within = f"app.{self.name}"
        if self._settings is None:
            if table:
                raise ConfigError([f"{within}: this application has no settings"])
            return None
        layers = Layers(self._settings(), "", within)
        layers.add_table(dict(table or {}), "the settings of the application")
        return layers.load().record
