"""Mailbox: the bounded queue of messages for one client."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from twisted_net.topics.messages import EventLine, TopicMessage
from twisted_net.topics.settings import WhenSlow

if TYPE_CHECKING:
    from twisted_net.topics.registry import Topics

CHUNK = 16_384
"""Bytes of messages that are written to a transport at once, unless a single one is longer."""


class Recipient(Protocol):
    """The connection that a mailbox belongs to."""

    def subscribed(self) -> None:
        """A pattern was added: its answer must precede the messages that match it."""
        ...

    def wake(self) -> None:
        """The mailbox was empty and holds messages now."""
        ...

    def overflow(self) -> None:
        """Too many messages would wait: disconnect the client."""
        ...


class Mailbox:
    """
    The bounded queue of messages for one client.

    The first message wakes its recipient, which takes chunks until the queue is empty; the next
    message wakes it again.

    :ivar when_slow: what happens to a message that would exceed ``max_queue``.
    :ivar waiting: bytes that wait.
    :ivar sent: bytes that were taken out, to be sent.
    :ivar dropped: messages that this client did not get because it read too slowly or left.
    :ivar recipient: whom it wakes; the connection may replace it.
    :ivar owner: the session of the client, for as long as it is open.
    :ivar overflowed: whether it is being disconnected; it accepts no more messages then.
    """

    __slots__ = (
        "_limit",
        "_lines",
        "_topics",
        "dropped",
        "overflowed",
        "owner",
        "recipient",
        "sent",
        "waiting",
        "when_slow",
    )

    def __init__(self, topics: Topics, recipient: Recipient) -> None:
        self.when_slow: WhenSlow = topics.settings.when_slow
        self.waiting = 0
        self.sent = 0
        self.dropped = 0
        self.overflowed = False
        self._topics = topics
        self._limit = topics.settings.max_queue
        self.recipient = recipient
        self.owner: object | None = None
        # One message waits as it is, several in a queue, whose memory most subscribers never need.
        self._lines: bytes | deque[bytes] | None = None

    def take(self, message: TopicMessage | EventLine) -> bool:
        """Queue a message for the client, if there is room."""
        # What follows runs for each subscriber of each message.
        line = message.line
        waiting = self.waiting + len(line)
        if waiting > self._limit:
            if not self._make_room(len(line)):
                return False
            waiting = self.waiting + len(line)
        self.waiting = waiting
        lines = self._lines
        if lines is None:
            self._lines = line
            self.recipient.wake()
        elif type(lines) is bytes:
            self._lines = deque((lines, line))
        else:
            lines.append(line)  # type: ignore[union-attr]  # no bytes, but mypy does not see it
        return True

    def subscribe(self, pattern: str) -> int:
        """Subscribe the client, as :meth:`Topics.subscribe` does."""
        topics = self._topics
        new = not topics.holds(self, pattern)
        count = topics.subscribe(self, pattern)
        self.recipient.subscribed()
        if new:
            topics.give_retained(self, pattern)
        return count

    def next_chunk(self) -> bytes:
        """Remove and return the oldest messages, up to :data:`CHUNK` bytes; empty if none wait."""
        lines = self._lines
        if lines is None:
            return b""
        if isinstance(lines, bytes):
            chunk = lines
            self._lines = None
        elif self.waiting <= CHUNK:
            chunk = b"".join(lines)
            self._lines = None
        else:
            some = [lines.popleft()]
            size = len(some[0])
            while lines and size + len(lines[0]) <= CHUNK:
                some.append(lines.popleft())
                size += len(some[-1])
            chunk = b"".join(some)
            if not lines:
                self._lines = None
        self.waiting -= len(chunk)
        self.sent += len(chunk)
        return chunk

    def close(self) -> int:
        """
        End all subscriptions, and drop the messages that wait.

        :return: how many messages were dropped.
        """
        self._topics.unsubscribe_all(self)
        return self.drop_messages()

    def drop_messages(self) -> int:
        """Drop the messages that wait; return how many there were, which are counted as lost."""
        lines, self._lines = self._lines, None
        left = 0 if lines is None else 1 if isinstance(lines, bytes) else len(lines)
        self.waiting = 0
        self.dropped += left
        self._topics.lost += left
        return left

    def reset(self) -> None:
        """Begin anew, as for another client: empty, and with the default of ``when_slow``."""
        self.close()
        self.when_slow = self._topics.settings.when_slow

    def _make_room(self, size: int) -> bool:
        """Apply :attr:`when_slow` to a message of this size; return whether it now fits."""
        topics = self._topics
        limit = self._limit
        if self.when_slow == "drop_oldest" and size <= limit:
            while self.waiting + size > limit:
                self._drop_oldest()
                self.dropped += 1
                topics.dropped_oldest += 1
            return True
        if self.when_slow == "disconnect" and not self.overflowed:
            self.overflowed = True
            topics.overflows += 1
            self.recipient.overflow()
        self.dropped += 1
        topics.dropped_newest += 1
        return False

    def _drop_oldest(self) -> None:
        lines = self._lines
        assert lines is not None
        if isinstance(lines, bytes):
            oldest, self._lines = lines, None
        else:
            oldest = lines.popleft()
            if not lines:
                self._lines = None
        self.waiting -= len(oldest)
