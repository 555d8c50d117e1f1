"""Broadcast scheduler: the broadcasts of many senders are sent in turns, some clients in each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_net.errors import TooBusy
from twisted_net.net.fair_backlog import FairBacklog
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.turns.step_scheduler import StepScheduler
from twisted_net.turns.steps import WRITE, FairPacing, Pacing

MAX_WAITING = 1000
"""Events that wait to be sent, or are being sent, of all senders together."""

MAX_WAITING_BYTES = 4_194_304
"""
Bytes of these: 256 of the longest that the default of ``tcp.max_line`` lets through.

The commands that wait for them hold some four times as much.
"""


class BroadcastScheduler:
    """
    Goes through the steps of events, one step in each reactor turn, one event after the other.

    Senders take turns; the events of each keep their order. At a bound, the sender that has most
    events waiting loses its newest one. It is a :class:`~twisted_net.turns.steps.FairPacing`.

    :param limit: events that may wait or be sent.
    :param max_bytes: bytes of these; one event is taken whatever its size.
    :param memory: counts these bytes; a ledger of its own if None.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        limit: int = MAX_WAITING,
        max_bytes: int = MAX_WAITING_BYTES,
        memory: MemoryLedger | None = None,
    ) -> None:
        memory = memory or MemoryLedger()
        self._kept: MemoryAccount[_Event] = memory.account("broadcasts", max_bytes, self._relieve)
        self._memory_limit = memory.limit
        self._max_bytes = max_bytes
        self._limit = limit
        self._steps = StepScheduler(reactor)
        self._backlog: FairBacklog[_Event] = FairBacklog(limit)
        self._sending = self._advancing = False

    def __len__(self) -> int:
        """Return how many events wait or are being sent."""
        return len(self._backlog)

    def __call__(self, steps: Iterable[int], sender: str, size: int) -> Deferred[list[int]]:
        """
        Go through the steps of an event, at once if no other one is being sent.

        :param sender: whom it counts for, see :attr:`twisted_net.sessions.Session.owner`.
        :param size: bytes that it holds.
        :return: fires with the values of all steps, or with the failure of one. When cancelled it
            fails at once; an event that has begun is then completed, and any other one dropped.
            Fails with TooBusy at a bound; later too, where other senders' events take its place.
        """
        event = _Event(steps, sender, size, Deferred(lambda _: self._discard(event)))
        refused = self._admit(event)
        self._advance()
        # Last: a sender that is refused may send again.
        for each, error in refused:
            each.done.errback(error)
        return event.done

    def _admit(self, event: _Event) -> list[tuple[_Event, TooBusy]]:
        """Let an event wait; return those that have no place, which may be this one."""
        refused: list[tuple[_Event, TooBusy]] = []
        full = TooBusy(self._max_bytes, "bytes of broadcasts")
        while self._kept.total and self._kept.total + event.size > self._max_bytes:
            displaced = self._backlog.displace(event.sender)
            if displaced is None:
                return [*refused, (event, full)]
            self._kept.set(displaced, 0)
            refused.append((displaced, full))
        surplus = self._backlog.add(event.sender, event)
        # Before it counts: it may be the largest, and be refused as such.
        if surplus is not event:
            self._kept.set(event, event.size)
        if surplus is not None:
            self._kept.set(surplus, 0)
            refused.append((surplus, TooBusy(self._limit, "broadcasts")))
        return refused

    def _discard(self, event: _Event) -> None:
        """Drop an event whose sender no longer waits for it, unless it has begun."""
        if self._backlog.discard(event.sender, event):
            self._kept.set(event, 0)

    def _relieve(self, event: _Event) -> float:
        """Refuse an event that waits, as all clients together hold too much."""
        # One alone is sent, whatever its size.
        if len(self._backlog) > 1 and self._backlog.discard(event.sender, event):
            self._kept.set(event, 0)
            event.done.errback(TooBusy(self._memory_limit, "bytes of all memory"))
        return WRITE

    def _advance(self) -> None:
        # One that has no steps is done within this loop, however many there are.
        if self._advancing:
            return
        self._advancing = True
        while not self._sending and (taken := self._backlog.take(1)) is not None:
            _, event = taken
            self._sending = True
            self._steps(event.steps).addBoth(self._sent, event)
        self._advancing = False

    def _sent(self, outcome: list[int] | Failure, event: _Event) -> None:
        self._sending = False
        self._backlog.finished(event.sender)
        self._kept.set(event, 0)
        self._advance()
        if not event.done.called:
            event.done.callback(outcome)


def pacings(
    reactor: IReactorTime, memory: MemoryLedger | None = None
) -> tuple[Callable[[], Pacing], Callable[[], FairPacing]]:
    """
    Return what :meth:`~twisted_net.sessions.Sessions.use_pacing` takes, of a reactor's turns.

    :param memory: counts the events that wait.
    """
    return partial(StepScheduler, reactor), partial(BroadcastScheduler, reactor, memory=memory)


@define(eq=False)
class _Event:
    """One event that waits or is being sent; equal to itself alone."""

    steps: Iterable[int]
    sender: str
    size: int
    done: Deferred[list[int]]
