"""Tests of :mod:`twisted_net.http.bodies`."""

from __future__ import annotations

import io
from typing import Any, cast

from treq import client as _treq  # registers the producers of files
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer, IResponse

from tests.http.fakes import Gatherer, HttpTestCase, Source, canned
from twisted_net.http.bodies import (
    BodyResponse,
    BodyTransport,
    BodyWatchdog,
    BytesProducer,
    body_producer,
    collect,
    discard,
)
from twisted_net.http.call import Deadline
from twisted_net.http.errors import BodyTooLarge, ConnectionBroken, FetchTimeout

__all__ = ["_treq"]


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

    def test_choice(self) -> None:
        """Bytes of any type get one; files get treq's own producer."""
        for data in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
            self.assertIsInstance(body_producer(data), BytesProducer)
        producer = body_producer(io.BytesIO(b"abc"))
        self.assertTrue(IBodyProducer.providedBy(producer))
        self.assertNotIsInstance(producer, BytesProducer)
        self.assertRaises(TypeError, body_producer, 3)


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


class BodyWatchdogTests(HttpTestCase):
    """:class:`BodyWatchdog` ends a body that exceeds its limits."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.source = Source()
        self.dropped = 0
        self.gatherer = Gatherer()

    def watch(
        self, limit: int = 100, deadline: float | None = None, silence: float | None = None
    ) -> BodyWatchdog:
        """Return a watchdog of the source, started."""

        def drop(_: BodyWatchdog) -> None:
            self.dropped += 1

        watch = BodyWatchdog(
            self.clock,
            self.source.response,
            drop,
            limit=limit,
            deadline=None if deadline is None else Deadline(deadline, 30.0),
            silence=silence,
            translate=lambda failure: Failure(ConnectionBroken("body", "translated")),
        )
        watch.start()
        return watch

    def error(self) -> Any:
        """Return the error with which the body ended."""
        assert self.gatherer.reason is not None
        return self.gatherer.reason.value

    def test_passes(self) -> None:
        """A body within its limits is unchanged, and leaves no timer."""
        self.watch(deadline=10.0, silence=1.0).response().deliverBody(self.gatherer)
        self.source.send(b"ab")
        self.source.send(b"c")
        self.source.end(ResponseDone())
        self.assertEqual(self.gatherer.body, b"abc")
        self.assertIsInstance(self.error(), ResponseDone)
        self.assertEqual((self.dropped, self.clock.getDelayedCalls()), (0, []))

    def test_failure_is_translated(self) -> None:
        """A broken connection is translated into an error of this package."""
        self.watch().response().deliverBody(self.gatherer)
        self.source.end(ConnectionLost())
        self.assertIn("translated", str(self.error()))

    def test_limit(self) -> None:
        """The limit is allowed; one byte more ends body and connection, and nothing follows."""
        self.watch(limit=3).response().deliverBody(self.gatherer)
        self.source.send(b"abc")
        self.source.send(b"d")
        self.source.send(b"e")
        self.source.end(ConnectionLost())
        self.assertEqual(self.gatherer.body, b"abc")
        self.assertIsInstance(self.error(), BodyTooLarge)
        self.assertEqual(self.dropped, 1)

    def test_deadline(self) -> None:
        """At the deadline the body ends, though bytes still arrive."""
        self.watch(deadline=2.0).response().deliverBody(self.gatherer)
        self.clock.advance(1.9)
        self.source.send(b"a")
        self.clock.advance(0.1)
        self.assertEqual(self.error().details(), {"phase": "body", "limit": 30.0, "total": True})
        self.assertEqual((self.dropped, self.clock.getDelayedCalls()), (1, []))

    def test_deadline_with_nobody_there(self) -> None:
        """A body that is not read is dropped at the deadline; reading it later raises the error."""
        response = self.watch(deadline=2.0).response()
        self.clock.advance(2.0)
        self.assertEqual(self.dropped, 1)
        response.deliverBody(self.gatherer)
        self.assertIsInstance(self.error(), FetchTimeout)

    def test_silence(self) -> None:
        """A silence over the limit ends the body; shorter ones do not."""
        self.watch(silence=1.0).response().deliverBody(self.gatherer)
        for _ in range(3):
            self.clock.advance(0.9)
            self.source.send(b"a")
        self.clock.advance(0.9)
        self.assertIsNone(self.gatherer.reason)
        self.clock.advance(0.1)
        self.assertEqual(self.error().details(), {"phase": "body", "limit": 1.0, "total": False})
        self.assertTrue(self.error().transient)

    def test_pause(self) -> None:
        """Silence during a pause does not count; after it the time starts again."""
        self.watch(silence=1.0).response().deliverBody(self.gatherer)
        transport = cast(Any, self.gatherer.transport)
        transport.pauseProducing()
        for _ in range(5):
            self.clock.advance(0.9)
        transport.resumeProducing()
        self.clock.advance(0.9)
        self.assertIsNone(self.gatherer.reason)
        self.clock.advance(1.0)
        self.assertIsInstance(self.error(), FetchTimeout)
        self.assertEqual(self.source.calls, ["pause", "resume"])

    def test_receiver_drops(self) -> None:
        """The receiver may drop the connection, by each of the three methods."""
        self.watch().response().deliverBody(self.gatherer)
        transport = cast(Any, self.gatherer.transport)
        transport.abortConnection()
        transport.loseConnection()
        transport.stopProducing()
        self.assertEqual(self.dropped, 3)

    def test_source_done(self) -> None:
        """After the last byte there is no timer, whether the body is read or not."""
        self.watch(deadline=2.0).source_done()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_time_limits(self) -> None:
        """Without timeouts there is no timer."""
        self.watch()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BodyResponseTests(HttpTestCase):
    """:class:`BodyResponse` provides all of ``IResponse``."""

    def test_previous(self) -> None:
        """It has the previous response."""
        first, second = canned(302), canned(200)
        second.setPreviousResponse(first)
        copy = BodyResponse.like(second, second.deliverBody)
        self.assertIs(copy.previousResponse, first)
        self.assertTrue(IResponse.providedBy(copy))
