"""
The caching layer: an ``IAgent`` that answers requests from a store, as the rules of a cache allow.

It decides nothing: :mod:`twisted_net.http.cache.rules` does. It forwards requests to the agent
below, stores bodies, and passes the time to the rules; callers with the same request at the same
time share one forwarded request (:mod:`twisted_net.http.cache.collapse`).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import FetchError
from twisted_net.http.agent_layer import AgentLayer, AgentRequest
from twisted_net.http.bodies import (
    BodyResponse,
    BufferedResponse,
    collect,
    discard,
    header_fields,
    response_fields,
)
from twisted_net.http.cache.collapse import (
    CollapsedRequest,
    RequestCollapser,
    is_caller_specific,
)
from twisted_net.http.cache.entry import (
    CACHE_CONDITIONS,
    CacheRequest,
    Entry,
    ReceiptTimes,
)
from twisted_net.http.cache.invalidation import invalidated_keys
from twisted_net.http.cache.partial import combine, incomplete_response
from twisted_net.http.cache.ranges import parse_content_range
from twisted_net.http.cache.responses import construct_response
from twisted_net.http.cache.rules import (
    STALE_IF_ERROR_STATUSES,
    Decision,
    FetchRemainder,
    Forward,
    Revalidate,
    Rules,
    Serve,
    Unsatisfiable,
)
from twisted_net.http.cache.stores import Store
from twisted_net.http.cache.tee import BodyTee
from twisted_net.http.cache.validation import entity_tags, same_tag
from twisted_net.http.cache.vary import variant
from twisted_net.http.calls.outcomes import result_of, started
from twisted_net.http.errors import InvalidURL
from twisted_net.http.fields import HeaderFields
from twisted_net.http.urls import HttpTarget, parse_target

if TYPE_CHECKING:
    from twisted_net.http.call import Call

CACHE_NAME = "twisted_net"
"""The name of this cache in ``Cache-Status`` (RFC 9211 §2)."""

_MAX_WAITS = 2
"""How often a caller waits for another's request: a second time where ``Vary`` shows that the
first was for another variant."""


@frozen(slots=True)
class _ReceivedResponse:
    """A response from the agent below, and when it was requested and received."""

    response: IResponse
    fields: HeaderFields
    times: ReceiptTimes


@check_arguments
class CachingAgent(AgentLayer):
    """
    Answers requests from a store where :class:`~twisted_net.http.cache.rules.Rules` allow it.

    Each response says in ``Cache-Status`` how the cache handled it (RFC 9211).

    :param now: the clock of the cache, by which ages are measured: one for all agents over a store,
        made by ``steady_wall(reactor, time.time)`` of :mod:`twisted_net.net`.
    :param call: its ``age`` and ``set_cookies`` are set for a response out of the store; its
        deadline ends the wait for another caller's request; its ``delay`` is when, after *agent*
        was called, the attempt began that brought the response (RFC 9111 §4.2.3); a body that is
        ``broken`` is stored as a partial response.
    :param wall: returns seconds since 1970, to compare with dates of responses.
    :param collapser: the requests in progress of all agents over one store; by default of this
        agent alone.
    :param background_agent: returns an agent, and the call that it is bound to, for a background
        revalidation (``stale-while-revalidate``); by default *agent* is used.
    """

    def __init__(
        self,
        agent: IAgent,
        store: Store,
        rules: Rules,
        *,
        now: Callable[[], float],
        call: Call | None = None,
        wall: Callable[[], float] = time.time,
        collapser: RequestCollapser | None = None,
        background_agent: Callable[[], tuple[IAgent, Call]] | None = None,
    ) -> None:
        self._agent = agent
        self._store = store
        self._rules = rules
        self._call = call
        self._wall = wall
        self._now = now
        self._collapser = collapser or RequestCollapser()
        self._background_agent = background_agent

    @override
    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        try:
            target = parse_target(request.uri.decode("latin-1"))
            fields = _without_own_host(header_fields(request.headers), target)
            asked = CacheRequest(request.method.decode("ascii"), target.url, fields)
        except InvalidURL as error:
            return fail(error)
        if self._call is not None:
            self._call.age = None
            self._call.set_cookies = None
        stored = self._store.get(asked.key)
        if isinstance(stored, Deferred):
            return stored.addCallback(self._answer_from, asked, request)
        if not inspect.isawaitable(stored):
            found = self._answer_from(stored, asked, request)
            return found if isinstance(found, Deferred) else succeed(found)
        return started(self._answer(asked, request, stored))

    def _answer_from(
        self, stored: Sequence[Entry], request: CacheRequest, outgoing: AgentRequest
    ) -> IResponse | Deferred[IResponse]:
        """Serve a stored response; only if there is none, start a coroutine."""
        decision = self._rules.lookup(request, stored, self._now())
        if isinstance(decision, Serve):
            return self._serve_hit(request, outgoing, decision)
        return started(self._answer(request, outgoing, stored))

    async def _answer(
        self,
        request: CacheRequest,
        outgoing: AgentRequest,
        stored: Sequence[Entry] | Awaitable[Sequence[Entry]],
    ) -> IResponse:
        """Serve a stored response, forward the request, or wait for another caller's request."""
        found = await stored if inspect.isawaitable(stored) else stored
        decision = self._rules.lookup(request, found, self._now())
        names = self._rules.key_field_names()
        waited = False
        for _ in range(_MAX_WAITS):
            # Only a request that accepts any fresh response can be collapsed with another.
            if (
                isinstance(decision, (Serve, Unsatisfiable))
                or request.method != "GET"
                or not request.is_plain
            ):
                break
            key = (request.key, names, variant(request.fields, names))
            if self._collapser.is_unstorable(key, self._rules.default_ttl_for(request.key)):
                unshared = self._collapser.begin_unshared(key)
                return await result_of(
                    unshared.start(self._forward(request, outgoing, decision, unshared))
                )
            collapsed = self._collapser.find(key)
            if collapsed is None:
                collapsed = self._collapser.begin(key)
                return await result_of(
                    collapsed.start(self._forward(request, outgoing, decision, collapsed))
                )
            deadline = None if self._call is None else self._call.deadline
            error = await self._collapser.wait(collapsed, deadline)
            if error is not None and not is_caller_specific(error):
                raise error.with_traceback(None)
            waited = True
            stored_now = await self._stored(request.key)
            decision = self._rules.lookup(request, stored_now, self._now())
            if error is None and collapsed.vary in (None, names):
                break
            names = collapsed.vary or names
        if isinstance(decision, Serve):
            return self._serve_hit(request, outgoing, decision, collapsed=waited)
        if isinstance(decision, Unsatisfiable):
            return BufferedResponse(504, b"Gateway Timeout", Headers(), b"")
        return await self._forward(request, outgoing, decision, None)

    async def _stored(self, key: str) -> Sequence[Entry]:
        stored = self._store.get(key)
        return await stored if inspect.isawaitable(stored) else stored

    def _serve_hit(
        self,
        request: CacheRequest,
        outgoing: AgentRequest,
        decision: Serve,
        *,
        collapsed: bool = False,
    ) -> IResponse:
        if decision.background_revalidation:
            self._revalidate_in_background(request, outgoing, decision.entry)
        status = "fwd=uri-miss; collapsed" if collapsed else "hit"
        ttl = int(decision.freshness_remaining)
        return self._serve(request, decision.entry, decision.age, f"{status}; ttl={ttl}")

    def _revalidate_in_background(
        self, request: CacheRequest, outgoing: AgentRequest, entry: Entry
    ) -> None:
        """Validate a response that is served stale, without delaying its caller."""
        names = self._rules.key_field_names()
        key = (request.key, names, variant(request.fields, names))
        if request.method != "GET" or self._collapser.find(key) is not None:
            return
        omitted = ("range", "if-range", *CACHE_CONDITIONS)
        plain = CacheRequest("GET", request.key, request.fields.without(omitted))
        headers = outgoing.headers.copy()
        for name in omitted:
            headers.removeHeader(name)
        agent, call = (
            (self._agent, None) if self._background_agent is None else self._background_agent()
        )
        other = CachingAgent(
            agent,
            self._store,
            self._rules,
            call=call,
            wall=self._wall,
            now=self._now,
            collapser=self._collapser,
        )
        conditions = entry.validators if entry.complete_length is None else []
        decision = Revalidate(entry, conditions) if conditions else Forward("stale", entry)
        collapsed = self._collapser.begin(key)
        self._collapser.run_in_background(
            collapsed,
            other._forward(plain, outgoing.with_headers(headers), decision, collapsed),
        )

    async def _forward(
        self,
        request: CacheRequest,
        outgoing: AgentRequest,
        decision: Decision,
        collapsed: CollapsedRequest | None,
    ) -> IResponse:
        """Send the request to the agent below, and store the response if it is storable."""
        assert isinstance(decision, (Revalidate, FetchRemainder, Forward))
        entry = decision.entry
        conditions = () if isinstance(decision, Forward) else decision.conditions
        sent = outgoing.with_fields(conditions)
        request_time = self._now()
        try:
            response = await result_of(sent.send(self._agent))
        except FetchError:
            now = self._now()
            if entry is not None and self._rules.stale_on_error(request, entry, now):
                return self._serve_stale(request, entry, now, "fwd=stale; detail=unreachable")
            self._keep_part(request, request_time, collapsed)
            raise
        received = self._received(request, response, request_time)
        now = received.times.response_time
        code = response.code
        if (
            entry is not None
            and code in STALE_IF_ERROR_STATUSES
            and self._rules.stale_on_error(request, entry, now)
        ):
            discard(response)
            return self._serve_stale(request, entry, now, f"fwd=stale; fwd-status={code}")
        if isinstance(decision, Revalidate) and code == 304:
            return self._serve_validated(request, decision, received, collapsed)
        if isinstance(decision, FetchRemainder) and code in (206, 416):
            return await self._serve_completed(request, outgoing, decision, received)
        return await self._serve_new(request, received, decision.reason, collapsed)

    def _received(
        self, request: CacheRequest, response: IResponse, request_time: float
    ) -> _ReceivedResponse:
        """Return a response with its times."""
        _restore_length(request, response)
        if self._call is not None:
            # Earlier attempts, and the waits between them, do not add to the response's age.
            request_time += self._call.delay
        times = ReceiptTimes(request_time, self._now(), self._wall())
        return _ReceivedResponse(response, response_fields(response), times)

    def _keep_part(
        self, request: CacheRequest, request_time: float, collapsed: CollapsedRequest | None
    ) -> None:
        """Store what came of a body that broke off, if the rest of it can be requested later."""
        broken = None if self._call is None else self._call.broken
        if broken is None:
            return
        response, body = broken
        received = self._received(request, response, request_time)
        length = _content_length(response)
        if self._rules.fits(length or 0) and self._rules.storable(
            request, response.code, received.fields, received.times.wall
        ):
            entry = self._make_entry(request, received, body)
            part = incomplete_response(request, entry, length)
            if part is not None:
                self._put(request.key, part, collapsed)

    def _serve_stale(
        self, request: CacheRequest, entry: Entry, now: float, status: str
    ) -> IResponse:
        return self._serve(request, entry, entry.age(now), status)

    def _serve_validated(
        self,
        request: CacheRequest,
        decision: Revalidate,
        received: _ReceivedResponse,
        collapsed: CollapsedRequest | None,
    ) -> IResponse:
        """Serve the stored response that a 304 has validated."""
        entry = decision.entry
        if not _validates(entry, request.fields, received.fields):
            # The 304 is about the caller's copy.
            return _with_cache_status(received.response, f"fwd={decision.reason}; fwd-status=304")
        discard(received.response)
        new = self._rules.freshen(request, entry, received.fields, received.times)
        if collapsed is not None:
            collapsed.vary = new.vary
        self._put_updated(request.key, new, [entry], collapsed)
        status = f"fwd={decision.reason}; fwd-status=304"
        return self._serve(
            request, new, new.age(received.times.response_time), status, received.fields
        )

    async def _serve_completed(
        self,
        request: CacheRequest,
        outgoing: AgentRequest,
        decision: FetchRemainder,
        received: _ReceivedResponse,
    ) -> IResponse:
        """Serve the complete response, after its remainder has been received."""
        body, _ = await result_of(collect(received.response))
        new = self._rules.make_entry(
            request,
            206,
            "",
            received.fields,
            body,
            received.times,
        )
        complete = combine([decision.entry], new)
        is_remainder = received.response.code == 206 and new.complete_length is not None
        if not is_remainder or complete.complete_length is not None:
            # Not the remainder that was requested: the stored part is of no use.
            self._store.remove(request.key)
            return await self._forward(request, outgoing, Forward("partial"), None)
        if self._rules.storable(request, 200, complete.fields, received.times.wall):
            self._put(request.key, complete, None)
        status = "fwd=partial; fwd-status=206"
        return self._serve(
            request, complete, complete.age(received.times.response_time), status, received.fields
        )

    async def _serve_new(
        self,
        request: CacheRequest,
        received: _ReceivedResponse,
        reason: str,
        collapsed: CollapsedRequest | None,
    ) -> IResponse:
        """Return a response from the server; store it, and remove those that it invalidates."""
        response, fields = received.response, received.fields
        for key in invalidated_keys(request.method, request.key, response.code, fields):
            self._store.remove(key)
            self._collapser.invalidate(key)
        status = f"fwd={reason}; fwd-status={response.code}"
        if request.method == "HEAD":
            await self._update_by_head(request, received)
            return _with_cache_status(response, status)
        storable = self._rules.storable(request, response.code, fields, received.times.wall)
        fits = not isinstance(response.length, int) or self._rules.fits(response.length)
        if collapsed is not None and (storable or response.code < 400):
            # An error says nothing about whether the response after it can be stored.
            ttl = self._rules.default_ttl_for(request.key)
            self._collapser.note_storable(collapsed, ttl, storable=storable and fits)
        if not storable:
            if self._rules.supersedes_stored(request, response.code, fields):
                self._store.remove(request.key)
        elif response.length == 0:
            self._put(request.key, self._make_entry(request, received, b""), collapsed)
            status += "; stored"
        elif fits:
            parts = await self._stored(request.key) if response.code == 206 else ()
            return self._store_body(request, received, f"{status}; stored", collapsed, parts)
        return _with_cache_status(response, status)

    async def _update_by_head(self, request: CacheRequest, received: _ReceivedResponse) -> None:
        """Freshen or remove what is stored for GET, by a response to HEAD."""
        stored = await self._stored(request.key)
        entry, outdated = self._rules.freshen_by_head(
            request,
            stored,
            received.response.code,
            received.fields,
            received.times,
        )
        if outdated:
            self._store.remove(request.key)
        elif entry is not None:
            self._put_updated(request.key, entry, stored, None)

    def _make_entry(self, request: CacheRequest, received: _ReceivedResponse, body: bytes) -> Entry:
        return self._rules.make_entry(
            request,
            received.response.code,
            received.response.phrase.decode("latin-1"),
            received.fields,
            body,
            received.times,
        )

    def _put(self, key: str, entry: Entry, collapsed: CollapsedRequest | None) -> None:
        invalidated = collapsed is not None and collapsed.invalidated
        if invalidated or self._rules.forbids_keeping(entry):
            self._store.remove(key)
        else:
            self._store.put(key, entry)

    def _put_updated(
        self, key: str, entry: Entry, stored: Sequence[Entry], collapsed: CollapsedRequest | None
    ) -> None:
        """Put an entry in place of the one of *stored* that it was made of."""
        if all((old.vary, old.variant) != (entry.vary, entry.variant) for old in stored):
            # Vary has changed. What the old one is selected by would not be enough.
            self._store.remove(key)
        self._put(key, entry, collapsed)

    def _store_body(
        self,
        request: CacheRequest,
        received: _ReceivedResponse,
        status: str,
        collapsed: CollapsedRequest | None,
        parts: Sequence[Entry],
    ) -> IResponse:
        """
        Return a response whose body is stored while it is read.

        :param parts: the stored entries that a partial response may be combined with.
        """
        response = received.response

        def store(body: bytes, complete: bool) -> None:
            entry: Entry | None = self._make_entry(request, received, body)
            assert entry is not None
            if response.code == 206:
                as_stated = complete and len(body) == _content_range_length(received.fields)
                entry = combine(parts, entry) if as_stated else None
            elif not complete:
                entry = incomplete_response(request, entry, _content_length(response))
            if entry is not None:
                self._put(request.key, entry, collapsed)

        tee = BodyTee(
            response,
            store=store,
            fits=self._rules.fits,
            has_waiters=lambda: collapsed is not None and collapsed.has_waiters,
            on_end=lambda: None if collapsed is None else collapsed.finish(),
        )
        if collapsed is not None:
            collapsed.vary = self._make_entry(request, received, b"").vary
            collapsed.store_body(tee)
        headers = response.headers.copy()
        return _with_cache_status(BodyResponse.like(response, tee.deliver, headers=headers), status)

    def _serve(
        self,
        request: CacheRequest,
        entry: Entry,
        age: float,
        status: str,
        received: HeaderFields | None = None,
    ) -> IResponse:
        """
        Return a response out of the store.

        :param received: the fields of the response that has updated it; None if there was none.
        """
        if self._call is not None:
            self._call.age = age
            self._call.set_cookies = [] if received is None else received.get_all("set-cookie")
        served = construct_response(request, entry, age)
        headers = Headers()
        for name, value in served.fields.pairs:
            headers.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
        reason = served.reason.encode("latin-1")
        return _with_cache_status(
            BufferedResponse(served.status, reason, headers, served.body), status
        )


def _without_own_host(fields: HeaderFields, target: HttpTarget) -> HeaderFields:
    """Return the fields without a ``Host`` that says the same as the URL."""
    host = fields.joined("host")
    if host is None:
        return fields
    with suppress(InvalidURL):
        if parse_target(f"{target.scheme}://{host}").authority == target.authority:
            return fields.without(["host"])
    return fields


def _content_length(response: IResponse) -> int | None:
    return response.length if isinstance(response.length, int) else None


def _content_range_length(fields: HeaderFields) -> int | None:
    found = parse_content_range(fields.get("content-range", ""))
    return None if found is None else found[1] - found[0]


def _validates(entry: Entry, request: HeaderFields, fields: HeaderFields) -> bool:
    """Return whether a 304 is about the stored response, and not only about the caller's copy."""
    requested_tags, own_tag = request.get("if-none-match"), entry.fields.first("etag")
    if requested_tags is None or own_tag is None:
        return True
    if all(tag == "*" or same_tag(tag, own_tag) for tag in entity_tags(requested_tags)):
        return True
    validated = fields.first("etag")
    return validated is not None and same_tag(validated, own_tag)


def _restore_length(request: CacheRequest, response: IResponse) -> None:
    """Restore the ``Content-Length`` that connections do not show, ours and Twisted's."""
    if (
        response.length
        and isinstance(response.length, int)
        and request.method != "HEAD"
        and not response.headers.hasHeader(b"content-length")
    ):
        response.headers.setRawHeaders(b"content-length", [str(response.length).encode()])


def _with_cache_status(response: IResponse, status: str) -> IResponse:
    """Append to ``Cache-Status``, after the members of caches closer to the server."""
    response.headers.addRawHeader(b"Cache-Status", f"{CACHE_NAME}; {status}".encode())
    return response
