"""Sessions are named, counted, and reached by events."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.connections import FakeClient, FakeConnection
from twisted_net.auth.users import Permissions, User
from twisted_net.errors import CommandError
from twisted_net.ops.instruments import Instruments
from twisted_net.reasons import Audited, End, Refusal
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session


def at(*times: float) -> Callable[[], float]:
    """Give a wall clock that shows these times, one after the other."""
    return iter(times).__next__


class NameTests(SynchronousTestCase):
    """A session is named ``host:port``, and no two that are open alike."""

    def setUp(self) -> None:
        self.sessions = Sessions(lambda: 0.0)

    def open(self, host: str, port: int) -> Session:
        """Open a session whose events are dropped."""
        return self.sessions.open(host, port, FakeClient().deliver)

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
        session = sessions.open("h", 1, FakeClient().deliver)
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
        first, second = (sessions.open("h", port, FakeClient().deliver) for port in (1, 2))
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
            session = sessions.open("h", port, FakeClient().deliver, FakeConnection())
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
            sessions.close(sessions.open("h", port, FakeClient().deliver), end)
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
        session = sessions.open("h", 1, FakeClient().deliver)
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
                "too_many_key_updates",
                "no_descriptors",
                "killed",
                "refused",
                "banned",
            ],
        )

    def test_data(self) -> None:
        """Each session keeps data of its own."""
        sessions = Sessions(lambda: 0.0)
        first, second = (sessions.open("h", port, FakeClient().deliver) for port in (1, 2))
        first.data["a"] = 1
        self.assertEqual((first.data, second.data), ({"a": 1}, {}))


class SessionTests(SynchronousTestCase):
    """:class:`Session`, and what carries it."""

    def setUp(self) -> None:
        self.sessions = Sessions(lambda: 0.0)
        self.carrier = FakeConnection()
        self.session = self.sessions.open("h", 1, FakeClient().deliver, self.carrier)

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

    def test_login_after_its_end(self) -> None:
        """A login that outlives the connection is no holder of permissions."""
        self.sessions.close(self.session, End.KILLED)
        permissions = Permissions("ann", User())
        self.session.log_in(permissions)
        self.assertEqual(len(permissions.holders), 0)

    def test_review(self) -> None:
        """With a subscription that is permitted no more, all messages go that wait."""
        permissions = Permissions("ann", User())
        self.session.log_in(permissions)
        mailbox = self.session.open_mailbox()
        for topic in ("a", "b"):
            mailbox.subscribe(topic)
            self.sessions.topics.publish(topic, "hello")
        permissions.change(User(subscribe=("a", "b")))
        self.session.review()
        self.assertGreater(mailbox.waiting, 0)
        permissions.change(User(subscribe=("b",)))
        self.session.review()
        self.assertEqual((mailbox.waiting, self.sessions.topics.patterns(mailbox)), (0, ["b"]))
        self.assertEqual(self.sessions.topics.lost, 2)

    def test_log_in(self) -> None:
        """A login is as a new connection, be it as another user or as the same one."""
        monitors = self.sessions.instruments.monitors
        for name in ("ann", "ann", "bob"):
            permissions = Permissions(name, User())
            self.session.log_in(permissions)
            self.assertEqual((self.session.user, self.session.data), (name, {}))
            self.assertEqual(list(permissions.holders), [self.session])
            self.assertEqual(len(monitors), 0)
            mailbox = self.session.open_mailbox()
            self.assertEqual((self.sessions.topics.count(mailbox), mailbox.waiting), (0, 0))
            self.assertEqual(mailbox.when_slow, "drop_oldest")
            mailbox.subscribe("news")
            mailbox.when_slow = "disconnect"
            self.sessions.topics.publish("news", "hello")
            self.session.data["cart"] = name
            monitors.add(self.session, 100)
        self.assertEqual(self.sessions.topics.lost, 2)
        self.session.log_in(Permissions("eve", User()))
        self.assertEqual(len(permissions.holders), 0)
