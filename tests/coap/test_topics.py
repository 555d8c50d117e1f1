"""Tests for :mod:`twisted_net.coap.topics`, and for topics as resources of a server."""

from __future__ import annotations

import json
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.trial.unittest import SynchronousTestCase

from tests.coap.coap_driver import ACCEPT_JSON, LOCAL, OBSERVE, OTHER, REMOTE, Driver
from twisted_net.auth.users import Permissions, User
from twisted_net.coap.codec import CoapMessage, Code, Option
from twisted_net.coap.server import CoapServer
from twisted_net.coap.settings import CoapLimits
from twisted_net.coap.topics import MAX_LISTED, TopicResources, text_of, topic_of
from twisted_net.commands.registry import Command, Commands
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import AuthRequired, BadTopic, ControlCharacter, NotUTF8, TooBusy
from twisted_net.sessions import Session
from twisted_net.topics import Topics, TopicSettings


class PathTests(SynchronousTestCase):
    """:func:`topic_of` and :func:`text_of`."""

    def test_paths(self) -> None:
        """A topic is the second of two segments; its case counts."""
        for path, topic in (
            (["topics", "Shop.orders"], "Shop.orders"),
            (["Topics", "a"], "a"),
            (["topics", ""], ""),
            (["topics"], None),
            (["topics", "a", "b"], None),
            (["echo", "a"], None),
            ([], None),
        ):
            self.assertEqual(topic_of(path), topic)

    def test_texts(self) -> None:
        """A message is the payload as it stands; bytes that are no text are refused."""
        self.assertEqual(text_of(b' a  "b\n'), ' a  "b\n')
        self.assertEqual(text_of(b"a\r\nb\tc"), "a\r\nb\tc")
        self.assertRaises(NotUTF8, text_of, b"\xff")
        for payload in (b"a\0", b"\x1b[31m", b"\x7f", "\u0085".encode(), "\u009b".encode()):
            self.assertRaises(ControlCharacter, text_of, payload)


class TopicResourcesTests(SynchronousTestCase):
    """:class:`TopicResources`."""

    def setUp(self) -> None:
        self.topics = Topics(TopicSettings())
        self.observed: set[str] = set()
        self.changes: list[str] = []
        self.resources = TopicResources(
            self.topics, 3, 400, self.observed.__contains__, self.changes.append
        )

    def state(self, topic: str) -> bytes:
        """Return the text that is known of a topic."""
        return self.resources.response(topic, None).payload

    def test_followed(self) -> None:
        """What is published to a followed topic is kept, and told; before, it is not."""
        self.topics.publish("a", "early")
        self.resources.subscribe("a")
        self.resources.subscribe("a")
        self.assertEqual((self.state("a"), len(self.resources)), (b"", 1))
        self.assertEqual(self.topics.publish("a", "one"), 0)
        self.observed.add("topics/a")
        self.assertEqual(self.topics.publish("a", "two"), 1)
        self.assertEqual(self.state("a"), b"two")
        self.assertEqual(self.changes, ["topics/a", "topics/a"])

    def test_json(self) -> None:
        """As JSON the state is the event that other subscribers get."""
        self.resources.subscribe("a")
        self.assertEqual(self.resources.response("a", 50).payload, b"{}")
        self.topics.publish("a", "x")
        event = json.loads(self.resources.response("a", 50).payload)
        self.assertEqual(event, {"event": "message", "topic": "a", "message": "x", "id": 1})

    def test_most_topics(self) -> None:
        """Over the limit, the least recently used topic that is not observed is unsubscribed."""
        for topic in "abc":
            self.resources.subscribe(topic)
            self.topics.publish(topic, topic)
        self.observed.add("topics/a")
        self.resources.subscribe("d")
        self.assertEqual((self.state("a"), self.state("b"), self.state("c")), (b"a", b"", b"c"))
        self.assertEqual((len(self.resources), len(self.topics)), (3, 3))
        self.observed.update({"topics/c", "topics/d"})
        self.assertRaises(TooBusy, self.resources.subscribe, "e")

    def test_most_bytes(self) -> None:
        """Over the limit, the oldest messages are forgotten; one alone may be over it."""
        for topic in "abc":
            self.resources.subscribe(topic)
            self.topics.publish(topic, "x" * 100)
        self.assertEqual([len(self.state(topic)) for topic in "abc"], [0, 100, 100])
        self.assertTrue(250 < self.resources.kept.total <= 400)
        self.topics.publish("b", "y" * 1000)
        self.assertEqual([len(self.state(topic)) for topic in "abc"], [0, 0, 0])
        self.assertEqual(self.resources.kept.total, 0)

    def test_no_topics(self) -> None:
        """Patterns, and what is no topic, are refused."""
        for topic in ("", "a.*", ">", "a b", "a..b", "x" * 300):
            self.assertRaises(BadTopic, self.resources.subscribe, topic)
            self.assertRaises(BadTopic, self.resources.response, topic, None)

    def test_close(self) -> None:
        """At the end nothing is subscribed to."""
        self.resources.subscribe("a")
        self.topics.publish("a", "x")
        self.resources.close()
        self.assertEqual(
            (len(self.topics), len(self.resources), self.resources.kept.total), (0, 0, 0)
        )


class ServerTopicTests(SynchronousTestCase):
    """``/topics/<topic>`` of a server."""

    def setUp(self) -> None:
        self.start()

    def start(self, limits: CoapLimits | None = None, commands: Commands | None = None) -> None:
        """Make a server."""
        self.driver = Driver(commands or standard_commands(), limits)
        self.topics = self.driver.server.sessions.topics

    def test_listed(self) -> None:
        """The topics that were used last are in /.well-known/core, and can be observed."""
        for topic in ("a.b", "ü"):
            self.driver.ask(Code.POST, f"topics/{topic}", b"x")
        listed = self.driver.ask(Code.GET, ".well-known/core", options=[(15, b"href=/topics/*")])
        self.assertEqual(
            listed.payload,
            b'</topics/%C3%BC>;if="get post";ct="0 50";obs,'
            b'</topics/a.b>;if="get post";ct="0 50";obs',
        )

    def test_many_listed(self) -> None:
        """Of many topics some are listed, as it is done for each request."""
        for number in range(MAX_LISTED + 5):
            self.driver.ask(Code.POST, f"topics/t{number}", b"x")
        listed = self.driver.server._topics.latest()
        self.assertEqual((len(listed), listed[0]), (MAX_LISTED, f"t{MAX_LISTED + 4}"))

    def test_without_commands(self) -> None:
        """A registry without SUBSCRIBE and PUBLISH has topics where the server is told so."""
        self.assertEqual(self.driver.leftovers(), [])
        for topics, code in ((False, Code.NOT_FOUND), (True, Code.CHANGED)):
            self.driver = Driver(Commands(), topics=topics)
            self.assertEqual(self.driver.ask(Code.POST, "topics/a", b"x").code, code)
            got = self.driver.ask(Code.GET, "topics/a", options=[OBSERVE])
            self.assertEqual(got.payload == b"x", topics)
            listed = self.driver.ask(Code.GET, ".well-known/core").payload
            self.assertEqual(b"</topics/a>" in listed, topics)
            self.assertNotIn(b"publish", listed)
            self.assertEqual(self.driver.ask(Code.POST, "publish", b"a x").code, Code.NOT_FOUND)
            if not topics:
                self.assertEqual(self.driver.leftovers(), [])

    def test_not_served(self) -> None:
        """Without the commands of topics, the error names the path, not a command."""
        self.driver = Driver(Commands())
        answer = self.driver.ask(Code.GET, "topics/a.b")
        self.assertEqual(answer.code, Code.NOT_FOUND)
        self.assertEqual(answer.payload, b"no resource /topics/a.b; see /.well-known/core")

    def observe(self, path: str = "topics/a.b") -> CoapMessage:
        """Observe a topic, and give the first answer."""
        return self.driver.ask(Code.GET, path, options=[OBSERVE])

    def test_retained(self) -> None:
        """What was retained before anybody asked over CoAP is the state of its topic."""
        self.topics.publish("a.b", {"rate": 5}, retain=True)
        first = self.observe()
        self.assertEqual(first.payload, b'{"rate":5}')
        for payload, options in (
            (b'a.c {"on": "x  y"}', []),
            (b'{"on": "x  y"}', [(int(Option.URI_QUERY), b"a.c")]),
            (b'["a.c", {"on": "x  y"}]', [(int(Option.CONTENT_FORMAT), b"\x32")]),
        ):
            self.topics.publish("a.c", "", retain=True)
            self.driver.ask(Code.POST, "retain", payload, options=options)
            last = json.loads(self.driver.ask(Code.GET, "topics/a.c").payload)
            self.assertEqual(last, {"on": "x  y"})
        self.driver.ask(Code.POST, "retain", b"a.c")
        self.assertEqual(self.driver.ask(Code.GET, "topics/a.c").payload, b"")

    def test_observed(self) -> None:
        """Who observes a topic gets each message published to it, by whomever."""
        first = self.observe()
        self.assertEqual((first.code, first.payload), (Code.CONTENT, b""))
        self.assertIsNotNone(first.option(Option.OBSERVE))
        self.assertEqual(self.topics.publish("a.b", "one"), 1)
        (told,) = self.driver.answers()
        self.assertEqual((told.payload, told.token), (b"one", first.token))
        self.driver.acknowledge(told)
        answer = self.driver.ask(Code.POST, "topics/a.b", b"two  words", source=OTHER)
        self.assertEqual(answer.code, Code.CHANGED)
        self.assertEqual(
            json.loads(answer.payload), {"command": "PUBLISH", "topic": "a.b", "receivers": 1}
        )
        (told,) = self.driver.answers()
        self.assertEqual(told.payload, b"two  words")

    def test_slow_observer(self) -> None:
        """An observer that has not acknowledged is told the newest message after that (§4.5.2)."""
        self.observe()
        for number in range(5):
            self.topics.publish("a.b", str(number))
        (told,) = self.driver.answers()
        self.assertEqual(told.payload, b"0")
        self.driver.acknowledge(told)
        (told,) = self.driver.answers()
        self.assertEqual(told.payload, b"4")

    def test_read(self) -> None:
        """What was posted can be got, as text or as JSON."""
        self.driver.ask(Code.POST, "topics/a.b", b"21")
        answer = self.driver.ask(Code.GET, "topics/a.b")
        self.assertEqual((answer.code, answer.payload), (Code.CONTENT, b"21"))
        self.assertEqual(answer.option(Option.MAX_AGE), b"")
        answer = self.driver.ask(Code.GET, "topics/a.b", options=[ACCEPT_JSON])
        self.assertEqual(json.loads(answer.payload)["message"], "21")

    def test_ended(self) -> None:
        """After an observation has ended no notification is sent."""
        self.observe()
        self.driver.ask(Code.GET, "topics/a.b", options=[(int(Option.OBSERVE), b"\x01")])
        self.assertEqual(self.topics.publish("a.b", "x"), 0)
        self.assertEqual(self.driver.answers(), [])

    def test_refused(self) -> None:
        """What is no topic, no text or no method is refused."""
        for code, path, payload, expected in (
            (Code.GET, "topics/a.*", b"", Code.BAD_REQUEST),
            (Code.POST, "topics/>", b"x", Code.BAD_REQUEST),
            (Code.POST, "topics/a", b"\xff", Code.BAD_REQUEST),
            (Code.DELETE, "topics/a", b"", Code.METHOD_NOT_ALLOWED),
            (Code.GET, "topics", b"", Code.NOT_FOUND),
        ):
            with self.subTest(path=path, code=code):
                self.assertEqual(self.driver.ask(code, path, payload).code, expected)
        self.assertEqual(len(self.topics), 0)

    def test_no_topics(self) -> None:
        """Where there are no commands for topics there are no such resources."""
        commands = Commands()
        commands.command("PING", safe=True)(lambda: "PONG")
        self.start(commands=commands)
        self.assertEqual(self.driver.ask(Code.GET, "topics/a").code, Code.NOT_FOUND)
        self.assertEqual(self.driver.ask(Code.POST, "topics/a", b"x").code, Code.NOT_FOUND)

    def test_no_room(self) -> None:
        """Where no more topics may be followed one is answered once, and not published to."""
        self.start(CoapLimits(max_topics=1))
        self.observe()
        self.assertIsNone(self.observe("topics/c").option(Option.OBSERVE))
        self.assertEqual(self.driver.server.figures()["observers_refused"], 1)
        self.assertEqual(
            self.driver.ask(Code.POST, "topics/c", b"x").code, Code.SERVICE_UNAVAILABLE
        )

    def test_notification_is_no_message(self) -> None:
        """A notification is neither counted as a message of the observer nor shown to MONITOR."""
        sessions = self.driver.server.sessions
        self.observe()
        shown: list[bytes] = []
        watcher = sessions.open("watcher", 1, shown.append)
        sessions.instruments.monitors.add(watcher, 100)
        self.topics.publish("a.b", "one")
        self.assertEqual(len(self.driver.answers()), 1)
        self.assertEqual((sessions.messages, shown), (1, []))

    def test_unproven(self) -> None:
        """An address that may be forged has to prove itself before it publishes or observes."""
        for code, options in ((Code.POST, []), (Code.GET, [OBSERVE])):
            answer = self.driver.ask(code, "topics/a", b"", options, source=REMOTE)
            self.assertEqual(answer.code, Code.UNAUTHORIZED)
        self.assertEqual((self.topics.published, len(self.topics)), (0, 0))

    def test_not_permitted(self) -> None:
        """Who may not run SUBSCRIBE or PUBLISH may not use their resources."""
        asked = []

        def permit(command: Command, session: Session) -> None:
            asked.append(command.name)
            raise AuthRequired

        clock = cast(IReactorTime, self.driver.clock)
        server = CoapServer(clock, standard_commands(), permit=permit, chance=lambda: 0.5)
        server.transport = self.driver.transport  # type: ignore[assignment]  # a fake
        self.driver.server = server
        self.assertEqual(self.observe("topics/a").code, Code.UNAUTHORIZED)
        self.assertEqual(self.driver.ask(Code.POST, "topics/a").code, Code.UNAUTHORIZED)
        self.assertEqual((asked, server.observers), (["SUBSCRIBE", "PUBLISH"], 0))

    def test_permissions(self) -> None:
        """The topics of a user's permissions hold here too."""
        self.driver.ask(Code.GET, "ping")
        (session,) = self.driver.server.sessions
        session.permissions = Permissions("ada", User(subscribe=("a",), publish=("a",)))
        self.assertEqual(self.driver.ask(Code.GET, "topics/a").code, Code.CONTENT)
        self.assertEqual(self.driver.ask(Code.GET, "topics/b").code, Code.FORBIDDEN)
        self.assertEqual(self.driver.ask(Code.POST, "topics/b", b"x").code, Code.FORBIDDEN)

    def test_end(self) -> None:
        """A server that has stopped follows nothing, and has no timer."""
        self.observe()
        self.driver.acknowledge(self.observe(), source=LOCAL)
        self.assertEqual(self.driver.leftovers(), [])
        self.assertEqual(len(self.topics), 0)
