"""The service as a whole: assembled from a configuration, started, drained and stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.commands.handler_call import session_of_call
from twisted_net.commands.registry import Commands
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import ConfigError
from twisted_net.http.client import Client
from twisted_net.http.fetch import Fetcher
from twisted_net.http.settings import FetchSettings
from twisted_net.net.addresses import is_local
from twisted_net.net.memory_ledger import MemoryLedger
from twisted_net.net.name_lookups import NameLookups
from twisted_net.net.periodic_call import PeriodicCall
from twisted_net.net.reactor import AnyReactor, ServiceReactor, full_reactor
from twisted_net.net.steady_clock import steady
from twisted_net.net.tls_policy import check_tls_files
from twisted_net.net.worker_threads import WorkerThreads
from twisted_net.ops.audit import Audit
from twisted_net.ops.instruments import Instruments
from twisted_net.ops.latency_probe import LatencyProbe
from twisted_net.ops.long_turns import LongTurns
from twisted_net.ops.process_info import usage, versions
from twisted_net.ops.slowlog import SlowLog
from twisted_net.ops.turn_watch import TurnWatch
from twisted_net.reasons import End
from twisted_net.service.application import Application
from twisted_net.service.application_runner import (
    ApplicationContext,
    ApplicationRunner,
    ApplicationTimers,
)
from twisted_net.service.commands import configured_applications, configured_handler
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
from twisted_net.service.login import configured_authenticator
from twisted_net.service.preload import preload
from twisted_net.sessions.hooks import SessionHooks
from twisted_net.sessions.registry import Sessions
from twisted_net.tcp.admission import Access
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.listener_settings import Listener
from twisted_net.topics.registry import Topics
from twisted_net.turns.broadcast_scheduler import pacings

_SERVICE_NAMES = {
    "tcp": "tcp",
    "tcp+tls": "tls",
    "udp": "udp",
    "udp+dtls": "udp+dtls",
    "coap": "coap",
    "coap+dtls": "coaps",
}
"""Names of services in announcements, by the transport of the listener."""

if TYPE_CHECKING:
    from twisted_net.service.topic_file import TopicFile

PROGRESS_INTERVAL = 1.0
"""Seconds between log lines that report the connections that are left while draining."""


@check_arguments
class NetService(MultiService):
    """
    All servers that a configuration describes, as one service for any Twisted application.

    If a port cannot be bound when it starts, the ports that were bound before are released.
    ``stopService`` closes the ports, notifies the clients, answers the requests that were
    received, closes the connections, and aborts those that are left after ``drain_timeout``. Its
    Deferred fires when no port, connection or timer is left. The service can be started again.

    :param reactor: the one that the application runs.
    :param commands: your own commands, in addition to those that *config* names.
    :param applications: yours, in addition to those that *config* names.
    :ivar sessions: the clients of all stream listeners (TCP, Unix sockets, WebSocket).
    :ivar tcp: the command server of ``[tcp]``, or None if it is not enabled.
    :ivar listeners: the command servers of ``listeners``, in their order.
    :ivar udp: the first socket of the datagram server, or None if it is not enabled.
    :ivar udp_sockets: its other sockets.
    :ivar coap: the CoAP server, or None if it is not enabled.
    :ivar secure_udp: the datagram server over DTLS, or None if it has no certificate.
    :ivar secure_coap: the CoAP server over DTLS, or None if it has no certificate.
    :raises ConfigError: for commands, users or certificates that cannot be loaded. Starting
        raises its subclass :class:`~twisted_net.errors.CannotListen`.
    :raises ValueError: for a command whose name is taken.
    """

    log = Logger()
    _started: Deferred[None] | None = None  # the start of the applications, until the stop
    _starting = False
    _start_failure: Failure | None = None

    def __init__(
        self,
        reactor: AnyReactor,
        config: Config | None = None,
        commands: Commands | None = None,
        applications: Sequence[Application] = (),
    ) -> None:
        MultiService.__init__(self)
        reactor = full_reactor(reactor)
        self._reactor = steady(reactor)
        config = config or Config()
        preload(config)
        self._authenticator = authenticator = configured_authenticator(reactor, config.auth)
        self._access = Access(
            config.auth,
            authenticator.permissions_of if authenticator else _no_permissions,
            admin_elsewhere=any(listener.admin for listener in config.further_listeners),
        )
        log_in = authenticator.log_in if authenticator else None
        registry, found = configured_applications(config, applications, self._fetch, log_in)
        if commands is not None:
            registry.update(commands)
        self._lookups = _name_lookups(reactor, config.fetch)
        self._new_fetcher = partial(
            Fetcher.guarded, reactor, config.http, config.fetch, self._lookups, _owner_of_call
        )
        self._fetcher: Fetcher | None = None
        check_tls_files(config.http.tls, "http")
        self.sessions = self._new_sessions(reactor, config, found)
        self.tcp, self.listeners = self._command_listeners(reactor, config, registry)
        handler = configured_handler(config)
        sockets = datagram_listeners(reactor, config.udp, handler)
        self.udp, self.udp_sockets = (sockets[0] if sockets else None), sockets[1:]
        self.coap = None
        if config.coap.enabled:
            self.coap = CoapListener(reactor, config, registry, self._access, self.sessions)
        self.secure_udp = self.secure_coap = None
        if config.udp.dtls.enabled:
            self.secure_udp = SecureDatagramListener(reactor, config, self.sessions, handler)
        if config.coap.dtls.enabled:
            self.secure_coap = SecureCoapListener(
                reactor, config, registry, self._access, self.sessions
            )
        self._add_figures()
        self._add_coap_section()
        context = partial(self._new_context, config, registry)
        self._applications = ApplicationRunner(reactor, found, context, config.drain_timeout)
        self._client: Client | None = None  # that of the applications
        self._new_client = partial(Client, reactor, config.http, resolver=self._lookups)
        self._topic_file = _topic_file(reactor, config, self.sessions.topics)
        self._waiters: list[Deferred[None]] = []
        served = (
            *(self.tcp, *self.listeners, self.udp, *self.udp_sockets, self.coap),
            *(self.secure_udp, self.secure_coap),
        )
        self._served: list[ListenerService] = [part for part in served if part is not None]
        self._served += self._group_listeners(config)
        for part in (*self._probes(), *self._refreshes(config), *self._served):
            part.setServiceParent(self)

    @property
    def busy_threads(self) -> int:
        """How many threads run a blocking command or check a password."""
        coaps = [part for part in (self.coap, self.secure_coap) if part is not None]
        runners = [part.factory.runner for part in self.command_listeners]
        runners += [part.server.runner for part in coaps]
        logins = 0 if self._authenticator is None else self._authenticator.busy_threads
        return logins + sum(runner.busy_threads for runner in runners)

    @override
    def privilegedStartService(self) -> None:
        with self._releasing_ports_on_error():
            MultiService.privilegedStartService(self)

    @override
    def startService(self) -> None:
        self._lookups.start()
        if self._authenticator is not None:
            self._authenticator.start()
        with self._releasing_ports_on_error():
            MultiService.startService(self)
            if self._fetcher is None:
                self._fetcher = self._new_fetcher()
            self._start_applications()

    def when_started(self) -> Deferred[None]:
        """
        Return what fires when all applications have started; from then on clients are served.

        It fails with :class:`~twisted_net.errors.ApplicationFailed` if one cannot, and with
        CancelledError if the service is stopped before.
        """
        waiter: Deferred[None] = Deferred()
        if self._starting:
            self._waiters.append(waiter)
        elif self._start_failure is not None:
            waiter.errback(self._start_failure)
        else:
            waiter.callback(None)
        return waiter

    def _start_applications(self) -> None:
        """
        Start the applications; if one has to wait, nothing is accepted until all have started.

        :raises ApplicationFailed: if one fails at once.
        """
        self._starting, self._start_failure = True, None
        started = Deferred.fromCoroutine(self._start_all())
        self._started = started
        at_once = started.called
        if not at_once:
            for part in self._served:
                part.hold()
            started.addCallback(self._release)
        started.addBoth(self._end_starting)
        if not at_once:
            started.addCallback(self._check_start)
        elif (failure := self._failure_to_start()) is not None:
            failure.raiseException()

    async def _start_all(self) -> None:
        if self._topic_file is not None:
            await self._topic_file.start()
        await self._applications.start()

    def _failure_to_start(self) -> Failure | None:
        return self._start_failure

    def _end_starting(self, outcome: Failure | None) -> None:
        self._starting = False
        self._start_failure = outcome
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(outcome)  # a failure too

    def _check_start(self, _: None) -> None:
        """Stop, if an application that had to wait cannot start."""
        failure = self._failure_to_start()
        if failure is not None and failure.check(ConfigError):
            self.log.critical("{error}", error=failure.getErrorMessage())
            self._end_start(failure)

    def _release(self, _: None) -> None:
        for part in self._served:
            part.release()

    def _end_start(self, failure: Failure) -> None:
        """End a start that has failed after it had begun."""
        stopped = self.stopService()
        stopped.addErrback(lambda failure: self.log.failure("cannot stop", failure))

    def _new_context(
        self,
        config: Config,
        commands: Commands,
        application: Application,
        timers: ApplicationTimers,
        log: Logger,
    ) -> ApplicationContext:
        return ApplicationContext(
            settings=application.configured(config.app.get(application.name)),
            config=config,
            reactor=self._reactor,
            sessions=self.sessions,
            topics=self.sessions.topics,
            commands=commands,
            coap=[part.server for part in (self.coap, self.secure_coap) if part is not None],
            log=log,
            new_client=self._client_of_applications,
            timers=timers,
        )

    def _client_of_applications(self) -> Client:
        if self._client is None:
            self._client = self._new_client()
        return self._client

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
                "drained in {seconds:.2f} s: {connected} connections, {aborted} of them aborted",
                seconds=self._reactor.seconds() - began,
                connected=connected,
                aborted=self.sessions.counters.ended[End.ABORTED] - aborted,
            )
        coaps = [part.server for part in (self.coap, self.secure_coap) if part is not None]
        for sessions in (self.sessions, *(coap.sessions for coap in coaps)):
            await sessions.settle()
        await self.sessions.hooks.settle()
        started, self._started = self._started, None
        if started is not None:
            started.cancel()
        await self._applications.stop()
        if self._topic_file is not None:
            await self._topic_file.stop()
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        # Last: a FETCH that is being answered needs it until here.
        fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            await fetcher.close()
        self._lookups.stop()
        if self._authenticator is not None:
            self._authenticator.stop()

    @property
    def command_listeners(self) -> list[CommandListener]:
        """The command servers of ``[tcp]`` and of ``listeners``."""
        return [*([] if self.tcp is None else [self.tcp]), *self.listeners]

    def _new_sessions(
        self, reactor: ServiceReactor, config: Config, applications: Sequence[Application]
    ) -> Sessions:
        """Return the sessions of streams, with all that those of datagrams share."""
        hooks = SessionHooks()
        for application in applications:
            hooks.update(application.hooks)
        topics = Topics(config.topics, MemoryLedger(config.memory.limit))
        sessions = Sessions(time.time, topics, _instruments(reactor, config), hooks=hooks)
        sessions.use_pacing(*pacings(reactor, topics.memory))
        sessions.use_clock(reactor.seconds)
        sessions.add_section("server", self._server_figures)
        sessions.add_section("process", usage)
        return sessions

    def _probes(self) -> list[Service]:
        """Return what measures the reactor."""
        instruments, wall = self.sessions.instruments, self.sessions.wall
        return [
            LatencyProbe(self._reactor, instruments.latency, wall),
            TurnWatch(self._reactor, instruments.long_turns, wall),
        ]

    def _refreshes(self, config: Config) -> list[Service]:
        """Return what looks after changes of the users file, if there is one."""
        authenticator = self._authenticator
        if authenticator is None or config.auth.users is None:
            return []
        refresh, interval = authenticator.refresh, config.auth.refresh_interval / 2
        return [PeriodicCall(self._reactor, interval, lambda _: refresh())]

    def _group_listeners(self, config: Config) -> list[ListenerService]:
        """Return the listeners of multicast groups; they start after the ports that answer."""
        made: list[ListenerService] = []
        memory = self.sessions.memory
        if self.udp is not None and config.udp.multicast.groups:
            made.append(DatagramGroupListener(self._reactor, config, self.udp, memory))
        if self.coap is not None and config.coap.multicast.groups:
            made.append(CoapGroupListener(self._reactor, config, self.coap))
        if config.discovery.enabled:
            services = partial(self._services, config.discovery.local)
            made.append(AnnouncingListener(self._reactor, config.discovery, services))
        return made

    def _services(self, only_here: bool) -> dict[str, int]:
        """
        Return the ports to announce, by service name.

        :param only_here: announce to this machine only, hence loopback ports too.
        """
        found: dict[str, int] = {}
        for part in self._served:
            host = part.host
            if part.port is not None and host is not None and (only_here or not is_local(host)):
                found.setdefault(_SERVICE_NAMES.get(part.transport, ""), part.port)
        found.pop("", None)
        return found

    def _log_progress(self, connected: int) -> None:
        self.log.info(
            "draining: {left} of {connected} connections left",
            left=len(self.sessions),
            connected=connected,
        )

    def _server_figures(self) -> Mapping[str, object]:
        return {
            **versions(self._reactor),
            "uptime": round(self.sessions.uptime, 3),
            "listeners": [part.description for part in self._served],
        }

    def _command_listeners(
        self,
        reactor: ServiceReactor,
        config: Config,
        commands: Commands,
    ) -> tuple[CommandListener | None, list[CommandListener]]:
        """
        Return the listener of ``[tcp]``, if it is enabled, and those of ``listeners``.

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
                # The permissions of the socket file decide who may connect; they may do everything.
                None if listener.admin else self._access,
            )

        tcp = None
        if config.tcp.enabled:
            settings = config.tcp
            address = Listener(
                port=settings.port, interface=settings.interface, backlog=settings.backlog
            )
            tcp = make(address, settings)
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
        """Add figures of certificates and of DTLS to STATS, if there are any."""
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
        """Add the counters of the CoAP message layer to INFO, by transport."""
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
        """Return the seconds until the certificate of each host expires; the first, if several."""
        left: dict[str, float] = {}
        for listener in (*self.listeners, self.secure_udp, self.secure_coap):
            if listener is not None and listener.certificates is not None:
                for host, seconds in listener.certificates.seconds_left().items():
                    left[host] = min(seconds, left.get(host, seconds))
        return left

    async def _fetch(self, url: str) -> Mapping[str, object]:
        if self._fetcher is None:
            self._fetcher = self._new_fetcher()
        return await self._fetcher.fetch(url)

    @contextmanager
    def _releasing_ports_on_error(self) -> Iterator[None]:
        try:
            yield
        except ConfigError:
            # Ports close in the next reactor turn, or with the process if the reactor never runs.
            released = self.stopService()
            released.addErrback(lambda failure: self.log.failure("cannot release ports", failure))
            raise


def _instruments(reactor: ServiceReactor, config: Config) -> Instruments:
    audit, slow_log = Audit(reactor), SlowLog(config.slowlog)
    return Instruments(audit, slow_log, long_turns=LongTurns(config.latency))


def _topic_file(reactor: ServiceReactor, config: Config, topics: Topics) -> TopicFile | None:
    if config.topics.file is None:
        return None
    # Not at the top: few services have one.
    from twisted_net.service.topic_file import TopicFile

    return TopicFile(reactor, config.topics.file, topics, WorkerThreads(reactor, "topics", 1))


def _no_permissions(name: str) -> None:
    """Return no permissions: without users, no name is a user's."""


def _name_lookups(reactor: ServiceReactor, settings: FetchSettings) -> NameLookups:
    threads = WorkerThreads(reactor, "look-up", settings.lookup_threads, awaited=False)
    return NameLookups(reactor, _owner_of_call, threads=threads, limit=settings.max_lookups)


def _owner_of_call() -> str:
    """Return whose share a look-up or FETCH counts in that begins now; "" if it is no command's."""
    session = session_of_call.get()
    return "" if session is None else session.owner
