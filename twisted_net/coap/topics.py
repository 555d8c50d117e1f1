"""Topics as CoAP resources: what was published last, for those that ask or observe (RFC 7641)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice

from twisted_net.coap.codec import JSON, TEXT, Code
from twisted_net.coap.resources import Reply
from twisted_net.errors import NotUTF8, TooBusy
from twisted_net.topics import TopicMessage, Topics

TOPICS = "topics"
"""The first segment of the path of each topic; the topic is the second: ``/topics/shop.orders``."""

_IDLE_TRIED = 8
"""Topics looked at, from the one asked for longest ago, to find one that nobody observes."""


def topic_of(path: Sequence[str]) -> str | None:
    """Give the topic whose resource a path is, or None where it is none's."""
    return path[1] if len(path) == 2 and path[0].lower() == TOPICS else None


def resource_of(topic: str) -> str:
    """Give the path of a topic's resource, by which its observers are known."""
    return f"{TOPICS}/{topic}"


def text_of(payload: bytes) -> str:
    """
    Give the message that a payload is, every character of it.

    :raises NotUTF8: for bytes that are no text.
    """
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise NotUTF8(error.start, payload[error.start]) from None


class TopicStates:
    """
    The last messages of the topics that CoAP clients observe or publish to.

    A topic is followed from its first observer, or publisher over CoAP, on; what was published
    before nobody knows any more. Over its limits it stops to follow the topic that was asked for
    longest ago and is observed by nobody, and forgets the oldest messages.

    :param most: topics followed.
    :param most_bytes: of the messages that are kept.
    :param observed: tells whether a resource has observers.
    :param changed: told of each new message, by the path of its resource.
    """

    def __init__(
        self,
        topics: Topics,
        most: int,
        most_bytes: int,
        observed: Callable[[str], bool],
        changed: Callable[[str], None],
    ) -> None:
        self._topics = topics
        self._most = most
        self._most_bytes = most_bytes
        self._observed = observed
        self._changed = changed
        self._followed: OrderedDict[str, _Follower] = OrderedDict()
        self._kept: OrderedDict[str, TopicMessage] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._followed)

    def follow(self, topic: str) -> None:
        """
        Keep what is published from now on.

        :raises BadTopic: for what is no topic.
        :raises TooBusy: where as many are followed as may be, and the others are observed.
        :raises TooManySubscriptions: where the whole server has as many as it may.
        """
        if topic in self._followed:
            self._followed.move_to_end(topic)
            return
        self._topics.check(topic)
        if len(self._followed) >= self._most:
            self._leave_one()
        follower = _Follower(topic, self._take)
        self._topics.subscribe(follower, topic)
        self._followed[topic] = follower

    def reply(self, topic: str, accept: int | None) -> Reply:
        """
        Give the last message of a topic: nothing where none is known.

        :param accept: as JSON it is the event that subscribers over TCP get.
        :raises BadTopic: for what is no topic.
        """
        self._topics.check(topic)
        message = self._kept.get(topic)
        if accept == JSON:
            return Reply(Code.CONTENT, b"{}" if message is None else message.line[:-1], JSON, 0)
        text = "" if message is None else message.text
        return Reply(Code.CONTENT, text.encode(), TEXT, 0)

    def close(self) -> None:
        """Follow nothing any more, and forget everything."""
        for follower in self._followed.values():
            self._topics.unsubscribe_all(follower)
        self._followed.clear()
        self._kept.clear()
        self.size = 0

    def _leave_one(self) -> None:
        for topic in list(islice(self._followed, _IDLE_TRIED)):
            if not self._observed(resource_of(topic)):
                self._topics.unsubscribe_all(self._followed.pop(topic))
                self._forget(topic)
                return
            self._followed.move_to_end(topic)
        raise TooBusy(self._most)

    def _take(self, message: TopicMessage) -> bool:
        """Keep a message; tell whether somebody who observes is told of it."""
        topic = message.topic
        self._forget(topic)
        self._kept[topic] = message
        self.size += len(message.line)
        while self.size > self._most_bytes:
            self._forget(next(iter(self._kept)))
        resource = resource_of(topic)
        self._changed(resource)
        return self._observed(resource)

    def _forget(self, topic: str) -> None:
        message = self._kept.pop(topic, None)
        if message is not None:
            self.size -= len(message.line)


class _Follower:
    """Who subscribes to one topic."""

    __slots__ = ("_take", "topic")

    def __init__(self, topic: str, take: Callable[[TopicMessage], bool]) -> None:
        self.topic = topic
        self._take = take

    def take(self, message: TopicMessage) -> bool:
        return self._take(message)
