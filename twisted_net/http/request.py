"""How a request of the client goes out: its URL, its header, its body and its cookies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import msgspec
from attrs import frozen
from hyperlink import EncodedURL, URLParseError
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar, scoped_cookie
from twisted.internet.defer import Deferred, succeed
from twisted.web.client import CookieAgent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from typing_extensions import override
from zope.interface import implementer

from twisted_net.http.bodies import BytesProducer, body_producer
from twisted_net.http.errors import InvalidURL
from twisted_net.http.redirects import CREDENTIALS, Redirect
from twisted_net.http.urls import redact

# What percent-encoding leaves as it is, so that such a URL needs no work at all.
_READY = re.compile(
    r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?/[A-Za-z0-9._~/=&-]*(?:\?[A-Za-z0-9._~/=&-]+)?"
)


@frozen(slots=True)
class RequestBody:
    """What a request carries: arguments for treq."""

    params: Any = None  # Any: as in RequestOptions
    data: Any = None
    files: Any = None

    @property
    def ready(self) -> bool:
        """Whether it needs nothing of treq: no query to add, no form, no file."""
        return (
            not self.params and not self.files and (self.data is None or type(self.data) is bytes)
        )

    @property
    def replayable(self) -> bool:
        """Whether it can be sent again: what is read from a file cannot."""
        return not self.files and (
            self.data is None or isinstance(self.data, (bytes, dict, list, tuple))
        )


def request_body(options: Mapping[str, Any], headers: Headers) -> RequestBody:
    """The body that the options ask for; *headers* get its type if it is JSON."""
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
    A URL whose text is ready for the wire.

    treq has hyperlink encode the host of every URL as a name, which costs more than all the rest
    and fails for IPv6 addresses and names with an underscore.
    """

    @classmethod
    def encode(cls, url: str) -> _EncodedUrl:
        """
        Percent-encode what is not ASCII in *url*, and its host as RFC 5891 has it.

        :raises InvalidURL: where it is no URL.
        """
        try:
            parsed = cls.from_text(url)
            host = parsed.host
            if not host.isascii():
                host = EncodedURL(scheme="http", host=host).to_uri().host
            encoded = EncodedURL.to_uri(parsed.replace(host="")).replace(host=host)
            return cast(_EncodedUrl, encoded)  # replace() keeps the class
        except (URLParseError, ValueError) as error:
            raise InvalidURL(redact(url), str(error)) from None

    @override
    def to_uri(self) -> _EncodedUrl:
        return self


def apply_redirect(
    hop: Redirect, headers: Headers, body: RequestBody
) -> tuple[Headers, RequestBody]:
    """What of a request goes along on a redirect."""
    headers = headers.copy()
    if not hop.with_credentials:
        for name in CREDENTIALS:
            headers.removeHeader(name)
    if hop.with_body:
        # The new URL has its own query.
        return headers, RequestBody(None, body.data, body.files)
    for name in ("content-type", "content-language", "content-location", "content-encoding"):
        headers.removeHeader(name)
    return headers, RequestBody()


class _CallCookies:
    """
    The cookies of one call: those kept by the client, and those for this call only.

    treq would leave the latter in the client's jar.
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
            cookie = scoped_cookie(EncodedURL.from_text(url), name, value)
            self.jar.set_cookie(cookie)
            self._own.add(id(cookie))

    def save(self) -> None:
        """Keep what the servers have set, and forget what they have deleted."""
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


@lru_cache(maxsize=1024)
def encode_url(url: str) -> str:
    """
    Percent-encode what is not ASCII in *url*, and its host as RFC 5891 has it.

    :raises InvalidURL: where it is no URL.
    """
    if _READY.fullmatch(url) is not None:
        return url
    return _EncodedUrl.encode(url).to_text()


class RequestSender:
    """
    Sends the requests of one call, redirects aside.

    treq builds a request where it must: a query to add, a form, a file, cookies. That costs more
    than the rest of the way to the server, so all other requests go without it.

    :param agent: the layers, bound to the call.
    :param kept: the cookies of the client, if it keeps any.
    """

    def __init__(
        self,
        agent: IAgent,
        reactor: Any,  # Any: treq's reactor, of several interfaces
        kept: IndexableCookieJar | None,
        url: str,
        cookies: Mapping[str, str] | None,
    ) -> None:
        self._agent = agent
        self._reactor = reactor
        self._jar: _CallCookies | None = None
        if kept is not None or cookies:
            self._jar = _CallCookies(kept)
            self._jar.add(url, cookies or {})

    async def send(self, method: str, url: str, headers: Headers, body: RequestBody) -> IResponse:
        """Make one request and give its response; cookies that it sets are sent from now on."""
        if self._jar is None:
            if body.ready:
                return await self._send_plainly(method, url, headers, body)
            self._jar = _CallCookies(None)
        http = HTTPClient(self._agent, self._jar.jar, body_producer)
        response: IResponse = await http.request(
            method,
            _EncodedUrl.encode(url),
            params=body.params,
            headers=headers.copy(),
            data=body.data,
            files=body.files,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,  # or treq would import the global one
        )
        self._jar.save()
        return response

    async def _send_plainly(
        self, method: str, url: str, headers: Headers, body: RequestBody
    ) -> IResponse:
        verb, uri = method.encode("ascii"), encode_url(url).encode("ascii")
        # treq sends no body where there is nothing to say.
        producer = BytesProducer(body.data) if body.data else None
        response = await self._agent.request(verb, uri, headers, producer)
        if response.headers.hasHeader(b"set-cookie"):
            self._jar = _CallCookies(None)
            # It reads the cookies of any response that passes through it.
            await CookieAgent(_CannedAgent(response), self._jar.jar).request(verb, uri, headers)
        return response


@implementer(IAgent)
class _CannedAgent:
    """Answers every request with a response that is there."""

    def __init__(self, response: IResponse) -> None:
        self._response = response

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        return succeed(self._response)
