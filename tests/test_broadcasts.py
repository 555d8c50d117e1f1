"""Broadcasts reach the clients of all servers that share them, as far as they may hear them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.connections import FakeClient
from twisted_net.broadcasts import encode_event
from twisted_net.reasons import End
from twisted_net.sessions import Sessions
from twisted_net.turns.steps import CLIENTS_AT_ONCE, unpaced


class Paced:
    """
    A :class:`FairPacing` of which nothing waits.

    :param stepped: called after each step.
    :ivar events: the sender and the size of each event.
    """

    kept = max_bytes = 0

    def __init__(self, stepped: Callable[[], object]) -> None:
        self.events: list[tuple[str, int]] = []
        self._stepped = stepped

    def __len__(self) -> int:
        return 0

    async def __call__(self, steps: Iterable[int], sender: str, size: int) -> list[int]:
        """Go through the steps."""
        self.events.append((sender, size))
        given = []
        for delivered in steps:
            given.append(delivered)
            self._stepped()
        return given


class EventTests(SynchronousTestCase):
    """:func:`encode_event` takes events alone."""

    def test_no_events(self) -> None:
        """What is no mapping, or has no kind, is refused: a client would take it for an answer."""
        wrong: list[Any] = ["going down", [("event", "x")], {"text": "x"}, {"event": 5}]
        for event in wrong:
            with self.subTest(event=event):
                self.assertRaises(TypeError, encode_event, event)


class DeliveryTests(SynchronousTestCase):
    """An event reaches all who can be reached, and the others are counted."""

    def setUp(self) -> None:
        self.sessions = Sessions(lambda: 0.0)
        self.clients = [
            FakeClient(),
            FakeClient("output_full"),
            FakeClient(),
            FakeClient("closing"),
        ]
        self.opened = [
            self.sessions.open("h", port, client.deliver)
            for port, client in enumerate(self.clients)
        ]

    def test_broadcast(self) -> None:
        """A failure is told by name and in a word, and does not touch those after it."""
        delivery = self.sessions.broadcast({"event": "x", "text": "ä\n"})
        line = '{"event":"x","text":"ä\\n"}\n'.encode()
        self.assertEqual([client.got for client in self.clients], [[line], [], [line], []])
        self.assertEqual(delivery.delivered, 2)
        self.assertEqual(delivery.failures, {"h:1": "output_full", "h:3": "closing"})

    def test_spread(self) -> None:
        """Spread over turns an event fares the same, to so many in each; without turns, at once."""
        clients = [*self.clients, *(FakeClient() for _ in range(CLIENTS_AT_ONCE))]
        for port, client in enumerate(clients[4:]):
            self.sessions.open("more", port, client.deliver)
        reached = []

        def reach() -> None:
            reached.append(sum(bool(client.got) for client in clients))

        for pacing in (Paced(reach), None):
            sessions = Sessions(lambda: 0.0, pacing=pacing)
            for session in self.sessions:
                sessions.open(*session.client, session.deliver)
            spread = Deferred.fromCoroutine(sessions.spread({"event": "x"}))
            delivery = self.successResultOf(spread)
            self.assertEqual(delivery.delivered, CLIENTS_AT_ONCE + 2)
            self.assertEqual(delivery.failures, {"h:1": "output_full", "h:3": "closing"})
        self.assertEqual(reached, [CLIENTS_AT_ONCE - 2, CLIENTS_AT_ONCE + 2])

    def test_sender(self) -> None:
        """An event counts with its bytes for the user or address that sends it, or for none."""
        pacing = Paced(lambda: None)
        sessions = Sessions(lambda: 0.0, pacing=pacing)
        sender = sessions.open("192.0.2.7", 1, FakeClient().deliver)
        for each in (sender, None):
            spread = Deferred.fromCoroutine(sessions.spread({"event": "x"}, each))
            self.successResultOf(spread)
        size = len('{"event":"x"}\n')
        self.assertEqual(pacing.events, [("192.0.2.7", size), ("", size)])

    def test_pacing_of_the_first(self) -> None:
        """The first server's pacing is used, unless one was given."""
        given, first, second = (Paced(lambda: None) for _ in range(3))
        for sessions, expected in (
            (Sessions(lambda: 0.0), first),
            (Sessions(lambda: 0.0, pacing=given), given),
        ):
            for pacing in (first, second):
                sessions.use_pacing(lambda: unpaced, [pacing].pop)
            self.successResultOf(Deferred.fromCoroutine(sessions.spread({"event": "x"})))
            self.assertEqual([len(each.events) for each in (expected, second)], [1, 0])

    def test_one_object(self) -> None:
        """A broadcast is encoded once: all clients get the same bytes object."""
        self.sessions.broadcast({"event": "x"})
        self.assertIs(self.clients[0].got[0], self.clients[2].got[0])

    def test_undelivered(self) -> None:
        """What is not delivered is counted for the session and for all, by broadcast or not."""
        self.sessions.broadcast({"event": "x"})
        self.assertEqual(self.opened[1].deliver(b"\n"), "output_full")
        self.assertIsNone(self.opened[0].deliver(b"\n"))
        self.assertEqual([session.undelivered for session in self.opened], [0, 2, 0, 1])
        self.assertEqual(self.sessions.counters.undelivered, 3)

    def test_nobody(self) -> None:
        """A broadcast to nobody fares well."""
        delivery = Sessions(lambda: 0.0).broadcast({"event": "x"})
        self.assertEqual((delivery.delivered, delivery.failures), (0, {}))

    def test_ends_meanwhile(self) -> None:
        """A session may end, and another begin, while an event goes out."""

        def leave(line: bytes) -> None:
            self.sessions.close(leaving, End.CLIENT_CLOSED)
            self.sessions.open("new", 1, FakeClient().deliver)

        leaving = self.sessions.open("h", 9, leave)
        self.assertEqual(self.sessions.broadcast({"event": "x"}).delivered, 3)
        self.assertEqual([session.name for session in self.sessions][-1], "new:1")

    def test_encode(self) -> None:
        """An event is one line of JSON."""
        self.assertEqual(encode_event({"event": "a\nb"}), b'{"event":"a\\nb"}\n')

    def test_not_json(self) -> None:
        """An event that is not JSON reaches nobody."""
        self.assertRaises(TypeError, self.sessions.broadcast, {"event": object()})
        self.assertEqual([client.got for client in self.clients], [[], [], [], []])
