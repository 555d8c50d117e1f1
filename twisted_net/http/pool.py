"""Pool of wires: those that are idle for reuse, all that are open, and their time limits."""

from __future__ import annotations

from collections import OrderedDict
from math import inf

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.http.calls.outcomes import started
from twisted_net.http.concurrency import ConcurrencyLimiter
from twisted_net.http.connector import Connector
from twisted_net.http.errors import ClientClosed
from twisted_net.http.h1.timeouts import ExchangeTimeouts
from twisted_net.http.h1.wire import Wire
from twisted_net.http.proxies import Proxy
from twisted_net.http.settings import HttpSettings
from twisted_net.http.urls import HttpTarget, Origin
from twisted_net.turns.turn_scheduler import turns_of


class ConnectionPool:
    """
    Keeps idle wires for reuse, and knows all open ones.

    It never sends a request twice: that is decided by the retry policy.

    :param connector: makes the connections.
    :ivar timeouts: of all that its wires wait for.
    """

    def __init__(self, clock: IReactorTime, connector: Connector, settings: HttpSettings) -> None:
        self.seconds = clock.seconds
        self.timeouts = ExchangeTimeouts(clock)
        self.turns = turns_of(clock)
        self.max_head = settings.max_head
        self._clock = clock
        self._connector = connector
        self._settings = settings
        self._open: set[Wire] = set()
        self._idle: OrderedDict[Wire, float] = OrderedDict()
        # Ordered: any one is removed at once, however many there are.
        self._idle_by_origin: dict[Origin, OrderedDict[Wire, None]] = {}
        self._timer: IDelayedCall | None = None
        self._closed = False
        self._closing: list[Deferred[None]] = []
        self._limiter = ConcurrencyLimiter(clock, settings.max_per_origin, settings.max_queued)

    def forward_proxy(self, target: HttpTarget) -> Proxy | None:
        """Return the proxy that gets whole requests to *target*; None for any other route."""
        return self._connector.forward_proxy(target)

    def acquire_slot(self, origin: Origin) -> Deferred[None] | None:
        """
        Acquire a slot for a request to *origin*, the first step of a request.

        A wire takes the slot over (:attr:`Wire.holds_slot`). Without one it is released by
        :meth:`release_slot`. See :meth:`ConcurrencyLimiter.acquire`.
        """
        return self._limiter.acquire(origin)

    def release_slot(self, origin: Origin) -> None:
        """Release a slot that no wire has taken over."""
        self._limiter.release(origin)

    def take_idle(self, origin: Origin) -> Wire | None:
        """Return the idle wire to *origin* that was used last; None if there is none."""
        while of_origin := self._idle_by_origin.get(origin):
            wire = next(reversed(of_origin))
            self._remove_idle(wire)
            if not wire.peer_ended():
                return wire
            wire.abort()
        return None

    def connect(self, target: HttpTarget, within: float = inf) -> Deferred[Wire]:
        """
        Make a new connection.

        Cancelling stops it. It fails with ``AddressRefused``, ``NameNotFound``, ``CannotConnect``,
        ``ProxyFailed`` or ``ClientClosed`` of :mod:`twisted_net.http.errors`.

        :param within: seconds after which the caller cancels it.
        """
        return started(self._connect(target, within))

    async def _connect(self, target: HttpTarget, within: float) -> Wire:
        if self._closed:
            raise ClientClosed
        proxy = self._connector.forward_proxy(target)
        return await self._connector.connect(
            target, lambda: Wire(self, target.origin, proxy), within
        )

    def close(self) -> Deferred[None]:
        """Drop all connections, idle or not; fires when the last one is lost."""
        self._closed = True
        self._limiter.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for wire in list(self._open):
            if wire in self._idle:
                wire.close()
            else:
                wire.abort()
        if not self._open:
            self.timeouts.stop()
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._closing.append(done)
        return done

    # --- what wires tell ---

    def opened(self, wire: Wire) -> None:
        """Note that a connection is open."""
        self._open.add(wire)
        if self._closed:
            wire.abort()

    def idle(self, wire: Wire) -> None:
        """Keep an idle wire, or close one where the limits are reached."""
        self._release_slot_of(wire)
        if self._closed:
            # Its last bytes were read in a later turn.
            wire.abort()
            return
        of_origin = self._idle_by_origin.setdefault(wire.origin, OrderedDict())
        of_origin[wire] = None
        self._idle[wire] = self.seconds() + self._settings.idle_timeout
        if len(of_origin) > self._settings.idle_per_origin:
            next(iter(of_origin)).close()
        elif len(self._idle) > self._settings.max_idle:
            next(iter(self._idle)).close()
        if self._timer is None and self._idle:
            self._timer = self._clock.callLater(self._settings.idle_timeout, self._sweep)

    def ended(self, wire: Wire) -> None:
        """Note that a wire takes no more requests."""
        self._remove_idle(wire)

    def lost(self, wire: Wire) -> None:
        """Note that a connection is lost."""
        self._open.discard(wire)
        self._remove_idle(wire)
        self._release_slot_of(wire)
        if self._closed and not self._open:
            self.timeouts.stop()
            waiting, self._closing = self._closing, []
            for done in waiting:
                done.callback(None)

    def _sweep(self) -> None:
        """Close what has been idle for too long: one timer for all, and none per request."""
        self._timer = None
        now = self.seconds()
        while self._idle:
            wire, until = next(iter(self._idle.items()))
            if until > now:
                self._timer = self._clock.callLater(until - now, self._sweep)
                return
            wire.close()

    def _release_slot_of(self, wire: Wire) -> None:
        if wire.holds_slot:
            wire.holds_slot = False
            self._limiter.release(wire.origin)

    def _remove_idle(self, wire: Wire) -> None:
        if self._idle.pop(wire, None) is None:
            return
        of_origin = self._idle_by_origin[wire.origin]
        del of_origin[wire]
        if not of_origin:
            del self._idle_by_origin[wire.origin]
