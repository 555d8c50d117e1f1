"""Pool of wires: those that are idle for reuse, all that are open, and their time limits."""

from __future__ import annotations

from collections import OrderedDict
from math import inf

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from twisted_net.http.calls.outcomes import started
from twisted_net.http.connector import Connector
from twisted_net.http.errors import ClientClosed
from twisted_net.http.h1.timeouts import ExchangeTimeouts
from twisted_net.http.h1.wire import Wire
from twisted_net.http.origins import OriginState, OriginTable
from twisted_net.http.proxies import Proxy
from twisted_net.http.settings import HttpSettings
from twisted_net.http.urls import HttpTarget
from twisted_net.turns.turn_scheduler import turns_of


class ConnectionPool:
    """
    Keeps idle wires for reuse, and knows all open ones.

    It never sends a request twice: that is decided by the retry policy.

    :param connector: makes the connections.
    :ivar timeouts: of all that its wires wait for.
    :ivar origins: what is known of each origin, its idle wires among it.
    """

    def __init__(self, clock: IReactorTime, connector: Connector, settings: HttpSettings) -> None:
        self.seconds = clock.seconds
        self.timeouts = ExchangeTimeouts(clock)
        self.turns = turns_of(clock)
        self.max_head = settings.max_head
        self._clock = clock
        self._connector = connector
        self._settings = settings
        self._connecting: set[Deferred[Wire]] = set()
        self._open: set[Wire] = set()
        self._idle: OrderedDict[Wire, float] = OrderedDict()
        self._timer: IDelayedCall | None = None
        self._closed = False
        self._closing: list[Deferred[None]] = []
        self.origins = OriginTable(clock, settings)

    def forward_proxy(self, target: HttpTarget) -> Proxy | None:
        """Return the proxy that gets whole requests to *target*; None for any other route."""
        return self._connector.forward_proxy(target)

    def take_idle(self, origin: OriginState) -> Wire | None:
        """
        Return the idle wire to an origin that was used last; None if there is none.

        Whoever takes it has a slot of the origin, which is in use so all the time.
        """
        while origin.idle:
            wire, _ = origin.idle.popitem()
            del self._idle[wire]
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
        if self._closed:
            return fail(ClientClosed())
        connecting = started(self._connect(target, within))
        self._connecting.add(connecting)
        return connecting.addBoth(self._connected, connecting)

    def _connected(self, result: Wire | Failure, connecting: Deferred[Wire]) -> Wire | Failure:
        self._connecting.discard(connecting)
        if self._closed and isinstance(result, Failure) and result.check(CancelledError):
            return Failure(ClientClosed())
        return result

    async def _connect(self, target: HttpTarget, within: float) -> Wire:
        proxy = self._connector.forward_proxy(target)
        origin = self.origins.get(target.origin)
        return await self._connector.connect(target, lambda: Wire(self, origin, proxy), within)

    def close(self) -> Deferred[None]:
        """Drop all connections, idle, in use or being made; fires when the last one is lost."""
        self._closed = True
        self.origins.close()
        for connecting in list(self._connecting):
            connecting.cancel()
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
        if self._closed:
            # Its last bytes were read in a later turn.
            self._release_slot_of(wire)
            wire.abort()
            return
        origin = wire.origin
        origin.idle[wire] = None
        self._idle[wire] = self.seconds() + self._settings.idle_timeout
        if not origin.in_use:
            self.origins.keep(origin)
        # After that: the origin is in use all the time.
        if wire.holds_slot:
            wire.holds_slot = False
            origin.release()
        if len(origin.idle) > self._settings.idle_per_origin:
            next(iter(origin.idle)).close()
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
            wire.origin.release()

    def _remove_idle(self, wire: Wire) -> None:
        if self._idle.pop(wire, None) is None:
            return
        origin = wire.origin
        del origin.idle[wire]
        if not origin.is_needed:
            self.origins.rest(origin)
