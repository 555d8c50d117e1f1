"""The last message of a topic is kept for who subscribes later, within bounds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.connections import FakeConnection
from tests.topics.test_registry import PATTERN, fits
from twisted_net.errors import TooManyRetained
from twisted_net.net.memory_ledger import MemoryLedger
from twisted_net.topics.mailbox import Mailbox
from twisted_net.topics.messages import TopicMessage
from twisted_net.topics.registry import Topics
from twisted_net.topics.retained import RetainedMessages
from twisted_net.topics.retained_delivery import AT_ONCE
from twisted_net.topics.settings import TopicSettings

TOPIC = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join)


class RetainedMessagesTests(SynchronousTestCase):
    """:class:`RetainedMessages`."""

    def retained(self, limit: int = 100, max_bytes: int = 100_000) -> RetainedMessages:
        """Make a store."""
        self.memory = MemoryLedger()
        return RetainedMessages((), limit, max_bytes, self.memory)

    @given(st.lists(st.tuples(TOPIC, st.booleans()), max_size=20), PATTERN)
    def test_like_a_list(self, changes: list[tuple[str, bool]], pattern: str) -> None:
        """What matches a pattern is what a search of a dictionary finds; no memory is left over."""
        store, plain = self.retained(), {}
        for topic, keep in changes:
            if keep:
                plain[topic] = TopicMessage(topic, "x")
                self.assertTrue(store.keep(topic.split("."), plain[topic]))
            else:
                plain.pop(topic, None)
                store.drop(topic.split("."))
        self.assertEqual(len(store), len(plain))
        found = [message for message in store.matching(pattern.split(".")) if message is not None]
        wanted = [message for topic, message in plain.items() if fits(pattern, topic)]
        self.assertEqual({id(one) for one in found}, {id(one) for one in wanted})
        self.assertEqual(len(found), len(wanted))
        for topic in plain:
            self.assertIs(store.get(topic.split(".")), plain[topic])
            store.drop(topic.split("."))
        self.assertEqual((len(store), self.memory.total), (0, 0))

    def test_count(self) -> None:
        """At the limit no topic gives way to a new one, and each can be replaced."""
        store = self.retained(limit=2)
        for topic in ("a", "b"):
            store.keep([topic], TopicMessage(topic, "1"))
        self.assertFalse(store.keep(["c"], TopicMessage("c", "1")))
        self.assertTrue(store.keep(["a"], TopicMessage("a", "2")))
        self.assertEqual((len(store), store.refused), (2, 1))
        self.assertRaises(TooManyRetained, store.check_room, ["c"], 1)

    def test_bytes(self) -> None:
        """A message that does not fit is not retained, nor is the one that it replaces."""
        store = self.retained(max_bytes=2000)
        store.keep(["a"], TopicMessage("a", "1"))
        self.assertFalse(store.keep(["a"], TopicMessage("a", "x" * 2000)))
        self.assertIsNone(store.get(["a"]))
        self.assertEqual(self.memory.total, 0)

    def test_bounded_walk(self) -> None:
        """Between two values of a search few topics are looked at, though none matches."""
        store = self.retained(limit=1000, max_bytes=10_000_000)
        for i in range(500):
            store.keep([str(i), "a"], TopicMessage(f"{i}.a", "1"))
        self.assertEqual([one for one in store.matching(["*", "b"]) if one is not None], [])
        self.assertGreaterEqual(len(list(store.matching(["*", "b"]))), 500)


class Steps:
    """A pacing whose steps the test takes."""

    def __init__(self) -> None:
        self.works: list[Any] = []  # Any: iterators

    def __call__(self, work: Iterable[float]) -> Deferred[Any]:
        """Keep work."""
        self.works.append(iter(work))
        return Deferred()

    def step(self) -> bool:
        """Take one step of the first work; return whether there was one."""
        while self.works:
            try:
                next(self.works[0])
            except StopIteration:
                del self.works[0]
            else:
                return True
        return False


class DeliveryTests(SynchronousTestCase):
    """New subscribers get what is retained."""

    def setUp(self) -> None:
        self.topics = Topics(TopicSettings(retain=("state.>",), max_queue=1 << 24))
        self.steps = Steps()

    def subscribed(self, *patterns: str) -> Mailbox:
        """Subscribe a client."""
        mailbox = Mailbox(self.topics, FakeConnection())
        for pattern in patterns:
            mailbox.subscribe(pattern)
        return mailbox

    def heard(self, mailbox: Mailbox) -> list[tuple[object, bool]]:
        """Return the messages that wait, each with whether it was retained."""
        found = b""
        while chunk := mailbox.next_chunk():
            found += chunk
        events = [json.loads(line) for line in found.splitlines()]
        return [(event["message"], event.get("retained", False)) for event in events]

    def test_by_setting(self) -> None:
        """Messages of topics that the settings name are retained, the last one of each."""
        for topic, text in (("state.a", "1"), ("state.a", "2"), ("other", "3")):
            self.topics.publish(topic, text)
        self.assertEqual(self.heard(self.subscribed(">")), [("2", True)])
        self.topics.publish("state.a", "3", retain=False)
        self.assertEqual(self.heard(self.subscribed("state.*")), [("2", True)])

    def test_by_publish(self) -> None:
        """Any other message is retained if it is published so; with structure, as it is."""
        self.topics.publish("a", {"on": True}, retain=True)
        self.assertEqual(self.heard(self.subscribed("a")), [({"on": True}, True)])
        last = self.topics.last("a")
        assert last is not None
        self.assertEqual(last.value, {"on": True})

    def test_cleared(self) -> None:
        """An empty text retains none; who is subscribed gets it."""
        self.topics.publish("a", "1", retain=True)
        mailbox = self.subscribed("a")
        self.topics.publish("a", "", retain=True)
        self.assertEqual(self.heard(mailbox), [("1", True), ("", False)])
        self.assertEqual((self.heard(self.subscribed("a")), self.topics.last("a")), ([], None))

    def test_once(self) -> None:
        """To subscribe again gives nothing again."""
        self.topics.publish("a", "1", retain=True)
        self.assertEqual(self.heard(self.subscribed("a", "a")), [("1", True)])

    def test_live(self) -> None:
        """Who is subscribed gets a message that is retained as any other."""
        mailbox = self.subscribed("a")
        self.topics.publish("a", "1", retain=True)
        self.assertEqual(self.heard(mailbox), [("1", False)])

    def test_no_room(self) -> None:
        """What is to be retained and cannot be is refused, and sent to nobody."""
        self.topics = Topics(TopicSettings(max_retained=0, retain=("b",)))
        mailbox = self.subscribed(">")
        self.assertRaises(TooManyRetained, self.topics.publish, "a", "1", retain=True)
        self.assertEqual((self.heard(mailbox), self.topics.published), ([], 0))
        self.topics.publish("b", "1")
        self.assertEqual(self.heard(mailbox), [("1", False)])
        self.assertEqual(self.topics.figures()["not_retained"], 1)

    def test_many(self) -> None:
        """Many come in steps, and in turns between subscribers; newer ones are not sent twice."""
        self.topics.use_pacing(self.steps)
        for i in range(3 * AT_ONCE):
            self.topics.publish(f"state.{i}", str(i))
        first, second = self.subscribed("state.*"), self.subscribed("state.*")
        counts = [(len(self.heard(first)), len(self.heard(second)))]
        self.topics.publish(f"state.{3 * AT_ONCE - 1}", "new")
        while self.steps.step():
            counts.append((len(self.heard(first)), len(self.heard(second))))
        self.assertEqual(sum(one for one, _ in counts), 3 * AT_ONCE)
        self.assertEqual(sum(other for _, other in counts), 3 * AT_ONCE)
        self.assertLessEqual(max(max(pair) for pair in counts), AT_ONCE)

    def test_left(self) -> None:
        """Who unsubscribes or leaves gets no more, and nothing is kept for it."""
        self.topics.use_pacing(self.steps)
        for i in range(3 * AT_ONCE):
            self.topics.publish(f"state.{i}", str(i))
        mailbox = self.subscribed("state.*")
        for _ in range(1000):
            self.topics.unsubscribe(mailbox, "state.*")
            mailbox.subscribe("state.*")
        self.assertEqual(len(self.topics._giving), 1)
        mailbox.close()
        while self.steps.step():
            pass
        self.assertEqual(len(self.topics._giving), 0)
        self.assertEqual(self.heard(mailbox), [])

    def test_settings(self) -> None:
        """A pattern that is none is a mistake in the settings."""
        for pattern in ("", "a..b", ">.a", "a b", "a*"):
            self.assertRaises(ValueError, TopicSettings, retain=(pattern,))
