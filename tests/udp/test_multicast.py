"""Tests of :mod:`twisted_net.udp.multicast`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.addresses import Source
from twisted_net.net.memory_ledger import MemoryLedger
from twisted_net.udp.multicast import MAX_DELAYED, MAX_DELAYED_BYTES, DelayedAnswers
from twisted_net.udp.responder import DatagramCounts

ASKER: Source = ("192.0.2.1", 5000)


class DelayedAnswersTests(SynchronousTestCase):
    """:class:`DelayedAnswers`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.chance = 0.5
        self.counts = DatagramCounts()
        self.memory = MemoryLedger()
        self.delayed = DelayedAnswers(
            self.clock, 4.0, self.counts, lambda: self.chance, self.memory
        )
        self.written: list[tuple[bytes, Source]] = []

    def send(self, answer: bytes = b"PONG") -> None:
        """Send an answer."""
        self.delayed.send(lambda data, to: self.written.append((data, to)), answer, ASKER)

    def test_leisure(self) -> None:
        """Each waits for its own share of the leisure."""
        self.send(b"a")
        self.chance = 0.25
        self.send(b"b")
        self.clock.advance(1.0)
        self.assertEqual(self.written, [(b"b", ASKER)])
        self.clock.advance(1.0)
        self.assertEqual(self.written, [(b"b", ASKER), (b"a", ASKER)])
        self.assertEqual(len(self.delayed), 0)

    def test_bound(self) -> None:
        """So many wait; further ones are dropped and counted, until some have left."""
        for _ in range(MAX_DELAYED + 2):
            self.send()
        self.assertEqual((len(self.delayed), self.counts.dropped), (MAX_DELAYED, 2))
        self.clock.advance(2.0)
        self.assertEqual(len(self.written), MAX_DELAYED)
        self.send()
        self.assertEqual((len(self.delayed), self.counts.dropped), (1, 2))

    def test_bytes(self) -> None:
        """So many bytes wait, and no more, until some have left."""
        half = bytes(MAX_DELAYED_BYTES // 2)
        self.send(half)
        self.send(half)
        self.assertEqual(self.memory.total, MAX_DELAYED_BYTES)
        self.send(b"x")
        self.assertEqual((len(self.delayed), self.counts.dropped), (2, 1))
        self.clock.advance(2.0)
        self.assertEqual(self.memory.total, 0)
        self.send(b"x")
        self.assertEqual((len(self.delayed), self.memory.total), (1, 1))

    def test_stop(self) -> None:
        """What waits at the end is not sent but counted, and no call is left."""
        self.send()
        self.delayed.stop()
        self.assertEqual(self.counts.dropped, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((len(self.delayed), self.memory.total), (0, 0))
