"""Block-wise transfer (RFC 7959): block options, and bodies sent and received in blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from attrs import define, field, frozen

from twisted_net.coap.codec import CoapMessage, Code, Option, code_name, encode_uint
from twisted_net.coap.errors import ResourceChanged, TransferFailed
from twisted_net.net.addresses import Source
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.turns.steps import WRITE

MESSAGE_OVERHEAD = 128
"""Bytes allowed for the rest of a message with a block: header, token, options of usual length."""

LARGEST_BLOCK = 1024
"""Bytes of the largest block (RFC 7959 §2.2)."""

MAX_BLOCKS = 1 << 20
"""Blocks of one body: their numbers have 20 bits (RFC 7959 §2.2)."""


@frozen
class Block:
    """
    Value of a Block1 or Block2 option (RFC 7959 §2.2).

    :param number: position of the block, in blocks of this size.
    :param more: whether blocks follow; False in a request for a block.
    :param size: bytes of a block: 16, 32 … 1024.
    """

    number: int
    more: bool
    size: int

    @classmethod
    def parse(cls, value: bytes) -> Block:
        """
        Parse the value of an option.

        :raises ValueError: for more than three bytes, and for the reserved size.
        """
        if len(value) > 3:
            raise ValueError(f"a block option has at most 3 bytes, not {len(value)}")
        bits = int.from_bytes(value, "big")
        if bits & 7 == 7:
            raise ValueError("the block size 7 is reserved")
        return cls(bits >> 4, bool(bits & 8), 16 << (bits & 7))

    def encode(self) -> bytes:
        """Return the value of the option."""
        exponent = self.size.bit_length() - 5
        return encode_uint(self.number << 4 | self.more << 3 | exponent)

    @property
    def start(self) -> int:
        """Offset of the block in the body, in bytes."""
        return self.number * self.size


def cut_block(body: bytes, number: int, size: int) -> tuple[bytes, Block]:
    """
    Return one block of a body, and its option.

    :raises ValueError: if the body ends before the block.
    """
    start = number * size
    if start >= len(body) and number:
        raise ValueError(f"the body of {len(body)} bytes has no block {number} of {size}")
    return body[start : start + size], Block(number, start + size < len(body), size)


def shrink_block(block: Block, size: int) -> Block:
    """Return a block of at most *size* bytes that starts where *block* does."""
    if block.size <= size:
        return block
    return Block(block.start // size, block.more, size)


def block_size_within(datagram: int, size: int) -> int:
    """
    Return the largest block size whose messages fit a datagram, but at least 16.

    :param datagram: bytes of the datagram.
    :param size: the largest block size to return.
    """
    while size > 16 and size + MESSAGE_OVERHEAD > datagram:
        size >>= 1
    return size


class _Sized(Protocol):
    def __len__(self) -> int: ...


_Body = TypeVar("_Body", bound=_Sized)


@define
class _Share:
    """Bodies of one peer: their keys, least recently used first, and their bytes."""

    keys: OrderedDict[Hashable, None] = field(factory=OrderedDict)
    size: int = 0


class TransferTable(Generic[_Body]):
    """
    Bodies in transfer, by peer and request, within limits of their number and bytes.

    At a limit the oldest body of the peer that stores one is dropped if this peer has more than
    an equal share, and more than the one; otherwise the least recently used body of any peer. One
    body alone is kept, whatever its size.

    :param max_bodies: number of bodies.
    :param max_bytes: bytes of all bodies.
    :param lifetime: seconds after its last use that a body is kept (RFC 7959 §2.4).
    :param memory: counts these bodies, too; a ledger of its own if None.
    :ivar size: bytes of all bodies.
    :ivar dropped: bodies dropped because of a limit.
    """

    def __init__(
        self,
        max_bodies: int,
        max_bytes: int,
        lifetime: float,
        memory: MemoryLedger | None = None,
    ) -> None:
        self._kept: MemoryAccount[Source] = (memory or MemoryLedger()).account(
            "coap_transfers", max_bytes, self._relieve
        )
        self._max_bodies = max_bodies
        self._max_bytes = max_bytes
        self._lifetime = lifetime
        self._bodies: OrderedDict[tuple[Source, Hashable], tuple[float, int, _Body]] = OrderedDict()
        self._shares: dict[Source, _Share] = {}
        self.size = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._bodies)

    def put(self, source: Source, key: Hashable, body: _Body, now: float) -> None:
        """Store a body, in place of the one stored for this peer and key."""
        self.take(source, key, now)
        self._add(source, key, body, now)
        while len(self._bodies) > self._max_bodies or self.size > self._max_bytes:
            if not self._drop_one(source, key):
                break
        self._weigh(source)

    def get(self, source: Source, key: Hashable, now: float) -> _Body | None:
        """Return a body, which counts as use, or None."""
        body = self.take(source, key, now)
        if body is not None:
            self._add(source, key, body, now)
            self._weigh(source)
        return body

    def take(self, source: Source, key: Hashable, now: float) -> _Body | None:
        """Remove a body and return it, or None."""
        self._expire(now)
        found = self._bodies.get((source, key))
        if found is None:
            return None
        self._remove((source, key))
        return found[2]

    def drop_peer(self, source: Source) -> None:
        """Remove all bodies of a peer."""
        share = self._shares.get(source)
        if share is not None:
            for key in list(share.keys):
                self._remove((source, key))

    def _relieve(self, source: Source) -> float:
        """Drop the bodies of a peer, as all hold too much."""
        share = self._shares[source]
        self.dropped += len(share.keys)
        self.drop_peer(source)
        return WRITE

    def _weigh(self, source: Source) -> None:
        """Count the bodies of a peer; last, as it may drop them."""
        share = self._shares.get(source)
        # One alone is kept, whatever its size.
        self._kept.set(source, 0 if share is None else min(share.size, self._max_bytes))

    def _add(self, source: Source, key: Hashable, body: _Body, now: float) -> None:
        size = len(body)
        self._bodies[source, key] = now, size, body
        self.size += size
        share = self._shares.get(source)
        if share is None:
            share = self._shares[source] = _Share()
        share.keys[key] = None
        share.size += size

    def _remove(self, key: tuple[Source, Hashable]) -> None:
        _, size, _ = self._bodies.pop(key)
        self.size -= size
        share = self._shares[key[0]]
        del share.keys[key[1]]
        share.size -= size
        if not share.keys:
            del self._shares[key[0]]
        self._weigh(key[0])

    def _expire(self, now: float) -> None:
        while self._bodies:
            key, (used, _, _) = next(iter(self._bodies.items()))
            if used + self._lifetime > now:
                break
            self._remove(key)

    def _drop_one(self, source: Source, key: Hashable) -> bool:
        """Drop one body other than that of *key*."""
        share, peers = self._shares[source], len(self._shares)
        over_share = len(share.keys) * peers > self._max_bodies
        over_share = over_share or share.size * peers > self._max_bytes
        victim = None
        if over_share:
            victim = next(((source, other) for other in share.keys if other != key), None)
        if victim is None:
            victim = next((other for other in self._bodies if other != (source, key)), None)
        if victim is None:
            return False
        self._remove(victim)
        self.dropped += 1
        return True


class RequestAssembler:
    """
    Assembles the bodies of requests from Block1 blocks, which must arrive in order.

    :param bodies: those in transfer.
    :param max_body: bytes of one body.
    """

    def __init__(self, bodies: TransferTable[bytearray], max_body: int) -> None:
        self._bodies = bodies
        self.max_body = max_body

    def add(
        self,
        source: Source,
        key: Hashable,
        block: Block,
        payload: bytes,
        announced: int | None,
        now: float,
    ) -> bytes | None:
        """
        Add a block, and return the whole body with the last one, else None.

        :param announced: size of the body, from the Size1 option.
        :raises RequestBodyTooLarge: for a body over the limit.
        :raises RequestIncomplete: for a block that does not follow the one before, or is too short.
        """
        if block.start + len(payload) > self.max_body or (announced or 0) > self.max_body:
            self._bodies.take(source, key, now)
            raise RequestBodyTooLarge(self.max_body)
        if len(payload) > block.size or (block.more and len(payload) != block.size):
            raise RequestIncomplete("a block is not as long as its option says")
        body = self._bodies.take(source, key, now)
        if block.number == 0:
            body = bytearray()
        elif body is None or len(body) != block.start:
            raise RequestIncomplete(f"block {block.number} does not follow the one before it")
        body += payload
        if not block.more:
            return bytes(body)
        self._bodies.put(source, key, body, now)
        return None


class RequestIncomplete(Exception):
    """A block of a request is out of order: 4.08 Request Entity Incomplete."""


class RequestBodyTooLarge(Exception):
    """A request body exceeds the limit: 4.13 Request Entity Too Large; *limit* is in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is longer than {limit} bytes")
        self.limit = limit


class BlockUpload:
    """
    Sends the body of a request in Block1 blocks.

    :param size: bytes of a block; the server may reduce it during the transfer.
    """

    def __init__(self, body: bytes, size: int) -> None:
        self._body = body
        self._size = size
        self._sent = 0

    def next_block(self) -> tuple[bytes, Block]:
        """
        Return the block to send now, and its option.

        :raises TransferFailed: if the body has more blocks than can be numbered.
        """
        number = self._sent // self._size
        if number >= MAX_BLOCKS:
            raise TransferFailed(
                f"the body has more than {MAX_BLOCKS} blocks of {self._size} bytes"
            )
        return cut_block(self._body, number, self._size)

    def advance(self, response: CoapMessage) -> bool:
        """
        Process the response to the block just sent, and return whether another one is to be sent.

        A server may process each block by itself, and respond to it with success, not 2.31
        Continue (RFC 7959 §2.3): the other blocks follow all the same.

        A server that wants smaller blocks says so in its first response; one that rejects the
        first block as too large may name the size that it accepts (RFC 7959 §2.9.3).

        :raises TransferFailed: if the server's block option is invalid, or the server responds with
            success to the request when it has not had all blocks.
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
        if response.code >> 5 != 2:
            return False
        if response.code != Code.CONTINUE:
            if self._sent + self._size >= len(self._body):
                return False
            if block is None or block.more or block.start != self._sent:
                code = code_name(response.code)
                raise TransferFailed(f"the server answered {code} before the last block")
        if block is None or block.start != self._sent:
            raise TransferFailed("the server's Block1 option is not that of the block sent")
        self._sent += self._size
        if self._sent >= len(self._body):
            raise TransferFailed("the server requests more blocks than there are")
        self._size = min(self._size, block.size)
        return True


class BlockDownload:
    """
    Assembles the body of a response from Block2 blocks.

    :param max_body: bytes over which the transfer fails.
    :ivar body: the blocks received so far.
    """

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._etag: bytes | None = None
        self._next = 0
        self.body = bytearray()

    def receive(self, response: CoapMessage) -> Block | None:
        """
        Add a response, and return the block to request next, or None if the body is complete.

        :raises ResourceChanged: if the resource changed during the transfer: its ETag differs.
        :raises TransferFailed: if a block is missing, or the body exceeds the limit or
            :data:`MAX_BLOCKS`.
        """
        value = response.option(Option.BLOCK2)
        if value is None:
            if self._next:
                raise TransferFailed("a block arrived without its option")
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
            raise ResourceChanged
        if len(self.body) + len(response.payload) > self._max_body:
            raise TransferFailed(f"the body is longer than {self._max_body} bytes")
        if block.more and len(response.payload) != block.size:
            raise TransferFailed("a block is not as long as its option says")
        if block.more and block.number + 1 >= MAX_BLOCKS:
            raise TransferFailed(f"the body has more than {MAX_BLOCKS} blocks")
        self._etag = etag
        self._next += 1
        self.body += response.payload
        return Block(block.number + 1, False, block.size) if block.more else None
