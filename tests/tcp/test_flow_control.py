"""A connection's reading is paused and resumed once for each change, and its bytes are counted."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.rate_limit import RateLimiter
from twisted_net.tcp.admission import Meter
from twisted_net.tcp.flow_control import FlowControl, Throttle


class RecordingTransport:
    """A transport that records how it was paused and resumed."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        """Record a pause."""
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        """Record a resumption."""
        self.calls.append("resume")


class FlowControlTests(SynchronousTestCase):
    """:class:`FlowControl` pauses one transport, and counts what is kept for it."""

    def setUp(self) -> None:
        self.transport = RecordingTransport()
        self.flow = FlowControl(self.transport)

    def test_reads_in_the_beginning(self) -> None:
        """A new connection is read already, and the transport is not called for it."""
        self.assertTrue(self.flow.reading)
        self.flow.set_reading(True)
        self.assertEqual(self.transport.calls, [])

    def test_once_for_each_change(self) -> None:
        """The transport hears of changes alone."""
        for reading in (False, False, True, True, False):
            self.flow.set_reading(reading)
            self.assertIs(self.flow.reading, reading)
        self.assertEqual(self.transport.calls, ["pause", "resume", "pause"])

    def test_kept(self) -> None:
        """What is kept is what waits at both ends."""
        self.assertEqual(self.flow.kept, 0)
        self.flow.input_size = 10
        self.flow.output_size += 5
        self.assertTrue(self.flow.add_event(3, limit=3))
        self.assertEqual((self.flow.output_size, self.flow.kept), (8, 18))
        self.flow.output_read()
        self.assertEqual((self.flow.output_size, self.flow.kept), (0, 10))

    def test_events_are_limited(self) -> None:
        """Events may fill their limit, and not pass it; answers do not count against it."""
        self.flow.output_size += 1000
        self.assertTrue(self.flow.add_event(60, limit=100))
        self.assertTrue(self.flow.add_event(40, limit=100))
        self.assertFalse(self.flow.add_event(1, limit=100))
        self.assertEqual(self.flow.output_size, 1100)

    def test_events_after_the_peer_has_read(self) -> None:
        """Once the peer has read, the limit of events is there anew."""
        self.assertTrue(self.flow.add_event(100, limit=100))
        self.flow.output_read()
        self.assertTrue(self.flow.add_event(100, limit=100))
        self.assertEqual(self.flow.output_size, 100)


class ThrottleTests(SynchronousTestCase):
    """:class:`Throttle` pauses a connection until its bytes are within the rate again."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.rates = RateLimiter(per_second=10.0, burst=20)
        self.changes: list[bool] = []
        self.throttle = Throttle(self.clock, self.meter(), self.changed)

    def meter(self) -> Meter:
        """Return a meter of a client at 192.0.2.1, under the rate of all tests."""
        return Meter([], [("address", self.rates, "192.0.2.1")])

    def changed(self) -> None:
        """Record what a connection would find when it looks."""
        self.changes.append(self.throttle.paused)

    def test_within_the_burst(self) -> None:
        """Bytes within the burst pause nothing."""
        self.throttle.charge(20)
        self.assertEqual((self.throttle.paused, self.changes), (False, []))

    def test_paused_until_paid(self) -> None:
        """More bytes pause the connection until they are within the rate; changes are reported."""
        self.throttle.charge(50)
        self.assertEqual(self.changes, [True])
        self.clock.advance(2.9)
        self.assertEqual(self.changes, [True])
        self.clock.advance(0.1)
        self.assertEqual(self.changes, [True, False])

    def test_more_while_paused(self) -> None:
        """Bytes that come while it is paused lengthen the pause, by one timer at a time."""
        self.throttle.charge(30)
        self.throttle.charge(10)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(1.0)
        self.assertTrue(self.throttle.paused)
        self.clock.advance(1.0)
        self.assertFalse(self.throttle.paused)

    def test_others_under_the_same_rate(self) -> None:
        """Bytes of another connection under the same rate lengthen the pause too."""
        self.throttle.charge(30)
        self.meter().charge(20, self.clock.seconds())
        self.clock.advance(1.0)
        self.assertTrue(self.throttle.paused)
        self.clock.advance(2.0)
        self.assertFalse(self.throttle.paused)

    def test_another_meter(self) -> None:
        """A meter set later counts what comes from then on."""
        self.throttle.meter = Meter([], [])
        self.throttle.charge(1000)
        self.assertFalse(self.throttle.paused)

    def test_stop(self) -> None:
        """After stop no timer runs, none is started, and no change is reported."""
        self.throttle.charge(50)
        self.throttle.stop()
        self.throttle.charge(50)
        self.throttle.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.throttle.paused, self.changes), (False, [True]))
