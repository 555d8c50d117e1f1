"""Turn watch: a service that counts the long turns of the reactor, and logs their callbacks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from types import CodeType

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorFromThreads
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.log_limiter import limited_logger
from twisted_net.net.reactor import AnyReactor, ServiceReactor, full_reactor
from twisted_net.net.steady_clock import steady, stopwatch
from twisted_net.ops.long_turns import UNKNOWN, LongTurn, LongTurns, Measured
from twisted_net.ops.turn_sampler import Judgement, TurnSampler
from twisted_net.turns.turn_clock import TurnClock
from twisted_net.twisted_internals import poll_hook

LOGGED_PER_SECOND, LOGGED_AT_ONCE = 0.1, 10.0
"""Long turns in the log: there can be 20 a second; those that are left out are counted there."""


@check_arguments
class TurnWatch(Service):
    """
    Records the turns of the reactor that are long, and logs a warning for each.

    A turn is all that runs from the return of one poll to the next one: handlers of events, timed
    calls and calls from threads. Each is measured on the quiet reactor, on Twisted's epoll and poll
    reactors, and on the asyncio reactor with an event loop of asyncio's own. On other reactors a
    thread measures how long its own calls wait (:data:`~twisted_net.ops.long_turns.Measured`).

    A thread looks at the stack of the reactor's thread while a turn is long. It is started when
    the reactor runs, so that a process may become a daemon before, and ends with the service.
    Several services in one process share one thread, and one line in the log for each turn.

    :param long_turns: where they are recorded, and which ones are long; with a threshold of 0 the
        service does nothing.
    :param wall: returns the seconds of the wall clock.
    """

    def __init__(
        self, reactor: AnyReactor, long_turns: LongTurns, wall: Callable[[], float]
    ) -> None:
        self.long_turns = long_turns
        self.wall = wall
        self._reactor = steady(full_reactor(reactor))
        self._watched: WatchedReactor | None = None

    @override
    def startService(self) -> None:
        Service.startService(self)
        if self.long_turns.settings.long_turn:
            self._reactor.callWhenRunning(self._begin)

    @override
    def stopService(self) -> None:
        Service.stopService(self)
        watched, self._watched = self._watched, None
        if watched is not None:
            watched.remove(self)
            self.long_turns.measured = "nothing"

    def _begin(self) -> None:
        if self.running and self._watched is None:
            self._watched = _watched.get(id(self._reactor)) or WatchedReactor(self._reactor)
            self._watched.add(self)


_watched: dict[int, WatchedReactor] = {}
"""The reactors that are measured now, by identity: each is kept by its value."""


class WatchedReactor:
    """
    A reactor whose turns are measured, for all services that watch it.

    Made in the reactor's thread; others find it in ``_watched`` while it has a service.
    """

    def __init__(self, reactor: ServiceReactor) -> None:
        self._reactor = reactor
        self._watches: list[TurnWatch] = []
        seconds = stopwatch(reactor)
        self._clock = TurnClock(seconds, self._report)
        self._log = limited_logger(self, LOGGED_PER_SECOND, LOGGED_AT_ONCE, seconds)
        self._sampler: TurnSampler | None = None
        self._measured: Measured = "nothing"
        self._unhook: Callable[[], None] = _nothing

    def add(self, watch: TurnWatch) -> None:
        """Record the turns for a service, too."""
        self._watches.append(watch)
        if len(self._watches) == 1:
            self._hook()
            if self._measured != "nothing":
                _watched[id(self._reactor)] = self
        self._restart()

    def remove(self, watch: TurnWatch) -> None:
        """Record no turns for a service; after the last one nothing is left."""
        self._watches.remove(watch)
        if not self._watches:
            _watched.pop(id(self._reactor), None)
            self._unhook()
        self._restart()

    def _hook(self) -> None:
        """Let the reactor tell the clock of its polls, if it has a place for that."""
        clock = self._clock
        measure_turns = getattr(self._reactor, "measure_turns", None)
        unhook: Callable[[], None] | None
        if measure_turns is not None:  # the quiet reactor
            measure_turns(clock)

            def unhook() -> None:
                measure_turns(None)
        else:
            unhook = poll_hook(self._reactor, clock.poll_begins, clock.poll_ends)
        if unhook is not None:
            self._unhook, self._measured = unhook, "turns"
        elif IReactorFromThreads.providedBy(self._reactor):
            self._measured = "calls"

    def _restart(self) -> None:
        """Start the thread anew, as its period and the limit depend on who watches; or end it."""
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None
        if not self._watches or self._measured == "nothing":
            return
        self._clock.limit = min(watch.long_turns.settings.long_turn for watch in self._watches)
        tick = self._call if self._measured == "calls" else None
        sampler = TurnSampler(self._clock, _loops_of(self._reactor), tick)
        try:
            sampler.start()
        except RuntimeError as error:
            self._log.error("no thread to name long turns of the reactor: {error}", error=error)
            if tick is not None:
                self._measured = "nothing"
        else:
            self._sampler = sampler
        for watch in self._watches:
            watch.long_turns.measured = self._measured

    def _call(self, due: float) -> None:
        """In the thread: make a call in the reactor; a turn is what passes until it runs."""
        clock = self._clock
        if clock.began is None:
            clock.began = due
            # A reactor that has ended takes no calls: its pipe is closed.
            with suppress(OSError, RuntimeError):
                self._reactor.callFromThread(clock.poll_begins)

    def _report(self, began: float, ended: float) -> None:
        if self._sampler is None:
            seen = Judgement(UNKNOWN, "", None)
        else:
            seen = self._sampler.judge(began, ended)
        turn = None
        for watch in self._watches:
            if ended - began >= watch.long_turns.settings.long_turn:
                turn = LongTurn(watch.wall(), ended - began, seen.cpu, seen.callback, seen.where)
                watch.long_turns.note(turn)
        if turn is not None:
            self._log.warn(
                "long turn of the reactor: {turn}",
                turn=str(turn),
                seconds=turn.seconds,
                callback=turn.callback,
            )


def _loops_of(reactor: object) -> frozenset[CodeType]:
    """Return the functions that run a reactor, those of asyncio among them if it is in use."""
    kind = type(reactor)
    asyncio = sys.modules.get("asyncio")
    functions = [getattr(kind, name, None) for name in ("run", "mainLoop", "iterate")]
    functions.append(getattr(getattr(asyncio, "BaseEventLoop", None), "run_forever", None))
    codes = (getattr(function, "__code__", None) for function in functions)
    return frozenset(code for code in codes if code is not None)


def _nothing() -> None:
    """Undo nothing."""
