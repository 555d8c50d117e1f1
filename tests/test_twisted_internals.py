"""Changes of private names of Twisted are detected, and have fallbacks."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from selectors import SelectSelector
from typing import Any
from unittest.mock import patch

from twisted.internet import endpoints
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import SynchronousTestCase

from twisted_net import twisted_internals
from twisted_net.twisted_internals import (
    accept_changes,
    changed,
    fast_transport_changes,
    poll_hook,
    quiet_reactor_changes,
    reactor_time_changes,
    systemd_sockets,
    tls_transport_changes,
)


class Ours:
    """Stands in for a class of Twisted's."""

    state = 0

    def act(self) -> int:
        """Use an attribute and a builtin."""
        return len([self.state])

    def act_on_all(self) -> tuple[list[int], set[int], dict[int, int]]:
        """Use attributes in what is a function of its own to Python before 3.12."""
        a = [each.real for each in [self.state]]
        b: set[int] = {each.imag for each in [self.state]}
        return a, b, {each.numerator: each.denominator for each in b}


class ChangedTests(SynchronousTestCase):
    """:func:`changed` compares the names that a method uses."""

    def test_same(self) -> None:
        """The same names in another order are not a change."""
        self.assertEqual(changed([(Ours, "act", "state  len")]), [])
        self.assertEqual(changed([]), [])

    def test_other_names(self) -> None:
        """An additional or a missing name is a change."""
        for names in ("state", "state len other", ""):
            self.assertEqual(changed([(Ours, "act", names)]), ["Ours.act"])

    def test_comprehensions(self) -> None:
        """What list, set and dict comprehensions use counts as the method's, on every Python."""
        names = "state real imag numerator denominator"
        self.assertEqual(changed([(Ours, "act_on_all", names)]), [])

    def test_gone(self) -> None:
        """A missing method, or one that is not a function, is a change."""
        known = [(Ours, "gone", ""), (Ours, "act", "state len"), (Ours, "state", "")]
        self.assertEqual(changed(known), ["Ours.gone", "Ours.state"])


class TransportAndReactorTests(SynchronousTestCase):
    """The methods that the fast transport, that of TLS and the quiet reactor rely on."""

    def test_present(self) -> None:
        """The installed Twisted has all of them, and they use the known names."""
        self.assertEqual(fast_transport_changes(), [])
        self.assertEqual(tls_transport_changes(), [])
        self.assertEqual(quiet_reactor_changes(), [])
        self.assertEqual(accept_changes(), [])

    def test_changed(self) -> None:
        """A method of any of the classes that uses other names is reported."""
        for tables, changes in (
            (twisted_internals._FAST_TRANSPORT_METHODS, fast_transport_changes),
            (twisted_internals._TLS_METHODS, tls_transport_changes),
        ):
            expected = []
            for owner, methods in tables.items():
                for method in methods:
                    expected.append(f"{owner}.{method}")
                    with patch.dict(methods, {method: "nothing"}):
                        self.assertEqual(changes(), expected[-1:])
            self.assertEqual(len(expected), len(set(expected)))
        self.patch(twisted_internals, "_EPOLL_REACTOR_METHODS", {"doPoll": "nothing"})
        self.assertEqual(quiet_reactor_changes(), ["EPollReactor.doPoll"])
        self.patch(twisted_internals, "_ACCEPT_METHODS", {"doRead": "nothing"})
        self.assertEqual(accept_changes(), ["Port.doRead"])

    def test_without_private_module(self) -> None:
        """If Twisted's private module of TLS is gone, that is a change and not an error."""
        with patch.dict(sys.modules, {"twisted.internet._newtls": None}):
            self.assertEqual(fast_transport_changes(), ["ConnectionMixin"])


class ReactorTimeTests(SynchronousTestCase):
    """Timers read the time by ``seconds`` alone, which the steady clock replaces."""

    KINDS = (SelectReactor, PollReactor, EPollReactor, AsyncioSelectorReactor)

    def test_present(self) -> None:
        """
        The installed Twisted does so in every reactor.

        If this fails, read what changed: until the table in twisted_internals and, if need be,
        :func:`~twisted_net.net.steady_clock.steady` are adapted, the wall clock moves timers.
        """
        for kind in self.KINDS:
            self.assertEqual(reactor_time_changes(kind), [])

    def test_changed(self) -> None:
        """A method of a reactor, or of a class that it inherits from, is reported."""
        tables = twisted_internals._REACTOR_TIME_METHODS
        self.assertEqual(
            set(tables), {"ReactorBase", "DelayedCall", AsyncioSelectorReactor.__name__}
        )
        for kind in self.KINDS:
            used = {"DelayedCall", *(one.__name__ for one in kind.__mro__)}
            for owner, methods in tables.items():
                for method in methods:
                    expected = [f"{owner}.{method}"] if owner in used else []
                    with patch.dict(methods, {method: "nothing"}):
                        self.assertEqual(reactor_time_changes(kind), expected)


class PollHookTests(SynchronousTestCase):
    """:func:`poll_hook` has functions called around each poll of a reactor of Twisted's."""

    def setUp(self) -> None:
        self.calls: list[str] = []

    def make(self, kind: Any, *arguments: object) -> Any:  # Any: reactors have no types
        """Make a reactor that is closed after the test."""
        reactor = kind(*arguments)

        def close() -> None:
            for reader in reactor.removeAll():
                reader.connectionLost(None)
            for end in (reactor.waker.i, reactor.waker.o):
                os.close(end)

        self.addCleanup(close)
        return reactor

    def hook(self, reactor: Any) -> Callable[[], None] | None:  # Any: as above
        """Hook it, so that :attr:`calls` has the calls."""
        return poll_hook(
            reactor, lambda: self.calls.append("before"), lambda: self.calls.append("after")
        )

    def with_loop(self) -> tuple[Any, asyncio.SelectorEventLoop]:  # Any: as above
        """Make an asyncio reactor, and its event loop."""
        loop = asyncio.SelectorEventLoop(SelectSelector())
        self.addCleanup(loop.close)
        reactor = self.make(AsyncioSelectorReactor, loop)
        return reactor, loop

    def test_pollers(self) -> None:
        """The epoll and poll reactors are hooked until this is undone."""
        for kind in (EPollReactor, PollReactor):
            reactor = self.make(kind)
            poller = reactor._poller
            undo = self.hook(reactor)
            assert undo is not None
            reactor.iterate(0)
            reactor.callFromThread(self.calls.append, "call")
            reactor.iterate(0)
            self.assertEqual(self.calls, ["before", "after", "call", "before", "after"])
            undo()
            undo()
            self.assertIs(reactor._poller, poller)
            reactor.iterate(0)
            self.assertEqual(len(self.calls), 5)
            self.calls.clear()

    def test_poller_is_used(self) -> None:
        """Descriptors are added, polled and removed by way of the hook."""
        reactor = self.make(EPollReactor)
        self.hook(reactor)
        readable, writable = os.pipe()
        self.addCleanup(os.close, readable)
        self.addCleanup(os.close, writable)
        seen: list[bytes] = []

        class Reader:
            def fileno(self) -> int:
                return readable

            def logPrefix(self) -> str:
                return "reader"

            def doRead(self) -> None:
                seen.append(os.read(readable, 9))

            def connectionLost(self, reason: object) -> None:
                """Do nothing."""

        reader = Reader()
        reactor.addReader(reader)
        os.write(writable, b"x")
        reactor.doIteration(0)
        reactor.removeReader(reader)
        self.assertEqual(seen, [b"x"])

    def test_poll_that_fails(self) -> None:
        """A turn begins after a poll that fails, too."""
        reactor = self.make(EPollReactor)
        self.hook(reactor)
        poller, reactor._poller._poller = reactor._poller._poller, None
        self.assertRaises(AttributeError, reactor.doIteration, 0)
        reactor._poller._poller = poller
        self.assertEqual(self.calls, ["before", "after"])

    def test_asyncio(self) -> None:
        """The asyncio reactor is hooked where its event loop polls a selector."""
        reactor, loop = self.with_loop()
        undo = self.hook(reactor)
        assert undo is not None
        loop.call_soon(self.calls.append, "call")
        loop.call_soon(loop.stop)
        loop.run_forever()
        self.assertEqual(self.calls, ["before", "after", "call"])
        undo()
        undo()
        loop.call_soon(loop.stop)
        loop.run_forever()
        self.assertEqual(len(self.calls), 3)

    def test_hooked_by_others(self) -> None:
        """What others have put in its place meanwhile stays there."""
        reactor, loop = self.with_loop()
        undo = self.hook(reactor)
        assert undo is not None
        selector: Any = loop
        theirs: Callable[[float], list[object]] = lambda timeout: []  # noqa: E731  # in one place
        selector._selector.select = theirs
        undo()
        self.assertIs(selector._selector.select, theirs)
        del selector._selector.select
        reactor = self.make(EPollReactor)
        undo = self.hook(reactor)
        assert undo is not None
        hooked, reactor._poller = reactor._poller, None
        undo()
        self.assertIsNone(reactor._poller)
        reactor._poller = hooked

    def test_others(self) -> None:
        """Reactors, and loops, that poll in another way are not hooked; nor are their proxies."""

        class Proxy:
            def __init__(self, reactor: object) -> None:
                self._reactor = reactor

            def __getattr__(self, name: str) -> object:
                return getattr(self._reactor, name)

        class OtherEPollReactor(EPollReactor):
            def doIteration(self, delay: float | None) -> None:
                """Poll in another way."""

        class OtherLoop(asyncio.SelectorEventLoop):
            def _run_once(self) -> None:
                """Poll in another way."""

        other = OtherLoop()
        self.addCleanup(other.close)
        for reactor in (
            self.make(SelectReactor),
            self.make(OtherEPollReactor),
            Proxy(self.make(EPollReactor)),
            self.make(AsyncioSelectorReactor, other),
            object(),
        ):
            self.assertIsNone(self.hook(reactor), reactor)


class SystemdSocketsTests(SynchronousTestCase):
    """:func:`systemd_sockets` returns the sockets that systemd has passed."""

    def test_twisteds(self) -> None:
        """Twisted's private attribute exists, and is used."""
        passed = ListenFDs([3, 4], ["tcp", "udp"])
        self.patch(endpoints._SystemdParser, "_sddaemon", passed)
        self.assertIs(systemd_sockets(), passed)

    def test_environment(self) -> None:
        """Without that attribute they are read from the environment."""
        self.patch(endpoints, "_SystemdParser", None)
        pid = str(os.getpid())
        environment = {"LISTEN_PID": pid, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
        with patch.dict(os.environ, environment):
            self.addCleanup(twisted_internals._from_environment.cache_clear)
            self.assertEqual(systemd_sockets().inheritedDescriptors(), [3, 4])
            self.assertEqual(systemd_sockets().inheritedDescriptors(), [3, 4])
