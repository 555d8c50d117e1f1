"""
The layer that answers requests from a store, as the rules of a cache allow.

It decides nothing: :mod:`twisted_net.http.caching` does. It carries requests to the agent below,
bodies into the store, and times from the clock to the rules.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from typing_extensions import override
from zope.interface import implementer

from twisted_net.http.bodies import BodyResponse, Relay, deliver_bytes, response_fields
from twisted_net.http.caching import (
    CacheRequest,
    Entry,
    Fresh,
    Revalidate,
    Rules,
    Unsatisfiable,
    invalidated,
)
from twisted_net.http.fields import Fields
from twisted_net.http.stores import Store
from twisted_net.http.urls import parse_target

if TYPE_CHECKING:
    from twisted_net.http.calls import Call

_HTTP_1_1 = (b"HTTP", 1, 1)


@implementer(IAgent)
class CachingAgent:
    """
    Answers from a store what :class:`~twisted_net.http.caching.Rules` allow.

    :param call: gets the age of an answer that came from the store.
    """

    def __init__(
        self,
        agent: IAgent,
        store: Store,
        rules: Rules,
        *,
        call: Call | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._agent = agent
        self._store = store
        self._rules = rules
        self._call = call
        self._wall = wall

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        return Deferred.fromCoroutine(self._request(method, uri, headers, bodyProducer))

    async def _request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None,
        producer: IBodyProducer | None,
    ) -> IResponse:
        headers = headers or Headers()
        request = CacheRequest(
            method.decode("ascii"),
            parse_target(uri.decode("latin-1")).url,
            Fields(
                (name, value) for name, values in headers.getAllRawHeaders() for value in values
            ),
        )
        stored = self._store.get(request.key)
        if inspect.isawaitable(stored):
            stored = await stored
        decision = self._rules.lookup(request, stored, self._wall())
        self._note(None)
        if isinstance(decision, Fresh):
            return self._serve(request, decision.entry, decision.age)
        if isinstance(decision, Unsatisfiable):
            return _answer(504, b"Gateway Timeout", Headers(), b"")
        if isinstance(decision, Revalidate):
            headers = headers.copy()
            for name, value in decision.conditions:
                headers.setRawHeaders(name.encode(), [value.encode("latin-1")])
        sent = self._wall()
        response = await self._agent.request(method, uri, headers, producer)
        received = self._wall()
        fields = response_fields(response)
        if isinstance(decision, Revalidate) and response.code == 304:
            entry = self._rules.freshen(request, decision.entry, fields, sent, received)
            self._store.put(request.key, entry)
            return self._serve(request, entry, entry.age(received))
        for key in invalidated(request, response.code, fields):
            self._store.remove(key)
        if self._rules.storable(request, response.code, fields, received):
            return self._stored(request, response, fields, sent, received)
        return response

    def _note(self, age: float | None) -> None:
        if self._call is not None:
            self._call.age = age

    def _serve(self, request: CacheRequest, entry: Entry, age: float) -> IResponse:
        self._note(age)
        headers = Headers()
        for name, value in entry.fields.replaced([("Age", str(int(age)))]).pairs:
            headers.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
        body = entry.body if request.method == "GET" else b""
        return _answer(entry.status, entry.reason.encode("latin-1"), headers, body)

    def _stored(
        self,
        request: CacheRequest,
        response: IResponse,
        fields: Fields,
        sent: float,
        received: float,
    ) -> IResponse:
        """Give a response whose body goes into the store as it is read."""

        def keep(body: bytes) -> None:
            self._store.put(
                request.key,
                self._rules.make_entry(
                    request,
                    response.code,
                    response.phrase.decode("latin-1"),
                    fields,
                    body,
                    sent,
                    received,
                ),
            )

        if response.length == 0:
            keep(b"")
            return response
        return BodyResponse.like(
            response,
            lambda receiver: response.deliverBody(_Copy(receiver, keep, self._rules.fits)),
        )


class _Copy(Relay):
    """Hands a body on and keeps a copy of it, unless it grows too large or ends too early."""

    def __init__(
        self, receiver: IProtocol, keep: Callable[[bytes], None], fits: Callable[[int], bool]
    ) -> None:
        super().__init__(receiver)
        self._keep = keep
        self._fits = fits
        self._chunks: list[bytes] | None = []
        self._total = 0

    @override
    def dataReceived(self, data: bytes) -> None:
        self._total += len(data)
        if self._chunks is not None:
            if self._fits(self._total):
                self._chunks.append(data)
            else:
                self._chunks = None
        self._receiver.dataReceived(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Of a body that ends with its connection nobody knows whether it is whole.
        if self._chunks is not None and reason.check(ResponseDone):
            self._keep(b"".join(self._chunks))
        super().connectionLost(reason)


def _answer(code: int, phrase: bytes, headers: Headers, body: bytes) -> IResponse:
    return BodyResponse(_HTTP_1_1, code, phrase, headers, len(body), None, deliver_bytes(body))
