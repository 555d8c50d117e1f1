"""Tests for what :mod:`twisted_net.coap.client` and ``coap_uris`` decide without a socket."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.blockwise import Block
from twisted_net.coap.client import CoapClient, CoapClientSettings
from twisted_net.coap.client_response import Observation, Response
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message, parse_message
from twisted_net.coap.errors import CoapClientClosed, CoapTimeout, InvalidCoapURI, TransferFailed
from twisted_net.coap.uris import parse_uri
from twisted_net.net.addresses import Source

SERVER = ("192.0.2.1", 5683)
URI = "coap://192.0.2.1/a/b?c"


class Reactor(Clock):
    """A clock with a network that keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[CoapMessage] = []
        self.protocol: Any = None
        self.resolved: Deferred[str] = Deferred()

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
        self.client = CoapClient(self.reactor)

    def tearDown(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.client.close()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def observe(self) -> Observation:
        """Begin to observe."""
        started = Deferred.fromCoroutine(self.client.observe(URI))
        self.reactor.answer(state(0, 1))
        return self.successResultOf(started)

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
        first = state(1, 2)
        first.options = [*first.options, (Option.BLOCK2, Block(0, True, 16).encode())]
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
        """Give the states of an observation that has ended."""
        return self.successResultOf(Deferred.fromCoroutine(self.collect(observation)))

    async def collect(self, observation: Observation) -> list[str]:
        """Take all states."""
        return [each.text async for each in observation]


def state(message_id: int, number: int) -> CoapMessage:
    """Make a notification, or the first answer."""
    kind = Type.CON if message_id else Type.ACK
    options = [(Option.OBSERVE, number.to_bytes(3, "big"))]
    return CoapMessage(kind, Code.CONTENT, message_id, b"", options, str(number).encode())


class SettingsTests(SynchronousTestCase):
    """:class:`CoapClientSettings` are checked."""

    def test_block_size(self) -> None:
        """A block has one of seven sizes."""
        with self.assertRaises(ValueError):
            CoapClientSettings(block_size=100)


class ResponseTests(SynchronousTestCase):
    """:class:`Response` says what was answered."""

    def test_options(self) -> None:
        """Format and age are read from the options."""
        response = Response(69, b"[1]", ((12, b"\x32"), (14, b"\x05")))
        self.assertEqual((response.content_format, response.max_age), (50, 5))
        self.assertEqual(response.json(), [1])
        self.assertIsNone(Response(69, b"").content_format)


class UriTests(SynchronousTestCase):
    """:func:`parse_uri` is RFC 7252 §6.4."""

    def test_parts(self) -> None:
        """Escapes stand for bytes; a name is an option, an address and the usual port are not."""
        target = parse_uri("coap://Ex%41mple.org:5683/%7Esensors//x?a%26b&c=1")
        self.assertEqual((target.host, target.port, target.numeric), ("example.org", 5683, False))
        self.assertEqual(
            [(int(number), value) for number, value in target.options],
            [
                (3, b"example.org"),
                (11, b"~sensors"),
                (11, b""),
                (11, b"x"),
                (15, b"a&b"),
                (15, b"c=1"),
            ],
        )
        six = parse_uri("coap://[2001:db8::1]:61616/")
        self.assertEqual((six.host, six.port, six.numeric), ("2001:db8::1", 61_616, True))
        self.assertEqual(list(six.options), [(Option.URI_PORT, (61_616).to_bytes(2, "big"))])

    def test_secure(self) -> None:
        """The port of coaps is 5684; only another one is told to the server."""
        target = parse_uri("coaps://a/x")
        self.assertEqual((target.secure, target.port), (True, 5684))
        self.assertFalse(any(number == Option.URI_PORT for number, _ in target.options))
        for uri in ("coaps://a:5683/x", "coap://a:5684/x"):
            options = dict(parse_uri(uri).options)
            self.assertIn(Option.URI_PORT, options)
        self.assertFalse(parse_uri("coap://a/").secure)

    def test_refused(self) -> None:
        """What is no such URI is refused, with the reason."""
        for uri in ("", "coap:x", "http://a/", "coap://a:99999/", "coap://[::1/", "coap://a:0/"):
            with self.assertRaises(InvalidCoapURI):
                parse_uri(uri)
