"""Messages have a number, a time, a sender, and structure."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.topics.messages import JsonText, TopicMessage, structure_of
from twisted_net.topics.registry import Topics


class Taken:
    """A subscriber that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[TopicMessage] = []

    def take(self, message: TopicMessage) -> bool:
        """Keep a message."""
        self.got.append(message)
        return True


class StructureOfTests(SynchronousTestCase):
    """:func:`structure_of` finds JSON objects and arrays in texts."""

    def test_structures(self) -> None:
        """They are passed on as they came, on one line."""
        found = structure_of('{"a":\n [1,\r\n 2]}')
        assert isinstance(found, JsonText)
        self.assertEqual((found.value, found.raw), ({"a": [1, 2]}, b'{"a":  [1,   2]}'))

    def test_texts(self) -> None:
        """All else is the text that it was."""
        for text in ("", "1", "null", '"a"', "{", "[1,]", " {}", "{}x", "{'a': 1}"):
            self.assertEqual(structure_of(text), text)


class TopicMessageTests(SynchronousTestCase):
    """:class:`TopicMessage`."""

    def test_text_of_structure(self) -> None:
        """As a text a structure is its JSON, as it came or was encoded."""
        found = structure_of('{"a": 1, "b": "]"}')
        self.assertEqual(TopicMessage("a", found).text, '{"a": 1, "b": "]"}')
        self.assertEqual(TopicMessage("a", {"a": [1]}).text, '{"a":[1]}')
        self.assertEqual(TopicMessage("a", "x").text, "x")

    def test_wrong(self) -> None:
        """What JSON does not have is refused where it is published."""
        self.assertRaises(TypeError, TopicMessage, "a", object())


class PublishTests(SynchronousTestCase):
    """``Topics.publish``."""

    def setUp(self) -> None:
        self.now = 1000.0
        self.topics = Topics()
        self.topics.use_wall(lambda: self.now, lambda now: f"at {now:g}")
        self.taken = Taken()
        self.topics.subscribe(self.taken, "a")

    def published(self, value: object, sender: str | None = None) -> TopicMessage:
        """Publish a value, and return the message that the subscriber got."""
        self.topics.publish("a", value, sender=sender)
        return self.taken.got[-1]

    def test_members(self) -> None:
        """A subscriber of your own gets the value as it is, and all that is known of it."""
        value = {"t": 21.5}
        message = self.published(value, "ann")
        self.assertIs(message.value, value)
        self.assertEqual((message.sender, message.time), ("ann", "at 1000"))
        self.assertEqual(
            json.loads(message.line),
            {
                "event": "message",
                "topic": "a",
                "message": {"t": 21.5},
                "id": 1_000_000_000,
                "time": "at 1000",
                "sender": "ann",
            },
        )

    def test_increasing(self) -> None:
        """Numbers increase within a microsecond, and when the wall clock is set back."""
        first = self.published("1").id
        second = self.published("2").id
        self.now -= 3600
        third = self.published("3").id
        self.now += 7200
        fourth = self.published("4").id
        self.assertEqual((second, third), (first + 1, first + 2))
        self.assertEqual(fourth, 4_600_000_000)

    def test_first_clock(self) -> None:
        """The clock is that of the first server."""
        self.topics.use_wall(lambda: 5.0, str)
        self.assertEqual(self.published("x").time, "at 1000")
