"""Topics reach whoever listens, once; who reads too slowly loses by rule, and is counted."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Iterable, Iterator
from itertools import product
from typing import ClassVar
from unittest.mock import patch

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

import twisted_net.topics.registry as topics_module
from tests.complexity.work import counted
from twisted_net.errors import BadTopic, TooManySubscriptions
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.topics.mailbox import CHUNK, Mailbox
from twisted_net.topics.messages import TopicMessage
from twisted_net.topics.registry import SUBSCRIPTION_BYTES, Topics
from twisted_net.topics.settings import TopicSettings, WhenSlow
from twisted_net.topics.tree import LEVEL_BYTES


class Listener:
    """A subscriber that keeps what it gets, or takes nothing."""

    def __init__(self, taking: bool = True) -> None:
        self.got: list[TopicMessage] = []
        self.taking = taking

    def take(self, message: TopicMessage) -> bool:
        """Take a message."""
        if self.taking:
            self.got.append(message)
        return self.taking

    def topics(self) -> list[str]:
        """Give the topics of what came, and forget it."""
        got, self.got = self.got, []
        return [message.topic for message in got]


class MatchingTests(SynchronousTestCase):
    """:class:`Topics` finds those who listen to a topic."""

    CASES: ClassVar = {
        "a": {"a": True, "b": False, "a.b": False, "A": False},
        "a.b": {"a.b": True, "a": False, "a.b.c": False, "b.a": False},
        "*": {"a": True, "a.b": False},
        "a.*": {"a.b": True, "a": False, "a.b.c": False, "b.b": False},
        "*.b": {"a.b": True, "b": False, "a.c": False},
        "a.*.c": {"a.b.c": True, "a.c": False, "a.b.d": False},
        ">": {"a": True, "a.b.c": True},
        "a.>": {"a.b": True, "a.b.c": True, "a": False, "b.a": False},
        "*.>": {"a.b": True, "a": False},
        "ü.日": {"ü.日": True, "u.日": False},
    }

    def test_patterns(self) -> None:
        """A pattern fits the topics that its levels fit, one by one, and no others."""
        for pattern, expected in self.CASES.items():
            for topic, fits in expected.items():
                with self.subTest(pattern=pattern, topic=topic):
                    topics, listener = Topics(), Listener()
                    topics.subscribe(listener, pattern)
                    self.assertEqual(topics.publish(topic, "hi"), int(fits))
                    self.assertEqual(listener.topics(), [topic] * fits)

    def test_once(self) -> None:
        """A subscriber of several patterns that fit gets the message once."""
        topics, listener, other = Topics(), Listener(), Listener()
        for pattern in ("a.b", "a.*", "*.b", ">", "a.>"):
            topics.subscribe(listener, pattern)
        topics.subscribe(other, "a.b")
        self.assertEqual(topics.publish("a.b", "hi"), 2)
        self.assertEqual((listener.topics(), other.topics()), (["a.b"], ["a.b"]))

    def test_one_encoding(self) -> None:
        """All receivers share one encoding of a message."""
        topics = Topics()
        listeners = [Listener() for _ in range(3)]
        for listener in listeners:
            topics.subscribe(listener, "a")
        topics.publish("a", 'say "hü"')
        first, second, third = (listener.got[0].line for listener in listeners)
        self.assertIs(first, second)
        self.assertIs(first, third)
        self.assertEqual(first[-1:], b"\n")
        self.assertEqual(
            json.loads(first), {"event": "message", "topic": "a", "message": 'say "hü"', "id": 1}
        )

    def test_refusing_subscriber(self) -> None:
        """Whoever does not take a message is not counted, and keeps nobody else from it."""
        topics, listener = Topics(), Listener()
        topics.subscribe(Listener(taking=False), "a")
        topics.subscribe(listener, "a")
        self.assertEqual(topics.publish("a", "hi"), 1)
        self.assertEqual(listener.topics(), ["a"])
        self.assertEqual((topics.published, topics.delivered), (1, 1))

    def test_changes_meanwhile(self) -> None:
        """Whoever gets a message may unsubscribe others; this message still reaches them."""
        topics, second = Topics(), Listener()

        class Leaver(Listener):
            def take(self, message: TopicMessage) -> bool:
                topics.unsubscribe_all(self)
                topics.unsubscribe_all(second)
                return super().take(message)

        topics.subscribe(Leaver(), "a")
        topics.subscribe(second, "a")
        self.assertEqual(topics.publish("a", "hi"), 2)
        self.assertEqual(topics.publish("a", "hi"), 0)


class Hashed(Listener):
    """A subscriber whose hash is computed by a call that can be counted."""

    def __hash__(self) -> int:
        return id(self)


class WorkTests(SynchronousTestCase):
    """Subscribers may have hundreds of patterns that fit, and be many."""

    PATTERNS: ClassVar = [
        ".".join(levels)
        for depth in range(1, 8)
        for levels in product(("a", "*"), repeat=depth - 1)
        for levels in [(*levels, ">")]
    ]

    def work(self, topics: Topics) -> int:
        """Count the calls for one message."""
        return counted(lambda: topics.publish("a.a.a.a.a.a.a.a", "hi")).calls

    def crowd(self, topics: Topics) -> list[Hashed]:
        """Subscribe twenty to all the patterns."""
        crowd = [Hashed() for _ in range(20)]
        for each in crowd:
            for pattern in self.PATTERNS:
                topics.subscribe(each, pattern)
        return crowd

    def test_many_patterns(self) -> None:
        """What a message costs depends on who gets it, not on how many of their patterns fit."""
        topics = Topics()
        self.crowd(topics)
        self.assertEqual(len(topics), 20 * 127)
        self.assertLess(self.work(topics), 1000)

    def test_many_that_ended(self) -> None:
        """Subscriptions that have ended, and are still there, make no message cost more."""
        topics = Topics()
        topics.use_pacing(lambda steps: Deferred())
        crowd = self.crowd(topics)
        for each in crowd:
            topics.unsubscribe_all(each)
        topics.subscribe(crowd[3], ">")
        self.assertLess(self.work(topics), 1000)
        self.assertEqual([len(each.got) for each in crowd], [0] * 3 + [1] + [0] * 16)


class SubscribingTests(SynchronousTestCase):
    """Subscriptions are kept once, in bounds, and leave nothing when they go."""

    def test_twice(self) -> None:
        """To subscribe twice is as once; to unsubscribe is then enough once."""
        topics, listener = Topics(), Listener()
        self.assertEqual(topics.subscribe(listener, "a"), 1)
        self.assertEqual(topics.subscribe(listener, "a"), 1)
        self.assertEqual(len(topics), 1)
        self.assertTrue(topics.unsubscribe(listener, "a"))
        self.assertFalse(topics.unsubscribe(listener, "a"))
        self.assertEqual(topics.publish("a", ""), 0)
        self.assertEqual(len(topics), 0)

    def test_nothing_left(self) -> None:
        """The tree is empty again when all have gone, in whatever order."""
        topics, listeners = Topics(), [Listener(), Listener()]
        patterns = ["a", "a.b", "a.b.c", "a.*", "*.b.>", ">"]
        for listener in listeners:
            for pattern in patterns:
                topics.subscribe(listener, pattern)
        self.assertEqual(topics.patterns(listeners[0]), patterns)
        for pattern in ("a.b", "a", "*.b.>"):
            topics.unsubscribe(listeners[0], pattern)
        self.assertEqual(topics.unsubscribe_all(listeners[0]), 3)
        self.assertEqual(topics.unsubscribe_all(listeners[0]), 0)
        self.assertEqual(topics.unsubscribe_all(listeners[1]), 6)
        self.assertEqual((len(topics), topics._root.children, topics._patterns), (0, {}, {}))

    def test_limit_per_client(self) -> None:
        """One subscription more than the limit is refused, and the others hold."""
        topics = Topics(TopicSettings(max_subscriptions=2))
        listener = Listener()
        topics.subscribe(listener, "a")
        topics.subscribe(listener, "b")
        self.assertEqual(topics.subscribe(listener, "a"), 2)
        error = self.assertRaises(TooManySubscriptions, topics.subscribe, listener, "c")
        self.assertEqual(error.details(), {"limit": 2, "scope": "client"})
        topics.unsubscribe(listener, "a")
        self.assertEqual(topics.subscribe(listener, "c"), 2)

    def test_limit_in_all(self) -> None:
        """The limit of all clients together holds too."""
        topics = Topics(TopicSettings(max_subscriptions_in_all=2))
        topics.subscribe(Listener(), "a")
        topics.subscribe(Listener(), "a")
        late = Listener()
        error = self.assertRaises(TooManySubscriptions, topics.subscribe, late, "a")
        self.assertEqual(error.details(), {"limit": 2, "scope": "server"})
        self.assertEqual((topics.count(late), topics.patterns(late)), (0, []))

    def test_limit_of_bytes(self) -> None:
        """Subscriptions are counted in bytes, and refused where they have too many."""
        limit = 1_048_576
        topics = Topics(
            TopicSettings(max_subscriptions=limit, max_subscription_bytes=limit, max_levels=32)
        )
        listener, patterns = Listener(), (".".join([f"a{i}"] * 32) for i in range(limit))
        while topics.kept < limit:
            topics.subscribe(listener, next(patterns))
        self.assertGreater(topics.kept, 32 * LEVEL_BYTES * topics.count(listener))
        for each in (listener, Listener()):
            error = self.assertRaises(TooManySubscriptions, topics.subscribe, each, "b")
            self.assertEqual(error.details(), {"limit": limit, "scope": "server"})
        self.assertTrue(str(error).endswith(f"{limit} bytes"))
        topics.unsubscribe(listener, topics.patterns(listener)[0])
        topics.subscribe(Listener(), "b")

    def test_memory_of_all(self) -> None:
        """Where all memory is used up, the error has that limit, and not one of subscriptions."""
        memory = MemoryLedger(1000)
        topics = Topics(memory=memory)
        others: MemoryAccount[str] = memory.account("others")
        others.set("x", 1000)
        error = self.assertRaises(TooManySubscriptions, topics.subscribe, Listener(), "a")
        self.assertTrue(str(error).endswith("is 1000 bytes of all memory"), str(error))
        self.assertEqual(error.limit, 1000)

    def test_kept(self) -> None:
        """A level that several patterns have is counted once, and until the last one has ended."""
        topics = Topics()
        first, second = Listener(), Listener()
        alone = SUBSCRIPTION_BYTES + len("shop.a") + 2 * LEVEL_BYTES + len("shop") + len("a")
        topics.subscribe(first, "shop.a")
        self.assertEqual(topics.kept, alone)
        topics.subscribe(first, "shop.a")
        self.assertEqual(topics.kept, alone)
        topics.subscribe(second, "shop.a")
        self.assertEqual(topics.kept, alone + SUBSCRIPTION_BYTES + len("shop.a"))
        topics.unsubscribe(first, "shop.a")
        self.assertEqual(topics.kept, alone)
        topics.unsubscribe_all(second)
        self.assertEqual(topics.kept, 0)

    def test_flood(self) -> None:
        """What is refused leaves nothing, however often it is tried."""
        topics = Topics(TopicSettings(max_subscriptions=10))
        listener = Listener()
        refused = 0
        for i in range(10_000):
            try:
                topics.subscribe(listener, f"flood.{i}")
            except TooManySubscriptions:
                refused += 1
        self.assertEqual((refused, len(topics)), (9_990, 10))
        self.assertEqual(topics.figures()["subscriptions"], 10)
        self.assertEqual(len(topics._root.children["flood"].children), 10)

    def test_bad_topics(self) -> None:
        """What is no topic is refused, with the reason."""
        topics = Topics(TopicSettings(max_topic=8, max_levels=3))
        for topic, reason in {
            "": "empty level",
            ".a": "empty level",
            "a..b": "empty level",
            "a b": "white space",
            "a\u2003b": "white space",
            "a\x00b": "white space",
            "abcdefghi": "8 bytes",
            "üüüü€": "8 bytes",
            "a.b.c.d": "3 levels",
        }.items():
            with self.subTest(topic=topic):
                for call in (
                    lambda: topics.publish(topic, ""),  # noqa: B023  # called in this round
                    lambda: topics.subscribe(Listener(), topic),  # noqa: B023  # as above
                ):
                    self.assertIn(reason, str(self.assertRaises(BadTopic, call)))
        for pattern in ("a.>.b", ">.a", "a*", "a.b>", "**"):
            with self.subTest(pattern=pattern):
                self.assertRaises(BadTopic, topics.subscribe, Listener(), pattern)
        for topic in ("*", "a.*", "a.>", "a*"):
            with self.subTest(topic=topic):
                self.assertRaises(BadTopic, topics.publish, topic, "")
        self.assertEqual(topics.published, 0)
        self.assertEqual(topics.subscribe(Listener(), "abcdefgh"), 1)
        self.assertEqual(topics.subscribe(Listener(), "a.b.c"), 1)


class Peer:
    """The connection of a mailbox: counts what it is told."""

    def __init__(self) -> None:
        self.woken = 0
        self.told = 0

    def wake(self) -> None:
        """Count."""
        self.woken += 1

    def overflow(self) -> None:
        """Count."""
        self.woken += 1

    def subscribed(self) -> None:
        """Count."""
        self.told += 1


class MailboxTests(SynchronousTestCase):
    """:class:`Mailbox` keeps what waits in bounds, by its rule."""

    def make(self, when_slow: WhenSlow) -> tuple[Topics, Peer, Mailbox]:
        """Make a mailbox that takes 4096 bytes, and listens to everything."""
        topics = Topics(TopicSettings(max_queue=4096, when_slow=when_slow))
        peer = Peer()
        mailbox = Mailbox(topics, peer)
        mailbox.subscribe(">")
        return topics, peer, mailbox

    def fill(self, topics: Topics, count: int) -> list[int]:
        """Publish messages of 1000 bytes, numbered; give by how many each was taken."""
        return [topics.publish("a", f"{i}".ljust(1000 - 52)) for i in range(count)]

    def numbers(self, mailbox: Mailbox) -> list[int]:
        """Take all out, and give the numbers."""
        taken = mailbox.next_chunk()
        return [int(json.loads(line)["message"]) for line in taken.splitlines()]

    def test_wakes_once(self) -> None:
        """The peer is woken by the first message, and after it took them by the next."""
        topics, peer, mailbox = self.make("drop_oldest")
        self.assertEqual(peer.told, 1)
        self.fill(topics, 3)
        self.assertEqual(peer.woken, 1)
        self.assertEqual(mailbox.waiting, 3000)
        self.assertEqual(self.numbers(mailbox), [0, 1, 2])
        self.assertEqual((mailbox.waiting, mailbox.next_chunk()), (0, b""))
        self.fill(topics, 1)
        self.assertEqual(peer.woken, 2)

    def test_drop_oldest(self) -> None:
        """The oldest make room for the newest."""
        topics, _, mailbox = self.make("drop_oldest")
        self.assertEqual(self.fill(topics, 6), [1] * 6)
        self.assertEqual((mailbox.dropped, topics.dropped_oldest), (2, 2))
        self.assertEqual(self.numbers(mailbox), [2, 3, 4, 5])

    def test_drop_newest(self) -> None:
        """What does not fit is not taken."""
        topics, peer, mailbox = self.make("drop_newest")
        self.assertEqual(self.fill(topics, 6), [1, 1, 1, 1, 0, 0])
        self.assertEqual((mailbox.dropped, topics.dropped_newest, peer.woken), (2, 2, 1))
        self.assertEqual(self.numbers(mailbox), [0, 1, 2, 3])

    def test_disconnect(self) -> None:
        """The peer is woken once to disconnect."""
        topics, peer, mailbox = self.make("disconnect")
        self.assertEqual(self.fill(topics, 6), [1, 1, 1, 1, 0, 0])
        self.assertEqual((mailbox.overflowed, peer.woken, topics.overflows), (True, 2, 1))
        self.assertEqual((mailbox.close(), mailbox.close(), topics.lost), (4, 0, 4))
        self.assertEqual((mailbox.dropped, mailbox.waiting, len(topics)), (6, 0, 0))

    def test_larger_than_all(self) -> None:
        """A message for which there is never room pushes nothing out."""
        topics, _, mailbox = self.make("drop_oldest")
        self.fill(topics, 1)
        self.assertEqual(topics.publish("a", "x" * 5000), 0)
        self.assertEqual(topics.publish("a", "y" * (3096 - 52)), 1)
        self.assertEqual(mailbox.waiting, 4096)
        self.assertEqual((mailbox.dropped, topics.dropped_oldest), (1, 0))

    def test_chunks(self) -> None:
        """What waits comes out in chunks; a longer message comes alone, as the bytes it is."""
        topics, peer = Topics(), Peer()
        mailbox = Mailbox(topics, peer)
        lines = [TopicMessage("a", size * "x") for size in (8000, 8000, 8000, CHUNK, 10)]
        for message in lines:
            self.assertTrue(mailbox.take(message))
        chunks = [mailbox.next_chunk() for _ in range(4)]
        self.assertEqual(chunks[0], lines[0].line + lines[1].line)
        self.assertEqual(chunks[1], lines[2].line)
        self.assertIs(chunks[2], lines[3].line)
        self.assertIs(chunks[3], lines[4].line)
        self.assertEqual((mailbox.waiting, peer.woken), (0, 1))


LEVEL = st.sampled_from(["a", "b", "c"])
PATTERN = st.builds(
    lambda levels, rest: ".".join([*levels, *rest]),
    st.lists(LEVEL | st.just("*"), max_size=3),
    st.sampled_from([[], [">"]]),
).filter(bool)


def fits(pattern: str, topic: str) -> bool:
    """Say whether a pattern fits a topic, level by level, as a person would check it."""
    wanted, given = pattern.split("."), topic.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(
        want in ("*", level) for want, level in zip(wanted, given, strict=True)
    )


class TopicMachine(RuleBasedStateMachine):
    """Subscriptions behave as a list of (subscriber, pattern) that is searched through would."""

    LIMIT = 6

    def __init__(self) -> None:
        super().__init__()
        self.topics = Topics(
            TopicSettings(max_subscriptions=self.LIMIT, max_subscriptions_in_all=2 * self.LIMIT)
        )
        self.listeners = [Listener() for _ in range(4)]
        self.model: list[tuple[int, str]] = []

    @rule(who=st.integers(0, 3), pattern=PATTERN)
    def subscribe(self, who: int, pattern: str) -> None:
        """Subscribe, or be refused at a limit."""
        own = sum(w == who for w, _ in self.model)
        new = (who, pattern) not in self.model
        if new and (own >= self.LIMIT or len(self.model) >= 2 * self.LIMIT):
            try:
                self.topics.subscribe(self.listeners[who], pattern)
            except TooManySubscriptions:
                return
            raise AssertionError("it was to be refused")
        assert self.topics.subscribe(self.listeners[who], pattern) == own + new
        if new:
            self.model.append((who, pattern))

    @rule(who=st.integers(0, 3), pattern=PATTERN)
    def unsubscribe(self, who: int, pattern: str) -> None:
        """Unsubscribe, from what is perhaps not there."""
        was = (who, pattern) in self.model
        assert self.topics.unsubscribe(self.listeners[who], pattern) is was
        if was:
            self.model.remove((who, pattern))

    @rule(who=st.integers(0, 3))
    def forget(self, who: int) -> None:
        """Go away."""
        own = sum(w == who for w, _ in self.model)
        assert self.topics.unsubscribe_all(self.listeners[who]) == own
        self.model = [(w, pattern) for w, pattern in self.model if w != who]

    @rule(topic=st.lists(LEVEL, min_size=1, max_size=4).map(".".join))
    def publish(self, topic: str) -> None:
        """Publish: those get it, once, who listen."""
        expected = {who for who, pattern in self.model if fits(pattern, topic)}
        assert self.topics.publish(topic, "hi") == len(expected)
        got = {who: self.listeners[who].topics() for who in range(4)}
        assert got == {who: [topic] * (who in expected) for who in range(4)}

    @invariant()
    def counts(self) -> None:
        """The figures are those of the model."""
        assert len(self.topics) == len(self.model)
        for who, listener in enumerate(self.listeners):
            assert self.topics.patterns(listener) == [p for w, p in self.model if w == who]
        if not self.model:
            assert not self.topics._root.children


TopicMachineTests = TopicMachine.TestCase
TopicMachineTests.settings = hypothesis_settings(max_examples=50)


class PacedTopicMachine(TopicMachine):
    """What is removed later behaves the same meanwhile, but for the bound of all clients."""

    LIMIT = 30

    def __init__(self) -> None:
        super().__init__()
        # So small that most of what ends is removed later.
        self.patches = [
            patch.object(topics_module, name, value)
            for name, value in (("REMOVED_AT_ONCE", 1), ("FEW", 0))
        ]
        for each in self.patches:
            each.start()
        self.steps: Iterator[int] = iter(())
        self.topics.use_pacing(self.pace)

    def pace(self, steps: Iterable[int]) -> Awaitable[list[int]]:
        """Do the first step now, and the others as the rule says."""
        self.steps = iter(steps)
        next(self.steps)
        return Deferred()

    @rule()
    def step(self) -> None:
        """Remove some more."""
        next(self.steps, None)

    def teardown(self) -> None:
        """In the end nothing is left."""
        for who in range(4):
            self.topics.unsubscribe_all(self.listeners[who])
        for _ in self.steps:
            pass
        assert not self.topics._root.children
        assert not self.topics._ended
        assert self.topics._ended_count == self.topics.kept == 0
        for each in self.patches:
            each.stop()

    @invariant()
    def counts(self) -> None:
        """The figures are those of the model; the tree may have more."""
        assert len(self.topics) == len(self.model)
        for who, listener in enumerate(self.listeners):
            assert self.topics.patterns(listener) == [p for w, p in self.model if w == who]


PacedTopicMachineTests = PacedTopicMachine.TestCase
PacedTopicMachineTests.settings = hypothesis_settings(max_examples=50)
