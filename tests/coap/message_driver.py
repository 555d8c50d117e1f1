"""Message layer under test, and the messages that its tests share."""

from __future__ import annotations

from twisted_net.coap.codec import CoapMessage, Code, Type, encode_message, parse_message
from twisted_net.coap.exchange import (
    Event,
    IncomingMessage,
)
from twisted_net.coap.messages import MessageLayer
from twisted_net.coap.settings import TransmissionParameters
from twisted_net.net.addresses import Source

PEER = ("192.0.2.1", 5683)
OTHER = ("192.0.2.2", 5683)
# Jitter away: the first wait is two seconds.
STEADY = TransmissionParameters(ack_random_factor=1)


def request(
    message_id: int = 1, *, kind: int = Type.CON, token: bytes = b"t", payload: bytes = b""
) -> bytes:
    """Return the datagram of a request."""
    return encode_message(CoapMessage(kind, Code.POST, message_id, token, payload=payload))


def response(payload: bytes = b"") -> CoapMessage:
    """Make a response, to be sent."""
    return CoapMessage(Type.ACK, Code.CHANGED, payload=payload)


def question(kind: int = Type.CON, token: bytes = b"q") -> CoapMessage:
    """Make a request, to be sent."""
    return CoapMessage(kind, Code.GET, token=token)


class Layer(MessageLayer):
    """A layer under test, with words for what tests ask of it."""

    def incoming(self, datagram: bytes, now: float = 0.0, source: Source = PEER) -> IncomingMessage:
        """Take in a datagram that is a new request."""
        (event,) = self.receive(datagram, source, now)
        assert isinstance(event, IncomingMessage)
        return event

    def sent(self) -> list[CoapMessage]:
        """Return what is to be sent, parsed."""
        return [parse_message(datagram) for datagram, _ in self.messages_to_send()]

    def reply(self, message: CoapMessage, now: float = 0.0, source: Source = PEER) -> list[Event]:
        """Take in a message."""
        return self.receive(encode_message(message), source, now)
