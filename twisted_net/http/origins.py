"""Origins: the slots, the queue, the idle wires, the breaker and the budget of each, in one."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_net.config.type_checks import check_arguments
from twisted_net.http.errors import ClientClosed, OriginBusy
from twisted_net.http.retry.budget import RetryBudget
from twisted_net.http.retry.circuit_breaker import CircuitBreaker, CircuitState
from twisted_net.http.settings import HttpSettings
from twisted_net.http.urls import Origin
from twisted_net.net.addresses import format_address
from twisted_net.net.bounded_table import BoundedTable
from twisted_net.net.log_limiter import limited_logger
from twisted_net.net.steady_clock import steady

if TYPE_CHECKING:
    from twisted_net.http.h1.wire import Wire


class OriginState:
    """
    What is known of one origin, and the limit of its requests that run at a time.

    The others wait in a queue, first come, first served: a new request never overtakes one that
    waits.

    :ivar breaker: its circuit breaker.
    :ivar budget: its retry budget.
    :ivar idle: its wires that may be used again, the one that was used last at the end; the pool
        changes it.
    """

    __slots__ = (
        "_logged",
        "_running",
        "_table",
        "_waiting",
        "breaker",
        "budget",
        "idle",
        "in_use",
        "key",
    )

    def __init__(self, table: OriginTable, key: Origin) -> None:
        self.key = key
        self.breaker = CircuitBreaker(table.settings.breaker)
        self.budget = RetryBudget(table.settings.budget)
        # Ordered, as are those that wait: any one is removed at once, however many there are.
        self.idle: OrderedDict[Wire, None] = OrderedDict()
        self.in_use = False  # as the table has it
        self._logged = CircuitState.CLOSED  # what was logged last of the breaker
        self._table = table
        self._running = 0
        # Made when the first one waits.
        self._waiting: OrderedDict[Deferred[None], None] | None = None

    @property
    def host(self) -> str:
        """The host of its URLs."""
        return self.key[1]

    @property
    def is_needed(self) -> bool:
        """Whether a request runs or waits, or a wire is idle."""
        return bool(self._running or self.idle or self._waiting)

    def acquire_free(self) -> bool:
        """Acquire a slot if there is a free one, and return whether there was."""
        if self._running >= self._table.settings.max_per_origin or self._waiting:
            return False
        self._running += 1
        if not self.in_use:
            self._table.keep(self)
        return True

    def acquire(self) -> Deferred[None] | None:
        """
        Acquire a slot, which is to be released with :meth:`release`.

        :return: None if there was a free slot; else a Deferred that fires when there is one.
            Cancelling it leaves the queue. It fails with ClientClosed when the table is closed.
        :raises OriginBusy: if the queue is full.
        :raises ClientClosed: if the table is closed and there is none: it is never passed on.
        """
        if self.acquire_free():
            return None
        if self._table.closed:
            raise ClientClosed
        settings, waiting = self._table.settings, self._waiting
        if waiting is None:
            waiting = self._waiting = OrderedDict()
        if len(waiting) >= settings.max_queued:
            raise OriginBusy(self.host, self._running, len(waiting))
        turn: Deferred[None] = Deferred(waiting.pop)
        waiting[turn] = None
        return turn

    def release(self) -> None:
        """Release a slot: in the next turn it goes to the request that has waited longest."""
        if self._waiting and not self._table.closed:
            # Not at once: the connection that released it is still inside its own callback.
            self._table.clock.callLater(0, self._pass_on)
        else:
            self._free()

    def log_circuit(self) -> None:
        """Log the state of the circuit breaker, if it has changed."""
        state = self.breaker.state
        if state is self._logged:
            return
        self._logged = state
        url = f"{self.key[0]}://{format_address(self.host, self.key[2])}"
        if state is CircuitState.OPEN:
            rest = self._table.settings.breaker.rest
            self._table.log.warn(
                "{url} fails: its circuit breaker is open for {rest:g} s", url=url, rest=rest
            )
        elif state is CircuitState.HALF_OPEN:
            self._table.log.info("{url} is asked whether it is back", url=url)
        else:
            self._table.log.info("{url} is back: its circuit breaker is closed", url=url)

    def fail_waiting(self) -> None:
        """Fail all requests that wait."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            turn.errback(ClientClosed())

    def _pass_on(self) -> None:
        if self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            turn.callback(None)
        else:
            self._free()

    def _free(self) -> None:
        self._running -= 1
        # First what is nearly always so: a wire has just become idle.
        if not self.idle and not self.is_needed:
            self._table.rest(self)


@check_arguments
class OriginTable:
    """
    The states of all origins, each made at its first use.

    Those that are in use are kept. Of the others, the least recently used is evicted beyond the
    limit, and gets a new state at its next use: made-up host names cannot fill the memory.

    :param clock: of the reactor in which the requests run.
    :param settings: ``max_origins`` is the limit; ``max_per_origin`` and ``max_queued`` are those
        of the requests of each; with ``breaker`` and ``budget``.
    :ivar closed: whether no more requests are made.
    :ivar log: at a limited rate, as strangers name the origins.
    """

    def __init__(self, clock: IReactorTime, settings: HttpSettings | None = None) -> None:
        self.clock = steady(clock)
        self.settings = settings = settings or HttpSettings()
        self.closed = False
        self.log = limited_logger(self)
        self._used: dict[Origin, OriginState] = {}
        self._resting: BoundedTable[Origin, OriginState] = BoundedTable(settings.max_origins)

    def __len__(self) -> int:
        return len(self._used) + len(self._resting)

    def get(self, origin: Origin) -> OriginState:
        """Return the state of an origin."""
        state = self._used.get(origin)
        if state is not None:
            return state
        state = self._resting.get(origin)
        if state is not None:
            self._resting.move_to_end(origin)
            return state
        state = self._resting[origin] = OriginState(self, origin)
        return state

    def close(self) -> None:
        """Fail all requests that wait for a slot."""
        self.closed = True
        for state in list(self._used.values()):
            state.fail_waiting()

    # --- what states and wires tell ---

    def keep(self, state: OriginState) -> None:
        """Keep a state whose origin is in use now."""
        state.in_use = True
        self._resting.pop(state.key)
        self._used[state.key] = state

    def rest(self, state: OriginState) -> None:
        """Let a state go when it is evicted: its origin is no longer in use."""
        if state.in_use:
            state.in_use = False
            del self._used[state.key]
            self._resting[state.key] = state
