"""A step of the wall clock moves no timer of a steady reactor; nothing else of it changes."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock, LoopingCall
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.tcp.issuing import Authority, write_pair
from twisted_net.auth import AuthSettings
from twisted_net.commands import Commands
from twisted_net.config import TlsSettings
from twisted_net.discovery import DiscoverySettings
from twisted_net.dtls import DtlsClientSettings, client_context
from twisted_net.http import HTTPAgent
from twisted_net.http.cache import SQLiteStore
from twisted_net.http.retry import RetryPolicy
from twisted_net.net import Certificates, steady_clock
from twisted_net.net.steady_clock import since_boot, steady, steady_wall, stopwatch
from twisted_net.ops.latency import Latency
from twisted_net.ops.long_turns import LongTurns
from twisted_net.quiet_reactor import QuietEPollReactor
from twisted_net.tcp import CommandFactory, Handshakes, Listener

HOUR = 3600.0
KINDS = (SelectReactor, PollReactor, EPollReactor, AsyncioSelectorReactor, QuietEPollReactor)
STOCK = KINDS[:-1]
FOLDERS = (
    *("coap", "discovery", "dtls", "http", "http.cache", "http.retry", "ops", "service"),
    *("tcp", "udp"),
)


class ReactorCase(SynchronousTestCase):
    """Reactors of all kinds, each with a wall clock and a steady one that a test sets."""

    @override
    def setUp(self) -> None:
        self.wall, self.elapsed = 1_795_339_800.0, 12.0
        self.patch(ReactorBase, "seconds", staticmethod(lambda: self.wall))
        self.monotonic = lambda: self.elapsed
        self.patch(steady_clock, "monotonic", self.monotonic)
        self.ran: list[object] = []

    def make(self, kind: type[Any]) -> Any:  # Any: reactors have no one type
        """Make a reactor, whose files are closed at the end."""
        reactor = kind()
        self.addCleanup(self.close, reactor)
        return reactor

    def close(self, reactor: Any) -> None:  # Any: as above
        """Close what it has opened."""
        reactor.removeAll()
        for reader in list(reactor._internalReaders):
            reactor._removeInternalReader(reader)
            reader.connectionLost(None)
        if isinstance(reactor, AsyncioSelectorReactor):
            reactor._asyncioEventloop.close()
        elif isinstance(reactor, EPollReactor):
            reactor._poller.close()

    def pass_time(self, reactor: Any, seconds: float, step: float = 0.0) -> None:
        """Let time pass, and the wall clock step; then run what is due."""
        self.elapsed += seconds
        self.wall += seconds + step
        reactor.runUntilCurrent()

    def run_at(self, reactor: Any, delay: float) -> DelayedCall:
        """Schedule a call that notes its delay."""
        call: DelayedCall = reactor.callLater(delay, self.ran.append, delay)
        return call


class SteadyTests(ReactorCase):
    """:func:`steady` changes the clock of Twisted's reactors, and no other."""

    def test_stock_clock(self) -> None:
        """Without it a step back stops all timers, and a step forward runs them."""
        for kind in STOCK:
            reactor = self.make(kind)
            self.run_at(reactor, 1.0)
            self.pass_time(reactor, 2.0, -HOUR)
            self.assertEqual(self.ran, [], kind)
            self.pass_time(reactor, 0.0, HOUR)
            self.assertEqual(self.ran, [1.0], kind)
            self.ran.clear()

    def test_steps(self) -> None:
        """Timers run when their time is over, whatever the wall clock does before and after."""
        for kind in KINDS:
            for step in (-HOUR, HOUR):
                with self.subTest(kind=kind.__name__, step=step):
                    reactor = steady(self.make(kind))
                    for delay in (1.0, 3.0):
                        self.run_at(reactor, delay)
                    self.pass_time(reactor, 0.5, step)
                    self.assertEqual(self.ran, [])
                    self.assertEqual(reactor.timeout(), 0.5)
                    self.pass_time(reactor, 0.5, step)
                    self.assertEqual(self.ran, [1.0])
                    self.run_at(reactor, 1.5)
                    self.pass_time(reactor, 1.5, -step)
                    self.assertEqual(self.ran, [1.0, 1.5])
                    self.pass_time(reactor, 0.5)
                    self.assertEqual(self.ran, [1.0, 1.5, 3.0])
                    self.ran.clear()

    def test_pending_calls(self) -> None:
        """Calls that were scheduled before keep their times, also where they are moved later."""
        for kind in STOCK:
            with self.subTest(kind=kind.__name__):
                reactor = self.make(kind)
                first, second, third, cancelled = (self.run_at(reactor, d) for d in (1, 2, 3, 1.5))
                cancelled.cancel()
                times = [first.getTime(), second.getTime()]
                steady(reactor)
                self.assertEqual([first.getTime(), second.getTime()], times)
                self.pass_time(reactor, 0.5, HOUR)
                second.reset(1.0)
                third.delay(1.0)
                self.assertEqual(second.getTime(), times[0] + 0.5)
                self.pass_time(reactor, 0.5, -2 * HOUR)
                self.assertEqual(self.ran, [1])
                self.pass_time(reactor, 0.5)
                self.assertEqual(self.ran, [1, 2])
                self.pass_time(reactor, 2.0)
                self.assertEqual(self.ran, [1, 2])
                self.pass_time(reactor, 0.5)
                self.assertEqual(self.ran, [1, 2, 3])
                self.ran.clear()

    def test_looping_call(self) -> None:
        """A loop that was started before goes on at its interval, and counts no turn twice."""
        for kind in STOCK:
            reactor = self.make(kind)
            loop = LoopingCall.withCount(self.ran.append)
            loop.clock = reactor
            loop.start(1.0, now=False)
            steady(reactor)
            for step in (HOUR, -HOUR, -HOUR, HOUR):
                self.pass_time(reactor, 1.0, step)
            self.assertEqual(self.ran, [1, 1, 1, 1], kind)
            loop.stop()
            self.ran.clear()

    def test_seconds(self) -> None:
        """They go on from what the wall clock showed, and never step; twice changes nothing."""
        for kind in KINDS:
            self.wall = 1_795_339_800.0
            reactor = steady(self.make(kind))
            self.assertEqual(reactor.seconds(), self.wall)
            self.wall += HOUR
            self.elapsed += 1.0
            self.assertEqual(reactor.seconds(), 1_795_339_801.0)
            self.assertIs(steady(reactor), reactor)
            self.assertEqual(reactor.seconds(), 1_795_339_801.0)

    def test_other_clocks(self) -> None:
        """Clocks for tests, and reactors whose seconds somebody else has set, are left alone."""
        for clock in (Clock(), MemoryReactorClock()):
            self.assertIs(steady(clock), clock)
            clock.advance(5.0)
            self.assertEqual(clock.seconds(), 5.0)
            self.assertEqual(stopwatch(clock)(), 5.0)
        for kind in STOCK:
            reactor = self.make(kind)
            own: Callable[[], float] = lambda: 7.0  # noqa: E731
            reactor.seconds = own
            self.assertIs(steady(reactor).seconds, own)
            self.assertIs(stopwatch(reactor), own)
            reactor.seconds = kind.seconds
            self.assertIs(steady(reactor).seconds, kind.seconds)
        self.assertIs(steady(self.make(Simulated)).seconds, Simulated.seconds)

    def test_changed_twisted(self) -> None:
        """Where Twisted's timers have changed, they are left alone, and a warning says so."""
        events: list[LogEvent] = []
        observer: Any = events.append  # Any: mypy sees no function's interface
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        reactor = self.make(EPollReactor)
        with patch.object(steady_clock, "reactor_time_changes", lambda kind: ["ReactorBase.x"]):
            self.assertIs(steady(reactor), reactor)
        self.wall += HOUR
        self.assertEqual(reactor.seconds(), self.wall)
        self.assertEqual(stopwatch(reactor)(), self.wall)
        self.assertEqual([event["changes"] for event in events], ["ReactorBase.x"])


class NoClockTests(SynchronousTestCase):
    """:func:`steady` takes reactors and clocks alone."""

    def test_refused(self) -> None:
        """A class, or anything else, is refused: its timers would step in silence."""
        wrong: list[Any] = [None, "reactor", Clock, MemoryReactorClock, object()]
        for thing in wrong:
            with self.subTest(thing=thing):
                self.assertRaises(TypeError, steady, thing)
        clock = Clock()
        self.assertIs(steady(clock), clock)


class Simulated(SelectReactor):
    """A reactor whose author has given it a clock."""

    @staticmethod
    @override
    def seconds() -> float:
        return 0.0


def clocks_taken(kind: type[Any]) -> set[str]:
    """Return the parameters of a class that are a reactor or a clock."""
    code = getattr(inspect.unwrap(kind.__init__), "__code__", None)
    return {"reactor", "clock"} & {*(code.co_varnames[: code.co_argcount] if code else ())}


class EmbeddedTests(ReactorCase):
    """Whatever is public and is given a reactor, or a clock, makes it steady."""

    # They open sockets, and set no timer; or the service makes them, with the clock that it has.
    TIMELESS = frozenset({"ApplicationContext", "CappedPort", "FastServerEndpoint"})

    def public(self) -> dict[str, type]:
        """Return the public classes that take a reactor or a clock."""
        found = {}
        for name in [
            "coap",
            "discovery",
            "dtls",
            "http",
            "http.cache",
            "http.retry",
            "ops",
            "service",
            "tcp",
            "udp",
        ]:
            folder: Any = import_module(f"twisted_net.{name}")  # Any: its names are looked up
            for public in folder.__all__:
                kind = getattr(folder, public)
                if isinstance(kind, type) and clocks_taken(kind):
                    found[public] = kind
        return {name: kind for name, kind in found.items() if name not in self.TIMELESS}

    def test_all(self) -> None:
        """Each of them does so, and hence none of its limits follows the wall clock."""
        memory: Any = MemoryReactorClock()  # Any: for those that are inside of others
        commands, handshakes = Commands(), Handshakes(Clock(), 1.0, 1, lambda end: None)
        server = CommandFactory(Clock(), commands)
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        pair = write_pair(folder / "pair.pem", Authority().issue("localhost"))
        certificates = Certificates(TlsSettings(certificate=str(pair)), lambda: 0.0)
        streams = {"inner": server, "handshakes": handshakes}
        announced = {"settings": DiscoverySettings(), "name": "", "version": "", "services": dict}
        arguments: dict[str, dict[str, object]] = {
            "Announcer": announced,
            "Authenticator": {"settings": AuthSettings(), "checkers": ()},
            "CoapServer": {"commands": commands},
            "CommandClient": {"endpoint": TCP4ClientEndpoint(memory, "localhost", 1)},
            "CommandFactory": {"commands": commands},
            "CommandPort": {"listener": Listener(port=0), "commands": server},
            "DatagramClient": {"host": "127.0.0.1"},
            "DtlsClient": {
                "inner": DatagramProtocol(),
                "context": client_context(DtlsClientSettings()),
                "settings": DtlsClientSettings(),
                "address": ("127.0.0.1", 9),
                "name": "",
            },
            "DtlsServer": {"inner": DatagramProtocol(), "certificates": certificates},
            "Handshakes": {"timeout": 1.0, "limit": 1, "count": list.append},
            "LatencyProbe": {"latency": Latency(), "wall": lambda: 0.0},
            "RetryAgent": {"agent": HTTPAgent(memory), "policy": RetryPolicy()},
            "SQLiteStore": {"path": folder / "cache"},
            "TlsFactory": {**streams, "certificates": certificates},
            "TurnWatch": {"long_turns": LongTurns(), "wall": lambda: 0.0},
            "WebSocketFactory": streams,
        }
        public = self.public()
        self.assertEqual(set(arguments) - set(public), set())
        for name, kind in public.items():
            with self.subTest(name=name):
                reactor = self.make(EPollReactor)
                made = kind(**dict.fromkeys(clocks_taken(kind), reactor), **arguments.get(name, {}))
                self.wall += HOUR
                self.assertEqual(reactor.seconds(), self.wall - HOUR)
                self.wall -= HOUR
                if isinstance(made, SQLiteStore):
                    made.close()


class SteadyWallTests(ReactorCase):
    """:func:`steady_wall` is a date that never steps."""

    def test_reactor(self) -> None:
        """It goes on from the wall clock, also while the machine is suspended."""
        boot = 50.0
        self.patch(steady_clock, "since_boot", lambda: boot)
        for kind in KINDS:
            now = steady_wall(self.make(kind), lambda: self.wall)
            self.assertEqual(now(), self.wall)
            before = self.wall
            self.wall -= HOUR
            boot += 8 * HOUR
            self.assertEqual(now(), before + 8 * HOUR)

    def test_other_clocks(self) -> None:
        """It goes on with a clock for tests, and with a reactor whose author has given it one."""
        clock = Clock()
        now = steady_wall(clock, lambda: self.wall)
        clock.advance(5.0)
        self.assertEqual(now(), self.wall + 5.0)
        self.assertEqual(steady_wall(self.make(Simulated), lambda: 9.0)(), 9.0)

    def test_clock_of_the_system(self) -> None:
        """It never goes back, and counts no less than the steady clock without suspensions."""
        seen = [since_boot() for _ in range(1000)]
        self.assertEqual(seen, sorted(seen))


class StopwatchTests(ReactorCase):
    """:func:`stopwatch` measures durations only, at the price of a system call."""

    def test_steady_reactor(self) -> None:
        """It is the system's steady clock, not a function of ours on top of it."""
        for kind in KINDS:
            self.assertIs(stopwatch(steady(self.make(kind))), self.monotonic)

    def test_other_reactor(self) -> None:
        """Of a reactor that is not steady it is the clock, which the reactor's timers follow."""
        for kind in STOCK:
            reactor = self.make(kind)
            self.assertIs(stopwatch(reactor), ReactorBase.seconds)
