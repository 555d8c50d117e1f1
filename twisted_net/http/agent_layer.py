"""Agent layers: an ``IAgent`` that takes each request as one record, and passes it to the next."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer


@define(eq=False)
class AgentRequest:
    """
    The arguments of ``IAgent.request``. It and its headers are not changed, but copied.

    Not frozen, since it is made for each request: that takes a quarter of the time.
    """

    method: bytes
    uri: bytes
    headers: Headers
    producer: IBodyProducer | None

    def with_fields(self, fields: Iterable[tuple[str, str]]) -> AgentRequest:
        """Return it with these fields in place of its own of the same name."""
        replaced = list(fields)
        if not replaced:
            return self
        headers = self.headers.copy()
        for name, value in replaced:
            headers.setRawHeaders(name.encode(), [value.encode("latin-1")])
        return self.with_headers(headers)

    def with_headers(self, headers: Headers) -> AgentRequest:
        """Return it with other headers."""
        return AgentRequest(self.method, self.uri, headers, self.producer)

    def send(self, agent: IAgent) -> Deferred[IResponse]:
        """Send it with *agent*; a layer takes it as it is."""
        if isinstance(agent, AgentLayer):
            return agent.handle(self)
        return agent.request(self.method, self.uri, self.headers, self.producer)


@implementer(IAgent)
class AgentLayer:
    """An agent whose requests are handled by :meth:`handle`."""

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        return self.handle(AgentRequest(method, uri, headers or Headers(), bodyProducer))

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        """Return the response to *request*, or fail."""
        raise NotImplementedError
