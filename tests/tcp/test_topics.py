"""Over a connection, messages keep their order, their bounds, and out of each other's way."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Connection, Reactor
from twisted_net.auth.users import Permissions, User
from twisted_net.commands.registry import Request
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import BadTopic, CommandError
from twisted_net.reasons import End
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session
from twisted_net.tcp.connection import CommandProtocol
from twisted_net.tcp.fanout import WRITES_PER_TURN
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory
from twisted_net.topics.registry import FEW, REMOVED_AT_ONCE, Topics
from twisted_net.topics.settings import TopicSettings
from twisted_net.turns.steps import ENDS_AT_ONCE


class TopicCase(SynchronousTestCase):
    """Starts a server in memory whose WAIT the test fires."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.waits: list[Deferred[str]] = []
        self.start(TopicSettings())

    def start(self, settings: TopicSettings, **limits: Any) -> None:  # Any: those of Limits
        """Start a server anew."""
        commands = standard_commands()
        commands.command("WAIT")(self.wait)
        commands.command("JOIN")(self.join)
        sessions = Sessions(self.reactor.seconds, Topics(settings))
        self.factory = CommandFactory(self.reactor, commands, Limits(**limits), sessions)
        self.topics = sessions.topics

    def wait(self) -> Deferred[str]:
        """Wait until the test fires it."""
        self.waits.append(Deferred())
        return self.waits[-1]

    async def join(self, request: Request) -> str:
        """Subscribe to a, once the test says so."""
        answer = await self.wait()
        request.session.open_mailbox().subscribe("a")
        return answer

    def connect(self, *lines: str) -> Connection:
        """Connect a client that has sent these lines and got their answers."""
        client = self.reactor.connect(self.factory)
        self.ask(client, *lines)
        return client

    def ask(self, client: Connection, *lines: str) -> list[Any]:  # Any: JSON
        """Send lines, and return what has come when all is quiet."""
        client.send("".join(line + "\n" for line in lines).encode())
        self.reactor.settle()
        return client.answers()


class Heard(dict[str, object]):
    """Equal to an event that has these members, and more."""

    def __eq__(self, other: object) -> bool:
        """Whether the other one has all members of this."""
        return isinstance(other, dict) and other | self == other

    def __ne__(self, other: object) -> bool:
        """Whether it has not."""
        return not self == other

    __hash__ = None


def message(topic: str, text: object) -> dict[str, object]:
    """Return a message as a client gets it, without its number, its time and its sender."""
    return Heard({"event": "message", "topic": topic, "message": text})


class StructureTests(TopicCase):
    """PUBLISH carries JSON as well as text."""

    def published(self, line: str) -> object:
        """Publish something, and return what a subscriber gets of it."""
        listener = self.connect("SUBSCRIBE a")
        self.ask(self.connect(), line)
        event = listener.answers()[-1]
        listener.end()
        return event["message"]

    def test_json(self) -> None:
        """An object or array arrives as such, whatever is quoted in it."""
        for text, value in (
            ('{"t": 21.5}', {"t": 21.5}),
            ('{"t": "21  C", "q": "\\"x\\""}', {"t": "21  C", "q": '"x"'}),
            ("[1, 2]", [1, 2]),
            ('["a b",  "c"]', ["a b", "c"]),
            ("{}", {}),
        ):
            self.assertEqual(self.published(f"PUBLISH a {text}"), value, text)

    def test_text(self) -> None:
        """All else is text, as it was: also what is no JSON after all."""
        for text, value in (
            ("21.5", "21.5"),
            ("true", "true"),
            ('"two  chairs"', "two  chairs"),
            ("a  [1]", "a [1]"),
            ("{t: 21}", "{t: 21}"),
            ('{t: "a  b"}', '{t: "a  b"}'),
            ("[1e999]", "[1e999]"),
            ("[" * 300 + "]" * 300, "[" * 300 + "]" * 300),
        ):
            self.assertEqual(self.published(f"PUBLISH a {text}"), value, text[:20])

    def test_large_number(self) -> None:
        """What no number of ours can be is passed on as it came."""
        listener = self.connect("SUBSCRIBE a")
        listener.received()
        self.ask(self.connect(), "PUBLISH a [123456789012345678901234567890]")
        self.assertIn(b"[123456789012345678901234567890]", listener.received())

    def test_members(self) -> None:
        """A message has its number, its time, and who sent it."""
        listener = self.connect("SUBSCRIBE a")
        sender = self.connect()
        self.ask(sender, "PUBLISH a 1", "PUBLISH a 2")
        first, second = listener.answers()
        self.assertLess(first["id"], second["id"])
        self.assertEqual(first["sender"], second["sender"])
        self.assertIn(first["sender"], {session.name for session in self.factory.sessions})
        self.assertIn("T", first["time"])
        self.topics.publish("a", {"n": 1})
        self.reactor.settle()
        (third,) = listener.answers()
        self.assertEqual((third["message"], "sender" in third), ({"n": 1}, False))


class RetainTests(TopicCase):
    """RETAIN keeps a message for who subscribes later."""

    def test_retained(self) -> None:
        """It comes behind the answer to SUBSCRIBE, and says what it is."""
        sender = self.connect()
        answer = self.ask(sender, 'RETAIN config.a {"rate": 5}')[-1]
        self.assertEqual(
            answer, {"command": "RETAIN", "topic": "config.a", "receivers": 0, "retained": True}
        )
        client = self.reactor.connect(self.factory)
        answers = self.ask(client, "WAIT", "SUBSCRIBE config.*", "ECHO x")
        self.assertEqual(answers, [])
        self.waits[-1].callback("w")
        self.reactor.settle()
        answers = client.answers()
        self.assertEqual(
            [answer.get("command", answer.get("event")) for answer in answers],
            ["WAIT", "SUBSCRIBE", "ECHO", "message"],
        )
        self.assertEqual((answers[3]["message"], answers[3]["retained"]), ({"rate": 5}, True))

    def test_cleared(self) -> None:
        """Without words nothing is retained any more."""
        sender = self.connect()
        self.ask(sender, "RETAIN a 1")
        self.assertFalse(self.ask(sender, "RETAIN a")[-1]["retained"])
        self.assertEqual(len(self.ask(self.connect(), "SUBSCRIBE a")), 1)

    def test_limit(self) -> None:
        """At the limit it is refused, with the limit."""
        self.start(TopicSettings(max_retained=1))
        sender = self.connect()
        refused = self.ask(sender, "RETAIN a 1", "RETAIN b 1")[-1]
        self.assertEqual(
            (refused["code"], refused["limit"], refused["scope"]), ("retained_limit", 1, "topics")
        )


class CommandTests(TopicCase):
    """SUBSCRIBE, UNSUBSCRIBE and PUBLISH, STATS and CLIENTS."""

    def test_message(self) -> None:
        """A message reaches those who listen, its sender among them, and no others."""
        listener, other = self.connect("SUBSCRIBE news.*"), self.connect("SUBSCRIBE sports.*")
        sender = self.connect("SUBSCRIBE >")
        answers = self.ask(sender, 'PUBLISH news.de "a  b" c')
        self.assertEqual(answers[0], {"command": "PUBLISH", "topic": "news.de", "receivers": 2})
        self.assertEqual(answers[1:], [message("news.de", "a  b c")])
        self.assertEqual(listener.answers(), [message("news.de", "a  b c")])
        self.assertEqual(other.answers(), [])

    def test_answers(self) -> None:
        """The answers carry what the protocol says."""
        client = self.connect()
        slow = {"when_slow": "drop_oldest"}
        self.assertEqual(
            self.ask(
                client,
                "UNSUBSCRIBE",
                "SUBSCRIBE a",
                "SUBSCRIBE b.> disconnect",
                "SUBSCRIBE a",
                "UNSUBSCRIBE nope",
                "UNSUBSCRIBE a",
                "SUBSCRIBE c",
                "UNSUBSCRIBE",
            ),
            [
                {"command": "UNSUBSCRIBE", "removed": 0, "subscriptions": 0},
                {"command": "SUBSCRIBE", "pattern": "a", "subscriptions": 1, **slow},
                {
                    "command": "SUBSCRIBE",
                    "pattern": "b.>",
                    "subscriptions": 2,
                    "when_slow": "disconnect",
                },
                {
                    "command": "SUBSCRIBE",
                    "pattern": "a",
                    "subscriptions": 2,
                    "when_slow": "disconnect",
                },
                {"command": "UNSUBSCRIBE", "removed": 0, "subscriptions": 2},
                {"command": "UNSUBSCRIBE", "removed": 1, "subscriptions": 1},
                {
                    "command": "SUBSCRIBE",
                    "pattern": "c",
                    "subscriptions": 2,
                    "when_slow": "disconnect",
                },
                {"command": "UNSUBSCRIBE", "removed": 2, "subscriptions": 0},
            ],
        )

    def test_refused(self) -> None:
        """What is no topic is refused, and so is another rule for slow readers."""
        codes = [
            answer["code"]
            for answer in self.ask(
                self.connect(), "SUBSCRIBE a..b", "PUBLISH a.* x", "SUBSCRIBE a later", "PUBLISH"
            )
        ]
        self.assertEqual(codes, [BadTopic.code, BadTopic.code, "bad_arguments", "bad_arguments"])

    def test_permissions(self) -> None:
        """A client may subscribe and publish where its user may."""
        client = self.connect()
        [session] = self.factory.sessions
        user = User(subscribe=("news.*",), publish=("chat.*",))
        session.permissions = Permissions("ada", user)
        answers = self.ask(
            client, "SUBSCRIBE news.>", "SUBSCRIBE >", "PUBLISH chat.a hi", "PUBLISH news.a hi"
        )
        self.assertEqual(
            [answer.get("code") for answer in answers],
            [None, "not_permitted", None, "not_permitted"],
        )

    def test_figures(self) -> None:
        """STATS and CLIENTS have the figures of topics."""
        client = self.connect("SUBSCRIBE a", "SUBSCRIBE b", "PUBLISH a hi")
        stats, clients = self.ask(client, "STATS", "CLIENTS")
        self.assertEqual(stats["topics"], self.topics.figures())
        self.assertEqual(stats["topics"]["subscriptions"], 2)
        self.assertEqual(stats["topics"]["delivered"], 1)
        [figures] = clients["clients"]
        self.assertEqual(
            (figures["subscriptions"], figures["waiting"], figures["dropped"]), (2, 0, 0)
        )

    def test_no_messages_possible(self) -> None:
        """A client whose transport cannot bring messages cannot subscribe."""
        session = self.factory.sessions.open("192.0.2.7", 1, lambda _: None)
        self.assertRaises(CommandError, session.open_mailbox)


class OrderTests(TopicCase):
    """What the protocol says of the order of messages and answers."""

    def test_after_subscribe(self) -> None:
        """No message overtakes the answer to SUBSCRIBE, also where that waits for another."""
        client = self.connect()
        self.assertEqual(self.ask(client, "WAIT", "SUBSCRIBE a", "WAIT", "PING"), [])
        self.connect("PUBLISH a 1")
        self.assertEqual(client.answers(), [])
        self.waits[0].callback("first")
        self.reactor.settle()
        answers = client.answers()
        self.assertEqual([line.get("command") for line in answers], ["WAIT", "SUBSCRIBE", None])
        # From now on messages come while another answer is waited for.
        self.connect("PUBLISH a 2")
        self.assertEqual(client.answers(), [message("a", "2")])
        self.waits[1].callback("second")
        self.reactor.settle()
        self.assertEqual([line["command"] for line in client.answers()], ["WAIT", "PING"])

    def test_pipelined(self) -> None:
        """SUBSCRIBE and PUBLISH in one segment: the answers, then the message."""
        client = self.connect()
        answers = self.ask(client, "SUBSCRIBE a", "PUBLISH a 1", "UNSUBSCRIBE a", "PUBLISH a 2")
        self.assertEqual([line.get("command") for line in answers[:4]].count(None), 0)
        self.assertEqual(answers[4:], [message("a", "1")])

    def test_in_order(self) -> None:
        """A thousand messages come in the order in which they were published, joined."""
        client, sender = self.connect("SUBSCRIBE a.*"), self.connect()
        client.writes.clear()
        for start in range(0, 1000, 50):
            self.ask(sender, *(f"PUBLISH a.{i % 3} {i}" for i in range(start, start + 50)))
        self.assertEqual([int(line["message"]) for line in client.answers()], list(range(1000)))
        self.assertLess(len(client.writes), 50)


class SlowTests(TopicCase):
    """A slow reader loses by its rule, and delays no others."""

    def stuck(self, policy: str) -> tuple[Connection, Connection]:
        """Return a client that has stopped to read with its transport full, and a sender."""
        self.start(TopicSettings(max_queue=10_000))
        client, sender = self.connect(f"SUBSCRIBE a {policy}"), self.connect()
        client.reads = False
        session = next(iter(self.factory.sessions))
        assert session.mailbox is not None
        while not session.mailbox.waiting:
            self.ask(sender, f"PUBLISH a {'x' * 3000}")
        return client, sender

    def texts(self, client: Connection) -> list[str]:
        """Let the client read again, and return the texts of the messages that are short."""
        client.reads = True
        self.reactor.settle()
        return [line["message"][:1] for line in client.answers() if line.get("event")]

    def test_drop_oldest(self) -> None:
        """The newest are there when it reads again; the sender and others see no delay."""
        client, sender = self.stuck("drop_oldest")
        quick = self.connect("SUBSCRIBE a")
        for i in range(9):
            [answer] = self.ask(sender, f"PUBLISH a {str(i) * 3000}")
            self.assertEqual(answer["receivers"], 2)
            self.assertEqual(len(quick.answers()), 1)
        self.assertEqual(self.texts(client)[-4:], ["x", "6", "7", "8"])
        self.assertEqual(self.topics.dropped_oldest, 7)

    def test_drop_newest(self) -> None:
        """Those that came first are there when it reads again."""
        client, sender = self.stuck("drop_newest")
        receivers = [
            self.ask(sender, f"PUBLISH a {str(i) * 3000}")[0]["receivers"] for i in range(9)
        ]
        self.assertEqual(receivers, [1, 1, 0, 0, 0, 0, 0, 0, 0])
        self.assertEqual(self.texts(client)[-3:], ["x", "0", "1"])
        self.assertEqual(self.topics.dropped_newest, 7)

    def test_disconnect(self) -> None:
        """It is cut off at once, and counted under its reason."""
        client, sender = self.stuck("disconnect")
        for i in range(3):
            self.ask(sender, f"PUBLISH a {str(i) * 3000}")
        self.assertTrue(client.gone)
        self.assertEqual(self.factory.sessions.counters.ended[End.SLOW_SUBSCRIBER], 1)
        self.assertEqual((len(self.topics), self.topics.overflows), (0, 1))

    def test_many_disconnect(self) -> None:
        """Of many for whom one message is too much, so many are cut off in each turn, each once."""
        self.start(TopicSettings(max_queue=10_000))
        many = [self.connect("SUBSCRIBE a disconnect") for _ in range(3 * ENDS_AT_ONCE)]
        for client in many:
            client.reads = False
        sender = self.connect()
        ended = self.factory.sessions.counters.ended
        cut = [0]
        while cut[-1] < len(many) - 1:
            sender.send(f"PUBLISH a {'x' * 3000}\n".encode())
            self.reactor.turn()
            cut.append(ended[End.SLOW_SUBSCRIBER])
            if self.topics.overflows and not many[-1].gone:
                many[-1].reset()  # it leaves before its turn
        self.reactor.settle()
        self.assertLessEqual(max(after - before for before, after in pairwise(cut)), ENDS_AT_ONCE)
        self.assertEqual(self.topics.overflows, len(many))
        self.assertEqual(ended[End.SLOW_SUBSCRIBER], len(many) - 1)
        self.assertEqual(ended[End.CONNECTION_LOST], 1)

    def test_memory(self) -> None:
        """However much is published, what a stuck client costs is bounded."""
        client, sender = self.stuck("drop_oldest")
        for _ in range(50):
            self.ask(sender, *(f"PUBLISH a {'y' * 1000}" for _ in range(20)))
        [session, _] = self.factory.sessions
        assert session.mailbox is not None
        self.assertLessEqual(session.mailbox.waiting, 10_000)
        self.assertLess(client.unread, 90_000)

    def test_all_buffers(self) -> None:
        """What waits counts among all buffers; over their cap the largest connection goes."""
        self.start(TopicSettings(max_queue=4_000_000), max_buffered=1_048_576)
        client, sender = self.connect("SUBSCRIBE a"), self.connect()
        client.reads = False
        for _ in range(130):
            self.ask(sender, f"PUBLISH a {'x' * 10_000}")
        self.assertFalse(client.gone)
        self.reactor.pass_time(2)
        self.assertTrue(client.gone)
        self.assertEqual(self.factory.sessions.counters.ended[End.BUFFERS_FULL], 1)

    def test_weight_forgotten(self) -> None:
        """What a client has read counts no more."""
        self.start(TopicSettings(max_queue=4_000_000), max_buffered=1_048_576)
        client, sender = self.connect("SUBSCRIBE a"), self.connect()
        for _ in range(3):
            client.reads = False
            for _ in range(60):
                self.ask(sender, f"PUBLISH a {'x' * 10_000}")
            self.reactor.pass_time(2)
            client.reads = True
            self.reactor.settle()
        self.assertFalse(client.gone)

    def test_bytes_in_the_transport(self) -> None:
        """Messages that the peer has not read count although they have left the mailbox."""
        client = self.connect("SUBSCRIBE a")
        client.reads = False
        self.topics.publish("a", "x" * 70_000)
        self.reactor.settle()
        self.assertEqual(self.factory.guard.buffers.total, client.unread)
        client.reads = True
        self.reactor.settle()
        self.assertEqual(self.factory.guard.buffers.total, 0)

    def test_subscribed_while_not_reading(self) -> None:
        """A handler that subscribes a client which does not read sends it nothing meanwhile."""
        client = self.connect("JOIN")
        client.reads = False
        self.factory.sessions.broadcast({"event": "news", "text": "x" * 70_000})
        self.waits.pop().callback("joined")
        self.topics.publish("a", "hi")
        self.reactor.settle()
        unread = client.unread
        self.topics.publish("a", "hi")
        self.reactor.settle()
        self.assertEqual(client.unread, unread)
        client.reads = True
        self.reactor.settle()
        self.assertEqual(client.answers()[-2:], [message("a", "hi")] * 2)

    def test_never_reading(self) -> None:
        """A client that reads nothing is disconnected in the end."""
        client, _ = self.stuck("drop_oldest")
        self.reactor.pass_time(Limits().write_timeout + 1)
        self.assertTrue(client.gone)
        self.assertEqual(self.factory.sessions.counters.ended[End.WRITE_TIMEOUT], 1)
        self.assertEqual(len(self.topics), 0)


class EndTests(TopicCase):
    """A client that leaves leaves nothing behind."""

    def test_gone(self) -> None:
        """A client that is gone listens no more; messages under way to it harm no others."""
        client, sender = self.connect("SUBSCRIBE a"), self.connect()
        sender.send(b"PUBLISH a 1\n")
        self.reactor.turn()
        client.reset()
        self.reactor.settle()
        self.assertEqual(len(self.topics), 0)
        [answer] = self.ask(sender, "PUBLISH a 2")[-1:]
        self.assertEqual(answer["receivers"], 0)

    def test_last_gone(self) -> None:
        """No delayed call is left when the last client goes with a message under way."""
        client = self.connect("SUBSCRIBE a")
        client.send(b"PUBLISH a 1\n")
        self.reactor.turn()
        client.reset()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_half_closed(self) -> None:
        """What a client published to itself before it ended its half still comes."""
        client = self.connect("SUBSCRIBE a")
        client.send(b"PUBLISH a 1\nPUBLISH a 2\n")
        client.end()
        self.reactor.settle()
        self.assertEqual(client.answers()[-2:], [message("a", "1"), message("a", "2")])
        self.assertTrue(client.gone)

    def test_drained(self) -> None:
        """Messages that wait leave before the connection is closed at the end of the server."""
        client, sender = self.connect("SUBSCRIBE a"), self.connect()
        sender.send(b"PUBLISH a 1\n")
        self.reactor.turn()
        self.factory.drain(5)
        self.reactor.settle()
        self.assertEqual([line["event"] for line in client.answers()], ["shutdown", "message"])

    def test_listeners_are_not_idle(self) -> None:
        """A client that listens is left in peace, and is not once it listens no more."""
        client = self.connect("SUBSCRIBE a")
        self.reactor.pass_time(2000)
        self.assertFalse(client.gone)
        self.ask(client, "UNSUBSCRIBE")
        self.reactor.pass_time(2000)
        self.assertTrue(client.gone)


class ManyEndsTests(TopicCase):
    """Clients that leave with many subscriptions leave room for the others."""

    EACH = 1000

    def setUp(self) -> None:
        super().setUp()
        self.clients = [self.connect() for _ in range(5)]
        for client in self.clients:
            mailbox = self.session(client).open_mailbox()
            for i in range(self.EACH):
                mailbox.subscribe(f"a.{i}")

    def session(self, client: Connection) -> Session:
        """Return the session of a client."""
        protocol = client.protocol
        assert isinstance(protocol, CommandProtocol)
        return protocol.session

    def kept(self) -> int:
        """Count the subscriptions that the tree has."""
        levels = self.topics._root.children
        return sum(len(node.subscribers) for node in levels["a"].children.values()) if levels else 0

    def test_turns(self) -> None:
        """So many are removed in each turn; those who have left get no message meanwhile."""
        others = len(self.clients) - 1
        kept = self.kept()
        for client in self.clients[:others]:
            client.reset()
        self.assertEqual(len(self.topics), self.EACH)
        # To the last one, although the tree has others; and it may change its mind.
        self.assertEqual(self.topics.publish(f"a.{self.EACH - 1}", "hi"), 1)
        while self.kept() > self.EACH:
            self.assertLessEqual(kept - self.kept(), REMOVED_AT_ONCE)
            kept = self.kept()
            self.reactor.turn()
        self.clients[-1].reset()
        self.reactor.settle()
        self.assertEqual(self.kept(), 0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_another_user(self) -> None:
        """Who logs in as another user gets nothing that it subscribed to before, but anew."""
        client = self.clients[0]
        permissions = Permissions("eve", User())
        self.session(client).log_in(permissions)
        last = f"a.{self.EACH - 1}"
        self.assertEqual(self.topics.publish(last, "hi"), len(self.clients) - 1)
        self.session(client).open_mailbox().subscribe(last)
        self.assertEqual(self.topics.publish(last, "hi"), len(self.clients))
        self.reactor.settle()
        self.assertEqual(self.topics.publish(last, "hi"), len(self.clients))
        self.assertEqual(self.topics.publish("a.1", "hi"), len(self.clients) - 1)

    def test_few(self) -> None:
        """Few subscriptions go at once."""
        client = self.connect()
        for i in range(FEW):
            self.session(client).open_mailbox().subscribe(f"b.{i}")
        client.reset()
        self.assertNotIn("b", self.topics._root.children)


class FanoutOfManyTests(TopicCase):
    """Many subscribers are written to a few at a time."""

    def test_turns(self) -> None:
        """No turn writes to more than its share, all get the same bytes, none twice."""
        clients = [self.connect("SUBSCRIBE a") for _ in range(3 * WRITES_PER_TURN)]
        for client in clients:
            client.writes.clear()
        self.ask(self.connect(), "PUBLISH a hi")
        turns: dict[int, int] = {}
        for client in clients:
            [(turn, data)] = client.writes
            turns[turn] = turns.get(turn, 0) + 1
            self.assertEqual(json.loads(data), message("a", "hi"))
        self.assertEqual(set(turns.values()), {WRITES_PER_TURN})
        self.assertEqual(len({id(client.writes[0][1]) for client in clients}), 1)
