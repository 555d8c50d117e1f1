"""The edge to Twisted's agents: the arguments and responses of ``IAgent``, into ours and back."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from twisted_net.http.bodies import BodyResponse, header_fields, twisted_headers
from twisted_net.http.call import Call
from twisted_net.http.calls.outcomes import result_of, started
from twisted_net.http.errors import InvalidURL
from twisted_net.http.fields import NO_FIELDS
from twisted_net.http.request import OutgoingRequest, Send
from twisted_net.http.urls import parse_target


def outgoing_request(
    method: bytes, uri: bytes, headers: Headers | None, producer: IBodyProducer | None
) -> OutgoingRequest:
    """
    Return the request that the arguments of ``IAgent.request`` ask for.

    :raises InvalidURL: for a URL that is not absolute, or not plain ASCII.
    """
    target = parse_target(uri.decode("latin-1"))
    fields = NO_FIELDS if headers is None else header_fields(headers)
    return OutgoingRequest(method.decode("latin-1"), target, fields, producer)


def sender(agent: IAgent) -> Send:
    """Return a step that sends requests with *agent*, whatever the terms of the call are."""

    async def send(request: OutgoingRequest, call: Call) -> BodyResponse:
        headers = twisted_headers(request.fields)
        method, url = request.method.encode("latin-1"), request.target.url.encode("ascii")
        response = await result_of(agent.request(method, url, headers, request.producer))
        return own_response(response, request.method)

    return send


def own_response(response: IResponse, method: str) -> BodyResponse:
    """
    Return a response of an agent as one of this package.

    ``Content-Length``, which Twisted's agents do not show, is restored.
    """
    if not isinstance(response, BodyResponse):
        response = BodyResponse.like(response, response.deliverBody)
    length, fields = response.length, response.fields
    known = isinstance(length, int) and length > 0 and method != "HEAD"
    if known and "content-length" not in fields:
        response.fields = fields.added("Content-Length", str(length))
    return response


@implementer(IAgent)
class AgentEdge:
    """An ``IAgent`` whose requests are answered by :meth:`respond`."""

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        try:
            request = outgoing_request(method, uri, headers, bodyProducer)
        except InvalidURL as error:
            return fail(error)
        return self.answer(request)

    def answer(self, request: OutgoingRequest) -> Deferred[IResponse]:
        """Return the response of :meth:`respond`; a subclass may have one at once."""
        return started(self.respond(request))

    async def respond(self, request: OutgoingRequest) -> IResponse:
        """Return the response to *request*, or raise."""
        raise NotImplementedError
