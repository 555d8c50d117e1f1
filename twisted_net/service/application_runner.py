"""Application runner: starts and stops the applications of a service, and runs their timers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.commands.registry import Commands
from twisted_net.config.callbacks import check_callback
from twisted_net.config.foreign_code import describe_failure
from twisted_net.errors import ApplicationFailed
from twisted_net.net.log_limiter import TracebackRate
from twisted_net.net.periodic_call import PeriodicCall
from twisted_net.net.reactor import ServiceReactor
from twisted_net.service.application import Application
from twisted_net.sessions.registry import Sessions
from twisted_net.topics.registry import Topics

# Neither is imported by a service that does not use it.
if TYPE_CHECKING:
    from twisted_net.coap.server import CoapServer
    from twisted_net.http.client import Client
    from twisted_net.service.config import Config


@frozen
class ApplicationContext:
    """
    What a service offers to an application.

    :param settings: the application's own, as its record; None if it has none.
    :param config: of the service.
    :param reactor: its clock is steady.
    :param sessions: the clients of all streams: TCP, TLS, WebSocket, Unix sockets.
    :param topics: those of all ports.
    :param commands: all commands of the service.
    :param coap: the CoAP servers, plain and over DTLS.
    :param log: with the namespace of the application.
    """

    settings: Any  # Any: the application knows its record
    config: Config
    reactor: ServiceReactor
    sessions: Sessions
    topics: Topics
    commands: Commands
    coap: Sequence[CoapServer]
    log: Logger
    _new_client: Callable[[], Client]
    _timers: ApplicationTimers

    @property
    def http(self) -> Client:
        """
        An HTTP client with the settings of ``[http]``, which the service closes.

        All applications share it. It reaches every destination, other than FETCH.
        """
        return self._new_client()

    def notify(self, path: str, *arguments: str) -> None:
        """
        Notify the observers of a resource over CoAP, plain and over DTLS, that it has changed.

        :param arguments: notify those that observe it with these arguments alone; with none, all.
        """
        for server in self.coap:
            server.notify(path, *arguments)

    def every(self, seconds: float, function: Callable[[], object]) -> None:
        """
        Call a function at an interval, the first time after one interval, until the service stops.

        It may be ``async``; while it runs it is not called again. What it raises is logged.

        :raises ValueError: for an interval that is not above 0.
        """
        if not seconds > 0:
            raise ValueError(f"every: {seconds!r} is no interval; it must be above 0")
        check_callback("a function for every", function)
        self._timers.add(seconds, function)


class ApplicationTimers:
    """The timers of one application, and what they have begun."""

    def __init__(self, reactor: ServiceReactor, log: Logger) -> None:
        self._reactor = reactor
        self._log = log
        self._rate = TracebackRate()
        self._calls: list[PeriodicCall] = []
        self._running: dict[Callable[[], object], Deferred[object]] = {}
        self._stopped = False

    def add(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function at an interval; not once the timers are stopped."""
        if self._stopped:
            return
        call = PeriodicCall(self._reactor, seconds, lambda late: self._call(function))
        self._calls.append(call)
        call.startService()

    def stop(self) -> None:
        """Call nothing any more, and cancel what runs."""
        self._stopped = True
        for call in self._calls:
            call.stopService()
        for running in list(self._running.values()):
            running.cancel()

    def _call(self, function: Callable[[], object]) -> None:
        if function in self._running:
            return
        running = self._running[function] = call_application(function)
        running.addErrback(self._failed, function)
        running.addBoth(lambda _: self._running.pop(function, None))

    def _failed(self, failure: Failure, function: Callable[[], object]) -> None:
        cancelled = self._stopped and failure.check(CancelledError)
        if not cancelled and self._rate.take(self._reactor.seconds()):
            name = getattr(function, "__qualname__", repr(function))
            self._log.failure("{function}, called by a timer, failed", failure, function=name)


def call_application(function: Callable[..., object], *arguments: object) -> Deferred[object]:
    """Call a function of an application; return what fires with its value, or what it raised."""

    async def call() -> object:
        value = function(*arguments)
        return await value if isinstance(value, Awaitable) else value

    return Deferred.fromCoroutine(call())


class ApplicationRunner:
    """
    Starts and stops the applications of one service.

    :param new_context: makes what an application is started with.
    :param timeout: seconds for each function to stop.
    """

    log = Logger()

    def __init__(
        self,
        reactor: ServiceReactor,
        applications: Sequence[Application],
        new_context: Callable[[Application, ApplicationTimers, Logger], ApplicationContext],
        timeout: float,
    ) -> None:
        self._reactor = reactor
        self._applications = applications
        self._new_context = new_context
        self._timeout = timeout
        self._begun: list[tuple[Application, ApplicationTimers]] = []

    async def start(self) -> None:
        """
        Start the applications, one after the other.

        To stop midway, cancel this, and call :meth:`stop`.

        :raises ApplicationFailed: if one cannot start.
        """
        for application in self._applications:
            log = Logger(namespace=f"application.{application.name}")
            timers = ApplicationTimers(self._reactor, log)
            self._begun.append((application, timers))
            for function in application.starts:
                try:
                    context = self._new_context(application, timers, log)
                    await call_application(function, context)
                except CancelledError:
                    raise
                # The module is not ours and may raise anything; its author needs the reason.
                except BaseException as error:
                    raise ApplicationFailed(application.name, describe_failure(error)) from error

    async def stop(self) -> None:
        """Stop the applications whose start had begun, the last one first. Idempotent."""
        while self._begun:
            application, timers = self._begun.pop()
            timers.stop()
            for function in reversed(application.stops):
                stopped = call_application(function)
                stopped.addTimeout(self._timeout, self._reactor)
                try:
                    await stopped
                except DeferredTimeout:
                    self.log.warn(
                        "application {name}: its stop was cancelled after {timeout:g} s",
                        name=application.name,
                        timeout=self._timeout,
                    )
                # As above.
                except BaseException:
                    self.log.failure("application {name}: its stop failed", name=application.name)
