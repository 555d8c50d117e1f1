"""Ports of datagrams, CoAP and discovery as services: plain, over DTLS and for multicast."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from socket import gethostname
from typing import TYPE_CHECKING

from typing_extensions import override

from twisted_net.auth.users import Permissions
from twisted_net.commands.registry import Commands
from twisted_net.discovery.settings import DiscoverySettings
from twisted_net.dtls.peer import identity_of
from twisted_net.errors import ConfigError
from twisted_net.net.addresses import Source, format_address
from twisted_net.net.memory_ledger import MemoryLedger
from twisted_net.net.reactor import ServiceReactor
from twisted_net.ops.process_info import package_version
from twisted_net.reasons import Caller, End
from twisted_net.service.config import (
    CoapDtlsSettings,
    CoapSettings,
    Config,
    UdpDtlsSettings,
    UdpSettings,
)
from twisted_net.service.listeners import ListenerService
from twisted_net.sessions.registry import Sessions
from twisted_net.tcp.admission import Access
from twisted_net.udp.groups import groups_on
from twisted_net.udp.limits import GroupSettings
from twisted_net.udp.responder import DatagramCounts, DatagramHandler
from twisted_net.udp.server import DatagramServer, listen_at
from twisted_net.udp.socket_spec import SocketSpec

# OpenSSL takes 0.1 s to import, CoAP and multicast less: they are imported only when used.
if TYPE_CHECKING:
    from twisted_net.coap.server import CoapServer
    from twisted_net.dtls.server import DtlsServer


class DatagramListener(ListenerService):
    """
    One socket of the datagram server.

    :param server: that of this socket; the servers of the other sockets are its companions.
    :ivar server: holds the counters and the table of clients.
    """

    transport = "udp"

    def __init__(
        self,
        reactor: ServiceReactor,
        spec: SocketSpec,
        server: DatagramServer,
    ) -> None:
        super().__init__("", 0)
        self._reactor = reactor
        self._spec = spec
        self.server = server

    @property
    @override
    def configured_address(self) -> str:
        return str(self._spec)

    @override
    def listen(self, port: int, interface: str) -> object:
        return listen_at(self._reactor, self.server, self._spec)


def datagram_listeners(
    reactor: ServiceReactor,
    settings: UdpSettings,
    handler: DatagramHandler | None = None,
) -> list[DatagramListener]:
    """
    Return a listener for each socket of ``[udp]``; the server of the first one logs for all.

    :param handler: answers in place of the standard one.
    """
    if not settings.enabled:
        return []
    first = DatagramServer(reactor, settings, handler)
    return [
        DatagramListener(reactor, spec, first.companion() if i else first)
        for i, spec in enumerate(settings.socket_specs)
    ]


class _DrainingListener(ListenerService):
    """A listener whose server sends its pending answers before the port is closed."""

    server: CoapServer
    _drain_timeout: float

    @override
    async def _close(self) -> None:
        if self._port is not None:
            await self.server.drain(self._drain_timeout)
        await super()._close()


class CoapListener(_DrainingListener):
    """
    The CoAP server.

    :param streams: the sessions of the stream listeners; it shares their topics, broadcasts and
        instruments.
    :ivar server: holds the sessions, the observers and the counters.
    """

    transport = "coap"

    def __init__(
        self,
        reactor: ServiceReactor,
        config: Config,
        commands: Commands,
        access: Access,
        streams: Sessions,
    ) -> None:
        from twisted_net.coap.server import CoapServer

        super().__init__(config.coap.interface, config.coap.port)
        self._reactor = reactor
        self._drain_timeout = config.drain_timeout
        self.server = CoapServer(
            reactor,
            commands,
            config.coap,
            sessions=_sharing(streams, self.transport),
            # Nobody has a certificate here.
            permissions_of=(lambda user: access.anonymous) if access.required else None,
        )

    @override
    def listen(self, port: int, interface: str) -> object:
        from twisted_net.coap.port import listen_coap

        return listen_coap(self._reactor, self.server, port, interface)


class _ConfiguredDescription(ListenerService):
    """A listener that is described by its configured address, whatever its sockets are bound to."""

    @property
    @override
    def description(self) -> str:
        return f"{self.configured_address} ({self.transport})"


class _GroupListener(_ConfiguredDescription):
    """
    The multicast groups that a datagram or CoAP server listens to, besides its own port.

    :param settings: the groups and their interfaces.
    :param own: the listener of the server's own port; the groups use the same port number.
    :param counts: counts the drops and the read errors.
    """

    def __init__(
        self,
        reactor: ServiceReactor,
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
    def configured_address(self) -> str:
        return ", ".join(map(str, self._groups))

    @override
    def listen(self, port: int, interface: str) -> object:
        from twisted_net.udp.multicast import Membership, join_all

        joined = join_all(
            self._reactor,
            self._groups,
            self._own.port or 0,
            self._received,
            max_datagram=self._own.server.limits.max_datagram,
            counts=self._counts,
            own=self._own.listening_port,
        )
        return Membership(joined)

    @abstractmethod
    def _received(self, datagram: bytes, source: Source) -> None:
        """Handle a datagram that was sent to a group."""


class DatagramGroupListener(_GroupListener):
    """
    The multicast groups of the datagram server.

    :param memory: counts the answers that wait.
    """

    def __init__(
        self,
        reactor: ServiceReactor,
        config: Config,
        own: DatagramListener,
        memory: MemoryLedger,
    ) -> None:
        from twisted_net.udp.multicast import DelayedAnswers

        counts = own.server.responder.counts
        super().__init__(reactor, config.udp.multicast, own, counts)
        self._server = own.server
        leisure = config.udp.multicast.leisure
        self._delayed = DelayedAnswers(reactor, leisure, counts, memory=memory)

    @override
    def _received(self, datagram: bytes, source: Source) -> None:
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
    """The multicast groups of the CoAP server, which delays and suppresses its answers itself."""

    def __init__(self, reactor: ServiceReactor, config: Config, own: CoapListener) -> None:
        super().__init__(reactor, config.coap.multicast, own, own.server.datagrams)
        self._server = own.server

    @override
    def _received(self, datagram: bytes, source: Source) -> None:
        self._server.receive(datagram, source, group=True)


class AnnouncingListener(_ConfiguredDescription):
    """
    Announces the service to multicast groups and answers queries (:mod:`twisted_net.discovery`).

    :param services: returns the ports by service.
    """

    transport = "discovery"

    def __init__(
        self,
        reactor: ServiceReactor,
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
    def configured_address(self) -> str:
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
    A UDP port with DTLS.

    :param limits: those of the server behind DTLS; the port uses some of them.
    :param streams: the sessions of the stream listeners; it shares their audit.
    :ivar certificates: those of DTLS.
    :ivar dtls: holds the DTLS sessions; subclasses set it.
    :raises ConfigError: for certificates and keys that cannot be used.
    """

    dtls: DtlsServer

    def __init__(
        self,
        reactor: ServiceReactor,
        settings: UdpDtlsSettings | CoapDtlsSettings,
        limits: UdpSettings | CoapSettings,
        streams: Sessions,
    ) -> None:
        from twisted_net.dtls.server import DtlsServer

        super().__init__(settings.interface, settings.port)
        self._reactor = reactor
        self._limits = limits
        self._streams = streams
        try:
            self.certificates = DtlsServer.make_certificates(settings, streams.wall)
            self._psk = DtlsServer.make_psk(settings)
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

    def _ended(self, peer: Source, end: End) -> None:
        """Audit a session that has ended as all clients hold too much, as of a connection."""
        if end is End.BUFFERS_FULL:
            self._streams.audit("closed", Caller(format_address(peer[0], peer[1])), end.value)

    @override
    async def _close(self) -> None:
        if self._port is not None:
            await self.dtls.drain()
        await super()._close()


class SecureDatagramListener(_DtlsListener):
    """
    The datagram server over DTLS.

    :param streams: the sessions of the stream listeners, whose memory it shares.
    :ivar server: holds the counters and the table of clients.
    """

    transport = "udp+dtls"

    def __init__(
        self,
        reactor: ServiceReactor,
        config: Config,
        streams: Sessions,
        handler: DatagramHandler | None = None,
    ) -> None:
        from twisted_net.dtls.server import DtlsServer

        settings, memory = config.udp.dtls, streams.memory
        super().__init__(reactor, settings, config.udp, streams)
        self.server = DatagramServer(reactor, config.udp, handler)
        self.dtls = DtlsServer(
            reactor,
            self.server,
            self.certificates,
            settings,
            ended=self._ended,
            memory=memory,
            psk=self._psk,
        )


class SecureCoapListener(_DrainingListener, _DtlsListener):
    """
    The CoAP server over DTLS.

    :param access: the permissions of users, whom client certificates name.
    :param streams: the sessions of the stream listeners; it shares their topics, broadcasts and
        instruments.
    :ivar server: holds the sessions, the observers and the counters.
    """

    transport = "coap+dtls"

    def __init__(
        self,
        reactor: ServiceReactor,
        config: Config,
        commands: Commands,
        access: Access,
        streams: Sessions,
    ) -> None:
        from twisted_net.coap.server import CoapServer
        from twisted_net.coap.settings import limits_over_dtls
        from twisted_net.dtls.server import DtlsServer

        settings = config.coap.dtls
        super().__init__(reactor, settings, config.coap, streams)
        self._drain_timeout = config.drain_timeout

        def permissions_of(user: str | None) -> Permissions | None:
            return access.anonymous if user is None else access.permissions_of(user)

        def session_limit(user: str) -> int | None:
            if not access.required:
                return None
            permissions = permissions_of(user)
            # One for a name that is no user's: no more than it had before it was removed.
            return 1 if permissions is None else permissions.max_connections

        self.server = CoapServer(
            reactor,
            commands,
            limits_over_dtls(config.coap, settings),
            sessions=_sharing(streams, self.transport),
            permissions_of=permissions_of if access.required else None,
            reviewed=self._enforce_limit,
        )
        self.dtls = DtlsServer(
            reactor,
            self.server,
            self.certificates,
            settings,
            ended=self._ended,
            session_limit=session_limit,
            memory=streams.memory,
            psk=self._psk,
        )

    @override
    def _ended(self, peer: Source, end: End) -> None:
        super()._ended(peer, end)
        self.server.peer_lost(peer, end)

    def _enforce_limit(self, peer: Source) -> None:
        user = identity_of(peer)
        if user is not None:
            self.dtls.enforce_limit(user)


def _sharing(streams: Sessions, door: str) -> Sessions:
    """Return sessions that share all but the clients themselves with others."""
    return Sessions(
        streams.wall,
        streams.topics,
        streams.instruments,
        broadcasts=streams.broadcasts,
        by_user=streams.by_user,
        hooks=streams.hooks,
        doors=streams.doors,
        door=door,
    )
