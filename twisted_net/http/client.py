"""HTTP client: one coroutine per method, with retries, a cache, redirects, cookies and limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from http.cookiejar import CookieJar
from typing import Any, TypeVar, overload

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from typing_extensions import Unpack, override

from twisted_net.config.type_checks import check_arguments, checked_range
from twisted_net.errors import FetchError
from twisted_net.http.agent import AgentOptions, HTTPAgent
from twisted_net.http.bodies import BufferedResponse, collect, header_fields
from twisted_net.http.cache.entry import CACHE_RELEVANT_FIELDS
from twisted_net.http.call import Call, Deadline
from twisted_net.http.calls.authentication import Auth
from twisted_net.http.calls.body import NO_BODY, Form, RequestBody, json_body, request_body
from twisted_net.http.calls.chain import RequestChain
from twisted_net.http.calls.cookies import BoundedCookieJar, CallCookies
from twisted_net.http.calls.defaults import ClientDefaults, HeaderOption
from twisted_net.http.calls.direct_get import BegunCall, DirectGet
from twisted_net.http.calls.gather import gathered
from twisted_net.http.calls.hooks import RequestHook, ResponseHook, completed, hooks_of
from twisted_net.http.calls.options import (
    JSON_OPTIONS,
    METHODS,
    OPTIONS,
    REQUEST_UNCHANGED,
    CommonRequestOptions,
    RequestOptions,
    check_options,
    check_target,
    total_timeout,
)
from twisted_net.http.calls.outcomes import result_of, started
from twisted_net.http.calls.request_sender import RequestSender
from twisted_net.http.calls.synonyms import (
    CLIENT_ATTRIBUTE_SYNONYMS,
    client_synonyms,
    with_synonyms,
)
from twisted_net.http.calls.timeouts import Timeouts
from twisted_net.http.errors import ClientClosed, InvalidURL
from twisted_net.http.response import Response, Trace
from twisted_net.http.retry.circuit_breaker import CircuitState
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import HttpSettings
from twisted_net.http.streaming import StreamedResponse
from twisted_net.http.urls import HttpTarget, encode_url, parse_target, split_credentials
from twisted_net.net.reactor import AnyReactor, full_reactor
from twisted_net.net.steady_clock import steady
from twisted_net.turns.paced_reads import Pace

_T = TypeVar("_T")

_MAX_AT_A_TIME = 1_000_000
_NO_TIMEOUTS = Timeouts()


# A copy is checked as what comes from outside is: that takes longer than a hit of the cache.
@lru_cache(maxsize=64)
def _with_retries(policy: RetryPolicy, retries: int) -> RetryPolicy:
    return msgspec.structs.replace(policy, retries=retries)


@lru_cache(maxsize=64)
def _with_hedging(policy: RetryPolicy, hedge_after: float | None) -> RetryPolicy:
    return msgspec.structs.replace(policy, hedge_after=hedge_after)


@with_synonyms(CLIENT_ATTRIBUTE_SYNONYMS)
@check_arguments(synonyms=client_synonyms(HttpSettings.__struct_fields__, OPTIONS.names))
class Client(AbstractAsyncContextManager["Client"]):
    """
    Makes HTTP requests.

    Its methods are coroutines; in code with callbacks, wrap them:
    ``Deferred.fromCoroutine(client.get(url))``. Cancelling such a Deferred cancels the request.
    All failures of a call are :class:`~twisted_net.errors.FetchError`.

    By default it keeps cookies for one call with its redirects only, and every destination is
    allowed. Close it at the end, or use it in ``async with``.

    A request has the fields ``User-Agent`` (as the settings say), ``Accept: application/json`` (for
    services, as the original client) and ``Accept-Encoding``; *headers* and those of a call replace
    them by name.

    :param reactor: any of Twisted's, epoll or asyncio; the global reactor is not used.
    :param base_url: absolute; the URL of a call that is not is appended to it.
    :param headers: fields of all requests, as ``headers`` of a call.
    :param params: added to the query of each URL, as ``params`` of a call, which replace them by
        name.
    :param auth: as ``auth`` of a call. With *base_url* it is sent to that origin only, as are
        ``Authorization`` and ``Cookie`` in *headers*; without, to the origin of each call. In
        neither case does it follow a redirect to another one.
    :param cookies: whether cookies that servers set are kept from one call to the next, within the
        bounds of :class:`~twisted_net.http.calls.cookies.BoundedCookieJar`.
    :param cookiejar: keeps cookies, too: a jar of yours, such as a ``MozillaCookieJar``, which has
        a file; it need have no bounds.
    :param on_request: a function or several, called with each request that a call makes, also with
        one that the cache answers or that follows a redirect; it may change its headers. Retries
        repeat a request as it is.
    :param on_response: a function or several, called with the response of each call, the last one
        after redirects: a :class:`Response`, or a :class:`StreamedResponse` before it is read.
        Functions of both kinds may be coroutine functions, whose time is that of the call.
        What they raise ends the call, and is raised by it.
    :param agent_options: for :class:`~twisted_net.http.agent.HTTPAgent`, such as ``egress``.
    :raises TypeError: for an argument that there is not, or of another type.
    :raises ValueError: for a base URL or a field that is none, and for arguments that have no
        effect together.
    """

    def __init__(
        self,
        reactor: AnyReactor,
        settings: HttpSettings | None = None,
        *,
        base_url: str | None = None,
        headers: HeaderOption | None = None,
        params: Form | None = None,
        auth: Auth | None = None,
        cookies: bool = False,
        cookiejar: CookieJar | None = None,
        on_request: RequestHook | Sequence[RequestHook] = (),
        on_response: ResponseHook | Sequence[ResponseHook] = (),
        **agent_options: Unpack[AgentOptions],
    ) -> None:
        reactor = full_reactor(reactor)
        self._reactor = steady(reactor)
        self.pace = Pace.of(self._reactor)
        self._settings = settings = settings or HttpSettings()
        if cookies and cookiejar is not None:
            raise ValueError("Client: cookies=True has no effect with cookiejar, which keeps them")
        self._defaults = ClientDefaults(
            user_agent=settings.user_agent,
            base_url=base_url,
            headers=headers,
            params=params,
            auth=auth,
        )
        self._on_request = hooks_of(on_request, "on_request")
        self._on_response = hooks_of(on_response, "on_response")
        self._agent = HTTPAgent(reactor, settings, **agent_options)
        self._cookiejar = BoundedCookieJar() if cookies else cookiejar
        # What a request without options has.
        self._default_fields = header_fields(self._defaults.headers(None))
        self._default_trace = Trace(self._default_fields, set_cookies=[])
        self._direct_trace = Trace(self._default_fields)
        request_body({"json": None}, json_headers := self._defaults.headers(None))
        self._json_fields = header_fields(json_headers)
        self._changes_urls = self._defaults.changes_urls
        # Whether a request without options is the same for everyone, and known before it is made.
        self._plain = not self._defaults.has_credentials and not self._on_request
        self._asks_cache_first = (
            self._plain
            and self._cookiejar is None
            and not self._on_response
            and self._default_fields.has_none(CACHE_RELEVANT_FIELDS)
        )
        self._calls: set[Deferred[Any]] = set()  # Any: of responses of both kinds
        self._closed = False

    @override
    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """
        Cancel all pending calls, close all connections and the cache.

        Pending calls fail with :class:`~twisted_net.http.errors.ClientClosed`, and so do later
        ones. When it returns, no connection is open and no timer runs. A second call has no
        effect.
        """
        if self._closed:
            return
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        await self._agent.close()

    async def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Response:
        """
        Make a request and return its response with the whole body, whatever its status.

        :param method: in upper or lower case.
        :param url: absolute, or appended to the base URL of the client; characters beyond ASCII are
            encoded.
        :param options: see :class:`RequestOptions`.
        :raises TypeError: for an option that there is not, or of another type.
        :raises ValueError: for a number out of its bounds.
        """
        if self._closed:
            raise ClientClosed
        if options:
            # Here, as a fresh response from the cache needs no more of them.
            check_options(options)
        if self._changes_urls or "params" in options:
            check_target(method, url)
            url = self._defaults.url(url, options.get("params"))
        elif method not in METHODS:
            # Before upper(), which only texts have.
            check_target(method, url)
        method = method.upper()
        begun = direct = None
        if self._asks_cache_first and options.keys() <= REQUEST_UNCHANGED:
            now = self._reactor.seconds()
            hit, target = self._at_once(method, url, options, now)
            if hit is not None:
                return hit
            if target is not None and method == "GET":
                begun = BegunCall(self._call(options, now), now)
                begun.call.buffer_body = True
                direct = self._agent.send_directly(target, self._default_fields, begun.call, now)
                if direct is None:
                    self._agent.check_circuit(target)
        elif self._asks_cache_first and method == "POST" and options.keys() <= JSON_OPTIONS:
            begun, direct = self._post_at_once(url, options)
        if begun is not None and direct is not None:
            self._calls.add(direct.done)
            try:
                await direct.done
            finally:
                self._calls.discard(direct.done)
            outcome, direct.outcome = direct.outcome, None
            if isinstance(outcome, BaseException):
                del begun, direct  # as below
                try:
                    raise self._shown_error(outcome)
                finally:
                    del outcome
            if type(outcome) is BufferedResponse and not 300 <= outcome.code < 400:
                return begun.result(outcome, self._trace(begun), self._reactor.seconds())
            begun.response = outcome
            del outcome
        call = started(self._request(method, url, options, begun))
        begun = direct = None  # this frame is in the traceback of what is raised
        self._calls.add(call)
        try:
            return await result_of(call)
        except CancelledError:
            if self._closed:
                raise ClientClosed from None
            raise
        finally:
            self._calls.discard(call)

    async def get(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """GET *url*; see :meth:`request`."""
        return await self.request("GET", url, **options)

    async def head(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """HEAD *url*; see :meth:`request`."""
        return await self.request("HEAD", url, **options)

    async def options(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """OPTIONS *url*; see :meth:`request`."""
        return await self.request("OPTIONS", url, **options)

    async def post(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """POST to *url*; see :meth:`request`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """PUT to *url*; see :meth:`request`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """PATCH *url*; see :meth:`request`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """DELETE *url*; see :meth:`request`."""
        return await self.request("DELETE", url, **options)

    @overload
    async def get_json(self, url: str, **options: Unpack[RequestOptions]) -> Any: ...  # Any: JSON

    @overload
    async def get_json(
        self, url: str, *, type: type[_T], **options: Unpack[RequestOptions]
    ) -> _T: ...

    async def get_json(
        self,
        url: str,
        *,
        type: Any = Any,  # noqa: A002 - as in Response.json
        **options: Unpack[RequestOptions],
    ) -> Any:
        """
        GET *url* and decode its JSON, into *type* if one is passed.

        :raises BadStatus: for any status but 200 to 299.
        :raises BodyMismatch: if the body is not JSON or does not fit *type*.
        """
        response = await self.request("GET", url, **options)
        return response.raise_for_status().json(type)

    @overload
    async def post_json(
        self,
        url: str,
        json: Any,  # Any: whatever msgspec encodes
        **options: Unpack[CommonRequestOptions],
    ) -> Any: ...

    @overload
    async def post_json(
        self,
        url: str,
        json: Any,
        *,
        type: type[_T],
        **options: Unpack[CommonRequestOptions],
    ) -> _T: ...

    async def post_json(
        self,
        url: str,
        json: Any,
        *,
        type: Any = Any,  # noqa: A002 - as in Response.json
        **options: Unpack[CommonRequestOptions],
    ) -> Any:
        """
        POST *json* to *url* and decode the JSON of the response; None for an empty body.

        :raises BadStatus: for any status but 200 to 299.
        :raises BodyMismatch: if the body is not JSON or does not fit *type*.
        """
        response = (await self.request("POST", url, json=json, **options)).raise_for_status()
        return response.json(type) if response.body else None

    @check_arguments
    def circuit_state(self, url: str) -> CircuitState:
        """
        Return the state of the circuit breaker of the origin of a URL.

        :param url: as :meth:`request` takes it.
        :raises InvalidURL: if it cannot be requested.
        """
        return self._agent.circuit_state(self._defaults.url(url))

    @check_arguments
    async def gather(
        self, calls: Iterable[str | Callable[[], Awaitable[_T]]], *, limit: int = 10
    ) -> list[Response | _T | FetchError]:
        """
        Make many calls, a limited number at a time, and return their results in order.

        The result of a call that fails with a :class:`~twisted_net.errors.FetchError` is that
        error. Any other exception is a bug: it cancels the other calls and is raised. Where many
        are answered at once, by the cache, they take several turns of the reactor.

        :param calls: each a URL to GET, or a function that makes a call, such as
            ``partial(client.get_json, url)``. The next one is taken from the iterable when it can
            start.
        :param limit: calls at a time, up to 1,000,000.
        :raises ValueError: for another limit.
        """
        checked_range(limit, "limit", 1, _MAX_AT_A_TIME)
        if isinstance(calls, str | bytes):
            raise TypeError("Client.gather: calls must be a list of URLs or functions, not text")
        return await gathered(calls, self.get, limit, self._reactor, self.pace.turns)

    def _call(self, options: RequestOptions, now: float | None = None) -> Call:
        """Return the terms of a call, from the settings and its options, which were checked."""
        now = self._reactor.seconds() if now is None else now
        call = self._agent.new_call(now)
        if not options:
            return call
        call.idempotent = options.get("idempotent")
        call.max_body = options.get("max_body", call.max_body)
        timeout = options.get("timeout")
        if "timeout" in options:
            total = total_timeout(timeout, self._settings.timeout)
            call.deadline = None if total is None else Deadline(now + total, total)
        if isinstance(timeout, Timeouts) or "proxy" in options or "progress" in options:
            call.overrides = self._agent.overrides(
                timeout if isinstance(timeout, Timeouts) else _NO_TIMEOUTS,
                routed="proxy" in options,
                proxy=options.get("proxy"),
                progress=options.get("progress"),
            )
        retries = options.get("retries")
        if isinstance(retries, RetryPolicy):
            call.retry = retries
        elif retries is not None:
            call.retry = _with_retries(call.retry, retries)
        if "hedge_after" in options:
            call.retry = _with_hedging(call.retry, options["hedge_after"])
        if not options.get("cache", True):
            call.rules = None
        elif call.rules is not None:
            if "default_ttl" in options:
                call.rules = call.rules.with_default_ttl(options["default_ttl"])
            if "stale_if_error" in options:
                call.rules = call.rules.with_stale_if_error(options["stale_if_error"])
        return call

    def _trace(self, begun: BegunCall) -> Trace:
        """Return what the response to a request that was sent directly is to know of it."""
        if begun.body is not None:
            return Trace(self._json_fields, begun.body.data)
        return self._direct_trace if begun.call.age is None else self._default_trace

    def _shown_error(self, error: BaseException) -> BaseException:
        """Return the error of a call for its caller."""
        if self._closed and isinstance(error, CancelledError):
            return ClientClosed()
        return error

    def _at_once(
        self, method: str, url: str, options: RequestOptions, started: float
    ) -> tuple[Response | None, HttpTarget | None]:
        """
        Return a fresh response from the cache, or None if the request needs any other work.

        For what returns None here, :meth:`_request` asks the cache too.

        :return: it, and the target where that is known.
        :raises CircuitOpen: if a request that is no GET would be refused.
        """
        try:
            target = parse_target(encode_url(url))
        except (InvalidURL, TypeError):
            # Or no text at all, which is refused with a sentence later.
            return None, None
        hit, key = None, target.url
        if method == "GET":
            hit = self._agent.fresh(key, self._default_fields, options.get("default_ttl"))
        if hit is None:
            if method != "GET":
                self._agent.check_circuit(target)
            return None, target
        if len(hit.body) > options.get("max_body", self._settings.max_body) or (
            300 <= hit.status < 400 and options.get("allow_redirects", True)
        ):
            return None, None
        response = Response(
            "GET",
            key,
            hit.status,
            hit.reason,
            hit.fields,
            hit.body,
            0,
            self._reactor.seconds() - started,
            hit.age,
            self._default_trace,
        )
        return response, None

    def _post_at_once(
        self, url: str, options: RequestOptions
    ) -> tuple[BegunCall | None, DirectGet | None]:
        """Begin to POST JSON, and send it if that takes no more than an idle connection."""
        try:
            target = parse_target(encode_url(url))
        except (InvalidURL, TypeError):
            return None, None  # as above
        now, body = self._reactor.seconds(), json_body(options["json"])
        call = self._call(options, now)
        call.buffer_body = True
        direct = self._agent.post_directly(target, self._json_fields, body, call, now)
        return BegunCall(call, now, body), direct

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> AsyncIterator[StreamedResponse]:
        """
        Make a request and return its response as soon as its header has arrived::

            async with client.stream("GET", url, max_body=2**40, timeout=None) as response:
                async for piece in response:
                    file.write(piece)

        At the end of the block the rest of the body is dropped. The limits are those of
        :meth:`request`: the deadline, which includes the reading, and ``max_body``. A body that
        breaks off is not requested again, since its beginning has been delivered.
        """
        if self._closed:
            raise ClientClosed
        check_options(options)
        check_target(method, url)
        if self._changes_urls or "params" in options:
            url = self._defaults.url(url, options.get("params"))
        opening = started(self._open_stream(method.upper(), url, options))
        self._calls.add(opening)
        try:
            response = await result_of(opening)
        except CancelledError:
            if self._closed:
                raise ClientClosed from None
            raise
        finally:
            self._calls.discard(opening)
        try:
            yield response
        finally:
            response.close()

    async def _open_stream(
        self, method: str, url: str, options: RequestOptions
    ) -> StreamedResponse:
        call = self._call(options)
        chain = self._chain(method, url, options, call)
        received = await chain.run(self._sender(chain, options))
        response = StreamedResponse(
            received,
            method=chain.method,
            url=call.url,
            headers=received.fields,
            attempts=call.attempts,
            age=call.age,
            trace=chain.trace(),
            pace=self.pace,
        )
        try:
            for hook in self._on_response:
                await completed(hook(response), self._reactor, call.deadline, call.url)
        except BaseException:
            response.close()
            raise
        return response

    async def _request(
        self, method: str, url: str, options: RequestOptions, begun: BegunCall | None
    ) -> Response:
        if begun is None:
            begun = BegunCall(self._call(options), self._reactor.seconds())
        call = begun.call
        call.buffer_body = True
        chain = self._chain(method, url, options, call, begun.body)
        received = await chain.run(self._sender(chain, options, begun))
        if isinstance(received, BufferedResponse):
            content = received.body
        else:
            content = b"" if received.length == 0 else (await result_of(collect(received)))[0]
        response = Response(
            method=chain.method,
            url=call.url,
            status=received.code,
            reason=received.phrase.decode("latin-1"),
            headers=received.fields,
            body=content,
            attempts=call.attempts,
            elapsed=self._reactor.seconds() - begun.at,
            age=call.age,
            trace=chain.trace(),
        )
        for hook in self._on_response:
            await completed(hook(response), self._reactor, call.deadline, call.url)
        return response

    def _chain(
        self,
        method: str,
        url: str,
        options: RequestOptions,
        call: Call,
        body: RequestBody | None = None,
    ) -> RequestChain:
        """Return the requests of a call, of which none is made yet; *body* is JSON to POST."""
        if method not in METHODS or not isinstance(url, str):
            check_target(method, url)
        url, credentials = split_credentials(url)
        auth: Auth | None = None
        if body is not None:
            fields = self._json_fields
        elif self._plain and credentials is None and options.keys() <= REQUEST_UNCHANGED:
            fields, body = self._default_fields, NO_BODY
        else:
            defaults = self._defaults
            trusted = defaults.trusts(url)
            headers = defaults.headers(options.get("headers"), trusted=trusted)
            auth = defaults.authorize(headers, options, credentials, trusted=trusted)
            body = request_body(options, headers)
            fields = header_fields(headers)
        redirects = self._settings.max_redirects if options.get("allow_redirects", True) else None
        return RequestChain(
            method, url, fields, body, call, self._reactor, auth, self._on_request, redirects
        )

    def _sender(
        self, chain: RequestChain, options: RequestOptions, begun: BegunCall | None = None
    ) -> RequestSender:
        cookies = options.get("cookies")
        kept = None
        if cookies or self._cookiejar is not None:
            kept = CallCookies(self._cookiejar, chain.url, cookies)
        send = self._agent.send if begun is None else begun.followed_by(self._agent.send)
        return RequestSender(send, chain.call, kept)
