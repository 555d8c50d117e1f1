"""A reactor with real sockets whose time stands still while the process waits for a processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock, LoopingCall
from twisted.logger import Logger
from zope.interface import directlyProvides, providedBy

STEP = 0.005
"""Seconds by which its time goes on, at most once for each turn of the real reactor."""


class PatientReactor:
    """
    Does with sockets, processes and threads what another reactor does; its timers count turns.

    On an idle machine its seconds are as long as real ones. On a busy one the real clock goes on
    between two turns, so that a timer of 0.1 seconds may be due before an answer that came at once
    has been read. Here at least ``0.1 / STEP`` turns come first, each of which reads what is there.

    :param reactor: the running reactor, epoll or asyncio.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:  # Any: reactors have no one type
        self._reactor = reactor
        self._clock = Clock()
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor
        self._ticking.start(STEP, now=False)
        self.seconds = self._clock.seconds
        self.getDelayedCalls = self._clock.getDelayedCalls
        directlyProvides(self, *providedBy(reactor))

    def __getattr__(self, name: str) -> Any:  # Any: whatever reactors have
        return getattr(self._reactor, name)

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002  # Twisted's name
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        """Call a function later; at once means in the next turn, as with any reactor."""
        return self._clock.callLater(max(delay, STEP / 1000), callable, *args, **kw)

    def stop(self) -> None:
        """Let no more time pass, once what was to run in the next turn has run."""
        self._ticking.stop()
        self._tick()

    def _tick(self) -> None:
        amount = STEP
        while True:
            try:
                self._clock.advance(amount)
            except Exception:  # as a reactor does: the other calls are made all the same
                self._log.failure("a call that was due failed")
                amount = 0.0
            else:
                return
