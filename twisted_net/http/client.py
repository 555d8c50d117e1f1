"""HTTP client: one coroutine per method, with retries, a cache, redirects, cookies and limits."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypedDict, TypeVar, Unpack, overload

import msgspec
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from typing_extensions import override

from twisted_net.config.type_checks import (
    check_arguments,
    checked_range,
    checked_seconds,
    mapping_check,
)
from twisted_net.errors import FetchError
from twisted_net.http.agent import HTTPAgent
from twisted_net.http.bodies import (
    BufferedResponse,
    collect,
    discard,
    header_fields,
    response_fields,
)
from twisted_net.http.call import Call, Deadline
from twisted_net.http.content_coding import ACCEPTED
from twisted_net.http.errors import ClientClosed, InvalidURL, TooManyRedirects
from twisted_net.http.fields import HeaderFields
from twisted_net.http.redirects import parse_redirect
from twisted_net.http.request import (
    RequestBody,
    RequestSender,
    apply_redirect,
    request_body,
)
from twisted_net.http.response import Response
from twisted_net.http.retry.settings import MAX_HEDGE_AFTER, MAX_RETRIES, RetryPolicy
from twisted_net.http.settings import HttpSettings
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
_MAX_BODY = 2**63 - 1


class CommonRequestOptions(TypedDict, total=False):
    """
    Options of a call, all but ``json``. The names are treq's, where treq has them.

    :ivar params: added to the query of the URL.
    :ivar headers: name to value, or to a list of values; they replace the client's own.
    :ivar data: sent as it is (bytes, or str as UTF-8), as a form (a mapping, or pairs), or from a
        file or another ``IBodyProducer``, which is sent once and never repeated.
    :ivar files: sent as ``multipart/form-data``, in treq's forms; never repeated.
    :ivar auth: user name and password (RFC 7617); those in the URL are used too.
    :ivar cookies: sent with this call only.
    :ivar timeout: seconds for the whole call; None for no limit.
    :ivar retries: their number, or a policy.
    :ivar idempotent: whether this request may be repeated; by default the policy decides.
    :ivar cache: False to bypass the cache.
    :ivar default_ttl: seconds that a response without a lifetime of its own is fresh.
    :ivar max_body: limit of the body in bytes.
    :ivar allow_redirects: False to get a redirect as the response.
    :ivar hedge_after: seconds after which an unanswered GET or HEAD is sent a second time beside
        the first.
    """

    params: Any  # Any: treq takes mappings and pairs of nearly anything
    headers: Mapping[str, str | Sequence[str]]
    data: Any  # Any: as described
    files: Any  # Any: treq's own forms
    auth: tuple[str, str]
    cookies: Mapping[str, str]
    timeout: float | None
    retries: int | RetryPolicy
    idempotent: bool
    cache: bool
    default_ttl: float | None
    max_body: int
    allow_redirects: bool
    hedge_after: float | None


class RequestOptions(CommonRequestOptions, total=False):
    """
    Options of a call.

    :ivar json: sent as JSON: anything that msgspec encodes.
    """

    json: Any  # Any: as described


OPTIONS = mapping_check(RequestOptions)
"""What the options of a call may be."""


@check_arguments
class Client(AbstractAsyncContextManager["Client"]):
    """
    Makes HTTP requests.

    Its methods are coroutines; in code with callbacks, wrap them:
    ``Deferred.fromCoroutine(client.get(url))``. Cancelling such a Deferred cancels the request.
    All failures of a call are :class:`~twisted_net.errors.FetchError`.

    By default it keeps cookies for one call with its redirects only, and every destination is
    allowed. Close it at the end, or use it in ``async with``.

    :param reactor: any of Twisted's, epoll or asyncio; the global reactor is not used.
    :param cookiejar: keeps cookies from one call to the next. It has no limit of its own.
    :param layers: arguments for :class:`~twisted_net.http.agent.HTTPAgent`, such as ``egress``.
    """

    def __init__(
        self,
        reactor: AnyReactor,
        settings: HttpSettings | None = None,
        *,
        cookiejar: IndexableCookieJar | None = None,
        **layers: Any,  # Any: as HTTPAgent types them
    ) -> None:
        reactor = full_reactor(reactor)
        self._reactor = steady(reactor)
        self.pace = Pace.of(self._reactor)
        self._settings = settings or HttpSettings()
        self._agent = HTTPAgent(reactor, self._settings, **layers)
        self._cookiejar = cookiejar
        # The header of a request without options, and the same as the cache reads it.
        self._default_headers = self._headers({}, None)
        self._default_fields = header_fields(self._default_headers)
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
        :param url: absolute; characters beyond ASCII are encoded.
        :raises TypeError: for an option that there is not, or of another type.
        :raises ValueError: for a number out of its bounds.
        """
        if self._closed:
            raise ClientClosed
        if options:
            # Here, as a fresh response from the cache needs no more of them.
            _check_options(options)
        method = method.upper()
        if method == "GET" and self._cookiejar is None:
            hit = self._hit(url, options)
            if hit is not None:
                return hit
        call = Deferred.fromCoroutine(self._request(method, url, options))
        self._calls.add(call)
        try:
            return await call
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
        results: list[Any] = []  # Any: None until the call is over
        remaining = iter(calls)
        exhausted = False

        async def work() -> None:
            nonlocal exhausted
            for call in remaining:
                index = len(results)
                results.append(None)
                try:
                    results[index] = await (self.get(call) if isinstance(call, str) else call())
                except FetchError as error:
                    results[index] = error
            exhausted = True

        workers: list[Deferred[None]] = []
        while len(workers) < limit and not exhausted:
            workers.append(Deferred.fromCoroutine(work()))
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
        if "timeout" in options:
            timeout = options["timeout"]
            call.deadline = (
                None if timeout is None else Deadline(self._reactor.seconds() + timeout, timeout)
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
        except InvalidURL:
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
        _check_options(options)
        call = self._call(options)
        opening = Deferred.fromCoroutine(self._follow(method.upper(), url, options, call))
        self._calls.add(opening)
        try:
            method, received = await opening
        except CancelledError:
            if self._closed:
                raise ClientClosed from None
            raise
        finally:
            self._calls.discard(opening)
        response = StreamedResponse(
            received,
            method=method,
            url=call.url,
            headers=_fields(received),
            attempts=call.attempts,
            age=call.age,
        )
        try:
            yield response
        finally:
            response.close()

    async def _request(self, method: str, url: str, options: RequestOptions) -> Response:
        started = self._reactor.seconds()
        call = self._call(options)
        call.buffer_body = True
        method, received = await self._follow(method, url, options, call)
        if isinstance(received, BufferedResponse):
            content = received.body
        else:
            content = b"" if received.length == 0 else (await collect(received))[0]
        return Response(
            method=method,
            url=call.url,
            status=received.code,
            reason=received.phrase.decode("latin-1"),
            headers=_fields(received),
            body=content,
            attempts=call.attempts,
            elapsed=self._reactor.seconds() - started,
            age=call.age,
        )

    async def _follow(
        self, method: str, url: str, options: RequestOptions, call: Call
    ) -> tuple[str, IResponse]:
        """Make a request and follow its redirects; return the last method and response."""
        url, credentials = split_credentials(url)
        if credentials is None and options.keys() <= _REQUEST_UNCHANGED:
            headers, body = self._default_headers, RequestBody()
        else:
            headers = self._headers(options, options.get("auth", credentials))
            body = request_body(options, headers)
        sender = RequestSender(
            self._agent.for_call(call),
            call,
            self._reactor,
            self._cookiejar,
            url,
            options.get("cookies"),
        )
        for _ in range(self._settings.max_redirects + 1):
            received = await sender.send(method, url, headers, body)
            redirect = None
            if 300 <= received.code < 400 and options.get("allow_redirects", True):
                location = response_fields(received).first("location")
                redirect = parse_redirect(method, call.url, received.code, location)
            if redirect is None or (redirect.with_body and not body.replayable):
                return method, received
            discard(received)
            method, url = redirect.method, redirect.url
            headers, body = apply_redirect(redirect, headers, body)
        raise TooManyRedirects(self._settings.max_redirects)

    def _headers(self, options: RequestOptions, credentials: tuple[str, str] | None) -> Headers:
        headers = Headers()
        for name, value in options.get("headers", {}).items():
            headers.setRawHeaders(name, [value] if isinstance(value, str) else list(value))
        if not headers.hasHeader("user-agent"):
            headers.setRawHeaders("User-Agent", [self._settings.user_agent])
        if not headers.hasHeader("accept"):
            headers.setRawHeaders("Accept", ["application/json"])
        if not headers.hasHeader("accept-encoding"):
            headers.setRawHeaders("Accept-Encoding", [ACCEPTED])
        if credentials is not None and not headers.hasHeader("authorization"):
            token = base64.b64encode(":".join(credentials).encode()).decode()
            headers.setRawHeaders("Authorization", [f"Basic {token}"])
        return headers


def _check_options(options: RequestOptions) -> None:
    """
    Check the options of a call, which type checkers see, but Python does not.

    :raises TypeError, ValueError: as :meth:`Client.request` does.
    """
    OPTIONS.check("Client", (), options)
    for seconds, name in (
        (options.get("timeout"), "timeout"),
        (options.get("default_ttl"), "default_ttl"),
    ):
        if seconds is not None:
            checked_seconds(seconds, name)
    checked_range(options.get("max_body", 0), "max_body", 0, _MAX_BODY)
    # As the policy has them, which is made only for what the cache does not answer.
    retries, hedge_after = options.get("retries"), options.get("hedge_after")
    if isinstance(retries, int):
        checked_range(retries, "retries", 0, MAX_RETRIES)
    if hedge_after is not None and not 0 < hedge_after <= MAX_HEDGE_AFTER:
        raise ValueError(
            f"hedge_after must be above 0 and up to {MAX_HEDGE_AFTER} seconds, not {hedge_after}"
        )
    auth = options.get("auth")
    if auth is not None and (len(auth) != 2 or not all(isinstance(word, str) for word in auth)):
        raise TypeError("Client: auth must be a user name and a password, both text")


def _fields(response: IResponse) -> HeaderFields:
    """Return the fields of a response, without the empty ``Content-Encoding`` that treq adds."""
    fields = response_fields(response)
    return fields.without(["content-encoding"]) if fields.get("content-encoding") == "" else fields
