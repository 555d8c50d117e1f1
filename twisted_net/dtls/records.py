"""What is known of DTLS without a session: records, ClientHellos, cookies (RFC 6347 §4.1, §4.2)."""

from __future__ import annotations

from hmac import compare_digest, digest

from attrs import frozen

from twisted_net.net.addresses import Source

RECORD_HEADER = 13
"""Bytes in front of each record: type, version, epoch, number, length (RFC 6347 §4.1)."""

OVERHEAD = 64
"""Bytes by which a record is longer than its plaintext, at most."""

LONGEST_RECORD = 16_384
"""Bytes of the longest plaintext (RFC 6347 §4.1)."""

COOKIE = 16
"""Bytes of a cookie: those of an HMAC-SHA256 that nobody guesses."""

COOKIE_LIFETIME = 60.0
"""Seconds after which cookies are made with another secret; those of the one before still hold."""

_HANDSHAKE, _CLIENT_HELLO, _HELLO_VERIFY_REQUEST = 22, 1, 3
_MESSAGE_HEADER = 12
_DTLS_1_0 = b"\xfe\xff"


@frozen
class ClientHello:
    """
    The part of a ClientHello that a server without a session looks at.

    :param number: epoch and number of its record, 8 bytes.
    :param parameters: version, random and session ID, which the client repeats with the cookie.
    :param random: 32 bytes that are another for each handshake.
    :param cookie: empty, where the client has none yet.
    """

    number: bytes
    parameters: bytes
    random: bytes
    cookie: bytes

    @classmethod
    def parse(cls, datagram: bytes) -> ClientHello | None:
        """
        Read the ClientHello that a datagram begins with, or the first fragment of one.

        :return: None for anything else, and for a fragment that ends before the cookie does.
        """
        if len(datagram) < 61 or datagram[0] != _HANDSHAKE or datagram[13] != _CLIENT_HELLO:
            return None
        length = int.from_bytes(datagram[11:13], "big")
        whole = int.from_bytes(datagram[14:17], "big")
        offset = int.from_bytes(datagram[19:22], "big")
        fragment = int.from_bytes(datagram[22:25], "big")
        # What is encrypted, or of another protocol, begins with these bytes by chance at most.
        if datagram[1] != 0xFE or datagram[3:5] != b"\0\0" or offset or fragment > whole:
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
        return cls(datagram[3:11], body[:cookie_at], body[2:34], body[cookie_at + 1 : end])


def hello_verify_request(hello: ClientHello, cookie: bytes) -> bytes:
    """
    Ask a client to come again with a cookie (RFC 6347 §4.2.1).

    :return: 28 bytes and the cookie: less than any ClientHello has.
    """
    body = _DTLS_1_0 + bytes((len(cookie),)) + cookie
    size = len(body).to_bytes(3, "big")
    message = bytes((_HELLO_VERIFY_REQUEST,)) + size + b"\0\0" + b"\0\0\0" + size + body
    # Nothing is kept, so that the number of this record is that of the client's.
    header = bytes((_HANDSHAKE,)) + _DTLS_1_0 + hello.number
    return header + len(message).to_bytes(2, "big") + message


class Cookies:
    """
    Makes cookies, and knows its own again, keeping nothing of whom it made them for.

    A cookie is an HMAC of the address, the port and what the client said of itself. Whoever can
    return it receives at that address.

    :param key: 32 random bytes.
    """

    def __init__(self, key: bytes, now: float) -> None:
        self._keys = [key]
        self._since = now

    def stale(self, now: float) -> bool:
        """Tell whether it is time for another key."""
        return now - self._since >= COOKIE_LIFETIME

    def renew(self, key: bytes, now: float) -> None:
        """Take another key; cookies of the last one hold until it, too, is stale."""
        last_is_recent = now - self._since < 2 * COOKIE_LIFETIME
        self._keys = [key, self._keys[0]] if last_is_recent else [key]
        self._since = now

    def make(self, source: Source, hello: ClientHello) -> bytes:
        """Give the cookie for a client at an address."""
        return _cookie(self._keys[0], source, hello)

    def accept(self, source: Source, hello: ClientHello) -> bool:
        """Tell whether a client has got its cookie where it seems to be."""
        if len(hello.cookie) != COOKIE:
            return False
        return any(compare_digest(hello.cookie, _cookie(key, source, hello)) for key in self._keys)


def pack(records: bytes, mtu: int) -> list[bytes]:
    """
    Put records that follow each other into as few datagrams as keep to an MTU, in order.

    A record over the MTU has a datagram of its own.
    """
    if len(records) <= mtu:
        return [records] if records else []
    datagrams: list[bytes] = []
    start = end = 0
    while end < len(records):
        length = RECORD_HEADER + int.from_bytes(records[end + 11 : end + 13], "big")
        if end > start and end + length - start > mtu:
            datagrams.append(records[start:end])
            start = end
        end += length
    datagrams.append(records[start:])
    return datagrams


def protected_records(datagram: bytes) -> bytes:
    """
    Leave out the records that nobody has encrypted, which anybody can forge; and what is no record.

    A client that did not get the end of the handshake sends its own end again: in one datagram,
    records of both kinds.
    """
    kept = b""
    start = 0
    while start + RECORD_HEADER < len(datagram):
        end = start + RECORD_HEADER + int.from_bytes(datagram[start + 11 : start + 13], "big")
        if datagram[start + 3 : start + 5] != b"\0\0" and end <= len(datagram):
            if not start and end == len(datagram):
                return datagram
            kept += datagram[start:end]
        start = end
    return kept


def _cookie(key: bytes, source: Source, hello: ClientHello) -> bytes:
    address = f"{source[0]} {source[1]} ".encode()
    return digest(key, address + hello.parameters, "sha256")[:COOKIE]
