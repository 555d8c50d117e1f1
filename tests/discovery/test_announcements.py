"""Tests of :mod:`twisted_net.discovery.announcements`."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.discovery.announcements import (
    MAX_INSTANCES,
    MAX_PER_SOURCE,
    Announcement,
    ChangeKind,
    Collector,
    Query,
    encode_announcement,
    is_query,
    parse_announcement,
)
from twisted_net.discovery.errors import BadAnnouncement


def announcement(number: int = 0, ttl: float = 30.0, **other: Any) -> Announcement:  # Any: members
    """Return an announcement of an instance with a number."""
    members: dict[str, Any] = {
        "name": "kitchen",
        "version": "1",
        "services": {"tcp": 8888},
        **other,
    }  # Any: as above
    return Announcement(twisted_net=1, instance=f"{number:032x}", ttl=ttl, **members)


def wire(number: int = 0, ttl: float = 30.0, **other: Any) -> bytes:  # Any: members
    """Return its encoded form."""
    return encode_announcement(announcement(number, ttl, **other))


class FormTests(SynchronousTestCase):
    """The form of announcements and questions."""

    def test_form(self) -> None:
        """An announcement is JSON with these members, and is read as it was written."""
        datagram = wire()
        self.assertEqual(
            datagram,
            b'{"twisted_net":1,"name":"kitchen","version":"1","instance":"'
            + b"0" * 32
            + b'","services":{"tcp":8888},"ttl":30.0}',
        )
        self.assertEqual(parse_announcement(datagram), announcement())

    def test_question(self) -> None:
        """A question is none, and no mistake."""
        asked = encode_announcement(Query(1, True))
        self.assertEqual(asked, b'{"twisted_net":1,"query":true}')
        self.assertTrue(is_query(asked))
        self.assertIsNone(parse_announcement(asked))
        for other in (
            b'{"twisted_net":2,"query":true}',
            b'{"twisted_net":1,"query":false}',
            wire(),
            b"[" * 1100,
        ):
            self.assertFalse(is_query(other))

    def test_later_members(self) -> None:
        """Members that a later version adds are passed over."""
        parsed = parse_announcement(wire()[:-1] + b',"colour":"blue"}')
        self.assertEqual(parsed, announcement())

    def test_malformed(self) -> None:
        """What is missing, of another type or out of its bounds is refused, with the reason."""
        good = msgspec.json.decode(wire())
        for change in (
            {"twisted_net": 2},
            {"name": ""},
            {"name": "a\x1bb"},
            {"name": "a\n"},
            {"name": "a\x85"},
            {"name": "\x9b31m"},
            {"version": "1\x1b"},
            {"version": "1\n"},
            {"instance": "0" * 32 + "\n"},
            {"services": {"tcp\n": 1}},
            {"name": "x" * 65},
            {"instance": "X" * 32},
            {"services": {"tcp": 0}},
            {"services": {"tcp": 65_536}},
            {"services": {str(i): 1 for i in range(33)}},
            {"ttl": -1},
            {"ttl": 86_401},
            {"ttl": None},
        ):
            with self.subTest(change=change):
                datagram = msgspec.json.encode({**good, **change})
                self.assertRaises(BadAnnouncement, parse_announcement, datagram)
        for datagram in (b"", b"PING", b"{}", b"[" * 1200, b"\xff"):
            self.assertRaises(BadAnnouncement, parse_announcement, datagram)

    def test_characters(self) -> None:
        """Names, of services too, and versions are shown: no control or bidi characters."""
        for character in "\0\n\x1b\x7f\x85\u061c\u200e\u2028\u202e\u2066\u2069":
            text = f"a{character}b"
            changes: list[dict[str, Any]]  # Any: members
            changes = [{"name": text}, {"version": text}, {"services": {text: 1}}]
            for change in changes:
                with self.assertRaises(BadAnnouncement):
                    parse_announcement(wire(1, **change))
        self.assertIsNotNone(parse_announcement(wire(1, name="Küche שלום")))

    def test_size(self) -> None:
        """One that no packet carries for certain is neither sent nor read."""
        services = {f"{i:064}": 65_535 for i in range(32)}
        self.assertRaises(ValueError, wire, services=services)
        datagram = wire()
        longest = datagram + b" " * (1200 - len(datagram))
        self.assertEqual(parse_announcement(longest), announcement())
        self.assertRaises(BadAnnouncement, parse_announcement, longest + b" ")

    @given(st.binary(max_size=300))
    def test_anything(self, datagram: bytes) -> None:
        """Whatever comes, nothing but the one error leaves."""
        collector = Collector()
        self.assertEqual(collector.receive(datagram, ("192.0.2.1", 1), 0.0), [])
        self.assertEqual(len(collector), 0)


class CollectorTests(SynchronousTestCase):
    """:class:`Collector`."""

    def setUp(self) -> None:
        self.collector = Collector()

    def receive(
        self, datagram: bytes, host: str = "192.0.2.1", now: float = 0.0
    ) -> ChangeKind | None:
        """Receive, and give what happened."""
        changes = self.collector.receive(datagram, (host, 5000), now)
        return changes[-1].kind if changes else None

    def test_life(self) -> None:
        """A server is found, changed, and lost by its goodbye."""
        self.assertEqual(self.receive(wire()), ChangeKind.FOUND)
        self.assertIsNone(self.receive(wire()))
        self.assertEqual(self.receive(wire(services={"tcp": 1})), ChangeKind.CHANGED)
        (instance,) = self.collector.instances
        self.assertEqual(
            (instance.name, instance.host, instance.services), ("kitchen", "192.0.2.1", {"tcp": 1})
        )
        self.assertEqual(self.receive(wire(ttl=0)), ChangeKind.LOST)
        self.assertIsNone(self.receive(wire(ttl=0)))

    def test_expiry(self) -> None:
        """One that is not heard again in its time is lost."""
        self.receive(wire(1, ttl=10), now=0.0)
        self.receive(wire(2, ttl=20), now=0.0)
        self.assertEqual(self.collector.next_expiry(), 10.0)
        self.receive(wire(1, ttl=10), now=5.0)
        self.assertEqual(self.collector.expire(14.9), [])
        (change,) = self.collector.expire(15.0)
        self.assertEqual((change.kind, change.instance.instance[-1]), (ChangeKind.LOST, "1"))
        self.assertEqual(len(self.collector.expire(20.0)), 1)
        self.assertIsNone(self.collector.next_expiry())
        self.assertEqual(self.collector._per_source, {})

    def test_not_from_elsewhere(self) -> None:
        """A withdrawal from another address removes no instance."""
        self.receive(wire())
        self.assertIsNone(self.receive(wire(ttl=0), host="192.0.2.2"))
        self.assertEqual(len(self.collector), 1)

    def test_bounds(self) -> None:
        """One source has few, all together have many; who is over it is counted."""
        for i in range(MAX_PER_SOURCE + 1):
            self.receive(wire(i))
        self.assertEqual((len(self.collector), self.collector.refused), (MAX_PER_SOURCE, 1))
        self.receive(wire(0, ttl=0))
        self.assertEqual(self.receive(wire(99)), ChangeKind.FOUND)
        for i in range(MAX_INSTANCES):
            self.receive(wire(i), host=f"10.0.{i // 256}.{i % 256}")
        self.assertEqual(len(self.collector), MAX_INSTANCES)
        self.assertEqual((self.collector.refused, self.collector.evicted), (1, MAX_PER_SOURCE))

    def test_full(self) -> None:
        """The instance announced longest ago gives way to a new one, and is reported as lost."""
        for i in range(MAX_INSTANCES):
            self.receive(wire(i), host=f"10.0.{i // 256}.{i % 256}")
        self.receive(wire(0), host="10.0.0.0")
        changes = self.collector.receive(wire(5000), ("10.9.9.9", 1), 0.0)
        self.assertEqual(
            [(change.kind, change.instance.host) for change in changes],
            [(ChangeKind.LOST, "10.0.0.1"), (ChangeKind.FOUND, "10.9.9.9")],
        )
        self.assertEqual(self.receive(wire(1), host="10.0.0.1"), ChangeKind.FOUND)
        self.assertEqual(len(self.collector), MAX_INSTANCES)

    def test_a_link(self) -> None:
        """On a link each address of IPv6 is a source; beyond it the whole /64 is one."""
        for i in range(MAX_PER_SOURCE + 5):
            self.receive(wire(), host=f"fe80::{i + 1:x}%2")
        self.assertEqual((len(self.collector), self.collector.refused), (MAX_PER_SOURCE + 5, 0))
        for i in range(MAX_PER_SOURCE + 5):
            self.receive(wire(), host=f"2001:db8::{i + 1:x}")
        self.assertEqual(self.collector.refused, 5)

    def test_counts(self) -> None:
        """What is no announcement is counted; a question is not."""
        self.receive(b"PING")
        self.receive(encode_announcement(Query(1, True)))
        self.assertEqual(self.collector.malformed, 1)


class ExpiryTests(SynchronousTestCase):
    """:class:`Collector` loses each instance when its last announcement says so."""

    def test_announced_often(self) -> None:
        """Earlier announcements are forgotten, however many there were."""
        collector = Collector()
        collector.receive(wire(1, 50.0), ("h1", 1), 0.0)
        for second in range(1000):
            collector.receive(wire(2, 100.0), ("h1", 1), second / 100)
            self.assertLess(len(collector._expiries), 25)
        self.assertEqual(collector.next_expiry(), 50.0)
        self.assertEqual(len(collector.expire(109.98)), 1)
        self.assertEqual(collector.next_expiry(), 109.99)
        self.assertEqual(len(collector.expire(109.99)), 1)
        self.assertIsNone(collector.next_expiry())


class CollectorMachine(RuleBasedStateMachine):
    """The collector knows what a list of all that was heard says."""

    def __init__(self) -> None:
        super().__init__()
        self.collector = Collector()
        self.now = 0.0
        self.heard: dict[tuple[str, str], float] = {}

    @rule(number=st.integers(0, 3), host=st.sampled_from(["h1", "h2"]), ttl=st.integers(0, 5))
    def hear(self, number: int, host: str, ttl: int) -> None:
        """An announcement comes."""
        self.collector.receive(wire(number, float(ttl)), (host, 1), self.now)
        key = (host, f"{number:032x}")
        if ttl:
            self.heard[key] = self.now + ttl
        else:
            self.heard.pop(key, None)

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds
        lost = self.collector.expire(self.now)
        gone = [key for key, expires in self.heard.items() if expires <= self.now]
        for key in gone:
            del self.heard[key]
        assert sorted(
            (change.instance.host, change.instance.instance) for change in lost
        ) == sorted(gone)

    @invariant()
    def same(self) -> None:
        """Both know the same."""
        known = {(one.host, one.instance): one.expires for one in self.collector.instances}
        assert known == self.heard
        assert self.collector.next_expiry() == min(self.heard.values(), default=None)


CollectorMachineTests = CollectorMachine.TestCase
