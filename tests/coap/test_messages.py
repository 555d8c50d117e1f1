"""
Tests for :mod:`twisted_net.coap.messages`.

Where each clause of RFC 7252 §4 and §5.2 is shown:

- §4.2, CON: sent again with back-off and jitter: ``test_back_off``, ``test_jitter``; acknowledged,
  piggybacked or apart: both ``test_piggybacked``, both ``test_separate``; rejected:
  ``test_malformed``, ``test_reset``; ACK and RST that are none: ``test_unknown_acknowledgements``,
  ``test_wrong_token``, ``test_reset_with_a_code``; given up early: ``test_cancel``.
- §4.3, NON: never acknowledged: ``test_non``, ``test_non_acknowledged``; rejected:
  ``test_reset_of_non``; ping: ``test_ping``.
- §4.4, message IDs not used twice in EXCHANGE_LIFETIME: ``test_ids_are_not_reused``,
  ``test_ids_in_any_pattern``, :mod:`tests.coap.test_message_ids`; matched by
  source: ``test_same_id_of_others``.
- §4.5, duplicates answered as the first time, and run once: ``test_duplicate_replayed``,
  ``test_duplicate_while_pending``, ``test_rejected_again``, ``test_non_response_twice``,
  ``test_simulation``.
- §4.7, NSTART: ``test_nstart``, ``test_acknowledgement_frees``; PROBING_RATE:
  ``test_probing_rate``, ``test_probing_ends``.
- §4.8, EXCHANGE_LIFETIME, NON_LIFETIME, MAX_TRANSMIT_WAIT: ``test_lifetime``,
  ``test_lifetime_of_non``, ``test_back_off``.
- §5.2.2, a response that overtakes its acknowledgement: ``test_separate_overtakes``.
- §8, groups: ``test_group``, ``test_leisure``.

Limits of entries, bytes, peers and time, shared fairly: :mod:`tests.coap.test_peer_table`, and
``test_simulation``.
"""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.coap.message_driver import OTHER, PEER, STEADY, Layer, question, request, response
from twisted_net.coap import exchange, message_ids, messages
from twisted_net.coap.codec import (
    MAX_OPTIONS,
    CoapMessage,
    Code,
    Type,
    encode_message,
    parse_message,
)
from twisted_net.coap.errors import CoapTimeout, QueueFull, ResetByPeer
from twisted_net.coap.exchange import (
    Event,
    IncomingMessage,
    MessageAcknowledged,
    MessageFailed,
    OutgoingMessage,
    OutgoingState,
    ResponseReceived,
)
from twisted_net.coap.messages import TIMERS_AT_ONCE
from twisted_net.coap.settings import TransmissionParameters


class ReceiveTests(SynchronousTestCase):
    """:meth:`MessageLayer.receive`: RFC 7252 §4.2, §4.3 and §4.5, from the side of who receives."""

    def setUp(self) -> None:
        self.layer = Layer(STEADY)

    def test_piggybacked(self) -> None:
        """A response that comes at once travels in the acknowledgement (§5.2.1)."""
        incoming = self.layer.incoming(request(7, token=b"abc", payload=b"x"))
        assert incoming.message is not None
        self.assertEqual(incoming.message.payload, b"x")
        self.layer.send_response(incoming, response(b"y"), 0)
        self.assertEqual(
            self.layer.sent(), [CoapMessage(Type.ACK, Code.CHANGED, 7, b"abc", payload=b"y")]
        )
        self.assertEqual(self.layer.sent(), [])

    def test_duplicate_replayed(self) -> None:
        """A duplicate is no event, and is answered with the very bytes of the first answer."""
        incoming = self.layer.incoming(request(7))
        self.layer.send_response(incoming, response(b"once"), 0)
        first = self.layer.messages_to_send()
        for now in (0.0, 2.0, 231.0):
            self.assertEqual(self.layer.receive(request(7), PEER, now), [])
            self.assertEqual(self.layer.messages_to_send(), first)
        self.assertEqual(self.layer.counts.duplicates, 3)

    def test_duplicate_while_pending(self) -> None:
        """A duplicate of a request that is still worked on is passed over in silence."""
        self.layer.incoming(request(7))
        self.assertEqual(self.layer.receive(request(7), PEER, 0.01), [])
        self.assertEqual(self.layer.sent(), [])

    def test_lifetime(self) -> None:
        """After EXCHANGE_LIFETIME (247 s), a message ID belongs to a new message."""
        self.assertEqual(STEADY.exchange_lifetime, 232)
        self.assertEqual(TransmissionParameters().exchange_lifetime, 247)
        incoming = self.layer.incoming(request(7))
        self.layer.send_response(incoming, response(), 0)
        self.layer.incoming(request(7), 232.0)

    def test_lifetime_of_non(self) -> None:
        """A non-confirmable message is remembered for NON_LIFETIME (145 s), a duplicate ignored."""
        self.assertEqual(TransmissionParameters().non_lifetime, 145)
        datagram = request(7, kind=Type.NON)
        incoming = self.layer.incoming(datagram)
        self.layer.send_response(incoming, response(), 0)
        self.layer.messages_to_send()
        self.assertEqual(self.layer.receive(datagram, PEER, 129.0), [])
        self.assertEqual(self.layer.messages_to_send(), [])
        self.layer.incoming(datagram, 130.0)

    def test_reused_id(self) -> None:
        """A peer that reuses an ID too early, for other bytes, gets its own answer."""
        self.layer.send_response(self.layer.incoming(request(7)), response(b"old"), 0)
        fresh = self.layer.incoming(request(7, token=b"u"), 1)
        self.layer.send_response(fresh, response(b"new"), 1)
        self.assertEqual([message.payload for message in self.layer.sent()], [b"old", b"new"])

    def test_same_id_of_others(self) -> None:
        """Message IDs of different peers have nothing to do with each other."""
        first = self.layer.incoming(request(7))
        other = self.layer.incoming(request(7), source=OTHER)
        self.layer.send_response(other, response(b"other"), 0)
        self.layer.send_response(first, response(b"first"), 0)
        self.assertEqual(
            [(parse_message(data).payload, to) for data, to in self.layer.messages_to_send()],
            [(b"other", OTHER), (b"first", PEER)],
        )
        self.assertEqual(self.layer.counts.duplicates, 0)

    def test_separate(self) -> None:
        """An answer that waits is preceded by an empty acknowledgement (§5.2.2)."""
        incoming = self.layer.incoming(request(7, token=b"abc"))
        self.assertEqual(self.layer.messages_to_send(), [])
        self.assertEqual(self.layer.next_timeout(), 0.1)
        self.layer.advance(0.1)
        self.assertEqual(self.layer.sent(), [CoapMessage(Type.ACK, Code.EMPTY, 7)])
        self.assertEqual(self.layer.receive(request(7, token=b"abc"), PEER, 2), [])
        self.assertEqual(self.layer.sent(), [CoapMessage(Type.ACK, Code.EMPTY, 7)])
        outgoing = self.layer.send_response(incoming, response(b"late"), 5)
        assert outgoing is not None
        (separate,) = self.layer.sent()
        self.assertEqual(
            (separate.type, separate.token, separate.payload), (Type.CON, b"abc", b"late")
        )
        (event,) = self.layer.reply(CoapMessage(Type.ACK, Code.EMPTY, separate.message_id), 6)
        assert isinstance(event, MessageAcknowledged)
        self.assertIs(event.outgoing, outgoing)

    def test_separate_is_repeated(self) -> None:
        """A separate answer is sent again until it is acknowledged, then given up."""
        incoming = self.layer.incoming(request(7))
        self.layer.messages_to_send()
        self.layer.advance(0.1)
        self.layer.send_response(incoming, response(), 1)
        self.layer.messages_to_send()
        events, times = run(self.layer, 1)
        self.assertEqual(times, [3, 7, 15, 31])
        (event,) = events
        assert isinstance(event, MessageFailed)
        self.assertIsInstance(event.error, CoapTimeout)

    def test_non(self) -> None:
        """A non-confirmable request gets a non-confirmable answer with an ID of our own."""
        incoming = self.layer.incoming(request(7, kind=Type.NON))
        self.assertEqual(self.layer.messages_to_send(), [])
        self.assertIsNone(self.layer.send_response(incoming, response(b"y"), 0))
        (answer,) = self.layer.sent()
        self.assertEqual((answer.type, answer.token, answer.payload), (Type.NON, b"t", b"y"))

    def test_ping(self) -> None:
        """An empty confirmable message is answered with a reset (§4.3)."""
        self.assertEqual(self.layer.reply(CoapMessage(Type.CON, Code.EMPTY, 9)), [])
        self.assertEqual(self.layer.sent(), [CoapMessage(Type.RST, Code.EMPTY, 9)])
        self.assertEqual(self.layer.reply(CoapMessage(Type.NON, Code.EMPTY, 9)), [])
        self.assertEqual(self.layer.sent(), [])

    def test_malformed(self) -> None:
        """A malformed confirmable message is reset, any other ignored (§4.2, §4.3)."""
        self.assertEqual(self.layer.receive(b"\x49\x01\x00\x05", PEER, 0), [])
        self.assertEqual(self.layer.sent(), [CoapMessage(Type.RST, Code.EMPTY, 5)])
        for datagram in (b"", b"\x59\x01\x00\x05", b"\x89\x01\x00\x05\x00\x00\x00\x00"):
            self.assertEqual(self.layer.receive(datagram, PEER, 0), [])
        self.assertEqual(self.layer.sent(), [])
        self.assertEqual(self.layer.counts.malformed, 4)

    def test_many_options(self) -> None:
        """A request with too many options gets 4.02 if it is confirmable, and is not kept."""
        options = [(0, b"")] * (MAX_OPTIONS + 1)
        request = CoapMessage(Type.CON, Code.GET, 7, b"abc", options)
        for _ in range(2):
            self.assertEqual(self.layer.reply(request), [])
            (answer,) = self.layer.sent()
            expected = CoapMessage(
                Type.ACK, Code.BAD_OPTION, 7, b"abc", payload=b"at most 64 options"
            )
            self.assertEqual(answer, expected)
        self.assertEqual(self.layer.counts.malformed, 2)
        self.assertEqual(self.layer.sizes["exchanges"], 0)
        self.layer.receive(encode_message(request), PEER, 0, group=True)
        self.assertEqual(self.layer.sent(), [])
        self.assertEqual(self.layer.reply(CoapMessage(Type.NON, Code.GET, 8, b"", options)), [])
        self.assertEqual(self.layer.sent(), [])
        self.layer.reply(CoapMessage(Type.CON, Code.CONTENT, 9, b"", options))
        self.assertEqual(self.layer.sent(), [CoapMessage(Type.RST, Code.EMPTY, 9)])
        (event,) = self.layer.reply(CoapMessage(Type.CON, Code.GET, 10, b"", options[1:]))
        self.assertIsInstance(event, IncomingMessage)

    def test_unknown_response(self) -> None:
        """A response that is not expected is reset: so an old observation ends (RFC 7641 §3.6)."""
        for kind in (Type.CON, Type.NON):
            stray = CoapMessage(kind, Code.CONTENT, 3, b"none")
            self.assertEqual(self.layer.reply(stray), [])
            self.assertEqual(self.layer.sent(), [CoapMessage(Type.RST, Code.EMPTY, 3)])

    def test_rejected_again(self) -> None:
        """What was reset is reset when it comes again."""
        stray = encode_message(CoapMessage(Type.CON, Code.CONTENT, 3, b"none"))
        for now in (0.0, 5.0):
            self.layer.receive(stray, PEER, now)
            self.assertEqual(self.layer.sent(), [CoapMessage(Type.RST, Code.EMPTY, 3)])
        self.assertEqual(self.layer.sizes["exchanges"], 0)

    def test_unknown_critical_option(self) -> None:
        """A response with a critical option that is not known is rejected (§5.4.1)."""
        for number, known in ((9, False), (23, True), (27, True), (10, True), (65_001, False)):
            for kind in (Type.ACK, Type.CON, Type.NON):
                layer = Layer(STEADY)
                outgoing = layer.send_request(question(), PEER, 0, 0)
                (sent,) = layer.sent()
                answer = CoapMessage(kind, Code.CONTENT, 7, b"q", [(number, b"")])
                answer.message_id = sent.message_id if kind == Type.ACK else 7
                (event,) = layer.reply(answer)
                self.assertIs(type(event), ResponseReceived if known else MessageFailed)
                replies = [message.type for message in layer.sent()]
                if known:
                    self.assertNotIn(Type.RST, replies)
                else:
                    assert isinstance(event, MessageFailed)
                    self.assertIn(f"option {number}", str(event.error))
                    self.assertEqual(replies, [] if kind == Type.ACK else [Type.RST])
                self.assertEqual(outgoing.state, OutgoingState.DONE)

    def test_unknown_acknowledgements(self) -> None:
        """Acknowledgements and resets of nothing are ignored."""
        for kind in (Type.ACK, Type.RST):
            self.assertEqual(self.layer.reply(CoapMessage(kind, Code.EMPTY, 3)), [])
        self.assertEqual(self.layer.messages_to_send(), [])

    def test_group(self) -> None:
        """To a group, only a non-confirmable request counts, and nothing is rejected (§8.1)."""
        for datagram in (
            request(1),
            encode_message(CoapMessage(Type.CON, Code.EMPTY, 2)),
            encode_message(CoapMessage(Type.NON, Code.CONTENT, 3)),
            encode_message(CoapMessage(Type.ACK, Code.EMPTY, 4)),
            b"\x49\x01\x00\x05",
        ):
            self.assertEqual(self.layer.receive(datagram, PEER, 0, group=True), [])
        self.assertEqual(self.layer.messages_to_send(), [])
        (event,) = self.layer.receive(request(6, kind=Type.NON), PEER, 0, group=True)
        assert isinstance(event, IncomingMessage)
        self.assertTrue(event.group)

    def test_leisure(self) -> None:
        """An answer that is to wait leaves when its time has come."""
        (event,) = self.layer.receive(request(6, kind=Type.NON), PEER, 0, group=True)
        assert isinstance(event, IncomingMessage)
        self.layer.send_response(event, response(), 0, delay=3)
        self.assertEqual(self.layer.messages_to_send(), [])
        self.assertEqual(self.layer.next_timeout(), 3)
        self.layer.advance(3)
        self.assertEqual(len(self.layer.messages_to_send()), 1)

    def test_leisure_bounds(self) -> None:
        """So many answers wait, and so many bytes; further ones are dropped and counted."""
        for limit, payload in (
            (exchange.MAX_DELAYED, b""),
            (exchange.MAX_DELAYED // 2, bytes(3000)),
        ):
            layer = Layer()
            for i in range(limit + 2):
                asked = request(i, kind=Type.NON)
                (event,) = layer.receive(asked, (f"192.0.2.{i % 250}", i), 0, group=True)
                assert isinstance(event, IncomingMessage)
                layer.send_response(event, response(payload=payload), 0, delay=3)
            sizes, dropped = layer.sizes, layer.counts.responses_dropped
            self.assertEqual(sizes["delayed"] + dropped, limit + 2)
            self.assertLessEqual(sizes["delayed"], exchange.MAX_DELAYED)
            self.assertLessEqual(sizes["delayed_bytes"], exchange.MAX_DELAYED_BYTES)
            self.assertGreaterEqual(dropped, 2)
            while layer.next_timeout() == 3:
                layer.advance(3)
            self.assertEqual(len(layer.messages_to_send()), sizes["delayed"])
            self.assertEqual((layer.sizes["delayed"], layer.sizes["delayed_bytes"]), (0, 0))

    def test_silence(self) -> None:
        """A request may be left without an answer."""
        incoming = self.layer.incoming(request(6, kind=Type.NON))
        self.assertIsNone(self.layer.send_response(incoming, None, 0))
        self.assertEqual(self.layer.messages_to_send(), [])


def run(layer: Layer, start: float, end: float = 1000.0) -> tuple[list[Event], list[float]]:
    """Let time pass, and give the events and the times at which something was sent."""
    events: list[Event] = []
    times = []
    while (due := layer.next_timeout()) is not None and due < end:
        assert due >= start
        events += layer.advance(due)
        if layer.messages_to_send():
            times.append(due)
    return events, times


class SendTests(SynchronousTestCase):
    """:meth:`MessageLayer.send_request`: RFC 7252 §4.2, §4.7 and §5.3.2."""

    def setUp(self) -> None:
        self.layer = Layer(STEADY)

    def send(self, now: float = 0.0, kind: int = Type.CON, token: bytes = b"q") -> OutgoingMessage:
        """Send a question to the peer."""
        return self.layer.send_request(question(kind, token), PEER, now, 0)

    def answered(self, events: list[Event], outgoing: OutgoingMessage) -> CoapMessage:
        """Return the one answer among events."""
        (event,) = events
        assert isinstance(event, ResponseReceived)
        self.assertIs(event.outgoing, outgoing)
        return event.message

    def test_back_off(self) -> None:
        """An unanswered message is sent again after 2, 4, 8 and 16 s, and given up 32 s later."""
        outgoing = self.send()
        self.layer.messages_to_send()
        events, times = run(self.layer, 0, 62.5)
        self.assertEqual(times, [2, 6, 14, 30])
        (event,) = events
        assert isinstance(event, MessageFailed)
        self.assertIs(event.outgoing, outgoing)
        self.assertEqual(STEADY.max_transmit_wait, 62)
        self.assertEqual(self.layer.counts.retransmissions, 4)
        self.assertEqual(self.layer.counts.timeouts, 1)
        self.assertEqual(self.layer.counts.sent, 5)
        self.assertEqual(self.layer.sizes["outgoing"], 0)

    def test_jitter(self) -> None:
        """The first wait is spread from ACK_TIMEOUT to ACK_RANDOM_FACTOR times it."""
        for chance, wait in ((0, 2.0), (0.5, 2.5), (1, 3.0)):
            layer = Layer(TransmissionParameters())
            layer.send_request(question(), PEER, 0, chance)
            layer.messages_to_send()
            self.assertEqual(layer.next_timeout(), wait)

    def test_jitter_doubles(self) -> None:
        """Each wait is twice the one before, the first drawn once for all (§4.2)."""
        layer = Layer(TransmissionParameters())
        layer.send_request(question(), PEER, 0, 0.5)
        layer.messages_to_send()
        self.assertEqual(run(layer, 0)[1], [2.5, 7.5, 17.5, 37.5])

    def test_non_response_twice(self) -> None:
        """A response that comes twice is one event."""
        outgoing = self.send(kind=Type.NON)
        self.layer.messages_to_send()
        answer = CoapMessage(Type.NON, Code.CONTENT, 5, b"q")
        self.answered(self.layer.reply(answer), outgoing)
        self.assertEqual(self.layer.reply(answer), [])
        self.assertEqual(self.layer.messages_to_send(), [])

    def test_piggybacked(self) -> None:
        """The response in an acknowledgement ends the exchange."""
        outgoing = self.send()
        (message,) = self.layer.sent()
        answer = CoapMessage(Type.ACK, Code.CONTENT, message.message_id, b"q", payload=b"y")
        self.assertEqual(self.answered(self.layer.reply(answer), outgoing).payload, b"y")
        self.assertEqual(self.layer.reply(answer), [])
        self.assertEqual(self.layer.messages_to_send(), [])
        self.assertEqual(run(self.layer, 0), ([], []))

    def test_wrong_token(self) -> None:
        """An acknowledgement whose response has another token is ignored (§5.3.2)."""
        self.send()
        (message,) = self.layer.sent()
        answer = CoapMessage(Type.ACK, Code.CONTENT, message.message_id, b"other")
        self.assertEqual(self.layer.reply(answer), [])
        request_in_ack = CoapMessage(Type.ACK, Code.GET, message.message_id, b"q")
        self.assertEqual(self.layer.reply(request_in_ack), [])

    def test_separate(self) -> None:
        """A response of its own is acknowledged, and again when it comes again."""
        outgoing = self.send()
        (message,) = self.layer.sent()
        self.assertEqual(self.layer.reply(CoapMessage(Type.ACK, 0, message.message_id), 1), [])
        answer = CoapMessage(Type.CON, Code.CONTENT, 99, b"q")
        self.answered(self.layer.reply(answer, 20), outgoing)
        self.assertEqual(self.layer.sent(), [CoapMessage(Type.ACK, 0, 99)])
        self.assertEqual(self.layer.reply(answer, 21), [])
        self.assertEqual(self.layer.sent(), [CoapMessage(Type.ACK, 0, 99)])

    def test_separate_overtakes(self) -> None:
        """A response stands for the acknowledgement that was lost or comes late (§5.2.2)."""
        outgoing = self.send()
        (message,) = self.layer.sent()
        self.answered(self.layer.reply(CoapMessage(Type.NON, Code.CONTENT, 99, b"q")), outgoing)
        self.assertEqual(self.layer.reply(CoapMessage(Type.ACK, 0, message.message_id)), [])
        self.assertEqual(run(self.layer, 0), ([], []))

    def test_acknowledged_and_forgotten(self) -> None:
        """After an acknowledgement the response is waited for so long, and no more."""
        self.send()
        (message,) = self.layer.sent()
        self.layer.reply(CoapMessage(Type.ACK, 0, message.message_id), 1)
        events, times = run(self.layer, 1)
        self.assertEqual(times, [])
        (event,) = events
        assert isinstance(event, MessageFailed)
        self.assertIn("within 233 seconds", str(event.error))

    def test_reset(self) -> None:
        """A reset ends the exchange."""
        self.send()
        (message,) = self.layer.sent()
        reset = CoapMessage(Type.RST, 0, message.message_id)
        (event,) = self.layer.reply(reset)
        assert isinstance(event, MessageFailed)
        self.assertIsInstance(event.error, ResetByPeer)
        self.assertEqual(self.layer.reply(reset), [])
        self.assertEqual(self.layer.counts.resets, 1)

    def test_reset_of_non(self) -> None:
        """A reset ends a non-confirmable request too, and the next one leaves at once (§4.3)."""
        outgoing = self.send(kind=Type.NON, token=b"1")
        self.send(kind=Type.NON, token=b"2")
        (first,) = self.layer.sent()
        reset = CoapMessage(Type.RST, 0, first.message_id)
        (event,) = self.layer.reply(reset, 1)
        assert isinstance(event, MessageFailed)
        self.assertIs(event.outgoing, outgoing)
        self.assertIsInstance(event.error, ResetByPeer)
        (second,) = self.layer.sent()
        self.assertEqual(second.token, b"2")
        self.assertEqual(self.layer.reply(reset, 2), [])
        self.assertEqual(self.layer.reply(CoapMessage(Type.NON, Code.CONTENT, 5, b"1"), 2), [])

    def test_reset_with_a_code(self) -> None:
        """A reset that is not empty is none (§4.2)."""
        self.send()
        (message,) = self.layer.sent()
        odd = CoapMessage(Type.RST, Code.CONTENT, message.message_id, b"q")
        self.assertEqual(self.layer.reply(odd), [])

    def test_notification(self) -> None:
        """A message of ours that is no request ends with its acknowledgement."""
        notification = CoapMessage(Type.CON, Code.CONTENT, token=b"q")
        outgoing = self.layer.send_request(notification, PEER, 0, 0)
        (message,) = self.layer.sent()
        (event,) = self.layer.reply(CoapMessage(Type.ACK, 0, message.message_id))
        assert isinstance(event, MessageAcknowledged)
        self.assertIs(event.outgoing, outgoing)
        self.assertEqual(self.layer.sizes["outgoing"], 0)

    def test_kept(self) -> None:
        """Responses go on to a request that is kept, until it is cancelled."""
        outgoing = self.layer.send_request(question(), PEER, 0, 0, observing=True)
        (message,) = self.layer.sent()
        self.answered(
            self.layer.reply(CoapMessage(Type.ACK, Code.CONTENT, message.message_id, b"q")),
            outgoing,
        )
        for message_id in (1, 2):
            answer = CoapMessage(Type.CON, Code.CONTENT, message_id, b"q")
            self.answered(self.layer.reply(answer), outgoing)
            self.assertEqual(self.layer.sent(), [CoapMessage(Type.ACK, 0, message_id)])
        self.layer.cancel(outgoing, 0)
        self.assertEqual(self.layer.reply(CoapMessage(Type.CON, Code.CONTENT, 3, b"q")), [])
        self.assertEqual(self.layer.sent(), [CoapMessage(Type.RST, 0, 3)])

    def test_nstart(self) -> None:
        """Of messages to one peer so many are under way; the others wait for their turn (§4.7)."""
        for nstart in (1, 3):
            layer = Layer(TransmissionParameters(nstart=nstart))
            for number in range(5):
                layer.send_request(question(token=b"%d" % number), PEER, 0, 0)
            layer.send_request(question(), OTHER, 0, 0)
            sent = layer.messages_to_send()
            self.assertEqual([source for _, source in sent], [PEER] * nstart + [OTHER])
            first = parse_message(sent[0][0])
            layer.reply(CoapMessage(Type.ACK, Code.CONTENT, first.message_id, first.token))
            (following,) = layer.sent()
            self.assertEqual(following.token, b"%d" % nstart)

    def test_acknowledgement_frees(self) -> None:
        """An acknowledged request holds no other up."""
        self.send(token=b"1")
        self.send(token=b"2")
        (first,) = self.layer.sent()
        self.layer.reply(CoapMessage(Type.ACK, 0, first.message_id))
        (second,) = self.layer.sent()
        self.assertEqual(second.token, b"2")

    def test_probing_rate(self) -> None:
        """To a silent peer non-confirmable requests leave at PROBING_RATE bytes a second."""
        for number in range(3):
            self.send(kind=Type.NON, token=b"%d" % number)
        times = [0.0] * len(self.layer.messages_to_send())
        size = len(request(kind=Type.NON))
        _, later = run(self.layer, 0, 20)
        self.assertEqual(times + later, [0, size, 2 * size])

    def test_probing_ends(self) -> None:
        """A peer that answers is asked the next question at once."""
        outgoing = self.send(kind=Type.NON, token=b"1")
        self.send(kind=Type.NON, token=b"2")
        self.layer.messages_to_send()
        answer = CoapMessage(Type.NON, Code.CONTENT, 5, b"1")
        self.answered(self.layer.reply(answer), outgoing)
        (second,) = self.layer.sent()
        self.assertEqual(second.token, b"2")

    def test_non_without_answer(self) -> None:
        """A non-confirmable request is given up after NON_LIFETIME; a late answer is stray."""
        self.send(kind=Type.NON)
        self.layer.messages_to_send()
        events, _ = run(self.layer, 0)
        (event,) = events
        assert isinstance(event, MessageFailed)
        self.assertIn("within 130 seconds", str(event.error))
        self.assertEqual(self.layer.reply(CoapMessage(Type.NON, Code.CONTENT, 5, b"q"), 300), [])

    def test_non_acknowledged(self) -> None:
        """An acknowledgement of a non-confirmable message is ignored."""
        self.send(kind=Type.NON)
        (message,) = self.layer.sent()
        answer = CoapMessage(Type.ACK, Code.CONTENT, message.message_id, b"q")
        self.assertEqual(self.layer.reply(answer), [])

    def test_cancel(self) -> None:
        """What is cancelled is sent no more, and makes room for what waits."""
        outgoing, waiting, last = (
            self.send(token=b"1"),
            self.send(token=b"2"),
            self.send(token=b"3"),
        )
        self.layer.messages_to_send()
        self.layer.cancel(waiting, 0)
        self.layer.cancel(outgoing, 0)
        (message,) = self.layer.sent()
        self.assertEqual(message.token, b"3")
        self.layer.cancel(last, 0)
        self.layer.cancel(last, 0)
        self.assertEqual(run(self.layer, 0), ([], []))

    def test_cancel_many(self) -> None:
        """Many that wait are cancelled last first, as by a notifier, without a search for each."""

        class Searched(deque[OutgoingMessage]):
            searches = 0

            @override
            def remove(self, value: OutgoingMessage) -> None:
                self.searches += 1
                super().remove(value)

        first, *waiting = [self.send(token=b"%d" % number) for number in range(10)]
        queue = first.peer.queue = Searched(first.peer.queue)
        for outgoing in reversed(waiting):
            self.layer.cancel(outgoing, 0)
        self.assertEqual((len(queue), queue.searches), (0, 0))

    def test_queue_is_bounded(self) -> None:
        """Over ``max_queued`` a message is refused."""
        layer = Layer(TransmissionParameters(max_queued=2))
        for number in range(3):
            layer.send_request(question(token=b"%d" % number), PEER, 0, 0)
        with self.assertRaises(QueueFull):
            layer.send_request(question(), PEER, 0, 0)
        layer.send_request(question(), OTHER, 0, 0)

    def test_ids_are_not_reused(self) -> None:
        """Message IDs towards a peer do not come again within EXCHANGE_LIFETIME (§4.4)."""
        now = 0.0
        layer = Layer(STEADY, first_id=65_000)
        seen: set[int] = set()
        for _ in range(65_536):
            outgoing = layer.send_request(question(), PEER, now, 0)
            ((datagram, _),) = layer.messages_to_send()
            seen.add(int.from_bytes(datagram[2:4], "big"))
            layer.cancel(outgoing, now)
            now += 0.001
        self.assertEqual(len(seen), 65_536)
        layer.send_request(question(), PEER, now, 0)
        other = layer.send_request(question(), OTHER, now, 0)
        self.assertEqual([source for _, source in layer.messages_to_send()], [OTHER])
        layer.cancel(other, now)
        due = layer.next_timeout()
        while not layer.messages_to_send():
            due = layer.next_timeout()
            assert due is not None
            layer.advance(due)
        assert due is not None
        self.assertAlmostEqual(due, 1.023 + STEADY.exchange_lifetime)

    def test_waiting_for_ids(self) -> None:
        """Messages that wait for an ID leave by themselves, in order, once it is free."""
        self.patch(message_ids, "COUNT", 8)
        self.patch(message_ids, "BLOCK", 4)
        layer = Layer(TransmissionParameters(ack_random_factor=1, nstart=100))
        for number in range(20):
            layer.send_request(question(token=b"%d" % number), PEER, 0, 0)
        for message in (*layer.sent(), *layer.sent()):
            layer.reply(CoapMessage(Type.ACK, 0, message.message_id))
        self.assertEqual(layer.next_timeout(), 232)
        layer.advance(232)
        self.assertEqual(
            [message.token for message in layer.sent()], [b"%d" % n for n in range(8, 16)]
        )

    def test_no_id_for_an_answer(self) -> None:
        """The answer to a non-confirmable request is dropped and counted where no ID is free."""
        self.patch(message_ids, "COUNT", 8)
        self.patch(message_ids, "BLOCK", 4)
        for number in range(10):
            incoming = self.layer.incoming(request(number, kind=Type.NON))
            self.assertIsNone(self.layer.send_response(incoming, response(), 0))
        self.assertEqual(len(self.layer.messages_to_send()), 8)
        self.assertEqual(self.layer.counts.responses_dropped, 2)

    def test_no_id_for_an_untracked_message(self) -> None:
        """A message that nothing answers is dropped and counted where no ID is free."""
        self.patch(message_ids, "COUNT", 8)
        self.patch(message_ids, "BLOCK", 4)
        for _ in range(10):
            self.layer.send_untracked(response(), PEER, 0)
        self.assertEqual(len(self.layer.messages_to_send()), 8)
        self.assertEqual(self.layer.counts.responses_dropped, 2)

    def test_no_peer_for_an_untracked_message(self) -> None:
        """It is sent also where the table of peers is full of those that wait."""
        layer = Layer(TransmissionParameters(max_peers=1))
        layer.send_request(question(token=b"1"), PEER, 0, 0)
        layer.send_untracked(response(), ("192.0.2.77", 5683), 0)
        self.assertEqual(len(layer.messages_to_send()), 2)

        lifetime = STEADY.non_lifetime
        incoming = self.layer.incoming(request(11, kind=Type.NON), lifetime)
        self.layer.send_response(incoming, response(), lifetime)
        self.assertEqual(len(self.layer.messages_to_send()), 1)

    @settings(max_examples=300)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["con", "non", "answer", "answer later", "group", "pass"]),
                st.integers(1, 12),
                st.sampled_from([0.0, 1.0, 40.0, 130.0, 231.0, 232.0]),
            ),
            max_size=30,
        )
    )
    def test_ids_in_any_pattern(self, steps: list[tuple[str, int, float]]) -> None:
        """
        Whatever is sent, when and how, no message ID comes again within its lifetime (§4.4).

        The lifetime is counted from the first transmission, and is NON_LIFETIME for what is not
        confirmable (§4.8.2). 16 IDs in blocks of 4 stand for the 65,536 that there are.
        """
        self.patch(message_ids, "COUNT", 16)
        self.patch(message_ids, "BLOCK", 4)
        layer = Layer(TransmissionParameters(ack_random_factor=1, nstart=8))
        free: dict[int, tuple[float, bytes]] = {}
        held: list[IncomingMessage] = []
        now = 0.0
        number = 0

        def check() -> None:
            for datagram, _ in layer.messages_to_send():
                message = parse_message(datagram)
                if message.type > Type.NON:
                    continue
                at, before = free.get(message.message_id, (0.0, b""))
                if datagram == before:
                    continue  # sent again
                self.assertLessEqual(at, now)
                lifetime = 232 if message.type == Type.CON else 130
                free[message.message_id] = now + lifetime, datagram

        for action, count, passed in steps:
            end = now + passed
            while (due := layer.next_timeout()) is not None and due <= end:
                now = due
                layer.advance(now)
                check()
            now = end
            for _ in range(count):
                number += 1
                if action in ("con", "non"):
                    kind = Type.CON if action == "con" else Type.NON
                    layer.send_request(question(kind, b"%d" % number), PEER, now, 0)
                elif action != "pass":
                    kind = Type.CON if action == "answer later" else Type.NON
                    token = b"%d" % number
                    incoming = layer.incoming(request(number, kind=kind, token=token), now)
                    if kind == Type.CON:
                        held.append(incoming)
                    else:
                        delay = 3.0 * (number % 3) if action == "group" else 0.0
                        layer.send_response(incoming, response(), now, delay=delay)
                check()
            if action == "pass":
                for incoming in held:
                    layer.send_response(incoming, response(), now)
                held.clear()
                check()


class TimerTests(SynchronousTestCase):
    """The timers of all messages are one heap."""

    def test_timers(self) -> None:
        """Timers that became void do not pile up."""
        layer = Layer(STEADY)
        for _ in range(5000):
            layer.cancel(layer.send_request(question(), PEER, 0, 0), 0)
        self.assertTrue(layer.sizes["timers"] <= 1025)

    def test_many_timers(self) -> None:
        """Where thousands of timers are in use the void ones are looked for now and then alone."""
        layer = Layer(TransmissionParameters(nstart=1024))
        searches: list[object] = []
        self.patch(messages, "heapify", searches.append)
        for number in range(5000):
            layer.send_request(question(), ("192.0.2.1", number + 1), 0, 0)
        self.assertEqual(layer.sizes["timers"], 5000)
        self.assertEqual(len(searches), 3)

    def test_many_are_due(self) -> None:
        """Of many timers so many are served in each call; the next call is due at once."""
        layer = Layer(STEADY)
        count = 2 * TIMERS_AT_ONCE + 1
        for port in range(1, count + 1):
            layer.send_request(question(), ("192.0.2.1", port), 0.0, 0.0)
        layer.messages_to_send()
        sent = []
        while (due := layer.next_timeout()) == 2:
            layer.advance(due)
            sent.append(len(layer.messages_to_send()))
        self.assertEqual(sent, [TIMERS_AT_ONCE, TIMERS_AT_ONCE, 1])
        self.assertEqual(layer.counts.retransmissions, count)


class FuzzTests(SynchronousTestCase):
    """Whatever comes, nothing is raised."""

    @settings(max_examples=300)
    @given(
        st.lists(st.tuples(st.binary(max_size=40), st.booleans(), st.floats(0, 50)), max_size=20)
    )
    def test_any_datagrams(self, steps: list[tuple[bytes, bool, float]]) -> None:
        """Any bytes at any time, to the group or not, bring no exception, and bounds hold."""
        layer = Layer(TransmissionParameters(max_exchanges=4, max_peers=2))
        now = 0.0
        for datagram, group, passed in steps:
            now += passed
            layer.advance(now)
            for event in layer.receive(datagram, PEER, now, group):
                if isinstance(event, IncomingMessage) and passed > 5:
                    layer.send_response(event, response(), now)
            layer.messages_to_send()
            due = layer.next_timeout()
            self.assertTrue(due is None or due > now)
            self.assertLessEqual(layer.sizes["peers"], 2)
        self.assertEqual(layer.counts.received, len(steps))

    @settings(max_examples=200)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([0, 1, 2, 3]),
                st.sampled_from([0, 1, 2, 69, 132]),
                st.integers(0, 3),
                st.sampled_from([b"", b"q", b"r"]),
            ),
            max_size=30,
        )
    )
    def test_any_messages(self, steps: list[tuple[int, int, int, bytes]]) -> None:
        """Any order of messages brings no exception, and all that is left ends by itself."""
        layer = Layer(TransmissionParameters(nstart=2))
        kept: list[OutgoingMessage] = []
        for number, (kind, code, message_id, token) in enumerate(steps):
            if number % 3 == 0:
                kept.append(layer.send_request(question(kind & 1, token), PEER, number, 0, True))
            if number % 7 == 0 and kept:
                layer.cancel(kept.pop(), number)
            empty = code == 0
            message = CoapMessage(kind, code, message_id, b"" if empty else token)
            for event in layer.reply(message, number):
                if isinstance(event, IncomingMessage):
                    layer.send_response(event, response(), number)
            layer.advance(number)
            layer.messages_to_send()
        for outgoing in kept:
            layer.cancel(outgoing, len(steps))
        while (due := layer.next_timeout()) is not None:
            layer.advance(due)
        self.assertEqual(layer.sizes, dict.fromkeys(layer.sizes, 0))
