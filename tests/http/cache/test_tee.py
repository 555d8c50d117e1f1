"""Tests of :mod:`twisted_net.http.cache.tee`; more are in ``test_collapse``."""

from __future__ import annotations

from typing import Any

from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from tests.http.fakes import Gatherer, HttpTestCase, Source
from twisted_net.http.cache.tee import BodyTee
from twisted_net.http.errors import ConnectionBroken


class BodyTeeTests(HttpTestCase):
    """:class:`BodyTee` stores a body and delivers it."""

    def setUp(self) -> None:
        self.source = Source()
        self.kept: list[tuple[bytes, bool]] = []
        self.has_waiters = False
        self.ended = 0
        self.tee = BodyTee(
            self.source.response,
            store=lambda body, whole: self.kept.append((body, whole)),
            fits=lambda length: length <= 10,
            has_waiters=lambda: self.has_waiters,
            on_end=self._count,
        )
        self.reader = Gatherer()

    def _count(self) -> None:
        self.ended += 1

    def test_whole(self) -> None:
        """It is delivered chunk by chunk, and stored once."""
        self.tee.deliver(self.reader)
        self.source.send(b"ab")
        self.assertEqual(self.reader.body, b"ab")
        self.source.send(b"c")
        self.source.end(ResponseDone())
        self.assertEqual((self.reader.body, self.kept, self.ended), (b"abc", [(b"abc", True)], 1))

    def test_held_once(self) -> None:
        """A body of one chunk is stored as that chunk, not as a copy."""
        piece = b"0123456789"
        self.tee.deliver(self.reader)
        self.source.send(piece)
        self.source.end(ResponseDone())
        self.assertIs(self.kept[0][0], piece)

    def test_not_whole(self) -> None:
        """One that breaks off, or ends with its connection, is stored as incomplete."""
        for reason in (ConnectionBroken("body", "x"), PotentialDataLoss()):
            self.setUp()
            self.tee.deliver(self.reader)
            self.source.send(b"ab")
            self.source.end(reason)
            self.assertEqual(self.kept, [(b"ab", False)])
            assert self.reader.reason is not None
            self.reader.reason.trap(type(reason))

    def test_too_large(self) -> None:
        """Over the limit it is not stored, and a reader that pauses pauses the source."""
        self.tee.deliver(self.reader)
        self.source.send(b"x" * 11)
        transport: Any = self.reader.transport
        transport.pauseProducing()
        self.source.send(b"y")
        self.source.send(b"z")
        transport.resumeProducing()
        self.assertEqual(self.source.calls, ["pause", "resume"])
        self.source.end(ResponseDone())
        self.assertEqual((self.reader.body, self.kept), (b"x" * 11 + b"yz", []))

    def test_abort_unread(self) -> None:
        """Aborted before it was read, it aborts its source."""
        self.tee.abort()
        self.assertEqual(self.source.aborted, 1)

    def test_detach(self) -> None:
        """It is aborted when its only reader leaves; leaving after the end does nothing."""
        self.tee.deliver(self.reader)
        transport: Any = self.reader.transport
        transport.loseConnection()
        self.assertEqual(self.source.aborted, 1)
        self.source.end(ConnectionBroken("body", "x"))
        transport.stopProducing()
        self.assertEqual(self.source.aborted, 1)

    def test_leave_what_others_want(self) -> None:
        """With waiters it goes on, and the connection of its reader is lost."""
        self.tee.deliver(self.reader)
        self.has_waiters = True
        transport: Any = self.reader.transport
        transport.stopProducing()
        transport.stopProducing()
        assert self.reader.reason is not None
        self.reader.reason.trap(ConnectionBroken)
        self.source.send(b"abc")
        self.source.end(ResponseDone())
        self.assertEqual((self.kept, self.source.aborted), ([(b"abc", True)], 0))
