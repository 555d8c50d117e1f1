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
from twisted_net.coap.client_response import CoapResponse, Observation
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message, parse_message
from twisted_net.coap.errors import (
    CoapClientClosed,
    CoapHostUnreachable,
    CoapTimeout,
    TransferFailed,
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
        """A request to a client is rejected, and none of them waits (RFC 7252 §4.2, §4.3)."""
        call = self.client.get(URI)
        layer = self.reactor.protocol.layer
        peer = layer._peers[SERVER]
        del self.reactor.sent[:]
        for kind, answers in ((Type.CON, [Type.RST]), (Type.NON, [])):
            for _ in range(2):
                request = CoapMessage(kind, Code.GET, 7 + kind, b"a")
                self.reactor.protocol.datagramReceived(encode_message(request), SERVER)
                self.assertEqual([message.type for message in self.reactor.sent], answers)
                del self.reactor.sent[:]
        self.assertEqual(peer.unanswered, 0)
        self.assertEqual(layer.counts.duplicates, 2)
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

    def test_rejected_later(self) -> None:
        """What is no response to anything is rejected, and harms nothing."""
        observation = self.observe()
        question = self.reactor.sent[0]
        observation.cancel()
        self.reactor.sent.clear()
        self.reactor.answer(state(9, 3), question)
        self.assertEqual(self.reactor.sent, [CoapMessage(Type.RST, 0, 9)])

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


def blocks_follow(message_id: int, number: int) -> CoapMessage:
    """Make a notification, or the first answer, of which further blocks are to be requested."""
    message = state(message_id, number)
    message.options = [*message.options, (Option.BLOCK2, Block(0, True, 16).encode())]
    message.payload = b"a" * 16
    return message
