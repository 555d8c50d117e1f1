"""
The HTTP agent: all steps of a request, from the cache to the connection, in one ``IAgent``.

The steps are coroutines on data of our own (:class:`~twisted_net.http.request.OutgoingRequest`),
each of which calls the next: decompression, cache, retries, one attempt, a wire. Twisted's types
are at the edge, :meth:`HTTPAgent.request`. Redirects and cookies are handled above, so that each
request of a redirect chain passes through all steps.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypedDict

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IHostnameResolver
from twisted.web.iweb import IAgent, IPolicyForHTTPS, IResponse
from typing_extensions import override

from twisted_net.config.tls import ClientTlsSettings
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import FetchError
from twisted_net.http.agent_edge import AgentEdge, sender
from twisted_net.http.attempts import Attempts
from twisted_net.http.bodies import BodyResponse, BufferedResponse
from twisted_net.http.cache.collapse import RequestCollapser
from twisted_net.http.cache.entry import CACHE_RELEVANT_FIELDS
from twisted_net.http.cache.memory_hit import Hit, fresh_hit
from twisted_net.http.cache.missed_gets import MissedGets
from twisted_net.http.cache.response_cache import ResponseCache
from twisted_net.http.cache.rules import Rules
from twisted_net.http.cache.stores import MemoryStore, Store, open_store
from twisted_net.http.call import Call, CallOverrides, Deadline
from twisted_net.http.calls.body import RequestBody
from twisted_net.http.calls.direct_get import DirectGet, DirectGets, SharedGet
from twisted_net.http.calls.outcomes import started
from twisted_net.http.calls.progress import ProgressFunction, ProgressReports
from twisted_net.http.calls.synonyms import agent_synonyms
from twisted_net.http.calls.timeouts import Timeouts, limit_or
from twisted_net.http.connector import Connector
from twisted_net.http.content_coding import decode_response, with_accepted_codings
from twisted_net.http.errors import BodyTooLarge, CircuitOpen, name_url
from twisted_net.http.fields import HeaderFields, connection_options
from twisted_net.http.pool import ConnectionPool
from twisted_net.http.proxies import ENVIRONMENT, find_proxy_routes, parse_proxy
from twisted_net.http.request import OutgoingRequest, Send
from twisted_net.http.retry.circuit_breaker import CircuitState
from twisted_net.http.retry.policy import Attempt
from twisted_net.http.retry.retrier import Retrier, log_attempt
from twisted_net.http.settings import EgressPolicy, HttpSettings
from twisted_net.http.ssrf_guard import SsrfGuard
from twisted_net.http.urls import HttpTarget, encode_url, parse_target, split_credentials
from twisted_net.net.reactor import AnyReactor, full_reactor
from twisted_net.net.steady_clock import steady, steady_wall
from twisted_net.net.tls_policy import TlsPolicy
from twisted_net.turns.paced_reads import Pace

_LONGEST = 86_400.0
"""Seconds that a connection may take in any call, as the settings have it."""


class AgentOptions(TypedDict, total=False):
    """Arguments of an :class:`HTTPAgent` that a client takes as well."""

    egress: EgressPolicy | None
    store: Store | None
    agent: IAgent | None
    resolver: IHostnameResolver | None
    tls_policy: IPolicyForHTTPS | None
    chance: Callable[[], float]
    wall: Callable[[], float]
    report: Callable[[Attempt], None]
    environ: Mapping[str, str]


@check_arguments(synonyms=agent_synonyms(HttpSettings.__struct_fields__))
class HTTPAgent(AgentEdge):
    """
    All steps in one agent, configured by one settings record.

    ``treq.client.HTTPClient(HTTPAgent(reactor))`` has a cache, retries, limits and, with *egress*,
    a guard. A request by :meth:`request` may take ``settings.timeout`` in all.

    :param egress: where requests may go; None for everywhere, which suits URLs that your own
        program makes. For URLs from untrusted sources, pass ``EgressPolicy()`` or a stricter one.
    :param store: stores the cache; by default that of
        :func:`~twisted_net.http.cache.stores.open_store` for the settings.
    :param agent: makes the single attempts, in place of connections of this package (for tests).
    :param resolver: looks up names; by default the reactor's.
    :param tls_policy: makes connections with TLS, in place of ``settings.tls``.
    :param chance: returns a random number from 0 to 1, evenly distributed.
    :param wall: returns the time of day, in seconds since 1970.
    :param report: is called with each attempt, when it is over.
    :param environ: variables that name the proxies, where the settings say so; else not read.
    :raises ConfigError: for a file of ``settings.tls`` that cannot be used.
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
        if store is not None and not settings.cache.enabled:
            raise ValueError("HTTPAgent: store has no effect, as settings.cache.enabled is false")
        _check_effect(settings, agent, egress=egress, resolver=resolver, tls_policy=tls_policy)
        guard = None if egress is None else SsrfGuard(egress)
        connector = Connector(
            reactor,
            # Calls may allow more or less; an attempt keeps to the time.
            timeout=_LONGEST,
            guard=guard,
            resolver=resolver,
            tls_policy=tls_policy or TlsPolicy(settings.tls),
            routes=find_proxy_routes(settings.proxy, settings.no_proxy, environ),
        )
        self._pool = ConnectionPool(reactor, connector, settings)
        self._routes_calls = agent is None
        attempts = Attempts(reactor, self._pool, settings, guard=guard)
        self._send: Send = attempts.send if agent is None else sender(agent)
        cache = settings.cache
        self._rules = Rules(cache) if cache.enabled else None
        self._store = store or open_store(reactor, cache)
        self._pace = Pace.of(self._reactor)
        self._collapser = RequestCollapser(reactor)
        self._now = steady_wall(reactor, wall)
        self._retrier = Retrier(
            self._attempt,
            self._reactor,
            self._pool.origins,
            chance=chance,
            wall=wall,
            report=report,
        )
        self._cache = ResponseCache(
            self._send_uncached,
            self._store,
            background=self._background,
            wall=wall,
            now=self._now,
            collapser=self._collapser,
        )
        direct = DirectGets(
            attempts, self._retrier, MissedGets(self._cache, self._rules), self._shown
        )
        self._direct = direct if agent is None else None

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
        return fresh_hit(rules, self._store, key, fields, self._now)

    def check_circuit(self, target: HttpTarget) -> None:
        """
        Check whether a request would be refused, so that this costs no more than a hit.

        :raises CircuitOpen: if the circuit breaker rejects it, and no stored response is left to
            be served in its place.
        """
        breaker = self._pool.origins.get(target.origin).breaker
        if breaker.state is CircuitState.CLOSED:
            return
        wait = breaker.retry_after(self._reactor.seconds())
        if wait > 0.0 and not (self._rules is not None and self._may_have(target.url)):
            raise CircuitOpen(target.host, wait)

    def _may_have(self, key: str) -> bool:
        """Return whether there may be a stored response, stale ones included."""
        return not isinstance(self._store, MemoryStore) or bool(self._store.get(key))

    @check_arguments
    def circuit_state(self, url: str) -> CircuitState:
        """
        Return the state of the circuit breaker of the origin of a URL.

        :param url: absolute; credentials in it are ignored.
        :raises InvalidURL: if it cannot be requested.
        """
        plain, _ = split_credentials(url)
        target = parse_target(encode_url(plain))
        return self._pool.origins.get(target.origin).breaker.state

    def new_call(self, now: float | None = None) -> Call:
        """Return the terms of a call that starts now, according to the settings."""
        timeout = self._settings.timeout
        if now is None:
            now = self._reactor.seconds()
        return Call(
            deadline=Deadline(now + timeout, timeout),
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
        if routed and not self._routes_calls:
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
            None if progress is None else ProgressReports(progress),
        )

    @override
    def answer(self, request: OutgoingRequest) -> Deferred[IResponse]:
        if request.method != "GET" or request.producer is not None:
            return started(self.send(request, self.new_call()))
        request = with_accepted_codings(request)
        if not request.fields.has_none(CACHE_RELEVANT_FIELDS):
            return started(self.send(request, self.new_call()))
        hit = self.fresh(request.target.url, request.fields, None)
        if hit is not None:
            return succeed(hit.response())
        now = self._reactor.seconds()
        call = self.new_call(now)
        direct = self.send_directly(request.target, request.fields, call, now)
        if direct is None:
            return started(self.send(request, call))
        return direct.done.addCallback(self._answered, direct, request, call)

    def _answered(
        self, _: None, direct: DirectGet | SharedGet, request: OutgoingRequest, call: Call
    ) -> IResponse | Deferred[IResponse]:
        """Return what has come of a GET that was sent directly, or of the other steps."""
        outcome, direct.outcome = direct.outcome, None
        if outcome is None:
            return started(self.send(request, call))
        return outcome if isinstance(outcome, BodyResponse) else fail(outcome)

    async def send(self, request: OutgoingRequest, call: Call) -> BodyResponse:
        """
        Return the response to one request of a call, decompressed.

        Fields of one connection, which ``Connection`` names, are not shown (RFC 9110 §7.6.1).
        """
        url = call.url = request.target.url
        request = with_accepted_codings(request)
        try:
            if call.rules is None:
                response = await self._send_uncached(request, call)
            else:
                response = await self._cache.send(request, call, call.rules)
            return self._shown(response, call)
        except FetchError as error:
            name_url(error, url)
            raise

    def send_directly(
        self, target: HttpTarget, fields: HeaderFields, call: Call, now: float
    ) -> DirectGet | SharedGet | None:
        """
        Send a GET at once, if that takes no more than an idle connection; or wait for another's.

        None where it takes more.

        :param fields: with none of :data:`~twisted_net.http.cache.entry.CACHE_RELEVANT_FIELDS`.
        :param call: a new one.
        """
        if self._direct is None:
            return None
        return self._direct.send(target, fields, call, now)

    def post_directly(
        self, target: HttpTarget, fields: HeaderFields, body: RequestBody, call: Call, now: float
    ) -> DirectGet | None:
        """Send a POST with a body in memory, as :meth:`send_directly` does a GET."""
        return None if self._direct is None else self._direct.post(target, fields, body, call, now)

    def _shown(self, response: BodyResponse, call: Call) -> BodyResponse:
        """
        Return a response decompressed, and without the fields of one connection.

        :raises BodyTooLarge: if the body takes more than the call allows.
        :raises BadResponse: if the body cannot be decompressed.
        """
        if (
            isinstance(response, BufferedResponse)
            and call.rules is not None
            and len(response.body) > call.max_body
        ):
            # A call with a higher limit has stored it.
            raise BodyTooLarge(call.max_body)
        if response.fields.has_none(_CHANGED_FIELDS):
            return response
        response = decode_response(response, call.max_body, self._pace, call.deadline, call.url)
        return _without_connection(response)

    def _send_uncached(self, request: OutgoingRequest, call: Call) -> Awaitable[BodyResponse]:
        return self._retrier.send(request, call, call.retry)

    def _attempt(self, request: OutgoingRequest, call: Call) -> Awaitable[BodyResponse]:
        if call.overrides is None or call.overrides.progress is None:
            return self._send(request, call)
        return self._watched(request, call, call.overrides.progress)

    async def _watched(
        self, request: OutgoingRequest, call: Call, progress: ProgressReports
    ) -> BodyResponse:
        response = await self._send(progress.watch_upload(request), call)
        return progress.watch_download(response)

    def _background(self, caller: Call) -> tuple[Send, Call]:
        """Return how a request is sent after a call, by the same route."""
        call = self.new_call()
        if caller.overrides is not None:
            call.overrides = evolve(caller.overrides, progress=None)
        return self._send_uncached, call

    async def close(self) -> None:
        """Drop all connections and close the store; pending requests fail."""
        # The pool first: whoever is woken by the others begins nothing new then.
        closing_pool = self._pool.close()
        self._retrier.close()
        self._collapser.close()
        await closing_pool
        closing = self._store.close()
        if closing is not None:
            await closing


# A response without these is shown as it is.
_CHANGED_FIELDS = ("connection", "content-encoding")


def _without_connection(response: BodyResponse) -> BodyResponse:
    """Remove ``Connection``, and the fields that it names: the cache has obeyed it by now."""
    connection = response.fields.joined("connection")
    if connection is not None:
        names = ("connection", *connection_options(connection))
        response.fields = response.fields.without(names)
    return response


def _check_effect(settings: HttpSettings, agent: IAgent | None, **connecting: object) -> None:
    """Refuse what would have no effect beside another argument."""
    if agent is not None and any(given is not None for given in connecting.values()):
        raise ValueError(
            "HTTPAgent: with agent, which makes the requests, egress, resolver and tls_policy "
            "have no effect"
        )
    if agent is not None and settings.proxy is not None:
        # Its requests would go past the proxy.
        raise ValueError("HTTPAgent: settings.proxy has no effect with agent")
    decides = "tls_policy" if agent is None else "agent"
    if settings.tls != ClientTlsSettings() and (agent or connecting["tls_policy"]):
        raise ValueError(f"HTTPAgent: settings.tls has no effect with {decides}")
