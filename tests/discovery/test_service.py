"""Tests of :mod:`twisted_net.discovery.service`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.discovery import service as discovery
from twisted_net.discovery.announcements import ChangeKind, InstanceChange
from twisted_net.discovery.service import MIN_INTERVAL, Announcer, DiscoveryListener
from twisted_net.discovery.settings import DiscoveryGroup, DiscoverySettings
from twisted_net.net.addresses import Source

QUERY = b'{"twisted_net":1,"query":true}'


class Sockets:
    """
    A group in memory, in place of :class:`~twisted_net.discovery.service.GroupSockets`.

    :cvar made: all that were made, the last one last.
    """

    made: ClassVar[list[Sockets]] = []

    def __init__(
        self, reactor: object, place: DiscoveryGroup, receive: Callable[[bytes, Source], None]
    ) -> None:
        self.receive = receive
        self.sent: list[bytes] = []
        self.closed = False
        self.made.append(self)

    def send(self, datagram: bytes) -> None:
        """Keep it."""
        self.sent.append(datagram)

    def close(self) -> None:
        """Note it."""
        self.closed = True


class GroupTestCase(SynchronousTestCase):
    """A clock, and a group in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reactor = MemoryReactor()
        Sockets.made.clear()
        self.patch(discovery, "GroupSockets", Sockets)

    @property
    def sockets(self) -> Sockets:
        """The sockets that were made last."""
        return Sockets.made[-1]


class AnnouncerTests(GroupTestCase):
    """:class:`Announcer`."""

    def setUp(self) -> None:
        super().setUp()
        self.chance = 0.5
        self.services = {"tcp": 8888}
        self.announcer = Announcer(
            self.reactor,
            self.clock,
            DiscoverySettings(interval=10),
            "kitchen",
            "7",
            lambda: self.services,
            lambda: self.chance,
        )

    def sent(self) -> list[dict[str, Any]]:  # Any: JSON
        """Take what was sent so far, decoded."""
        sent, self.sockets.sent = self.sockets.sent, []
        return [msgspec.json.decode(datagram) for datagram in sent]

    def test_interval(self) -> None:
        """It is announced at its start, then at the interval, give or take a tenth."""
        self.announcer.startService()
        self.clock.advance(0)
        (first,) = self.sent()
        self.assertEqual((first["name"], first["version"], first["ttl"]), ("kitchen", "7", 30.0))
        self.assertEqual(first["services"], {"tcp": 8888})
        self.chance = 1.0
        self.clock.advance(10)
        self.assertEqual(len(self.sent()), 1)
        self.clock.advance(10.9)
        self.assertEqual(len(self.sent()), 0)
        self.chance = 0.0
        self.clock.advance(0.1)
        self.clock.advance(9.0)
        self.assertEqual(len(self.sent()), 2)

    def test_services(self) -> None:
        """Each announcement has the services of its moment."""
        self.announcer.startService()
        self.services = {"udp": 9}
        self.clock.advance(0)
        self.assertEqual(self.sent()[0]["services"], {"udp": 9})

    def test_goodbye(self) -> None:
        """When it stops it says so, and leaves the group and no call."""
        self.announcer.startService()
        self.clock.advance(0)
        (first,) = self.sent()
        self.announcer.stopService()
        (last,) = self.sent()
        self.assertEqual((last["instance"], last["ttl"]), (first["instance"], 0))
        self.assertTrue(self.sockets.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.announcer.stopService()

    def test_another_instance(self) -> None:
        """After each start it is another instance."""
        seen = set()
        for _ in range(2):
            self.announcer.startService()
            self.clock.advance(0)
            seen.add(self.sent()[0]["instance"])
            self.announcer.stopService()
        self.assertEqual(len(seen), 2)

    def test_question(self) -> None:
        """A question is answered within half a second; the interval then begins anew."""
        self.announcer.startService()
        self.clock.advance(0)
        self.clock.advance(5)
        self.sent()
        self.sockets.receive(QUERY, ("192.0.2.1", 1))
        self.clock.advance(0.24)
        self.assertEqual(self.sent(), [])
        self.clock.advance(0.01)
        self.assertEqual(len(self.sent()), 1)
        self.clock.advance(9.9)
        self.assertEqual(self.sent(), [])
        self.clock.advance(0.1)
        self.assertEqual(len(self.sent()), 1)

    def test_many_questions(self) -> None:
        """However many ask, there is at most one announcement a second."""
        self.announcer.startService()
        self.clock.advance(0)
        for _ in range(100):
            self.sockets.receive(QUERY, ("192.0.2.1", 1))
            self.clock.advance(MIN_INTERVAL / 10)
        self.assertLessEqual(len(self.sent()), 11)

    def test_other_datagrams(self) -> None:
        """What is no question is passed over."""
        self.announcer.startService()
        self.clock.advance(0)
        self.sent()
        self.sockets.receive(b"PING", ("192.0.2.1", 1))
        self.clock.advance(2)
        self.assertEqual(self.sent(), [])


class DiscoveryListenerTests(GroupTestCase):
    """:class:`DiscoveryListener`."""

    def setUp(self) -> None:
        super().setUp()
        self.changes: list[InstanceChange] = []
        self.listener = DiscoveryListener(self.reactor, self.clock, changed=self.changes.append)
        self.listener.startService()

    def hear(self, ttl: float, number: int = 1) -> None:
        """An announcement comes."""
        members = {"twisted_net": 1, "name": "n", "version": "", "services": {}, "ttl": ttl}
        datagram = msgspec.json.encode({**members, "instance": f"{number:032x}"})
        self.sockets.receive(datagram, ("192.0.2.1", 1))

    def happened(self) -> list[ChangeKind]:
        """Take what happened so far."""
        changes, self.changes[:] = list(self.changes), []
        return [change.kind for change in changes]

    def test_asks(self) -> None:
        """It sends a query at its start, so as not to wait for the interval."""
        self.assertEqual(self.sockets.sent, [QUERY])

    def test_life(self) -> None:
        """What is found, lost by a goodbye and lost in time is told, each once."""
        self.hear(10, 1)
        self.hear(10, 1)
        self.hear(20, 2)
        self.assertEqual(self.happened(), [ChangeKind.FOUND, ChangeKind.FOUND])
        self.assertEqual(len(self.listener.instances), 2)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.hear(0, 2)
        self.clock.advance(10)
        self.assertEqual(self.happened(), [ChangeKind.LOST, ChangeKind.LOST])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_heard_again(self) -> None:
        """One that is heard again in its time stays."""
        self.hear(10)
        self.clock.advance(9)
        self.hear(10)
        self.clock.advance(9)
        self.assertEqual(self.happened(), [ChangeKind.FOUND])
        self.clock.advance(1)
        self.assertEqual(self.happened(), [ChangeKind.LOST])

    def test_broken_callback(self) -> None:
        """A callback that raises is logged, and learns of each other change all the same."""

        def changed(change: InstanceChange) -> None:
            self.changes.append(change)
            raise ZeroDivisionError

        self.listener.stopService()
        self.listener = DiscoveryListener(self.reactor, self.clock, changed=changed)
        self.listener.startService()
        for number, ttl in enumerate((10, 10, 20), 1):
            self.hear(ttl, number)
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual(self.happened(), [ChangeKind.FOUND] * 3 + [ChangeKind.LOST] * 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 6)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """A stop leaves the group and no call; it hears no more."""
        self.hear(10)
        self.listener.stopService()
        self.assertTrue(self.sockets.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.listener.query()
        self.assertEqual(self.sockets.sent, [QUERY])
