"""Agent layers: an ``IAgent`` that takes each request as one record, and passes it to the next."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer


@frozen(slots=True)
class AgentRequest:
    """The arguments of ``IAgent.request``. The headers belong to the caller: copy, then change."""

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
        return evolve(self, headers=headers)

    def send(self, agent: IAgent) -> Deferred[IResponse]:
        """Send it with *agent*."""
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
