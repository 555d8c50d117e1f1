"""The service as a process: failing starts, signals, threads that delay its exit."""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import sys
from typing import Any, cast

from twisted.internet.error import CannotListenError
from twisted.logger import LogEvent, globalLogPublisher

from tests.service.signals_case import Handlers, Reactor
from twisted_net.errors import CannotStart
from twisted_net.net.log_limiter import LogLimiter
from twisted_net.net.reactor import ProcessReactor
from twisted_net.service import process
from twisted_net.service.config import Config, UdpSettings
from twisted_net.service.full_collections import NEVER
from twisted_net.service.process import ProcessService
from twisted_net.twisted_internals import log_observers


class TakenReactor(Reactor):
    """A reactor whose ports are all in use."""

    def listenTCP(self, *arguments: Any, **options: Any) -> Any:  # Any: never reached
        """Fail as Linux does."""
        raise CannotListenError("", 8888, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))


class ProcessServiceTests(Handlers):
    """:class:`ProcessService`: start, signals and threads."""

    def service(self, reactor: Reactor | None = None) -> ProcessService:
        """Make a service without UDP, whose port is always a real socket."""
        config = Config(threads=3, udp=UdpSettings(enabled=False))
        return ProcessService(cast(ProcessReactor, reactor or self.reactor), config)

    def test_start(self) -> None:
        """It sets the size of the thread pool; when the reactor runs it takes over from Python."""
        full = gc.get_threshold()[2]
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        service = self.service()
        service.privilegedStartService()
        service.startService()
        self.assertEqual(self.reactor.threads, 3)
        self.assertEqual(signal.getsignal(signal.SIGTERM), self.reactor.sigTerm)
        before = log_observers()
        for hook, arguments, options in self.reactor.whenRunningHooks:
            hook(*arguments, **options)
        (limiter,) = log_observers()
        globalLogPublisher.removeObserver(limiter)
        for observer in before:
            globalLogPublisher.addObserver(observer)
        self.assertIsInstance(limiter, LogLimiter)
        self.assertNotEqual(signal.getsignal(signal.SIGTERM), self.reactor.sigTerm)
        self.assertEqual(gc.get_threshold()[2], NEVER if full else full)  # 0 since Python 3.14

    def test_port_that_is_taken(self) -> None:
        """Both steps of the start exit with a message and status 1 if a port is in use."""
        service = self.service(TakenReactor())
        for start in (service.privilegedStartService, service.startService):
            with self.subTest(start=start.__name__):
                error = self.assertRaises(CannotStart, start)
                self.assertIsInstance(error, SystemExit)
                self.assertIsInstance(error, Exception)
                self.assertEqual(
                    error.code, "cannot listen on 127.0.0.1:8888 (tcp): address already in use"
                )

    def test_standard_error_that_is_the_log(self) -> None:
        """If standard error is redirected to a log, the message is also written to the real one."""
        real = io.StringIO()
        self.patch(sys, "__stderr__", real)
        self.patch(sys, "stderr", io.StringIO())
        self.assertRaises(CannotStart, self.service(TakenReactor()).startService)
        self.assertEqual(
            real.getvalue(), "cannot listen on 127.0.0.1:8888 (tcp): address already in use\n"
        )

    def test_standard_error_that_is_not_there(self) -> None:
        """A process without a standard error fails in the same way."""
        self.patch(sys, "__stderr__", None)
        self.assertRaises(CannotStart, self.service(TakenReactor()).startService)

    def test_standard_error_as_it_is(self) -> None:
        """If standard error is not redirected, the message is printed once, by Python."""
        real = io.StringIO()
        self.patch(sys, "__stderr__", real)
        self.patch(sys, "stderr", real)
        self.assertRaises(CannotStart, self.service(TakenReactor()).startService)
        self.assertEqual(real.getvalue(), "")

    def stop(self, busy: int | None, own: int = 0) -> list[object]:
        """
        Stop a service, and return the timers that were set.

        :param busy: threads of the reactor's pool that work; None if there is no pool.
        :param own: threads of the service that work.
        """
        self.patch(ProcessService, "busy_threads", own)
        timers: list[object] = []
        self.patch(signal, "setitimer", lambda which, seconds: timers.append(seconds))
        if busy is not None:
            self.reactor.threadpool = type("Pool", (), {"working": [None] * busy})
        service = self.service()
        service.startService()
        self.successResultOf(service.stopService())
        return timers

    def test_no_threads(self) -> None:
        """Without busy threads, no timer is set."""
        self.assertEqual(self.stop(None), [])
        self.assertEqual(self.stop(0), [])

    def test_busy_threads(self) -> None:
        """With busy threads the process exits after a grace period, with status 1."""
        heard: list[LogEvent] = []
        observe: Any = heard.append  # Any: an observer is any callable
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.assertEqual(self.stop(2), [process.THREADS_GRACE])
        self.assertEqual(self.stop(1, own=3), [process.THREADS_GRACE])
        self.assertEqual([event["busy"] for event in heard if "busy" in event], [2, 4])
        ended: list[int] = []
        self.patch(os, "_exit", ended.append)
        signal.raise_signal(signal.SIGALRM)
        self.assertEqual(ended, [1])
