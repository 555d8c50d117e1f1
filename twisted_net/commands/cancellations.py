"""Cancellations: the waiting commands of clients that have left, some ended in each turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.turns.step_scheduler import StepScheduler
from twisted_net.turns.steps import CANCEL, in_steps

FEW = 4
"""Commands that are cancelled as their client leaves: it takes less than all else then."""

MAX_LEFT = 65_536
"""
Commands that may wait to be cancelled. Above it a client's are cancelled as it leaves, so that
those who come, ask and leave make nothing grow.
"""


class Cancellable(Protocol):
    """A command that runs, such as an :class:`~twisted_net.commands.execution.Execution`."""

    def cancel(self) -> None:
        """End it; its answer is not wanted any more."""
        ...


class Cancellations:
    """
    Cancels the commands of those who have left, in the order in which they left.

    Thousands may leave at once, each with many commands that wait. Until its turn has come, a
    command may end by itself; nobody is answered.

    :param done: called when none is left that has waited for its turn.
    :param memory: counts what the commands take until then; a ledger of its own if None.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        done: Callable[[], None],
        memory: MemoryLedger | None = None,
    ) -> None:
        self._steps = StepScheduler(reactor)
        self._kept: MemoryAccount[Cancellations] = (memory or MemoryLedger()).account(
            "leaving", relieve=self._relieve
        )
        self._left: deque[tuple[Cancellable, int]] = deque()  # with the bytes of each
        self._done = done
        self._cancelling = False

    @property
    def busy(self) -> bool:
        """Whether some wait to be cancelled."""
        return self._cancelling

    def add(self, commands: list[Cancellable], size: int = 0) -> None:
        """
        Cancel the commands of a client, now or in one of the next turns.

        :param size: bytes that they take, if nobody else counts them.
        """
        if len(commands) <= FEW or len(self._left) + len(commands) > MAX_LEFT:
            for command in commands:
                self._cancel(command)
            return
        each = size // len(commands)
        self._left += [(command, each) for command in commands]
        # It may cancel some at once.
        self._kept.add(self, each * len(commands))
        self._go_on()

    def stop(self) -> None:
        """Cancel all that are left now, and leave no call."""
        left, self._left = self._left, deque()
        self._steps.stop()
        self._kept.set(self, 0)
        for command, _ in left:
            self._cancel(command)

    def _go_on(self) -> None:
        if not self._cancelling:
            self._cancelling = True
            self._steps(in_steps(self._work())).addCallback(self._stepped)

    def _work(self) -> Iterator[float]:
        while self._left:
            self._cancel_next()
            yield CANCEL

    def _relieve(self, _: Cancellations) -> float:
        """Cancel one at once, as all clients hold too much; return the share of a step."""
        if self._left:
            self._cancel_next()
        return CANCEL

    def _cancel_next(self) -> None:
        command, size = self._left.popleft()
        self._kept.add(self, -size)
        self._cancel(command)

    def _cancel(self, command: Cancellable) -> None:
        # What a handler waits for may be of the embedding application, with a bug of its own.
        try:
            command.cancel()
        except Exception:
            self.log.failure("to cancel a command of a client that has left failed")

    def _stepped(self, steps: list[int]) -> None:
        self._cancelling = False
        if self._left:
            self._go_on()
        else:
            self._done()
