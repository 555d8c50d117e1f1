"""Sessions are named, counted, and reached by events."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.connections import FakeConnection
from twisted_net.auth.users import Permissions, User
from twisted_net.errors import CommandError
from twisted_net.ops.instruments import Instruments
from twisted_net.reasons import Audited, End, Refusal
from twisted_net.sessions import CLIENTS_AT_ONCE, Pacing, Session, Sessions, encode_event, unpaced


class Client:
    """A client that keeps what it is sent, or fails in a word."""

    def __init__(self, failure: str | None = None) -> None:
        self.got: list[bytes] = []
        self.failure = failure

    def deliver(self, line: bytes) -> str | None:
        """Take a line, or say why not."""
        if self.failure is None:
            self.got.append(line)
        return self.failure


def at(*times: float) -> Callable[[], float]:
    """Give a wall clock that shows these times, one after the other."""
    return iter(times).__next__


class NameTests(SynchronousTestCase):
    """A session is named ``host:port``, and no two that are open alike."""

    def setUp(self) -> None:
        self.sessions = Sessions(lambda: 0.0)

    def open(self, host: str, port: int) -> Session:
        """Open a session whose events are dropped."""
        return self.sessions.open(host, port, Client().deliver)

    def test_ipv4(self) -> None:
        """An IPv4 address stands as it is."""
        session = self.open("192.0.2.1", 5000)
        self.assertEqual((session.name, session.client), ("192.0.2.1:5000", ("192.0.2.1", 5000)))

    def test_ipv6(self) -> None:
        """An IPv6 address stands in brackets, its scope with it; the client is as it came."""
        session = self.open("fe80::1%eth0", 5000)
        self.assertEqual(session.name, "[fe80::1%eth0]:5000")
        self.assertEqual(session.client, ("fe80::1%eth0", 5000))

    def test_unique(self) -> None:
        """The same address again is numbered from 2; a name that is free again is given again."""
        first, second, third = (self.open("::1", 1) for _ in range(3))
        self.assertEqual([s.name for s in self.sessions], ["[::1]:1", "[::1]:1#2", "[::1]:1#3"])
        self.sessions.close(second, End.DRAINED)
        self.assertEqual(self.open("::1", 1).name, "[::1]:1#2")
        self.sessions.close(first, End.DRAINED)
        self.assertEqual(self.open("::1", 1).name, "[::1]:1")
        self.assertEqual(third.name, "[::1]:1#3")
        self.assertEqual(len(self.sessions), 3)


class CounterTests(SynchronousTestCase):
    """Figures are right at each moment, and outlive their sessions."""

    def test_times(self) -> None:
        """A session knows when it began, and when it ended, by the wall clock."""
        sessions = Sessions(at(11.5, 10.0))
        session = sessions.open("h", 1, Client().deliver)
        self.assertEqual(session.connected, 11.5)
        sessions.close(session, End.CLIENT_CLOSED)
        self.assertEqual(sessions.counters.closed[0].ended, 10.0)

    def test_uptime(self) -> None:
        """It is counted by the steady clock of the first server, whatever the wall clock shows."""
        sessions = Sessions(at())
        self.assertEqual(sessions.uptime, 0.0)
        sessions.use_clock(at(5.0, 7.5, 8.0))
        self.assertEqual(sessions.uptime, 2.5)
        sessions.use_clock(at())
        self.assertEqual(sessions.uptime, 3.0)

    def test_messages(self) -> None:
        """Lines are counted for the session and for all together."""
        sessions = Sessions(lambda: 0.0)
        first, second = (sessions.open("h", port, Client().deliver) for port in (1, 2))
        first.count()
        first.count()
        second.count()
        for _ in range(2):
            self.assertEqual((first.messages, second.messages, sessions.messages), (2, 1, 3))
            if first in list(sessions):
                sessions.close(first, End.CLIENT_CLOSED)
        sessions.close(second, End.CLIENT_CLOSED)
        self.assertEqual(sessions.messages, 3)

    def test_bytes(self) -> None:
        """Bytes are counted for the session, messages of topics among them, and for those ended."""
        sessions = Sessions(lambda: 0.0)
        for port in (1, 2):
            session = sessions.open("h", port, Client().deliver, FakeConnection())
            session.received, session.written = 10, 20
            self.assertEqual(session.sent, 20)
            mailbox = session.open_mailbox()
            mailbox.subscribe("news")
            sessions.topics.publish("news", "hello")
            size = len(mailbox.next_chunk())
            self.assertGreater(size, 0)
            self.assertEqual(session.sent, 20 + size)
            sessions.close(session, End.CLIENT_CLOSED)
            self.assertEqual(
                (sessions.counters.received, sessions.counters.sent),
                (10 * port, (20 + size) * port),
            )

    def test_open_and_ended(self) -> None:
        """Each end is counted under its reason; a refused connection was never opened."""
        sessions = Sessions(lambda: 0.0)
        for port, end in enumerate(End):
            sessions.close(sessions.open("h", port, Client().deliver), end)
        sessions.refused(End.TOO_MANY_CONNECTIONS)
        sessions.refused(End.DRAINED)
        expected = dict.fromkeys(End, 1)
        expected[End.TOO_MANY_CONNECTIONS] = expected[End.DRAINED] = 2
        self.assertEqual(sessions.counters.ended, expected)
        self.assertEqual((sessions.counters.opened, len(sessions)), (len(End), 0))

    def test_turned_away(self) -> None:
        """Who may not come in is counted under the reason, and told to the auditor."""
        told: list[tuple[str, str, str]] = []

        def audit(event: str, client: Audited, what: str) -> None:
            told.append((event, client.name, what))

        sessions = Sessions(lambda: 0.0, instruments=Instruments(audit))
        sessions.turned_away(End.PROTECTED, "::1", 5000)
        self.assertEqual(sessions.counters.ended[End.PROTECTED], 1)
        self.assertEqual(told, [("refused", "[::1]:5000", "protected")])
        self.assertEqual((sessions.counters.opened, len(sessions)), (0, 0))

    def test_refused_lines(self) -> None:
        """Lines that are refused are counted by reason, and told to the auditor."""
        told: list[str] = []

        def audit(event: str, client: Audited, what: str) -> None:
            told.append(f"{event} {client.name} {what}")

        sessions = Sessions(lambda: 0.0, instruments=Instruments(audit))
        session = sessions.open("h", 1, Client().deliver)
        sessions.refuse_line(session, Refusal.BUSY, "FETCH")
        self.assertEqual(sessions.counters.refusals[Refusal.BUSY], 1)
        self.assertEqual(sum(sessions.counters.refusals.values()), 1)
        self.assertEqual(told, ["refused h:1 busy: FETCH"])

    def test_all_reasons_from_the_start(self) -> None:
        """Every reason has its figure before anything ended."""
        self.assertEqual(Sessions(lambda: 0.0).counters.ended, dict.fromkeys(End, 0))

    def test_reasons(self) -> None:
        """The names of the reasons, which STATS shows, do not change."""
        self.assertEqual(
            [end.value for end in End],
            [
                "client_closed",
                "connection_lost",
                "idle_timeout",
                "write_timeout",
                "slow_subscriber",
                "drained",
                "aborted",
                "too_many_connections",
                "handshake_timeout",
                "handshake_failed",
                "too_many_handshakes",
                "untrusted_proxy",
                "address_limit",
                "network_limit",
                "user_limit",
                "anonymous_limit",
                "protected",
                "auth_timeout",
                "cross_protocol",
                "buffers_full",
                "killed",
            ],
        )

    def test_data(self) -> None:
        """Each session keeps data of its own."""
        sessions = Sessions(lambda: 0.0)
        first, second = (sessions.open("h", port, Client().deliver) for port in (1, 2))
        first.data["a"] = 1
        self.assertEqual((first.data, second.data), ({"a": 1}, {}))


class SessionTests(SynchronousTestCase):
    """:class:`Session`, and what carries it."""

    def setUp(self) -> None:
        self.sessions = Sessions(lambda: 0.0)
        self.carrier = FakeConnection()
        self.session = self.sessions.open("h", 1, Client().deliver, self.carrier)

    def test_after_its_end(self) -> None:
        """A session that has ended takes no event, and has nobody to send away."""
        self.assertTrue(self.session.kill())
        self.sessions.close(self.session, End.KILLED)
        self.assertEqual(self.session.deliver(b"\n"), "closing")
        self.assertFalse(self.session.kill())
        self.assertEqual(self.session.figures(), {})
        self.assertEqual(self.carrier.killed, 1)

    def test_subscribing_after_its_end(self) -> None:
        """A handler that outlives the connection subscribes for nobody."""
        self.session.open_mailbox()
        self.sessions.close(self.session, End.KILLED)
        self.assertFalse(self.session.has_connection)
        self.assertRaises(CommandError, self.session.open_mailbox)

    def test_log_in(self) -> None:
        """Another user begins without subscriptions; the same one keeps them."""
        self.session.log_in(Permissions("ann", User()))
        mailbox = self.session.open_mailbox()
        mailbox.subscribe("news")
        for name, subscribed in (("ann", True), ("bob", False)):
            self.session.log_in(Permissions(name, User()))
            self.sessions.topics.publish("news", "hello")
            self.assertEqual(bool(mailbox.next_chunk()), subscribed, name)
            self.assertEqual(self.session.user, name)


class DeliveryTests(SynchronousTestCase):
    """An event reaches all who can be reached, and the others are counted."""

    def setUp(self) -> None:
        self.sessions = Sessions(lambda: 0.0)
        self.clients = [Client(), Client("output_full"), Client(), Client("closing")]
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
        clients = [*self.clients, *(Client() for _ in range(CLIENTS_AT_ONCE))]
        for port, client in enumerate(clients[4:]):
            self.sessions.open("more", port, client.deliver)
        reached = []

        async def by_turns(steps: Iterable[int]) -> list[int]:
            given = []
            for delivered in steps:
                reached.append(sum(bool(client.got) for client in clients))
                given.append(delivered)
            return given

        for pacing in (by_turns, unpaced):
            sessions = Sessions(lambda: 0.0, pacing=pacing)
            for session in self.sessions:
                sessions.open(*session.client, session.deliver)
            spread = Deferred.fromCoroutine(sessions.spread({"event": "x"}))
            delivery = self.successResultOf(spread)
            self.assertEqual(delivery.delivered, CLIENTS_AT_ONCE + 2)
            self.assertEqual(delivery.failures, {"h:1": "output_full", "h:3": "closing"})
        self.assertEqual(reached, [CLIENTS_AT_ONCE - 2, CLIENTS_AT_ONCE + 2])

    def test_pacing_of_the_first(self) -> None:
        """The first server's pacing is used, unless one was given."""
        used: list[str] = []

        def pacing(name: str) -> Pacing:
            async def by_turns(steps: Iterable[int]) -> list[int]:
                used.append(name)
                return list(steps)

            return by_turns

        for sessions, expected in (
            (Sessions(lambda: 0.0), "first"),
            (Sessions(lambda: 0.0, pacing=pacing("given")), "given"),
        ):
            sessions.use_pacing(pacing("first"))
            sessions.use_pacing(pacing("second"))
            self.successResultOf(Deferred.fromCoroutine(sessions.spread({"event": "x"})))
            self.assertEqual(used.pop(), expected)

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
            self.sessions.open("new", 1, Client().deliver)

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
