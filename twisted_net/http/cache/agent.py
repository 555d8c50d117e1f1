"""
The layer that answers requests from a store, as the rules of a cache allow.

It decides nothing: :mod:`twisted_net.http.cache.rules` does. It carries requests to the agent
below, bodies into the store, and times from the clock to the rules; callers who ask for the same
at the same time share one request (:mod:`twisted_net.http.cache.collapse`).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from twisted_net.errors import FetchError
from twisted_net.http.bodies import (
    BodyResponse,
    buffered_response,
    collect,
    discard,
    response_fields,
)
from twisted_net.http.cache.collapse import Flight, Flights, is_own
from twisted_net.http.cache.entry import (
    OWN_CONDITIONS,
    TELLING,
    CacheRequest,
    Entry,
)
from twisted_net.http.cache.invalidation import invalidated
from twisted_net.http.cache.partial import broken_off, combine
from twisted_net.http.cache.ranges import parse_content_range
from twisted_net.http.cache.responses import answer
from twisted_net.http.cache.rules import (
    ERRORS,
    Complete,
    Decision,
    Forward,
    Fresh,
    Revalidate,
    Rules,
    Unsatisfiable,
)
from twisted_net.http.cache.stores import Store
from twisted_net.http.cache.tee import Recording
from twisted_net.http.cache.validation import entity_tags, same_tag
from twisted_net.http.cache.vary import variant
from twisted_net.http.errors import InvalidURL
from twisted_net.http.fields import HeaderFields
from twisted_net.http.urls import parse_target

if TYPE_CHECKING:
    from twisted_net.http.call import Call

NAME = "twisted_net"
"""How this cache calls itself in ``Cache-Status`` (RFC 9211 §2)."""

_ROUNDS = 2
"""How often a caller waits for the request of another: once more where ``Vary`` parts them."""


@frozen(slots=True)
class _Sending:
    """A request as the agent below takes it."""

    method: bytes
    uri: bytes
    headers: Headers
    producer: IBodyProducer | None

    def with_fields(self, fields: Sequence[tuple[str, str]]) -> _Sending:
        """Give it with these fields in place of its own of their names."""
        if not fields:
            return self
        headers = self.headers.copy()
        for name, value in fields:
            headers.setRawHeaders(name.encode(), [value.encode("latin-1")])
        return evolve(self, headers=headers)


@frozen(slots=True)
class _Came:
    """A response with its fields, and the times between which it was made."""

    response: IResponse
    fields: HeaderFields
    sent: float
    received: float


@implementer(IAgent)
class CachingAgent:
    """
    Answers from a store what :class:`~twisted_net.http.cache.rules.Rules` allow.

    Every response says in ``Cache-Status`` where it came from (RFC 9211).

    :param call: gets the age of an answer that came from the store; its deadline ends the wait
        for the request of another caller; it says when an attempt below began (RFC 9111 §4.2.3),
        which otherwise is taken to be when *agent* was asked.
    :param flights: what is under way, for all agents over one store; by default for this alone.
    :param afresh: gives an agent, and the call that it is bound to, for a request that no caller
        waits for (``stale-while-revalidate``); by default *agent*.
    """

    def __init__(
        self,
        agent: IAgent,
        store: Store,
        rules: Rules,
        *,
        call: Call | None = None,
        wall: Callable[[], float] = time.time,
        flights: Flights | None = None,
        afresh: Callable[[], tuple[IAgent, Call]] | None = None,
    ) -> None:
        self._agent = agent
        self._store = store
        self._rules = rules
        self._call = call
        self._wall = wall
        self._flights = flights or Flights()
        self._afresh = afresh

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        headers = headers or Headers()
        try:
            request = CacheRequest(
                method.decode("ascii"),
                parse_target(uri.decode("latin-1")).url,
                HeaderFields(
                    (name, value) for name, values in headers.getAllRawHeaders() for value in values
                ),
            )
        except InvalidURL as error:
            return fail(error)
        if self._call is not None:
            self._call.age = None
        sending = _Sending(method, uri, headers, bodyProducer)
        stored = self._store.get(request.key)
        if not inspect.isawaitable(stored):
            decision = self._rules.lookup(request, stored, self._wall())
            # A hit needs no coroutine.
            if isinstance(decision, Fresh):
                return succeed(self._hit(request, sending, decision))
        return Deferred.fromCoroutine(self._answer(request, sending, stored))

    async def _answer(
        self,
        request: CacheRequest,
        sending: _Sending,
        stored: Sequence[Entry] | Awaitable[Sequence[Entry]],
    ) -> IResponse:
        """Give what is stored, or ask for it, or wait for another who has asked."""
        found = await stored if inspect.isawaitable(stored) else stored
        decision = self._rules.lookup(request, found, self._wall())
        names = self._rules.user_names()
        collapsed = False
        for _ in range(_ROUNDS):
            # Only a request that takes whatever is fresh can be answered by that of another.
            if (
                isinstance(decision, (Fresh, Unsatisfiable))
                or request.method != "GET"
                or not request.fields.has_none(TELLING)
            ):
                break
            key = (request.key, names, variant(request.fields, names))
            if self._flights.in_vain(key, self._rules.default_for(request.key)):
                alone = self._flights.begin_alone(key)
                return await alone.lead(self._fetch(request, sending, decision, alone))
            flight = self._flights.find(key)
            if flight is None:
                flight = self._flights.begin(key)
                return await flight.lead(self._fetch(request, sending, decision, flight))
            deadline = None if self._call is None else self._call.deadline
            error = await self._flights.landing(flight, deadline)
            if error is not None and not is_own(error):
                raise error.with_traceback(None)
            collapsed = True
            stored_now = await self._stored(request.key)
            decision = self._rules.lookup(request, stored_now, self._wall())
            if error is None and flight.vary in (None, names):
                break
            names = flight.vary or names
        if isinstance(decision, Fresh):
            return self._hit(request, sending, decision, collapsed=collapsed)
        if isinstance(decision, Unsatisfiable):
            return buffered_response(504, b"Gateway Timeout", Headers(), b"")
        return await self._fetch(request, sending, decision, None)

    async def _stored(self, key: str) -> Sequence[Entry]:
        stored = self._store.get(key)
        return await stored if inspect.isawaitable(stored) else stored

    def _hit(
        self,
        request: CacheRequest,
        sending: _Sending,
        decision: Fresh,
        *,
        collapsed: bool = False,
    ) -> IResponse:
        if decision.refresh:
            self._refresh(request, sending, decision.entry)
        status = "fwd=uri-miss; collapsed" if collapsed else "hit"
        return self._serve(
            request, decision.entry, decision.age, f"{status}; ttl={int(decision.left)}"
        )

    def _refresh(self, request: CacheRequest, sending: _Sending, entry: Entry) -> None:
        """Ask by the side for what was served stale."""
        names = self._rules.user_names()
        key = (request.key, names, variant(request.fields, names))
        if request.method != "GET" or self._flights.find(key) is not None:
            return
        left_out = ("range", "if-range", *OWN_CONDITIONS)
        plain = CacheRequest("GET", request.key, request.fields.without(left_out))
        headers = sending.headers.copy()
        for name in left_out:
            headers.removeHeader(name)
        agent, call = (self._agent, None) if self._afresh is None else self._afresh()
        other = CachingAgent(
            agent, self._store, self._rules, call=call, wall=self._wall, flights=self._flights
        )
        conditions = entry.validators if entry.total is None else []
        decision = Revalidate(entry, conditions) if conditions else Forward("stale", entry)
        flight = self._flights.begin(key)
        self._flights.aside(
            flight, other._fetch(plain, evolve(sending, headers=headers), decision, flight)
        )

    async def _fetch(
        self, request: CacheRequest, sending: _Sending, decision: Decision, flight: Flight | None
    ) -> IResponse:
        """Ask the agent below, and store what comes as far as it may be stored."""
        assert isinstance(decision, (Revalidate, Complete, Forward))
        entry = decision.entry
        conditions = () if isinstance(decision, Forward) else decision.conditions
        out = sending.with_fields(conditions)
        sent = self._wall()
        try:
            response = await self._agent.request(out.method, out.uri, out.headers, out.producer)
        except FetchError:
            received = self._wall()
            if entry is not None and self._rules.stale_on_error(request, entry, received):
                return self._stale(request, entry, received, "fwd=stale; detail=unreachable")
            raise
        _restore_length(request, response)
        if self._call is not None and self._call.sent is not None:
            # Waits before this attempt, and attempts that failed, do not age what it brought.
            sent = self._call.sent
        came = _Came(response, response_fields(response), sent, self._wall())
        code = response.code
        if (
            entry is not None
            and code in ERRORS
            and self._rules.stale_on_error(request, entry, came.received)
        ):
            discard(response)
            return self._stale(request, entry, came.received, f"fwd=stale; fwd-status={code}")
        if isinstance(decision, Revalidate) and code == 304:
            return self._confirmed(request, decision, came, flight)
        if isinstance(decision, Complete) and code in (206, 416):
            return await self._completed(request, sending, decision, came)
        return await self._new(request, came, decision.reason, flight)

    def _stale(self, request: CacheRequest, entry: Entry, wall: float, status: str) -> IResponse:
        return self._serve(request, entry, entry.age(wall), status)

    def _confirmed(
        self, request: CacheRequest, decision: Revalidate, came: _Came, flight: Flight | None
    ) -> IResponse:
        """Serve what a 304 has confirmed."""
        entry = decision.entry
        if not _speaks_of(entry, request.fields, came.fields):
            # It speaks of another body, which the caller has.
            return _with_status(came.response, f"fwd={decision.reason}; fwd-status=304")
        discard(came.response)
        new = self._rules.freshen(request, entry, came.fields, came.sent, came.received)
        if flight is not None:
            flight.vary = new.vary
        self._keep(request.key, new, flight)
        status = f"fwd={decision.reason}; fwd-status=304"
        return self._serve(request, new, new.age(came.received), status)

    async def _completed(
        self, request: CacheRequest, sending: _Sending, decision: Complete, came: _Came
    ) -> IResponse:
        """Serve the whole of which the end has come."""
        body, _ = await collect(came.response)
        new = self._rules.make_entry(request, 206, "", came.fields, body, came.sent, came.received)
        whole = combine([decision.entry], new)
        if came.response.code != 206 or new.total is None or whole.total is not None:
            # Not the end that was asked for: what is stored is of no use here.
            self._store.remove(request.key)
            return await self._fetch(request, sending, Forward("partial"), None)
        if self._rules.storable(request, 200, whole.fields, came.received):
            self._keep(request.key, whole, None)
        status = "fwd=partial; fwd-status=206"
        return self._serve(request, whole, whole.age(came.received), status)

    async def _new(
        self, request: CacheRequest, came: _Came, reason: str, flight: Flight | None
    ) -> IResponse:
        """Give a response that is not stored yet; store it, and forget what it makes invalid."""
        response, fields = came.response, came.fields
        for key in invalidated(request.method, request.key, response.code, fields):
            self._store.remove(key)
            self._flights.spoil(key)
        status = f"fwd={reason}; fwd-status={response.code}"
        if request.method == "HEAD":
            await self._heard_of(request, came)
            return _with_status(response, status)
        storable = self._rules.storable(request, response.code, fields, came.received)
        fits = not isinstance(response.length, int) or self._rules.fits(response.length)
        if flight is not None and (storable or response.code < 400):
            # What is said of an error is not said of the answer that comes after it.
            ttl = self._rules.default_for(request.key)
            self._flights.note(flight, ttl, storable=storable and fits)
        if not storable:
            if self._rules.withdraws(request, response.code, fields):
                self._store.remove(request.key)
        elif response.length == 0:
            self._keep(request.key, self._entry(request, came, b""), flight)
            status += "; stored"
        elif fits:
            parts = await self._stored(request.key) if response.code == 206 else ()
            return self._recorded(request, came, f"{status}; stored", flight, parts)
        return _with_status(response, status)

    async def _heard_of(self, request: CacheRequest, came: _Came) -> None:
        """Use an answer to HEAD for what is stored of GET."""
        stored = await self._stored(request.key)
        entry, outdated = self._rules.freshen_by_head(
            request, stored, came.response.code, came.fields, came.sent, came.received
        )
        if outdated:
            self._store.remove(request.key)
        elif entry is not None:
            self._store.put(request.key, entry)

    def _entry(self, request: CacheRequest, came: _Came, body: bytes) -> Entry:
        return self._rules.make_entry(
            request,
            came.response.code,
            came.response.phrase.decode("latin-1"),
            came.fields,
            body,
            came.sent,
            came.received,
        )

    def _keep(self, key: str, entry: Entry, flight: Flight | None) -> None:
        if (flight is not None and flight.spoilt) or self._rules.unusable(entry):
            self._store.remove(key)
        else:
            self._store.put(key, entry)

    def _recorded(
        self,
        request: CacheRequest,
        came: _Came,
        status: str,
        flight: Flight | None,
        parts: Sequence[Entry],
    ) -> IResponse:
        """
        Give a response whose body goes into the store as it is read.

        :param parts: what is stored that a part may be put together with.
        """
        response = came.response

        def keep(body: bytes, whole: bool) -> None:
            entry: Entry | None = self._entry(request, came, body)
            assert entry is not None
            if response.code == 206:
                right = whole and len(body) == _said_length(came.fields)
                entry = combine(parts, entry) if right else None
            elif not whole:
                entry = broken_off(entry, _length(response))
            if entry is not None:
                self._keep(request.key, entry, flight)

        recording = Recording(
            response,
            keep=keep,
            fits=self._rules.fits,
            wanted=lambda: flight is not None and flight.wanted,
            over=lambda: None if flight is None else flight.land(),
        )
        if flight is not None:
            flight.vary = self._entry(request, came, b"").vary
            flight.record(recording)
        headers = response.headers.copy()
        return _with_status(BodyResponse.like(response, recording.deliver, headers=headers), status)

    def _serve(self, request: CacheRequest, entry: Entry, age: float, status: str) -> IResponse:
        if self._call is not None:
            self._call.age = age
        served = answer(request, entry, age)
        headers = Headers()
        for name, value in served.fields.pairs:
            headers.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
        reason = served.reason.encode("latin-1")
        return _with_status(buffered_response(served.status, reason, headers, served.body), status)


def _length(response: IResponse) -> int | None:
    return response.length if isinstance(response.length, int) else None


def _speaks_of(entry: Entry, request: HeaderFields, fields: HeaderFields) -> bool:
    """Say whether a 304 speaks of the stored answer, and not of what the caller alone has."""
    own, mine = request.get("if-none-match"), entry.fields.first("etag")
    if own is None or mine is None:
        return True
    if all(tag == "*" or same_tag(tag, mine) for tag in entity_tags(own)):
        return True
    said = fields.first("etag")
    return said is not None and same_tag(said, mine)


def _restore_length(request: CacheRequest, response: IResponse) -> None:
    """Give back the ``Content-Length`` that Twisted's parser takes for itself."""
    if (
        response.length
        and isinstance(response.length, int)
        and request.method != "HEAD"
        and not response.headers.hasHeader(b"content-length")
    ):
        response.headers.setRawHeaders(b"content-length", [str(response.length).encode()])


def _said_length(fields: HeaderFields) -> int | None:
    found = parse_content_range(fields.get("content-range", ""))
    return None if found is None else found[1] - found[0]


def _with_status(response: IResponse, status: str) -> IResponse:
    """Add where the response came from; what caches before this one said stays before it."""
    response.headers.addRawHeader(b"Cache-Status", f"{NAME}; {status}".encode())
    return response
