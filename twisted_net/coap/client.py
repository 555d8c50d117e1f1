"""CoAP client: requests with block-wise bodies, and observations (RFC 7252, 7641, 7959, 9175)."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import count
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.coap.blockwise import block_size_within
from twisted_net.coap.client_endpoints import ClientEndpoint, EndpointPool
from twisted_net.coap.client_request import (
    BlockwiseRequest,
    OptionList,
    Progress,
    echo_challenge,
    no_progress,
    ordered,
    with_block_size,
)
from twisted_net.coap.client_response import CoapResponse, Observation, max_age_of
from twisted_net.coap.codec import (
    CoapMessage,
    Code,
    Option,
    Type,
    encode_uint,
    uint_option,
)
from twisted_net.coap.errors import (
    CoapClientClosed,
    CoapHostNotFound,
    CoapHostUnreachable,
    CoapTimeout,
    ObservationRefused,
    TransferFailed,
)
from twisted_net.coap.exchange import OutgoingMessage
from twisted_net.coap.settings import CoapClientSettings
from twisted_net.coap.uris import CoapURI, parse_uri
from twisted_net.config.type_checks import check_arguments, checked_range, checked_seconds
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.errors import CoapError
from twisted_net.net.addresses import Source
from twisted_net.net.rate_limit import KeyedCounts
from twisted_net.net.reactor import AnyReactor, full_reactor
from twisted_net.net.steady_clock import steady
from twisted_net.udp.sockets import canonical_host

_T = TypeVar("_T")

_NO_RESPONSE = 26  # none of the classes 2, 4 and 5 (RFC 7967 §2.1)

# A command that was cut short may have had effects: only what may be done twice is repeated.
_REPEATED = (Code.GET, Code.FETCH, Code.PUT, Code.DELETE)

_MAX_METHOD = 31  # RFC 7252 §12.1.1: of class 0, without the empty message
_MAX_FORMAT = 0xFFFF  # §12.3


@frozen
class _Registration:
    """What is needed to observe a resource, and to go on with it."""

    endpoint: ClientEndpoint
    source: Source
    request: BlockwiseRequest
    observation: Observation
    token: bytes
    renew: Callable[[], None]


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

    log = Logger()

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
        self._tags = count(secrets.randbits(32))
        self._under_way = KeyedCounts()
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

    def fetch(
        self,
        uri: str,
        payload: bytes,
        *,
        content_format: int | None = None,
        accept: int | None = None,
        timeout: float | None = None,
    ) -> Deferred[CoapResponse]:
        """Make a FETCH request (RFC 8132), which asks by its payload; see :meth:`request`."""
        return self.request(
            Code.FETCH,
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

        A server that is not available may say when it is (5.03 with Max-Age, RFC 7252 §5.9.3.4).
        GET, FETCH, PUT and DELETE are then repeated at that time, if it is within the time limit
        and ``unavailable_retries`` of the settings allows it.

        :param method: ``Code.GET``, ``FETCH``, ``POST``, ``PUT``, ``DELETE``, or another method's
            number.
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
        deadline = self._reactor.seconds() + seconds
        made = self._request(kind, method, uri, payload, options, progress or no_progress, deadline)
        return self._limited(made, seconds)

    @check_arguments
    def report(
        self,
        uri: str,
        payload: bytes = b"",
        *,
        method: int = Code.POST,
        content_format: int | None = None,
    ) -> Deferred[None]:
        """
        Send a request once, without acknowledgement, and decline all responses (RFC 7967 §3.1).

        So a device reports a value that the next one replaces; nothing is heard of its delivery. A
        server that verifies addresses takes it after a request that was verified.

        :return: fires when it is sent; or fails with :class:`~twisted_net.errors.CoapError`: as
            :meth:`request` does, for a payload longer than a block, and if no message ID is free.
        :raises ValueError: for a *method* or *content_format* that is none.
        """
        checked_range(method, "method", 1, _MAX_METHOD)
        options: OptionList = [(Option.NO_RESPONSE, encode_uint(_NO_RESPONSE))]
        if content_format is not None:
            options.append(
                (Option.CONTENT_FORMAT, _encode_format(content_format, "content_format"))
            )
        sent = self._report(method, uri, payload, options)
        return self._limited(sent, self._settings.timeout)

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
        settings = self._settings
        observation = Observation(
            settings.max_notifications,
            settings.max_notification_bytes,
            self._release,
            self._deregister,
        )
        await self._begin(uri, accept, observation, secrets.token_bytes(4))
        return observation

    async def _begin(
        self, uri: str, accept: int | None, observation: Observation, token: bytes
    ) -> None:
        """Register an observation, for the first time or again, and add the state."""
        endpoint, source, target = await self._reach(uri)
        options: OptionList = list(target.options)
        if accept is not None:
            options.append((Option.ACCEPT, encode_uint(accept)))
        request = self._blockwise(endpoint, source, Type.CON, Code.GET, options)
        renew = partial(self._renew, uri, accept, observation, token)
        registration = _Registration(endpoint, source, request, observation, token, renew)
        message = await self._register(registration, ())
        echo = echo_challenge(message)
        if echo is not None:
            self._cancel(endpoint, observation)
            challenge = ((int(Option.ECHO), echo),)
            message = await self._register(registration, challenge)
        assert observation.outgoing is not None
        self._observations[observation.outgoing] = observation
        await self._notified(registration, message, registered=True)

    def _renew(self, uri: str, accept: int | None, observation: Observation, token: bytes) -> None:
        """Register an observation again, as nothing was heard of it (RFC 7641 §3.3.1)."""
        self.log.info("nothing was heard of {uri}: registering again", uri=uri)
        observation.renewals += 1
        assert observation.outgoing is not None
        self._release(observation.outgoing)
        work = self._begin(uri, accept, observation, token)
        renewal = self._limited(work, self._settings.timeout)

        def failed(failure: Failure) -> None:
            failure.trap(CoapError, CancelledError)
            observation.end(failure.value if isinstance(failure.value, CoapError) else None)

        renewal.addErrback(failed)
        if not renewal.called:
            observation.await_renewal(renewal)

    async def _request(
        self,
        kind: Type,
        method: int,
        uri: str,
        payload: bytes,
        options: OptionList,
        progress: Progress,
        deadline: float,
    ) -> CoapResponse:
        retries = self._settings.unavailable_retries if method in _REPEATED else 0
        while True:
            endpoint, source, target = await self._reach(uri)
            wanted = [*target.options, *options]
            key = source, method, *wanted
            if method != Code.GET and self._under_way[key]:
                # Its response is another one, of which the server would send a block of the latest.
                wanted.append((Option.REQUEST_TAG, self._new_tag()))
            request = self._blockwise(endpoint, source, kind, method, wanted, progress)
            self._under_way.add(key)
            try:
                response = await request.perform(payload)
            finally:
                self._under_way.remove(key)
            wait = uint_option(response.options, Option.MAX_AGE)
            if response.code != Code.SERVICE_UNAVAILABLE or wait is None or not retries:
                return response
            if self._reactor.seconds() + wait >= deadline:
                return response
            retries -= 1
            await deferLater(self._reactor, wait)

    async def _report(self, method: int, uri: str, payload: bytes, options: OptionList) -> None:
        endpoint, source, target = await self._reach(uri)
        limit = block_size_within(endpoint.max_payload, self._settings.block_size)
        if len(payload) > limit:
            raise TransferFailed(f"a report has at most {limit} bytes here, not {len(payload)}")
        wanted = ordered([*target.options, *options])
        message = CoapMessage(Type.NON, method, options=wanted, payload=payload)
        endpoint.check_size(message, source)
        endpoint.report(message, source)

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
            self._new_tag(),
        )

    def _new_tag(self) -> bytes:
        return encode_uint(next(self._tags) & 0xFFFFFFFF)

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
        endpoint.waiting.add(outgoing, partial(_fire, answered))
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
        endpoint.check_size(message, source)
        return endpoint.layer.send_request(
            message, source, self._reactor.seconds(), random.random(), observing
        )

    def _release(self, outgoing: OutgoingMessage) -> None:
        """Ignore further responses to a message, and stop sending it."""
        for endpoint in self._endpoints:
            if endpoint.waiting.pop(outgoing) is not None:
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
        self, registration: _Registration, extra: tuple[tuple[int, bytes], ...]
    ) -> CoapMessage:
        """
        Register an observation, and return the first response; the observation gets the others.

        :param extra: options of this message alone.
        """
        request, observation = registration.request, registration.observation
        endpoint = registration.endpoint
        options = [(int(Option.OBSERVE), b""), *request.options, *extra]
        wanted = with_block_size(ordered(options), request.block_size)
        message = CoapMessage(Type.CON, Code.GET, token=registration.token, options=wanted)
        outgoing = self._send(endpoint, message, registration.source, observing=True)
        observation.outgoing = outgoing
        first: Deferred[CoapMessage] = Deferred(lambda _: self._release(outgoing))

        def receive(result: CoapMessage | CoapError) -> None:
            if not first.called:
                _fire(first, result)
            elif isinstance(result, CoapError):
                observation.end(result)
                # Its blocks are of no use any more, and whoever iterates may not cancel it.
                observation.cancel()
            else:
                later = self._limited(self._notified(registration, result), self._settings.timeout)
                # A failure has ended the observation, which raises it; nothing else waits for it.
                later.addErrback(lambda failure: failure.trap(CoapError))

        endpoint.waiting.add(outgoing, receive)
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
        endpoint.waiting.pop(observation.outgoing)
        endpoint.layer.cancel(observation.outgoing, self._reactor.seconds())

    async def _notified(
        self, registration: _Registration, message: CoapMessage, registered: bool = False
    ) -> None:
        """
        Add the state of a notification, with its further blocks, to an observation.

        One that is not whole yet when a newer one arrives is dropped.

        :param registered: whether it is the response to a registration.
        """
        observation = registration.observation
        number = uint_option(message.options, Option.OBSERVE)
        if registered:
            observation.begin_order()
        if not observation.is_fresh(number, self._reactor.seconds()):
            return
        arrival = observation.next_arrival()
        # Not all clients of a server at once: after 5 to 15 s more (RFC 7641 §3.3.1).
        wait = max_age_of(message.options) + random.uniform(5, 15)
        observation.await_renewal(self._reactor.callLater(wait, registration.renew))
        try:
            is_superseded = partial(observation.is_superseded, arrival)
            work = registration.request.complete_unchanged(message, is_superseded)
            transfer = Deferred.fromCoroutine(work)
            observation.await_blocks(transfer)
            state = await transfer
        except (CoapError, CancelledError) as error:
            if observation.is_superseded(arrival):
                return
            if isinstance(error, CoapError):
                observation.end(error)
            else:
                observation.end(CoapTimeout(self._settings.timeout))
            observation.cancel()
            raise
        if observation.is_superseded(arrival):
            return
        observation.put(state, renewed=registered)
        if number is None and state.ok and registered:
            observation.end(ObservationRefused())
        if number is None or not state.ok:
            observation.cancel()

    # --- addresses and sockets ---

    async def _reach(self, uri: str) -> tuple[ClientEndpoint, Source, CoapURI]:
        """Return the endpoint and the address for a URI, and the URI parsed."""
        if self._closed:
            raise CoapClientClosed
        target = parse_uri(uri)
        address = target.host
        if target.numeric:
            try:
                address = canonical_host(target.host)
            except OSError as error:
                raise CoapHostUnreachable(target.host, error.strerror or str(error)) from None
        else:
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
