"""Tests for :mod:`twisted_net.service.process_log`."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, LogPublisher, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.log_limiter import BURST
from twisted_net.service import process_log
from twisted_net.service.process_log import is_limited, limit_process_log

LIMITED: tuple[LogEvent, ...] = (
    {"log_namespace": "twisted.internet.defer"},
    {"log_namespace": "twisted_net.tcp.server.CommandFactory"},
    {"log_namespace": "twisted_net"},
    {"log_namespace": "log_legacy", "isError": 1},
)
UNLIMITED: tuple[LogEvent, ...] = (
    {"log_namespace": "log_legacy", "isError": 0},
    {"log_namespace": "shop.orders"},
    {"log_namespace": "twisted_net.audit"},
    {"log_namespace": "twisted_networks"},
    {},
)


class LimitTests(SynchronousTestCase):
    """:func:`limit_process_log` puts a limiter before the observers that there are."""

    def setUp(self) -> None:
        self.heard: list[list[LogEvent]] = [[], []]
        observers = [cast(ILogObserver, events.append) for events in self.heard]
        self.publisher = LogPublisher(*observers)
        self.patch(process_log, "globalLogPublisher", self.publisher)

    def test_limited(self) -> None:
        """Each observer gets the same events: few of Twisted's, all of an operator's commands."""
        self.patch(process_log, "log_observers", lambda: list(self.publisher._observers))
        limit_process_log(Clock().seconds)
        for _ in range(1000):
            Logger("twisted.internet.base", observer=self.publisher).error("it failed")
            Logger("shop.orders", observer=self.publisher).info("an order")
        for events in self.heard:
            failed = [event for event in events if event["log_format"] == "it failed"]
            self.assertEqual(len(failed), BURST)
            self.assertEqual(len(events) - len(failed), 1000)

    def test_unknown_publisher(self) -> None:
        """With another Twisted, the log stays as it is."""
        self.patch(process_log, "log_observers", list)
        limit_process_log(Clock().seconds)
        for _ in range(1000):
            Logger("twisted.internet.base", observer=self.publisher).error("it failed")
        self.assertEqual([len(events) for events in self.heard], [1000, 1000])

    def test_which(self) -> None:
        """What Twisted, this package and caught errors log is limited."""
        self.assertEqual([event for event in LIMITED if not is_limited(event)], [])
        self.assertEqual([event for event in UNLIMITED if is_limited(event)], [])

    def test_unhandled(self) -> None:
        """The two events of an unhandled error are among them."""
        events: list[LogEvent] = []
        observe = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        failed: Deferred[None] = Deferred()
        failed.errback(Failure(ValueError("nobody hears")))
        del failed
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual([is_limited(event) for event in events], [True, True])
