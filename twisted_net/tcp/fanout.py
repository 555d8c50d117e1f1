"""Fan-out: writes the messages that wait in clients' mailboxes, some connections in each turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.reasons import End
from twisted_net.tcp.answer_queue import PendingAnswer
from twisted_net.tcp.transport import Batch, StreamTransport
from twisted_net.topics.mailbox import CHUNK, Mailbox
from twisted_net.topics.registry import Topics
from twisted_net.turns.step_scheduler import StepScheduler
from twisted_net.turns.steps import END, in_steps

WRITES_PER_TURN = 256
"""
Connections that are written to in one reactor turn.

A message to 10 000 subscribers would otherwise delay all other clients by 0.1 s; so many take
2 ms. What is published meanwhile waits in the mailboxes, and leaves in fewer and larger writes.
"""


class Destination(Protocol):
    """A connection that messages wait for; a :class:`MailboxWriter` is one."""

    def join(self, batch: Batch) -> bool:
        """
        Add all its messages to a batch.

        :return: False, and nothing is added, if they cannot leave in one: then
            :meth:`send_messages` is called.
        """
        ...

    def send_messages(self) -> bool:
        """
        Write some of its messages, if that is possible now.

        :return: whether more wait for the next turn.
        """
        ...


class Fanout:
    """The connections that have messages to write, in the order in which they asked."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._due: deque[Destination] = deque()
        self._turn: IDelayedCall | None = None
        self._slow: deque[Callable[[], None]] = deque()
        self._ending = False
        self._steps = StepScheduler(reactor)

    def add(self, destination: Destination) -> None:
        """Let a connection write in one of the next turns, never within this call."""
        self._due.append(destination)
        if self._turn is None:
            self._turn = self._reactor.callLater(0, self._send)

    def end_slow(self, abort: Callable[[], None]) -> None:
        """
        End a connection that reads too slowly; of many, some in each turn of the reactor.

        :param abort: aborts it, unless it is lost.
        """
        self._slow.append(abort)
        if not self._ending:
            self._ending = True
            self._steps(in_steps(self._aborts()))

    def _aborts(self) -> Iterator[float]:
        try:
            while self._slow:
                self._slow.popleft()()
                yield END
        finally:
            self._ending = False

    def stop(self) -> None:
        """Drop all that is due."""
        self._due.clear()
        self._slow.clear()
        self._ending = False
        self._steps.stop()
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
        # First the batch: writing to a connection alone may end any connection.
        batch.send()
        for destination in alone:
            if destination.send_messages():
                due.append(destination)
        if due and self._turn is None:
            self._turn = self._reactor.callLater(0, self._send)


class MailboxOwner(Protocol):
    """The connection that a :class:`MailboxWriter` writes to."""

    transport: StreamTransport

    def last_pending(self) -> PendingAnswer | None:
        """Return the answer that leaves last of those that wait, or None if none does."""
        ...

    def wrote_messages(self, size: int) -> None:
        """Count bytes of messages that were just written."""
        ...

    def abort(self, end: End) -> None:
        """End the connection now."""
        ...


class MailboxWriter:
    """
    Writes the messages of one client's mailbox to its connection.

    It is made at the client's first subscription, so that others do not pay for it. A message to
    thousands of connections waits for memory at each more than for anything else: what is looked
    at for each lies side by side here, and the connection itself is not touched.

    :ivar mailbox: the messages that wait.
    :ivar metered: whether a rate limit holds for the bytes of this client; the connection sets it.
    :ivar paused: whether the peer does not read; the connection sets it to True, and calls
        :meth:`resume` later.
    """

    __slots__ = ("_after", "_fanout", "_owner", "_transport", "mailbox", "metered", "paused")

    def __init__(self, owner: MailboxOwner, fanout: Fanout, topics: Topics) -> None:
        self.mailbox = Mailbox(topics, self)
        self.metered = self.paused = False
        self._after: PendingAnswer | None = None  # messages may not overtake this answer
        self._fanout = fanout
        self._owner: MailboxOwner | None = owner
        self._transport = owner.transport

    # --- what the mailbox calls ---

    def subscribed(self) -> None:
        """Hold messages back until the answer to SUBSCRIBE has left, if others are before it."""
        if self._owner is not None:
            # That answer is there already, and leaves together with the one that is last now.
            self._after = self._owner.last_pending()

    def wake(self) -> None:
        """Messages wait."""
        self._fanout.add(self)

    def overflow(self) -> None:
        """Too many messages would wait, and the client chose to be disconnected then."""
        # A message to all that do not read may be one too many for each of them.
        self._fanout.end_slow(self._abort)

    def _abort(self) -> None:
        if self._owner is not None:
            self._owner.abort(End.SLOW_SUBSCRIBER)

    # --- what the fan-out calls ---

    def join(self, batch: Batch) -> bool:
        """
        Let all the messages that wait leave in a batch.

        :return: False if they cannot: :meth:`send_messages` is to be called.
        """
        mailbox = self.mailbox
        if self._after is not None or self.metered or self.paused or mailbox.waiting > CHUNK:
            return False
        transport = self._transport
        if not batch.takes(transport):
            return False
        # Nothing waits if it asked twice; a second chunk may not be in the batch.
        if chunk := mailbox.next_chunk():
            batch.add(transport, chunk)
        return True

    def send_messages(self) -> bool:
        """
        Write some of the messages that wait, if the peer reads and no answer is before them.

        :return: whether more of them wait for their turn.
        """
        mailbox = self.mailbox
        if not mailbox.waiting or self._after is not None or self.paused:
            return False
        chunk = mailbox.next_chunk()
        self._transport.write(chunk)
        if self._owner is not None:
            self._owner.wrote_messages(len(chunk))
        return mailbox.waiting > 0

    # --- what the connection calls ---

    def answers_taken(self) -> None:
        """Let messages follow, if the answer that they waited for was taken to be written."""
        if self._after is not None and self._after.taken:
            self._after = None
            self._fanout.add(self)

    def resume(self) -> None:
        """The peer has read everything."""
        self.paused = False
        self._fanout.add(self)

    def flush(self) -> None:
        """Write messages until none is left, or the peer does not read: the connection ends."""
        while self.mailbox.waiting and not self.paused:
            self._transport.write(self.mailbox.next_chunk())

    def close(self) -> None:
        """
        Let go of the connection, which is lost, and the mailbox of this.

        They would keep each other in memory until a collection, which holds up all other clients.
        """
        self._owner = None
        self.mailbox.recipient = _NO_RECIPIENT


class _NoRecipient:
    """Whom the mailboxes of lost connections wake."""

    def subscribed(self) -> None:
        """Nothing leaves."""

    def wake(self) -> None:
        """Nothing leaves."""

    def overflow(self) -> None:
        """Nobody is left to be disconnected."""


_NO_RECIPIENT = _NoRecipient()
