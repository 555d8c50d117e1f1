"""The HTTP client: the verbs that people expect, awaitable, with retries, a cache and limits."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypedDict, TypeVar, Unpack, overload

import msgspec
from attrs import field, frozen
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

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
from twisted_net.http.errors import (
    BadStatus,
    BodyMismatch,
    ClientClosed,
    InvalidURL,
    TooManyRedirects,
)
from twisted_net.http.fields import HeaderFields
from twisted_net.http.redirects import parse_redirect
from twisted_net.http.request import (
    RequestBody,
    RequestSender,
    apply_redirect,
    encode_url,
    request_body,
)
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import HttpSettings
from twisted_net.http.streaming import StreamedResponse
from twisted_net.http.urls import parse_target, redact, split_credentials

_T = TypeVar("_T")

# Options that change nothing about what the cache may answer, or that are looked at there.
_NO_MATTER = frozenset(
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

EXCERPT = 200
"""Characters of a body that :class:`~twisted_net.http.errors.BadStatus` carries."""


class CommonRequestOptions(TypedDict, total=False):
    """
    What may be said of one call. The names are treq's, where treq has them.

    :ivar params: added to the query of the URL.
    :ivar headers: name to value, or to a list of values; they replace the client's own.
    :ivar data: sent as it is (bytes, or str as UTF-8), as a form (a mapping, or pairs), or from a
        file or another ``IBodyProducer``; the latter are sent once and never again.
    :ivar files: sent as ``multipart/form-data``, as treq takes them; sent once.
    :ivar auth: user name and password (RFC 7617). Those in the URL are taken as well.
    :ivar cookies: sent with this call only.
    :ivar timeout: seconds for the whole call; None for no limit.
    :ivar retries: how many, or a policy.
    :ivar idempotent: whether this request may be repeated; without, the policy decides.
    :ivar cache: False to leave the cache alone.
    :ivar default_ttl: seconds that an answer is fresh which does not say so itself.
    :ivar max_body: most bytes of the body.
    :ivar allow_redirects: False to be given a redirect as the response.
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
    What may be said of one request.

    :ivar json: sent as JSON: anything that msgspec encodes.
    """

    json: Any  # Any: as described


@frozen(slots=True)
class Response:
    """
    A response with its body.

    :param method: of the last request, after redirects; :param url: likewise, without
        credentials in its authority.
    :param body: decompressed.
    :param age: seconds since the origin made or confirmed it, where it came from the cache.
    :param attempts: requests that went over the network for this call; 0 where a fresh answer
        lay in the cache.
    :param elapsed: seconds that the whole call took.
    """

    method: str
    url: str
    status: int
    reason: str
    headers: HeaderFields
    body: bytes = field(repr=False)
    attempts: int
    elapsed: float
    age: float | None

    @property
    def from_cache(self) -> bool:
        """Whether the body came from the cache, confirmed by its server or not."""
        return self.age is not None

    @property
    def ok(self) -> bool:
        """Whether the status is one of success, 200 to 299."""
        return 200 <= self.status < 300

    def text(self) -> str:
        """
        Decode the body by the charset that the response names, or else as UTF-8.

        What cannot be decoded becomes U+FFFD.
        """
        parameters = self.headers.get("content-type", "").split(";")[1:]
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset":
                try:
                    return self.body.decode(value.strip().strip("\"'"), "replace")
                except (LookupError, ValueError):
                    break
        return self.body.decode("utf-8", "replace")

    @overload
    def json(self) -> Any: ...  # Any: JSON is of any form

    @overload
    def json(self, type: type[_T]) -> _T: ...

    def json(self, type: Any = Any) -> Any:  # noqa: A002 - msgspec's word; typed by the overloads
        """
        Decode the body as JSON, into *type* if one is given.

        :param type: anything that msgspec decodes into.
        :raises BodyMismatch: where it is no JSON, or does not fit, saying where.
        """
        try:
            return msgspec.json.decode(self.body.removeprefix(b"\xef\xbb\xbf"), type=type)
        except msgspec.DecodeError as error:
            raise BodyMismatch(f"the body from {redact(self.url)}: {error}") from None
        except RecursionError:
            raise BodyMismatch(f"the body from {redact(self.url)} is nested too deep") from None

    def raise_for_status(self) -> Response:
        """
        Give this response, if its status is one of success.

        :raises BadStatus: for any status but 200 to 299.
        """
        if self.ok:
            return self
        raise BadStatus(
            self.status,
            self.reason,
            redact(self.url),
            self.headers,
            self.text()[:EXCERPT],
        )


class Client:
    """
    Makes HTTP requests.

    Its verbs are coroutines; in code with callbacks, wrap them:
    ``Deferred.fromCoroutine(client.get(url))``. Cancelling such a Deferred cancels the request.
    A call fails with a :class:`~twisted_net.errors.FetchError`, whatever goes wrong on the way.

    By default it keeps no cookies beyond one call with its redirects, and goes everywhere. Close
    it at the end, or use it in ``async with``.

    :param reactor: any, epoll or asyncio; the global one is never touched.
    :param cookiejar: keeps cookies from one call to the next. Whoever gives one bounds it.
    :param layers: arguments for :class:`~twisted_net.http.agent.HTTPAgent`, such as ``egress``.
    """

    def __init__(
        self,
        reactor: Any,  # Any: several interfaces of Twisted's reactors in one
        settings: HttpSettings | None = None,
        *,
        cookiejar: IndexableCookieJar | None = None,
        **layers: Any,  # Any: as HTTPAgent types them
    ) -> None:
        self._reactor = reactor
        self._settings = settings or HttpSettings()
        self._agent = HTTPAgent(reactor, self._settings, **layers)
        self._cookiejar = cookiejar
        # The header of a request without options, as the cache sees it.
        self._usual_headers = self._headers({}, None)
        self._usual = header_fields(self._usual_headers)
        self._calls: set[Deferred[Any]] = set()  # Any: of responses of both kinds
        self._closed = False

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """
        Cancel what is under way, close all connections, forget the cache.

        Calls under way fail with :class:`~twisted_net.http.errors.ClientClosed`, and so do all
        after it. When it returns, no connection is open and no timer runs. Closing twice is
        harmless.
        """
        if self._closed:
            return
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        await self._agent.close()

    async def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Response:
        """
        Make a request and give its response with the whole body, whatever its status.

        :param method: in any case.
        :param url: absolute; what is not ASCII is encoded.
        """
        if self._closed:
            raise ClientClosed
        method = method.upper()
        if method == "GET" and self._cookiejar is None:
            hit = self._hit(url, options)
            if hit is not None:
                return hit
        made = Deferred.fromCoroutine(self._request(method, url, options))
        self._calls.add(made)
        try:
            return await made
        except CancelledError:
            if self._closed:
                raise ClientClosed from None
            raise
        finally:
            self._calls.discard(made)

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
        GET *url* and decode its JSON, into *type* if one is given.

        :raises BadStatus: for any status but 200 to 299.
        :raises BodyMismatch: where the body is no JSON or does not fit.
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
        POST *json* to *url* and decode the JSON that comes back; None where nothing does.

        :raises BadStatus: for any status but 200 to 299.
        :raises BodyMismatch: where the body is no JSON or does not fit.
        """
        response = (await self.request("POST", url, json=json, **options)).raise_for_status()
        return response.json(type) if response.body else None

    async def gather(
        self, calls: Iterable[str | Callable[[], Awaitable[_T]]], *, limit: int = 10
    ) -> list[Response | _T | FetchError]:
        """
        Make many calls, some at a time, and give what each came to, in their order.

        A call that fails with a :class:`~twisted_net.errors.FetchError` has that error in its
        place. Any other exception is a bug: it ends the others and is raised.

        :param calls: each a URL to GET, or a function that makes a call, such as
            ``partial(client.get_json, url)``; taken from the iterable one by one, when there is
            room.
        :param limit: most calls at a time.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        results: list[Any] = []  # Any: a place is None until its call is over
        waiting = iter(calls)

        async def work() -> None:
            for call in waiting:
                place = len(results)
                results.append(None)
                try:
                    results[place] = await (self.get(call) if isinstance(call, str) else call())
                except FetchError as error:
                    results[place] = error

        workers = [Deferred.fromCoroutine(work()) for _ in range(limit)]
        try:
            await gatherResults(workers, consumeErrors=True)
        except FirstError as first:
            for worker in workers:
                worker.cancel()
            first.subFailure.raiseException()
        return results

    def _call(self, options: RequestOptions) -> Call:
        """The terms of a call, from the settings and its options."""
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
            call.rules = call.rules.with_default(options["default_ttl"])
        return call

    def _hit(self, url: str, options: RequestOptions) -> Response | None:
        """
        Give a response that lies fresh in the cache, if nothing else need be looked at.

        What this passes over, :meth:`_request` answers, from the cache or not.
        """
        started = self._reactor.seconds()
        if not options.keys() <= _NO_MATTER:
            return None
        try:
            key = parse_target(encode_url(url)).url
        except InvalidURL:
            return None
        hit = self._agent.fresh(key, self._usual, options.get("default_ttl"))
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
        Make a request and give its response when the header is there, its body still to come::

            async with client.stream("GET", url, max_body=2**40, timeout=None) as response:
                async for piece in response:
                    file.write(piece)

        At the end of the block what is left of the body is dropped. The limits are those of
        :meth:`request`: the whole time, the reading included, and ``max_body``. A body that breaks
        off is not asked for again, since its beginning has been given.
        """
        if self._closed:
            raise ClientClosed
        call = self._call(options)
        opening = Deferred.fromCoroutine(self._follow(method.upper(), url, options, call))
        self._calls.add(opening)
        try:
            method, answer = await opening
        except CancelledError:
            if self._closed:
                raise ClientClosed from None
            raise
        finally:
            self._calls.discard(opening)
        response = StreamedResponse(
            answer,
            method=method,
            url=call.url,
            headers=_fields(answer),
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
        method, answer = await self._follow(method, url, options, call)
        if isinstance(answer, BufferedResponse):
            content = answer.body
        else:
            content = b"" if answer.length == 0 else (await collect(answer))[0]
        return Response(
            method=method,
            url=call.url,
            status=answer.code,
            reason=answer.phrase.decode("latin-1"),
            headers=_fields(answer),
            body=content,
            attempts=call.attempts,
            elapsed=self._reactor.seconds() - started,
            age=call.age,
        )

    async def _follow(
        self, method: str, url: str, options: RequestOptions, call: Call
    ) -> tuple[str, IResponse]:
        """Make a request and follow its redirects; give the last method and response."""
        url, credentials = split_credentials(url)
        if credentials is None and options.keys() <= _NO_MATTER:
            headers, body = self._usual_headers, RequestBody()
        else:
            headers = self._headers(options, options.get("auth", credentials))
            body = request_body(options, headers)
        sender = RequestSender(
            self._agent.bound_to(call),
            self._reactor,
            self._cookiejar,
            url,
            options.get("cookies"),
        )
        for _ in range(self._settings.max_redirects + 1):
            answer = await sender.send(method, url, headers, body)
            hop = None
            if 300 <= answer.code < 400 and options.get("allow_redirects", True):
                location = response_fields(answer).first("location")
                hop = parse_redirect(method, call.url, answer.code, location)
            if hop is None or (hop.with_body and not body.replayable):
                return method, answer
            discard(answer)
            method, url = hop.method, hop.url
            headers, body = apply_redirect(hop, headers, body)
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


def _fields(response: IResponse) -> HeaderFields:
    """The fields of a response, without the empty ``Content-Encoding`` that treq adds."""
    fields = response_fields(response)
    return fields.without(["content-encoding"]) if fields.get("content-encoding") == "" else fields
