"""How a reply becomes a message: its blocks, its ETag, its sizes, and what is kept of it."""

from __future__ import annotations

from hashlib import blake2s

from twisted_net.coap.blockwise import Block, TransferTable, cut_block, shrink_block
from twisted_net.coap.codec import (
    JSON,
    LINK_FORMAT,
    TEXT,
    CoapMessage,
    Code,
    Option,
    RequestOptions,
    Type,
    encode_message,
    encode_uint,
)
from twisted_net.coap.exchange import IncomingMessage
from twisted_net.coap.resources import Reply, diagnostic
from twisted_net.coap.settings import CoapLimits
from twisted_net.net.addresses import Source


class Question:
    """
    A request that is being answered.

    :ivar proven: whether its address is known to be that of who sent it.
    :ivar incoming: None where an observer is told something of which it asked long ago.
    """

    __slots__ = ("block1", "block2", "incoming", "method", "options", "proven", "source")

    def __init__(
        self,
        source: Source,
        method: int,
        options: RequestOptions,
        proven: bool,
        incoming: IncomingMessage | None = None,
        block1: Block | None = None,
        block2: Block | None = None,
    ) -> None:
        self.source = source
        self.method = method
        self.options = options
        self.proven = proven
        self.incoming = incoming
        self.block1 = block1
        self.block2 = block2

    @property
    def key(self) -> tuple[object, ...]:
        """By which the requests of one block-wise transfer are known."""
        return self.method, self.options.key


class Replies:
    """
    Makes messages of replies.

    A long reply is cut into blocks (RFC 7959). It is kept from its first block on, so that all
    blocks are of one body and the command does not run for each.

    :param bodies: what is kept.
    """

    def __init__(self, limits: CoapLimits, bodies: TransferTable[Reply]) -> None:
        self._limits = limits
        self._bodies = bodies

    def kept(self, question: Question, now: float) -> Reply | None:
        """Give the reply of which the question asks a further block, if it is kept still."""
        return self._bodies.get(question.source, question.key, now)

    def message(self, question: Question, reply: Reply, now: float) -> CoapMessage:
        """Make the message of a reply; its type, ID and token are set by who sends it."""
        asked = question.options
        if asked.etags and question.method == _GET and reply.code == Code.CONTENT:
            etag = _etag(reply.payload)
            if etag in asked.etags:
                return CoapMessage(_ACK, Code.VALID, options=[(Option.ETAG, etag)])
        payload = reply.payload
        options: list[tuple[int, bytes]] = []
        content_format = reply.content_format
        if reply.code >= 128 and len(payload) > self._limits.block_size:
            # An error is not sent in blocks: as much of its sentence is, as a block would hold.
            whole = payload[: self._limits.block_size] if content_format is None else b""
            payload = whole.decode(errors="ignore").encode()
            content_format = None
        if content_format is not None:
            options.append(_CONTENT_FORMATS[content_format])
        if reply.max_age is not None:
            options.append((_MAX_AGE, encode_uint(reply.max_age)))
        if reply.code < 128 and (
            question.block2 is not None or len(payload) > self._limits.block_size
        ):
            try:
                payload = self._cut(question, reply, options, now)
            except ValueError as error:
                return CoapMessage(_ACK, Code.BAD_REQUEST, payload=diagnostic(str(error)))
        if question.block1 is not None:
            self._acknowledge(question.block1, reply.code, options)
        return CoapMessage(_ACK, reply.code, options=options, payload=payload)

    def _cut(
        self, question: Question, reply: Reply, options: list[tuple[int, bytes]], now: float
    ) -> bytes:
        """
        Give the block that is asked for, and add its options.

        :raises ValueError: where the body ends before it.
        """
        wanted = shrink_block(question.block2 or Block(0, False, 1024), self._limits.block_size)
        payload, block = cut_block(reply.payload, wanted.number, wanted.size)
        insert_option(options, Option.BLOCK2, block.encode())
        if block.more or block.number:
            insert_option(options, Option.ETAG, _etag(reply.payload))
        if not block.number and (block.more or question.options.size2 is not None):
            insert_option(options, Option.SIZE2, encode_uint(len(reply.payload)))
        if block.more and (not block.number or question.method == _GET):
            self._bodies.put(question.source, question.key, reply, now)
        elif block.number and not block.more:
            self._bodies.take(question.source, question.key, now)
        return payload

    def _acknowledge(self, block: Block, code: int, options: list[tuple[int, bytes]]) -> None:
        """Add the options by which a block of the request's body is acknowledged or refused."""
        if code in (Code.CONTINUE, Code.REQUEST_ENTITY_TOO_LARGE):
            block = Block(block.number, block.more, min(block.size, self._limits.block_size))
        insert_option(options, Option.BLOCK1, block.encode())
        if code == Code.REQUEST_ENTITY_TOO_LARGE:
            insert_option(options, Option.SIZE1, encode_uint(self._limits.max_body))


def challenge(echo: bytes, most: int) -> CoapMessage:
    """
    Make the message that has an address prove itself (RFC 9175 §2.3).

    :param most: bytes that the address may get; where there is no room for the option, the
        message is without it.
    """
    message = CoapMessage(_ACK, Code.UNAUTHORIZED, options=[(Option.ECHO, echo)])
    if len(encode_message(message)) <= most:
        return message
    return CoapMessage(_ACK, Code.UNAUTHORIZED)


def insert_option(options: list[tuple[int, bytes]], number: int, value: bytes) -> None:
    """Put an option where its number belongs."""
    at = sum(known <= number for known, _ in options)
    options.insert(at, (int(number), value))


_ACK, _GET, _MAX_AGE = Type.ACK, Code.GET, Option.MAX_AGE
_CONTENT_FORMATS = {
    known: (int(Option.CONTENT_FORMAT), encode_uint(known)) for known in (TEXT, JSON, LINK_FORMAT)
}


def _etag(payload: bytes) -> bytes:
    return blake2s(payload, digest_size=6).digest()
