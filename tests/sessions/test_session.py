"""One client: found by its user, sent events in order, gone when it is ended."""

from __future__ import annotations

import gc
from weakref import ref

from twisted.trial.unittest import SynchronousTestCase

from tests.connections import FakeClient, FakeConnection
from twisted_net.auth.users import User, Users
from twisted_net.reasons import End
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session
from twisted_net.topics.registry import Topics
from twisted_net.topics.settings import TopicSettings


class SessionCase(SynchronousTestCase):
    """Sessions of two servers of a service."""

    def setUp(self) -> None:
        self.topics = Topics(TopicSettings(max_queue=4096))
        self.sessions = Sessions(lambda: 0.0, self.topics)
        self.elsewhere = Sessions(lambda: 0.0, self.topics, by_user=self.sessions.by_user)
        self.users = Users({"ann": User(), "bob": User()})

    def open(self, port: int = 1, sessions: Sessions | None = None) -> Session:
        """Open a session with a connection."""
        self.client, self.carrier = FakeClient(), FakeConnection()
        return (sessions or self.sessions).open("h", port, self.client.deliver, self.carrier)

    def log_in(self, session: Session, user: str) -> Session:
        """Log a session in."""
        permissions = self.users.permissions(user)
        assert permissions is not None
        session.log_in(permissions)
        return session


class OfUserTests(SessionCase):
    """``of_user`` finds the sessions of a user, whichever door they came through."""

    def test_all_doors(self) -> None:
        """Those of all servers, in the order of their logins."""
        second = self.open(2, self.elsewhere)
        first = self.log_in(self.open(1), "ann")
        self.log_in(second, "ann")
        self.log_in(self.open(3), "bob")
        self.assertEqual(self.sessions.of_user("ann"), [first, second])
        self.assertEqual(self.elsewhere.of_user("ann"), [first, second])
        self.assertEqual(self.sessions.of_user("nobody"), [])

    def test_ended(self) -> None:
        """One that has ended, was logged out, or is another user now, is no session of the user."""
        first, second, third = (self.log_in(self.open(port), "ann") for port in (1, 2, 3))
        self.sessions.close(first, End.CLIENT_CLOSED)
        second.log_out()
        self.log_in(third, "bob")
        self.assertEqual(self.sessions.of_user("ann"), [])
        self.assertEqual(self.sessions.of_user("bob"), [third])

    def test_login_after_the_end(self) -> None:
        """A login that succeeds after the client has left finds nobody."""
        session = self.open()
        self.sessions.close(session, End.CLIENT_CLOSED)
        self.log_in(session, "ann")
        self.assertEqual(self.sessions.of_user("ann"), [])

    def test_removed(self) -> None:
        """The sessions of a user who is removed are nobody's."""
        session = self.log_in(self.open(), "ann")
        new = Users({"bob": User()})
        for permissions in new.replace(self.users):
            for holder in list(permissions.holders):
                holder.review()
        self.assertEqual(self.sessions.of_user("ann"), [])
        self.assertIsNone(session.user)


class SendTests(SessionCase):
    """``send`` keeps the order of what a client gets."""

    def test_nothing_waits(self) -> None:
        """An event is sent at once."""
        session = self.open()
        self.assertIsNone(session.send({"event": "hello"}))
        self.assertEqual(self.client.got, [b'{"event":"hello"}\n'])

    def test_behind_messages(self) -> None:
        """It waits behind messages that wait, and they behind it."""
        session = self.open()
        mailbox = session.open_mailbox()
        mailbox.subscribe("a")
        self.topics.publish("a", "1")
        self.assertIsNone(session.send({"event": "between"}))
        self.topics.publish("a", "2")
        self.assertEqual(self.client.got, [])
        lines = mailbox.next_chunk().splitlines()
        self.assertEqual(lines[1], b'{"event":"between"}')
        self.assertIn(b'"1"', lines[0])
        self.assertIn(b'"2"', lines[2])

    def test_bounded(self) -> None:
        """An event for which there is no room is counted, as one that cannot be delivered."""
        session = self.open()
        mailbox = session.open_mailbox()
        mailbox.subscribe("a")
        mailbox.when_slow = "drop_newest"
        self.topics.publish("a", "1")
        self.assertEqual(session.send({"event": "big", "text": "x" * 5000}), "queue_full")
        self.assertEqual((session.undelivered, self.sessions.counters.undelivered), (1, 1))

    def test_after_the_end(self) -> None:
        """One that has ended gets nothing, whatever waited for it."""
        session = self.open()
        session.open_mailbox().subscribe("a")
        self.topics.publish("a", "1")
        self.sessions.close(session, End.CLIENT_CLOSED)
        self.assertEqual(session.send({"event": "late"}), "closing")

    def test_no_event(self) -> None:
        """What is no event is refused, as a client would take it for an answer."""
        self.assertRaises(TypeError, self.open().send, {"text": "x"})


class SubscribersTests(SessionCase):
    """``Topics.subscribers`` says whom a message would reach."""

    def test_sessions(self) -> None:
        """Sessions stand for their mailboxes; each is named once, in the order they came."""
        first, second = self.open(1), self.open(2)
        first.open_mailbox().subscribe("a.*")
        second.open_mailbox().subscribe("a.b")
        first.open_mailbox().subscribe("a.b")
        self.assertEqual(set(self.topics.subscribers("a.b")), {first, second})
        self.assertEqual(len(self.topics.subscribers("a.b")), 2)
        self.assertEqual(self.topics.subscribers("a.c"), [first])
        self.sessions.close(first, End.CLIENT_CLOSED)
        self.assertEqual(self.topics.subscribers("a.b"), [second])


class EndTests(SessionCase):
    """A session that has ended is gone."""

    def test_weakly_referable(self) -> None:
        """It is freed as it ends, without the garbage collector."""
        session = self.log_in(self.open(), "ann")
        session.open_mailbox().subscribe("a")
        weak = ref(session)
        gc.disable()
        try:
            self.sessions.close(session, End.CLIENT_CLOSED)
            del session
            self.assertIsNone(weak())
        finally:
            gc.enable()

    def test_killed(self) -> None:
        """One that is killed is out of all lists at once, whatever its peer does."""
        session = self.log_in(self.open(), "ann")
        session.open_mailbox().subscribe("a")
        self.assertTrue(session.kill("enough"))
        self.assertEqual(self.carrier.reasons, ["enough"])
        self.assertEqual((list(self.sessions), self.sessions.of_user("ann")), ([], []))
        self.assertEqual(self.topics.subscribers("a"), [])
        # The connection is lost later on.
        self.sessions.close(session, End.CONNECTION_LOST)
        ended = {end: count for end, count in self.sessions.counters.ended.items() if count}
        self.assertEqual(ended, {End.KILLED: 1})
