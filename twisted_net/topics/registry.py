"""Topics: subscriptions by pattern, and the delivery of messages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import BadTopic, TooManySubscriptions
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.topics.messages import Subscriber, TopicMessage
from twisted_net.topics.retained import RetainedMessages
from twisted_net.topics.retained_delivery import RetainedDelivery
from twisted_net.topics.settings import BROADCAST, PRESENCE, TopicSettings
from twisted_net.topics.tree import ALL_LEVELS, ONE_LEVEL, TopicNode, check_pattern, split_topic
from twisted_net.turns.steps import Pacing

REMOVED_AT_ONCE = 256
"""
Subscriptions of those who have left that are removed in one turn of the reactor.

These take 1 ms; 99 clients with a thousand each, all removed as they left, kept all others waiting
for 0.3 s.
"""

FEW = 8
"""Subscriptions that are removed as their subscriber leaves: it takes less than all else then."""

SUBSCRIPTION_BYTES = 240
"""Memory of a subscription, beside its pattern, where each subscriber has one, as measured."""


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
        self.retained = RetainedMessages(
            self.settings.retain,
            self.settings.max_retained,
            self.settings.max_retained_bytes,
            self.memory,
        )
        self._giving = RetainedDelivery(self)
        self._root: TopicNode[Subscriber] = TopicNode()
        self._patterns: dict[Subscriber, dict[str, None]] = {}
        self._count = 0
        # Those of subscribers that have left which are still in the tree; they get no message.
        self._ended: OrderedDict[Subscriber, dict[str, None]] = OrderedDict()
        self._ended_count = 0
        self._wall: tuple[Callable[[], float], Callable[[float], str]] | None = None
        self._last_id = 0
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
            "retained": len(self.retained),
            "not_retained": self.retained.refused,
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

    def holds(self, subscriber: Subscriber, pattern: str) -> bool:
        """Whether a subscriber has this pattern."""
        return pattern in self._patterns.get(subscriber, ())

    def give_retained(self, subscriber: Subscriber, pattern: str) -> None:
        """
        Send the retained messages of a pattern to who has just subscribed to it.

        Where there are more than a few the rest follows in later turns of the reactor; a message
        that is published meanwhile is sent as it is, and not once more.
        """
        if len(self.retained):
            levels = self._levels(pattern)
            self._giving.add(subscriber, pattern, levels, self._last_id, self._pacing)

    def restore(self, message: TopicMessage) -> None:
        """Retain a message that was retained before a restart, if its topic is valid now."""
        try:
            levels = self.check(message.topic)
        except BadTopic:
            return
        self.retained.keep(levels, message)
        # Whatever the wall clock shows now, later messages have larger numbers.
        self._last_id = max(self._last_id, message.id)

    def last(self, topic: str) -> TopicMessage | None:
        """
        Return the retained message of a topic, or None.

        :raises BadTopic: if the topic is not valid or has a wildcard.
        """
        return self.retained.get(self.check(topic))

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
        check_pattern(levels)
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

    def subscribers(self, topic: str) -> list[object]:
        """
        Return whom a message of a topic would reach: sessions, and subscribers of your own.

        :raises BadTopic: if the topic is not valid or has a wildcard.
        """
        return [
            subscriber if (session := getattr(subscriber, "owner", None)) is None else session
            for subscriber in self._receivers(self.check(topic))
        ]

    def use_wall(self, wall: Callable[[], float], shown: Callable[[float], str]) -> None:
        """
        Stamp messages with the time of this clock, unless another server was first.

        :param wall: returns the seconds of the wall clock.
        :param shown: returns them as they are shown.
        """
        if self._wall is None:
            self._wall = wall, shown

    def publish(
        self,
        topic: str,
        value: object,
        *,
        sender: str | None = None,
        retain: bool | None = None,
    ) -> int:
        """
        Send a message to all subscribers of its topic.

        :param value: a text, or whatever JSON has: subscribers receive it as such.
        :param sender: who publishes it; None for the application.
        :param retain: whether to keep it for later subscribers, in place of the one before; an
            empty text retains none. If None, as the settings say of the topic.
        :return: how many accepted it.
        :raises BadTopic: if the topic is not valid or has a wildcard.
        :raises TooManyRetained: if *retain* is true, and there is no room; then nothing is sent.
        :raises TypeError: for a value that JSON cannot represent, if somebody receives it.
        """
        levels = self.check(topic)
        receivers = self._receivers(levels)
        retained = self.retained.covers(levels) if retain is None else retain
        if not receivers and not retained:
            self.published += 1
            return 0
        message = self._message(topic, value, sender)
        if retain and value != "":
            self.retained.check_room(levels, len(message.line))
        self.published += 1
        if retained:
            self.retained.keep(levels, message)
        taken = 0
        for subscriber in receivers:
            if subscriber.take(message):
                taken += 1
        self.delivered += taken
        return taken

    @property
    def hears_presence(self) -> bool:
        """Whether somebody may have subscribed to a topic of presence."""
        return PRESENCE in self._root.children

    def _message(self, topic: str, value: object, sender: str | None) -> TopicMessage:
        """Return a message with its time and the next ID."""
        if self._wall is None:
            self._last_id += 1
            return TopicMessage(topic, value, self._last_id, None, sender)
        wall, shown = self._wall
        now = wall()
        # Microseconds, so that IDs go on increasing after a restart; below 2**53, which is the
        # limit of JavaScript's numbers, until the year 2255.
        self._last_id = max(self._last_id + 1, int(now * 1e6))
        return TopicMessage(topic, value, self._last_id, shown(now), sender)

    def _receivers(self, levels: list[str]) -> dict[Subscriber, None]:
        """Return the subscribers of a topic, each once."""
        found = self._matching(levels)
        if not found:
            return {}
        # A copy: a subscriber that accepts the message may subscribe, unsubscribe or disconnect.
        receivers = found[0].subscribers.copy()
        # Each subscriber may have 511 patterns that match: nothing is called for one of them.
        for node in found[1:]:
            receivers.update(node.subscribers)
        return self._without_ended(receivers, found) if self._ended else receivers

    def _matching(self, levels: list[str]) -> list[TopicNode[Subscriber]]:
        """Return the ends of the patterns that match a topic."""
        if levels[0] != PRESENCE:
            return list(self._root.matching(levels))
        # A wildcard in the first level does not stand for it.
        child = self._root.children.get(PRESENCE)
        return [] if child is None else list(child.matching(levels[1:]))

    def _without_ended(
        self, receivers: dict[Subscriber, None], found: list[TopicNode[Subscriber]]
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

        :raises BadTopic: as :func:`~twisted_net.topics.tree.split_topic` does, and for
            :data:`BROADCAST`.
        """
        levels = split_topic(topic, self.settings.max_topic, self.settings.max_levels)
        if topic == BROADCAST:
            raise BadTopic(f"{BROADCAST} is the topic of BROADCAST alone")
        return levels
