"""The CoAP client: requests, bodies in blocks, observations (RFC 7252, 7641, 7959, 9175)."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure

from twisted_net.coap.blockwise import (
    LARGEST_BLOCK,
    Block,
    Download,
    Upload,
    block_size_within,
    smaller,
)
from twisted_net.coap.client_endpoints import Endpoint, Endpoints, SecureEndpoint
from twisted_net.coap.client_response import Observation, Response
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message, encode_uint
from twisted_net.coap.errors import CoapClientClosed, CoapHostNotFound, CoapTimeout, TransferFailed
from twisted_net.coap.exchange import OutgoingMessage
from twisted_net.coap.settings import TransmissionParameters
from twisted_net.coap.uris import Target, parse_uri
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.errors import CoapError
from twisted_net.net.addresses import Source

_LONGEST_DATAGRAM = 65_535

_OF_THE_FIRST = (Option.OBSERVE, Option.ECHO, Option.BLOCK2)
"""Options of a request to observe that those for further blocks of a state have not."""


Progress: TypeAlias = Callable[[Literal["sent", "received"], int, int | None], None]
"""Told of each block of a long body: which way, bytes so far, and bytes in all where known."""


class CoapClientSettings(TransmissionParameters, frozen=True):
    """
    How a client asks.

    ``timeout`` covers a whole call, all its blocks and repetitions; a single exchange with a
    silent peer is given up after at most 93 s (RFC 7252 §4.8.2) in any case.
    """

    timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="seconds that a call may take in all")
    ] = 120.0
    block_size: Annotated[
        int,
        Meta(
            ge=16,
            le=1024,
            description="largest block sent, and asked for if under 1024: 16, 32 … 1024 bytes",
        ),
    ] = LARGEST_BLOCK
    max_body: Annotated[
        int, Meta(ge=16, le=1 << 30, description="longest response body accepted, in bytes")
    ] = 8 << 20
    max_notifications: Annotated[
        int,
        Meta(ge=1, le=100_000, description="notifications kept for who iterates; oldest go first"),
    ] = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_size & (self.block_size - 1):
            raise ValueError(
                f"{type(self).__name__}.block_size must be 16, 32, 64, 128, 256, 512 or 1024,"
                f" not {self.block_size}"
            )


def _untold(way: str, done: int, size: int | None) -> None:
    """Stand for who wants to know of progress, where nobody does."""


class CoapClient:
    """
    Asks CoAP servers: ``await client.get("coap://[::1]/time")``.

    Requests are confirmable, and sent again as the settings say; of ``nstart`` at a time to one
    server, the others wait. Long bodies travel in blocks. A server that wants to know whether our
    address is ours (4.01 with an Echo option) is told so, once a request.

    ``coaps`` URIs are asked over DTLS. A server is believed where its certificate is signed by one
    of the system's authorities, or of ``tls.ca``, and is for the host of the URI; it is shown
    the certificate of ``tls``. One session serves all requests to a host and port.

    A call that is cancelled sends nothing more. :meth:`close` ends all calls, observations,
    sessions, sockets and timers.

    :param reactor: one that has UDP, time and name look-ups.
    :param tls: whom to believe and what to prove, over DTLS.
    :raises ConfigError: for files of *tls* that cannot be used.
    """

    def __init__(
        self,
        reactor: Any,  # Any: there is no type for a reactor with all three
        settings: CoapClientSettings | None = None,
        tls: DtlsClientSettings | None = None,
    ) -> None:
        self._reactor = reactor
        self._settings = settings or CoapClientSettings()
        self._endpoints = Endpoints(reactor, self._settings, tls)
        self._calls: set[Deferred[Response]] = set()
        self._observations: set[Observation] = set()
        self._closed = False

    async def __aenter__(self) -> CoapClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def get(self, uri: str, *, accept: int | None = None, timeout: float | None = None) -> Call:
        """Get a resource; see :meth:`request`."""
        return self.request(Code.GET, uri, accept=accept, timeout=timeout)

    def post(
        self,
        uri: str,
        payload: bytes = b"",
        *,
        content_format: int | None = None,
        accept: int | None = None,
        timeout: float | None = None,
    ) -> Call:
        """Post a payload; see :meth:`request`."""
        return self.request(
            Code.POST,
            uri,
            payload,
            content_format=content_format,
            accept=accept,
            timeout=timeout,
        )

    def request(
        self,
        method: int,
        uri: str,
        payload: bytes = b"",
        *,
        content_format: int | None = None,
        accept: int | None = None,
        timeout: float | None = None,
        confirmable: bool = True,
        progress: Progress | None = None,
    ) -> Call:
        """
        Make a request.

        :param method: ``Code.GET``, ``POST``, ``PUT``, ``DELETE``, or another's number.
        :param timeout: seconds for the whole call, in place of the setting.
        :param confirmable: False to send it once, without asking for an acknowledgement.
        :param progress: told of each block, where there are several.
        :return: fires with the response, whatever its code; or fails with
            :class:`~twisted_net.errors.CoapError`: a URI that cannot be used, a host without an
            address, a silent peer, a reset, a transfer that broke off, a client that is closed.
        """
        seconds = self._settings.timeout if timeout is None else timeout
        options: list[tuple[int, bytes]] = []
        if content_format is not None:
            options.append((Option.CONTENT_FORMAT, encode_uint(content_format)))
        if accept is not None:
            options.append((Option.ACCEPT, encode_uint(accept)))
        kind = Type.CON if confirmable else Type.NON
        asking = self._request(kind, method, uri, payload, options, progress or _untold)
        call = Deferred.fromCoroutine(asking)
        if not call.called:
            call.addTimeout(seconds, self._reactor, lambda value, _: _timed_out(value, seconds))
            self._calls.add(call)
            call.addBoth(self._ended, call)
        return call

    async def observe(self, uri: str, *, accept: int | None = None) -> Observation:
        """
        Observe a resource.

        :return: once the server has answered; a resource that it does not let observe has one
            state. An error is a state too, and the last.
        :raises CoapError: as :meth:`request` does.
        """
        endpoint, source, target = await self._reach(uri)
        options: list[tuple[int, bytes]] = [(Option.OBSERVE, b""), *target.options]
        if accept is not None:
            options.append((Option.ACCEPT, encode_uint(accept)))
        observation = Observation(self._settings.max_notifications, self.forget, self.deregister)
        message = await self._observe(endpoint, source, options, observation)
        kept = [pair for pair in options if pair[0] != Option.OBSERVE]
        echo = message.option(Option.ECHO)
        if message.code == Code.UNAUTHORIZED and echo is not None:
            self._cancel(endpoint, observation)
            options.append((Option.ECHO, echo))
            message = await self._observe(endpoint, source, options, observation)
        self._observations.add(observation)
        await self._notified(endpoint, source, _ordered(kept), observation, message)
        return observation

    async def close(self) -> None:
        """End everything; calls under way fail with ``CoapClientClosed``. Twice does no harm."""
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        for observation in list(self._observations):
            observation.end(CoapClientClosed())
        self._observations.clear()
        await self._endpoints.close()

    def forget(self, outgoing: OutgoingMessage) -> None:
        """Lose interest in a request, as its observation is cancelled."""
        for endpoint in self._endpoints:
            if endpoint.waiting.pop(outgoing, None) is not None:
                endpoint.layer.cancel(outgoing, self._reactor.seconds())
                endpoint.flush()
                if endpoint.silent_since(outgoing):
                    # A server that was started anew knows no session of before, and says nothing.
                    self._endpoints.retire(endpoint)
        self._observations = {
            observation
            for observation in self._observations
            if observation.outgoing is not outgoing
        }

    async def deregister(self, outgoing: OutgoingMessage) -> None:
        """
        Have a server forget an observation (RFC 7641 §3.6).

        :raises CoapError: where it does not answer.
        """
        for endpoint in list(self._endpoints):
            if outgoing in endpoint.waiting:
                self.forget(outgoing)
                asked = outgoing.message
                options = [pair for pair in asked.options if pair[0] != Option.OBSERVE]
                options.append((Option.OBSERVE, encode_uint(1)))
                await self._ask(
                    endpoint, outgoing.source, Code.GET, _ordered(options), token=asked.token
                )

    # --- one request, in as many exchanges as its blocks are ---

    async def _request(
        self,
        kind: Type,
        method: int,
        uri: str,
        payload: bytes,
        options: list[tuple[int, bytes]],
        progress: Progress,
    ) -> Response:
        endpoint, source, target = await self._reach(uri)
        wanted = _ordered([*target.options, *options])
        block_size = block_size_within(endpoint.max_payload, self._settings.block_size)
        if len(payload) <= block_size:
            first = _asking_for(block_size, wanted)
            message = await self._ask(endpoint, source, method, first, payload, kind)
            message = await self._proved(endpoint, source, method, first, payload, message, kind)
        else:
            upload = Upload(payload, block_size)
            message = await self._upload(endpoint, source, method, wanted, upload, kind, progress)
        return await self._download(endpoint, source, method, wanted, message, kind, progress)

    async def _proved(
        self,
        endpoint: Endpoint,
        source: Source,
        method: int,
        options: list[tuple[int, bytes]],
        payload: bytes,
        message: CoapMessage,
        kind: Type,
    ) -> CoapMessage:
        """Ask again with the server's challenge, where it answered with one (RFC 9175 §2.3)."""
        echo = message.option(Option.ECHO)
        if message.code != Code.UNAUTHORIZED or echo is None:
            return message
        with_echo = _ordered([*options, (int(Option.ECHO), echo)])
        return await self._ask(endpoint, source, method, with_echo, payload, kind)

    async def _upload(
        self,
        endpoint: Endpoint,
        source: Source,
        method: int,
        options: list[tuple[int, bytes]],
        upload: Upload,
        kind: Type,
        progress: Progress,
    ) -> CoapMessage:
        size1 = (int(Option.SIZE1), encode_uint(len(upload)))
        while True:
            payload, block = upload.next()
            # The size is told with the first block alone (RFC 7959 §4).
            extra = [size1] if not block.number else []
            blocks = _ordered([*options, *extra, (int(Option.BLOCK1), block.encode())])
            message = await self._ask(endpoint, source, method, blocks, payload, kind)
            message = await self._proved(endpoint, source, method, blocks, payload, message, kind)
            if not upload.took(message):
                return message
            progress("sent", block.start + len(payload), len(upload))

    async def _download(
        self,
        endpoint: Endpoint,
        source: Source,
        method: int,
        options: list[tuple[int, bytes]],
        message: CoapMessage,
        kind: Type = Type.CON,
        progress: Progress = _untold,
    ) -> Response:
        download = Download(self._settings.max_body)
        first = message
        size2 = first.option(Option.SIZE2)
        size = None if size2 is None else int.from_bytes(size2, "big")
        while (block := download.take(message)) is not None:
            progress("received", len(download.body), size)
            wanted = _with_block(options, smaller(block, self._settings.block_size))
            message = await self._ask(endpoint, source, method, wanted, kind=kind)
            if message.code != first.code:
                return _response(message, message.payload)
        return _response(first, bytes(download.body))

    async def _ask(
        self,
        endpoint: Endpoint,
        source: Source,
        method: int,
        options: list[tuple[int, bytes]],
        payload: bytes = b"",
        kind: Type = Type.CON,
        token: bytes | None = None,
    ) -> CoapMessage:
        """Make one exchange."""
        token = secrets.token_bytes(4) if token is None else token
        message = CoapMessage(kind, method, token=token, options=options, payload=payload)
        outgoing = self._send(endpoint, message, source)
        answered: Deferred[CoapMessage] = Deferred(lambda _: self.forget(outgoing))
        endpoint.waiting[outgoing] = lambda result: _fire(answered, result)
        endpoint.flush()
        try:
            return await answered
        except CoapTimeout:
            self._endpoints.retire(endpoint)
            raise

    def _send(
        self, endpoint: Endpoint, message: CoapMessage, source: Source, observing: bool = False
    ) -> OutgoingMessage:
        if self._closed:
            raise CoapClientClosed
        if isinstance(endpoint, SecureEndpoint):
            size = len(encode_message(message))
            if size > endpoint.max_payload:
                raise TransferFailed(
                    f"the message has {size} bytes, and a datagram to {source[0]} takes"
                    f" {endpoint.max_payload}"
                )
        return endpoint.layer.send_request(
            message, source, self._reactor.seconds(), random.random(), observing
        )

    def _ended(self, result: Any, call: Deferred[Response]) -> Any:  # Any: passed on as it is
        self._calls.discard(call)
        if self._closed and isinstance(result, Failure) and result.check(CancelledError):
            raise CoapClientClosed
        return result

    # --- observations ---

    async def _observe(
        self,
        endpoint: Endpoint,
        source: Source,
        options: list[tuple[int, bytes]],
        observation: Observation,
    ) -> CoapMessage:
        """Ask to observe, and give the first answer; those after it go to the observation."""
        size = block_size_within(endpoint.max_payload, self._settings.block_size)
        wanted = _asking_for(size, _ordered(options))
        message = CoapMessage(Type.CON, Code.GET, token=secrets.token_bytes(4), options=wanted)
        outgoing = observation.outgoing = self._send(endpoint, message, source, observing=True)
        first: Deferred[CoapMessage] = Deferred(lambda _: self.forget(outgoing))

        def tell(result: CoapMessage | CoapError) -> None:
            if not first.called:
                _fire(first, result)
            elif isinstance(result, CoapError):
                observation.end(result)
            else:
                later = self._notified(endpoint, source, kept, observation, result)
                # It has ended the observation; there is nobody else to hear of its failure.
                Deferred.fromCoroutine(later).addErrback(lambda failure: failure.trap(CoapError))

        kept = [pair for pair in message.options if pair[0] not in _OF_THE_FIRST]
        endpoint.waiting[outgoing] = tell
        endpoint.flush()
        first.addTimeout(
            self._settings.timeout,
            self._reactor,
            lambda value, seconds: _timed_out(value, seconds),
        )
        return await first

    def _cancel(self, endpoint: Endpoint, observation: Observation) -> None:
        assert observation.outgoing is not None
        endpoint.waiting.pop(observation.outgoing, None)
        endpoint.layer.cancel(observation.outgoing, self._reactor.seconds())

    async def _notified(
        self,
        endpoint: Endpoint,
        source: Source,
        options: list[tuple[int, bytes]],
        observation: Observation,
        message: CoapMessage,
    ) -> None:
        """Take in a notification, all its blocks."""
        value = message.option(Option.OBSERVE)
        number = None if value is None else int.from_bytes(value, "big")
        if not observation.fresh(number, self._reactor.seconds()):
            return
        try:
            state = await self._download(endpoint, source, Code.GET, options, message)
        except CoapError as error:
            observation.end(error)
            observation.cancel()
            raise
        observation.put(state)
        if number is None or not state.ok:
            observation.cancel()

    # --- addresses and sockets ---

    async def _reach(self, uri: str) -> tuple[Endpoint, Source, Target]:
        """Find the address of a URI, and the socket that reaches it."""
        if self._closed:
            raise CoapClientClosed
        target = parse_uri(uri)
        address = target.host
        if not target.numeric:
            address = await self._resolve(target.host)
            if self._closed:
                raise CoapClientClosed
        endpoint = await self._endpoints.reach(target, address)
        return endpoint, (address, target.port), target

    async def _resolve(self, host: str) -> str:
        try:
            address: str = await self._reactor.resolve(host)
        except DNSLookupError:
            raise CoapHostNotFound(host) from None
        return address


Call = Deferred[Response]
"""What a request gives: await it, or cancel it."""


def _response(message: CoapMessage, body: bytes) -> Response:
    options = tuple((int(number), value) for number, value in message.options)
    return Response(message.code, body, options)


def _ordered(options: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Order options by number; those of one number stay as they are, as a path's segments do."""
    return sorted(options, key=lambda pair: pair[0])


def _asking_for(size: int, options: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Ask for the blocks of an answer to be small, where they have to be (RFC 7959 §2.4)."""
    if size == LARGEST_BLOCK:
        return options
    return _ordered([*options, (int(Option.BLOCK2), Block(0, False, size).encode())])


def _with_block(options: list[tuple[int, bytes]], block: Block) -> list[tuple[int, bytes]]:
    kept = [pair for pair in options if pair[0] not in (Option.CONTENT_FORMAT, Option.OBSERVE)]
    return _ordered([*kept, (int(Option.BLOCK2), block.encode())])


def _fire(answered: Deferred[CoapMessage], result: CoapMessage | CoapError) -> None:
    if answered.called:
        return
    if isinstance(result, CoapError):
        answered.errback(result)
    else:
        answered.callback(result)


def _timed_out(value: Any, seconds: float) -> Any:  # Any: a failure, or what came after all
    value.trap(CancelledError)
    raise CoapTimeout(seconds)
