"""The service in a process of its own: signals, file descriptors, threads, exit status."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.errors import CannotStart, ConfigError
from twisted_net.net.reactor import ProcessReactor
from twisted_net.service.config import Config
from twisted_net.service.descriptors import fit_connections
from twisted_net.service.full_collections import FullCollections
from twisted_net.service.net import NetService
from twisted_net.service.process_log import limit_process_log
from twisted_net.service.signals import ProcessSignals, StopSignals, end_by_signal
from twisted_net.service.young_collections import YoungCollections

THREADS_GRACE = 1.0
"""Seconds after ``drain_timeout`` for blocking commands to return: a thread cannot be aborted."""

log = Logger()


class ProcessService(NetService):
    """
    The service as ``twistd``, ``twist`` and ``twisted-net`` run it.

    A port that cannot be bound ends the process. :class:`StopSignals` handles the signals that stop
    it, :class:`ProcessSignals` the others that would end it, from before it listens. Threads
    that are still busy when everything else has stopped delay the exit for at most
    :data:`THREADS_GRACE` seconds; the status is then 1. While it runs the reactor looks up names as
    the service does, for commands of your own, too.
    """

    def __init__(self, reactor: ProcessReactor, config: Config) -> None:
        super().__init__(reactor, config)
        self._process_reactor = reactor
        self._signals: ProcessSignals | None = None
        self._threads = config.threads
        self._resolver: IHostnameResolver | None = None  # the reactor's own, while it has ours
        young = YoungCollections(reactor)
        for collections in (young, FullCollections(reactor, young)):
            service: Service = collections
            service.setServiceParent(self)

    @override
    def privilegedStartService(self) -> None:
        self._handle_signals()
        with _exiting_on_failed_start():
            super().privilegedStartService()

    @override
    def startService(self) -> None:
        self._handle_signals()
        with _exiting_on_failed_start():
            super().startService()
        fit_connections([listener.factory for listener in self.command_listeners])
        self._reactor.suggestThreadPoolSize(self._threads)
        if self._resolver is None:
            self._resolver = self._reactor.installNameResolver(self._lookups)
        # When the reactor runs: it installs its own handlers when it starts.
        self._reactor.callWhenRunning(StopSignals(self._process_reactor, end_by_signal).install)
        # By then, every launcher has set up its log.
        self._reactor.callWhenRunning(limit_process_log, self._reactor.seconds)

    @override
    def stopService(self) -> Deferred[None]:
        return super().stopService().addCallback(self._bound_busy_threads)

    @override
    def _end_start(self, failure: Failure) -> None:
        _show(failure.getErrorMessage())
        # No launcher asks for a status once the reactor has run.
        atexit.register(_exit_failed)
        self._process_reactor.stop()

    def _handle_signals(self) -> None:
        if self._signals is None:
            self._signals = ProcessSignals(self._process_reactor)
            self._signals.install()

    def _bound_busy_threads(self, _: None) -> None:
        if self._resolver is not None:
            self._reactor.installNameResolver(self._resolver)
            self._resolver = None
        # Next, the reactor waits for threads without a time limit; only a signal interrupts that.
        pool = self._process_reactor.threadpool
        busy = self.busy_threads + (len(pool.working) if pool is not None else 0)
        if busy:
            log.warn(
                "{busy} threads are still busy; they have {grace:g} s to finish",
                busy=busy,
                grace=THREADS_GRACE,
            )
            signal.signal(signal.SIGALRM, _exit_now)
            signal.setitimer(signal.ITIMER_REAL, THREADS_GRACE)


@contextmanager
def _exiting_on_failed_start() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        # Python writes the message of a SystemExit to sys.stderr, too.
        if sys.stderr is not sys.__stderr__:
            _show(str(error))
        raise CannotStart(str(error)) from error


def _show(message: str) -> None:
    """Write to the real standard error, which the person reads who starts the service."""
    # twistd redirects the other one to its log.
    if sys.__stderr__ is not None:
        sys.__stderr__.write(f"{message}\n")


def _exit_failed() -> NoReturn:
    """End the process with status 1, after all else that is done at its end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _exit_now(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(1)
