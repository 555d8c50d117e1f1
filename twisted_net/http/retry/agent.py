"""The agent that retries: an ``IAgent`` over another one, with the retries of this package."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.http.agent_edge import AgentEdge, sender
from twisted_net.http.bodies import BodyResponse
from twisted_net.http.call import Call
from twisted_net.http.origins import OriginTable
from twisted_net.http.request import OutgoingRequest
from twisted_net.http.retry.policy import Attempt
from twisted_net.http.retry.retrier import Retrier, log_attempt
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.net.steady_clock import steady


@check_arguments
class RetryAgent(AgentEdge):
    """
    Retries failed requests, by a policy; see :class:`~twisted_net.http.retry.retrier.Retrier`.

    :param call: the terms of the call; by default those without a deadline.
    :param origins: the budgets and breakers; by default new ones.
    :param report: called with each attempt, when it is over.
    """

    def __init__(
        self,
        agent: IAgent,
        clock: IReactorTime,
        policy: RetryPolicy,
        *,
        call: Call | None = None,
        origins: OriginTable | None = None,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
        report: Callable[[Attempt], None] = log_attempt,
    ) -> None:
        self._policy = policy
        self._call = call or Call(retry=policy)
        self._retrier = Retrier(
            sender(agent),
            steady(clock),
            OriginTable(clock) if origins is None else origins,
            chance=chance,
            wall=wall,
            report=report,
        )

    @override
    async def respond(self, request: OutgoingRequest) -> BodyResponse:
        return await self._retrier.send(request, self._call, self._policy)
