"""DTLS cookies: ClientHello and HelloVerifyRequest before there is a session (RFC 6347 §4.2.1)."""

from __future__ import annotations

from hmac import compare_digest, digest

from attrs import frozen

from twisted_net.dtls.records import RECORD_HEADER
from twisted_net.net.addresses import Source

COOKIE = 16
"""Bytes of a cookie, an HMAC-SHA256 truncated to 128 bits."""

COOKIE_LIFETIME = 60.0
"""Seconds between two cookie keys; cookies of the previous key are still accepted."""

_HANDSHAKE, _CLIENT_HELLO, _HELLO_VERIFY_REQUEST = 22, 1, 3
_MESSAGE_HEADER = 12
_DTLS_1_0 = b"\xfe\xff"


@frozen
class ClientHello:
    """
    The part of a ClientHello that a server reads before there is a session.

    :param number: epoch and sequence number of its record, 8 bytes.
    :param parameters: version, random and session ID, which the client repeats with the cookie.
    :param random: 32 bytes, different for each handshake.
    :param cookie: empty if the client has none yet.
    :param suites: the numbers of its cipher suites, two bytes each; empty if they are in a later
        fragment.
    """

    number: bytes
    parameters: bytes
    random: bytes
    cookie: bytes
    suites: bytes = b""

    @classmethod
    def parse(cls, datagram: bytes) -> ClientHello | None:
        """
        Parse the ClientHello, or the first fragment of one, at the start of a datagram.

        :return: None for anything else, and for a fragment that does not contain the cookie.
        """
        if len(datagram) < 61 or datagram[0] != _HANDSHAKE or datagram[13] != _CLIENT_HELLO:
            return None
        length = int.from_bytes(datagram[11:13], "big")
        message_length = int.from_bytes(datagram[14:17], "big")
        offset = int.from_bytes(datagram[19:22], "big")
        fragment = int.from_bytes(datagram[22:25], "big")
        # Encrypted records and other protocols have these bytes only by chance.
        if datagram[1] != 0xFE or datagram[3:5] != b"\0\0" or offset or fragment > message_length:
            return None
        if _MESSAGE_HEADER + fragment > length or RECORD_HEADER + length > len(datagram):
            return None
        body = datagram[25 : 25 + fragment]
        if len(body) < 36 or body[0] != 0xFE or body[34] > 32:
            return None
        cookie_at = 35 + body[34]
        end = cookie_at + 1 + int.from_bytes(body[cookie_at : cookie_at + 1], "big")
        if end > len(body) or cookie_at >= len(body):
            return None
        suites_end = end + 2 + int.from_bytes(body[end : end + 2], "big")
        suites = body[end + 2 : suites_end] if suites_end <= len(body) else b""
        cookie = body[cookie_at + 1 : end]
        return cls(datagram[3:11], body[:cookie_at], body[2:34], cookie, suites)


def hello_verify_request(hello: ClientHello, cookie: bytes) -> bytes:
    """
    Return a HelloVerifyRequest with a cookie (RFC 6347 §4.2.1).

    It has 28 bytes and the cookie, fewer than any ClientHello.
    """
    body = _DTLS_1_0 + bytes((len(cookie),)) + cookie
    size = len(body).to_bytes(3, "big")
    message = bytes((_HELLO_VERIFY_REQUEST,)) + size + b"\0\0" + b"\0\0\0" + size + body
    # The server keeps no state, so the record's sequence number is the client's (RFC 6347 §4.2.1).
    header = bytes((_HANDSHAKE,)) + _DTLS_1_0 + hello.number
    return header + len(message).to_bytes(2, "big") + message


class CookieSecret:
    """
    Makes and verifies stateless cookies (RFC 6347 §4.2.1).

    A cookie is an HMAC of the address, the port and the ClientHello's parameters. A client that
    returns it receives datagrams at that address.

    :param key: 32 random bytes.
    """

    def __init__(self, key: bytes, now: float) -> None:
        self._keys = [key]
        self._since = now

    def stale(self, now: float) -> bool:
        """Whether the key must be replaced."""
        # From the future, if the clock was set back: it would be valid for too long.
        return not 0.0 <= now - self._since < COOKIE_LIFETIME

    def renew(self, key: bytes, now: float) -> None:
        """Replace the key; cookies of the previous key stay valid until the new key is stale."""
        last_is_recent = now - self._since < 2 * COOKIE_LIFETIME
        self._keys = [key, self._keys[0]] if last_is_recent else [key]
        self._since = now

    def make(self, source: Source, hello: ClientHello) -> bytes:
        """Return the cookie for a client at an address."""
        return _cookie(self._keys[0], source, hello)

    def accept(self, source: Source, hello: ClientHello) -> bool:
        """Whether the cookie proves that the client receives datagrams at its address."""
        if len(hello.cookie) != COOKIE:
            return False
        return any(compare_digest(hello.cookie, _cookie(key, source, hello)) for key in self._keys)


def _cookie(key: bytes, source: Source, hello: ClientHello) -> bytes:
    address = f"{source[0]} {source[1]} ".encode()
    return digest(key, address + hello.parameters, "sha256")[:COOKIE]
