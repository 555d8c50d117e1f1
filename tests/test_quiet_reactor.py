"""The quiet reactor behaves like the epoll reactor, without its log context."""

from __future__ import annotations

import errno
import os
import socket
from select import EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any, cast
from unittest.mock import patch

from twisted.application.reactors import getReactorTypes
from twisted.internet import epollreactor
from twisted.internet.error import ConnectionDone, ConnectionFdescWentAway, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.python import context, log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_net import quiet_reactor as module
from twisted_net.quiet_reactor import EVENTS_BUDGET, EVENTS_PER_BATCH, QuietEPollReactor
from twisted_net.turns.steps import ENDS_AT_ONCE
from twisted_net.turns.turn_clock import TurnClock
from twisted_net.twisted_internals import quiet_reactor_changes


class Descriptor:
    """
    A descriptor whose behaviour a test sets.

    :ivar calls: the methods that the reactor has called, each with the log prefix.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.calls: list[tuple[object, object]] = []
        self.on_event: Any = lambda: None  # Any: reasons are of any form
        self.on_pending: Any = lambda: None

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self.fd

    def logPrefix(self) -> str:
        """Return the log prefix, for the reactor's own messages."""
        return "prefix"

    def doRead(self) -> object:
        """Record that it is readable."""
        self._note("read")
        return self.on_event()

    def doWrite(self) -> object:
        """Record that it is writable."""
        self._note("write")
        return self.on_event()

    def write_pending(self) -> None:
        """Record that the batch of events is complete."""
        self._note("write pending")
        self.on_pending()

    def connectionLost(self, reason: Failure) -> None:
        """Record that it is lost."""
        self._note(reason.type)

    def _note(self, what: object) -> None:
        system = cast(dict[str, object], context.get(log.ILogContext))["system"]
        self.calls.append((what, system))


@implementer(IHalfCloseableDescriptor)
class HalfDescriptor(Descriptor):
    """The same with half-close."""

    def readConnectionLost(self, reason: Failure) -> None:
        """Record that the reading side was closed."""
        self._note("half")

    def writeConnectionLost(self, reason: Failure) -> None:
        """Do nothing: no reactor of Twisted's calls it."""


class QuietReactorTestCase(SynchronousTestCase):
    """Has a quiet reactor, and makes descriptors for it."""

    def setUp(self) -> None:
        self.now = 0.0
        made: Any = QuietEPollReactor  # Any: epoll reactors have no types
        self.reactor = made()
        # However busy the machine is, a turn has time for all its events.
        self.reactor._stopwatch = lambda: self.now
        self.addCleanup(self.reactor._poller.close)
        for end in (self.reactor.waker.i, self.reactor.waker.o):
            self.addCleanup(os.close, end)
        self.readable, self.writable = os.pipe()
        self.addCleanup(os.close, self.readable)
        self.addCleanup(self._close_writable)

    def _close_writable(self) -> None:
        if self.writable != -1:
            os.close(self.writable)
            self.writable = -1

    def read(self, on_event: Any = lambda: None, kind: Any = Descriptor) -> Descriptor:
        """Make a descriptor readable, and run a turn."""
        descriptor: Descriptor = kind(self.readable)
        descriptor.on_event = on_event
        self.reactor.addReader(descriptor)
        os.write(self.writable, b"x")
        self.reactor.doPoll(0)
        return descriptor

    def pending(self, number: int) -> list[Descriptor]:
        """Make readable descriptors, which write after the batch."""
        descriptors = []
        for _ in range(number):
            readable, writable = os.pipe()
            self.addCleanup(os.close, readable)
            self.addCleanup(os.close, writable)
            os.write(writable, b"x")
            descriptor = Descriptor(readable)
            descriptor.on_event = lambda it=descriptor: self.reactor.pending_writes.append(it)
            self.reactor.addReader(descriptor)
            descriptors.append(descriptor)
        return descriptors


class QuietEPollReactorTests(QuietReactorTestCase):
    """:class:`QuietEPollReactor` dispatches the events of one poll."""

    def test_no_prefix(self) -> None:
        """Reading and writing run without a log context of their own."""
        self.assertEqual(self.read().calls, [("read", "-")])
        descriptor = Descriptor(self.writable)
        self.reactor.addWriter(descriptor)
        self.reactor.doIteration(0)
        self.assertEqual(descriptor.calls, [("write", "-")])

    def test_logging(self) -> None:
        """Messages of a protocol have level, format and namespace, and no prefix as system."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)  # mypy sees no function's interface
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.read(lambda: Logger("shop.orders").warn("{count} orders wait", count=3))
        self.read(lambda: log.msg("in the old way"))
        (event, old) = events
        self.assertEqual(formatEvent(event), "3 orders wait")
        self.assertEqual(
            {name: event[name] for name in ("log_level", "log_format", "log_namespace", "count")},
            {
                "log_level": LogLevel.warn,
                "log_format": "{count} orders wait",
                "log_namespace": "shop.orders",
                "count": 3,
            },
        )
        self.assertNotIn("log_system", event)
        self.assertEqual(old["system"], "-")

    def test_nothing_to_do(self) -> None:
        """A poll without events calls no descriptor; an interrupted one is not an error."""
        descriptor = Descriptor(self.readable)
        self.reactor.addReader(descriptor)
        self.reactor.doPoll(0)
        self.reactor._poller.close()
        for error, raised in ((errno.EINTR, False), (errno.EBADF, True)):
            self.reactor._poller = Failing(OSError(error, "told to"))
            if raised:
                self.assertRaises(OSError, self.reactor.doPoll, None)
            else:
                self.reactor.doPoll(None)
                self.assertEqual(self.reactor._poller.timeout, -1)
        self.assertEqual(descriptor.calls, [])

    def test_turns(self) -> None:
        """A clock measures each turn, from the end of a poll to the begin of the next one."""
        time = Clock()
        reported: list[tuple[float, float]] = []
        turns = TurnClock(time.seconds, lambda began, ended: reported.append((began, ended)))
        turns.limit = 0.5
        self.reactor.measure_turns(turns)
        self.read(lambda: time.advance(1))
        self.assertEqual((turns.began, reported), (0, []))
        time.advance(1)  # a timer of this turn
        self.reactor._poller.close()
        self.reactor._poller = Failing(OSError(errno.EINTR, "told to"))
        self.reactor.doPoll(None)
        self.assertEqual((turns.began, reported), (None, [(0, 2)]))
        self.reactor.measure_turns(None)
        self.reactor.doPoll(None)
        self.assertIsNone(turns.began)

    def test_reasons(self) -> None:
        """A reason returned by doRead or doWrite ends the descriptor, under its prefix."""
        for reason, kind in ((CONNECTION_LOST, ConnectionLost), (CONNECTION_DONE, ConnectionDone)):
            descriptor = self.read(lambda reason=reason: reason)
            self.assertEqual(descriptor.calls, [("read", "-"), (kind, "prefix")])
            self.assertNotIn(descriptor, self.reactor.getReaders())
        descriptor = Descriptor(self.writable)
        descriptor.on_event = lambda: CONNECTION_DONE
        self.reactor.addWriter(descriptor)
        self.reactor.doPoll(0)
        self.assertEqual(descriptor.calls, [("write", "-"), (ConnectionDone, "prefix")])
        self.assertEqual(self.reactor.getWriters(), [])

    def test_half_close(self) -> None:
        """Only a clean end of reading is a half-close; errors and ends of writing are not."""
        descriptor = self.read(lambda: CONNECTION_DONE, HalfDescriptor)
        self.assertEqual(descriptor.calls, [("read", "-"), ("half", "prefix")])
        descriptor = self.read(raising(ConnectionDone()), HalfDescriptor)
        self.assertEqual(descriptor.calls, [("read", "-"), (ConnectionDone, "prefix")])
        self.flushLoggedErrors(ConnectionDone)
        descriptor = HalfDescriptor(self.writable)
        descriptor.on_event = lambda: CONNECTION_DONE
        self.reactor.addWriter(descriptor)
        self.reactor.doPoll(0)
        self.assertEqual(descriptor.calls, [("write", "-"), (ConnectionDone, "prefix")])

    def test_exception(self) -> None:
        """An exception is logged under the prefix and ends the descriptor, whatever it is."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)  # mypy sees no function's interface
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for error in (ZeroDivisionError(), KeyboardInterrupt()):
            descriptor = self.read(raising(error))
            self.assertEqual(descriptor.calls, [("read", "-"), (type(error), "prefix")])
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)
        failures = [event for event in events if event.get("isError")]
        self.assertEqual([event["system"] for event in failures], ["prefix", "prefix"])

    def test_exception_at_the_end(self) -> None:
        """An exception in connectionLost is logged, and the other events are handled."""
        descriptor = Descriptor(self.readable)
        other = Descriptor(self.writable)
        descriptor.on_event = lambda: CONNECTION_LOST
        self.patch(descriptor, "connectionLost", lambda reason: 1 / 0)
        os.write(self.writable, b"x")
        self.reactor.addReader(descriptor)
        self.reactor.addWriter(other)
        self.reactor.doPoll(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(other.calls, [("write", "-")])

    def test_other_events(self) -> None:
        """One that hangs up is read as long as there is something, and then ends."""
        descriptor = self.read()
        self._close_writable()
        self.reactor.doPoll(0)
        self.assertEqual(descriptor.calls, [("read", "-"), ("read", "-")])
        os.read(self.readable, 10)
        self.reactor.doPoll(0)
        self.assertEqual(descriptor.calls[2:], [(ConnectionDone, "prefix")])
        self.assertFalse({EPOLLIN | EPOLLHUP, EPOLLHUP} & {EPOLLIN, EPOLLOUT})

    def test_both_events(self) -> None:
        """One that can be read and written is both, by the stock code, under the prefix."""
        ends = socket.socketpair()
        for end in ends:
            self.addCleanup(end.close)
        descriptor = Descriptor(ends[0].fileno())
        self.reactor.addReader(descriptor)
        self.reactor.addWriter(descriptor)
        ends[1].send(b"x")
        self.reactor.doPoll(0)
        self.assertEqual(descriptor.calls, [("read", "prefix"), ("write", "prefix")])
        descriptor.on_event = lambda: CONNECTION_DONE
        self.reactor.doPoll(0)
        self.assertEqual(descriptor.calls[2:], [("read", "prefix"), (ConnectionDone, "prefix")])

    def test_closed_by_an_earlier_event(self) -> None:
        """A descriptor that an earlier event of the same poll removed gets no event."""
        descriptors = [Descriptor(self.readable), Descriptor(self.writable)]

        def remove_both() -> None:
            self.reactor.removeReader(descriptors[0])
            self.reactor.removeWriter(descriptors[1])

        for descriptor in descriptors:
            descriptor.on_event = remove_both
        os.write(self.writable, b"x")
        self.reactor.addReader(descriptors[0])
        self.reactor.addWriter(descriptors[1])
        self.reactor.doPoll(0)
        self.assertEqual(sum(len(descriptor.calls) for descriptor in descriptors), 1)

    def test_file_gone(self) -> None:
        """A descriptor whose file is closed is disconnected, and not read."""
        descriptor = Descriptor(self.readable)
        self.reactor.addReader(descriptor)
        os.write(self.writable, b"x")
        descriptor.fd = -1
        self.reactor.doPoll(0)
        self.assertEqual(descriptor.calls, [(ConnectionFdescWentAway, "prefix")])

    def test_pending_writes(self) -> None:
        """Pending writes are made after all reads, once, and without a prefix."""
        first, second = self.pending(2)
        read = [0, 0]
        first.on_pending = lambda: read.__setitem__(0, len(first.calls) + len(second.calls))
        second.on_pending = lambda: read.__setitem__(1, len(first.calls) + len(second.calls))
        self.reactor.doPoll(0)
        self.assertEqual(first.calls, [("read", "-"), ("write pending", "-")])
        self.assertEqual(second.calls, first.calls)
        self.assertEqual(sorted(read), [3, 4])
        self.assertEqual(self.reactor.pending_writes, [])

    def test_pending_writes_are_bounded(self) -> None:
        """Writes are made after each batch, before the next one is read."""
        self.patch(module, "EVENTS_PER_TURN", 2 * EVENTS_PER_BATCH)
        descriptors = self.pending(2 * EVENTS_PER_BATCH)
        unread: list[int] = []

        def count() -> None:
            unread.append(sum(not descriptor.calls for descriptor in descriptors))

        for i, descriptor in enumerate(descriptors):
            descriptor.on_pending = count
            if i % 2:
                # The events of those that write nothing count too.
                descriptor.on_event = lambda: None
        self.reactor.doPoll(0)
        self.assertEqual(len(unread), EVENTS_PER_BATCH)
        self.assertEqual(set(unread), {EVENTS_PER_BATCH, 0})

    def test_pending_write_that_fails(self) -> None:
        """An exception is logged and ends its descriptor; the others write."""
        descriptors = self.pending(3)
        for descriptor in descriptors[:2]:
            descriptor.on_pending = raising(ZeroDivisionError())
        self.reactor.doPoll(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        for descriptor in descriptors[:2]:
            self.assertEqual(descriptor.calls[2:], [(ZeroDivisionError, "prefix")])
            self.assertNotIn(descriptor, self.reactor.getReaders())
        self.assertEqual(descriptors[2].calls[1:], [("write pending", "-")])
        self.assertEqual(self.reactor.pending_writes, [])

    def test_pending_writes_of_a_turn_within(self) -> None:
        """If a handler runs the reactor, the inner turn makes the pending writes of both."""
        first, second = self.pending(2)
        self.reactor.removeReader(second)

        def read() -> None:
            self.reactor.pending_writes.append(first)
            self.reactor.removeReader(first)
            self.reactor.addReader(second)
            self.reactor.doPoll(0)
            self.assertEqual(first.calls[1:], [("write pending", "-")])
            self.assertEqual(second.calls[1:], [("write pending", "-")])

        first.on_event = read
        self.reactor.doPoll(0)
        self.assertEqual(first.calls, [("read", "-"), ("write pending", "-")])


class ManyEndsTests(QuietReactorTestCase):
    """Many descriptors that end in one turn leave room for the others."""

    def ending(self, number: int, why: object = CONNECTION_LOST) -> list[Descriptor]:
        """Make readable descriptors, which end by that."""
        descriptors = self.pending(number)
        for descriptor in descriptors:
            descriptor.on_event = lambda: why
        return descriptors

    def lost(self, descriptors: list[Descriptor]) -> list[Descriptor]:
        """Return those that have ended."""
        return [one for one in descriptors if one.calls[1:]]

    def test_many(self) -> None:
        """So many end in each turn, in order; each is read once, and ends once."""
        descriptors = self.ending(3 * ENDS_AT_ONCE)
        first = list[Descriptor]()
        for turn in range(1, 4):
            self.reactor.doPoll(None)  # it need not wait: ends are left
            lost = self.lost(descriptors)
            self.assertEqual(len(lost), turn * ENDS_AT_ONCE)
            first = first or lost
        self.assertEqual(first, descriptors[:ENDS_AT_ONCE])
        for descriptor in descriptors:
            self.assertEqual(descriptor.calls, [("read", "-"), (ConnectionLost, "prefix")])
        self.assertEqual([one for one in descriptors if one in self.reactor.getReaders()], [])

    def test_others_between(self) -> None:
        """Others are served, and timers run, while some wait for their end."""
        descriptors = self.ending(4 * ENDS_AT_ONCE)
        (other,) = self.pending(1)
        timed: list[int] = []
        self.reactor.callLater(0, lambda: timed.append(len(self.lost(descriptors))))
        for turn in range(1, 4):
            self.reactor.doPoll(0)
            self.reactor.runUntilCurrent()
            self.assertEqual(len([call for call in other.calls if call[0] == "read"]), turn)
            self.assertLess(len(self.lost(descriptors)), len(descriptors))
        self.assertEqual(timed, [ENDS_AT_ONCE])

    def test_half(self) -> None:
        """One whose peer has ended its half gets that when its turn comes."""
        descriptors = self.ending(ENDS_AT_ONCE, CONNECTION_DONE)
        late = HalfDescriptor(self.readable)
        late.on_event = lambda: CONNECTION_DONE
        os.write(self.writable, b"x")
        self.reactor.addReader(late)
        self.reactor.doPoll(0)
        self.assertEqual(len(self.lost(descriptors)), ENDS_AT_ONCE)
        self.assertEqual(late.calls, [("read", "-")])
        self.reactor.doPoll(0)
        self.assertEqual(late.calls, [("read", "-"), ("half", "prefix")])

    def test_again(self) -> None:
        """One that is polled again before its turn comes ends once all the same."""
        descriptors = self.ending(2 * ENDS_AT_ONCE)
        self.reactor.doPoll(0)
        late = descriptors[-1]
        self.reactor.addReader(late)
        self.reactor.ends_left = 0
        self.reactor._handle([(late.fd, EPOLLIN)])
        self.assertNotIn(late, self.reactor.getReaders())
        for _ in range(3):
            self.reactor.doPoll(0)
        self.assertEqual(late.calls, [("read", "-")] * 2 + [(ConnectionLost, "prefix")])

    def test_gone_meanwhile(self) -> None:
        """One that is closed or aborted before its turn comes gets nothing more from here."""
        descriptors = self.ending(2 * ENDS_AT_ONCE)
        self.reactor.doPoll(0)
        closed, aborted = descriptors[-2:]
        closed.fd = -1
        cast(Any, aborted)._aborting = True  # Any: as Twisted's transports have it
        self.reactor.doPoll(0)
        self.assertEqual([closed.calls, aborted.calls], [[("read", "-")]] * 2)
        self.assertEqual(len(self.lost(descriptors)), 2 * ENDS_AT_ONCE - 2)

    def test_stop(self) -> None:
        """When the reactor stops, those that wait end with all others."""
        descriptors = self.ending(2 * ENDS_AT_ONCE)
        (other,) = self.pending(1)
        self.reactor.doPoll(0)
        closed = descriptors[-1]
        closed.fd = -1
        self.reactor.disconnectAll()
        self.assertEqual(len(self.lost(descriptors)), 2 * ENDS_AT_ONCE - 1)
        for descriptor in (*descriptors[:-1], other):
            self.assertEqual(descriptor.calls[-1][0], ConnectionLost)
        self.reactor.doPoll(0)
        self.assertEqual(closed.calls, [("read", "-")])

    def test_many_events(self) -> None:
        """So many events are handled between two looks at the timers."""
        self.patch(module, "EVENTS_PER_TURN", 40)
        descriptors = self.pending(100)
        read = []
        for _ in range(3):
            self.reactor.doPoll(0)
            read.append(sum(bool(one.calls) for one in descriptors))
        self.assertEqual(read, [40, 80, 100])

    def test_slow_events(self) -> None:
        """A turn ends when its time is over, and each descriptor has its event in time."""
        descriptors = self.pending(100)

        def pass_time() -> None:
            self.now += 0.6 * EVENTS_BUDGET

        for descriptor in descriptors:
            descriptor.on_event = pass_time
        read, before = [], 0
        while before < 100:
            self.reactor.doPoll(0)
            now = sum(bool(one.calls) for one in descriptors)
            read.append(now - before)
            before = now
        # The first batch of the first turn cannot know; then single ones, until the time is over.
        self.assertEqual(read[0], EVENTS_PER_BATCH)
        self.assertEqual(set(read[1:]), {2})

    def test_fast_again(self) -> None:
        """After a slow batch the next ones are as much smaller, and grow again."""
        descriptors = self.pending(100)
        first = descriptors[0]

        def pass_time() -> None:
            self.now += EVENTS_BUDGET
            first.on_event = lambda: None  # once

        first.on_event = pass_time
        sizes = []
        for _ in range(4):
            self.reactor.doPoll(0)
            sizes.append(self.reactor._batch_size)
        self.assertEqual((sizes[0], sizes[-1]), (EVENTS_PER_BATCH // 4, EVENTS_PER_BATCH))
        self.assertEqual(sum(bool(one.calls) for one in descriptors), 100)


class InstallTests(SynchronousTestCase):
    """:func:`twisted_net.quiet_reactor.install`, and how twistd finds it."""

    def test_as_we_know_it(self) -> None:
        """
        No method of Twisted's that the quiet reactor replaces or calls has changed.

        If this fails, Twisted has: until then, ``--reactor=quiet`` is the stock epoll
        reactor. Read what changed, adapt QuietEPollReactor, and update the table in
        twisted_internals.
        """
        self.assertEqual(quiet_reactor_changes(), [])

    def test_installs(self) -> None:
        """It becomes the reactor of the process."""
        installed: list[Any] = []  # Any: epoll reactors have no types
        self.patch(module, "installReactor", installed.append)
        module.install()
        (reactor,) = installed
        self.assertIs(type(reactor), QuietEPollReactor)
        reactor._poller.close()
        for end in (reactor.waker.i, reactor.waker.o):
            os.close(end)

    def test_falls_back(self) -> None:
        """If Twisted has changed, the stock epoll reactor is installed, and the log says why."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)  # as above
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        installed: list[str] = []
        self.patch(epollreactor, "install", lambda: installed.append("stock"))
        with patch.object(module, "quiet_reactor_changes", lambda: ["EPollReactor.doPoll"]):
            module.install()
        self.assertEqual(installed, ["stock"])
        self.assertEqual(
            [event["changes"] for event in events if "changes" in event],
            ["EPollReactor.doPoll"],
        )

    def test_plugin(self) -> None:
        """``twistd --reactor=quiet`` finds it."""
        (found,) = (kind for kind in getReactorTypes() if kind.shortName == "quiet")
        name: object = getattr(found, "moduleName")  # noqa: B009  # zope does not declare it
        self.assertEqual(name, "twisted_net.quiet_reactor")


class Failing:
    """An epoll whose poll fails."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        """Fail."""
        self.timeout = timeout
        raise self._error

    def close(self) -> None:
        """Do nothing."""


def raising(error: BaseException) -> Any:  # Any: a function that gives nothing
    """Return a function that raises."""

    def fail() -> None:
        raise error

    return fail
