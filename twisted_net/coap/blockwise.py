"""Bodies that travel in blocks (RFC 7959), both ways, for a server and for a client."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from attrs import frozen

from twisted_net.coap.codec import CoapMessage, Code, Option, encode_uint
from twisted_net.coap.errors import TransferFailed
from twisted_net.net.addresses import Source

MESSAGE_ROOM = 128
"""Bytes of a message beside its block: header, token, and options of the usual length."""

LARGEST_BLOCK = 1024
"""Bytes of the largest block that there is (RFC 7959 §2.2)."""


@frozen
class Block:
    """
    The value of a Block1 or Block2 option (RFC 7959 §2.2).

    :param number: of the block, in blocks of this size.
    :param more: whether blocks follow; in a request for a block, False.
    :param size: bytes of a block: 16, 32 … 1024.
    """

    number: int
    more: bool
    size: int

    @classmethod
    def parse(cls, value: bytes) -> Block:
        """
        Read an option's value of at most three bytes.

        :raises ValueError: for the size that is reserved.
        """
        bits = int.from_bytes(value, "big")
        if bits & 7 == 7:
            raise ValueError("the block size 7 is reserved")
        return cls(bits >> 4, bool(bits & 8), 16 << (bits & 7))

    def encode(self) -> bytes:
        """Give the option's value."""
        exponent = self.size.bit_length() - 5
        return encode_uint(self.number << 4 | self.more << 3 | exponent)

    @property
    def start(self) -> int:
        """The bytes of the body before this block."""
        return self.number * self.size


def cut(body: bytes, number: int, size: int) -> tuple[bytes, Block]:
    """
    Cut one block out of a body.

    :raises ValueError: where the body ends before it.
    """
    start = number * size
    if start >= len(body) and number:
        raise ValueError(f"the body of {len(body)} bytes has no block {number} of {size}")
    return body[start : start + size], Block(number, start + size < len(body), size)


def smaller(first: Block, size: int) -> Block:
    """Give a block that starts where *first* does, of at most *size* bytes."""
    if first.size <= size:
        return first
    return Block(first.start // size, first.more, size)


class _Sized(Protocol):
    def __len__(self) -> int: ...


_Body = TypeVar("_Body", bound=_Sized)


class Bodies(Generic[_Body]):
    """
    Bodies that are on their way, each of one peer and one request.

    At its limits it drops a body: the oldest of the peer that asks for room, where that one has
    more than an equal share; else the one that was used longest ago, whoever's it is.

    :param most: bodies.
    :param most_bytes: of all bodies.
    :param lifetime: seconds after its last use that a body is kept (RFC 7959 §2.4).
    :ivar dropped: bodies that gave way to others.
    """

    def __init__(self, most: int, most_bytes: int, lifetime: float) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._lifetime = lifetime
        self._bodies: OrderedDict[tuple[Source, Hashable], tuple[float, int, _Body]] = OrderedDict()
        self._held: dict[Source, tuple[int, int]] = {}
        self.size = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._bodies)

    def put(self, source: Source, key: Hashable, body: _Body, now: float) -> None:
        """Keep a body, in place of the one that there may be."""
        self.take(source, key, now)
        self._add(source, key, body, now)
        while len(self._bodies) > self._most or self.size > self._most_bytes:
            if not self._make_room(source, key):
                break

    def get(self, source: Source, key: Hashable, now: float) -> _Body | None:
        """Give a body, which counts as use, or None."""
        body = self.take(source, key, now)
        if body is not None:
            self._add(source, key, body, now)
        return body

    def take(self, source: Source, key: Hashable, now: float) -> _Body | None:
        """Give a body and keep it no longer, or None."""
        self._expire(now)
        found = self._bodies.get((source, key))
        if found is None:
            return None
        self._remove((source, key))
        return found[2]

    def _add(self, source: Source, key: Hashable, body: _Body, now: float) -> None:
        size = len(body)
        self._bodies[source, key] = now, size, body
        self.size += size
        count, held = self._held.get(source, (0, 0))
        self._held[source] = count + 1, held + size

    def _remove(self, key: tuple[Source, Hashable]) -> None:
        _, size, _ = self._bodies.pop(key)
        self.size -= size
        count, held = self._held.pop(key[0])
        if count > 1:
            self._held[key[0]] = count - 1, held - size

    def _expire(self, now: float) -> None:
        while self._bodies:
            key, (used, _, _) = next(iter(self._bodies.items()))
            if used + self._lifetime > now:
                break
            self._remove(key)

    def _make_room(self, source: Source, key: Hashable) -> bool:
        """Drop one body other than the one of *key*."""
        count, held = self._held[source]
        peers = len(self._held)
        over_share = count * peers > self._most or held * peers > self._most_bytes
        for victim in self._bodies:
            if victim != (source, key) and (not over_share or victim[0] == source):
                self._remove(victim)
                self.dropped += 1
                return True
        return False


class Uploads:
    """
    The bodies of requests, put together of Block1 blocks that come in their order.

    :param most_body: bytes of one body.
    """

    def __init__(self, bodies: Bodies[bytearray], most_body: int) -> None:
        self._bodies = bodies
        self.most_body = most_body

    def take(
        self,
        source: Source,
        key: Hashable,
        block: Block,
        payload: bytes,
        announced: int | None,
        now: float,
    ) -> bytes | None:
        """
        Take in a block, and give the whole body with the last one.

        :param announced: the size of the body, as Size1 says it.
        :raises BodyRefused: for a body over the limit.
        :raises BlockMissing: for a block that does not follow the one before, or is too short.
        """
        if block.start + len(payload) > self.most_body or (announced or 0) > self.most_body:
            self._bodies.take(source, key, now)
            raise BodyRefused(self.most_body)
        if len(payload) > block.size or (block.more and len(payload) != block.size):
            raise BlockMissing("a block is not as long as its option says")
        body = self._bodies.take(source, key, now)
        if block.number == 0:
            body = bytearray()
        elif body is None or len(body) != block.start:
            raise BlockMissing(f"block {block.number} does not follow the one before it")
        body += payload
        if not block.more:
            return bytes(body)
        self._bodies.put(source, key, body, now)
        return None


class BlockMissing(Exception):
    """A block came out of its order: 4.08 Request Entity Incomplete."""


class BodyRefused(Exception):
    """A body is over the limit: 4.13 Request Entity Too Large; *limit* is in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is longer than {limit} bytes")
        self.limit = limit


class Upload:
    """
    The body of a request of ours, on its way in Block1 blocks.

    :param size: bytes of a block; the server may make it less on the way.
    """

    def __init__(self, body: bytes, size: int) -> None:
        self._body = body
        self._size = size
        self._sent = 0

    def __len__(self) -> int:
        """The bytes of the whole body."""
        return len(self._body)

    def next(self) -> tuple[bytes, Block]:
        """Give the block to send now."""
        return cut(self._body, self._sent // self._size, self._size)

    def took(self, response: CoapMessage) -> bool:
        """
        Take in the response to the block just sent; tell whether another one is to follow.

        A server that wants smaller blocks says so in its first response; one that refuses the
        first block as too large may name the size that it wants (RFC 7959 §2.9.3).

        :raises TransferFailed: where the server's block option makes no sense.
        """
        value = response.option(Option.BLOCK1)
        try:
            block = None if value is None else Block.parse(value)
        except ValueError as error:
            raise TransferFailed(f"the server's Block1 option is wrong: {error}") from None
        if response.code == Code.REQUEST_ENTITY_TOO_LARGE:
            if block is not None and self._sent == 0 and block.size < self._size:
                self._size = block.size
                return True
            return False
        if response.code != Code.CONTINUE:
            return False
        if block is None or block.start != self._sent:
            raise TransferFailed("the server's Block1 option is not that of the block sent")
        self._sent += self._size
        if self._sent >= len(self._body):
            raise TransferFailed("the server wants more blocks than there are")
        self._size = min(self._size, block.size)
        return True


class Download:
    """
    The body of a response, on its way in Block2 blocks.

    :param most_body: bytes, over which the transfer fails.
    """

    def __init__(self, most_body: int) -> None:
        self._most_body = most_body
        self._etag: bytes | None = None
        self._next = 0
        self.body = bytearray()

    def take(self, response: CoapMessage) -> Block | None:
        """
        Take in a response; give the block to ask for next, or None where the body is whole.

        :raises TransferFailed: where a block is missing, the body changed on the way (its ETag is
            another one), or passes the limit.
        """
        value = response.option(Option.BLOCK2)
        if value is None:
            if self._next:
                raise TransferFailed("a block came without its option")
            self.body += response.payload
            return None
        try:
            block = Block.parse(value)
        except ValueError as error:
            raise TransferFailed(f"the server's Block2 option is wrong: {error}") from None
        etag = response.option(Option.ETAG)
        if block.start != len(self.body):
            raise TransferFailed(f"block {block.number} does not follow the one before it")
        if block.number and etag != self._etag:
            raise TransferFailed("the resource changed between two blocks")
        if len(self.body) + len(response.payload) > self._most_body:
            raise TransferFailed(f"the body is longer than {self._most_body} bytes")
        if block.more and len(response.payload) != block.size:
            raise TransferFailed("a block is not as long as its option says")
        self._etag = etag
        self._next += 1
        self.body += response.payload
        return Block(block.number + 1, False, block.size) if block.more else None


def block_size_within(datagram: int, size: int) -> int:
    """
    Give the largest size of a block whose message fits a datagram; 16 is the least that there is.

    :param datagram: bytes that it holds.
    :param size: the largest wanted.
    """
    while size > 16 and size + MESSAGE_ROOM > datagram:
        size >>= 1
    return size
