"""Assembles a service from a configuration: what it listens on, how it starts, how it drains."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from socket import gethostname
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.audit import Audit
from twisted_net.commands import Commands
from twisted_net.config import (
    CoapDtlsSettings,
    CoapSettings,
    Config,
    UdpDtlsSettings,
    UdpSettings,
)
from twisted_net.errors import CannotListen, ConfigError
from twisted_net.logins import configured_logins
from twisted_net.probing import LatencyProbe
from twisted_net.rates import is_local
from twisted_net.registries import configured_commands
from twisted_net.sessions import End, Sessions
from twisted_net.slowlog import SlowLog
from twisted_net.tcp.admission import Access
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.listener_settings import Listener
from twisted_net.tcp.listeners import CommandPort, address_in_words, bound_address
from twisted_net.tcp.server import CommandFactory
from twisted_net.topics import Topics
from twisted_net.udp.datagrams import Source
from twisted_net.udp.discovery import Announcer
from twisted_net.udp.discovery_settings import DiscoverySettings
from twisted_net.udp.groups import GroupSettings, groups_on, is_own_interface
from twisted_net.udp.multicast import DelayedAnswers, Membership, join_all
from twisted_net.udp.places import Place
from twisted_net.udp.server import DatagramServer, listen_at
from twisted_net.users import Permissions, User
from twisted_net.vitals import package_version, usage, versions

_SERVICES = {
    "tcp": "tcp",
    "tcp+tls": "tls",
    "udp": "udp",
    "udp+dtls": "udp+dtls",
    "coap": "coap",
    "coap+dtls": "coaps",
}
"""What the transports of listeners that are announced are called in announcements."""

PROGRESS_INTERVAL = 1.0
"""Seconds between two lines in the log that say how many connections are still to be drained."""

# The HTTP client, and CoAP, are imported where they are used: they were a quarter of the start.
if TYPE_CHECKING:
    from twisted_net.http.fetching import Fetcher
    from twisted_net.udp.dtls import DtlsServer

_FETCHING = "twisted_net.http.fetching"


class _Listener(Service, ABC):
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
        return address_in_words(self._interface, self._asked)

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


class CommandListener(_Listener):
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


class DatagramListener(_Listener):
    """
    A socket of the datagram server.

    :param server: that of this socket; those of the others are its companions.
    :ivar server: has the counts and the table of clients.
    """

    transport = "udp"

    def __init__(
        self,
        reactor: Any,  # Any: as below
        place: Place,
        server: DatagramServer,
    ) -> None:
        super().__init__("", 0)
        self._reactor = reactor
        self._place = place
        self.server = server

    @property
    @override
    def asked(self) -> str:
        return str(self._place)

    @override
    def listen(self, port: int, interface: str) -> object:
        return listen_at(self._reactor, self.server, self._place)


def datagram_listeners(
    reactor: Any,  # Any: as below
    settings: UdpSettings,
) -> list[DatagramListener]:
    """Give a listener for each socket of ``[udp]``; the first one's server logs for all."""
    if not settings.enabled:
        return []
    first = DatagramServer(reactor, settings)
    return [
        DatagramListener(reactor, place, first.companion() if i else first)
        for i, place in enumerate(settings.places)
    ]


class CoapListener(_Listener):
    """
    The CoAP server.

    :param topics: those of all listeners.
    :ivar server: has the sessions, the observers and the counts.
    """

    transport = "coap"

    def __init__(
        self,
        reactor: Any,  # Any: as below
        config: Config,
        commands: Commands,
        topics: Topics,
    ) -> None:
        from twisted_net.udp.coap import CoapServer

        super().__init__(config.coap.interface, config.coap.port)
        self._reactor = reactor
        self._drain_timeout = config.drain_timeout
        sessions = Sessions(time.time, topics)
        self.server = CoapServer(reactor, commands, config.coap, sessions=sessions)

    @override
    def listen(self, port: int, interface: str) -> object:
        from twisted_net.udp.coap import listen_coap

        return listen_coap(self._reactor, self.server, port, interface)

    @override
    async def _close(self) -> None:
        # Before the port is closed: there is no other way for the answers to leave.
        if self._port is not None:
            await self.server.drain(self._drain_timeout)
        await super()._close()


class _GroupListener(_Listener):
    """
    The groups that a datagram or CoAP server listens to, beside its own port.

    :param settings: which, and where.
    :param own: the listener of that port; the groups have the same.
    """

    def __init__(
        self,
        reactor: Any,  # Any: as below
        settings: GroupSettings,
        own: DatagramListener | CoapListener,
    ) -> None:
        super().__init__("", 0)
        self._reactor = reactor
        self._groups = groups_on(settings.groups, settings.interfaces)
        self._own = own
        self.transport = f"{own.transport} group"

    @property
    @override
    def asked(self) -> str:
        return ", ".join(map(str, self._groups))

    @property
    @override
    def place(self) -> str:
        return f"{self.asked} ({self.transport})"


class DatagramGroupListener(_GroupListener):
    """The groups of the datagram server."""

    def __init__(
        self,
        reactor: Any,  # Any: as below
        config: Config,
        own: DatagramListener,
    ) -> None:
        super().__init__(reactor, config.udp.multicast, own)
        self._server = own.server
        self._delayed = DelayedAnswers(reactor, config.udp.multicast.leisure)

    @override
    def listen(self, port: int, interface: str) -> object:
        server = self._server
        joined = join_all(
            self._reactor,
            self._groups,
            self._own.port or 0,
            self._heard,
            max_datagram=server.limits.max_datagram,
            counts=server.responder.counts,
        )
        return Membership(joined, self._delayed)

    def _heard(self, datagram: bytes, source: Source) -> None:
        answer = self._server.answer_group(datagram, source)
        if answer is not None:
            self._delayed.send(self._answer, answer, source)

    def _answer(self, answer: bytes, source: Source) -> None:
        if self._server.transport is not None:
            self._server.transport.write(answer, source)


class CoapGroupListener(_GroupListener):
    """The groups of the CoAP server, which knows by itself what it tells them, and when."""

    def __init__(self, reactor: Any, config: Config, own: CoapListener) -> None:  # Any: as below
        super().__init__(reactor, config.coap.multicast, own)
        self._server = own.server

    @override
    def listen(self, port: int, interface: str) -> object:
        server = self._server
        joined = join_all(
            self._reactor,
            self._groups,
            self._own.port or 0,
            partial(server.take, group=True),
            max_datagram=server.limits.max_datagram,
            counts=server.datagrams,
        )
        return Membership(joined)


class AnnouncingListener(_Listener):
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
        super().__init__(settings.group, settings.port)
        self._settings = settings
        name = (settings.name or gethostname())[:64]
        self.announcer = Announcer(reactor, reactor, settings, name, package_version(), services)

    @property
    @override
    def asked(self) -> str:
        groups = ", ".join(map(str, self._settings.places))
        return f"{groups}, port {self._settings.port}"

    @property
    @override
    def place(self) -> str:
        return f"{self.asked} ({self.transport})"

    @override
    def listen(self, port: int, interface: str) -> object:
        self.announcer.startService()
        return self.announcer.sockets

    @override
    async def _close(self) -> None:
        self._port = None
        if self.announcer.running:
            self.announcer.stopService()


class _DtlsListener(_Listener):
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
        from twisted_net.udp.dtls import DtlsServer

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
        from twisted_net.udp.dtls import listen_dtls

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
        from twisted_net.udp.dtls import DtlsServer

        settings = config.udp.dtls
        super().__init__(reactor, settings, config.udp, wall)
        self.server = DatagramServer(reactor, config.udp)
        self.dtls = DtlsServer(reactor, self.server, self.certificates, settings)


class SecureCoapListener(_DtlsListener):
    """
    The CoAP server over DTLS.

    :param access: who may do what, by the names in certificates.
    :param streams: the sessions of the other listeners, of which it has the topics and the clock.
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
        from twisted_net.udp.coap import CoapServer
        from twisted_net.udp.dtls import DtlsServer, coap_limits

        settings = config.coap.dtls
        super().__init__(reactor, settings, config.coap, streams.wall)
        self._drain_timeout = config.drain_timeout

        def permissions_of(user: str | None) -> Permissions:
            return access.anonymous if user is None else access.permissions_of(user)

        self.server = CoapServer(
            reactor,
            commands,
            coap_limits(config.coap, settings),
            sessions=Sessions(streams.wall, streams.topics),
            permissions_of=permissions_of if access.required else None,
        )
        self.dtls = DtlsServer(
            reactor,
            self.server,
            self.certificates,
            settings,
            ended=self.server.peer_lost,
            most_of_user=lambda user: permissions_of(user).max_connections,
        )

    @override
    async def _close(self) -> None:
        # Before the port is closed: there is no other way for the answers to leave.
        if self._port is not None:
            await self.server.drain(self._drain_timeout)
        await super()._close()


class NetService(MultiService):
    """
    Everything that a configuration describes, as one service for any Twisted application.

    Either all of it starts or nothing: if a port cannot be had, those that were bound before
    are released. ``stopService`` stops to listen, tells the clients, answers what they have
    asked, closes, and aborts what is left after ``drain_timeout``; its Deferred fires when no
    port, connection or timer is left. It may be started again.

    :param reactor: the one that the application runs.
    :param commands: own commands, beside those that *config* names.
    :ivar sessions: the clients of all listeners that serve commands over a stream.
    :ivar tcp: the command server of ``[tcp]``, or None where it is not enabled.
    :ivar listeners: the command servers of ``listeners``, in their order.
    :ivar udp: the first socket of the datagram server, or None where it is not enabled.
    :ivar udp_sockets: its further sockets.
    :ivar coap: the CoAP server, or None where it is not enabled.
    :ivar secure_udp: the datagram server over DTLS, or None where it has no certificate.
    :ivar secure_coap: the CoAP server over DTLS, or None where it has no certificate.
    :raises ConfigError: for commands that cannot be had. Starting raises
        :class:`~twisted_net.errors.CannotListen`, which is one too.
    :raises ValueError: for a command whose name is taken.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,  # Any: it listens, tells the time and has threads, for which there is no type
        config: Config | None = None,
        commands: Commands | None = None,
    ) -> None:
        MultiService.__init__(self)
        self._reactor = reactor
        config = config or Config()
        logins = configured_logins(reactor, config.auth)
        self._access = Access(
            config.auth,
            logins.permissions_of if logins else _nobody,
            admin_elsewhere=any(listener.admin for listener in config.further_listeners),
        )
        registry = configured_commands(config, self._fetch, logins.log_in if logins else None)
        if commands is not None:
            registry.update(commands)
        self._new_fetcher = partial(_guarded_fetcher, reactor, config)
        self._fetcher: Fetcher | None = None
        self.sessions = Sessions(time.time, Topics(config.topics), SlowLog(config.slowlog))
        self.sessions.audit = Audit(reactor)
        self.sessions.info |= {"server": self._server_figures, "process": usage}
        self.tcp, self.listeners = self._command_listeners(reactor, config, registry)
        sockets = datagram_listeners(reactor, config.udp)
        self.udp, self.udp_sockets = (sockets[0] if sockets else None), sockets[1:]
        self.coap = None
        if config.coap.enabled:
            self.coap = CoapListener(reactor, config, registry, self.sessions.topics)
        wall = self.sessions.wall
        secure_udp, secure_coap = config.udp.dtls.enabled, config.coap.dtls.enabled
        self.secure_udp = SecureDatagramListener(reactor, config, wall) if secure_udp else None
        self.secure_coap = (
            SecureCoapListener(reactor, config, registry, self._access, self.sessions)
            if secure_coap
            else None
        )
        self._add_figures()
        served = (
            *(self.tcp, *self.listeners, self.udp, *self.udp_sockets, self.coap),
            *(self.secure_udp, self.secure_coap),
        )
        self._served: list[_Listener] = [part for part in served if part is not None]
        self._served += self._group_listeners(config)
        probe = LatencyProbe(reactor, self.sessions.latency, time.time)
        parts: list[Service] = [probe, *self._served]
        for part in parts:
            part.setServiceParent(self)

    @override
    def privilegedStartService(self) -> None:
        with self._all_or_nothing():
            MultiService.privilegedStartService(self)

    @override
    def startService(self) -> None:
        with self._all_or_nothing():
            MultiService.startService(self)

    @override
    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        was_running, began = self.running, self._reactor.seconds()
        connected, aborted = len(self.sessions), self.sessions.ended[End.ABORTED]
        progress = LoopingCall(self._log_progress, connected)
        progress.clock = self._reactor
        if was_running and connected:
            progress.start(PROGRESS_INTERVAL, now=True)
        try:
            await MultiService.stopService(self)
        finally:
            if progress.running:
                progress.stop()
        if was_running:
            self.log.info(
                "drained in {seconds:.2f} s: {connected} connections, of which {aborted} were "
                "aborted",
                seconds=self._reactor.seconds() - began,
                connected=connected,
                aborted=self.sessions.ended[End.ABORTED] - aborted,
            )
        # Last, as a FETCH that is being answered needs it.
        fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            await fetcher.close()

    def _group_listeners(self, config: Config) -> list[_Listener]:
        """Make those of groups, which come after the ports that answer for them."""
        made: list[_Listener] = []
        if self.udp is not None and config.udp.multicast.groups:
            made.append(DatagramGroupListener(self._reactor, config, self.udp))
        if self.coap is not None and config.coap.multicast.groups:
            made.append(CoapGroupListener(self._reactor, config, self.coap))
        if config.discovery.enabled:
            only_here = all(map(is_own_interface, config.discovery.interfaces or ("",)))
            services = partial(self._services, only_here)
            made.append(AnnouncingListener(self._reactor, config.discovery, services))
        return made

    def _services(self, only_here: bool) -> dict[str, int]:
        """Give the ports that are announced: those that the others can reach."""
        found: dict[str, int] = {}
        for part in self._served:
            host = part.host
            if part.port is not None and host is not None and (only_here or not is_local(host)):
                found.setdefault(_SERVICES.get(part.transport, ""), part.port)
        found.pop("", None)
        return found

    def _log_progress(self, connected: int) -> None:
        self.log.info(
            "draining: {left} of {connected} connections are left",
            left=len(self.sessions),
            connected=connected,
        )

    def _server_figures(self) -> Mapping[str, object]:
        return {
            **versions(self._reactor),
            "uptime": round(self.sessions.wall() - self.sessions.started, 3),
            "listeners": [part.place for part in self._served],
        }

    def _command_listeners(
        self,
        reactor: Any,  # Any: as above
        config: Config,
        commands: Commands,
    ) -> tuple[CommandListener | None, list[CommandListener]]:
        """
        Make that of ``[tcp]``, and the further ones.

        :raises ConfigError: with a line for each mistake.
        """

        def make(listener: Listener, limits: Limits) -> CommandListener:
            return CommandListener(
                reactor,
                listener,
                commands,
                limits,
                self.sessions,
                config,
                # Whoever may open its file may do everything.
                None if listener.admin else self._access,
            )

        tcp = None
        if config.tcp.enabled:
            settings = config.tcp
            place = Listener(
                port=settings.port, interface=settings.interface, backlog=settings.backlog
            )
            tcp = make(place, settings)
        made: list[CommandListener] = []
        mistakes: list[str] = []
        for i, listener in enumerate(config.further_listeners):
            try:
                made.append(make(listener, listener.limits_over(config.tcp)))
            except ConfigError as error:
                mistakes += [f"listeners[{i}]: {line}" for line in error.mistakes]
        if mistakes:
            raise ConfigError(mistakes)
        return tcp, made

    def _add_figures(self) -> None:
        """Have STATS tell of certificates and of DTLS, where there are any."""
        secure = [part for part in (self.secure_udp, self.secure_coap) if part is not None]
        holders = [self.sessions]
        if self.secure_coap is not None:
            self.secure_coap.server.sessions.audit = self.sessions.audit
            holders.append(self.secure_coap.server.sessions)
        for sessions in holders:
            if secure or any(listener.certificates for listener in self.listeners):
                sessions.figures["certificates"] = self._seconds_left
            if secure:
                sessions.figures["dtls"] = lambda: {
                    part.transport: part.dtls.figures() for part in secure
                }

    def _seconds_left(self) -> Mapping[str, float]:
        """Tell how long each certificate of all listeners is valid."""
        left: dict[str, float] = {}
        for listener in (*self.listeners, self.secure_udp, self.secure_coap):
            if listener is not None and listener.certificates is not None:
                for host, seconds in listener.certificates.seconds_left().items():
                    left[host] = min(seconds, left.get(host, seconds))
        return left

    async def _fetch(self, url: str) -> Mapping[str, object]:
        if self._fetcher is None:
            # In a thread: a tenth of a second, in which the other clients are not to wait.
            pool = self._reactor.getThreadPool()
            await deferToThreadPool(self._reactor, pool, partial(import_module, _FETCHING))
        if self._fetcher is None:
            self._fetcher = self._new_fetcher()
        return await self._fetcher.fetch(url)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except CannotListen:
            # Ports close in the reactor's next turn, or with the process if it never runs.
            released = self.stopService()
            released.addErrback(lambda failure: self.log.failure("cannot release ports", failure))
            raise


def _guarded_fetcher(reactor: Any, config: Config) -> Fetcher:  # Any: see NetService
    from twisted_net.http.fetching import Fetcher

    return Fetcher.guarded(reactor, config.http, config.fetch)


def _nobody(name: str) -> Permissions:
    """Give what a user may do where there are none, and so no one ever is."""
    return Permissions(name, User(commands=()))
