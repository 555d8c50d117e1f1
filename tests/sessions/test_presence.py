"""Presence: identities come and go, by user, certificate and address."""

from __future__ import annotations

from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tests.connections import FakeClient, FakeConnection
from twisted_net.auth.users import NOBODY, Permissions, User
from twisted_net.reasons import End
from twisted_net.sessions import presence
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session
from twisted_net.topics.messages import TopicMessage


class Watcher:
    """Listens to presence."""

    def __init__(self) -> None:
        self.got: list[tuple[str, object]] = []

    def take(self, message: TopicMessage) -> bool:
        self.got.append((message.topic, message.value))
        return True


def event(kind: str, name: str, present: bool) -> tuple[str, object]:
    """Return what is published of an identity."""
    return f"@presence.{kind}", {"kind": kind, "name": name, "present": present}


class PresenceTests(SynchronousTestCase):
    """Two doors of one service."""

    def setUp(self) -> None:
        self.now = 10.0
        self.lines = Sessions(lambda: self.now)
        self.coap = Sessions(
            lambda: self.now, self.lines.topics, doors=self.lines.doors, door="coap"
        )
        self.presence = self.lines.doors.presence
        self.watcher = Watcher()
        self.lines.topics.subscribe(self.watcher, "@presence.>")

    def come(self, sessions: Sessions, port: int, host: str = "192.0.2.1") -> Session:
        """Let a client come who need not log in."""
        connection = FakeConnection() if sessions is self.lines else None
        session = sessions.open(host, port, FakeClient().deliver, connection)
        self.presence.update(session)
        return session

    def figures(self, kind: str, name: str) -> list[float]:
        """Return the connections of an identity, its first time, and since when it is so."""
        found = self.presence.get(kind, name)
        assert found is not None
        return [found.connections, found.first_seen, found.since]

    def test_port(self) -> None:
        """An address is there from its first client to its last, whatever their ports and doors."""
        first = self.come(self.lines, 1)
        self.now = 11.0
        second = self.come(self.coap, 2)
        self.lines.close(first, End.CLIENT_CLOSED)
        self.assertEqual(self.watcher.got, [event("address", "192.0.2.1", True)])
        self.assertEqual(self.figures("address", "192.0.2.1"), [1, 10.0, 10.0])
        self.now = 12.0
        self.coap.close(second, End.IDLE_TIMEOUT)
        self.assertEqual(self.watcher.got[1:], [event("address", "192.0.2.1", False)])
        self.assertEqual(self.figures("address", "192.0.2.1"), [0, 10.0, 12.0])
        self.now = 13.0
        self.come(self.lines, 3)
        self.assertEqual(self.figures("address", "192.0.2.1"), [1, 10.0, 13.0])
        self.assertEqual((len(self.presence), self.presence.gone), (1, 0))

    def test_user(self) -> None:
        """With users, a client of lines is nobody before its login, and again after its logout."""
        anonymous, ann = Permissions(None, User()), Permissions("ann", User())
        session = self.lines.open("192.0.2.1", 1, FakeClient().deliver, FakeConnection())
        session.permissions = anonymous
        self.presence.update(session)
        self.assertEqual(self.watcher.got, [])
        session.log_in(ann)
        session.log_in(ann)
        self.assertEqual(self.watcher.got, [event("user", "ann", True)])
        session.log_out()
        self.lines.close(session, End.CLIENT_CLOSED)
        self.assertEqual(self.watcher.got[1:], [event("user", "ann", False)])

    def test_without_login(self) -> None:
        """A peer that cannot log in is its address; one with a wrong certificate is nobody."""
        device = self.coap.open("192.0.2.2", 1, FakeClient().deliver)
        device.permissions = Permissions(None, User())
        self.presence.update(device)
        wrong = self.coap.open("192.0.2.3", 1, FakeClient().deliver)
        wrong.permissions = NOBODY
        self.presence.update(wrong)
        self.assertEqual(self.watcher.got, [event("address", "192.0.2.2", True)])

    def test_certificate(self) -> None:
        """Without users, a certificate names its client."""
        session = self.coap.open("192.0.2.2", 1, FakeClient().deliver)
        session.identity = "dev-7"
        self.presence.update(session)
        self.assertEqual(self.watcher.got, [event("certificate", "dev-7", True)])

    def test_ended(self) -> None:
        """A session that has ended does not come any more."""
        session = self.lines.open("192.0.2.1", 1, FakeClient().deliver, FakeConnection())
        self.lines.close(session, End.KILLED)
        self.presence.update(session)
        self.assertEqual((len(self.presence), self.watcher.got), (0, []))

    def test_bound(self) -> None:
        """Of those that have gone so many are remembered, the latest."""
        with patch.object(presence, "GONE_KEPT", 2):
            for i in range(4):
                self.lines.close(self.come(self.lines, 1, f"192.0.2.{i}"), End.CLIENT_CLOSED)
        names = [identity.name for identity in self.presence]
        self.assertEqual(names, ["192.0.2.3", "192.0.2.2"])
        self.assertIsNone(self.presence.get("address", "192.0.2.0"))

    def test_wildcards(self) -> None:
        """A wildcard in the first level does not stand for presence."""
        other = Watcher()
        for pattern in (">", "*.address", "*.>"):
            self.lines.topics.subscribe(other, pattern)
        self.come(self.lines, 1)
        self.assertEqual((len(self.watcher.got), other.got), (1, []))

    def test_unheard(self) -> None:
        """Without a subscriber nothing is published."""
        self.lines.topics.unsubscribe_all(self.watcher)
        self.come(self.lines, 1)
        self.assertEqual(self.lines.topics.published, 0)
