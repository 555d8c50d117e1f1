"""Turn schedulers: long work, and many senders' broadcasts, divided over reactor turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import GeneratorType
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from twisted_net.errors import TooBusy
from twisted_net.net.fair_backlog import FairBacklog
from twisted_net.net.pacing import FairPacing, Pacing

TURN_BUDGET = 0.001
"""
Seconds of one reactor turn for the lines of all connections that wait for a turn.

A client that asks for little is answered between two of these, however much others ask for. Without
a budget a turn took as long as there were clients: 170 ms where 50 asked for CLIENTS repeatedly.
"""

FREE_LINES = 4
"""Lines that a connection may run as they arrive, although others wait for a turn."""

UNITS_PER_TURN = 64
"""Records or frames of one connection that are processed in one reactor turn, as of lines."""

UNITS_PER_LOOK = 8
"""Records or frames between two looks at the clock: KeyUpdates, the dearest, take 0.1 ms each."""

READ_SIZE = 16_645
"""
Bytes that a connection under such a layer reads at once: one record of TLS (RFC 8446 §5.2).

What is not processed is kept, and 64 KiB of the smallest units would be a hundred turns of work.
"""

MAX_WAITING = 1000
"""Events that wait to be sent, or are being sent, of all senders together."""

MAX_WAITING_BYTES = 4_194_304
"""
Bytes of these: 256 of the longest that the default of ``tcp.max_line`` lets through.

The commands that wait for them hold some four times as much.
"""

_T = TypeVar("_T")


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
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.busy = False
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
            self.busy = False
            if waiting:
                self.mark_busy()


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


class Below(Protocol):
    """The connection below a layer: a transport."""

    def pauseProducing(self) -> None:
        """Read no more for now."""

    def resumeProducing(self) -> None:
        """Read on."""

    def abortConnection(self) -> None:
        """End it now."""


class PacedInput:
    """
    The place of one layer's input in the scheduler of all connections.

    What is read is processed at once, up to :data:`UNITS_PER_TURN`, unless other connections wait
    for a turn; then :data:`FREE_LINES` units are. The rest waits for its turn. Meanwhile the
    connection below is not read; one whose units took long is not read before its next turn,
    either.

    :param below: the connection below; paused and resumed.
    :param step: processes so many units at most, and until the time that it is given, and returns
        whether some may be left. It may pause and resume this, and stop it.
    :param seconds: a steady clock, for durations.
    """

    __slots__ = (
        "_below",
        "_blocked",
        "_due",
        "_reading",
        "_seconds",
        "_step",
        "_stepping",
        "_turns",
        "_wanted",
    )

    def __init__(
        self,
        turns: TurnScheduler,
        seconds: Callable[[], float],
        below: Below,
        step: Callable[[int, float], bool],
    ) -> None:
        self._turns = turns
        self._seconds = seconds
        self._below = below
        self._reading = True
        self._step: Callable[[int, float], bool] | None = step
        self._wanted = True  # the protocol within reads
        self._blocked = False  # the peer does not read
        self._due = False  # units are left, or the last ones took long: a turn comes first
        self._stepping = False

    @property
    def due(self) -> bool:
        """Whether a turn must come before anything is read."""
        return self._due

    def arrived(self, *, alone: bool = False) -> None:
        """
        Process what has been read, or let it wait for its turn.

        :param alone: whether its units are dear, so that no two of them, of any connections, are
            processed in one turn outside the time for all.
        """
        if self._due or self._stepping:
            return
        busy = self._turns.busy
        if alone:
            self._turns.mark_busy()
        if busy and alone:
            self._wait()
        else:
            self._process(FREE_LINES if busy else UNITS_PER_TURN)

    def take_turn(self) -> None:
        """Process some of what has been read, or read on; its turn has come."""
        self._due = False
        try:
            self._process(UNITS_PER_TURN)
        except BaseException:
            # As the reactor ends a connection whose protocol fails while it reads.
            self._below.abortConnection()
            raise

    def pause(self) -> None:
        """Process and read nothing: the protocol within wants no more for now."""
        self._wanted = False
        self._settle()

    def resume(self) -> None:
        """Go on, with what has been read already when its turn comes."""
        self._wanted = True
        self._settle()

    def block(self) -> None:
        """Process and read nothing, as :meth:`pause` does: the peer does not read."""
        self._blocked = True
        self._settle()

    def unblock(self) -> None:
        """The peer has read everything."""
        self._blocked = False
        self._settle()

    def stop(self) -> None:
        """Do nothing any more: the connection is lost, or nothing follows."""
        self._step = None
        self._turns.discard(self)

    def _process(self, limit: int) -> None:
        step = self._step
        if step is None:
            return
        if self._blocked or not self._wanted:
            self._due = True
            self._settle()
            return
        self._stepping = True
        began = self._seconds()
        try:
            left = step(limit, began + TURN_BUDGET)
        finally:
            self._stepping = False
        if self._seconds() - began >= TURN_BUDGET:
            self._turns.mark_busy()
            left = True
        self._due = left
        self._settle()

    def _wait(self) -> None:
        self._due = True
        self._settle()

    def _settle(self) -> None:
        """Ask for a turn where one is due and may be taken; read where none is."""
        if self._stepping or self._step is None:
            return
        goes_on = self._wanted and not self._blocked
        if self._due:
            self._read(False)
            if goes_on:
                self._turns.add(self)
            else:
                self._turns.discard(self)
        else:
            self._read(goes_on)

    def _read(self, reading: bool) -> None:
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self._below.resumeProducing()
            else:
                self._below.pauseProducing()


@define(eq=False)
class _Job(Generic[_T]):
    """An iterable that is consumed: what its steps have returned so far, and who waits for it."""

    steps: Iterator[_T]
    values: list[_T]
    done: Deferred[list[_T]]


class StepScheduler:
    """
    Consumes iterables, one after the other: the first step at once, then one per reactor turn.

    Every iterable must be finite.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._jobs: deque[_Job[Any]] = deque()  # Any: each has values of its own type
        self._next: IDelayedCall | None = None
        self._stepping = False

    def __call__(self, steps: Iterable[_T]) -> Deferred[list[_T]]:
        """
        Consume an iterable.

        :return: fires a turn after the last step with the values of all steps, or with the
            failure of one. If it is cancelled it fails at once, but the steps run to their end.
        """
        done: Deferred[list[_T]] = Deferred()
        self._jobs.append(_Job(iter(steps), [], done))
        # A step may add another iterable.
        if self._next is None and not self._stepping:
            self._take()
        return done

    def stop(self) -> None:
        """Drop the steps that are left: what waits for them gets the values so far."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            _drop(job)
            job.done.callback(job.values)

    def _take(self) -> None:
        self._next = None
        ended = []
        while self._jobs and self._next is None:
            job = self._jobs[0]
            outcome = self._step(job)
            if not self._jobs or self._jobs[0] is not job:
                _drop(job)  # the step itself has stopped all of them
            elif outcome is None:
                self._next = self._reactor.callLater(0, self._take)
            else:
                self._jobs.popleft()
                ended.append((job, outcome))
        # Last, so that what waits finds the next one begun.
        for job, outcome in ended:
            job.done.callback(outcome)

    def _step(self, job: _Job[Any]) -> list[Any] | Failure | None:  # Any: as above
        """Do one step; return the outcome if there is none left."""
        self._stepping = True
        try:
            job.values.append(next(job.steps))
        except StopIteration:
            return job.values
        except BaseException:
            return Failure()
        finally:
            self._stepping = False
        return None


def _drop(job: _Job[Any]) -> None:  # Any: as above
    # A generator may have to clean up; while it runs, it cannot.
    if isinstance(job.steps, GeneratorType) and not job.steps.gi_running:
        job.steps.close()


class BroadcastScheduler:
    """
    Goes through the steps of events, one step in each reactor turn, one event after the other.

    Senders take turns; the events of each keep their order. At a bound, the sender that has most
    events waiting loses its newest one. It is a :class:`~twisted_net.net.pacing.FairPacing`.

    :param limit: events that may wait or be sent.
    :param max_bytes: bytes of these; one event is taken whatever its size.
    :ivar kept: bytes of these now.
    :ivar max_bytes: the bound of :attr:`kept`.
    """

    def __init__(
        self, reactor: IReactorTime, limit: int = MAX_WAITING, max_bytes: int = MAX_WAITING_BYTES
    ) -> None:
        self.kept = 0
        self.max_bytes = max_bytes
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
        full = TooBusy(self.max_bytes, "bytes of broadcasts")
        while self.kept and self.kept + event.size > self.max_bytes:
            displaced = self._backlog.displace(event.sender)
            if displaced is None:
                return [*refused, (event, full)]
            self.kept -= displaced.size
            refused.append((displaced, full))
        surplus = self._backlog.add(event.sender, event)
        self.kept += event.size
        if surplus is not None:
            self.kept -= surplus.size
            refused.append((surplus, TooBusy(self._limit, "broadcasts")))
        return refused

    def _discard(self, event: _Event) -> None:
        """Drop an event whose sender no longer waits for it, unless it has begun."""
        if self._backlog.discard(event.sender, event):
            self.kept -= event.size

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
        self.kept -= event.size
        self._advance()
        if not event.done.called:
            event.done.callback(outcome)


def pacings(reactor: IReactorTime) -> tuple[Callable[[], Pacing], Callable[[], FairPacing]]:
    """Return what :meth:`~twisted_net.sessions.Sessions.use_pacing` takes, of a reactor's turns."""
    return partial(StepScheduler, reactor), partial(BroadcastScheduler, reactor)


@define(eq=False)
class _Event:
    """One event that waits or is being sent; equal to itself alone."""

    steps: Iterable[int]
    sender: str
    size: int
    done: Deferred[list[int]]
