"""What the service does where it has a process of its own: signals, threads, exit status."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.errors import CannotListen, CannotStart
from twisted_net.service.config import Config
from twisted_net.service.net import NetService

THREADS_GRACE = 1.0
"""Seconds that blocking commands have beyond ``drain_timeout``: a thread cannot be aborted."""

SPARE_DESCRIPTORS = 256
"""File descriptors beyond those of TCP clients: ports, HTTP connections, files, refusals."""

log = Logger()


class StopSignals:
    """
    Makes the first SIGTERM or SIGINT stop the reactor, and the second end the process.

    Twisted itself logs a traceback for the second, and goes on waiting. It also ends a process
    that a signal stopped by that signal; this one has then done as it was told, and its status
    is 0.

    :param end: called with the number of the second signal; it does not return.
    """

    def __init__(self, reactor: Any, end: Callable[[int], object]) -> None:  # Any: see NetService
        self._reactor = reactor
        self._end = end
        self._stopping = False

    def install(self) -> None:
        """Take the place of the running reactor's own handlers; a debugger's is left alone."""
        for number, handler in (
            (signal.SIGTERM, self._reactor.sigTerm),
            (signal.SIGINT, self._reactor.sigInt),
        ):
            if signal.getsignal(number) == handler:
                signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self._stopping:
            self._stopping = True
            log.info("{signal}: stopping; another one ends the process at once", signal=name)
            self._reactor.callFromThread(self._stop)
            return
        try:
            log.warn("another {signal}: ending at once", signal=name)
        finally:
            # Whatever the log was doing when the signal came.
            self._end(number)

    def _stop(self) -> None:
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            log.debug("the reactor is stopping already")


class ProcessService(NetService):
    """
    The service as launchers run it.

    A port that is taken ends the process. Signals are those of :class:`StopSignals`. Threads
    that are still busy when everything else is done hold the process for
    :data:`THREADS_GRACE` seconds and no longer.
    """

    def __init__(self, reactor: Any, config: Config) -> None:  # Any: see NetService
        super().__init__(reactor, config)
        self._reactor = reactor
        self._threads = config.threads
        self._connections = config.tcp.max_connections

    @override
    def privilegedStartService(self) -> None:
        with _ends_the_start():
            super().privilegedStartService()

    @override
    def startService(self) -> None:
        with _ends_the_start():
            super().startService()
        if self.tcp is not None:
            raise_descriptor_limit(self._connections + SPARE_DESCRIPTORS)
        self._reactor.suggestThreadPoolSize(self._threads)
        # Once it runs, as it installs its own handlers when it starts.
        self._reactor.callWhenRunning(StopSignals(self._reactor, end_by_signal).install)
        self._reactor.callWhenRunning(freeze_what_stays)

    @override
    def stopService(self) -> Deferred[None]:
        return super().stopService().addCallback(self._leave_threads)

    def _leave_threads(self, _: None) -> None:
        # The reactor's next step waits for its threads without end. Only signals get through.
        pool = self._reactor.threadpool
        busy = len(pool.working) if pool is not None else 0
        if busy:
            log.warn("{busy} threads are still busy", busy=busy)
            signal.signal(signal.SIGALRM, _end_without_threads)
            signal.setitimer(signal.ITIMER_REAL, THREADS_GRACE)


def freeze_what_stays() -> None:
    """
    Spare the garbage collector the modules and all else that the process has from its start on.

    To go through them takes it 30 ms each time, while everybody waits, and finds nothing.
    """
    gc.collect()
    gc.freeze()


def raise_descriptor_limit(needed: int) -> None:
    """Raise the soft limit of file descriptors to *needed*, or as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warn(
            "only {allowed} file descriptors are allowed, where tcp.max_connections needs {needed}",
            allowed=allowed,
            needed=needed,
        )


@contextmanager
def _ends_the_start() -> Iterator[None]:
    try:
        yield
    except CannotListen as error:
        # Python writes the message to sys.stderr, which is the log under twistd. The person
        # who starts it looks at the real one.
        if sys.stderr is not sys.__stderr__ and sys.__stderr__ is not None:
            sys.__stderr__.write(f"{error}\n")
        raise CannotStart(str(error)) from error


def end_by_signal(number: int) -> NoReturn:
    """End the process at once, as the signal does where nobody handles it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a container survives that signal


def _end_without_threads(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(1)
