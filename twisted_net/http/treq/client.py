"""treq's client, whose plain calls go straight to this package's agent."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from itertools import chain
from typing import Any, TypeVar, cast

from hyperlink import DecodedURL, EncodedURL
from treq import client as treq_client
from treq._types import (
    _NOTHING,
    _CookiesType,
    _DataType,
    _FilesType,
    _HeadersType,
    _ITreqReactor,
    _JSONType,
    _Nothing,
    _ParamsType,
    _SomeURL,
)
from treq.client import _coerced_query_params
from treq.cookies import IndexableCookieJar
from treq.response import _Response
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import (
    BrowserLikeRedirectAgent,
    ContentDecoderAgent,
    CookieAgent,
    GzipDecoder,
    RedirectAgent,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from typing_extensions import override

from twisted_net.http.agent import HTTPAgent
from twisted_net.http.treq.completing_agent import (
    REDIRECTS,
    AnsweredAgent,
    CompletingAgent,
    buffered_result,
    with_kept_body,
)

_T = TypeVar("_T")

MAX_KEPT_URLS = 1024
"""URLs of which the encoded form is kept."""

MAX_KEPT_URL = 1024
"""Characters of such a URL with its parameters; a longer one is encoded for each call."""


_IS_ENCODED = re.compile(
    # Names of which no label is too long, or has hyphens where an encoded one has them; ports
    # that are not left out.
    r"https?://(?=[a-z0-9.-]{1,63}[:/])[a-z0-9]+(?:[.-][a-z0-9]+)*(?::(?!80/|443/)[1-9][0-9]{0,4})?"
    r"/[A-Za-z0-9._~/-]*(?:\?[A-Za-z0-9._~-]+=[A-Za-z0-9._~-]+(?:&[A-Za-z0-9._~-]+=[A-Za-z0-9._~-]+)*)?"
).fullmatch
"""Whether a URL is certainly encoded as treq would do it; most are."""


class HTTPClient(treq_client.HTTPClient):
    """
    treq's client over an :class:`~twisted_net.http.agent.HTTPAgent`::

        client = HTTPClient(HTTPAgent(reactor))
        response = await client.get("https://example.com/", params={"page": "2"})
        text = await response.text()

    Its calls, their options and their responses are treq's. A call without ``data``, ``files``,
    ``json``, ``auth`` and ``cookies`` goes straight to the agent, without the agents that treq puts
    around it for each call. Redirects are followed by these, and all other calls are made by
    treq's code; the results are the same either way.

    Failures of a request are :class:`~twisted_net.errors.FetchError`, those of redirects are
    Twisted's. A response that the cache has served sets no cookies, and shows none.

    :param agent: as of treq. With any other agent this class does what treq's does.
    :param cookiejar: keeps the cookies of all calls, as with treq; by default one of treq's.
    :param data_to_body_producer: makes a body of ``data``, as with treq.
    """

    def __init__(
        self,
        agent: IAgent,
        cookiejar: IndexableCookieJar | None = None,
        data_to_body_producer: Callable[[Any], IBodyProducer] = IBodyProducer,  # Any: as treq's
    ) -> None:
        if isinstance(agent, HTTPAgent):
            agent = CompletingAgent(agent)
        super().__init__(agent, cookiejar, data_to_body_producer)

    @override
    def request(
        self,
        method: str,
        url: _SomeURL,
        *,
        params: _ParamsType | None = None,
        headers: _HeadersType | None = None,
        data: _DataType | None = None,
        files: _FilesType | None = None,
        json: _JSONType | _Nothing = _NOTHING,
        auth: tuple[str | bytes, str | bytes] | None = None,
        cookies: _CookiesType | None = None,
        allow_redirects: bool = True,
        browser_like_redirects: bool = False,
        unbuffered: bool = False,
        reactor: _ITreqReactor | None = None,
        timeout: float | None = None,
        _stacklevel: int = 2,
    ) -> Deferred[_Response]:
        """
        Make a request; see :func:`treq.request`.

        :param timeout: seconds until the response has begun, by the clock of *reactor*. The agent
            has a timeout for the whole call, too.
        """
        plain = (
            data is None
            and files is None
            and json is _NOTHING
            and auth is None
            and cookies is None
            and type(self._agent) is CompletingAgent
        )
        if plain:
            sent = self._request_headers(headers, _stacklevel + 1)
            # treq adds a coding to those of its caller.
            if not sent.hasHeader(b"accept-encoding"):
                if sent is headers:
                    sent = sent.copy()
                redirects: type[RedirectAgent] | None = None
                if allow_redirects:
                    redirects = (
                        BrowserLikeRedirectAgent if browser_like_redirects else RedirectAgent
                    )
                verb, uri = method.encode("ascii").upper(), _request_uri(url, params)
                received = self._plain(verb, uri, sent, redirects)
                return self._treq_response(received, unbuffered, timeout, reactor)
        return super().request(
            method,
            url,
            params=params,
            headers=headers,
            data=data,
            files=files,
            json=json,
            auth=auth,
            cookies=cookies,
            allow_redirects=allow_redirects,
            browser_like_redirects=browser_like_redirects,
            unbuffered=unbuffered,
            reactor=reactor,
            timeout=timeout,
            _stacklevel=_stacklevel + 1,
        )

    def _plain(
        self, method: bytes, uri: bytes, headers: Headers, redirects: type[RedirectAgent] | None
    ) -> Deferred[IResponse]:
        """Make a request without a body; *redirects* follows redirects, if any are followed."""
        agent = self._agent
        if next(iter(self._cookiejar), None) is not None:
            agent = CookieAgent(agent, self._cookiejar)
        received = agent.request(method, uri, headers)
        hit = buffered_result(received)
        if (
            hit is not None
            and (redirects is None or hit.code not in REDIRECTS)
            and hit.fields.has_none(("set-cookie", "content-encoding"))
        ):
            return received
        return received.addCallback(self._followed, method, uri, headers, redirects)

    def _followed(
        self,
        response: IResponse,
        method: bytes,
        uri: bytes,
        headers: Headers,
        redirects: type[RedirectAgent] | None,
    ) -> IResponse | Deferred[IResponse]:
        """Return *response* if it needs nothing of the agents of treq, or what they make of it."""
        found = response.headers
        if not (
            (redirects is not None and response.code in REDIRECTS)
            or found.hasHeader(b"set-cookie")
            # What is left of it was not decoded: the response to HEAD, say, or another coding.
            or (
                found.hasHeader(b"content-encoding") and response.code != HTTPStatus.PARTIAL_CONTENT
            )
        ):
            return response
        agent: IAgent = CookieAgent(AnsweredAgent(response, self._agent), self._cookiejar)
        if redirects is not None:
            agent = redirects(agent)
        agent = ContentDecoderAgent(agent, [(b"gzip", GzipDecoder)])
        followed: Deferred[IResponse] = agent.request(method, uri, headers)
        return followed

    def _treq_response(
        self,
        received: Deferred[IResponse],
        unbuffered: bool,
        timeout: float | None,
        clock: IReactorTime | None,
    ) -> Deferred[_Response]:
        """Return the response as treq's users have it, or cancel *received* after *timeout*."""
        hit = buffered_result(received)
        if hit is not None:
            return succeed(_Response(hit, self._cookiejar))
        if timeout and (not received.called or received.paused):
            _cancel_after(timeout, received, clock)
        if not unbuffered:
            received.addCallback(with_kept_body)
        return received.addCallback(_Response, self._cookiejar)


def _request_uri(url: _SomeURL, params: _ParamsType | None) -> bytes:
    """Return the URL to request, encoded and with *params* in its query, as treq does it."""
    if isinstance(url, DecodedURL):
        url = url.encoded_url
    pairs = tuple(_coerced_query_params(params)) if params else ()
    if isinstance(url, EncodedURL):
        return _encoded(url, pairs)
    text = url if isinstance(url, str) else url.decode("ascii")
    if not pairs and _IS_ENCODED(text):
        return text.encode("ascii")
    if len(text) + sum(map(len, chain.from_iterable(pairs))) <= MAX_KEPT_URL:
        return _encoded_text(text, pairs)
    return _encoded(EncodedURL.from_text(text), pairs)


@lru_cache(MAX_KEPT_URLS)
def _encoded_text(url: str, pairs: tuple[tuple[str, str], ...]) -> bytes:
    # Parsing takes twice as long as all else that is done for a cached response.
    return _encoded(EncodedURL.from_text(url), pairs)


def _encoded(url: EncodedURL, pairs: tuple[tuple[str, str], ...]) -> bytes:
    if pairs:
        url = url.replace(query=url.query + pairs)
    return url.to_uri().to_text().encode("ascii")


def _cancel_after(
    timeout: float, received: Deferred[IResponse], clock: IReactorTime | None
) -> None:
    """Cancel *received* after so many seconds, by the global reactor if *clock* is None."""
    if clock is None:
        # Which treq's users expect; only here, as the import may install one.
        from twisted.internet import reactor

        clock = cast(IReactorTime, reactor)
    timer = clock.callLater(timeout, received.cancel)

    def stop(result: _T) -> _T:
        if timer.active():
            timer.cancel()
        return result

    received.addBoth(stop)
