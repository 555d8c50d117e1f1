"""
The cache: the step of a call that answers requests from a store, as the rules of a cache allow.

It decides nothing: :mod:`twisted_net.http.cache.rules` does. It forwards requests to the next step,
stores bodies, and passes the time to the rules; callers with the same request at the same time
share one forwarded request (:mod:`twisted_net.http.cache.collapse`).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from attrs import frozen

from twisted_net.errors import FetchError
from twisted_net.http.bodies import BodyResponse, BufferedResponse, collect, discard
from twisted_net.http.cache.collapse import (
    CollapsedRequest,
    CollapseKey,
    RequestCollapser,
    WaitOutcome,
    shared_outcome,
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
from twisted_net.http.cache.responses import construct_response, lookup_after_wait
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
from twisted_net.http.call import Call, Deadline
from twisted_net.http.calls.outcomes import result_of
from twisted_net.http.errors import FetchTimeout, InvalidURL
from twisted_net.http.fields import HeaderFields
from twisted_net.http.request import OutgoingRequest, Send
from twisted_net.http.urls import HttpTarget, parse_target

CACHE_NAME = "twisted_net"
"""The name of this cache in ``Cache-Status`` (RFC 9211 §2)."""

COLLAPSED = "fwd=uri-miss; collapsed"
"""How it calls a response that another caller's request has brought (RFC 9211 §2.7)."""

_MAX_WAITS = 2
"""How often a caller waits for another's request: a second time where ``Vary`` shows that the
first was for another variant."""

_OMITTED = ("range", "if-range", *CACHE_CONDITIONS)
"""Fields that a request in the background does not have: it is for the whole response."""


@frozen(slots=True)
class _ReceivedResponse:
    """A response from the next step, and when it was requested and received."""

    response: BodyResponse
    fields: HeaderFields
    times: ReceiptTimes


class ResponseCache:
    """
    Answers requests from a store where :class:`~twisted_net.http.cache.rules.Rules` allow it.

    Each response says in ``Cache-Status`` how the cache handled it (RFC 9211). Of the call, its
    ``age`` and ``set_cookies`` are set for a response out of the store; its deadline ends the wait
    for another caller's request; its ``delay`` is when, after *forward* was called, the attempt
    began that brought the response (RFC 9111 §4.2.3); a body that is ``broken`` is stored as a
    partial response.

    :param forward: sends what is not answered from the store.
    :param background: returns how, and by which terms, a request is sent after a call, to validate
        its response (``stale-while-revalidate``).
    :param wall: returns seconds since 1970, to compare with dates of responses.
    :param now: the clock of the cache, by which ages are measured.
    :param collapser: the requests in progress over the store.
    """

    def __init__(
        self,
        forward: Send,
        store: Store,
        *,
        background: Callable[[Call], tuple[Send, Call]],
        wall: Callable[[], float],
        now: Callable[[], float],
        collapser: RequestCollapser,
    ) -> None:
        self.forward = forward
        self.store = store
        self.background = background
        self.wall = wall
        self.now = now
        self.collapser = collapser

    def send(self, request: OutgoingRequest, call: Call, rules: Rules) -> Awaitable[BodyResponse]:
        """Return the response to *request*, out of the store or not."""
        call.age = None
        call.set_cookies = None
        return CachedRequest(self, self.forward, request, call, rules).response()

    async def stored(self, key: str) -> Sequence[Entry]:
        """Return the entries under a key."""
        stored = self.store.get(key)
        # Asked first, as it costs little: a store in memory returns these.
        if isinstance(stored, (tuple, list)):
            return stored
        return await stored if inspect.isawaitable(stored) else stored


class CachedRequest:
    """One request that the cache answers or forwards."""

    def __init__(
        self,
        cache: ResponseCache,
        forward: Send,
        outgoing: OutgoingRequest,
        call: Call,
        rules: Rules,
    ) -> None:
        fields = _without_own_host(outgoing.fields, outgoing.target)
        self._request = CacheRequest(outgoing.method, outgoing.target.url, fields)
        self._cache = cache
        self._send = forward
        self._outgoing = outgoing
        self._call = call
        self._rules = rules

    def shared_key(self, names: tuple[str, ...] | None = None) -> CollapseKey:
        """
        Return the key by which requests share a response.

        :param names: of the fields that select it; by default those that always do.
        """
        names = self._rules.key_field_names() if names is None else names
        return self._request.key, names, variant(self._request.fields, names)

    async def response(self) -> BodyResponse:
        """Serve a stored response, forward the request, or wait for another caller's request."""
        cache, request, rules = self._cache, self._request, self._rules
        outcome, self._call.awaited = self._call.awaited, None
        decision = await self._lookup(outcome)
        names = rules.key_field_names()
        waited = outcome is not None
        for _ in range(_MAX_WAITS):
            # Only a request that accepts any fresh response can be collapsed with another.
            if (
                isinstance(decision, (Serve, Unsatisfiable))
                or request.method != "GET"
                or not request.is_plain
            ):
                break
            if outcome is None:
                key = self.shared_key(names)
                if cache.collapser.is_unstorable(key, rules.storing_terms(request.key)):
                    unshared = cache.collapser.begin_unshared(key)
                    return await unshared.run(self.forward(decision, unshared))
                collapsed = cache.collapser.find(key)
                if collapsed is None:
                    collapsed = cache.collapser.begin(key, self._call.overrides)
                    return await self._forward_shared(decision, collapsed)
                waiting = cache.collapser.wait(collapsed, self._call, cache.now())
                outcome = await result_of(waiting)
                waited = True
                decision = await self._lookup(outcome)
            (collapsed, _, failure, final), outcome = outcome, None
            if final and failure is not None and not isinstance(decision, Serve):
                stale = self._stale_in_place(decision, failure, collapsed=True)
                if stale is not None:
                    return stale
                if isinstance(failure, FetchError):
                    raise failure.with_traceback(None)
            if not isinstance(failure, FetchError) and collapsed.vary in (None, names):
                break
            names = collapsed.vary or names
        if isinstance(decision, Serve):
            return self._serve_hit(decision, collapsed=waited)
        if isinstance(decision, Unsatisfiable):
            return BufferedResponse(504, b"Gateway Timeout", HeaderFields(), b"")
        return await self.forward(decision, None)

    async def _lookup(self, outcome: WaitOutcome | None) -> Decision:
        """Decide by what is stored now; *outcome* is that of a wait for another's request."""
        cache, request, rules = self._cache, self._request, self._rules
        stored, now = await cache.stored(request.key), cache.now()
        if outcome is None or outcome.failure is not None:
            return rules.lookup(request, stored, now)
        return lookup_after_wait(rules, request, stored, now, outcome.asked_at)

    async def _forward_shared(
        self, decision: Decision, collapsed: CollapsedRequest
    ) -> BodyResponse:
        """
        Forward the request for all who wait for its response.

        A body that is read by its caller is so by that one's deadline alone.
        """
        call, work = self._call, self.forward(decision, collapsed)
        deadline = call.deadline
        if deadline is None or not call.buffer_body:
            return await result_of(collapsed.start(work))
        own = Deadline(deadline.at, deadline.total)
        try:
            return await shared_outcome(collapsed, collapsed.start(work, deadline), call, own)
        except FetchTimeout as timeout:
            stale = None
            if collapsed.is_over_for_initiator:
                stale = self._stale_in_place(decision, timeout)
            if stale is None:
                raise
            return stale

    def _serve_hit(self, decision: Serve, *, collapsed: bool = False) -> BodyResponse:
        if decision.background_revalidation:
            self._revalidate_in_background(decision.entry)
        status = COLLAPSED if collapsed else "hit"
        ttl = int(decision.freshness_remaining)
        return self._serve(decision.entry, decision.age, f"{status}; ttl={ttl}")

    def _revalidate_in_background(self, entry: Entry) -> None:
        """Validate a response that is served stale, without delaying its caller."""
        cache, request = self._cache, self._request
        key = self.shared_key()
        if request.method != "GET" or cache.collapser.find(key) is not None:
            return
        plain = self._outgoing.with_fields(self._outgoing.fields.without(_OMITTED))
        forward, call = cache.background(self._call)
        other = CachedRequest(cache, forward, plain, call, self._rules)
        conditions = entry.validators if entry.complete_length is None else []
        decision = Revalidate(entry, conditions) if conditions else Forward("stale", entry)
        collapsed = cache.collapser.begin(key, call.overrides)
        cache.collapser.run_in_background(collapsed, other.forward(decision, collapsed))

    async def forward(
        self,
        decision: Decision,
        collapsed: CollapsedRequest | None,
        sent: Awaitable[BodyResponse] | None = None,
        request_time: float | None = None,
    ) -> BodyResponse:
        """
        Send the request to the next step, and store the response if it is storable.

        :param sent: returns the response where the request was sent without conditions already.
        :param request_time: when it was, by the clock of the cache.
        """
        assert isinstance(decision, (Revalidate, FetchRemainder, Forward))
        cache = self._cache
        conditions = () if isinstance(decision, Forward) else decision.conditions
        if sent is None or request_time is None:
            request_time = cache.now()
            sent = self._send(self._outgoing.with_replaced(conditions), self._call)
        try:
            response = await sent
        except FetchError as error:
            stale = self._stale_in_place(decision, error)
            if stale is not None:
                if collapsed is not None:
                    collapsed.failure = error.with_traceback(None)
                return stale
            self._keep_part(request_time, collapsed)
            raise
        received = self._received(response, request_time)
        code = response.code
        if code in STALE_IF_ERROR_STATUSES:
            if collapsed is not None:
                collapsed.failure = code
            stale = self._stale_in_place(decision, code)
            if stale is not None:
                discard(response)
                return stale
        if isinstance(decision, Revalidate) and code == 304:
            return self._serve_validated(decision, received, collapsed)
        if isinstance(decision, FetchRemainder) and code in (206, 416):
            return await self._serve_completed(decision, received)
        if self._request.method == "HEAD":
            await self._update_by_head(received)
        parts = await self._stored_beside(response) if code == 206 else ()
        return self._serve_new(received, decision.reason, collapsed, parts)

    def serve_missed(
        self,
        decision: Forward,
        response: BodyResponse,
        request_time: float,
        collapsed: CollapsedRequest | None,
    ) -> BodyResponse:
        """
        Return the response to a request for which nothing was stored, and store it if storable.

        :param response: any but a 206.
        """
        received = self._received(response, request_time)
        return self._serve_new(received, decision.reason, collapsed, ())

    def _received(self, response: BodyResponse, request_time: float) -> _ReceivedResponse:
        """Return a response with its times."""
        # Earlier attempts, and the waits between them, do not add to the response's age.
        request_time += self._call.delay
        times = ReceiptTimes(request_time, self._cache.now(), self._cache.wall())
        return _ReceivedResponse(response, response.fields, times)

    def _keep_part(self, request_time: float, collapsed: CollapsedRequest | None) -> None:
        """Store what came of a body that broke off, if the rest of it can be requested later."""
        request, rules = self._request, self._rules
        if self._call.broken is None:
            return
        response, body = self._call.broken
        received = self._received(response, request_time)
        length = _content_length(response)
        if rules.fits(length or 0) and rules.storable(
            request, response.code, received.fields, received.times.wall
        ):
            part = incomplete_response(request, self._make_entry(received, body), length)
            if part is not None:
                self._put(part, collapsed)

    def _stale_in_place(
        self, decision: Decision, failure: FetchError | int, *, collapsed: bool = False
    ) -> BodyResponse | None:
        """
        Return a stale response in place of an error of the server, or None where none may be.

        :param failure: the error, or a status.
        :param collapsed: whether it is the answer to another caller's request.
        """
        if not isinstance(decision, (Revalidate, FetchRemainder, Forward)):
            return None
        entry, now = decision.entry, self._cache.now()
        if entry is None or not self._rules.stale_on_error(self._request, entry, now):
            return None
        detail = f"fwd-status={failure}" if isinstance(failure, int) else "detail=unreachable"
        status = f"fwd=stale; {detail}" + ("; collapsed" if collapsed else "")
        return self._serve(entry, entry.age(now), status)

    def _serve_validated(
        self,
        decision: Revalidate,
        received: _ReceivedResponse,
        collapsed: CollapsedRequest | None,
    ) -> BodyResponse:
        """Serve the stored response that a 304 has validated."""
        entry = decision.entry
        status = f"fwd={decision.reason}; fwd-status=304"
        if not _validates(entry, self._request.fields, received.fields):
            # The 304 is about the caller's copy.
            return with_cache_status(received.response, status)
        discard(received.response)
        new = self._rules.freshen(self._request, entry, received.fields, received.times)
        if collapsed is not None:
            collapsed.vary = new.vary
        self._put_updated(new, [entry], collapsed)
        return self._serve(new, new.age(received.times.response_time), status, received.fields)

    async def _serve_completed(
        self, decision: FetchRemainder, received: _ReceivedResponse
    ) -> BodyResponse:
        """Serve the complete response, after its remainder has been received."""
        request = self._request
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
            self._cache.store.remove(request.key)
            return await self.forward(Forward("partial"), None)
        if self._rules.storable(request, 200, complete.fields, received.times.wall):
            self._put(complete, None)
        status = "fwd=partial; fwd-status=206"
        age = complete.age(received.times.response_time)
        return self._serve(complete, age, status, received.fields)

    def _serve_new(
        self,
        received: _ReceivedResponse,
        reason: str,
        collapsed: CollapsedRequest | None,
        parts: Sequence[Entry],
    ) -> BodyResponse:
        """
        Return a response from the server; store it, and remove those that it invalidates.

        :param parts: the stored entries that a partial response may be combined with.
        """
        cache, request, rules = self._cache, self._request, self._rules
        response, fields = received.response, received.fields
        for key in invalidated_keys(request.method, request.key, response.code, fields):
            cache.store.remove(key)
            cache.collapser.invalidate(key)
        status = f"fwd={reason}; fwd-status={response.code}"
        if request.method == "HEAD":
            return with_cache_status(response, status)
        storable = rules.storable(request, response.code, fields, received.times.wall)
        fits = not isinstance(response.length, int) or rules.fits(response.length)
        if collapsed is not None and (storable or response.code < 400):
            # An error says nothing about whether the response after it can be stored.
            terms = rules.storing_terms(request.key)
            cache.collapser.note_storable(collapsed, terms, storable=storable and fits)
        if not storable:
            if rules.supersedes_stored(request, response.code, fields):
                cache.store.remove(request.key)
        elif response.length == 0:
            self._put(self._make_entry(received, b""), collapsed)
            status += "; stored"
        elif fits:
            return self._store_body(received, f"{status}; stored", collapsed, parts)
        return with_cache_status(response, status)

    async def _stored_beside(self, response: BodyResponse) -> Sequence[Entry]:
        """Return what is stored; drop *response*, which nobody has yet, if that fails."""
        try:
            return await self._cache.stored(self._request.key)
        except BaseException:
            discard(response)
            raise

    async def _update_by_head(self, received: _ReceivedResponse) -> None:
        """Freshen or remove what is stored for GET, by a response to HEAD."""
        request = self._request
        stored = await self._stored_beside(received.response)
        entry, outdated = self._rules.freshen_by_head(
            request,
            stored,
            received.response.code,
            received.fields,
            received.times,
        )
        if outdated:
            self._cache.store.remove(request.key)
        elif entry is not None:
            self._put_updated(entry, stored, None)

    def _make_entry(self, received: _ReceivedResponse, body: bytes) -> Entry:
        return self._rules.make_entry(
            self._request,
            received.response.code,
            received.response.phrase.decode("latin-1"),
            received.fields,
            body,
            received.times,
        )

    def _put(self, entry: Entry, collapsed: CollapsedRequest | None) -> None:
        invalidated = collapsed is not None and collapsed.invalidated
        if invalidated or self._rules.forbids_keeping(entry):
            self._cache.store.remove(self._request.key)
        else:
            self._cache.store.put(self._request.key, entry)

    def _put_updated(
        self, entry: Entry, stored: Sequence[Entry], collapsed: CollapsedRequest | None
    ) -> None:
        """Put an entry in place of the one of *stored* that it was made of."""
        if all((old.vary, old.variant) != (entry.vary, entry.variant) for old in stored):
            # Vary has changed. What the old one is selected by would not be enough.
            self._cache.store.remove(self._request.key)
        self._put(entry, collapsed)

    def _store_body(
        self,
        received: _ReceivedResponse,
        status: str,
        collapsed: CollapsedRequest | None,
        parts: Sequence[Entry],
    ) -> BodyResponse:
        """
        Return a response whose body is stored: at once, or while it is read.

        :param parts: the stored entries that a partial response may be combined with.
        """
        response, rules = received.response, self._rules

        def store(body: bytes, complete: bool) -> None:
            entry: Entry | None = self._make_entry(received, body)
            assert entry is not None
            if collapsed is not None:
                collapsed.vary = entry.vary
            if response.code == 206:
                as_stated = complete and len(body) == _content_range_length(received.fields)
                entry = combine(parts, entry) if as_stated else None
            elif not complete:
                entry = incomplete_response(self._request, entry, _content_length(response))
            if entry is not None:
                self._put(entry, collapsed)

        if isinstance(response, BufferedResponse):
            store(response.body, response.complete)
            return with_cache_status(response, status)
        tee = BodyTee(
            response,
            store=store,
            fits=rules.fits,
            has_waiters=lambda: collapsed is not None and collapsed.has_waiters,
            on_end=lambda: None if collapsed is None else collapsed.finish(),
        )
        if collapsed is not None:
            collapsed.vary = rules.selecting_names(received.fields)
            collapsed.store_body(tee)
        return with_cache_status(BodyResponse.like(response, tee.deliver), status)

    def _serve(
        self,
        entry: Entry,
        age: float,
        status: str,
        received: HeaderFields | None = None,
    ) -> BodyResponse:
        """
        Return a response out of the store.

        :param received: the fields of the response that has updated it; None if there was none.
        """
        self._call.age = age
        self._call.set_cookies = [] if received is None else received.get_all("set-cookie")
        served = construct_response(self._request, entry, age)
        reason = served.reason.encode("latin-1")
        response = BufferedResponse(served.status, reason, served.fields, served.body)
        return with_cache_status(response, status)


def _without_own_host(fields: HeaderFields, target: HttpTarget) -> HeaderFields:
    """Return the fields without a ``Host`` that says the same as the URL."""
    host = fields.joined("host")
    if host is None:
        return fields
    with suppress(InvalidURL):
        if parse_target(f"{target.scheme}://{host}").authority == target.authority:
            return fields.without(["host"])
    return fields


def _content_length(response: BodyResponse) -> int | None:
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


def with_cache_status(response: BodyResponse, status: str) -> BodyResponse:
    """Append to ``Cache-Status``, after the members of caches closer to the server."""
    response.fields = response.fields.added("Cache-Status", f"{CACHE_NAME}; {status}")
    return response
