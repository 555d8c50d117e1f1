"""
HTTP agents: decompression, cache, retries and single attempts, layered into one ``IAgent``.

From the outermost layer: decompression, cache, retries, one attempt, connections. Each layer is an
``IAgent`` over the next and can be used alone; :class:`HTTPAgent` combines them. Redirects and
cookies are handled above, so that each request of a redirect chain passes through all layers.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import inf
from typing import TypeVar, cast

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IHostnameResolver, IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from typing_extensions import override
from zope.interface import implementer

from twisted_net.config.type_checks import check_arguments
from twisted_net.http.agent_layer import AgentLayer, AgentRequest
from twisted_net.http.bodies import discard
from twisted_net.http.cache.agent import CachingAgent
from twisted_net.http.cache.collapse import RequestCollapser
from twisted_net.http.cache.entry import CACHE_RELEVANT_FIELDS
from twisted_net.http.cache.memory_hit import Hit, fresh_hit
from twisted_net.http.cache.rules import Rules
from twisted_net.http.cache.stores import Store, open_store
from twisted_net.http.call import Call, CallOverrides, Deadline
from twisted_net.http.calls.outcomes import result_of, started
from twisted_net.http.calls.progress import ProgressAgent, ProgressFunction
from twisted_net.http.calls.timeouts import Timeouts, limit_or
from twisted_net.http.connector import Connector
from twisted_net.http.content_coding import (
    accepted_codings,
    decode_response,
    fields_with_accept_encoding,
)
from twisted_net.http.errors import FetchTimeout, InvalidURL
from twisted_net.http.fields import HeaderFields, connection_options
from twisted_net.http.h1.exchange import ExchangeLimits
from twisted_net.http.h1.heads import CHUNKED
from twisted_net.http.h1.requests import RequestEncoder
from twisted_net.http.h1.wire import Wire
from twisted_net.http.pool import ConnectionPool
from twisted_net.http.proxies import ENVIRONMENT, find_proxy_routes, parse_proxy, proxy_refusal
from twisted_net.http.retry.agent import OriginRecovery, RetryAgent, log_attempt
from twisted_net.http.retry.policy import Attempt
from twisted_net.http.settings import EgressPolicy, HttpSettings
from twisted_net.http.ssrf_guard import SsrfGuard
from twisted_net.http.urls import HttpTarget, parse_target
from twisted_net.net.reactor import AnyReactor, full_reactor
from twisted_net.net.steady_clock import steady, steady_wall
from twisted_net.turns.paced_reads import Pace

_T = TypeVar("_T")

_LONGEST = 86_400.0
"""Seconds that a connection may take in any call, as the settings have it."""


@check_arguments
@implementer(IAgent)
class HTTPAgent:
    """
    All layers in one agent, configured by one settings record.

    ``treq.client.HTTPClient(HTTPAgent(reactor))`` has a cache, retries, limits and, with *egress*,
    a guard. A request by :meth:`request` may take ``settings.timeout`` in all.

    :param egress: where requests may go; None for everywhere, which suits URLs that your own
        program makes. For URLs from untrusted sources, pass ``EgressPolicy()`` or a stricter one.
    :param store: stores the cache; by default that of
        :func:`~twisted_net.http.cache.stores.open_store` for the settings.
    :param agent: makes the single attempts, in place of connections of this package (for tests).
    :param resolver: looks up names; by default the reactor's.
    :param tls_policy: says which certificates are trusted; by default those of the system.
    :param chance: returns a random number from 0 to 1, evenly distributed.
    :param wall: returns the time of day, in seconds since 1970.
    :param report: is called with each attempt, when it is over.
    :param environ: variables that name the proxies, where the settings say so; else not read.
    :raises ValueError: if a variable that names a proxy is invalid, and for arguments that have no
        effect together.
    """

    def __init__(
        self,
        reactor: AnyReactor,
        settings: HttpSettings | None = None,
        *,
        egress: EgressPolicy | None = None,
        store: Store | None = None,
        agent: IAgent | None = None,
        resolver: IHostnameResolver | None = None,
        tls_policy: IPolicyForHTTPS | None = None,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
        report: Callable[[Attempt], None] = log_attempt,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        reactor = full_reactor(reactor)
        self._reactor = steady(reactor)
        self._settings = settings = settings or HttpSettings()
        if agent is not None and not (egress is None and resolver is None and tls_policy is None):
            raise ValueError(
                "HTTPAgent: with agent, which makes the requests, egress, resolver and tls_policy "
                "have no effect"
            )
        if store is not None and not settings.cache.enabled:
            raise ValueError("HTTPAgent: store has no effect, as settings.cache.enabled is false")
        guard = None if egress is None else SsrfGuard(egress)
        connector = Connector(
            reactor,
            # Calls may allow more or less; an attempt keeps to the time.
            timeout=_LONGEST,
            guard=guard,
            resolver=resolver,
            tls_policy=tls_policy,
            routes=find_proxy_routes(settings.proxy, settings.no_proxy, environ),
        )
        self._pool = ConnectionPool(reactor, connector, settings)
        self._attempts = agent or AttemptAgent(reactor, self._pool, settings, guard=guard)
        cache = settings.cache
        self._rules = Rules(cache) if cache.enabled else None
        self._store = store or open_store(reactor, cache)
        self._pace = Pace.of(self._reactor)
        self._collapser = RequestCollapser(reactor)
        self._recovery = OriginRecovery(settings.budget, settings.breaker, settings.max_origins)
        self._chance = chance
        self._wall = wall
        self._now = steady_wall(reactor, wall)
        self._report = report

    def fresh(self, key: str, fields: HeaderFields, default_ttl: float | None) -> Hit | None:
        """
        Return the fresh response to a GET from a cache in memory, or None if there is none.

        See :func:`~twisted_net.http.cache.memory_hit.fresh_hit`.

        :param key: the URL in canonical form.
        :param fields: those of the request, with ``Accept-Encoding``.
        :param default_ttl: of this call; None for that of the settings.
        """
        if self._rules is None:
            return None
        rules = self._rules if default_ttl is None else self._rules.with_default_ttl(default_ttl)
        return fresh_hit(rules, self._store, key, fields, self._now())

    def new_call(self) -> Call:
        """Return the terms of a call that starts now, according to the settings."""
        timeout = self._settings.timeout
        return Call(
            deadline=Deadline(self._reactor.seconds() + timeout, timeout),
            retry=self._settings.retry,
            rules=self._rules,
            max_body=self._settings.max_body,
        )

    def overrides(
        self,
        timeouts: Timeouts,
        *,
        routed: bool = False,
        proxy: str | None = None,
        progress: ProgressFunction | None = None,
    ) -> CallOverrides:
        """
        Return what a call does otherwise than the settings say.

        :param routed: whether *proxy*, a URL or None for none, replaces that of the settings.
        :raises ValueError: for an invalid URL, and where it would have no effect.
        """
        if routed and not isinstance(self._attempts, AttemptAgent):
            raise ValueError(
                "Client: proxy has no effect, as the client's agent makes the requests"
            )
        route = None
        if proxy is not None:
            try:
                if proxy == ENVIRONMENT:
                    raise ValueError("a call needs its URL; environment is a word of the settings")
                route = parse_proxy(proxy)
            except ValueError as error:
                raise ValueError(f"Client: proxy: {error}") from None
        settings = self._settings
        return CallOverrides(
            limit_or(timeouts.connect, settings.connect_timeout),
            limit_or(timeouts.headers, settings.headers_timeout),
            limit_or(timeouts.silence, settings.silence_timeout),
            routed,
            route,
            progress,
        )

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        if method == b"GET" and bodyProducer is None:
            hit = self._hit(uri, headers)
            if hit is not None:
                return succeed(hit)
        return self.for_call(self.new_call()).request(method, uri, headers, bodyProducer)

    def _hit(self, uri: bytes, headers: Headers | None) -> IResponse | None:
        """Return the response of the layers, if a cache in memory has it and it is fresh."""
        try:
            key = parse_target(uri.decode("latin-1")).url
        except InvalidURL:
            return None
        fields = fields_with_accept_encoding(headers)
        hit = self.fresh(key, fields, None) if fields.has_none(CACHE_RELEVANT_FIELDS) else None
        return None if hit is None else hit.response()

    def for_call(self, call: Call) -> IAgent:
        """Return an agent of all layers for the requests of one call."""
        agent = self._below_cache(call)
        if call.rules is not None:
            agent = CachingAgent(
                agent,
                self._store,
                call.rules,
                call=call,
                wall=self._wall,
                now=self._now,
                collapser=self._collapser,
                background_agent=lambda: self._background_agent(call),
            )
        return DecodingAgent(agent, call.max_body, self._pace, call=call)

    def _background_agent(self, caller: Call) -> tuple[IAgent, Call]:
        """Return an agent for what is requested after a call, by the same route."""
        call = self.new_call()
        if caller.overrides is not None:
            call.overrides = evolve(caller.overrides, progress=None)
        return self._below_cache(call), call

    def _below_cache(self, call: Call) -> IAgent:
        agent = self._attempts
        if isinstance(agent, AttemptAgent):
            agent = agent.within(call.deadline, call.max_body, call.overrides)
        if call.overrides is not None and call.overrides.progress is not None:
            agent = ProgressAgent(agent, call.overrides.progress)
        return RetryAgent(
            agent,
            self._reactor,
            call.retry,
            call=call,
            recovery=self._recovery,
            chance=self._chance,
            wall=self._wall,
            report=self._report,
        )

    async def close(self) -> None:
        """Drop all connections and close the store; pending requests fail."""
        self._collapser.close()
        await self._pool.close()
        closing = self._store.close()
        if closing is not None:
            await closing


class AttemptAgent(AgentLayer):
    """
    Makes one attempt: takes or makes a connection, sends, waits for the header, limits the body.

    It fails with errors of this package only. The URL is checked first; with a guard, its
    destination too.
    """

    def __init__(
        self,
        clock: IReactorTime,
        pool: ConnectionPool,
        settings: HttpSettings,
        *,
        guard: SsrfGuard | None = None,
        deadline: Deadline | None = None,
        max_body: int | None = None,
        overrides: CallOverrides | None = None,
    ) -> None:
        self._clock = clock
        self._pool = pool
        self._settings = settings
        self._guard = guard
        self._deadline = deadline
        self._overrides = overrides
        limits = settings if overrides is None else overrides
        self._connect_timeout = limits.connect_timeout
        self._limits = ExchangeLimits(
            limits.headers_timeout,
            limits.silence_timeout,
            deadline,
            settings.max_body if max_body is None else max_body,
        )

    def within(
        self, deadline: Deadline | None, max_body: int, overrides: CallOverrides | None = None
    ) -> AttemptAgent:
        """Return this agent with a deadline, another limit for bodies, and what a call changes."""
        return AttemptAgent(
            self._clock,
            self._pool,
            self._settings,
            guard=self._guard,
            deadline=deadline,
            max_body=max_body,
            overrides=overrides,
        )

    @override
    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        return started(self._attempt(request))

    async def _attempt(self, request: AgentRequest) -> IResponse:
        target = parse_target(request.uri.decode("latin-1"))
        if self._guard is not None:
            self._guard.check_url(target.scheme, target.host, target.port)
        if self._deadline is not None and self._deadline.at <= self._clock.seconds():
            # No connection and no request is started that would be cancelled at once.
            raise self._deadline.exceeded("connect")
        if self._overrides is not None:
            target = self._overrides.target(target)
        sent, closes = self._encode(request, target)
        wire = await self._wire(target)
        method = request.method.decode("ascii")
        response = await result_of(
            wire.send(method, sent, request.producer, self._limits, closes=closes)
        )
        if response.code == 407 and wire.proxy is not None:
            discard(response)
            raise proxy_refusal(target.host, 407, unsent=False)
        return response

    def _encode(self, request: AgentRequest, target: HttpTarget) -> tuple[bytes, bool]:
        """Return the head of a request, and whether it closes the connection."""
        proxy = self._pool.forward_proxy(target)
        fields = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, values in request.headers.getAllRawHeaders()
            for value in values
        ]
        if proxy is not None and proxy.authorization is not None:
            fields = [pair for pair in fields if pair[0].lower() != "proxy-authorization"]
            fields.append(("Proxy-Authorization", proxy.authorization))
        producer = request.producer
        length = None
        if producer is not None:
            length = CHUNKED if producer.length is UNKNOWN_LENGTH else cast(int, producer.length)
        return _encoder(target.authority).encode(
            request.method.decode("latin-1"),
            target.path if proxy is None else target.url,
            fields,
            length=length,
        )

    async def _wire(self, target: HttpTarget) -> Wire:
        """Wait for a slot, then return a wire for one request."""
        turn = self._pool.acquire_slot(target.origin)
        if turn is not None:
            await self._timed(turn, "queue", self._settings.queue_timeout)
        try:
            wire = self._pool.take_idle(target.origin)
            if wire is None:
                within = self._remaining(self._connect_timeout)
                connecting = self._pool.connect(target, within)
                wire = await self._timed(connecting, "connect", self._connect_timeout)
        except BaseException:
            self._pool.release_slot(target.origin)
            raise
        wire.holds_slot = True
        return wire

    def _remaining(self, limit: float | None) -> float:
        """Return how many seconds something with a limit may take until the deadline."""
        seconds = inf if limit is None else limit
        if self._deadline is None:
            return seconds
        return min(seconds, self._deadline.at - self._clock.seconds())

    async def _timed(self, waiting: Deferred[_T], phase: str, limit: float | None) -> _T:
        """Await *waiting*, for at most *limit* seconds and until the deadline."""
        seconds = limit
        deadline = None
        if self._deadline is not None:
            remaining = self._deadline.at - self._clock.seconds()
            if limit is None or remaining < limit:
                seconds, deadline = max(0.0, remaining), self._deadline
        if seconds is None:
            return await result_of(waiting)
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            waiting.cancel()

        timer = self._clock.callLater(seconds, expire)
        try:
            return await result_of(waiting)
        except CancelledError:
            if expired:
                if deadline is not None:
                    raise deadline.exceeded(phase) from None
                raise FetchTimeout(phase, seconds) from None
            raise
        finally:
            if timer.active():
                timer.cancel()


@lru_cache(maxsize=1024)
def _encoder(authority: str) -> RequestEncoder:
    return RequestEncoder(authority)


def _without_connection(response: IResponse) -> IResponse:
    """Remove ``Connection``, and the fields that it names: the cache has obeyed it by now."""
    headers = response.headers
    lines = headers.getRawHeaders(b"connection")
    if lines:
        for name in connection_options(b",".join(lines).decode("latin-1")):
            headers.removeHeader(name.encode("latin-1"))
        headers.removeHeader(b"connection")
    return response


class DecodingAgent(AgentLayer):
    """
    Requests compressed bodies and decompresses them, piece by piece, up to a limit.

    Fields of one connection, which ``Connection`` names, are not shown (RFC 9110 §7.6.1).

    :param limit: bytes of a decompressed body.
    :param pace: the turns in which it is decompressed.
    """

    def __init__(self, agent: IAgent, limit: int, pace: Pace, *, call: Call | None = None) -> None:
        self._agent = agent
        self._limit = limit
        self._pace = pace
        self._call = call

    @override
    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        if self._call is not None:
            self._call.url = request.uri.decode("latin-1")
        codings = accepted_codings(request.headers)
        if request.headers.getRawHeaders(b"accept-encoding") != codings:
            headers = request.headers.copy()
            headers.setRawHeaders(b"accept-encoding", codings)
            request = request.with_headers(headers)
        received = request.send(self._agent)
        deadline = None if self._call is None else self._call.deadline
        received.addCallback(decode_response, self._limit, self._pace, deadline)
        return received.addCallback(_without_connection)
