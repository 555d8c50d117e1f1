"""The agent under treq's code: completes the responses of :class:`HTTPAgent` for treq's users."""

from __future__ import annotations

from http import HTTPStatus

from attrs import frozen
from treq.client import _BufferedResponse
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IClientRequest, IResponse
from zope.interface import implementer

from twisted_net.http.bodies import BufferedResponse

REDIRECTS = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY,
        HTTPStatus.FOUND,
        HTTPStatus.SEE_OTHER,
        HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    }
)
"""The statuses that Twisted's redirecting agents follow, or refuse to follow."""

_OURS = b"twisted_net; "


@implementer(IClientRequest)
@frozen(slots=True)
class SentRequest:
    """
    The request of a response, as treq's users see it.

    :param uri: as it was passed to the agent.
    """

    method: bytes
    uri: bytes
    headers: Headers

    @property
    def absoluteURI(self) -> bytes:
        """The URL, after redirects, as Twisted's agent shows it."""
        shown: bytes = URI.fromBytes(self.uri).toBytes()
        return shown


@implementer(IAgent)
class CompletingAgent:
    """
    Makes requests with *agent*, and adds to its responses what users of treq rely on.

    - ``response.request``, which has the URL.
    - The body of a redirect is read at once, so that its connection is free for the next request,
      and kept for ``response.history()``. treq reads none of them.
    - Cookies are set by the network only: a response that the cache has served has no
      ``Set-Cookie``. It would put back what the server has replaced since, or set what was meant
      for another client of the same agent.

    :param agent: an :class:`~twisted_net.http.agent.HTTPAgent`.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        received = self._agent.request(method, uri, headers, bodyProducer)
        hit = buffered_result(received)
        if hit is not None and hit.fields.has_none(("set-cookie",)):
            _show_request(hit, method, uri, headers)
            return received
        return received.addCallback(_completed, method, uri, headers)


@implementer(IAgent)
class AnsweredAgent:
    """
    Answers its first request with a response that was received before.

    :param agent: makes the requests after it.
    """

    def __init__(self, response: IResponse, agent: IAgent) -> None:
        self._response: IResponse | None = response
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        response, self._response = self._response, None
        if response is not None:
            return succeed(response)
        return self._agent.request(method, uri, headers, bodyProducer)


def with_kept_body(response: IResponse) -> IResponse:
    """Return *response* with a body that can be read any number of times, as treq does it."""
    if isinstance(response, BufferedResponse | _BufferedResponse):
        return response
    kept: IResponse = _BufferedResponse(response)  # type: ignore[no-untyped-call]  # treq's
    return kept


def buffered_result(received: Deferred[IResponse]) -> BufferedResponse | None:
    """Return the response that *received* has already, if its body is in memory."""
    # A callback would cost more than all else that is done for a cached response.
    if received.called and not received.paused:
        result = received.result
        if isinstance(result, BufferedResponse):
            return result
    return None


def _show_request(response: IResponse, method: bytes, uri: bytes, headers: Headers | None) -> None:
    if response.request is None:
        response.request = SentRequest(method, uri, Headers() if headers is None else headers)


def _completed(
    response: IResponse, method: bytes, uri: bytes, headers: Headers | None
) -> IResponse:
    _show_request(response, method, uri, headers)
    if response.headers.hasHeader(b"set-cookie") and _from_cache(response):
        response.headers.removeHeader(b"set-cookie")
    if response.code in REDIRECTS and not isinstance(response, BufferedResponse):
        response = with_kept_body(response)
        response.deliverBody(Protocol())
    return response


def _from_cache(response: IResponse) -> bool:
    """
    Whether the fields of a response may be stored ones, according to ``Cache-Status`` (RFC 9211).

    They are of another response if the server was not asked, or was asked for another caller, or
    has answered with another status: a stored response that a 304 has updated has fields of both.
    """
    lines = response.headers.getRawHeaders(b"cache-status", ())
    if not lines or not lines[-1].startswith(_OURS):
        return False
    return b"fwd-status=%d" % response.code not in lines[-1].split(b"; ")
