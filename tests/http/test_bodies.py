"""Tests of :mod:`twisted_net.http.bodies`."""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import IConsumer
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from tests.http.fakes import HttpTestCase, Source, canned
from twisted_net.http.bodies import (
    BodyResponse,
    BodyTransport,
    BytesProducer,
    collect,
    discard,
)
from twisted_net.http.errors import ConnectionBroken


class ProducerTests(HttpTestCase):
    """:class:`BytesProducer` sends its bytes any number of times."""

    def test_again(self) -> None:
        """The second time is like the first."""
        producer = BytesProducer(b"abc")
        self.assertEqual(producer.length, 3)
        for _ in range(2):
            transport = StringTransport()
            done = producer.startProducing(cast(IConsumer, transport))
            self.successResultOf(done)
            self.assertEqual(transport.value(), b"abc")
        producer.pauseProducing()
        producer.resumeProducing()
        producer.stopProducing()


class CollectTests(HttpTestCase):
    """:func:`collect` reads a whole body."""

    def test_whole(self) -> None:
        """Its bytes and the reason of its end."""
        body, reason = self.successResultOf(collect(canned(body=b"abc")))
        self.assertEqual(body, b"abc")
        self.assertTrue(reason.check(ResponseDone))

    def test_ends_with_the_connection(self) -> None:
        """A body that ends with its connection counts as complete."""
        ended = Failure(PotentialDataLoss())
        body, reason = self.successResultOf(collect(canned(body=b"abc", reason=ended)))
        self.assertEqual((body, reason), (b"abc", ended))

    def test_broken(self) -> None:
        """Any other end is an error."""
        broken = Failure(ConnectionBroken("body", "x"))
        self.failureResultOf(collect(canned(body=b"a", reason=broken)), ConnectionBroken)

    def test_cancelled(self) -> None:
        """Cancelling drops the connection; later bytes are ignored."""
        source = Source()
        reading = collect(source.response)
        source.send(b"abc")
        reading.cancel()
        self.assertEqual(source.aborted, 1)
        self.failureResultOf(reading)
        source.end(ResponseDone())

    def test_discard(self) -> None:
        """:func:`discard` drops a body without an error, and leaves an empty one."""
        source = Source()
        discard(source.response)
        self.assertEqual(source.aborted, 1)
        discard(canned(body=b""))
        discard(canned(body=b"abc"))

    def test_all_at_hand_can_be_paused(self) -> None:
        """Pausing has no effect on a body in memory, and pauses one from the network."""
        source = Pausable()
        for delivering in (None, source):
            transport = BodyTransport(delivering, source.told.clear)
            transport.pauseProducing()
            transport.resumeProducing()
            self.assertEqual(source.told, [] if delivering is None else ["pause", "resume"])
        transport.loseConnection()
        self.assertEqual(source.told, [])


class Pausable:
    """Records the calls of its methods."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        """Record a pause."""
        self.told.append("pause")

    def resumeProducing(self) -> None:
        """Record a resumption."""
        self.told.append("resume")


class BodyResponseTests(HttpTestCase):
    """:class:`BodyResponse` provides all of ``IResponse``."""

    def test_previous(self) -> None:
        """It has the previous response."""
        first, second = canned(302), canned(200)
        second.setPreviousResponse(first)
        copy = BodyResponse.like(second, second.deliverBody)
        self.assertIs(copy.previousResponse, first)
        self.assertTrue(IResponse.providedBy(copy))
