"""Listening ports as Twisted services: bound before privileges are dropped, drained at stop."""

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
from twisted_net.net.reactor import ServiceReactor
from twisted_net.service.config import Config
from twisted_net.sessions.registry import Sessions
from twisted_net.tcp.admission import Access
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.listener import CommandPort, bound_address
from twisted_net.tcp.listener_settings import Listener
from twisted_net.tcp.server import CommandFactory


class ListenerService(Service, ABC):
    """
    One listening port.

    It is bound in ``privilegedStartService``, or in ``startService`` by a launcher that does not
    call the former. Both raise :class:`~twisted_net.errors.CannotListen` if the address is in use;
    Twisted's own services only log that.
    """

    log = Logger()
    transport: str

    def __init__(self, interface: str, port: int) -> None:
        self._interface = interface
        self._configured_port = port
        self._port: Any = None  # Any: an IListeningPort, or the sockets of several groups

    @property
    def port(self) -> int | None:
        """The bound port number, also if 0 is configured; None if not bound or without a number."""
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
    def configured_address(self) -> str:
        """The address that the configuration names, for messages."""
        return format_address(self._interface, self._configured_port)

    @property
    def listening_port(self) -> Any:  # Any: as above
        """What :meth:`listen` returned; None while it does not listen."""
        return self._port

    @property
    def host(self) -> str | None:
        """The bound IP address; None if not bound or without one."""
        return None if self._port is None else getattr(self._port.getHost(), "host", None)

    @property
    def description(self) -> str:
        """The bound address, or else the configured one, and the transport, for messages."""
        address = self.configured_address
        if self._port is not None:
            address = bound_address(self._port, address)
        return f"{address} ({self.transport})"

    @abstractmethod
    def listen(self, port: int, interface: str) -> object:
        """
        Bind the socket.

        :return: an object with ``getHost`` and ``stopListening``, as of an IListeningPort.
        :raises CannotListenError: if the address cannot be bound.
        """
        ...

    def hold(self) -> None:
        """Accept and read nothing for now; what comes waits in the kernel, within its bounds."""
        for port in self._reading:
            port.stopReading()

    def release(self) -> None:
        """Accept and read from now on, after :meth:`hold`."""
        for port in self._reading:
            port.startReading()

    @property
    def _reading(self) -> list[Any]:  # Any: as above
        """What reads, or accepts."""
        if self._port is None:
            return []
        ports = getattr(self._port, "ports", [self._port])
        # The port of a plugin's endpoint may have no such methods.
        return [port for port in ports if hasattr(port, "stopReading")]

    async def drain(self) -> None:
        """Finish what was received before the port was closed."""

    def _open(self) -> None:
        if self._port is not None:
            return
        try:
            self._port = self.listen(self._configured_port, self._interface)
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or str(error.socketError)
            if not reason[1:2].isupper():  # as in AF_UNIX
                reason = reason[:1].lower() + reason[1:]
            raise CannotListen(self.configured_address, self.transport, reason) from error
        self.log.info(
            "listening on {address} ({transport})",
            address=bound_address(self._port, self.configured_address),
            transport=self.transport,
        )

    async def _close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
            await self.drain()


class CommandListener(ListenerService):
    """
    One listener of the command server.

    :param listener: its address, and the layers below the lines (PROXY header, TLS, WebSocket).
    :param limits: of this listener.
    :param sessions: shared by all listeners.
    :param access: logins and permissions; None permits all commands to all clients.
    :ivar factory: the factory of its connections.
    :ivar certificates: those of TLS, or None without TLS.
    :raises ConfigError: for settings that cannot be used.
    """

    def __init__(
        self,
        reactor: ServiceReactor,
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
    def configured_address(self) -> str:
        return self._command_port.address

    @override
    def listen(self, port: int, interface: str) -> object:
        return self._command_port.listen()

    @override
    async def drain(self) -> None:
        await self._command_port.drain(self._drain_timeout, self._drain_rate)
