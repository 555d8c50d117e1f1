"""Tests for :mod:`twisted_net.coap.peer_sessions`, through a server."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tests.coap.coap_driver import (
    OBSERVE,
    OTHER,
    Driver,
    ServerTests,
)
from tests.due_calls import call_due
from twisted_net.auth.users import NOBODY, Permissions
from twisted_net.coap.codec import (
    Code,
)
from twisted_net.coap.peer_sessions import IDLE_ENDED_AT_ONCE, SESSION_LIFETIME, PeerSessions
from twisted_net.coap.server import CoapServer
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.standard import standard_commands
from twisted_net.dtls.peer import SecurePeer
from twisted_net.sessions import Sessions
from twisted_net.turns.steps import CLIENTS_AT_ONCE


class PeerSessionsTests(ServerTests):
    """Peers have sessions, for a while after their last request."""

    def test_sessions(self) -> None:
        """Peers are listed and counted like TCP clients."""
        self.ask(Code.GET, "ping")
        self.ask(Code.GET, "ping", source=OTHER)
        self.ask(Code.GET, "ping")
        self.assertEqual(
            [(session.name, session.messages) for session in self.driver.server.sessions],
            [("127.0.0.1:40000", 2), ("127.0.0.1:40001", 1)],
        )

    def test_sessions_end_in_time(self) -> None:
        """A peer has its session for 600 s after its last request, and no longer."""
        self.ask(Code.GET, "ping")
        for passed, open_sessions in ((599.0, 2), (1.0, 2)):
            self.driver.clock.advance(passed)
            self.ask(Code.GET, "ping", source=OTHER)
            self.assertEqual(len(self.driver.server.sessions), open_sessions)
            first = next(iter(self.driver.server.sessions))
            self.assertEqual(first.name, "127.0.0.1:40000")
        self.ask(Code.GET, "ping", source=("127.0.0.1", 40_002))
        names = [session.name for session in self.driver.server.sessions]
        self.assertEqual(names, ["127.0.0.1:40001", "127.0.0.1:40002"])

    def test_many_idle(self) -> None:
        """Of many sessions whose time is over, so many end with each that begins."""
        count = 3 * IDLE_ENDED_AT_ONCE
        for port in range(1, count + 1):
            self.ask(Code.GET, "ping", source=("127.0.0.1", port))
        self.driver.clock.advance(SESSION_LIFETIME)
        left = []
        for port in range(count + 1, count + 5):
            self.ask(Code.GET, "ping", source=("127.0.0.1", port))
            left.append(len(self.driver.server.sessions))
        self.assertEqual(left, [2 * IDLE_ENDED_AT_ONCE + 1, IDLE_ENDED_AT_ONCE + 2, 3, 4])

    def test_many_end_with_the_server(self) -> None:
        """A drain ends so many sessions in each turn, and is over when all have ended."""
        for port in range(1, 2 * CLIENTS_AT_ONCE + 2):
            self.ask(Code.GET, "ping", source=("127.0.0.1", port))
        sessions = self.driver.server.sessions
        drained = Deferred.fromCoroutine(self.driver.server.drain(5))
        left = [len(sessions)]
        while sessions:
            call_due(self.driver.clock)
            left.append(len(sessions))
        self.assertEqual(left, [CLIENTS_AT_ONCE + 1, 1, 0])
        self.assertNoResult(drained)
        self.driver.clock.advance(0)
        self.successResultOf(drained)

    def test_sessions_are_bounded(self) -> None:
        """There are no more sessions than ``max_peers``; the one quiet for longest ends."""
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(max_peers=2))
        for port in (40_000, 40_001, 40_000, 40_002):
            self.driver.ask(Code.GET, "ping", source=("127.0.0.1", port))
        names = [session.name for session in self.driver.server.sessions]
        self.assertEqual(names, ["127.0.0.1:40000", "127.0.0.1:40002"])

    def test_bug_of_permissions(self) -> None:
        """Where the permissions of a peer cannot be had, it is answered, and has no session."""

        def permissions_of(name: str | None) -> Permissions | None:
            raise ZeroDivisionError

        clock = cast(IReactorTime, self.driver.clock)
        server = CoapServer(clock, standard_commands(), permissions_of=permissions_of)
        server.transport = self.driver.transport  # type: ignore[assignment]  # a fake
        self.driver.server = server
        for _ in range(3):
            self.assertEqual(self.ask(Code.GET, "ping").code, Code.INTERNAL_SERVER_ERROR)
        self.assertEqual(len(server.sessions), 0)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_no_permissions(self) -> None:
        """Where strangers have no permissions, nothing is permitted to them, not everything."""
        sessions = Sessions(lambda: 0.0)
        peers = PeerSessions(
            sessions,
            10,
            lambda name: None,
            lambda source, line: None,
            lambda source: None,
            lambda source: None,
        )
        for source in (OTHER, SecurePeer(OTHER, "eve")):
            self.assertIs(peers.of(source, 0.0).permissions, NOBODY)
            self.assertIs(peers.of(source, 1.0).permissions, NOBODY)

    def test_sessions_end(self) -> None:
        """A peer that has been silent for long has no session any more."""
        self.ask(Code.GET, "events", options=[OBSERVE])
        self.driver.clock.advance(SESSION_LIFETIME + 1)
        self.driver.answers()
        self.ask(Code.GET, "ping", source=OTHER)
        self.assertEqual(len(self.driver.server.sessions), 1)
        self.assertEqual(self.driver.server.observers, 0)
