"""The ports of datagrams, CoAP and discovery as services, with DTLS and in groups."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from socket import gethostname
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from twisted_net.auth.users import Permissions
from twisted_net.commands.registry import Commands
from twisted_net.discovery.settings import DiscoverySettings
from twisted_net.errors import ConfigError
from twisted_net.net.addresses import Source
from twisted_net.ops.process_info import package_version
from twisted_net.service.config import (
    CoapDtlsSettings,
    CoapSettings,
    Config,
    UdpDtlsSettings,
    UdpSettings,
)
from twisted_net.service.listeners import ListenerService
from twisted_net.sessions import Sessions
from twisted_net.tcp.admission import Access
from twisted_net.udp.groups import groups_on
from twisted_net.udp.limits import GroupSettings
from twisted_net.udp.responder import DatagramCounts
from twisted_net.udp.server import DatagramServer, listen_at
from twisted_net.udp.socket_spec import SocketSpec

# OpenSSL takes a tenth of a second to import, CoAP and groups some: only where they are used.
if TYPE_CHECKING:
    from twisted_net.coap.server import CoapServer
    from twisted_net.dtls.server import DtlsServer


class DatagramListener(ListenerService):
    """
    A socket of the datagram server.

    :param server: that of this socket; those of the others are its companions.
    :ivar server: has the counts and the table of clients.
    """

    transport = "udp"

    def __init__(
        self,
        reactor: Any,  # Any: as below
        spec: SocketSpec,
        server: DatagramServer,
    ) -> None:
        super().__init__("", 0)
        self._reactor = reactor
        self._spec = spec
        self.server = server

    @property
    @override
    def asked(self) -> str:
        return str(self._spec)

    @override
    def listen(self, port: int, interface: str) -> object:
        return listen_at(self._reactor, self.server, self._spec)


def datagram_listeners(
    reactor: Any,  # Any: as below
    settings: UdpSettings,
) -> list[DatagramListener]:
    """Give a listener for each socket of ``[udp]``; the first one's server logs for all."""
    if not settings.enabled:
        return []
    first = DatagramServer(reactor, settings)
    return [
        DatagramListener(reactor, spec, first.companion() if i else first)
        for i, spec in enumerate(settings.socket_specs)
    ]


class _DrainsFirst(ListenerService):
    """A listener whose server has its answers leave before the port is closed: no other way."""

    server: CoapServer
    _drain_timeout: float

    @override
    async def _close(self) -> None:
        if self._port is not None:
            await self.server.drain(self._drain_timeout)
        await super()._close()


class CoapListener(_DrainsFirst):
    """
    The CoAP server.

    :param streams: the sessions of the stream listeners, whose topics and instruments it shares.
    :ivar server: has the sessions, the observers and the counts.
    """

    transport = "coap"

    def __init__(
        self,
        reactor: Any,  # Any: as below
        config: Config,
        commands: Commands,
        streams: Sessions,
    ) -> None:
        from twisted_net.coap.server import CoapServer

        super().__init__(config.coap.interface, config.coap.port)
        self._reactor = reactor
        self._drain_timeout = config.drain_timeout
        sessions = Sessions(streams.wall, streams.topics, streams.instruments)
        self.server = CoapServer(reactor, commands, config.coap, sessions=sessions)

    @override
    def listen(self, port: int, interface: str) -> object:
        from twisted_net.coap.server import listen_coap

        return listen_coap(self._reactor, self.server, port, interface)


class _Placed(ListenerService):
    """A listener whose address says where it is, wherever it is bound."""

    @property
    @override
    def place(self) -> str:
        return f"{self.asked} ({self.transport})"


class _GroupListener(_Placed):
    """
    The groups that a datagram or CoAP server listens to, beside its own port.

    :param settings: which, and where.
    :param own: the listener of that port; the groups have the same.
    :param counts: where drops and read errors are counted.
    """

    def __init__(
        self,
        reactor: Any,  # Any: as below
        settings: GroupSettings,
        own: DatagramListener | CoapListener,
        counts: DatagramCounts,
    ) -> None:
        super().__init__("", 0)
        self._reactor = reactor
        self._groups = groups_on(settings.groups, settings.interfaces)
        self._own = own
        self._counts = counts
        self.transport = f"{own.transport} group"

    @property
    @override
    def asked(self) -> str:
        return ", ".join(map(str, self._groups))

    @override
    def listen(self, port: int, interface: str) -> object:
        from twisted_net.udp.multicast import Membership, join_all

        joined = join_all(
            self._reactor,
            self._groups,
            self._own.port or 0,
            self._heard,
            max_datagram=self._own.server.limits.max_datagram,
            counts=self._counts,
            own=self._own.bound,
        )
        return Membership(joined)

    @abstractmethod
    def _heard(self, datagram: bytes, source: Source) -> None:
        """Take in what came to a group."""


class DatagramGroupListener(_GroupListener):
    """The groups of the datagram server."""

    def __init__(
        self,
        reactor: Any,  # Any: as below
        config: Config,
        own: DatagramListener,
    ) -> None:
        from twisted_net.udp.multicast import DelayedAnswers

        counts = own.server.responder.counts
        super().__init__(reactor, config.udp.multicast, own, counts)
        self._server = own.server
        self._delayed = DelayedAnswers(reactor, config.udp.multicast.leisure, counts)

    @override
    def _heard(self, datagram: bytes, source: Source) -> None:
        answer = self._server.answer_group(datagram, source)
        if answer is not None:
            self._delayed.send(self._answer, answer, source)

    def _answer(self, answer: bytes, source: Source) -> None:
        if self._server.transport is not None:
            self._server.transport.write(answer, source)

    @override
    async def drain(self) -> None:
        self._delayed.stop()


class CoapGroupListener(_GroupListener):
    """The groups of the CoAP server, which knows by itself what it tells them, and when."""

    def __init__(self, reactor: Any, config: Config, own: CoapListener) -> None:  # Any: as below
        super().__init__(reactor, config.coap.multicast, own, own.server.datagrams)
        self._server = own.server

    @override
    def _heard(self, datagram: bytes, source: Source) -> None:
        self._server.receive(datagram, source, group=True)


class AnnouncingListener(_Placed):
    """
    What announces the service to a group, and hears who asks for it.

    :param services: gives the ports by service.
    """

    transport = "discovery"

    def __init__(
        self,
        reactor: Any,  # Any: as below
        settings: DiscoverySettings,
        services: Callable[[], Mapping[str, int]],
    ) -> None:
        from twisted_net.discovery.service import Announcer

        super().__init__(settings.group, settings.port)
        self._settings = settings
        name = (settings.name or gethostname())[:64]
        self.announcer = Announcer(reactor, reactor, settings, name, package_version(), services)

    @property
    @override
    def asked(self) -> str:
        groups = ", ".join(map(str, self._settings.groups))
        return f"{groups}, port {self._settings.port}"

    @override
    def listen(self, port: int, interface: str) -> object:
        self.announcer.startService()
        return self.announcer.sockets

    @override
    async def _close(self) -> None:
        self._port = None
        if self.announcer.running:
            self.announcer.stopService()


class _DtlsListener(ListenerService):
    """
    A port with DTLS.

    :param limits: those of what is served, as for the port.
    :ivar certificates: those of DTLS.
    :ivar dtls: has the sessions; it is set by who derives.
    :raises ConfigError: for certificates that cannot be used.
    """

    dtls: DtlsServer

    def __init__(
        self,
        reactor: Any,  # Any: as below
        settings: UdpDtlsSettings | CoapDtlsSettings,
        limits: UdpSettings | CoapSettings,
        wall: Callable[[], float],
    ) -> None:
        # Not at the top: OpenSSL takes a tenth of a second to import.
        from twisted_net.dtls.server import DtlsServer

        super().__init__(settings.interface, settings.port)
        self._reactor = reactor
        self._limits = limits
        try:
            self.certificates = DtlsServer.make_certificates(settings, wall)
        except ConfigError as error:
            section = self.transport.replace("+", ".")
            raise ConfigError([f"{section}: {line}" for line in error.mistakes]) from None

    @override
    def listen(self, port: int, interface: str) -> object:
        from twisted_net.dtls.server import listen_dtls

        return listen_dtls(
            self._reactor,
            self.dtls,
            port,
            interface,
            datagrams_per_turn=self._limits.datagrams_per_turn,
            receive_buffer=self._limits.receive_buffer,
        )


class SecureDatagramListener(_DtlsListener):
    """
    The datagram server over DTLS.

    :ivar server: has the counts and the table of clients.
    """

    transport = "udp+dtls"

    def __init__(
        self,
        reactor: Any,  # Any: as below
        config: Config,
        wall: Callable[[], float],
    ) -> None:
        from twisted_net.dtls.server import DtlsServer

        settings = config.udp.dtls
        super().__init__(reactor, settings, config.udp, wall)
        self.server = DatagramServer(reactor, config.udp)
        self.dtls = DtlsServer(reactor, self.server, self.certificates, settings)


class SecureCoapListener(_DtlsListener, _DrainsFirst):
    """
    The CoAP server over DTLS.

    :param access: who may do what, by the names in certificates.
    :param streams: the sessions of the stream listeners, whose topics and instruments it shares.
    :ivar server: has the sessions, the observers and the counts.
    """

    transport = "coap+dtls"

    def __init__(
        self,
        reactor: Any,  # Any: as below
        config: Config,
        commands: Commands,
        access: Access,
        streams: Sessions,
    ) -> None:
        from twisted_net.coap.server import CoapServer
        from twisted_net.coap.settings import limits_over_dtls
        from twisted_net.dtls.server import DtlsServer

        settings = config.coap.dtls
        super().__init__(reactor, settings, config.coap, streams.wall)
        self._drain_timeout = config.drain_timeout

        def permissions_of(user: str | None) -> Permissions:
            return access.anonymous if user is None else access.permissions_of(user)

        self.server = CoapServer(
            reactor,
            commands,
            limits_over_dtls(config.coap, settings),
            sessions=Sessions(streams.wall, streams.topics, streams.instruments),
            permissions_of=permissions_of if access.required else None,
        )
        self.dtls = DtlsServer(
            reactor,
            self.server,
            self.certificates,
            settings,
            ended=self.server.peer_lost,
            session_limit=lambda user: permissions_of(user).max_connections,
        )
