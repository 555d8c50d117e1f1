"""CoAP client request: block-wise transfer and Echo challenges, over several exchanges."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Literal, TypeAlias

from twisted_net.coap.blockwise import (
    LARGEST_BLOCK,
    Block,
    BlockDownload,
    BlockUpload,
    shrink_block,
)
from twisted_net.coap.client_response import CoapResponse
from twisted_net.coap.codec import (
    CoapMessage,
    Code,
    Option,
    code_name,
    encode_uint,
    uint_option,
)
from twisted_net.coap.errors import ResourceChanged, TransferFailed

OptionList: TypeAlias = list[tuple[int, bytes]]

ExchangeFunction: TypeAlias = Callable[[OptionList, bytes], Awaitable[CoapMessage]]
"""Sends one request with these options and this payload, and returns its response."""

Progress: TypeAlias = Callable[[Literal["sent", "received"], int, int | None], None]
"""Called after each block but the last: direction, bytes so far, bytes in all where known."""


def no_progress(direction: str, done: int, size: int | None) -> None:
    """Ignore the progress of a transfer."""


_MAX_ECHO = 40  # bytes, RFC 9175 §2.2.1

MAX_RESTARTS = 3
"""How often a state is requested anew that changed while its blocks were transferred."""


class BlockwiseRequest:
    """
    One request of a client, made in as many exchanges as its bodies have blocks.

    An exchange that is answered with an Echo challenge (4.01 with an Echo option, RFC 9175 §2.3)
    is repeated once with the option.

    :param exchange: makes one exchange.
    :param options: those of the request; the ones for blocks and Echo are added.
    :param block_size: bytes of the largest block sent and requested.
    :param max_body: bytes of the longest response body accepted.
    :param tag: 0 to 8 bytes that no other request has: they tell the blocks of this one from those
        of others to the same resource (Request-Tag, RFC 9175 §3); None for no such option. It is
        sent with all requests of an upload.
    """

    def __init__(
        self,
        exchange: ExchangeFunction,
        options: Iterable[tuple[int, bytes]],
        block_size: int,
        max_body: int,
        progress: Progress = no_progress,
        tag: bytes | None = None,
    ) -> None:
        self._exchange = exchange
        self.options = ordered(options)
        self.block_size = block_size
        self._max_body = max_body
        self._progress = progress
        self._tag = tag

    async def perform(self, payload: bytes) -> CoapResponse:
        """
        Make the request, and return the response with its whole body.

        :raises CoapError: if an exchange or the transfer fails.
        """
        if len(payload) <= self.block_size:
            options = with_block_size(self.options, self.block_size)
            response = await self._exchange_verified(options, payload)
        else:
            response = await self._upload(payload)
        return await self.complete(response)

    async def complete(self, first: CoapMessage) -> CoapResponse:
        """
        Return a response with its whole body, requesting the blocks after its first one.

        An error in response to one of these requests is returned in its place.

        :raises CoapError: if an exchange or the transfer fails, as by 2.31 Continue, or another
            success in place of a block.
        """
        if first.code == Code.CONTINUE:
            raise TransferFailed("the server requests more blocks than there are")
        download = BlockDownload(self._max_body)
        size = uint_option(first.options, Option.SIZE2)
        response = first
        while (block := download.receive(response)) is not None:
            self._progress("received", len(download.body), size)
            wanted = shrink_block(block, self.block_size)
            # The request for a further block has no payload, and so no format of one.
            kept = [pair for pair in self.options if pair[0] != Option.CONTENT_FORMAT]
            options = ordered([*kept, (int(Option.BLOCK2), wanted.encode())])
            response = await self._exchange(options, b"")
            if response.code != first.code:
                if response.code >> 5 == 2:
                    code = code_name(response.code)
                    raise TransferFailed(f"the server answered {code} in place of a block")
                return response_of(response, response.payload)
        return response_of(first, bytes(download.body))

    async def complete_unchanged(
        self, first: CoapMessage, is_superseded: Callable[[], bool]
    ) -> CoapResponse:
        """
        Do as :meth:`complete` does; if the resource changes meanwhile, request it anew.

        :param is_superseded: returns whether a newer state has arrived, so that this one is given
            up.
        :raises ResourceChanged: then, and if it has changed :data:`MAX_RESTARTS` times more.
        """
        try:
            return await self.complete(first)
        except ResourceChanged:
            for _ in range(MAX_RESTARTS):
                if is_superseded():
                    break
                with suppress(ResourceChanged):
                    return await self.perform(b"")
            raise

    async def _upload(self, payload: bytes) -> CoapMessage:
        upload = BlockUpload(payload, self.block_size)
        if self._tag is not None and all(pair[0] != Option.REQUEST_TAG for pair in self.options):
            # In the requests for further blocks of the response, too.
            self.options = ordered([*self.options, (int(Option.REQUEST_TAG), self._tag)])
        size1 = (int(Option.SIZE1), encode_uint(len(payload)))
        while True:
            part, block = upload.next_block()
            # The size goes with the first block alone (RFC 7959 §4).
            extra = [size1] if not block.number else []
            options = ordered([*self.options, *extra, (int(Option.BLOCK1), block.encode())])
            response = await self._exchange_verified(options, part)
            if not upload.advance(response):
                return response
            self._progress("sent", block.start + len(part), len(payload))

    async def _exchange_verified(self, options: OptionList, payload: bytes) -> CoapMessage:
        """Make an exchange, and once more with the Echo option if the server challenges it."""
        response = await self._exchange(options, payload)
        echo = echo_challenge(response)
        if echo is None:
            return response
        return await self._exchange(ordered([*options, (int(Option.ECHO), echo)]), payload)


def echo_challenge(response: CoapMessage) -> bytes | None:
    """
    Return the Echo value of a response that requires it (RFC 9175 §2.3), else None.

    One that has not 1 to 40 bytes (§2.2.1) counts as none: as part of a request, it would let a
    server make us send much more than it has sent.
    """
    echo = response.option(Option.ECHO) if response.code == Code.UNAUTHORIZED else None
    return echo if echo is not None and 1 <= len(echo) <= _MAX_ECHO else None


def ordered(options: Iterable[tuple[int, bytes]]) -> OptionList:
    """Sort options by number; those of one number keep their order, as a path's segments must."""
    return sorted(options, key=lambda pair: pair[0])


def with_block_size(options: OptionList, size: int) -> OptionList:
    """Add a Block2 option that requests smaller blocks, if they must be (RFC 7959 §2.4)."""
    if size == LARGEST_BLOCK:
        return options
    return ordered([*options, (int(Option.BLOCK2), Block(0, False, size).encode())])


def response_of(message: CoapMessage, body: bytes) -> CoapResponse:
    """Return a message with its whole body as a response."""
    options = tuple((int(number), value) for number, value in message.options)
    return CoapResponse(message.code, body, options)
