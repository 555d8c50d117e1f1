"""CoAP responses: from a resource's response to messages with blocks, ETags and sizes."""

from __future__ import annotations

from twisted_net.coap.blockwise import Block, TransferTable, cut_block, shrink_block
from twisted_net.coap.codec import (
    JSON,
    LINK_FORMAT,
    TEXT,
    CoapMessage,
    CoapRequestOptions,
    Code,
    Option,
    Type,
    encode_uint,
)
from twisted_net.coap.exchange import IncomingMessage
from twisted_net.coap.resources import RequestRefused, ResourceResponse, diagnostic
from twisted_net.coap.settings import CoapLimits
from twisted_net.net.addresses import Source
from twisted_net.sessions.session import Session


class ServerRequest:
    """
    A request that a server processes.

    :ivar session: of its peer; set when the server begins to process it.
    :ivar verified: whether its source address is known not to be forged.
    :ivar resumed: whether it was served before, and had to wait for hooks.
    :ivar incoming: the message; None if a notification is made for an observer's old request.
    """

    __slots__ = (
        "block1",
        "block2",
        "incoming",
        "method",
        "options",
        "resumed",
        "session",
        "source",
        "verified",
    )

    session: Session

    def __init__(
        self,
        source: Source,
        method: int,
        options: CoapRequestOptions,
        verified: bool,
        incoming: IncomingMessage | None = None,
    ) -> None:
        self.source = source
        self.method = method
        self.options = options
        self.verified = verified
        self.incoming = incoming
        self.block1: Block | None = None
        self.block2: Block | None = None
        self.resumed = False

    def parse_blocks(self) -> None:
        """
        Parse the block options.

        :raises RequestRefused: if one is invalid; then there are no blocks.
        """
        block1, block2 = self.options.block1, self.options.block2
        try:
            first = None if block1 is None else Block.parse(block1)
            second = None if block2 is None else Block.parse(block2)
        except ValueError as error:
            raise RequestRefused(Code.BAD_REQUEST, str(error)) from None
        self.block1, self.block2 = first, second

    @property
    def key(self) -> tuple[object, ...]:
        """Key shared by all requests of one block-wise transfer (RFC 7959 §2.3)."""
        return self.method, self.options.key


class ResponseBuilder:
    """
    Builds the messages of responses.

    A long response is cut into blocks (RFC 7959). It is kept from its first block on, so that all
    blocks are of one body, and the command does not run for each block.

    :param bodies: responses in transfer.
    """

    def __init__(self, limits: CoapLimits, bodies: TransferTable[ResourceResponse]) -> None:
        self._limits = limits
        self._bodies = bodies

    def kept_response(self, request: ServerRequest, now: float) -> ResourceResponse | None:
        """Return the response of which a request asks for a further block, if it is still kept."""
        return self._bodies.get(request.source, request.key, now)

    def drop_kept(self, source: Source) -> None:
        """Keep no responses for a peer: it may not be permitted to have them any more."""
        self._bodies.drop_peer(source)

    def message(
        self, request: ServerRequest, response: ResourceResponse, now: float
    ) -> CoapMessage:
        """Return the message of a response; its sender sets type, message ID and token."""
        asked = request.options
        validates = request.method in _CACHEABLE and response.code == Code.CONTENT
        if asked.etags and validates and response.etag in asked.etags:
            valid = [(int(Option.ETAG), response.etag)]
            if response.max_age is not None:
                # It makes the stored response fresh for as long (RFC 7252 §5.9.1.3).
                valid.append((int(Option.MAX_AGE), encode_uint(response.max_age)))
            return CoapMessage(_ACK, Code.VALID, options=valid)
        payload = response.payload
        options: list[tuple[int, bytes]] = []
        content_format = response.content_format
        if response.code >= 128 and len(payload) > self._limits.block_size:
            # An error is not sent in blocks: its diagnostic payload is cut to one block.
            start = payload[: self._limits.block_size] if content_format is None else b""
            payload = start.decode(errors="ignore").encode()
            content_format = None
        if content_format is not None:
            options.append(_CONTENT_FORMATS[content_format])
        if response.max_age is not None:
            options.append((_MAX_AGE, encode_uint(response.max_age)))
        if response.code < 128 and (
            request.block2 is not None or len(payload) > self._limits.block_size
        ):
            try:
                payload = self._cut(request, response, options, now)
            except ValueError as error:
                return CoapMessage(_ACK, Code.BAD_REQUEST, payload=diagnostic(str(error)))
        if request.block1 is not None:
            self._acknowledge(request.block1, response.code, options)
        return CoapMessage(_ACK, response.code, options=options, payload=payload)

    def _cut(
        self,
        request: ServerRequest,
        response: ResourceResponse,
        options: list[tuple[int, bytes]],
        now: float,
    ) -> bytes:
        """
        Return the requested block, and add its options.

        :raises ValueError: if the body ends before it.
        """
        wanted = shrink_block(request.block2 or Block(0, False, 1024), self._limits.block_size)
        payload, block = cut_block(response.payload, wanted.number, wanted.size)
        insert_option(options, Option.BLOCK2, block.encode())
        if block.more or block.number:
            insert_option(options, Option.ETAG, response.etag)
        if not block.number and (block.more or request.options.size2 is not None):
            insert_option(options, Option.SIZE2, encode_uint(len(response.payload)))
        if not request.verified:
            return payload  # nothing is kept for an address that may be forged
        if block.more and (not block.number or request.method in _CACHEABLE):
            self._bodies.put(request.source, request.key, response, now)
        elif block.number and not block.more:
            self._bodies.take(request.source, request.key, now)
        return payload

    def _acknowledge(self, block: Block, code: int, options: list[tuple[int, bytes]]) -> None:
        """Add the options that acknowledge or reject a block of the request's body."""
        if code in (Code.CONTINUE, Code.REQUEST_ENTITY_TOO_LARGE):
            block = Block(block.number, block.more, min(block.size, self._limits.block_size))
        insert_option(options, Option.BLOCK1, block.encode())
        if code == Code.REQUEST_ENTITY_TOO_LARGE:
            insert_option(options, Option.SIZE1, encode_uint(self._limits.max_body))


def insert_option(options: list[tuple[int, bytes]], number: int, value: bytes) -> None:
    """Insert an option behind those of the same and lower numbers."""
    at = sum(known <= number for known, _ in options)
    options.insert(at, (int(number), value))


_ACK, _MAX_AGE = Type.ACK, Option.MAX_AGE
_CACHEABLE = (Code.GET, Code.FETCH)  # RFC 8132 §2.1: a stored response is validated as GET's is
_CONTENT_FORMATS = {
    known: (int(Option.CONTENT_FORMAT), encode_uint(known)) for known in (TEXT, JSON, LINK_FORMAT)
}
