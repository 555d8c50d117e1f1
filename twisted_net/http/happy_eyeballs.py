"""Happy Eyeballs (RFC 8305): connect to the first of a host's addresses that answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

STAGGER = 0.25
"""Seconds after which the next address is tried beside the last one (RFC 8305 §5)."""

MIN_STAGGER = 0.1
"""The same for a host with many addresses: the least that RFC 8305 §5 recommends."""


def interleave(addresses: Sequence[str]) -> list[str]:
    """Return *addresses* with both families in turn, the family of the first one first (§4)."""
    first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    second = [address for address in addresses if (":" in address) != (":" in addresses[0])]
    mixed: list[str] = []
    for i in range(max(len(first), len(second))):
        mixed += first[i : i + 1] + second[i : i + 1]
    return mixed


def connect_first(
    clock: IReactorTime,
    endpoints: Sequence[IStreamClientEndpoint],
    factory: Factory,
    within: float,
) -> Deferred[IProtocol]:
    """
    Connect to the first of several endpoints that answers.

    Each is tried when the one before has failed, or has not answered for :data:`STAGGER` seconds.
    Where there are too many for that, the wait is shorter, down to :data:`MIN_STAGGER`, so that
    all have been tried in half of the time. If all fail, it fails with the error of the first one.
    Cancelling stops all attempts.

    :param endpoints: at least one, the preferred one first.
    :param factory: its protocols have connections with ``abortConnection``.
    :param within: seconds after which the caller cancels it.
    """
    stagger = min(STAGGER, max(MIN_STAGGER, within / 2 / len(endpoints)))
    race = _ConnectionRace(clock, endpoints, factory, stagger)
    race.start_next()
    return race.winner


class _ConnectionRace:
    def __init__(
        self,
        clock: IReactorTime,
        endpoints: Sequence[IStreamClientEndpoint],
        factory: Factory,
        stagger: float,
    ) -> None:
        self._clock = clock
        self._stagger = stagger
        self._remaining = deque(endpoints)
        self._factory = factory
        self._pending: list[Deferred[IProtocol]] = []
        self._first_failure: Failure | None = None
        self._timer: IDelayedCall | None = None
        self._over = False
        self.winner: Deferred[IProtocol] = Deferred(lambda _: self._stop())

    def start_next(self) -> None:
        self._stop_timer()
        if not self._remaining:
            if not self._pending and self._first_failure is not None:
                self._over = True
                self.winner.errback(self._first_failure)
            return
        attempt = self._remaining.popleft().connect(self._factory)
        self._pending.append(attempt)
        if self._remaining:
            self._timer = self._clock.callLater(self._stagger, self._start_delayed)
        attempt.addCallbacks(
            self._connected, self._failed, callbackArgs=(attempt,), errbackArgs=(attempt,)
        )

    def _start_delayed(self) -> None:
        self._timer = None
        self.start_next()

    def _connected(self, protocol: IProtocol, attempt: Deferred[IProtocol]) -> None:
        self._pending.remove(attempt)
        if self._over:
            # Two endpoints answered within one turn, and cancelling came too late for this one.
            cast(Any, protocol).transport.abortConnection()  # Any: no interface has it
            return
        self._stop()
        self.winner.callback(protocol)

    def _failed(self, failure: Failure, attempt: Deferred[IProtocol]) -> None:
        self._pending.remove(attempt)
        if self._over:
            return
        self._first_failure = self._first_failure or failure
        self.start_next()

    def _stop(self) -> None:
        self._over = True
        self._stop_timer()
        for attempt in list(self._pending):
            attempt.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
