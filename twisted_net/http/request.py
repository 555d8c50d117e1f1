"""Requests of the client: body, cookies, and sending with or without treq."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, cast

import msgspec
from attrs import frozen
from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar, scoped_cookie
from twisted.internet.defer import Deferred, succeed
from twisted.web.client import CookieAgent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from typing_extensions import override

from twisted_net.http.agent_layer import AgentLayer, AgentRequest
from twisted_net.http.bodies import (
    BodyResponse,
    BytesProducer,
    body_producer,
    response_fields,
)
from twisted_net.http.call import Call
from twisted_net.http.redirects import ORIGIN_FIELDS, Redirect
from twisted_net.http.urls import encode_url, parse_target
from twisted_net.net.reactor import Reactor

MAX_COOKIES, MAX_COOKIE_SIZE, MAX_COOKIE_ATTRIBUTES = 64, 4096, 16
"""
Cookies that one response may set, their bytes, and what each may have beside its value.

A browser need keep no more of a host than 50, and of 4096 bytes (RFC 6265 §6.1). Python's cookie
jar takes some 100 us for one, and 6 us for each attribute, or what it takes for one.
"""


@frozen(slots=True)
class RequestBody:
    """The content of a request, as arguments of treq."""

    params: Any = None  # Any: as in RequestOptions
    data: Any = None
    files: Any = None

    @property
    def is_plain(self) -> bool:
        """Whether it can be sent without treq: there is no query to add, no form and no file."""
        return (
            not self.params and not self.files and (self.data is None or type(self.data) is bytes)
        )

    @property
    def replayable(self) -> bool:
        """Whether it can be sent again, unlike a body that is read from a file."""
        return not self.files and (
            self.data is None or isinstance(self.data, (bytes, dict, list, tuple))
        )


def request_body(options: Mapping[str, Any], headers: Headers) -> RequestBody:
    """Return the body for the options; for JSON its type is added to *headers*."""
    data = options.get("data")
    if "json" in options:
        if data is not None or options.get("files"):
            raise TypeError("json cannot be combined with data or files")
        data = msgspec.json.encode(options["json"])
        if not headers.hasHeader("content-type"):
            headers.setRawHeaders("Content-Type", ["application/json"])
    elif isinstance(data, str):
        data = data.encode()
    return RequestBody(options.get("params"), data, options.get("files"))


class _EncodedUrl(EncodedURL):
    """
    A URL that is encoded already, which treq sends as it is.

    treq asks it for scheme, host and port, for its cookies, and to add parameters. It encodes the
    host of every other URL as a name, which takes more time than all other work and fails for IPv6
    addresses and names with an underscore; and it drops a ``?`` without a query.
    """

    _text: str

    @classmethod
    def of(cls, url: str) -> _EncodedUrl:
        """
        Encode *url*.

        :raises InvalidURL: as :func:`~twisted_net.http.urls.parse_target` does.
        """
        target = parse_target(encode_url(url))
        made = cls(target.scheme, target.host, port=target.port)
        made._text = target.url
        return made

    @override
    def replace(self, *, query: Iterable[tuple[str, str]]) -> _EncodedUrl:  # type: ignore[override]
        """Return it with parameters added, which treq has encoded; it replaces nothing else."""
        added = "&".join(f"{name}={value}" for name, value in query)
        mark = "" if self._text.endswith(("?", "&")) else "&" if "?" in self._text else "?"
        return self.of(f"{self._text}{mark}{added}")

    @override
    def to_uri(self) -> _EncodedUrl:
        return self

    @override
    def to_text(self, with_password: bool = False) -> str:
        return self._text


def apply_redirect(
    redirect: Redirect, headers: Headers, body: RequestBody
) -> tuple[Headers, RequestBody]:
    """Return the header and body of the request that follows a redirect."""
    headers = headers.copy()
    if not redirect.same_origin:
        for name in ORIGIN_FIELDS:
            headers.removeHeader(name)
    if redirect.with_body:
        # The new URL has its own query.
        return headers, RequestBody(None, body.data, body.files)
    for name in ("content-type", "content-language", "content-location", "content-encoding"):
        headers.removeHeader(name)
    return headers, RequestBody()


class _CallCookies:
    """
    The cookies of one call: those of the client's jar, and those for this call only.

    treq would keep the latter in the client's jar.
    """

    def __init__(self, kept: IndexableCookieJar | None) -> None:
        self._kept = kept
        self.jar = IndexableCookieJar()
        for cookie in kept or ():
            self.jar.set_cookie(cookie)
        self._own: set[int] = set()

    def add(self, url: str, cookies: Mapping[str, str]) -> None:
        """Send *cookies* to the origin of *url*, in this call only."""
        for name, value in cookies.items():
            cookie = scoped_cookie(_EncodedUrl.of(url), name, value)
            self.jar.set_cookie(cookie)
            self._own.add(id(cookie))

    def save(self) -> None:
        """Save the cookies that servers have set in the client's jar, and delete those deleted."""
        if self._kept is None:
            return
        now = list(self.jar)
        names = {(cookie.domain, cookie.path, cookie.name) for cookie in now}
        for cookie in list(self._kept):
            if (cookie.domain, cookie.path, cookie.name) not in names:
                self._kept.clear(cookie.domain, cookie.path, cookie.name)
        for cookie in now:
            if id(cookie) not in self._own:
                self._kept.set_cookie(cookie)


class _AgentForTreq(AgentLayer):
    """
    Sends what treq has built, and shows treq no more of the response than its cookies.

    Only those count that came over the network: a stored ``Set-Cookie`` is one that the jar has
    had already, and would bring back a cookie that was changed or deleted since.

    :ivar response: the last response.
    """

    def __init__(self, agent: IAgent, call: Call) -> None:
        self._agent = agent
        self._call = call
        self.response: IResponse | None = None

    @override
    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        return request.send(self._agent).addCallback(self._received)

    def _received(self, response: IResponse) -> IResponse:
        self.response = response
        return _with_cookies_only(response, self._call)


def _with_cookies_only(response: IResponse, call: Call) -> IResponse:
    """Return a response with the usual cookies that came over the network, and nothing else."""
    cookies = call.set_cookies
    if cookies is None:
        cookies = response_fields(response).get_all("set-cookie")
    headers = Headers()
    for cookie in usual_cookies(cookies):
        headers.addRawHeader(b"Set-Cookie", cookie.encode("latin-1"))
    return BodyResponse.like(response, response.deliverBody, headers=headers)


def usual_cookies(lines: Iterable[str]) -> list[str]:
    """
    Return the cookies that somebody keeps.

    Others are those after the first :data:`MAX_COOKIES`, and those with more than
    :data:`MAX_COOKIE_SIZE` bytes or :data:`MAX_COOKIE_ATTRIBUTES`.

    :param lines: values of ``Set-Cookie``, decoded as Latin-1.
    """
    usual = (
        line
        for line in lines
        if len(line) <= MAX_COOKIE_SIZE and line.count(";") <= MAX_COOKIE_ATTRIBUTES
    )
    return list(islice(usual, MAX_COOKIES))


class RequestSender:
    """
    Sends the requests of one call.

    treq builds a request that needs it: for a query to add, a form, a file or cookies. That takes
    more time than the rest of sending, so all other requests are sent without it.

    :param agent: sends the requests of *call*.
    :param kept: the client's cookie jar, if it has one.
    """

    def __init__(
        self,
        agent: IAgent,
        call: Call,
        reactor: Reactor,
        kept: IndexableCookieJar | None,
        url: str,
        cookies: Mapping[str, str] | None,
    ) -> None:
        self._agent = agent
        self._call = call
        self._reactor = reactor
        self._jar: _CallCookies | None = None
        if kept is not None or cookies:
            self._jar = _CallCookies(kept)
            self._jar.add(url, cookies or {})

    async def send(self, method: str, url: str, headers: Headers, body: RequestBody) -> IResponse:
        """Make one request and return its response; its cookies are sent with the next request."""
        if self._jar is None:
            if body.is_plain:
                return await self._send_plainly(method, url, headers, body)
            self._jar = _CallCookies(None)
        agent = _AgentForTreq(self._agent, self._call)
        await HTTPClient(agent, self._jar.jar, body_producer).request(
            method,
            _EncodedUrl.of(url),
            params=body.params,
            headers=headers.copy(),
            data=body.data,
            files=body.files,
            allow_redirects=False,
            unbuffered=True,
            # Without it treq would import the global reactor. Any: treq has a type of its own.
            reactor=cast(Any, self._reactor),
        )
        self._jar.save()
        assert agent.response is not None
        return agent.response

    async def _send_plainly(
        self, method: str, url: str, headers: Headers, body: RequestBody
    ) -> IResponse:
        verb, uri = method.encode("ascii"), parse_target(encode_url(url)).url.encode("ascii")
        # As treq does, an empty body is sent as none.
        producer = BytesProducer(body.data) if body.data else None
        response = await self._agent.request(verb, uri, headers, producer)
        if response.headers.hasHeader(b"set-cookie"):
            shown = _with_cookies_only(response, self._call)
            if shown.headers.hasHeader(b"set-cookie"):
                self._jar = _CallCookies(None)
                # CookieAgent stores the cookies of the response.
                await CookieAgent(_CannedAgent(shown), self._jar.jar).request(verb, uri, headers)
        return response


class _CannedAgent(AgentLayer):
    """Answers every request with one response."""

    def __init__(self, response: IResponse) -> None:
        self._response = response

    @override
    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        return succeed(self._response)
