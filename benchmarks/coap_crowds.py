"""What attackers send by CoAP: messages with all the options that fit, and long URLs in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message, encode_uint

DATAGRAM = 4096
"""Bytes that a server takes as one message, by default."""

BLOCK = 1024
"""Bytes of each block of a long URL."""

URL = b"http://127.0.0.2/" + b"a" * (96 * BLOCK - 17)
"""A URL that a server does not fetch, as its address is not a public one; 96 blocks."""

_KINDS = (Option.IF_MATCH, Option.URI_PATH, Option.URI_QUERY, Option.LOCATION_QUERY, 2056, 65_000)
"""Options that messages are full of: known and unknown ones, which are ignored or refused."""


def option_messages(number: int) -> Iterator[bytes]:
    """Send GETs with as many empty options as fit, and a FETCH of a URL in blocks now and then."""
    messages = [bytes(_full(option)) for option in _KINDS]
    # Each has an ID of its own for a while, else it would be taken for a retransmission.
    numbers = count(number * 331)
    while True:
        for message in messages:
            for _ in range(8):
                yield message[:2] + (next(numbers) % 65_536).to_bytes(2) + message[4:]
        for block in _blocks(numbers):
            yield encode_message(block)


def _full(option: int) -> bytes:
    """Return a request that has one kind of option, empty, as often as fits."""
    head = CoapMessage(Type.CON, Code.GET, 0, b"", [(option, b"")], b"")
    encoded = encode_message(head)
    # Each further one is a byte: no difference in number, no length.
    return encoded + bytes(DATAGRAM - len(encoded))


def _blocks(numbers: Iterator[int]) -> Iterator[CoapMessage]:
    """Return requests that upload the URL for FETCH (RFC 7959 §2.5)."""
    blocks = len(URL) // BLOCK
    for i in range(blocks):
        block = encode_uint(i << 4 | (i < blocks - 1) << 3 | 6)
        options = [(Option.URI_PATH, b"fetch"), (Option.BLOCK1, block)]
        part = URL[i * BLOCK : (i + 1) * BLOCK]
        identity = next(numbers) % 65_536
        yield CoapMessage(Type.CON, Code.POST, identity, b"url", options, part)
