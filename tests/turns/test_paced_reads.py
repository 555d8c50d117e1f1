"""What a client's connection has read is handed on in pieces, in turns."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Reactor
from tests.turns.test_paced_input import Below
from twisted_net.turns.paced_input import UNITS_PER_TURN
from twisted_net.turns.paced_reads import (
    LINES_PER_PIECE,
    LineCutter,
    Pace,
    PacedReads,
)
from twisted_net.turns.turn_scheduler import TURN_BUDGET, turns_of

LINES = b"x\n" * (LINES_PER_PIECE * UNITS_PER_TURN * 4)
"""As many lines as are handed on in some turns."""


class LineCutterTests(SynchronousTestCase):
    """:class:`LineCutter` returns every byte once, few lines at a time."""

    @given(st.lists(st.binary(max_size=50) | st.integers(0, 300).map(lambda n: b"\n" * n)))
    def test_pieces(self, reads: list[bytes]) -> None:
        """However the stream comes, its pieces are the stream, and none has many lines."""
        cutter, pieces = LineCutter(), []
        for data in reads:
            cutter.keep(data)
            if cutter.ready:
                pieces.append(cutter.take(1)[0])
        while cutter.ready:
            pieces.append(cutter.take(1)[0])
        self.assertEqual(b"".join(pieces), b"".join(reads))
        self.assertEqual(len(cutter), 0)
        for piece in pieces:
            self.assertTrue(len(piece) > 0)
            self.assertLessEqual(piece.count(b"\n"), LINES_PER_PIECE)

    def test_whole(self) -> None:
        """What has few lines is one piece, and not copied."""
        cutter, data = LineCutter(), bytes(65_536)
        cutter.keep(data)
        self.assertIs(cutter.take(1)[0], data)
        self.assertFalse(cutter.ready)


class PacedReadsTests(SynchronousTestCase):
    """:class:`PacedReads` hands on as much as a turn has time for, and the end last."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.below = Below()
        self.got: list[bytes] = []
        self.lost: list[Failure] = []
        self.then: Callable[[], object] = lambda: None
        pace = Pace.of(self.reactor)
        self.reads = PacedReads(pace, self.below, LineCutter(), self.take, self.lost.append)

    def take(self, piece: bytes) -> None:
        """Take a piece."""
        self.got.append(piece)
        self.then()

    def test_turns(self) -> None:
        """Many lines take some turns, between which the connection is not read."""
        self.reads.received(LINES)
        self.assertLessEqual(len(self.got), UNITS_PER_TURN)
        self.assertLess(len(b"".join(self.got)), len(LINES))
        self.assertFalse(self.below.reading)
        self.reactor.settle()
        self.assertEqual(b"".join(self.got), LINES)
        self.assertTrue(self.below.reading)

    def test_time(self) -> None:
        """A piece that takes long is the last one of its turn, for all connections."""

        def spend() -> None:
            self.reactor.rightNow += TURN_BUDGET

        self.then = spend
        others: list[bytes] = []
        pace = Pace.of(self.reactor)
        other = PacedReads(pace, Below(), LineCutter(), others.append, self.lost.append)
        self.reads.received(LINES)
        self.assertEqual(len(self.got), 1)
        other.received(LINES)
        self.assertEqual(others, [])
        self.reactor.turn()
        self.assertEqual((len(self.got), len(others)), (2, 0))
        self.reactor.turn()
        self.assertNotEqual(others, [])

    def test_small(self) -> None:
        """A small read makes others wait only if many of them take long; it waits for others."""
        turns = turns_of(self.reactor)
        self.reads.received(b"x\n")
        self.assertEqual(self.got, [b"x\n"])
        self.assertFalse(turns.busy)

        def spend() -> None:
            self.reactor.rightNow += TURN_BUDGET / 4

        self.then = spend
        for _ in range(5):
            self.reads.received(b"y\n")
        self.assertTrue(turns.busy)
        before = len(self.got)
        self.reads.received(b"z\n")
        self.assertEqual(len(self.got), before)
        self.reactor.settle()
        self.assertTrue(b"".join(self.got).endswith(b"z\n"))

    def test_end(self) -> None:
        """The end is handed on after the last piece, at once if there is none."""
        self.reads.received(LINES)
        self.reads.end(Failure(ConnectionDone()))
        self.assertEqual(self.lost, [])
        self.reactor.settle()
        self.assertEqual(b"".join(self.got), LINES)
        self.assertEqual(len(self.lost), 1)
        self.assertTrue(self.lost[0].check(ConnectionDone))

    def test_end_at_once(self) -> None:
        """The end of a connection that has nothing left is handed on at once."""
        self.reads.received(b"x\n")
        self.reads.end(Failure(ConnectionDone()))
        self.assertEqual(len(self.lost), 1)

    def test_paused(self) -> None:
        """Whoever pauses gets nothing more, not even the end, until it resumes."""
        self.then = self.reads.pause
        self.reads.received(LINES)
        self.reads.end(Failure(ConnectionDone()))
        self.reactor.settle()
        self.assertEqual(len(self.got), 1)
        self.assertEqual(self.lost, [])
        self.then = lambda: None
        self.reads.resume()
        self.reactor.settle()
        self.assertEqual(b"".join(self.got), LINES)
        self.assertEqual(len(self.lost), 1)

    def test_dropped(self) -> None:
        """What is dropped is not handed on; an end that waits is an abort then."""
        for paused in (False, True):
            with self.subTest(paused=paused):
                self.setUp()
                self.reads.received(LINES)
                if paused:
                    self.reads.pause()
                self.reads.end(Failure(ConnectionDone()))
                before = len(self.got)
                self.reads.drop()
                self.assertEqual(self.lost, [])
                self.reactor.settle()
                self.assertEqual(len(self.got), before)
                self.assertEqual(len(self.lost), 1)
                self.assertTrue(self.lost[0].check(ConnectionAborted))

    def test_dropped_within(self) -> None:
        """Whoever drops the rest while it takes a piece gets no other."""
        self.then = self.reads.drop
        self.reads.received(LINES)
        self.reactor.settle()
        self.assertEqual(len(self.got), 1)
