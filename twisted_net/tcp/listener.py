"""Listener: builds the port of a listener from its settings, and the layers above it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.python.failure import Failure

from twisted_net.config.foreign_code import describe_failure
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import ConfigError
from twisted_net.net.addresses import format_address
from twisted_net.net.reactor import AnyReactor, Reactor, full_reactor
from twisted_net.net.steady_clock import steady
from twisted_net.tcp.drain import DRAIN_RATE
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.listener_settings import Listener
from twisted_net.tcp.proxy_header import TrustedProxies
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.transport import listen_tcp
from twisted_net.tcp.unix import listen_unix


@check_arguments
class CommandPort:
    """
    One port at which commands are served, with its layers (PROXY header, TLS, WebSocket).

    :param listener: where it listens, and with which layers.
    :param commands: the server; its limits of handshakes apply to the layers.
    :ivar commands: the same.
    :ivar handshakes: those under way; a client has no session before they are done.
    :ivar certificates: the certificates of TLS; None without TLS.
    :ivar transport: the layers as STATS shows them, such as ``tcp+proxy+tls``.
    :raises ConfigError: for an invalid endpoint description, missing files or a missing extra.
    :raises ValueError: for ``limits`` and ``admin`` of a listener that its server does not have.
    """

    def __init__(
        self,
        reactor: AnyReactor,
        listener: Listener,
        commands: CommandFactory,
    ) -> None:
        _check_effects(listener, commands)
        reactor = full_reactor(reactor)
        self._reactor = steady(reactor)
        self._listener = listener
        self._endpoint = _endpoint(reactor, listener.endpoint) if listener.endpoint else None
        self.commands = commands
        limits, sessions = commands.limits, commands.sessions
        self.handshakes = Handshakes(
            reactor, limits.handshake_timeout, limits.max_handshakes, sessions.refused
        )
        self.certificates = None
        layers = []
        factory: IProtocolFactory = commands
        if listener.protocol == "websocket":
            layers.append("websocket")
            factory = self._websocket(factory)
        if listener.tls.enabled:
            # Not at the top: OpenSSL takes a tenth of a second to import.
            from twisted_net.net.certificates import Certificates
            from twisted_net.tcp.tls import TlsFactory

            layers.append("tls")
            self.certificates = Certificates(listener.tls, sessions.wall)
            factory = TlsFactory(
                factory, self.certificates, self.handshakes, reactor, sessions.memory
            )
        if listener.proxy:
            from twisted_net.tcp.proxy_protocol import ProxyFactory

            layers.append("proxy")
            factory = ProxyFactory(factory, TrustedProxies(listener.proxy), self.handshakes)
        self._factory = factory
        bottom = "endpoint" if listener.endpoint else "unix" if listener.path else "tcp"
        self.transport = "+".join([bottom, *reversed(layers)])

    @property
    def address(self) -> str:
        """Where it is configured to listen, for messages to people."""
        listener = self._listener
        if listener.endpoint or listener.path:
            return listener.endpoint or listener.path
        return format_address(listener.interface, listener.port or 0)

    def listen(self) -> IListeningPort:
        """
        Bind the port, within this call.

        :raises CannotListenError: if the port cannot be bound.
        """
        listener = self._listener
        if self._endpoint is not None:
            return _listen_now(self._endpoint, self._factory)
        if listener.path:
            return listen_unix(
                self._reactor,
                listener.path,
                self._factory,
                listener.backlog,
                listener.permissions,
                self.commands.sessions.refused,
            )
        return listen_tcp(
            self._reactor,
            listener.port or 0,
            self._factory,
            listener.backlog,
            listener.interface,
            self.commands.sessions.refused,
        )

    async def drain(self, timeout: float, per_second: float = DRAIN_RATE) -> None:
        """Abort handshakes, and drain the server as its own method does; stop listening before."""
        closed = self.handshakes.close()
        await self.commands.drain(timeout, per_second)
        await closed

    def _websocket(self, inner: IProtocolFactory) -> IProtocolFactory:
        origins = self._listener.origins
        memory = self.commands.sessions.memory
        return load_websocket()(inner, self.handshakes, self._reactor, origins, memory)


def load_websocket() -> Callable[..., IProtocolFactory]:
    """
    Return the factory of WebSocket, whose package is an extra.

    :raises ConfigError: if it is not installed.
    """
    try:
        from twisted_net.tcp.websocket import WebSocketFactory
    except ImportError as error:
        raise ConfigError([f'protocol "websocket" needs twisted_net[websocket]: {error}']) from None
    return WebSocketFactory


def bound_address(port: IListeningPort, default: str) -> str:
    """Return where a port listens, or *default* if its address is neither IP nor Unix."""
    host: object = port.getHost()
    if isinstance(host, IPv4Address | IPv6Address):
        return format_address(host.host, host.port)
    if isinstance(host, UNIXAddress) and host.name is not None:
        return os.fsdecode(host.name)
    return default


def _check_effects(listener: Listener, commands: CommandFactory) -> None:
    """
    Check that what a listener says holds for the server that it is of.

    :raises ValueError: for limits, or permissions, that the server has not.
    """
    limits = listener.limits_over(commands.limits)
    for name in listener.limits:
        if getattr(limits, name) != getattr(commands.limits, name):
            raise ValueError(
                f"CommandPort: listener.limits has {name}, which the server has otherwise; make it "
                "as CommandFactory(reactor, commands, listener.limits_over(Limits()))"
            )
    if listener.admin and commands.access is not None:
        raise ValueError(
            "CommandPort: listener.admin is true, but the server has an access, which decides what "
            "its clients may do; make a CommandFactory without one"
        )


def _endpoint(reactor: Reactor, description: str) -> IStreamServerEndpoint:
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    # Any plugin may parse the description, and raise any exception.
    except Exception as error:
        raise ConfigError([f"{description} is not a valid endpoint: {error}"]) from error
    except BaseException as error:
        raise ConfigError([f"{description}: {describe_failure(error)}"]) from error
    return endpoint


def _listen_now(endpoint: IStreamServerEndpoint, factory: IProtocolFactory) -> IListeningPort:
    outcomes: list[Any] = []  # Any: the Deferred's result
    try:
        listening = endpoint.listen(factory)
    except CannotListenError:
        raise
    # As above.
    except BaseException as error:
        raise CannotListenError(None, None, describe_failure(error)) from error
    listening.addBoth(outcomes.append)
    if not outcomes:
        listening.cancel()
        raise CannotListenError(None, None, "it did not listen at once, which is required here")
    (outcome,) = outcomes
    if isinstance(outcome, Failure):
        cause = outcome.value
        if isinstance(cause, CannotListenError):
            raise cause
        raise CannotListenError(None, None, cause) from cause
    port: IListeningPort = outcome
    return port
