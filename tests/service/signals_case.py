"""A reactor in memory with signal handlers, and the restoration of real ones."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.service.signals import ENDING


class Reactor(MemoryReactorClock):
    """A reactor in memory with thread pool and signal handlers, like real ones."""

    threadpool: Any = None  # Any: a fake
    threads = 0
    stops = 0
    running = True

    def suggestThreadPoolSize(self, size: int) -> None:
        """Record the size."""
        self.threads = size

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Call it in the next turn."""
        self.callLater(0, function, *arguments)

    def stop(self) -> None:
        """Raise when stopped twice, as real reactors do."""
        self.stops += 1
        if self.stops > 1:
            raise ReactorNotRunning

    def sigTerm(self, number: int, frame: object) -> None:
        """Stand for Twisted's own handler."""

    def sigInt(self, number: int, frame: object) -> None:
        """Stand for Twisted's own handler."""


class Handlers(SynchronousTestCase):
    """Restores the signal handlers, and the signals held, that a test replaced."""

    def setUp(self) -> None:
        self.reactor: Any = Reactor()  # Any: without what the service does not use
        for number in (signal.SIGTERM, signal.SIGINT, *ENDING):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, held)
        signal.signal(signal.SIGTERM, self.reactor.sigTerm)
        signal.signal(signal.SIGINT, self.reactor.sigInt)
