"""CoAP client: requests with block-wise bodies, and observations (RFC 7252, 7641, 7959, 9175)."""

from __future__ import annotations

import random
import secrets
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure

from twisted_net.coap.blockwise import block_size_within
from twisted_net.coap.client_endpoints import ClientEndpoint, DtlsEndpoint, EndpointPool
from twisted_net.coap.client_request import (
    BlockwiseRequest,
    OptionList,
    Progress,
    echo_challenge,
    no_progress,
    ordered,
    with_block_size,
)
from twisted_net.coap.client_response import CoapResponse, Observation
from twisted_net.coap.codec import (
    CoapMessage,
    Code,
    Option,
    Type,
    encode_message,
    encode_uint,
    uint_option,
)
from twisted_net.coap.errors import (
    CoapClientClosed,
    CoapHostNotFound,
    CoapTimeout,
    TransferFailed,
)
from twisted_net.coap.exchange import OutgoingMessage
from twisted_net.coap.settings import CoapClientSettings
from twisted_net.coap.uris import CoapURI, parse_uri
from twisted_net.config.type_checks import check_arguments, checked_range, checked_seconds
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.errors import CoapError
from twisted_net.net.addresses import Source
from twisted_net.net.reactor import AnyReactor, full_reactor
from twisted_net.net.steady_clock import steady

_T = TypeVar("_T")

_MAX_METHOD = 31  # RFC 7252 §12.1.1: of class 0, without the empty message
_MAX_FORMAT = 0xFFFF  # §12.3


@check_arguments
class CoapClient:
    """
    CoAP client: ``await client.get("coap://[::1]/time")``.

    Requests are confirmable, and retransmitted as the settings say; ``nstart`` at a time to one
    server, the others are queued. Long bodies are sent in blocks. An Echo challenge (4.01 with an
    Echo option), by which a server verifies our address, is answered once per exchange.

    ``coaps`` URIs are requested over DTLS. The server's certificate must be signed by an
    authority of the system, or of ``tls.ca``, and be for the host of the URI; the certificate of
    ``tls`` is presented to it. One session serves all requests to a host and port.

    A cancelled call sends nothing more. :meth:`close` ends all calls, observations, sessions,
    sockets and timers.

    :param tls: certificates for DTLS, ours and those of trusted authorities.
    :raises ConfigError: if files of *tls* cannot be used.
    """

    def __init__(
        self,
        reactor: AnyReactor,
        settings: CoapClientSettings | None = None,
        tls: DtlsClientSettings | None = None,
    ) -> None:
        reactor = full_reactor(reactor)
        self._reactor = steady(reactor)
        self._settings = settings or CoapClientSettings()
        self._endpoints = EndpointPool(reactor, self._settings, tls)
        self._calls: set[Deferred[Any]] = set()  # Any: of responses and observations
        self._observations: dict[OutgoingMessage, Observation] = {}
        self._closed = False

    async def __aenter__(self) -> CoapClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def get(
        self, uri: str, *, accept: int | None = None, timeout: float | None = None
    ) -> Deferred[CoapResponse]:
        """Make a GET request; see :meth:`request`."""
        return self.request(Code.GET, uri, accept=accept, timeout=timeout)

    def post(
        self,
        uri: str,
        payload: bytes = b"",
        *,
        content_format: int | None = None,
        accept: int | None = None,
        timeout: float | None = None,
    ) -> Deferred[CoapResponse]:
        """Make a POST request; see :meth:`request`."""
        return self.request(
            Code.POST,
            uri,
            payload,
            content_format=content_format,
            accept=accept,
            timeout=timeout,
        )

    @check_arguments
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
    ) -> Deferred[CoapResponse]:
        """
        Make a request.

        :param method: ``Code.GET``, ``POST``, ``PUT``, ``DELETE``, or another method's number.
        :param timeout: seconds for the whole call, in place of the setting.
        :param confirmable: False to send each message once, without acknowledgement.
        :param progress: called after each block, if there are several.
        :return: fires with the response, whatever its code; or fails with
            :class:`~twisted_net.errors.CoapError`: an invalid URI, a host without an address or
            a route, a timeout, a Reset, a failed transfer, a closed client.
        :raises ValueError: for a negative *timeout*, and for numbers that are no method (1 to 31)
            or no content format (0 to 65535).
        """
        checked_range(method, "method", 1, _MAX_METHOD)
        seconds = self._settings.timeout if timeout is None else checked_seconds(timeout)
        options: OptionList = []
        if content_format is not None:
            options.append(
                (Option.CONTENT_FORMAT, _encode_format(content_format, "content_format"))
            )
        if accept is not None:
            options.append((Option.ACCEPT, _encode_format(accept, "accept")))
        kind = Type.CON if confirmable else Type.NON
        request = self._request(kind, method, uri, payload, options, progress or no_progress)
        return self._limited(request, seconds)

    @check_arguments
    async def observe(
        self, uri: str, *, accept: int | None = None, timeout: float | None = None
    ) -> Observation:
        """
        Observe a resource.

        :param timeout: seconds for the look-up of the host and the first state with all its
            blocks, in place of the setting. Each later state has the time of the setting.
        :return: once the server has responded; a resource that cannot be observed has one state.
            An error response is a state too, and the last.
        :raises CoapError: as :meth:`request` does.
        :raises ValueError: for a negative *timeout*, and an *accept* that is no content format.
        """
        seconds = self._settings.timeout if timeout is None else checked_seconds(timeout)
        if accept is not None:
            checked_range(accept, "accept", 0, _MAX_FORMAT)
        return await self._limited(self._observe(uri, accept), seconds)

    async def close(self) -> None:
        """End everything; outstanding calls fail with ``CoapClientClosed``. Idempotent."""
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        for observation in list(self._observations.values()):
            observation.end(CoapClientClosed())
        self._observations.clear()
        await self._endpoints.close()

    # --- requests ---

    def _limited(self, work: Coroutine[Any, Any, _T], seconds: float) -> Deferred[_T]:
        """Run a call until its time limit, or until the client is closed."""
        call = Deferred.fromCoroutine(work)
        if not call.called:
            call.addTimeout(seconds, self._reactor, lambda value, _: _timed_out(value, seconds))
            self._calls.add(call)
            call.addBoth(self._ended, call)
        return call

    async def _observe(self, uri: str, accept: int | None) -> Observation:
        endpoint, source, target = await self._reach(uri)
        options: OptionList = list(target.options)
        if accept is not None:
            options.append((Option.ACCEPT, encode_uint(accept)))
        settings = self._settings
        observation = Observation(
            settings.max_notifications,
            settings.max_notification_bytes,
            self._release,
            self._deregister,
        )
        request = self._blockwise(endpoint, source, Type.CON, Code.GET, options)
        message = await self._register(endpoint, source, request, observation, ())
        echo = echo_challenge(message)
        if echo is not None:
            self._cancel(endpoint, observation)
            challenge = ((int(Option.ECHO), echo),)
            message = await self._register(endpoint, source, request, observation, challenge)
        assert observation.outgoing is not None
        self._observations[observation.outgoing] = observation
        await self._notified(request, observation, message)
        return observation

    async def _request(
        self,
        kind: Type,
        method: int,
        uri: str,
        payload: bytes,
        options: OptionList,
        progress: Progress,
    ) -> CoapResponse:
        endpoint, source, target = await self._reach(uri)
        wanted = [*target.options, *options]
        request = self._blockwise(endpoint, source, kind, method, wanted, progress)
        return await request.perform(payload)

    def _blockwise(
        self,
        endpoint: ClientEndpoint,
        source: Source,
        kind: Type,
        method: int,
        options: OptionList,
        progress: Progress = no_progress,
    ) -> BlockwiseRequest:
        return BlockwiseRequest(
            partial(self._exchange, endpoint, source, kind, method),
            options,
            block_size_within(endpoint.max_payload, self._settings.block_size),
            self._settings.max_body,
            progress,
        )

    async def _exchange(
        self,
        endpoint: ClientEndpoint,
        source: Source,
        kind: Type,
        method: int,
        options: OptionList,
        payload: bytes = b"",
        token: bytes | None = None,
    ) -> CoapMessage:
        """Send one request, and return its response."""
        token = secrets.token_bytes(4) if token is None else token
        message = CoapMessage(kind, method, token=token, options=options, payload=payload)
        outgoing = self._send(endpoint, message, source)
        answered: Deferred[CoapMessage] = Deferred(lambda _: self._release(outgoing))
        endpoint.waiting[outgoing] = partial(_fire, answered)
        endpoint.flush()
        try:
            return await answered
        except CoapTimeout:
            self._endpoints.retire(endpoint)
            raise

    def _send(
        self,
        endpoint: ClientEndpoint,
        message: CoapMessage,
        source: Source,
        observing: bool = False,
    ) -> OutgoingMessage:
        if self._closed:
            raise CoapClientClosed
        if isinstance(endpoint, DtlsEndpoint):
            size = len(encode_message(message))
            if size > endpoint.max_payload:
                raise TransferFailed(
                    f"the message has {size} bytes; a datagram to {source[0]} holds"
                    f" {endpoint.max_payload}"
                )
        return endpoint.layer.send_request(
            message, source, self._reactor.seconds(), random.random(), observing
        )

    def _release(self, outgoing: OutgoingMessage) -> None:
        """Ignore further responses to a message, and stop sending it."""
        for endpoint in self._endpoints:
            if endpoint.waiting.pop(outgoing, None) is not None:
                endpoint.layer.cancel(outgoing, self._reactor.seconds())
                endpoint.flush()
                if endpoint.silent_since(outgoing):
                    # A server that was restarted has lost its DTLS sessions, and sends nothing.
                    self._endpoints.retire(endpoint)
        self._observations.pop(outgoing, None)

    def _ended(self, result: Any, call: Deferred[Any]) -> Any:  # Any: passed on as it is
        self._calls.discard(call)
        if self._closed and isinstance(result, Failure) and result.check(CancelledError):
            raise CoapClientClosed
        return result

    # --- observations ---

    async def _register(
        self,
        endpoint: ClientEndpoint,
        source: Source,
        request: BlockwiseRequest,
        observation: Observation,
        extra: tuple[tuple[int, bytes], ...],
    ) -> CoapMessage:
        """
        Register an observation, and return the first response; the observation gets the others.

        :param extra: options of this message alone.
        """
        options = [(int(Option.OBSERVE), b""), *request.options, *extra]
        wanted = with_block_size(ordered(options), request.block_size)
        message = CoapMessage(Type.CON, Code.GET, token=secrets.token_bytes(4), options=wanted)
        outgoing = observation.outgoing = self._send(endpoint, message, source, observing=True)
        first: Deferred[CoapMessage] = Deferred(lambda _: self._release(outgoing))

        def receive(result: CoapMessage | CoapError) -> None:
            if not first.called:
                _fire(first, result)
            elif isinstance(result, CoapError):
                observation.end(result)
            else:
                later = self._limited(
                    self._notified(request, observation, result), self._settings.timeout
                )
                # A failure has ended the observation, which raises it; nothing else waits for it.
                later.addErrback(lambda failure: failure.trap(CoapError))

        endpoint.waiting[outgoing] = receive
        endpoint.flush()
        return await first

    async def _deregister(self, outgoing: OutgoingMessage) -> None:
        """
        Deregister an observation at the server (RFC 7641 §3.6).

        :raises CoapError: if it does not respond.
        """
        for endpoint in list(self._endpoints):
            if outgoing in endpoint.waiting:
                self._release(outgoing)
                message = outgoing.message
                options = [pair for pair in message.options if pair[0] != Option.OBSERVE]
                options.append((Option.OBSERVE, encode_uint(1)))
                await self._exchange(
                    endpoint,
                    outgoing.source,
                    Type.CON,
                    Code.GET,
                    ordered(options),
                    token=message.token,
                )

    def _cancel(self, endpoint: ClientEndpoint, observation: Observation) -> None:
        assert observation.outgoing is not None
        endpoint.waiting.pop(observation.outgoing, None)
        endpoint.layer.cancel(observation.outgoing, self._reactor.seconds())

    async def _notified(
        self, request: BlockwiseRequest, observation: Observation, message: CoapMessage
    ) -> None:
        """Add the state of a notification, with its further blocks, to an observation."""
        number = uint_option(message.options, Option.OBSERVE)
        if not observation.is_fresh(number, self._reactor.seconds()):
            return
        try:
            state = await request.complete(message)
        except (CoapError, CancelledError) as error:
            if isinstance(error, CoapError):
                observation.end(error)
            else:
                observation.end(CoapTimeout(self._settings.timeout))
            observation.cancel()
            raise
        observation.put(state)
        if number is None or not state.ok:
            observation.cancel()

    # --- addresses and sockets ---

    async def _reach(self, uri: str) -> tuple[ClientEndpoint, Source, CoapURI]:
        """Return the endpoint and the address for a URI, and the URI parsed."""
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
            return await self._reactor.resolve(host)
        except DNSLookupError:
            raise CoapHostNotFound(host) from None


def _fire(answered: Deferred[CoapMessage], result: CoapMessage | CoapError) -> None:
    if answered.called:
        return
    if isinstance(result, CoapError):
        answered.errback(result)
    else:
        answered.callback(result)


def _encode_format(number: int, name: str) -> bytes:
    return encode_uint(checked_range(number, name, 0, _MAX_FORMAT))


def _timed_out(value: Any, seconds: float) -> Any:  # Any: a Failure, or a result that came first
    value.trap(CancelledError)
    raise CoapTimeout(seconds)
