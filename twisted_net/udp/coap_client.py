"""The CoAP client: requests, bodies in blocks, observations (RFC 7252, 7641, 7959, 9175)."""

from __future__ import annotations

import random
import secrets
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any, TextIO

import msgspec
from attrs import frozen
from msgspec import Meta
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure

from twisted_net.errors import CoapError
from twisted_net.udp.blockwise import Block, Download, Upload, block_size_within
from twisted_net.udp.coap_codec import (
    Code,
    Message,
    Option,
    Type,
    code_name,
    encode_message,
    encode_uint,
)
from twisted_net.udp.coap_endpoints import Endpoint, Endpoints, SecureEndpoint
from twisted_net.udp.coap_settings import Transmission
from twisted_net.udp.coap_uris import Target, parse_uri
from twisted_net.udp.datagrams import Source
from twisted_net.udp.dtls_settings import DtlsClientSettings
from twisted_net.udp.errors import (
    CoapClientClosed,
    CoapHostNotFound,
    PeerSilent,
    TransferFailed,
    UnexpectedCode,
)
from twisted_net.udp.exchanges import Outgoing

_REORDERED = 128.0
"""Seconds after which a notification is newer whatever its number says (RFC 7641 §3.4)."""

_LONGEST_DATAGRAM = 65_535


class CoapClientSettings(Transmission, frozen=True):
    """
    How a client asks.

    ``timeout`` covers a whole call, all its blocks and repetitions; a single exchange with a
    silent peer is given up after at most 93 s (RFC 7252 §4.8.2) in any case.
    """

    timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="seconds that a call may take in all")
    ] = 120.0
    block_size: Annotated[
        int, Meta(ge=16, le=1024, description="largest block sent: 16, 32 … 1024 bytes")
    ] = 1024
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


@frozen
class Response:
    """
    What a server answered, its body whole.

    :param code: a :class:`~twisted_net.udp.coap_codec.Code`, as a number.
    """

    code: int
    payload: bytes
    options: tuple[tuple[int, bytes], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the code is a success (2.xx)."""
        return self.code >> 5 == 2

    @property
    def content_format(self) -> int | None:
        """The format of the payload, as a number, where the server says it."""
        return self._uint(Option.CONTENT_FORMAT)

    @property
    def max_age(self) -> int:
        """Seconds for which the answer holds; 60 where the server does not say."""
        value = self._uint(Option.MAX_AGE)
        return 60 if value is None else value

    @property
    def text(self) -> str:
        """The payload as text; bytes that are not UTF-8 are replaced."""
        return self.payload.decode(errors="replace")

    def json(self) -> Any:  # Any: it is any JSON
        """
        Decode the payload.

        :raises ValueError: where it is not JSON.
        """
        return msgspec.json.decode(self.payload)

    def raise_for_code(self) -> Response:
        """
        Give this response, if its code is a success.

        :raises UnexpectedCode: otherwise, with the code and the diagnostic payload.
        """
        if not self.ok:
            raise UnexpectedCode(code_name(self.code), self.text[:256])
        return self

    def _uint(self, number: int) -> int | None:
        for known, value in self.options:
            if known == number:
                return int.from_bytes(value, "big")
        return None


class Observation:
    """
    A resource that is being observed: iterate over its states with ``async for``.

    The first item is the state at the beginning. Where states come faster than they are taken,
    the oldest are dropped and counted in :attr:`skipped`. Iteration ends with :meth:`cancel`, and
    after a response without an Observe option: the server does not, or no longer, notify.
    Leave it with ``async with``, or call :meth:`cancel`.

    A server that was restarted has forgotten its observers, and tells nothing: who must know asks
    again where nothing came for the ``max_age`` of the last state (RFC 7641 §3.3.1).

    :ivar skipped: states that were not taken in time.
    """

    def __init__(self, client: CoapClient, most: int) -> None:
        self._client = client
        self._most = most
        self._states: deque[Response] = deque()
        self._waiting: Deferred[None] | None = None
        self._failure: CoapError | None = None
        self._ended = False
        self._last: tuple[int, float] | None = None
        self.outgoing: Outgoing | None = None
        self.skipped = 0

    async def __aenter__(self) -> Observation:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cancel()

    def __aiter__(self) -> AsyncIterator[Response]:
        return self

    async def __anext__(self) -> Response:
        while not self._states:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._ended:
                raise StopAsyncIteration
            self._waiting = Deferred()
            await self._waiting
        return self._states.popleft()

    def cancel(self) -> None:
        """End the observation; the server learns of it at its next notification (a reset)."""
        self.end(None)
        if self.outgoing is not None:
            self._client.forget(self.outgoing)

    def fresh(self, number: int | None, now: float) -> bool:
        """Tell whether a notification is newer than those before it (RFC 7641 §3.4)."""
        if number is None:
            return True
        last, self._last = self._last, (number, now)
        if last is None or now > last[1] + _REORDERED:
            return True
        if 0 < (number - last[0]) & 0xFFFFFF < 1 << 23:
            return True
        self._last = last
        return False

    def put(self, state: Response) -> None:
        """Take in a state."""
        if self._ended:
            return
        if len(self._states) >= self._most:
            self._states.popleft()
            self.skipped += 1
        self._states.append(state)
        self._wake()

    def end(self, failure: CoapError | None) -> None:
        """Add no more states; raise *failure* after those that there are."""
        if not self._ended:
            self._ended = True
            self._failure = failure
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)


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
    ) -> Call:
        """
        Make a request.

        :param method: ``Code.GET``, ``POST``, ``PUT``, ``DELETE``, or another's number.
        :param timeout: seconds for the whole call, in place of the setting.
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
        call = Deferred.fromCoroutine(self._request(method, uri, payload, options))
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
        observation = Observation(self, self._settings.max_notifications)
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

    def forget(self, outgoing: Outgoing) -> None:
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

    # --- one request, in as many exchanges as its blocks are ---

    async def _request(
        self, method: int, uri: str, payload: bytes, options: list[tuple[int, bytes]]
    ) -> Response:
        endpoint, source, target = await self._reach(uri)
        wanted = _ordered([*target.options, *options])
        block_size = block_size_within(endpoint.max_payload, self._settings.block_size)
        if len(payload) <= block_size:
            message = await self._ask(endpoint, source, method, wanted, payload)
            message = await self._proved(endpoint, source, method, wanted, payload, message)
        else:
            upload = Upload(payload, block_size)
            message = await self._upload(endpoint, source, method, wanted, upload)
        return await self._download(endpoint, source, method, wanted, message)

    async def _proved(
        self,
        endpoint: Endpoint,
        source: Source,
        method: int,
        options: list[tuple[int, bytes]],
        payload: bytes,
        message: Message,
    ) -> Message:
        """Ask again with the server's challenge, where it answered with one (RFC 9175 §2.3)."""
        echo = message.option(Option.ECHO)
        if message.code != Code.UNAUTHORIZED or echo is None:
            return message
        with_echo = _ordered([*options, (int(Option.ECHO), echo)])
        return await self._ask(endpoint, source, method, with_echo, payload)

    async def _upload(
        self,
        endpoint: Endpoint,
        source: Source,
        method: int,
        options: list[tuple[int, bytes]],
        upload: Upload,
    ) -> Message:
        size1 = (int(Option.SIZE1), encode_uint(len(upload)))
        while True:
            payload, block = upload.next()
            # The size is told with the first block alone (RFC 7959 §4).
            extra = [size1] if not block.number else []
            blocks = _ordered([*options, *extra, (int(Option.BLOCK1), block.encode())])
            message = await self._ask(endpoint, source, method, blocks, payload)
            message = await self._proved(endpoint, source, method, blocks, payload, message)
            if not upload.took(message):
                return message

    async def _download(
        self,
        endpoint: Endpoint,
        source: Source,
        method: int,
        options: list[tuple[int, bytes]],
        message: Message,
    ) -> Response:
        download = Download(self._settings.max_body)
        first = message
        while (block := download.take(message)) is not None:
            message = await self._ask(endpoint, source, method, _with_block(options, block))
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
    ) -> Message:
        """Make one exchange."""
        token = secrets.token_bytes(4)
        message = Message(Type.CON, method, token=token, options=options, payload=payload)
        outgoing = self._send(endpoint, message, source)
        answered: Deferred[Message] = Deferred(lambda _: self.forget(outgoing))
        endpoint.waiting[outgoing] = lambda result: _fire(answered, result)
        endpoint.flush()
        try:
            return await answered
        except PeerSilent:
            self._endpoints.retire(endpoint)
            raise

    def _send(
        self, endpoint: Endpoint, message: Message, source: Source, keep: bool = False
    ) -> Outgoing:
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
            message, source, self._reactor.seconds(), random.random(), keep
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
    ) -> Message:
        """Ask to observe, and give the first answer; those after it go to the observation."""
        message = Message(
            Type.CON, Code.GET, token=secrets.token_bytes(4), options=_ordered(options)
        )
        outgoing = observation.outgoing = self._send(endpoint, message, source, keep=True)
        first: Deferred[Message] = Deferred(lambda _: self.forget(outgoing))

        def tell(result: Message | CoapError) -> None:
            if not first.called:
                _fire(first, result)
            elif isinstance(result, CoapError):
                observation.end(result)
            else:
                later = self._notified(endpoint, source, kept, observation, result)
                # It has ended the observation; there is nobody else to hear of its failure.
                Deferred.fromCoroutine(later).addErrback(lambda failure: failure.trap(CoapError))

        kept = [pair for pair in message.options if pair[0] not in (Option.OBSERVE, Option.ECHO)]
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
        message: Message,
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


async def fetch_and_print(
    reactor: Any,  # Any: as for CoapClient
    method: str,
    uri: str,
    payload: bytes = b"",
    *,
    observe: bool = False,
    output: TextIO | None = None,
) -> int:
    """
    Do what ``twisted-net coap get coap://…`` does: print what a server answers.

    :param method: ``get``, ``post``, ``put`` or ``delete``.
    :param observe: whether to go on printing what the resource becomes, a line each.
    :param output: standard output, where none is given.
    :return: the exit status: 0 for a success, 1 for an answer that is an error.
    :raises CoapError: where there is no answer.
    """
    out = sys.stdout if output is None else output
    status = 0
    async with CoapClient(reactor) as client:
        if observe:
            async with await client.observe(uri) as states:
                async for state in states:
                    status = _show(state, out)
            return status
        return _show(await client.request(Code[method.upper()], uri, payload), out)


def _show(response: Response, out: TextIO) -> int:
    shown = response.text if response.ok else f"{code_name(response.code)} {response.text}"
    out.write(shown + "\n")
    out.flush()
    return 0 if response.ok else 1


def _response(message: Message, body: bytes) -> Response:
    options = tuple((int(number), value) for number, value in message.options)
    return Response(message.code, body, options)


def _ordered(options: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Order options by number; those of one number stay as they are, as a path's segments do."""
    return sorted(options, key=lambda pair: pair[0])


def _with_block(options: list[tuple[int, bytes]], block: Block) -> list[tuple[int, bytes]]:
    kept = [pair for pair in options if pair[0] not in (Option.CONTENT_FORMAT, Option.OBSERVE)]
    return _ordered([*kept, (int(Option.BLOCK2), block.encode())])


def _fire(answered: Deferred[Message], result: Message | CoapError) -> None:
    if answered.called:
        return
    if isinstance(result, CoapError):
        answered.errback(result)
    else:
        answered.callback(result)


def _timed_out(value: Any, seconds: float) -> Any:  # Any: a failure, or what came after all
    value.trap(CancelledError)
    raise PeerSilent(seconds)
