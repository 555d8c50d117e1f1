"""Tests for :mod:`twisted_net.coap.peers.peer_sessions`, through a server."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tests.coap.coap_driver import (
    OBSERVE,
    OTHER,
    REMOTE,
    Driver,
    ServerTests,
)
from tests.due_calls import call_due
from twisted_net.auth.users import NOBODY, Permissions, User
from twisted_net.coap.codec import Code, Option, Type
from twisted_net.coap.peers.peer_sessions import IDLE_ENDED_AT_ONCE, SESSION_LIFETIME, PeerSessions
from twisted_net.coap.server import CoapServer
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.standard import standard_commands
from twisted_net.dtls.peer import SecurePeer
from twisted_net.ops.instruments import Instruments
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
        for passed, names in (
            (599.0, ["127.0.0.1:40000", "127.0.0.1:40001"]),
            (1.0, ["127.0.0.1:40001"]),
        ):
            self.driver.clock.advance(passed)
            self.ask(Code.GET, "ping", source=OTHER)
            self.assertEqual([session.name for session in self.driver.server.sessions], names)

    def test_nobody_else(self) -> None:
        """Sessions whose time is over end although nobody comes; those of observers do not."""
        sessions = self.driver.server.sessions
        self.ask(Code.GET, "events", options=[OBSERVE], source=OTHER)
        self.driver.clock.advance(1)
        for port in range(1, 2 * IDLE_ENDED_AT_ONCE + 1):
            self.ask(Code.GET, "ping", source=("127.0.0.1", port))
        self.driver.clock.advance(SESSION_LIFETIME - 1)
        self.assertEqual(len(sessions), 1 + 2 * IDLE_ENDED_AT_ONCE)
        self.driver.clock.pump([1, 0, 0])
        self.assertEqual([session.client[1] for session in sessions], [OTHER[1]])
        self.assertEqual(self.driver.leftovers(), [])

    def test_own_event(self) -> None:
        """An event for one peer is its ``/events`` alone, until the next broadcast."""
        self.ask(Code.GET, "events", options=[OBSERVE])
        self.ask(Code.GET, "events", options=[OBSERVE], source=OTHER)
        sessions = self.driver.server.sessions
        first = next(iter(sessions))
        self.assertIsNone(first.send({"event": "yours", "n": 1}))
        self.assertEqual(
            [answer.payload for answer in self.driver.answers()], [b'{"event":"yours","n":1}']
        )
        self.assertEqual(self.driver.answers(OTHER), [])
        self.assertEqual(self.ask(Code.GET, "events", source=OTHER).payload, b"{}")
        sessions.broadcast({"event": "all"})
        self.assertEqual(self.ask(Code.GET, "events").payload, b'{"event":"all"}')

    def test_event_of_stranger(self) -> None:
        """A peer whose address may be forged reads what all got, and has no session."""
        sessions = self.driver.server.sessions
        sessions.broadcast({"event": "all"})
        answer = self.ask(Code.GET, "events", source=REMOTE)
        self.assertEqual((answer.payload, len(sessions)), (b'{"event":"all"}', 0))

    def test_many_idle(self) -> None:
        """Of many sessions whose time is over, so many end in one turn."""
        count = 3 * IDLE_ENDED_AT_ONCE
        for port in range(1, count + 1):
            self.ask(Code.GET, "ping", source=("127.0.0.1", port))
        sessions, peers = self.driver.server.sessions, self.driver.server._peers
        now, left = self.driver.clock.seconds() + SESSION_LIFETIME, []
        while peers.end_idle(now) is not None:
            left.append(len(sessions))
        self.assertEqual(left, [2 * IDLE_ENDED_AT_ONCE, IDLE_ENDED_AT_ONCE, 0])

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
            lambda source: False,
        )
        for source in (OTHER, SecurePeer(OTHER, "eve")):
            self.assertIs(peers.of(source, 0.0).permissions, NOBODY)
            self.assertIs(peers.of(source, 1.0).permissions, NOBODY)

    def test_audited_credential(self) -> None:
        """The audit says what proved who a peer is: a certificate, or a pre-shared key."""
        audited: list[str] = []
        instruments = Instruments(lambda event, client, what: audited.append(f"{event} {what}"))
        users: dict[str | None, Permissions] = {}
        peers = PeerSessions(
            Sessions(lambda: 0.0, instruments=instruments),
            10,
            users.get,
            lambda source, line: None,
            lambda source: None,
            lambda source: None,
            lambda source: False,
        )
        for credential in ("certificate", "pre-shared key"):
            users.clear()
            peer = SecurePeer(OTHER, "eve", credential)
            peers.of(peer, 0.0)
            users["eve"] = Permissions("eve", User())
            peers.of(peer, 1.0)
            self.assertEqual(
                audited, [f"refused by {credential}: no user eve", f"login by {credential}"]
            )
            audited.clear()

    def test_observers_are_not_idle(self) -> None:
        """
        An observation does not end because its peer is silent (RFC 7641 §4.5).

        Its session stays as well, as events are delivered to it.
        """
        self.ask(Code.GET, "events", options=[OBSERVE])
        for _ in range(3):
            self.driver.clock.advance(SESSION_LIFETIME + 1)
            self.driver.answers()
            self.ask(Code.GET, "ping", source=OTHER)
        self.assertEqual((self.driver.server.observers, len(self.driver.server.sessions)), (1, 2))
        self.ask(Code.POST, "broadcast", b"hello", source=OTHER)
        (told,) = self.driver.answers()
        self.assertIn(b"hello", told.payload)

    def test_observers_stay_in_a_crowd(self) -> None:
        """Nor does it end because many others send requests: their sessions give way."""
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(max_peers=10))
        self.driver.ask(Code.GET, "events", options=[OBSERVE])
        for port in range(1, 100):
            self.driver.ask(Code.GET, "ping", source=("127.0.0.1", port))
        self.assertEqual(self.driver.server.observers, 1)
        self.assertEqual(len(self.driver.server.sessions), 10)
        self.assertEqual(self.driver.answers(), [])

    def test_no_room_for_observers(self) -> None:
        """If there are observers alone, the one that has to go is told 5.03."""
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(max_peers=3))
        for port in range(1, 5):
            self.driver.ask(Code.GET, "events", options=[OBSERVE], source=("127.0.0.1", port))
        self.assertEqual(self.driver.server.observers, 3)
        (gone,) = self.driver.answers(("127.0.0.1", 1))
        self.assertEqual(
            (gone.type, gone.code, gone.token), (Type.NON, Code.SERVICE_UNAVAILABLE, b"t")
        )
        self.assertIsNotNone(gone.option(Option.MAX_AGE))
