"""Assembles a service from a configuration: what it listens on, how it starts, how it drains."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.auth.users import Permissions, User
from twisted_net.commands.registry import Commands
from twisted_net.errors import CannotListen, ConfigError
from twisted_net.net.addresses import is_local
from twisted_net.net.turn_scheduler import StepScheduler
from twisted_net.ops.audit import Audit
from twisted_net.ops.instruments import Instruments
from twisted_net.ops.latency_probe import LatencyProbe
from twisted_net.ops.process_info import usage, versions
from twisted_net.ops.slowlog import SlowLog
from twisted_net.reasons import End
from twisted_net.service.commands import configured_commands
from twisted_net.service.config import Config
from twisted_net.service.datagram_listeners import (
    AnnouncingListener,
    CoapGroupListener,
    CoapListener,
    DatagramGroupListener,
    SecureCoapListener,
    SecureDatagramListener,
    datagram_listeners,
)
from twisted_net.service.listeners import CommandListener, ListenerService
from twisted_net.service.login import configured_logins
from twisted_net.sessions import Sessions
from twisted_net.tcp.admission import Access
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.listener_settings import Listener
from twisted_net.topics import Topics

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

# The HTTP client is imported where it is used: it was a fifth of the start.
if TYPE_CHECKING:
    from twisted_net.http.fetch import Fetcher

_FETCHING = "twisted_net.http.fetch"


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
        instruments = Instruments(Audit(reactor), SlowLog(config.slowlog))
        self.sessions = Sessions(
            time.time, Topics(config.topics), instruments, StepScheduler(reactor)
        )
        self.sessions.add_section("server", self._server_figures)
        self.sessions.add_section("process", usage)
        self.tcp, self.listeners = self._command_listeners(reactor, config, registry)
        sockets = datagram_listeners(reactor, config.udp)
        self.udp, self.udp_sockets = (sockets[0] if sockets else None), sockets[1:]
        self.coap = None
        if config.coap.enabled:
            self.coap = CoapListener(reactor, config, registry, self.sessions)
        wall = self.sessions.wall
        secure_udp, secure_coap = config.udp.dtls.enabled, config.coap.dtls.enabled
        self.secure_udp = SecureDatagramListener(reactor, config, wall) if secure_udp else None
        self.secure_coap = (
            SecureCoapListener(reactor, config, registry, self._access, self.sessions)
            if secure_coap
            else None
        )
        self._add_figures()
        self._add_coap_section()
        served = (
            *(self.tcp, *self.listeners, self.udp, *self.udp_sockets, self.coap),
            *(self.secure_udp, self.secure_coap),
        )
        self._served: list[ListenerService] = [part for part in served if part is not None]
        self._served += self._group_listeners(config)
        probe = LatencyProbe(reactor, self.sessions.instruments.latency, time.time)
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
        connected, aborted = len(self.sessions), self.sessions.counters.ended[End.ABORTED]
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
                aborted=self.sessions.counters.ended[End.ABORTED] - aborted,
            )
        # Last, as a FETCH that is being answered needs it.
        fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            await fetcher.close()

    def _group_listeners(self, config: Config) -> list[ListenerService]:
        """Make those of groups, which come after the ports that answer for them."""
        made: list[ListenerService] = []
        if self.udp is not None and config.udp.multicast.groups:
            made.append(DatagramGroupListener(self._reactor, config, self.udp))
        if self.coap is not None and config.coap.multicast.groups:
            made.append(CoapGroupListener(self._reactor, config, self.coap))
        if config.discovery.enabled:
            services = partial(self._services, config.discovery.local)
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
            holders.append(self.secure_coap.server.sessions)
        for sessions in holders:
            if secure or any(listener.certificates for listener in self.listeners):
                sessions.add_figure("certificates", self._seconds_left)
            if secure:
                sessions.add_figure(
                    "dtls", lambda: {part.transport: part.dtls.figures() for part in secure}
                )

    def _add_coap_section(self) -> None:
        """Have INFO show the counters of CoAP's message layer, by transport."""
        coaps = [part for part in (self.coap, self.secure_coap) if part is not None]
        if not coaps:
            return
        holders = [self.sessions]
        if self.secure_coap is not None:
            holders.append(self.secure_coap.server.sessions)
        for sessions in holders:
            sessions.add_section(
                "coap", lambda: {part.transport: part.server.figures() for part in coaps}
            )

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
    from twisted_net.http.fetch import Fetcher

    return Fetcher.guarded(reactor, config.http, config.fetch)


def _nobody(name: str) -> Permissions:
    """Give what a user may do where there are none, and so no one ever is."""
    return Permissions(name, User(commands=()))
