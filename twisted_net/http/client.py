"""HTTP client: one coroutine per method, with retries, a cache, redirects, cookies and limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, TypeVar, overload

import msgspec
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IHostnameResolver
from twisted.web.iweb import IAgent, IPolicyForHTTPS
from typing_extensions import Unpack, override

from twisted_net.config.type_checks import check_arguments, checked_range, shown
from twisted_net.errors import FetchError
from twisted_net.http.agent import HTTPAgent
from twisted_net.http.bodies import BufferedResponse, collect, complete_fields, header_fields
from twisted_net.http.cache.entry import CACHE_RELEVANT_FIELDS
from twisted_net.http.cache.stores import Store
from twisted_net.http.call import Call, Deadline
from twisted_net.http.calls.authentication import Auth
from twisted_net.http.calls.body import NO_BODY, Form, request_body
from twisted_net.http.calls.chain import RequestChain
from twisted_net.http.calls.cookies import BoundedCookieJar, CallCookies
from twisted_net.http.calls.defaults import ClientDefaults, HeaderOption
from twisted_net.http.calls.hooks import RequestHook, ResponseHook, completed, hooks_of
from twisted_net.http.calls.options import (
    METHODS,
    OPTIONS,
    CommonRequestOptions,
    RequestOptions,
    check_options,
    check_target,
    total_timeout,
)
from twisted_net.http.calls.outcomes import result_of, started
from twisted_net.http.calls.synonyms import (
    CLIENT_ATTRIBUTE_SYNONYMS,
    client_synonyms,
    unknown_attribute,
)
from twisted_net.http.calls.timeouts import Timeouts
from twisted_net.http.errors import ClientClosed, InvalidURL
from twisted_net.http.request import RequestSender
from twisted_net.http.response import Response, Trace
from twisted_net.http.retry.policy import Attempt
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import EgressPolicy, HttpSettings
from twisted_net.http.streaming import StreamedResponse
from twisted_net.http.urls import encode_url, parse_target, split_credentials
from twisted_net.net.reactor import AnyReactor, full_reactor
from twisted_net.net.steady_clock import steady
from twisted_net.turns.paced_reads import Pace

_T = TypeVar("_T")

# Options that do not change the request itself: with these alone a fresh response from the cache
# can be returned at once.
_REQUEST_UNCHANGED = frozenset(
    {
        "params",  # in the URL by then
        "timeout",
        "retries",
        "idempotent",
        "allow_redirects",
        "default_ttl",
        "max_body",
        "hedge_after",
    }
)

_MAX_AT_A_TIME = 1_000_000
_NO_TIMEOUTS = Timeouts()


class LayerOptions(TypedDict, total=False):
    """Arguments of a client that :class:`~twisted_net.http.agent.HTTPAgent` takes as well."""

    egress: EgressPolicy | None
    store: Store | None
    agent: IAgent | None
    resolver: IHostnameResolver | None
    tls_policy: IPolicyForHTTPS | None
    chance: Callable[[], float]
    wall: Callable[[], float]
    report: Callable[[Attempt], None]
    environ: Mapping[str, str]


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
    :param layers: arguments for :class:`~twisted_net.http.agent.HTTPAgent`, such as ``egress``.
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
        **layers: Unpack[LayerOptions],
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
        self._agent = HTTPAgent(reactor, settings, **layers)
        self._cookiejar = BoundedCookieJar() if cookies else cookiejar
        # What a request without options has, and the same as the cache reads it.
        self._default_trace = Trace(self._defaults.headers(None), set_cookies=())
        self._default_fields = header_fields(self._default_trace.headers)
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

    if not TYPE_CHECKING:
        # Type checkers know what there is.
        def __getattr__(self, name: str) -> NoReturn:
            """Raise an error with what others call so."""
            raise unknown_attribute(self, name, CLIENT_ATTRIBUTE_SYNONYMS)

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
        if method == "GET" and self._asks_cache_first:
            hit = self._hit(url, options)
            if hit is not None:
                return hit
        call = started(self._request(method, url, options))
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
    async def gather(
        self, calls: Iterable[str | Callable[[], Awaitable[_T]]], *, limit: int = 10
    ) -> list[Response | _T | FetchError]:
        """
        Make many calls, a limited number at a time, and return their results in order.

        The result of a call that fails with a :class:`~twisted_net.errors.FetchError` is that
        error. Any other exception is a bug: it cancels the other calls and is raised.

        :param calls: each a URL to GET, or a function that makes a call, such as
            ``partial(client.get_json, url)``. The next one is taken from the iterable when it can
            start.
        :param limit: calls at a time, up to 1,000,000.
        :raises ValueError: for another limit.
        """
        checked_range(limit, "limit", 1, _MAX_AT_A_TIME)
        if isinstance(calls, str | bytes):
            raise TypeError("Client.gather: calls must be a list of URLs or functions, not text")
        results: list[Any] = []  # Any: None until the call is over
        remaining = iter(calls)
        exhausted = False

        async def work() -> None:
            nonlocal exhausted
            for call in remaining:
                index = len(results)
                results.append(None)
                if not isinstance(call, str) and not callable(call):
                    raise TypeError(
                        "Client.gather: each call must be a URL or a function that makes it, such"
                        f" as partial(client.get, url, timeout=5), not {shown(call)}"
                    )
                try:
                    results[index] = await (self.get(call) if isinstance(call, str) else call())
                except FetchError as error:
                    results[index] = error.with_traceback(None)  # its frames keep the results
            exhausted = True

        workers: list[Deferred[None]] = []
        while len(workers) < limit and not exhausted:
            workers.append(started(work()))
        try:
            await gatherResults(workers, consumeErrors=True)
        except FirstError as first:
            for worker in workers:
                worker.cancel()
            first.subFailure.raiseException()
        return results

    def _call(self, options: RequestOptions) -> Call:
        """Return the terms of a call, from the settings and its options, which were checked."""
        call = self._agent.new_call()
        call.idempotent = options.get("idempotent")
        call.max_body = options.get("max_body", call.max_body)
        timeout = options.get("timeout")
        if "timeout" in options:
            total = total_timeout(timeout, self._settings.timeout)
            call.deadline = (
                None if total is None else Deadline(self._reactor.seconds() + total, total)
            )
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
            call.retry = msgspec.structs.replace(call.retry, retries=retries)
        if "hedge_after" in options:
            call.retry = msgspec.structs.replace(call.retry, hedge_after=options["hedge_after"])
        if not options.get("cache", True):
            call.rules = None
        elif "default_ttl" in options and call.rules is not None:
            call.rules = call.rules.with_default_ttl(options["default_ttl"])
        return call

    def _hit(self, url: str, options: RequestOptions) -> Response | None:
        """
        Return a fresh response from the cache, or None if the request needs any other work.

        For what returns None here, :meth:`_request` asks the cache too.
        """
        started = self._reactor.seconds()
        if not options.keys() <= _REQUEST_UNCHANGED:
            return None
        try:
            key = parse_target(encode_url(url)).url
        except (InvalidURL, TypeError):
            # Or no text at all, which is refused with a sentence later.
            return None
        hit = self._agent.fresh(key, self._default_fields, options.get("default_ttl"))
        if (
            hit is None
            or len(hit.body) > options.get("max_body", self._settings.max_body)
            or (300 <= hit.status < 400 and options.get("allow_redirects", True))
        ):
            return None
        return Response(
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
            headers=complete_fields(received, chain.method),
            attempts=call.attempts,
            age=call.age,
            trace=chain.trace(),
            pace=self.pace,
        )
        try:
            for hook in self._on_response:
                await completed(hook(response), self._reactor, call.deadline)
        except BaseException:
            response.close()
            raise
        return response

    async def _request(self, method: str, url: str, options: RequestOptions) -> Response:
        started = self._reactor.seconds()
        call = self._call(options)
        call.buffer_body = True
        chain = self._chain(method, url, options, call)
        received = await chain.run(self._sender(chain, options))
        if isinstance(received, BufferedResponse):
            content = received.body
        else:
            content = b"" if received.length == 0 else (await result_of(collect(received)))[0]
        response = Response(
            method=chain.method,
            url=call.url,
            status=received.code,
            reason=received.phrase.decode("latin-1"),
            headers=complete_fields(received, chain.method),
            body=content,
            attempts=call.attempts,
            elapsed=self._reactor.seconds() - started,
            age=call.age,
            trace=chain.trace(),
        )
        for hook in self._on_response:
            await completed(hook(response), self._reactor, call.deadline)
        return response

    def _chain(self, method: str, url: str, options: RequestOptions, call: Call) -> RequestChain:
        """Return the requests of a call, of which none is made yet."""
        if method not in METHODS or not isinstance(url, str):
            check_target(method, url)
        url, credentials = split_credentials(url)
        auth: Auth | None = None
        if self._plain and credentials is None and options.keys() <= _REQUEST_UNCHANGED:
            headers, body = self._default_trace.headers, NO_BODY
        else:
            defaults = self._defaults
            trusted = defaults.trusts(url)
            headers = defaults.headers(options.get("headers"), trusted=trusted)
            auth = defaults.authorize(headers, options, credentials, trusted=trusted)
            body = request_body(options, headers)
        redirects = self._settings.max_redirects if options.get("allow_redirects", True) else None
        return RequestChain(
            method, url, headers, body, call, self._reactor, auth, self._on_request, redirects
        )

    def _sender(self, chain: RequestChain, options: RequestOptions) -> RequestSender:
        cookies = options.get("cookies")
        kept = None
        if cookies or self._cookiejar is not None:
            kept = CallCookies(self._cookiejar, chain.url, cookies)
        return RequestSender(self._agent.for_call(chain.call), chain.call, kept)
