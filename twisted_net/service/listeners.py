"""Listening ports as services: bound before the process gives up privileges, drained at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.commands.registry import Commands
from twisted_net.errors import CannotListen
from twisted_net.net.addresses import format_address
from twisted_net.service.config import (
    Config,
)
from twisted_net.sessions import Sessions
from twisted_net.tcp.admission import Access
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.listener import CommandPort, bound_address
from twisted_net.tcp.listener_settings import Listener
from twisted_net.tcp.server import CommandFactory


class ListenerService(Service, ABC):
    """
    One listening port.

    It is bound where privileges are still there, or at the start if a launcher has no such
    step, and in either case before the call returns: a port that is taken is an exception,
    not a line in the log.
    """

    log = Logger()
    transport: str

    def __init__(self, interface: str, port: int) -> None:
        self._interface = interface
        self._asked = port
        self._port: Any = None  # Any: IListeningPort leaves its host untyped

    @property
    def port(self) -> int | None:
        """The port that is listened on, also where the configuration says 0; None without one."""
        return None if self._port is None else getattr(self._port.getHost(), "port", None)

    @override
    def privilegedStartService(self) -> None:
        self._open()

    @override
    def startService(self) -> None:
        Service.startService(self)
        self._open()

    @override
    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._close())

    @property
    def asked(self) -> str:
        """Where it is to listen, for people."""
        return format_address(self._interface, self._asked)

    @property
    def bound(self) -> Any:  # Any: of the kind that listen gives
        """The port itself; None while it does not listen."""
        return self._port

    @property
    def host(self) -> str | None:
        """The address that is listened on; None without one."""
        return None if self._port is None else getattr(self._port.getHost(), "host", None)

    @property
    def place(self) -> str:
        """Where it listens and with which layers, for people."""
        address = self.asked if self._port is None else bound_address(self._port, self.asked)
        return f"{address} ({self.transport})"

    @abstractmethod
    def listen(self, port: int, interface: str) -> object:
        """Bind, and give the IListeningPort."""
        ...

    async def drain(self) -> None:
        """Finish what came in before the port was closed."""

    def _open(self) -> None:
        if self._port is not None:
            return
        try:
            self._port = self.listen(self._asked, self._interface)
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or str(error.socketError)
            raise CannotListen(
                self.asked, self.transport, reason[:1].lower() + reason[1:]
            ) from error
        self.log.info(
            "listening on {address} ({transport})",
            address=bound_address(self._port, self.asked),
            transport=self.transport,
        )

    async def _close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
            await self.drain()


class CommandListener(ListenerService):
    """
    A command server at one place.

    :param listener: where, and through which layers.
    :param limits: of this listener.
    :param sessions: those of all listeners.
    :param access: who may log in, and what those may do who have not.
    :ivar factory: has the sessions and what became of them.
    :ivar certificates: those of TLS, or None without it.
    :raises ConfigError: for settings that cannot be used.
    """

    def __init__(
        self,
        reactor: Any,  # Any: see NetService
        listener: Listener,
        commands: Commands,
        limits: Limits,
        sessions: Sessions,
        config: Config,
        access: Access | None = None,
    ) -> None:
        super().__init__(listener.interface, listener.port or 0)
        self._reactor = reactor
        self._drain_timeout, self._drain_rate = config.drain_timeout, config.drain_rate
        self.factory = CommandFactory(reactor, commands, limits, sessions, access)
        self._command_port = CommandPort(reactor, listener, self.factory)
        self.certificates = self._command_port.certificates
        self.transport = self._command_port.transport

    @property
    @override
    def asked(self) -> str:
        return self._command_port.address

    @override
    def listen(self, port: int, interface: str) -> object:
        return self._command_port.listen()

    @override
    async def drain(self) -> None:
        await self._command_port.drain(self._drain_timeout, self._drain_rate)
