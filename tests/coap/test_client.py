"""Tests for :mod:`twisted_net.coap.client`, on a fake network and clock."""

from __future__ import annotations

import errno
from functools import partial
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.blockwise import Block
from twisted_net.coap.client import CoapClient
from twisted_net.coap.client_request import MAX_RESTARTS
from twisted_net.coap.client_response import CoapResponse, Observation
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message, parse_message
from twisted_net.coap.errors import (
    CoapClientClosed,
    CoapHostUnreachable,
    CoapTimeout,
    ObservationRefused,
    QueueFull,
    ResourceChanged,
    TransferFailed,
    UnknownOption,
)
from twisted_net.coap.group_client import get_from_group
from twisted_net.net.addresses import Source
from twisted_net.net.reactor import DatagramReactor

SERVER = ("192.0.2.1", 5683)
URI = "coap://192.0.2.1/a/b?c"


class Reactor(Clock):
    """A clock with a network that keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[CoapMessage] = []
        self.protocol: Any = None
        self.resolved: Deferred[str] = Deferred()
        self.send_error: OSError | None = None

    def listenUDP(self, port: int, protocol: Any, interface: str, maxPacketSize: int) -> Reactor:
        self.protocol = protocol
        protocol.transport = self
        return self

    def stopListening(self) -> Deferred[None]:
        self.protocol.transport = None
        self.protocol.stopProtocol()
        stopped: Deferred[None] = Deferred()
        stopped.callback(None)
        return stopped

    def resolve(self, name: str) -> Deferred[str]:
        return self.resolved

    def write(self, datagram: bytes, addr: Source) -> None:
        if self.send_error is not None:
            raise self.send_error
        self.sent.append(parse_message(datagram))

    def answer(self, message: CoapMessage, question: CoapMessage | None = None) -> None:
        """Answer the last message that was sent, or another."""
        question = question or self.sent[-1]
        message.token = question.token
        if message.type == Type.ACK:
            message.message_id = question.message_id
        self.protocol.datagramReceived(encode_message(message), SERVER)


class ClientTests(SynchronousTestCase):
    """:class:`CoapClient` on a clock."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.client = CoapClient(cast("DatagramReactor", self.reactor))

    def tearDown(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.client.close()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_unreachable(self) -> None:
        """Requests to a host that the kernel cannot send to fail at once, the queued ones too."""
        self.reactor.send_error = OSError(errno.EAGAIN, "Resource temporarily unavailable")
        first, second = self.client.get(URI), self.client.get(URI)
        elsewhere = self.client.get("coap://192.0.2.2/")
        self.assertNoResult(first)
        self.reactor.send_error = OSError(errno.ENETUNREACH, "Network is unreachable")
        third = self.client.get("coap://192.0.2.3/")
        error = self.failureResultOf(third, CoapHostUnreachable).value
        self.assertEqual(str(error), "cannot reach 192.0.2.3: Network is unreachable")
        self.assertNoResult(first)
        self.reactor.advance(3.0)
        for call in (first, second, elsewhere):
            self.failureResultOf(call, CoapHostUnreachable)
        self.assertEqual(self.reactor.sent, [])

    def test_request_when_failed(self) -> None:
        """A caller that hears of a failure may cancel others, request again, and close."""
        failing, other = self.client.get(URI), self.client.get(URI)
        again: list[Deferred[CoapResponse]] = []

        def react(failure: Failure) -> None:
            failure.trap(CoapHostUnreachable)
            other.cancel()
            self.reactor.send_error = None
            again.append(self.client.get("coap://192.0.2.1/again"))

        failing.addErrback(react)
        other.addErrback(lambda failure: failure.trap(CancelledError, CoapHostUnreachable))
        self.reactor.send_error = OSError(errno.ENETUNREACH, "Network is unreachable")
        self.reactor.advance(3.0)
        self.successResultOf(failing)
        self.successResultOf(other)
        self.reactor.answer(CoapMessage(Type.ACK, Code.CONTENT, payload=b"a"))
        self.assertEqual(self.successResultOf(again[0]).payload, b"a")

    def test_close_when_failed(self) -> None:
        """A caller that hears of a failure may close the client."""
        calls = [self.client.get(f"coap://192.0.2.{i}/") for i in (1, 1, 2)]
        closed: list[Deferred[None]] = []
        for call in calls:
            call.addErrback(lambda _: closed.append(Deferred.fromCoroutine(self.client.close())))
        self.reactor.send_error = OSError(errno.ENETUNREACH, "Network is unreachable")
        self.reactor.advance(3.0)
        self.assertEqual(len(closed), 3)
        for closing in closed:
            self.successResultOf(closing)
        self.failureResultOf(self.client.get(URI), CoapClientClosed)

    def test_misuse(self) -> None:
        """Text for bytes, and the like, is refused where it is passed."""
        client: Any = self.client
        for call, said in (
            (lambda: client.post(URI, "text"), "payload must be bytes, not text"),
            (lambda: client.get(URI.encode()), "uri must be text, not bytes"),
            (lambda: client.get(URI, accept="50"), "accept must be an integer or None, not text"),
            (lambda: client.get(URI, timeout="5"), "timeout must be a number or None, not text"),
            (lambda: client.request("GET", URI), "method must be an integer, not text"),
            (lambda: client.observe(5), "uri must be text, not an integer"),
        ):
            self.assertIn(said, str(self.assertRaises(TypeError, call)))
        self.assertEqual(self.reactor.sent, [])

    def test_bad_timeout(self) -> None:
        """A time limit that is no time is refused before anything is sent."""
        for timeout in (-1, float("nan"), float("inf"), 10**400):
            self.assertRaises(ValueError, self.client.get, URI, timeout=timeout)
        self.assertEqual(self.reactor.sent, [])

    def test_numbers_out_of_bounds(self) -> None:
        """So is a number that no method, or no content format, has."""
        for method in (-1, 0, 32, 256):
            said = f"method must be an integer from 1 to 31, not {method}"
            error = self.assertRaises(ValueError, self.client.request, method, URI)
            self.assertEqual(str(error), said)
        for number in (-1, 65_536):
            self.assertRaises(ValueError, self.client.get, URI, accept=number)
            self.assertRaises(ValueError, self.client.post, URI, content_format=number)
            observed = Deferred.fromCoroutine(self.client.observe(URI, accept=number))
            self.failureResultOf(observed, ValueError)
        reactor: Any = MemoryReactorClock()  # Any: it has no sockets, and needs none
        ask = partial(get_from_group, reactor, reactor, "coap://224.0.1.187/")
        for asked in (ask(hops=256), ask(hops=-1), ask(limit=0), ask(wait=-1), ask(limit=1001)):
            self.failureResultOf(Deferred.fromCoroutine(asked), ValueError)
        self.assertEqual(self.reactor.sent, [])

    def test_fetch_in_blocks(self) -> None:
        """FETCH has a payload of a format, which later blocks do not have (RFC 8132 §2)."""
        call = self.client.fetch(URI, b"question", content_format=50, accept=60)
        (asked,) = self.reactor.sent
        self.assertEqual((asked.code, asked.type, asked.payload), (5, Type.CON, b"question"))
        self.assertEqual(asked.option(Option.CONTENT_FORMAT), b"\x32")
        self.assertEqual(asked.option(Option.ACCEPT), b"\x3c")
        block = (int(Option.BLOCK2), Block(0, True, 16).encode())
        answer = CoapMessage(Type.ACK, Code.CONTENT, options=[block], payload=b"a" * 16)
        self.reactor.answer(answer)
        asked = self.reactor.sent[-1]
        self.assertEqual((asked.code, asked.payload), (5, b""))
        self.assertIsNone(asked.option(Option.CONTENT_FORMAT))
        block = (int(Option.BLOCK2), Block(1, False, 16).encode())
        self.reactor.answer(CoapMessage(Type.ACK, Code.CONTENT, options=[block], payload=b"b"))
        self.assertEqual(self.successResultOf(call).payload, b"a" * 16 + b"b")

    def test_report(self) -> None:
        """A report is sent once, wants no response (RFC 7967 §2), and leaves nothing behind."""
        self.successResultOf(self.client.report(URI, b"21.5", content_format=0))
        (sent,) = self.reactor.sent
        self.assertEqual((sent.type, sent.code, sent.payload), (Type.NON, Code.POST, b"21.5"))
        self.assertEqual(sent.option(Option.NO_RESPONSE), b"\x1a")
        self.assertEqual((sent.token, sent.option(Option.CONTENT_FORMAT)), (b"", b""))
        layer = self.reactor.protocol.layer
        self.assertEqual((layer.sizes["outgoing"], layer.sizes["timers"]), (0, 0))
        # It does not count towards NSTART, and its rate is the caller's (§4).
        for number in range(50):
            self.successResultOf(self.client.report(URI, b"%d" % number, method=Code.PUT))
        self.assertEqual(len({message.message_id for message in self.reactor.sent}), 51)
        # A server that knows no such option responds: that is rejected, as nothing waits for it.
        self.reactor.answer(CoapMessage(Type.NON, Code.CHANGED))
        self.assertEqual(self.reactor.sent[-1].type, Type.RST)

    def test_report_fails(self) -> None:
        """A report that cannot be sent fails, and so does one that does not fit a block."""
        self.reactor.send_error = OSError(errno.ENETUNREACH, "Network is unreachable")
        self.failureResultOf(self.client.report(URI), CoapHostUnreachable)
        self.reactor.send_error = OSError(errno.ENOBUFS, "No buffer space available")
        self.successResultOf(self.client.report(URI))  # lost, as any report may be
        self.reactor.send_error = None
        self.successResultOf(self.client.report(URI, bytes(1024)))
        error = self.failureResultOf(self.client.report(URI, bytes(1025)), TransferFailed).value
        self.assertIn("at most 1024 bytes here, not 1025", str(error))
        for words in ({"method": 0}, {"content_format": 65_536}):
            with self.subTest(words=words):
                self.assertRaises(ValueError, self.client.report, URI, **words)

    def test_reports_without_ids(self) -> None:
        """A report is refused while all message IDs of its server are in use (RFC 7252 §4.4)."""
        for _ in range(65_536):
            self.client.report(URI)
        self.failureResultOf(self.client.report(URI), QueueFull)
        self.reactor.advance(300)
        self.successResultOf(self.client.report(URI))

    def test_report_when_closed(self) -> None:
        """A closed client sends no report."""
        self.successResultOf(Deferred.fromCoroutine(self.client.close()))
        self.failureResultOf(self.client.report(URI), CoapClientClosed)
        self.assertEqual(self.reactor.sent, [])

    def test_lost_in_the_kernel(self) -> None:
        """A datagram for which the kernel has no memory is retransmitted as a lost one."""
        self.reactor.send_error = OSError(errno.ENOBUFS, "No buffer space available")
        call = self.client.get(URI)
        self.reactor.send_error = None
        self.reactor.advance(3.0)
        self.reactor.answer(CoapMessage(Type.ACK, Code.CONTENT, payload=b"a"))
        self.assertEqual(self.successResultOf(call).payload, b"a")

    def test_observation_of_unreachable_server(self) -> None:
        """An observation outlives a network that is away for a while."""
        observation = self.observe()
        registration = self.reactor.sent[-1]
        self.reactor.send_error = OSError(errno.ENETUNREACH, "Network is unreachable")
        self.failureResultOf(self.client.get(URI), CoapHostUnreachable)
        self.reactor.send_error = None
        self.reactor.answer(state(1, 2), registration)
        for _ in range(2):
            self.successResultOf(Deferred.fromCoroutine(observation.__anext__()))

    def observe(self) -> Observation:
        """Begin to observe."""
        started = Deferred.fromCoroutine(self.client.observe(URI))
        self.reactor.answer(state(0, 1))
        return self.successResultOf(started)

    def test_requests_of_a_server(self) -> None:
        """
        What anybody sends to a client costs it nothing (RFC 7252 §4.2, §4.3).

        Requests, and responses that it does not wait for, are rejected each time.
        """
        call = self.client.get(URI)
        layer = self.reactor.protocol.layer
        before = layer.sizes
        del self.reactor.sent[:]
        sources = [SERVER, *(("198.51.100.1", port) for port in range(1, 50))]
        for kind, code, answers in (
            (Type.CON, Code.GET, [Type.RST]),
            (Type.NON, Code.GET, []),
            (Type.CON, Code.CONTENT, [Type.RST]),
            (Type.NON, Code.CONTENT, [Type.RST]),
        ):
            for source in [*sources, *sources]:
                message = CoapMessage(kind, code, 7 + kind, b"a")
                self.reactor.protocol.datagramReceived(encode_message(message), source)
                self.assertEqual([message.type for message in self.reactor.sent], answers)
                del self.reactor.sent[:]
        self.assertEqual(layer.sizes, before)
        self.assertEqual((before["peers"], before["exchanges"]), (1, 0))
        call.cancel()
        self.failureResultOf(call, CancelledError)

    def test_order_of_options(self) -> None:
        """The segments of a path stay in their order, beside options that are put between them."""
        call = self.client.get("coap://192.0.2.1:99/z/a?y&b", accept=50)
        self.assertEqual(
            [(int(number), value) for number, value in self.reactor.sent[0].options],
            [(7, b"\x63"), (11, b"z"), (11, b"a"), (15, b"y"), (15, b"b"), (17, b"\x32")],
        )
        call.cancel()
        self.failureResultOf(call, CancelledError)

    def test_timeout(self) -> None:
        """A call takes no longer than it may, whatever the server acknowledges."""
        call = self.client.get(URI, timeout=5)
        self.reactor.answer(CoapMessage(Type.ACK, 0))
        self.reactor.advance(5)
        self.assertEqual(self.failureResultOf(call, CoapTimeout).value.seconds, 5)

    def test_observe_timeout(self) -> None:
        """The same holds for the first answer of an observation."""
        started = Deferred.fromCoroutine(self.client.observe(URI))
        self.reactor.answer(CoapMessage(Type.ACK, 0))
        self.reactor.advance(120)
        self.failureResultOf(started, CoapTimeout)

    def test_observe_look_up(self) -> None:
        """The look-up of the host is within the time limit too, and is cancelled."""
        for timeout, seconds in ((None, 120), (5, 5)):
            self.reactor.resolved = Deferred()
            observing = self.client.observe("coap://host/x", timeout=timeout)
            started = Deferred.fromCoroutine(observing)
            self.reactor.advance(seconds)
            self.assertEqual(self.failureResultOf(started, CoapTimeout).value.seconds, seconds)
            self.assertTrue(self.reactor.resolved.called)
        negative = Deferred.fromCoroutine(self.client.observe(URI, timeout=-1))
        self.failureResultOf(negative, ValueError)

    def test_observe_closed(self) -> None:
        """An observation that has not begun ends with the client."""
        started = Deferred.fromCoroutine(self.client.observe("coap://host/x"))
        self.successResultOf(Deferred.fromCoroutine(self.client.close()))
        self.failureResultOf(started, CoapClientClosed)

    def test_observe_slow_blocks(self) -> None:
        """A first state whose blocks do not all come in time is no observation, and is released."""
        started = Deferred.fromCoroutine(self.client.observe(URI))
        question = self.reactor.sent[0]
        self.reactor.answer(blocks_follow(0, 1))
        self.reactor.answer(CoapMessage(Type.ACK, 0))
        self.reactor.advance(120)
        self.failureResultOf(started, CoapTimeout)
        self.reactor.sent.clear()
        self.reactor.answer(state(9, 3), question)
        self.assertEqual(self.reactor.sent, [CoapMessage(Type.RST, 0, 9)])

    def test_notified_slow_blocks(self) -> None:
        """A later state has the same time, or ends the observation."""
        observation = self.observe()
        self.reactor.answer(blocks_follow(1, 2), self.reactor.sent[0])
        self.reactor.answer(CoapMessage(Type.ACK, 0))
        self.reactor.advance(120)
        failed = Deferred.fromCoroutine(self.collect(observation))
        self.assertEqual(self.failureResultOf(failed, CoapTimeout).value.seconds, 120)

    def test_states_in_order(self) -> None:
        """A notification that was overtaken is passed over, a doubled one too (RFC 7641 §3.4)."""
        observation = self.observe()
        question = self.reactor.sent[0]
        for message_id, number in ((1, 5), (2, 4), (3, 5), (4, 6)):
            self.reactor.answer(state(message_id, number), question)
        observation.cancel()
        self.assertEqual(self.states(observation), ["1", "5", "6"])

    def test_numbers_turn_over(self) -> None:
        """After 2**24 - 1 comes 0; after 128 s any number is new."""
        observation = self.observe()
        question = self.reactor.sent[0]
        self.reactor.advance(129)
        self.reactor.answer(state(1, 0xFFFFFF), question)
        self.reactor.answer(state(2, 0), question)
        observation.cancel()
        self.assertEqual(self.states(observation), ["1", "16777215", "0"])

    def test_failing_transfer(self) -> None:
        """A state that does not arrive whole is raised after those that did."""
        observation = self.observe()
        question = self.reactor.sent[0]
        first = blocks_follow(1, 2)
        first.payload = b"short"
        self.reactor.answer(first, question)
        failed = Deferred.fromCoroutine(self.collect(observation))
        self.failureResultOf(failed, TransferFailed)

    def test_changed_meanwhile(self) -> None:
        """A state that changes during its transfer gives way to the newer one (RFC 7959 §2.4)."""
        observation = self.observe()
        question = self.reactor.sent[0]
        self.reactor.answer(blocks_follow(1, 2, b"old"), question)
        asked = self.reactor.sent[-1]
        self.reactor.answer(state(9, 3), question)
        self.reactor.answer(last_block(b"new"), asked)
        observation.cancel()
        self.assertEqual(self.states(observation), ["1", "3"])

    def test_changed_for_long(self) -> None:
        """
        Notifications that come faster than their blocks are given up for the newest one.

        Nothing is left of the others: neither a request nor its time limit.
        """
        observation = self.observe()
        question = self.reactor.sent[0]
        for number in range(2, 1200):
            self.reactor.answer(blocks_follow(number, number, number.to_bytes(2, "big")), question)
        self.assertFalse(observation.ended)
        self.assertLess(len(self.reactor.getDelayedCalls()), 10)
        newest = self.reactor.sent[-1]
        self.assertEqual(newest.option(Option.BLOCK2), Block(1, False, 16).encode())
        self.reactor.answer(last_block((1199).to_bytes(2, "big")), newest)
        observation.cancel()
        self.assertEqual(self.states(observation), ["1", "a" * 16 + "b"])

    def test_cancelled_in_a_transfer(self) -> None:
        """A cancelled observation requests no further blocks."""
        observation = self.observe()
        self.reactor.answer(blocks_follow(1, 2), self.reactor.sent[0])
        observation.cancel()
        sent = len(self.reactor.sent)
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.sent), sent)

    def test_changed_without_notification(self) -> None:
        """If no newer one has arrived, the state is requested anew."""
        observation = self.observe()
        self.reactor.answer(blocks_follow(1, 2, b"old"), self.reactor.sent[0])
        self.reactor.answer(last_block(b"new"))
        again = self.reactor.sent[-1]
        self.assertEqual((again.option(Option.BLOCK2), again.option(Option.OBSERVE)), (None, None))
        self.reactor.answer(CoapMessage(Type.ACK, Code.CONTENT, payload=b"new"))
        observation.cancel()
        self.assertEqual(self.states(observation), ["1", "new"])

    def test_changes_on_and_on(self) -> None:
        """A state that changes in each transfer ends the observation with an error."""
        observation = self.observe()
        self.reactor.answer(blocks_follow(1, 2, b"old"), self.reactor.sent[0])
        for _ in range(MAX_RESTARTS):
            self.reactor.answer(last_block(b"new"))
            first = blocks_follow(0, 0, b"old")
            first.type, first.options = Type.ACK, [first.options[0], first.options[2]]
            self.reactor.answer(first)
        self.reactor.answer(last_block(b"new"))
        failed = Deferred.fromCoroutine(self.collect(observation))
        self.failureResultOf(failed, ResourceChanged)

    def test_changed_first(self) -> None:
        """The first state may change meanwhile, too."""
        started = Deferred.fromCoroutine(self.client.observe(URI))
        question = self.reactor.sent[0]
        first = blocks_follow(0, 1, b"old")
        first.type = Type.ACK
        self.reactor.answer(first, question)
        asked = self.reactor.sent[-1]
        self.reactor.answer(state(9, 2), question)
        self.reactor.answer(last_block(b"new"), asked)
        observation = self.successResultOf(started)
        observation.cancel()
        self.assertEqual(self.states(observation), ["2"])

    def test_registered_again(self) -> None:
        """
        If nothing is heard past Max-Age, the client registers again (RFC 7641 §3.3.1).

        It uses the same token, counts it, and does not repeat the same state.
        """
        observation = self.observe()
        question = self.reactor.sent[0]
        for renewals in (1, 2):
            self.reactor.advance(64.9)
            self.assertEqual(len(self.reactor.sent), renewals)
            self.reactor.advance(10.2)
            again = self.reactor.sent[-1]
            self.assertEqual(len(self.reactor.sent), renewals + 1)
            self.assertEqual((again.token, again.options), (question.token, question.options))
            self.reactor.answer(state(0, 1))
            self.assertEqual(observation.renewals, renewals)
        # A server that was restarted begins with its numbers anew.
        self.reactor.answer(state(5, 2), again)
        observation.cancel()
        self.assertEqual(self.states(observation), ["1", "2"])

    def test_heard_in_time(self) -> None:
        """A notification, and its Max-Age, put that off."""
        observation = self.observe()
        question = self.reactor.sent[0]
        self.reactor.advance(60)
        told = state(5, 2)
        told.options = [*told.options, (int(Option.MAX_AGE), b"\xff")]
        self.reactor.answer(told, question)
        sent = len(self.reactor.sent)
        self.reactor.advance(255 + 4.9)
        self.assertEqual(len(self.reactor.sent), sent)
        self.reactor.advance(10.2)
        self.assertEqual(len(self.reactor.sent), sent + 1)
        observation.cancel()

    def test_not_registered_again(self) -> None:
        """If the server does not respond any more, iteration raises it after the states."""
        observation = self.observe()
        for seconds in (75.1, *[10.0] * 12):
            self.reactor.advance(seconds)
        failed = Deferred.fromCoroutine(self.collect(observation))
        self.failureResultOf(failed, CoapTimeout)

    def test_ended_while_registered_again(self) -> None:
        """One that ends while it is registered again leaves nothing, as does a closed client."""
        observation = self.observe()
        self.reactor.advance(75.1)
        observation.cancel()
        self.assertEqual(len(self.reactor.protocol.waiting), 0)
        self.assertEqual(self.states(observation), ["1"])
        observation = self.observe()
        self.reactor.advance(75.1)
        self.successResultOf(Deferred.fromCoroutine(self.client.close()))
        failed = Deferred.fromCoroutine(self.collect(observation))
        self.failureResultOf(failed, CoapClientClosed)

    def test_not_observed(self) -> None:
        """A success without an Observe option is a state, and an error after it (§4.1)."""
        started = Deferred.fromCoroutine(self.client.observe(URI))
        self.reactor.answer(CoapMessage(Type.ACK, Code.CONTENT, payload=b"once"))
        observation = self.successResultOf(started)
        first = self.successResultOf(Deferred.fromCoroutine(observation.__anext__()))
        self.assertEqual(first.text, "once")
        failed = Deferred.fromCoroutine(observation.__anext__())
        error = self.failureResultOf(failed, ObservationRefused).value
        reasons = "the resource cannot be observed, or has too many observers"
        self.assertEqual(str(error), f"the server does not notify: {reasons}")

    def test_ended_by_the_server(self) -> None:
        """A notification without an Observe option ends it as it should (§3.2)."""
        observation = self.observe()
        last = state(5, 2)
        last.options = []
        self.reactor.answer(last, self.reactor.sent[0])
        self.assertEqual(self.states(observation), ["1", "2"])

    def test_ended_by_an_error(self) -> None:
        """A notification that fails leaves nothing, not the blocks of the one before either."""
        observation = self.observe()
        registration = self.reactor.sent[0]
        long = state(5, 2)
        long.options = [*long.options, (Option.BLOCK2, Block(0, True, 16).encode())]
        long.payload = bytes(16)
        self.reactor.answer(long, registration)
        protocol = self.reactor.protocol
        self.assertEqual(len(protocol.waiting), 2)
        unknown = state(6, 3)
        unknown.options = [*unknown.options, (9, b"")]
        unknown.options.sort()
        self.reactor.answer(unknown, registration)
        failed = Deferred.fromCoroutine(self.collect(observation))
        self.failureResultOf(failed, UnknownOption)
        self.assertEqual((len(protocol.waiting), self.client._observations), (0, {}))

    def test_unknown_critical_option(self) -> None:
        """A response with an unknown critical option fails the request (RFC 7252 §5.4.1)."""
        call = self.client.get(URI)
        self.reactor.answer(CoapMessage(Type.ACK, Code.CONTENT, options=[(9, b"")]))
        self.assertEqual(self.failureResultOf(call, UnknownOption).value.option, 9)

    def test_unavailable(self) -> None:
        """What may be done twice is repeated after the Max-Age of a 5.03 (RFC 7252 §5.9.3.4)."""
        unavailable = partial(
            CoapMessage, Type.ACK, Code.SERVICE_UNAVAILABLE, options=[(14, b"\x05")]
        )
        for method, repeated in ((Code.GET, True), (Code.PUT, True), (Code.POST, False)):
            call = self.client.request(method, URI)
            self.reactor.answer(unavailable())
            if repeated:
                sent = len(self.reactor.sent)
                self.reactor.advance(4.9)
                self.assertEqual(len(self.reactor.sent), sent)
                self.reactor.advance(0.1)
                self.assertEqual(len(self.reactor.sent), sent + 1)
                self.assertNoResult(call)
                self.reactor.answer(unavailable())
            self.assertEqual(self.successResultOf(call).max_age, 5)

    def test_unavailable_for_long(self) -> None:
        """It is not, if that is after the time limit, or no time is said."""
        for options in ([(14, b"\x79")], []):
            call = self.client.get(URI)
            self.reactor.answer(CoapMessage(Type.ACK, Code.SERVICE_UNAVAILABLE, options=options))
            self.assertEqual(self.successResultOf(call).code, Code.SERVICE_UNAVAILABLE)

    def test_fetch(self) -> None:
        """FETCH has its question in its payload (RFC 8132 §2)."""
        call = self.client.fetch(URI, b"a b", content_format=0)
        self.assertEqual((self.reactor.sent[0].code, self.reactor.sent[0].payload), (5, b"a b"))
        self.reactor.answer(CoapMessage(Type.ACK, Code.CONTENT, payload=b"x"))
        self.assertEqual(self.successResultOf(call).text, "x")

    def test_rejected_later(self) -> None:
        """What is no response to anything is rejected, and harms nothing."""
        observation = self.observe()
        question = self.reactor.sent[0]
        observation.cancel()
        self.reactor.sent.clear()
        self.reactor.answer(state(9, 3), question)
        self.assertEqual(self.reactor.sent, [CoapMessage(Type.RST, 0, 9)])

    def test_too_long_for_a_datagram(self) -> None:
        """A request that no datagram holds fails at once, and is not sent again."""
        long = URI + "&" + "&".join(["b" * 255] * 256)
        error = self.failureResultOf(self.client.get(long), TransferFailed).value
        self.assertIn("a datagram to 192.0.2.1 holds 65507", str(error))
        self.failureResultOf(self.client.report(long), TransferFailed)
        self.assertEqual(self.reactor.sent, [])

    def test_closed_while_resolving(self) -> None:
        """A call that finds its client closed once its host has an address, fails so."""
        call = self.client.get("coap://host/x")
        closed = Deferred.fromCoroutine(self.client.close())
        self.successResultOf(closed)
        self.failureResultOf(call, CoapClientClosed)

    def states(self, observation: Observation) -> list[str]:
        """Return the states of an observation that has ended."""
        return self.successResultOf(Deferred.fromCoroutine(self.collect(observation)))

    async def collect(self, observation: Observation) -> list[str]:
        """Take all states."""
        return [each.text async for each in observation]


def state(message_id: int, number: int) -> CoapMessage:
    """Make a notification, or the first answer."""
    kind = Type.CON if message_id else Type.ACK
    options = [(Option.OBSERVE, number.to_bytes(3, "big"))]
    return CoapMessage(kind, Code.CONTENT, message_id, b"", options, str(number).encode())


def last_block(etag: bytes) -> CoapMessage:
    """Make the response with the block after the first one, of the state with this tag."""
    block = (int(Option.BLOCK2), Block(1, False, 16).encode())
    return CoapMessage(Type.ACK, Code.CONTENT, options=[(4, etag), block], payload=b"b")


def blocks_follow(message_id: int, number: int, etag: bytes = b"") -> CoapMessage:
    """Make a notification, or the first answer, of which further blocks are to be requested."""
    message = state(message_id, number)
    tags = [(int(Option.ETAG), etag)] if etag else []
    message.options = [*tags, *message.options, (Option.BLOCK2, Block(0, True, 16).encode())]
    message.payload = b"a" * 16
    return message
