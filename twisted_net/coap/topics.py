"""Topics as CoAP resources: the last message published to each, for GET and observers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice

from twisted_net.coap.codec import JSON, TEXT, Code
from twisted_net.coap.resources import TOPICS, ResourceResponse
from twisted_net.errors import CommandError, TooBusy
from twisted_net.net.characters import check_control_characters, decode_utf8
from twisted_net.net.memory_ledger import MemoryAccount
from twisted_net.topics.messages import TopicMessage
from twisted_net.topics.registry import Topics
from twisted_net.turns.steps import WRITE

MAX_LISTED = 64
"""Topics in the list of resources, those that were used last: it is made anew for each request."""

_IDLE_TOPICS_TRIED = 8
"""Topics examined, least recently used first, to find one that is not observed."""


def topic_of(path: Sequence[str]) -> str | None:
    """Return the topic whose resource has this path, or None."""
    return path[1] if len(path) == 2 and path[0].lower() == TOPICS else None


def path_of(topic: str) -> str:
    """Return the path of a topic's resource, as the list of observers has it."""
    return f"{TOPICS}/{topic}"


def text_of(payload: bytes) -> str:
    """
    Return a payload as the text of a message, unchanged.

    :raises NotUTF8: for bytes that are not UTF-8.
    :raises ControlCharacter: for a control character other than a tab and those that end lines.
    """
    text = decode_utf8(payload)
    check_control_characters(text, line_ends=True)
    return text


class TopicResources:
    """
    Last messages of the topics that CoAP clients observe or publish to.

    A topic is subscribed to when it is first observed, or published to over CoAP; messages
    published before are not known. At the limit of topics the least recently used one that is not
    observed is unsubscribed; at the limit of bytes the oldest messages are dropped.

    :param max_topics: topics subscribed to.
    :param max_bytes: of the messages that are kept.
    :param is_observed: returns whether a resource has observers.
    :param changed: called for each new message with the path of its resource.
    :ivar kept: bytes of the messages, by topic.
    """

    def __init__(
        self,
        topics: Topics,
        max_topics: int,
        max_bytes: int,
        is_observed: Callable[[str], bool],
        changed: Callable[[str], None],
    ) -> None:
        self._topics = topics
        self._max_topics = max_topics
        self._max_bytes = max_bytes
        self._is_observed = is_observed
        self._changed = changed
        self._subscribers: OrderedDict[str, _TopicSubscriber] = OrderedDict()
        self._messages: OrderedDict[str, TopicMessage] = OrderedDict()
        self.kept: MemoryAccount[str] = topics.memory.account(
            "coap_topics", max_bytes, self._relieve
        )

    def __len__(self) -> int:
        return len(self._subscribers)

    def subscribe(self, topic: str) -> None:
        """
        Keep the last message that is published from now on. Idempotent.

        :raises BadTopic: if *topic* is not one topic.
        :raises TooBusy: if the limit is reached, and the other topics are observed.
        :raises TooManySubscriptions: if the limit of the whole server is reached.
        """
        if topic in self._subscribers:
            self._subscribers.move_to_end(topic)
            return
        self._topics.check(topic)
        if len(self._subscribers) >= self._max_topics:
            self._unsubscribe_one()
        subscriber = _TopicSubscriber(topic, self._receive)
        self._topics.subscribe(subscriber, topic)
        self._subscribers[topic] = subscriber

    def try_subscribe(self, topic: str) -> bool:
        """Subscribe to a topic that is to be observed; return whether the limits allow it."""
        try:
            self.subscribe(topic)
        except CommandError:
            return False
        return True

    def response(self, topic: str, accept: int | None) -> ResourceResponse:
        """
        Return the last message of a topic: an empty one if none is known.

        :param accept: with JSON, the response is the event that subscribers over TCP receive.
        :raises BadTopic: if *topic* is not one topic.
        """
        self._topics.check(topic)
        message = self._messages.get(topic) or self._topics.last(topic)
        if accept == JSON:
            event = b"{}" if message is None else message.line[:-1]
            return ResourceResponse(Code.CONTENT, event, JSON, 0)
        text = "" if message is None else message.text
        return ResourceResponse(Code.CONTENT, text.encode(), TEXT, 0)

    def latest(self) -> list[str]:
        """Return the topics that were used last, :data:`MAX_LISTED` at most, latest first."""
        return list(islice(reversed(self._subscribers), MAX_LISTED))

    def close(self) -> None:
        """Unsubscribe from all topics, and drop all messages."""
        for subscriber in self._subscribers.values():
            self._topics.unsubscribe_all(subscriber)
        self._subscribers.clear()
        for topic in list(self._messages):
            self._drop_message(topic)

    def _unsubscribe_one(self) -> None:
        for topic in list(islice(self._subscribers, _IDLE_TOPICS_TRIED)):
            if not self._is_observed(path_of(topic)):
                self._topics.unsubscribe_all(self._subscribers.pop(topic))
                self._drop_message(topic)
                return
            self._subscribers.move_to_end(topic)
        raise TooBusy(self._max_topics, "topics over CoAP")

    def _receive(self, message: TopicMessage) -> bool:
        """Keep a message, and return whether an observer is notified of it."""
        topic = message.topic
        self._drop_message(topic)
        size = len(message.line)
        while self._messages and self.kept.total + size > self._max_bytes:
            self._drop_message(next(iter(self._messages)))
        if size <= self._max_bytes:
            self._messages[topic] = message
            self.kept.set(topic, size)
        path = path_of(topic)
        self._changed(path)
        return self._is_observed(path)

    def _drop_message(self, topic: str) -> None:
        self._messages.pop(topic, None)
        self.kept.set(topic, 0)

    def _relieve(self, topic: str) -> float:
        """Drop a message, as all hold too much."""
        self._drop_message(topic)
        return WRITE


class _TopicSubscriber:
    """Subscription to one topic."""

    __slots__ = ("_receive", "topic")

    def __init__(self, topic: str, receive: Callable[[TopicMessage], bool]) -> None:
        self.topic = topic
        self._receive = receive

    def take(self, message: TopicMessage) -> bool:
        return self._receive(message)
