"""The caching agent: an ``IAgent`` over another one, with the cache of this package."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.web.iweb import IAgent
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.http.agent_edge import AgentEdge, sender
from twisted_net.http.bodies import BodyResponse
from twisted_net.http.cache.collapse import RequestCollapser
from twisted_net.http.cache.response_cache import ResponseCache
from twisted_net.http.cache.rules import Rules
from twisted_net.http.cache.stores import Store
from twisted_net.http.call import Call
from twisted_net.http.request import OutgoingRequest, Send


@check_arguments
class CachingAgent(AgentEdge):
    """
    Answers requests from a store where :class:`~twisted_net.http.cache.rules.Rules` allow it.

    See :class:`~twisted_net.http.cache.response_cache.ResponseCache`.

    :param now: the clock of the cache, by which ages are measured: one for all agents over a store,
        made by ``steady_wall(reactor, time.time)`` of :mod:`twisted_net.net`.
    :param call: the terms of the call that all its requests belong to; by default each has its own,
        without a deadline.
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
        self._rules = rules
        self._call = call
        send = sender(agent)

        def background(caller: Call) -> tuple[Send, Call]:
            if background_agent is None:
                return send, self._own_call()
            other, call = background_agent()
            return sender(other), call

        self._cache = ResponseCache(
            send,
            store,
            background=background,
            wall=wall,
            now=now,
            collapser=collapser or RequestCollapser(),
        )

    @override
    async def respond(self, request: OutgoingRequest) -> BodyResponse:
        return await self._cache.send(request, self._call or self._own_call(), self._rules)

    def _own_call(self) -> Call:
        return Call(rules=self._rules)
