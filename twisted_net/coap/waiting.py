"""Requests whose commands wait: at most so many at a time, in all and for each peer."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from twisted_net.coap.settings import CoapLimits
from twisted_net.errors import TooBusy
from twisted_net.net.addresses import Source


class WaitingRequests:
    """
    The requests whose commands wait, within the bounds of the server and of each peer.

    :param reactor: whose clock bounds :meth:`ended`.
    """

    def __init__(self, reactor: IReactorTime, limits: CoapLimits) -> None:
        self._reactor = reactor
        self._limits = limits
        self._waiting: dict[Deferred[None], Source] = {}
        self._per_peer: dict[Source, int] = {}

    def check(self, source: Source) -> None:
        """
        See whether there is room for one more command of a peer.

        :raises TooBusy: where there is none.
        """
        for count, limit in (
            (len(self._waiting), self._limits.max_waiting),
            (self._per_peer.get(source, 0), self._limits.max_waiting_per_peer),
        ):
            if count >= limit:
                raise TooBusy(limit)

    def start(self, source: Source, answering: Coroutine[Any, Any, None]) -> None:
        """
        Run what waits for a command and then answers; it must not raise.

        :meth:`check` comes first: a coroutine that was made is to be run.
        """
        self._per_peer[source] = self._per_peer.get(source, 0) + 1
        waited = Deferred.fromCoroutine(answering)
        if waited.called:
            self._ended(source)
            return
        self._waiting[waited] = source
        waited.addBoth(lambda _: self._ended(self._waiting.pop(waited)))

    def cancel(self, source: Source | None = None) -> None:
        """Cancel all commands, or those of one peer."""
        for waited, known in list(self._waiting.items()):
            if source is None or known == source:
                waited.cancel()

    async def ended(self, timeout: float) -> None:
        """Wait until those that are under way now have ended; cancel what is left at the end."""
        if self._waiting:
            ended = DeferredList(list(self._waiting))
            ended.addTimeout(timeout, self._reactor, onTimeoutCancel=lambda value, _: None)
            await ended

    def _ended(self, source: Source) -> None:
        left = self._per_peer.pop(source) - 1
        if left:
            self._per_peer[source] = left
