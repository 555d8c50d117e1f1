"""Tests for :mod:`twisted_net.coap.peer_table`, through the message layer."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.coap.message_driver import OTHER, PEER, STEADY, Layer, question, request, response
from twisted_net.coap import message_ids
from twisted_net.coap.codec import CoapMessage, Code, Type, encode_message
from twisted_net.coap.errors import QueueFull
from twisted_net.coap.exchange import IncomingMessage
from twisted_net.coap.peer_table import (
    EXPIRED_AT_ONCE,
    MESSAGES_SWEPT_AT_ONCE,
    PENDING_TRIED,
    SWEPT_AT_ONCE,
)
from twisted_net.coap.settings import TransmissionParameters
from twisted_net.net.addresses import Source


class PeerTableTests(SynchronousTestCase):
    """Everything that grows has its limit, and peers share it."""

    def fill(self, layer: Layer, source: Source, count: int, size: int = 0) -> None:
        """Let a peer ask, and answer it."""
        for number in range(count):
            incoming = layer.incoming(request(number), source=source)
            layer.send_response(incoming, response(b"a" * size), 0)
            layer.messages_to_send()

    def known(self, layer: Layer, source: Source, message_id: int) -> bool:
        """Return whether a message is remembered."""
        before = layer.counts.duplicates
        layer.receive(request(message_id), source, 0)
        return layer.counts.duplicates > before

    def test_exchanges(self) -> None:
        """A peer with more than its share gives up its own oldest exchange, and no one else's."""
        layer = Layer(TransmissionParameters(max_exchanges=10))
        self.fill(layer, OTHER, 2)
        self.fill(layer, PEER, 20)
        self.assertEqual(layer.sizes["exchanges"], 10)
        self.assertTrue(self.known(layer, OTHER, 0))
        self.assertTrue(self.known(layer, PEER, 19))
        self.assertFalse(self.known(layer, PEER, 11))

    def test_exchanges_of_the_silent(self) -> None:
        """A peer within its share takes the place of who has been silent for longest."""
        layer = Layer(TransmissionParameters(max_exchanges=10))
        self.fill(layer, PEER, 10)
        self.fill(layer, OTHER, 2)
        self.assertTrue(self.known(layer, OTHER, 0))
        self.assertTrue(self.known(layer, OTHER, 1))
        self.assertFalse(self.known(layer, PEER, 1))

    def test_bytes(self) -> None:
        """The bytes of stored answers are bounded, and shared in the same way."""
        layer = Layer(TransmissionParameters(max_exchange_bytes=1024))
        self.fill(layer, OTHER, 2, 100)
        self.fill(layer, PEER, 20, 100)
        self.assertTrue(900 < layer.sizes["exchange_bytes"] <= 1024)
        self.assertTrue(self.known(layer, OTHER, 0))
        self.assertFalse(self.known(layer, PEER, 0))

    def test_bytes_of_just_the_limit(self) -> None:
        """Answers of as many bytes as there is room for are all kept."""
        layer = Layer(TransmissionParameters(max_exchange_bytes=1024))
        empty = len(encode_message(CoapMessage(Type.ACK, Code.CHANGED, 1, b"t", payload=b"x"))) - 1
        self.fill(layer, PEER, 4, 256 - empty)
        self.assertEqual((layer.sizes["exchange_bytes"], layer.sizes["exchanges"]), (1024, 4))

    def test_one_answer_over_the_limit(self) -> None:
        """An answer larger than all there is room for is sent, and not kept."""
        layer = Layer(TransmissionParameters(max_exchange_bytes=1024))
        self.fill(layer, PEER, 1, 2000)
        self.assertEqual(layer.sizes["exchange_bytes"], 0)

    def test_pending_are_kept(self) -> None:
        """What is being answered is not given up, so that it does not run twice."""
        layer = Layer(TransmissionParameters(max_exchanges=3))
        for number in range(5):
            layer.incoming(request(number))
        self.assertEqual(layer.sizes["exchanges"], 5)
        for number in range(5):
            self.assertTrue(self.known(layer, PEER, number))

    def test_pending_are_not_searched(self) -> None:
        """A search for a message to evict examines eight of a peer, however many are pending."""

        class Counted(OrderedDict[int, IncomingMessage]):
            examined = 0

            def values(self) -> Any:  # Any: a view in the class, an iterator here
                for incoming in super().values():
                    self.examined += 1
                    yield incoming

        layer = Layer(TransmissionParameters(max_exchanges=100))
        peer = layer.incoming(request(0)).peer
        received = peer.received = Counted(peer.received)
        for number in range(1, 200):
            layer.incoming(request(number))
        before = received.examined
        layer.incoming(request(200))
        # The oldest is examined for its lifetime too.
        self.assertLessEqual(received.examined - before, 1 + 2 * PENDING_TRIED)

    def test_settled_among_pending(self) -> None:
        """Messages that can be evicted are found behind pending ones, and the limit holds."""
        layer = Layer(TransmissionParameters(max_exchanges=100))
        for number in range(300):
            incoming = layer.incoming(request(number))
            if number >= 60:
                layer.send_response(incoming, response(), 0)
        self.assertEqual(layer.sizes["exchanges"], 100)
        for number in (0, 59, 299):
            self.assertTrue(self.known(layer, PEER, number))
        self.assertFalse(self.known(layer, PEER, 61))

    def test_expired(self) -> None:
        """A message whose lifetime has just ended makes way for the next one."""
        layer = Layer(STEADY)
        layer.send_response(layer.incoming(request(1)), response(), 0)
        layer.incoming(request(2), 231)
        self.assertEqual(layer.sizes["exchanges"], 2)
        layer.incoming(request(3), 232)
        self.assertEqual(layer.sizes["exchanges"], 2)

    def test_pending_for_ever(self) -> None:
        """A request that is answered after its lifetime does not hold up those behind it."""
        layer = Layer(STEADY)
        late = layer.incoming(request(1))
        layer.send_response(layer.incoming(request(2)), response(), 0)
        layer.incoming(request(3), 240)
        self.assertEqual(layer.sizes["exchanges"], 2)
        layer.send_response(late, response(), 241)

    def test_peers(self) -> None:
        """Over ``max_peers`` the peer silent for longest is forgotten, if it is idle."""
        layer = Layer(TransmissionParameters(max_peers=2))
        self.fill(layer, PEER, 1)
        self.fill(layer, OTHER, 1)
        self.fill(layer, ("192.0.2.3", 1), 1)
        self.assertEqual(layer.sizes["peers"], 2)
        self.assertTrue(self.known(layer, OTHER, 0))
        self.assertEqual(layer.figures()["evicted"], 1)

    def test_busy_peers(self) -> None:
        """Where all known peers are busy, a new one is refused and counted."""
        layer = Layer(TransmissionParameters(max_peers=2))
        layer.incoming(request(1))
        layer.incoming(request(1), source=OTHER)
        self.assertEqual(layer.receive(request(1), ("192.0.2.3", 1), 0), [])
        self.assertEqual(layer.counts.peers_refused, 1)
        with self.assertRaises(QueueFull):
            layer.send_request(question(), ("192.0.2.3", 1), 0, 0)

    def test_busy_with_messages_of_ours(self) -> None:
        """A peer is busy too while a message to it is under way, or waits for an ID alone."""
        self.patch(message_ids, "COUNT", 4)
        self.patch(message_ids, "BLOCK", 4)
        layer = Layer(TransmissionParameters(max_peers=1, nstart=8))
        for number in range(5):
            layer.send_request(question(token=b"%d" % number), PEER, 0, 0)
        self.assertEqual(layer.receive(request(1), OTHER, 0), [])
        for message in layer.sent():
            layer.reply(CoapMessage(Type.ACK, Code.CONTENT, message.message_id, message.token))
        self.assertEqual(layer.receive(request(1), OTHER, 0), [])
        self.assertEqual(layer.counts.peers_refused, 2)
        layer = Layer(TransmissionParameters(max_peers=1))
        layer.send_request(question(), PEER, 0, 0)
        self.assertEqual(layer.receive(request(1), OTHER, 0), [])

    def test_idle_behind_busy_ones(self) -> None:
        """An idle peer is looked for among the eight silent for longest, and no further."""
        for busy, found in ((7, True), (8, False)):
            layer = Layer(TransmissionParameters(max_peers=busy + 1))
            for number in range(busy):
                layer.incoming(request(1), 0, ("192.0.2.1", 1 + number))
            self.fill(layer, OTHER, 1)
            self.assertEqual(len(layer.receive(request(1), PEER, 0)), found)
            self.assertEqual(layer.counts.peers_refused, not found)

    def test_acknowledgements_are_heard(self) -> None:
        """A peer of which only acknowledgements come is not silent."""
        layer = Layer(STEADY)
        notification = CoapMessage(Type.CON, Code.CONTENT, token=b"q")
        layer.send_request(notification, PEER, 0, 0)
        (message,) = layer.sent()
        layer.reply(CoapMessage(Type.ACK, 0, message.message_id), 5)
        for now, peers in ((232, 1), (237, 0)):
            self.assertEqual(layer.next_timeout(), now)
            layer.advance(now)
            self.assertEqual(layer.sizes["peers"], peers)

    def test_sweep(self) -> None:
        """Peers that have been silent for a lifetime are forgotten, busy ones are not."""
        layer = Layer(STEADY)
        self.fill(layer, PEER, 3, 10)
        busy = layer.incoming(request(1), 1, OTHER)
        layer.messages_to_send()
        layer.advance(1.1)
        self.assertEqual(layer.next_timeout(), 232)
        layer.advance(232)
        self.assertEqual(layer.sizes["peers"], 1)
        self.assertEqual(layer.next_timeout(), 233)
        layer.advance(233)
        self.assertEqual(layer.sizes["peers"], 1)
        # A busy one is looked at after another lifetime, not each second.
        self.assertEqual(layer.next_timeout(), 465)
        layer.send_response(busy, None, 234)
        layer.advance(500)
        self.assertEqual(layer.sizes, dict.fromkeys(layer.sizes, 0))
        self.assertIsNone(layer.next_timeout())

    def test_sweeps_are_a_second_apart(self) -> None:
        """Peers that fell silent within a second are forgotten by two sweeps, not by a hundred."""
        layer = Layer(STEADY)
        for number in range(100):
            layer.receive(
                encode_message(CoapMessage(Type.NON, Code.CONTENT, 1, b"none")),
                ("192.0.2.1", 1000 + number),
                number / 100,
            )
        layer.messages_to_send()
        sweeps = []
        while (due := layer.next_timeout()) is not None:
            layer.advance(due)
            sweeps.append(due)
        self.assertEqual(sweeps, [232, 233])
        self.assertEqual(layer.sizes["peers"], 0)

    def test_many_are_swept(self) -> None:
        """Of many that fell silent at one time so many are forgotten in each call, at once."""
        layer = Layer(STEADY)
        count = 2 * SWEPT_AT_ONCE + 1
        for port in range(count):
            layer.receive(
                encode_message(CoapMessage(Type.NON, Code.CONTENT, 1, b"none")),
                ("192.0.2.1", 1 + port),
                0.0,
            )
        layer.messages_to_send()
        left = []
        while (due := layer.next_timeout()) is not None:
            self.assertEqual(due, 232)
            layer.advance(due)
            left.append(layer.sizes["peers"])
        self.assertEqual(left, [count - SWEPT_AT_ONCE, 1, 0])

    def test_many_messages_are_swept(self) -> None:
        """So many messages of those that fell silent are forgotten in each call."""
        layer = Layer(STEADY)
        self.fill(layer, OTHER, 1)
        self.fill(layer, PEER, 2 * MESSAGES_SWEPT_AT_ONCE)
        left = []
        while (due := layer.next_timeout()) is not None:
            self.assertEqual(due, 232)
            layer.advance(due)
            left.append((layer.sizes["peers"], layer.sizes["exchanges"]))
        self.assertEqual(left, [(1, MESSAGES_SWEPT_AT_ONCE + 1), (1, 1), (0, 0)])

    def test_many_expire(self) -> None:
        """Of many messages whose lifetime is over, each new one drops a few."""
        layer = Layer(STEADY)
        count = 3 * EXPIRED_AT_ONCE
        self.fill(layer, PEER, count)
        left = []
        for number in range(4):
            layer.receive(request(count + number), PEER, 1000)
            left.append(layer.sizes["exchanges"])
        self.assertEqual(left, [count + 1 - EXPIRED_AT_ONCE, EXPIRED_AT_ONCE + 2, 3, 4])

    def test_expired_is_no_duplicate(self) -> None:
        """A message whose lifetime is over is forgotten, though it may still be there."""
        layer = Layer(STEADY)
        self.fill(layer, PEER, 3 * EXPIRED_AT_ONCE)
        layer.receive(request(3 * EXPIRED_AT_ONCE - 1), PEER, 1000)
        self.assertEqual(layer.counts.duplicates, 0)

    def test_sweep_in_time(self) -> None:
        """A peer is forgotten when its lifetime is over, not a moment later."""
        layer = Layer(STEADY)
        self.fill(layer, PEER, 1)
        layer.receive(request(1), OTHER, 5)
        layer.messages_to_send()
        layer.advance(5.1)
        layer.send_response(layer.incoming(request(1), 7.5, ("192.0.2.3", 1)), response(), 7.5)
        layer.messages_to_send()
        sweeps = []
        for _ in range(3):
            due = layer.next_timeout()
            assert due is not None
            layer.advance(due)
            sweeps.append((due, layer.sizes["peers"]))
        self.assertEqual(sweeps, [(232, 2), (237, 2), (239.5, 1)])
