"""Brings messages to those who wait for them, a few connections in each reactor turn."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.tcp.transport import Batch

WRITES_PER_TURN = 256
"""
Connections that are written to in one reactor turn.

A message to 10 000 subscribers would otherwise keep everybody else waiting for 0.1 s; so many take
2 ms. What is published meanwhile waits in the mailboxes, and leaves in fewer and larger writes.
"""


class Destination(Protocol):
    """A connection that messages wait for."""

    def join(self, batch: Batch) -> bool:
        """Add all of them to a batch; False, and nothing is added, where they are not for one."""
        ...

    def send_messages(self) -> bool:
        """Write some of them, if that is possible now; say whether others wait for a turn."""
        ...


class Fanout:
    """The connections that have messages to write, in the order in which they asked."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._due: deque[Destination] = deque()
        self._turn: IDelayedCall | None = None

    def add(self, destination: Destination) -> None:
        """Let a connection write in one of the next turns, never within this call."""
        self._due.append(destination)
        if self._turn is None:
            self._turn = self._reactor.callLater(0, self._send)

    def stop(self) -> None:
        """Forget all that is due."""
        self._due.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _send(self) -> None:
        self._turn = None
        due = self._due
        batch = Batch()
        alone = []
        for _ in range(min(len(due), WRITES_PER_TURN)):
            destination = due.popleft()
            if not destination.join(batch):
                alone.append(destination)
        # First the batch: what writes on its own may end any connection.
        batch.send()
        for destination in alone:
            if destination.send_messages():
                due.append(destination)
        if due and self._turn is None:
            self._turn = self._reactor.callLater(0, self._send)
