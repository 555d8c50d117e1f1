"""Tests for :mod:`twisted_net.tcp.fair_port`."""

from __future__ import annotations

import errno
import os
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.reasons import End
from twisted_net.tcp import fair_port
from twisted_net.tcp.fair_port import (
    ACCEPT_PAUSE,
    ACCEPTS_PER_TURN,
    CLOSED_PER_TURN,
    LINES,
    FairPort,
)
from twisted_net.tcp.transport import FastPort
from twisted_net.tcp.unix import UnixPort

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Reactor(Clock):
    """A clock that notes what is watched."""

    def __init__(self) -> None:
        super().__init__()
        self.reading: set[object] = set()

    def addReader(self, reader: object) -> None:
        """Watch."""
        self.reading.add(reader)

    def removeReader(self, reader: object) -> None:
        """Watch no more."""
        self.reading.discard(reader)

    removeWriter = removeReader


class Listening:
    """
    A listening socket of a process that may open so many files.

    :ivar waiting: connections in its queue.
    :ivar free: descriptors that are left; None for enough.
    :ivar errors: what the next calls of accept raise.
    :ivar accepted: the sockets that were accepted.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.free: int | None = None
        self.errors: list[int] = []
        self.accepted: list[Accepted] = []
        self.calls = 0

    def accept(self) -> tuple[Accepted, tuple[str, int]]:
        """Accept, as the kernel does."""
        self.calls += 1
        if self.errors:
            raise OSError(self.errors.pop(0), "told to")
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "none")
        if self.free is not None:
            if self.free <= 0:
                raise OSError(errno.EMFILE, "Too many open files")
            self.free -= 1
        self.waiting -= 1
        self.accepted.append(Accepted(self))
        return self.accepted[-1], ("192.0.2.1", 1)

    def getsockname(self) -> tuple[str, int]:
        """Return an address."""
        return ("127.0.0.1", 8888)

    def fileno(self) -> int:
        """Return a number."""
        return 7

    def shutdown(self, how: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Accepted:
    """A connection that was accepted."""

    def __init__(self, listening: Listening) -> None:
        self.listening = listening
        self.closed = False

    def close(self) -> None:
        """Free the descriptor."""
        self.closed = True
        if self.listening.free is not None:
            self.listening.free += 1


class Transport:
    """A transport of an accepted connection."""

    def __init__(self, accepted: Accepted, *others: object) -> None:
        self.accepted = accepted
        self.aborted = False

    def abortConnection(self) -> None:
        """Abort."""
        self.aborted = True
        self.accepted.close()


class FairPortCase(SynchronousTestCase):
    """Has a port on a listening socket in memory."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.listening = Listening()
        self.made: list[Any] = []  # Any: transports
        self.refused: list[End] = []
        self.patch(fair_port, "_open_reserve", self.open_reserve)
        self.patch(os, "close", self.close)
        self.factory = Factory.forProtocol(Protocol)
        self.port = self.make_port()
        self.events: list[LogEvent] = []
        observe = cast(ILogObserver, self.events.append)  # mypy sees no function's interface
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def make_port(self) -> FairPort:
        """Return a port that listens."""
        reactor: Any = self.reactor  # Any: it has what a port needs
        port: Any = FairPort(0, self.factory, reactor=reactor)
        port.socket = self.listening
        port.fileno = self.listening.fileno
        port.connected = True
        port.refused = self.refused.append

        def transport(*arguments: Any) -> Transport:
            self.made.append(Transport(*arguments))
            return cast(Transport, self.made[-1])

        port.transport = transport
        port.startReading()
        return cast(FairPort, port)

    def open_reserve(self) -> int | None:
        """Take a descriptor, if there is one."""
        if self.listening.free is None:
            return 99
        if self.listening.free <= 0:
            return None
        self.listening.free -= 1
        return 99

    def close(self, descriptor: int) -> None:
        """Free the reserved one."""
        self.assertEqual(descriptor, 99)
        if self.listening.free is not None:
            self.listening.free += 1

    def lines(self) -> list[LogEvent]:
        """Return what was logged at a level that is shown."""
        return [event for event in self.events if event["log_level"].name != "debug"]


class AcceptTests(FairPortCase):
    """Connections are accepted a few at a time."""

    def test_few(self) -> None:
        """The rest waits for the next turn, and each has its number."""
        self.listening.waiting = ACCEPTS_PER_TURN + 1
        self.port.doRead()
        self.assertEqual(len(self.made), ACCEPTS_PER_TURN)
        self.port.doRead()
        self.assertEqual((len(self.made), self.listening.waiting), (ACCEPTS_PER_TURN + 1, 0))
        self.assertEqual(self.port.sessionno, ACCEPTS_PER_TURN + 1)

    def test_number(self) -> None:
        """The number of connections of a turn is small, and stays so whatever Twisted wishes."""
        reactor: Any = object()  # Any: not used before the port listens
        ports = [
            FairPort(0, Factory(), reactor=reactor),
            FastPort(0, Factory(), reactor=reactor),
            UnixPort(b"/nowhere", Factory(), 50, 0o660, reactor),
        ]
        for port in ports:
            port.numberAccepts += 20
            self.assertEqual(port.numberAccepts, ACCEPTS_PER_TURN)

    def test_lost_meanwhile(self) -> None:
        """A connection that is gone, or that a firewall refused, is skipped."""
        self.listening.waiting = 1
        self.listening.errors = [errno.ECONNABORTED, errno.EPERM, errno.EPROTO]
        self.port.doRead()
        self.assertEqual(len(self.made), 1)
        self.assertEqual(self.events, [])

    def test_no_protocol(self) -> None:
        """A factory without a protocol for a client has it closed."""
        self.factory.buildProtocol = lambda addr: None  # type: ignore[method-assign]
        self.listening.waiting = 1
        self.port.doRead()
        self.assertTrue(self.listening.accepted[0].closed)

    def test_failing(self) -> None:
        """A factory or protocol that raises has the connection closed, with a bounded log."""

        def fail(*arguments: object) -> Protocol:
            raise SystemExit("a bug")

        class Failing(Protocol):
            def connectionMade(self) -> None:
                raise ValueError("a bug")

        self.listening.waiting = 1000
        broken: Any  # Any: a factory's method
        for broken in (fail, lambda addr: Failing()):
            self.factory.buildProtocol = broken  # type: ignore[method-assign]
            for _ in range(100):
                self.port.doRead()
        self.assertEqual(self.listening.waiting, 1000 - 200 * ACCEPTS_PER_TURN)
        self.assertTrue(all(accepted.closed for accepted in self.listening.accepted))
        self.assertTrue(all(transport.aborted for transport in self.made))
        self.assertIn(len(self.flushLoggedErrors(SystemExit, ValueError)), range(1, 10))

    def test_stock(self) -> None:
        """With another Twisted, the port accepts as its own does."""
        fair_port._knows_accept.cache_clear()
        self.addCleanup(fair_port._knows_accept.cache_clear)
        self.patch(fair_port, "accept_changes", lambda: ["Port.doRead"])
        self.listening.waiting = 3
        self.port.doRead()
        self.assertEqual(len(self.made), 3)
        self.assertIn("numberAccepts", tcp.Port.doRead.__code__.co_names)


class ExhaustedTests(FairPortCase):
    """A lack of descriptors or memory costs little, and ends."""

    def test_no_descriptor(self) -> None:
        """Connections are closed at once, counted, and logged at a limited rate."""
        self.listening.free = 0
        self.listening.waiting = 100_000
        for _ in range(1000):
            self.port.doRead()
        self.assertEqual(self.refused, [End.NO_DESCRIPTORS] * 1000 * CLOSED_PER_TURN)
        self.assertTrue(all(accepted.closed for accepted in self.listening.accepted))
        self.assertEqual(self.listening.free, 0)
        self.assertEqual(self.made, [])
        self.assertIn(len(self.lines()), range(1, 30))
        self.assertIn(self.port, self.reactor.reading)
        self.listening.free = 100
        self.port.doRead()
        self.assertEqual(len(self.made), ACCEPTS_PER_TURN)

    def test_reserve_is_gone(self) -> None:
        """If another thread took the descriptor, the port pauses until there is one."""
        self.listening.free = 0
        self.listening.waiting = 10
        self.port._reserve = None
        for _ in range(100):
            if self.port in self.reactor.reading:
                self.port.doRead()
        self.assertEqual(self.listening.calls, 1)
        self.listening.free = 1
        self.reactor.advance(ACCEPT_PAUSE)
        self.port.doRead()
        self.assertEqual(self.listening.waiting, 0)
        self.assertEqual(len(self.refused), 10)

    def test_pause(self) -> None:
        """If the system lacks something, nothing is accepted for a while, and then again."""
        for number in (*EXHAUSTED[1:], errno.EINVAL):
            with self.subTest(errno=errno.errorcode[number]):
                self.listening.waiting = 1
                self.listening.errors = [number]
                self.port.doRead()
                self.assertNotIn(self.port, self.reactor.reading)
                self.assertEqual(self.listening.waiting, 1)
                self.reactor.advance(ACCEPT_PAUSE)
                self.assertIn(self.port, self.reactor.reading)
                self.port.doRead()
                self.assertEqual(self.listening.waiting, 0)
        self.assertIn("told to", self.lines()[0]["reason"])

    def test_bounded_log(self) -> None:
        """However long it lasts, the log grows slowly."""
        for _ in range(10_000):
            self.listening.errors = [errno.ENOMEM]
            self.port.doRead()
            self.reactor.advance(ACCEPT_PAUSE)
        self.assertIn(len(self.lines()), range(1, 2 * LINES))

    def test_closed_while_it_pauses(self) -> None:
        """A port that closes meanwhile leaves no timer, and no descriptor."""
        self.listening.free = 5
        self.port._reserve = 99
        self.listening.errors = [errno.ENFILE]
        self.port.doRead()
        port: Any = self.port  # Any: few of its methods have types
        stopped = port.stopListening()
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.reading, set())
        self.assertEqual(self.listening.free, 6)
