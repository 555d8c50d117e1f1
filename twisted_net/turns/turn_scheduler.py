"""Turn scheduler: connections with something left to process share a part of each reactor turn."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

TURN_BUDGET = 0.001
"""
Seconds of one reactor turn for the lines of all connections that wait for a turn.

A client that asks for little is answered between two of these, however much others ask for. Without
a budget a turn took as long as there were clients: 170 ms where 50 asked for CLIENTS repeatedly.
"""

FREE_LINES = 4
"""Lines that a connection may run as they arrive, although others wait for a turn."""

LONG_RUN = 0.0001
"""
Seconds that the lines of one read may take, so that those of the next need not wait for a turn,
and so that these do not count towards :meth:`TurnScheduler.spend`.

Without it 176 clients that ask for FETCH at one time, 0.2 ms each, keep one who asks for PING
waiting for 20 to 40 ms. PING takes 5 µs, a full listing 0.4 ms.
"""


class TurnTaker(Protocol):
    """A connection, or a layer of one, that has something left of what it has read."""

    def take_turn(self) -> None:
        """Process some of it; it may ask for another turn."""
        ...


class TurnScheduler:
    """
    The connections that have something left to process, in the order in which they asked.

    What is left are lines, frames of WebSockets or records of TLS, see :class:`TurnTaker`.

    :ivar busy: whether some wait, or this turn has been long: a connection with much to run waits
        too then.
    :ivar running: whether what happens now is part of a turn, whose time is limited.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.busy = False
        self.running = False
        self._spent = 0.0
        self._ended = 0.0
        self._reactor = reactor
        # Ordered: the oldest key of a plain dict is slow to find after many deletions.
        self._waiting: OrderedDict[TurnTaker, None] = OrderedDict()
        self._next: IDelayedCall | None = None

    def add(self, connection: TurnTaker) -> None:
        """Schedule a turn for a connection, never within this call; idempotent."""
        self._waiting[connection] = None
        self.mark_busy()

    def discard(self, connection: TurnTaker) -> None:
        """Cancel the turn of a connection, if it has one."""
        self._waiting.pop(connection, None)

    def mark_busy(self) -> None:
        """Make connections with much to run wait until the next turn, as this one has been long."""
        self.busy = True
        if self._next is None:
            self._next = self._reactor.callLater(0, self._take)

    def spend(self, began: float, ended: float) -> None:
        """
        Note that something took its time outside the turns; many such things make a turn long.

        Those count together that follow each other within :data:`TURN_BUDGET`.
        """
        if began - self._ended > TURN_BUDGET:
            self._spent = 0.0
        self._ended = ended
        self._spent += ended - began
        if self._spent >= TURN_BUDGET:
            self._spent = 0.0
            self.mark_busy()

    def stop(self) -> None:
        """Leave no call: a server has no connections. Those of others keep their turns."""
        if self._waiting:
            return
        self.busy = False
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _take(self) -> None:
        self._next = None
        waiting = self._waiting
        until = self._reactor.seconds() + TURN_BUDGET
        self.running = True
        try:
            # Each once: a connection that asks again comes after all others.
            for _ in range(len(waiting)):
                if not waiting:
                    break  # a turn has ended other connections
                connection, _ = waiting.popitem(last=False)
                connection.take_turn()
                if self._reactor.seconds() >= until:
                    break
        finally:
            self.busy = self.running = False
            if waiting:
                self.mark_busy()


def next_turn(turns: TurnScheduler) -> Deferred[None]:
    """
    Return what fires in a turn of the scheduler, never within this call.

    What it calls is part of that turn: where it takes long, the connections that wait have the next
    one. Cancelling it gives the turn up.
    """
    taker = _OneTurn(turns)
    turns.add(taker)
    return taker.taken


class _OneTurn:
    """Takes one turn."""

    def __init__(self, turns: TurnScheduler) -> None:
        self.taken: Deferred[None] = Deferred(lambda _: turns.discard(self))

    def take_turn(self) -> None:
        """Wake who waits for it."""
        self.taken.callback(None)


_schedulers: WeakValueDictionary[int, TurnScheduler] = WeakValueDictionary()


def turns_of(reactor: IReactorTime) -> TurnScheduler:
    """
    Return the scheduler of all connections of a reactor: its turns are long or short as a whole.

    It lives as long as somebody keeps it.
    """
    # By number: a scheduler refers to its reactor, so that a weak key would never go.
    turns = _schedulers.get(id(reactor))
    if turns is None:
        _schedulers[id(reactor)] = turns = TurnScheduler(reactor)
    return turns
