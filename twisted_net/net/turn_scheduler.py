"""Shares the reactor's turns among the connections that have lines left to run."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

TIME_FOR_ALL = 0.001
"""
Seconds of one reactor turn for the lines of all connections that wait for theirs.

Whoever asks for little is answered between two of these, however many ask for much; a turn of
them all took as long as there were clients: 170 ms where 50 asked for CLIENTS, again and again.
"""

FEW = 4
"""Lines that a connection may run as they come, although others wait for their turn."""


class Runner(Protocol):
    """A connection that has lines left."""

    def take_turn(self) -> None:
        """Run some of them; it may ask for another turn."""
        ...


class Turns:
    """
    The connections that have lines left, in the order in which they asked.

    :ivar busy: whether some wait, or this turn has been a long one: who has much to run waits too.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.busy = False
        self._reactor = reactor
        # Ordered, as the first key of a dict from which many were taken is slow to find.
        self._waiting: OrderedDict[Runner, None] = OrderedDict()
        self._next: IDelayedCall | None = None

    def add(self, runner: Runner) -> None:
        """Let a connection have one of the next turns, never within this call; twice is as once."""
        self._waiting[runner] = None
        self.crowd()

    def discard(self, runner: Runner) -> None:
        """Let no turn come for a connection."""
        self._waiting.pop(runner, None)

    def crowd(self) -> None:
        """Let those who have much to run wait until the next turn, as this one has been long."""
        self.busy = True
        if self._next is None:
            self._next = self._reactor.callLater(0, self._take)

    def stop(self) -> None:
        """Forget all who wait."""
        self._waiting.clear()
        self.busy = False
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _take(self) -> None:
        self._next = None
        waiting = self._waiting
        until = self._reactor.seconds() + TIME_FOR_ALL
        try:
            # Once each: those that ask again come after all others.
            for _ in range(len(waiting)):
                if not waiting:
                    break  # one has ended others
                runner, _ = waiting.popitem(last=False)
                runner.take_turn()
                if self._reactor.seconds() >= until:
                    break
        finally:
            self.busy = False
            if waiting:
                self.crowd()
