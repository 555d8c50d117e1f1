"""
Missed GETs: what the cache does for a GET that it has no response to, without its coroutines.

That is most of what :mod:`twisted_net.http.cache.response_cache` is asked; whatever takes more is
left to it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from twisted_net.errors import FetchError
from twisted_net.http.bodies import BodyResponse
from twisted_net.http.cache.collapse import (
    CollapsedRequest,
    CollapseKey,
    LoneRequest,
    WaitOutcome,
)
from twisted_net.http.cache.entry import CacheRequest
from twisted_net.http.cache.memory_hit import fresh_hit, stored_in_memory
from twisted_net.http.cache.response_cache import (
    CachedRequest,
    ResponseCache,
    with_cache_status,
)
from twisted_net.http.cache.rules import (
    OTHER_METHOD,
    STALE_IF_ERROR_STATUSES,
    Forward,
    Rules,
    Serve,
    Unsatisfiable,
)
from twisted_net.http.cache.stores import MemoryStore
from twisted_net.http.cache.vary import variant
from twisted_net.http.call import Call, Deadline
from twisted_net.http.calls.outcomes import copied
from twisted_net.http.request import OutgoingRequest

MISSED = Forward("uri-miss")
"""What is decided where nothing is stored."""


class MissedGets:
    """
    Shares and stores the responses to GETs, which are sent by others.

    :param cache: has the store, and goes on where it takes more.
    :param rules: those that the calls have, or others with the same names of fields.
    :ivar now: the clock of the cache.
    :ivar end: ``end(get)`` notes that a GET has ended, for which nobody else has asked.
    """

    def __init__(self, cache: ResponseCache, rules: Rules | None) -> None:
        self._cache = cache
        self._collapser = cache.collapser
        self.end = cache.collapser.end_lone
        self.now = cache.now
        self._names = None if rules is None else rules.key_field_names()

    def key(self, request: OutgoingRequest) -> CollapseKey | None:
        """
        Return the key of a GET by which others may share its response.

        :param request: with none of :data:`~twisted_net.http.cache.entry.CACHE_RELEVANT_FIELDS`.
        :return: None where it takes more to know, and without a cache.
        """
        fields = request.fields
        if self._names is None or "host" in fields:
            return None
        return request.target.url, self._names, variant(fields, self._names)

    def is_missed(self, key: CollapseKey) -> bool:
        """
        Return whether nothing is stored for a GET, and nobody waits for the same.

        It is False, too, where it takes more to know.
        """
        store = self._cache.store
        return type(store) is MemoryStore and not store.get(key[0]) and not self._collapser.has(key)

    def wait(
        self, key: CollapseKey, request: OutgoingRequest, call: Call
    ) -> Deferred[WaitOutcome] | None:
        """
        Wait for another caller's request for the same; None where there is anything else to do.

        :param request: with :meth:`key`; its call has rules of a cache.
        """
        collapser, rules = self._collapser, call.rules
        assert rules is not None
        if not collapser.has(key) or collapser.is_unstorable(key, rules.storing_terms(key[0])):
            return None
        stored = stored_in_memory(self._cache.store, key[0])
        if stored is None:
            return None
        now = self._cache.now()
        if stored:
            asked = CacheRequest("GET", key[0], request.fields)
            decision = rules.lookup(asked, stored, now)
            if isinstance(decision, (Serve, Unsatisfiable)):
                return None
        other = collapser.find(key)
        return None if other is None else collapser.wait(other, call, now)

    def serve_awaited(
        self, outcome: WaitOutcome, request: OutgoingRequest, call: Call
    ) -> BodyResponse | None:
        """
        Return what the request of another caller has brought, or None where it takes more.

        :raises FetchError: if that is an error, and there is nothing to serve in its place.
        """
        key, rules, store = request.target.url, call.rules, self._cache.store
        assert rules is not None
        failure = outcome.failure
        if failure is None:
            hit = fresh_hit(
                rules, store, key, request.fields, self._cache.now, asked_at=outcome.asked_at
            )
            if hit is not None:
                call.age, call.set_cookies = hit.age, []
                return hit.response()
        stored = stored_in_memory(store, key)
        if outcome.final and isinstance(failure, FetchError) and stored is not None and not stored:
            # Each of those who have waited gets one of its own.
            raise copied(failure)
        return None

    def begin(self, get: LoneRequest, now: float) -> float:
        """
        Register a GET for which :meth:`is_missed` is true.

        :param now: by the clock of the collapser.
        :return: the time by the clock of the cache.
        """
        self._collapser.begin_lone(get, now)
        return self._cache.now()

    def collapse(
        self, get: LoneRequest, running: Deferred[BodyResponse], deadline: Deadline | None
    ) -> tuple[CollapsedRequest, Deferred[BodyResponse]]:
        """Let others wait for a GET, as :meth:`.RequestCollapser.collapse` does."""
        return self._collapser.collapse(get, running, deadline)

    def serve(
        self,
        get: LoneRequest,
        request: OutgoingRequest,
        call: Call,
        response: BodyResponse,
        request_time: float,
    ) -> BodyResponse:
        """
        Return the response to such a GET with ``Cache-Status``, and store it if it is storable.

        :param response: any but a 206, which has parts of others beside it.
        :param request_time: when it was requested, by the clock of the cache.
        """
        rules, key, code = call.rules, get.key[0], response.code
        assert rules is not None
        if (
            code in STALE_IF_ERROR_STATUSES
            or not rules.is_unstorable(key, code, response.fields)
            or self._cache.store.get(key)
        ):
            collapsed = get.shared()
            if code in STALE_IF_ERROR_STATUSES:
                collapsed.failure = code
            cached = CachedRequest(self._cache, self._cache.forward, request, call, rules)
            return cached.serve_missed(MISSED, response, request_time, collapsed)
        if code < 400:
            self._collapser.note_storable(get, get.terms, storable=False)
        return with_cache_status(response, f"fwd=uri-miss; fwd-status={code}")

    def go_on(
        self,
        request: OutgoingRequest,
        call: Call,
        sent: Coroutine[Any, Any, BodyResponse],
        request_time: float,
        collapsed: CollapsedRequest | None,
    ) -> Coroutine[Any, Any, BodyResponse]:
        """
        Return the response to such a GET, or to a POST, whatever *sent* returns or raises.

        :param collapsed: what others wait for; None for a POST.
        """
        assert call.rules is not None
        cached = CachedRequest(self._cache, self._cache.forward, request, call, call.rules)
        decision = OTHER_METHOD if collapsed is None else MISSED
        return cached.forward(decision, collapsed, sent, request_time)

    def serve_post(
        self, request: OutgoingRequest, call: Call, response: BodyResponse, request_time: float
    ) -> BodyResponse:
        """
        Return the response to a POST, which removes what is stored for its URL.

        :param response: any but a 206.
        :param request_time: as of :meth:`serve`.
        """
        assert call.rules is not None
        cached = CachedRequest(self._cache, self._cache.forward, request, call, call.rules)
        return cached.serve_missed(OTHER_METHOD, response, request_time, None)
