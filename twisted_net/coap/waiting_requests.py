"""Requests whose commands wait: tracked for limits, cancellation and drain."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from twisted_net.coap.codec import Code
from twisted_net.coap.resources import (
    RETRY_AFTER,
    RequestRefused,
    ResourceResponse,
    diagnostic,
    error_response,
)
from twisted_net.coap.responses import ServerRequest
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.cancellations import Cancellations
from twisted_net.errors import TooBusy, TwistedNetError
from twisted_net.net.addresses import Source
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.turns.step_scheduler import StepScheduler
from twisted_net.turns.steps import END, in_steps

REQUEST_BYTES = 7000
"""Bytes of a request whose command waits, beside its payload: its handler, and what awaits it."""


class WaitingRequests:
    """
    Requests whose commands wait, within the limits of the server and of each peer.

    :param reactor: clock of the timeout of :meth:`ended`.
    :param memory: counts what they take; a ledger of its own if None.
    """

    def __init__(
        self, reactor: IReactorTime, limits: CoapLimits, memory: MemoryLedger | None = None
    ) -> None:
        self._kept: MemoryAccount[Deferred[None]] = (memory or MemoryLedger()).account(
            "coap_waiting", relieve=self._relieve
        )
        self._reactor = reactor
        self._limits = limits
        self._waiting: dict[Deferred[None], Source] = {}
        self._per_peer: dict[Source, dict[Deferred[None], None]] = {}
        self._cancellations = Cancellations(reactor, lambda: None, memory)

    def check(self, source: Source) -> None:
        """
        Check the limits for one more request of a peer.

        :raises TooBusy: if one is reached.
        """
        of_peer = len(self._per_peer.get(source, ()))
        for count, limit, what in (
            (len(self._waiting), self._limits.max_waiting, "commands of all peers"),
            (of_peer, self._limits.max_waiting_per_peer, "commands of this peer"),
        ):
            if count >= limit:
                raise TooBusy(limit, what)

    def admit(self, request: ServerRequest) -> None:
        """
        Check that a request can be answered later.

        :raises RequestRefused: if its source may be forged, or it came to a group.
        :raises TooBusy: as :meth:`check` does.
        """
        if not request.verified:
            # A separate response is retransmitted: several datagrams for one that may be forged.
            raise RequestRefused(Code.UNAUTHORIZED, "")
        if request.incoming is None or request.incoming.group:
            raise RequestRefused(
                Code.NOT_IMPLEMENTED, "commands that wait do not answer multicast requests"
            )
        self.check(request.source)

    def start(self, source: Source, respond: Coroutine[Any, Any, None], size: int = 0) -> None:
        """
        Run a coroutine that waits for a command and sends its response; it must not raise.

        Call :meth:`check` before the coroutine is made: one that exists must be run.

        :param size: bytes of the request.
        """
        done = Deferred.fromCoroutine(respond)
        if done.called:
            return
        self._waiting[done] = source
        self._per_peer.setdefault(source, {})[done] = None
        done.addBoth(lambda _: self._ended(done))
        self._kept.set(done, REQUEST_BYTES + size)

    def wait(
        self,
        request: ServerRequest,
        name: str | None,
        result: Deferred[bytes],
        to_response: Callable[[bytes], ResourceResponse | None],
        respond: Callable[[ServerRequest, ResourceResponse], None],
        size: int,
    ) -> None:
        """
        Respond to a request that was admitted, when a result is there.

        :param name: of its command, for an error.
        :param to_response: makes the response of the result; None if it follows later still.
        :param respond: sends it.
        :param size: bytes of the request.
        """

        async def respond_later() -> None:
            response: ResourceResponse | None
            try:
                response = to_response(await result)
            except TwistedNetError as error:
                response = error_response(error, name, request.options.accept)
            except CancelledError:
                # By stopProtocol, by drain, as all clients hold too much, or as the peer is lost.
                reason = "the server is stopping, or short of memory"
                unavailable = Code.SERVICE_UNAVAILABLE
                response = ResourceResponse(unavailable, diagnostic(reason), None, RETRY_AFTER)
            if response is not None:
                respond(request, response)

        self.start(request.source, respond_later(), size)

    def cancel(self) -> None:
        """Cancel all requests now."""
        self._cancellations.stop()
        for done in list(self._waiting):
            done.cancel()

    def cancel_of(self, source: Source) -> None:
        """
        Cancel the requests of a peer that is lost; more than a few, in the next turns.

        Until then they count for the limits.
        """
        self._cancellations.add(list(self._per_peer.get(source, ())))

    async def ended(self, timeout: float) -> None:
        """
        Wait until all requests that wait now have ended.

        After *timeout* seconds the rest is cancelled, some in each turn of the reactor.
        """
        waiting = list(self._waiting)
        if not waiting:
            return
        steps = StepScheduler(self._reactor)
        deadline = self._reactor.callLater(timeout, steps, in_steps(self._cancels(waiting)))
        try:
            await DeferredList(waiting)
        finally:
            if deadline.active():
                deadline.cancel()
            steps.stop()

    def _cancels(self, waiting: list[Deferred[None]]) -> Iterator[float]:
        for done in waiting:
            if done in self._waiting:
                done.cancel()
                yield END

    def _relieve(self, done: Deferred[None]) -> float:
        """Cancel a request, as all clients hold too much; return the share of a step."""
        self._kept.set(done, 0)
        done.cancel()
        return END

    def _ended(self, done: Deferred[None]) -> None:
        self._kept.set(done, 0)
        source = self._waiting.pop(done)
        of_peer = self._per_peer[source]
        del of_peer[done]
        if not of_peer:
            del self._per_peer[source]
