"""Topics: subscriptions by pattern, delivery of messages, and bounded mailboxes of clients."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import BadTopic, TooManySubscriptions
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.turns.steps import Pacing

WhenSlow = Literal["drop_oldest", "drop_newest", "disconnect"]

ONE_LEVEL = "*"
"""Wildcard in a pattern: any one level."""

ALL_LEVELS = ">"
"""Wildcard at the end of a pattern: one or more levels."""

BROADCAST = "broadcast"
"""
The topic of BROADCAST, in the permissions of users: to subscribe is to receive, to publish to send.

It has no subscribers and no messages of its own: PUBLISH and SUBSCRIBE refuse it.
"""

REMOVED_AT_ONCE = 256
"""
Subscriptions of those who have left that are removed in one turn of the reactor.

These take 1 ms; 99 clients with a thousand each, all removed as they left, kept all others waiting
for 0.3 s.
"""

FEW = 8
"""Subscriptions that are removed as their subscriber leaves: it takes less than all else then."""

LEVEL_BYTES = 390
"""Memory of a level of a pattern that no other pattern has, beside its name, as measured."""

SUBSCRIPTION_BYTES = 240
"""Memory of a subscription, beside its pattern, where each subscriber has one, as measured."""

CHUNK = 16_384
"""Bytes of messages that are written to a transport at once, unless a single one is longer."""


class TopicSettings(Record, frozen=True):
    """
    The bounds of topics, ``[topics]``.

    - ``max_subscriptions``: above it SUBSCRIBE is refused with ``subscription_limit``. With
      wildcards few clients need as many; a flood of SUBSCRIBE ends here.
    - ``max_subscriptions_in_all``: the same for all clients together.
    - ``max_subscription_bytes``: the same for their memory. A subscription costs a quarter KiB, and
      0.4 KiB for each level of its pattern that no other has: 100,000 of the usual three levels,
      no two alike, take 145 MB.
    - ``max_topic``, ``max_levels``: a longer topic or pattern is refused with ``bad_topic``. MQTT
      brokers and NATS are used with a good deal less.
    - ``when_slow``: what happens when ``max_queue`` bytes wait for a subscriber, unless it chose
      otherwise: its oldest messages are dropped, as the newest describe the present state best;
      or the newest are dropped, so that it gets an unbroken beginning; or it is disconnected, so
      that it knows that it has missed messages.
    - ``max_queue``: beside these, the transport holds up to 80 KiB for each.
    """

    max_subscriptions: Annotated[int, Meta(ge=1, description="subscriptions per client")] = 1000
    max_subscriptions_in_all: Annotated[
        int, Meta(ge=1, description="subscriptions of all clients together")
    ] = 100_000
    max_subscription_bytes: Annotated[
        int, Meta(ge=1_048_576, description="bytes of the subscriptions of all clients together")
    ] = 167_772_160
    max_topic: Annotated[
        int, Meta(ge=1, le=65_536, description="longest topic or pattern, in bytes")
    ] = 256
    max_levels: Annotated[
        int,
        Meta(
            ge=1, le=32, description="limit of the levels of a topic or pattern, separated by dots"
        ),
    ] = 8
    when_slow: Annotated[
        WhenSlow, Meta(description="what to do if a subscriber reads too slowly")
    ] = "drop_oldest"
    max_queue: Annotated[
        int, Meta(ge=4096, description="limit of bytes of messages queued for one subscriber")
    ] = 1_048_576


class TopicMessage:
    """
    A message, encoded once for all its receivers.

    :ivar line: the event as it goes over the wire, with its LF; all receivers share these bytes.
    """

    __slots__ = ("line", "text", "topic")

    def __init__(self, topic: str, text: str) -> None:
        self.topic = topic
        self.text = text
        self.line = _encode({"event": "message", "topic": topic, "message": text}) + b"\n"


_encode = msgspec.json.Encoder().encode


class Subscriber(Protocol):
    """A receiver of messages; hashable by identity."""

    def take(self, message: TopicMessage) -> bool:
        """Accept a message without waiting; return False if it is dropped."""
        ...


@check_arguments
class Topics:
    """
    The subscriptions of all clients.

    A topic is one or more levels, separated by dots: ``shop.orders.42``. In a pattern ``*`` stands
    for any one level, and ``>`` at the end for one level or more. A subscriber of several
    matching patterns gets a message once.

    :ivar published: messages that were published, with or without subscribers.
    :ivar delivered: messages that subscribers accepted, counted once for each subscriber.
    :ivar dropped_oldest: accepted messages that were dropped to make room for newer ones.
    :ivar dropped_newest: messages that found no room.
    :ivar lost: messages that waited for clients when these disconnected.
    :ivar overflows: subscribers that were disconnected because they read too slowly.
    """

    def __init__(
        self, settings: TopicSettings | None = None, memory: MemoryLedger | None = None
    ) -> None:
        self.settings = settings or TopicSettings()
        self.memory = memory or MemoryLedger()
        limit = self.settings.max_subscription_bytes
        self._kept: MemoryAccount[Topics] = self.memory.account("subscriptions", limit)
        self.published = 0
        self.delivered = 0
        self.dropped_oldest = 0
        self.dropped_newest = 0
        self.lost = 0
        self.overflows = 0
        self._root = _Node()
        self._patterns: dict[Subscriber, dict[str, None]] = {}
        self._count = 0
        # Those of subscribers that have left which are still in the tree; they get no message.
        self._ended: OrderedDict[Subscriber, dict[str, None]] = OrderedDict()
        self._ended_count = 0
        self._pacing: Pacing | None = None
        self._removing = False

    def __len__(self) -> int:
        """How many subscriptions there are."""
        return self._count

    @property
    def kept(self) -> int:
        """Bytes of all subscriptions, those included that have ended and are still there."""
        return self._kept.total

    def figures(self) -> dict[str, int]:
        """Return the figures that STATS shows."""
        return {
            "subscriptions": self._count,
            "subscribers": len(self._patterns),
            "published": self.published,
            "delivered": self.delivered,
            "dropped_oldest": self.dropped_oldest,
            "dropped_newest": self.dropped_newest,
            "lost": self.lost,
            "overflows": self.overflows,
        }

    def use_pacing(self, pacing: Pacing) -> None:
        """Spread the removal of many subscriptions by this, unless another server was first."""
        if self._pacing is None:
            self._pacing = pacing

    async def settle(self) -> None:
        """Wait until the subscriptions of those who have left are removed."""
        if self._pacing is not None:
            await self._pacing(())

    def patterns(self, subscriber: Subscriber) -> list[str]:
        """Return the patterns of a subscriber, oldest first."""
        return list(self._patterns.get(subscriber, ()))

    def count(self, subscriber: Subscriber) -> int:
        """Return the number of patterns of a subscriber."""
        return len(self._patterns.get(subscriber, ()))

    def subscribe(self, subscriber: Subscriber, pattern: str) -> int:
        """
        Subscribe to a pattern. Idempotent.

        :return: the number of patterns that the subscriber then has.
        :raises BadTopic: if the pattern is not valid.
        :raises TooManySubscriptions: at the bound of this client or of all.
        """
        levels = self._levels(pattern)
        _check_pattern(levels)
        own = self._patterns.get(subscriber, {})
        if pattern in own:
            return len(own)
        if len(own) >= self.settings.max_subscriptions:
            raise TooManySubscriptions(self.settings.max_subscriptions, "client")
        if self._count + self._ended_count >= self.settings.max_subscriptions_in_all:
            raise TooManySubscriptions(self.settings.max_subscriptions_in_all, "server")
        if self._kept.full:
            own_limit = self._kept.total >= self._kept.limit
            limit = self._kept.limit if own_limit else self.memory.limit
            raise TooManySubscriptions(
                limit, "server", " bytes" if own_limit else " bytes of all memory"
            )
        ended = self._ended.get(subscriber)
        if ended is not None and pattern in ended:
            # Its place among the subscribers is that of a new one.
            self._remove_ended(subscriber, ended, pattern)
        size = SUBSCRIPTION_BYTES + len(pattern) + self._root.add(levels, subscriber, pattern)
        self._kept.add(self, size)
        own[pattern] = None
        self._patterns[subscriber] = own
        self._count += 1
        return len(own)

    def unsubscribe(self, subscriber: Subscriber, pattern: str) -> bool:
        """End one subscription; return False if there is no such one."""
        own = self._patterns.get(subscriber, {})
        if pattern not in own:
            return False
        del own[pattern]
        self._remove(pattern, subscriber)
        self._count -= 1
        if not own:
            del self._patterns[subscriber]
        return True

    def unsubscribe_all(self, subscriber: Subscriber) -> int:
        """
        End all subscriptions of a subscriber; return how many there were.

        It gets no message any more. Where these are many, what is kept of them is removed in later
        turns of the reactor, and counts for the bound of all clients until then.
        """
        own = self._patterns.pop(subscriber, {})
        count = len(own)
        self._count -= count
        if count <= FEW or self._pacing is None:
            for pattern in own:
                self._remove(pattern, subscriber)
            return count
        # None is in both: that it was ended before was undone where it subscribed again.
        if subscriber in self._ended:
            own = self._ended[subscriber] | own
        self._ended[subscriber] = own
        self._ended_count += count
        if not self._removing:
            self._removing = True
            self._pacing(self._removals())
        return count

    def _removals(self) -> Iterator[int]:
        """Remove the subscriptions that have ended, :data:`REMOVED_AT_ONCE` in each step."""
        ended = self._ended
        try:
            while ended:
                removed = 0
                while ended and removed < REMOVED_AT_ONCE:
                    subscriber, patterns = next(iter(ended.items()))
                    self._remove_ended(subscriber, patterns, next(iter(patterns)))
                    removed += 1
                yield removed
        finally:
            self._removing = False

    def _remove_ended(
        self, subscriber: Subscriber, patterns: dict[str, None], pattern: str
    ) -> None:
        del patterns[pattern]
        self._ended_count -= 1
        if not patterns:
            del self._ended[subscriber]
        self._remove(pattern, subscriber)

    def _remove(self, pattern: str, subscriber: Subscriber) -> None:
        size = SUBSCRIPTION_BYTES + len(pattern) + self._root.remove(pattern, subscriber)
        self._kept.add(self, -size)

    def publish(self, topic: str, text: str) -> int:
        """
        Send a message to all subscribers of its topic.

        :return: how many accepted it.
        :raises BadTopic: if the topic is not valid or has a wildcard.
        """
        levels = self.check(topic)
        self.published += 1
        found = list(self._root.matching(levels))
        if not found:
            return 0
        # A copy: a subscriber that accepts the message may subscribe, unsubscribe or disconnect.
        receivers = found[0].subscribers.copy()
        # Each subscriber may have 511 patterns that match: nothing is called for one of them.
        for node in found[1:]:
            receivers.update(node.subscribers)
        if self._ended:
            receivers = self._without_ended(receivers, found)
        message = TopicMessage(topic, text)
        taken = 0
        for subscriber in receivers:
            if subscriber.take(message):
                taken += 1
        self.delivered += taken
        return taken

    def _without_ended(
        self, receivers: dict[Subscriber, None], found: list[_Node]
    ) -> dict[Subscriber, None]:
        """Return the subscribers of some patterns, without those whose subscriptions have ended."""
        ended, patterns = self._ended, self._patterns
        matching = {node.pattern for node in found}
        return {
            subscriber: None
            for subscriber in receivers
            if subscriber not in ended
            # It may have subscribed again since.
            or not matching.isdisjoint(patterns.get(subscriber, ()))
        }

    def check(self, topic: str) -> list[str]:
        """
        Split the topic of a message into levels.

        :raises BadTopic: if the topic is not valid or has a wildcard.
        """
        levels = self._levels(topic)
        if ONE_LEVEL in topic or ALL_LEVELS in topic:
            raise BadTopic(f"a message has one topic, without {ONE_LEVEL} and {ALL_LEVELS}")
        return levels

    def _levels(self, topic: str) -> list[str]:
        """
        Split a topic or pattern into levels.

        :raises BadTopic: if it is too long or deep, has an empty level or white space, or is
            :data:`BROADCAST`.
        """
        settings = self.settings
        if len(topic) > settings.max_topic or len(topic.encode()) > settings.max_topic:
            raise BadTopic(f"a topic has at most {settings.max_topic} bytes")
        levels = topic.split(".")
        if len(levels) > settings.max_levels:
            raise BadTopic(f"a topic has at most {settings.max_levels} levels")
        if "" in levels:
            raise BadTopic("a topic has no empty level: neither at an end nor between two dots")
        if topic.split() != [topic] or not topic.isprintable():
            raise BadTopic("a topic has no white space and only printable characters")
        if topic == BROADCAST:
            raise BadTopic(f"{BROADCAST} is the topic of BROADCAST alone")
        return levels


def _check_pattern(levels: list[str]) -> None:
    for i, level in enumerate(levels):
        if level == ALL_LEVELS and i + 1 < len(levels):
            raise BadTopic(f"{ALL_LEVELS} may stand only at the end of a pattern")
        if len(level) > 1 and (ONE_LEVEL in level or ALL_LEVELS in level):
            raise BadTopic(f"{ONE_LEVEL} and {ALL_LEVELS} stand for whole levels, unlike {level!r}")


class _Node:
    """One level in the tree of patterns, and the subscribers of the pattern that ends here."""

    __slots__ = ("children", "pattern", "subscribers")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.pattern = ""  # until one ends here
        # A dict for its order: the oldest subscriber gets a message first.
        self.subscribers: dict[Subscriber, None] = {}

    def add(self, levels: list[str], subscriber: Subscriber, pattern: str) -> int:
        """Add a subscriber; return the bytes of the levels that are new."""
        node = self
        size = 0
        for level in levels:
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
                size += LEVEL_BYTES + len(level)
            node = child
        node.pattern = pattern
        node.subscribers[subscriber] = None
        return size

    def remove(self, pattern: str, subscriber: Subscriber) -> int:
        """
        Remove a subscriber that is there, and the levels that are then unused.

        :return: the bytes of these levels.
        """
        size = 0
        levels = pattern.split(".")
        path = [self]
        for level in levels:
            path.append(path[-1].children[level])
        del path[-1].subscribers[subscriber]
        while len(path) > 1 and not path[-1].children and not path[-1].subscribers:
            path.pop()
            unused = levels[len(path) - 1]
            del path[-1].children[unused]
            size += LEVEL_BYTES + len(unused)
        return size

    def matching(self, levels: list[str]) -> Iterator[_Node]:
        """Iterate over the nodes whose subscribers are those of a topic: the patterns' ends."""
        nodes = [self]
        for level in levels:
            following = []
            for node in nodes:
                children = node.children
                if (rest := children.get(ALL_LEVELS)) is not None:
                    yield rest
                if (child := children.get(level)) is not None:
                    following.append(child)
                if (child := children.get(ONE_LEVEL)) is not None:
                    following.append(child)
            nodes = following
        for node in nodes:
            if node.subscribers:
                yield node


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
    :ivar recipient: whom it wakes; the owner may replace it.
    :ivar overflowed: whether it is being disconnected; it accepts no more messages then.
    """

    __slots__ = (
        "_limit",
        "_lines",
        "_topics",
        "dropped",
        "overflowed",
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
        # One message waits as it is, several in a queue, whose memory most subscribers never need.
        self._lines: bytes | deque[bytes] | None = None

    def take(self, message: TopicMessage) -> bool:
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
        count = self._topics.subscribe(self, pattern)
        self.recipient.subscribed()
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
