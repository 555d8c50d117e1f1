"""Turn sampler: a thread that looks at what the reactor's thread does in a turn that is long."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from threading import Lock, Thread, get_ident
from types import CodeType
from typing import NamedTuple

from attrs import Factory, define, frozen

from twisted_net.ops.long_turns import NOT_RUNNING, SHORTEST, UNKNOWN
from twisted_net.ops.stack_place import Place, place_of
from twisted_net.turns.turn_clock import TurnClock

LONGEST_PERIOD = 0.1
"""Most seconds between two looks, however much may pass before a turn is long."""

MAX_PLACES = 64
"""Places of one turn that are told apart; a turn may go on for ever."""

THREAD_NAME = "turn watch"


@frozen
class Judgement:
    """What is known of a long turn: see :class:`~twisted_net.ops.long_turns.LongTurn`."""

    callback: str
    where: str
    cpu: float | None


class _Look(NamedTuple):
    """When the thread looked, and the processor time of the process and of the reactor by then."""

    now: float
    process: float
    reactor: float | None


@define
class _Sight:
    """
    What was seen of one turn.

    :ivar began: which one; None of none.
    :ivar cpu: processor time of the reactor's thread before it.
    :ivar idle: seconds in which nothing of the process ran.
    """

    began: float | None = None
    cpu: float | None = None
    idle: float = 0.0
    places: Counter[Place] = Factory(Counter)


class TurnSampler:
    """
    Looks at the reactor's thread twice within the seconds from which a turn is long.

    It is made and told to stop in the reactor's thread. A function of C that keeps Python's lock
    (the GIL) also keeps this thread from looking; but Python hands over the lock when the function
    returns, so that its caller is seen all the same.

    :param clock: of the turns; its limit is read once, when the thread is started.
    :param loops: the functions that run the reactor.
    :param tick: called in the thread before each look, with the seconds when the look was due: a
        function that kept the lock has delayed it.
    """

    def __init__(
        self,
        clock: TurnClock,
        loops: Collection[CodeType],
        tick: Callable[[float], object] | None = None,
    ) -> None:
        self._clock = clock
        self._loops = loops
        self._tick = tick
        self._period = min(max(clock.limit, SHORTEST) / 2, LONGEST_PERIOD)
        self._ident = get_ident()
        self._reactor_clock = _processor_clock(self._ident)
        # Not an Event, whose wait takes twice as long, 40 times a second.
        self._running = Lock()
        self._running.acquire()
        self._sight = _Sight()
        self._lock = Lock()  # for the places of a sight
        self._last = self._look()
        self._thread = Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        """
        Start the thread.

        :raises RuntimeError: if the system has no thread to give.
        """
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for its end; idempotent."""
        if self._running.locked():
            self._running.release()
        if self._thread.ident is not None:
            self._thread.join()

    def judge(self, began: float, ended: float) -> Judgement:
        """Return what is known of a turn that has ended just now."""
        last, now = self._last, self._look()
        sight = self._sight
        if sight.began != began:
            sight = _Sight(began, last.reactor)
        idle = sight.idle + self._idle(last, now, began)
        cpu = None
        if now.reactor is not None and sight.cpu is not None:
            # The thread has looked some time before the turn: what ran then is counted, too.
            cpu = min(now.reactor - sight.cpu, ended - began)
        if ended - began - idle < self._clock.limit:
            return Judgement(NOT_RUNNING, "", cpu)
        with self._lock:
            place = _most_common(sight.places)
        if place is None:
            return Judgement(UNKNOWN, "", cpu)
        return Judgement(place.callback, place.where, cpu)

    def _run(self) -> None:
        due = self._clock.seconds() + self._period
        while not self._running.acquire(timeout=self._period):
            if self._tick is not None:
                self._tick(due)
            self.observe()
            due = self._clock.seconds() + self._period

    def observe(self) -> None:
        """Look once; called by the thread."""
        began = self._clock.began
        last, now = self._last, self._look()
        self._last = now
        if began is None:
            return
        sight = self._sight
        if sight.began != began:
            self._sight = sight = _Sight(began, last.reactor)
        sight.idle += self._idle(last, now, began)
        if now.now - began >= self._period and (place := self._place(began)) is not None:
            with self._lock:
                if place in sight.places or len(sight.places) < MAX_PLACES:
                    sight.places[place] += 1

    def _place(self, began: float) -> Place | None:
        # Nothing here keeps the frame, nor the frames of other threads, this one's among them.
        frame = sys._current_frames().get(self._ident)
        # The turn may have ended before the look, and another may have begun.
        if frame is None or self._clock.began != began:
            return None
        return place_of(frame, self._loops)

    def _look(self) -> _Look:
        return _Look(self._clock.seconds(), time.process_time(), self._reactor_clock())

    def _idle(self, last: _Look, now: _Look, began: float) -> float:
        """Return for how long nothing ran between two looks and within a turn, at least."""
        passed = now.now - max(last.now, began)
        # All that ran between the looks may have run in the turn; the thread itself slept.
        return max(passed - (now.process - last.process) - self._period, 0.0)


def _most_common(places: Counter[Place]) -> Place | None:
    """Return the place that was seen most often, of the callback that was seen most often."""
    callbacks = Counter[str]()
    for place, count in places.items():
        callbacks[place.function] += count
    for function, _ in callbacks.most_common(1):
        return max(
            (place for place in places if place.function == function), key=places.__getitem__
        )
    return None


def _processor_clock(ident: int) -> Callable[[], float | None]:
    """Return what reads the processor time of a running thread; None where the system cannot."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return lambda: None
    clock = time.pthread_getcpuclockid(ident)

    def seconds() -> float | None:
        try:
            return time.clock_gettime(clock)
        except OSError:  # the thread has ended
            return None

    return seconds
