"""Echo option (RFC 9175): verifies that a client receives at its source address."""

from __future__ import annotations

from hashlib import blake2s
from hmac import compare_digest

from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message
from twisted_net.coap.exchange import IncomingMessage
from twisted_net.coap.responses import ServerRequest
from twisted_net.dtls.peer import SecurePeer
from twisted_net.net.addresses import Source, is_loopback
from twisted_net.net.bounded_table import BoundedTable

CHALLENGE_LIFETIME = 60
"""Seconds for which an Echo value is accepted."""


class AddressVerifier:
    """
    Table of verified source addresses, against forged ones.

    A challenge takes no memory: it consists of the time, and a MAC of the time and the address.
    Only a client that receives at the address can return it. Addresses from which one was
    returned are kept.

    :param key: secret, 16 to 32 random bytes, new at each start.
    :param limit: addresses kept; over it, the least recently active one must be verified again.
    :param lifetime: seconds after its last request that an address is kept.
    """

    def __init__(self, key: bytes, limit: int, lifetime: float) -> None:
        self._key = key
        self._lifetime = lifetime
        # Least recently active first.
        self._verified: BoundedTable[Source, float] = BoundedTable(limit)

    def __len__(self) -> int:
        return len(self._verified)

    def challenge(self, source: Source, now: float) -> bytes:
        """Return the value of an Echo option for this address: 12 bytes."""
        stamp = (int(now) & 0xFFFFFFFF).to_bytes(4, "big")
        return stamp + self._mac(source, stamp)

    def verify(self, source: Source, echo: bytes | None, now: float) -> bool:
        """
        Return whether an address is verified, by this request or an earlier one.

        :param echo: value of the request's Echo option.
        """
        seen = self._verified.get(source)
        if seen is not None and 0.0 <= now - seen < self._lifetime:
            self._verified[source] = now
            self._verified.move_to_end(source)
            return True
        if echo is None or len(echo) != 12:
            return False
        age = (int(now) - int.from_bytes(echo[:4], "big")) & 0xFFFFFFFF
        if age > CHALLENGE_LIFETIME or not compare_digest(echo[4:], self._mac(source, echo[:4])):
            return False
        self._verified[source] = now
        self._verified.move_to_end(source)
        return True

    def _mac(self, source: Source, stamp: bytes) -> bytes:
        address = f"{source[0]} {source[1]}".encode()
        return blake2s(stamp + address, key=self._key, digest_size=8).digest()


class StrangerLimit:
    """
    Limits what is sent to addresses that are not verified, and may be forged.

    :param factor: most times the bytes of a request that its response may have (RFC 9175 §2.3); 0
        for no limit: then all addresses count as verified.
    """

    def __init__(self, verifier: AddressVerifier, factor: float) -> None:
        self._verifier = verifier
        self._factor = factor

    def is_verified(self, source: Source, now: float, echo: bytes | None = None) -> bool:
        """
        Return whether an address is known not to be forged.

        :param echo: value of the request's Echo option.
        """
        if isinstance(source, SecurePeer):
            # It has returned a cookie, and completed a handshake.
            return True
        if not self._factor or is_loopback(source[0]):
            return True
        return self._verifier.verify(source, echo, now)

    def limited(
        self, request: ServerRequest, incoming: IncomingMessage, message: CoapMessage, now: float
    ) -> CoapMessage:
        """Return the message if it may be sent to an unverified address, else a challenge."""
        limit = int(self._factor * incoming.size) - len(incoming.token)
        # An observer would receive any number of notifications.
        allowed = request.options.observe != 0 and len(encode_message(message)) <= limit
        if allowed and message.code != Code.UNAUTHORIZED:
            return message
        return _challenge_message(self._verifier.challenge(incoming.source, now), limit)


def _challenge_message(echo: bytes, limit: int) -> CoapMessage:
    """
    Return the message that requires a client to verify its address (RFC 9175 §2.3).

    :param limit: bytes that may be sent to the address; the option is left out if it is too long.
    """
    message = CoapMessage(Type.ACK, Code.UNAUTHORIZED, options=[(Option.ECHO, echo)])
    if len(encode_message(message)) <= limit:
        return message
    return CoapMessage(Type.ACK, Code.UNAUTHORIZED)
