"""Messages leave mailboxes in turns and in batches, in order, behind the answers before them."""

from __future__ import annotations

import gc
import json
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.due_calls import call_due
from tests.tcp.kernel import FakeReactor, FakeSocket
from twisted_net.auth.users import AuthSettings, User, Users
from twisted_net.commands.registry import Request
from twisted_net.commands.standard import standard_commands
from twisted_net.reasons import End
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session
from twisted_net.tcp.admission import Access
from twisted_net.tcp.answer_queue import PendingAnswer
from twisted_net.tcp.fanout import WRITES_PER_TURN, Fanout, MailboxWriter
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.transport import SENDS_IN_A_ROW, Batch, FastTransport
from twisted_net.topics.mailbox import CHUNK
from twisted_net.topics.registry import Topics
from twisted_net.topics.settings import TopicSettings

PLENTY = 1 << 30
"""Bytes: more room than a kernel ever needs here."""


class Socket(FakeSocket):
    """A socket that takes the options which the server sets."""

    family = 0


class Reactor(FakeReactor):
    """A reactor whose calls that are due within a turn have the next one, as a real one's have."""

    def advance(self, amount: float) -> None:
        """Let time pass, and run what is due already."""
        self.rightNow += amount
        call_due(self)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do now."""
        due = any(call.getTime() <= self.rightNow for call in self.calls)
        return due or any(reader.socket.incoming for reader in self.readers) or bool(self.writers)


class Server:
    """A server whose connections are real transports over sockets in memory."""

    def __init__(
        self, settings: TopicSettings | None = None, access: Access | None = None, **limits: Any
    ) -> None:
        self.reactor = Reactor()
        self.topics = Topics(settings)
        self.waits: list[Deferred[str]] = []
        commands = standard_commands()
        commands.command("WAIT")(self.wait)
        commands.command("JOIN")(self.join)
        sessions = Sessions(self.reactor.seconds, self.topics)
        clock: Any = self.reactor  # Any: a clock is all that is used of it
        bounds = Limits(keepalive=0, **limits)
        self.factory = CommandFactory(clock, commands, bounds, sessions, access)

    def wait(self) -> Deferred[str]:
        """Wait until the test fires it."""
        self.waits.append(Deferred())
        return self.waits[-1]

    def join(self, request: Request) -> str:
        """Subscribe to a, for any client."""
        request.session.open_mailbox().subscribe("a")
        return "joined"

    def connect(self, *lines: str) -> Client:
        """Connect a client that has sent these lines and got their answers."""
        client = Client(self)
        client.ask(*lines)
        client.socket.sent, client.socket.sends, self.reactor.added = b"", 0, 0
        return client

    def settle(self) -> None:
        """Let the reactor turn until all that can leave has left."""
        for _ in range(1000):
            if not self.reactor.busy:
                return
            self.reactor.turn()
        raise AssertionError("it never settles")


class Client:
    """A client, its socket, and the server's transport of it."""

    def __init__(self, server: Server) -> None:
        self.socket = Socket()
        self._server = server
        protocol = server.factory.buildProtocol(None)
        made: Any = FastTransport  # Any: the fakes are what a transport uses
        self.transport = made(self.socket, protocol, ("192.0.2.1", 1), None, 0, server.reactor)
        self.transport.getPeer = lambda: IPv4Address("TCP", "192.0.2.1", id(self) % 65_536)
        self.transport.setTcpNoDelay = lambda _: None
        protocol.makeConnection(self.transport)
        self.transport.startReading()

    @property
    def session(self) -> Session:
        """What the server knows of it."""
        session: Session = self.transport.protocol.session
        return session

    def ask(self, *lines: str) -> None:
        """Send lines, and let the server see to them."""
        if lines:
            self.socket.incoming.append("".join(line + "\n" for line in lines).encode())
            self.transport.doRead()

    def answers(self) -> list[Any]:  # Any: JSON
        """Return the whole lines that have come."""
        return [json.loads(line) for line in self.socket.sent.split(b"\n")[:-1]]

    def texts(self) -> list[str]:
        """Return the texts of the messages among them."""
        return [line["message"] for line in self.answers() if line.get("event") == "message"]


class FanoutTests(SynchronousTestCase):
    """:class:`Fanout` lets connections write in the order in which they asked."""

    def test_added_meanwhile(self) -> None:
        """A connection that is added while others write has a later turn; stop drops them all."""
        reactor = Reactor()
        clock: Any = reactor  # Any: a clock is all that is used of it
        fanout = Fanout(clock)

        class Restless:
            count = 0
            more = True

            def join(self, batch: Batch) -> bool:
                self.count += 1
                if self.more:
                    fanout.add(self)
                return self.more

            def send_messages(self) -> bool:
                self.count += 1
                return self.count < 6

        restless = Restless()
        fanout.add(restless)
        reactor.turn()
        reactor.turn()
        self.assertEqual(restless.count, 2)
        restless.more = False
        reactor.turn()
        self.assertEqual(restless.count, 4)
        reactor.turn()
        self.assertEqual(restless.count, 6)
        self.assertFalse(reactor.busy)
        fanout.add(restless)
        fanout.stop()
        fanout.stop()
        self.assertFalse(reactor.busy)
        reactor.turn()
        self.assertEqual(restless.count, 6)


class FakeOwner:
    """A connection without lines and answers, which records what its mailbox writer does."""

    def __init__(self) -> None:
        self.output = StringTransport()
        self.transport: Any = self.output  # Any: the writer writes to it, no more
        self.pending: PendingAnswer | None = None
        self.written: list[int] = []
        self.ends: list[End] = []

    def last_pending(self) -> PendingAnswer | None:
        """Return the answer that the test wants to be before the messages."""
        return self.pending

    def wrote_messages(self, size: int) -> None:
        """Record the size."""
        self.written.append(size)

    def abort(self, end: End) -> None:
        """Record the end."""
        self.ends.append(end)


class MailboxWriterTests(SynchronousTestCase):
    """:class:`MailboxWriter` writes to a connection when that may be written to."""

    def setUp(self) -> None:
        self.start()

    def start(self, settings: TopicSettings | None = None) -> None:
        """Make a writer anew."""
        self.reactor = Reactor()
        self.topics = Topics(settings)
        self.owner = FakeOwner()
        clock: Any = self.reactor  # Any: a clock is all that is used of it
        self.writer = MailboxWriter(self.owner, Fanout(clock), self.topics)

    def publish(self, *texts: str) -> None:
        """Publish messages to the writer's client."""
        for text in texts:
            self.topics.publish("a", text)

    def texts(self) -> list[str]:
        """Return the texts of the messages that were written."""
        return [json.loads(line)["message"] for line in self.owner.output.value().splitlines()]

    def test_written_in_a_later_turn(self) -> None:
        """Messages are written together in the next turn, and their bytes are counted."""
        self.writer.mailbox.subscribe("a")
        self.publish("1", "2")
        self.assertEqual(self.texts(), [])
        self.reactor.turn()
        self.assertEqual(self.texts(), ["1", "2"])
        self.assertEqual(self.owner.written, [len(self.owner.output.value())])
        self.assertFalse(self.reactor.busy)

    def test_chunks(self) -> None:
        """More than a chunk takes a turn for each."""
        self.writer.mailbox.subscribe("a")
        self.publish(*("x" * (CHUNK // 2) for _ in range(3)))
        for count in (1, 2, 3):
            self.reactor.turn()
            self.assertEqual(len(self.texts()), count)
        self.assertFalse(self.reactor.busy)

    def test_after_the_answer(self) -> None:
        """Messages wait until the answer that was last at the subscription was taken."""
        self.owner.pending = PendingAnswer()
        self.writer.mailbox.subscribe("a")
        self.publish("1")
        self.reactor.turn()
        self.writer.answers_taken()
        self.reactor.turn()
        self.assertEqual(self.texts(), [])
        self.owner.pending.taken = True
        self.writer.answers_taken()
        self.assertEqual(self.texts(), [])
        self.reactor.turn()
        self.assertEqual(self.texts(), ["1"])
        self.writer.answers_taken()
        self.assertFalse(self.reactor.busy)

    def test_after_the_last_of_two_answers(self) -> None:
        """After a second subscription the later answer is the one that counts."""
        first, second = PendingAnswer(), PendingAnswer()
        for pending in (first, second):
            self.owner.pending = pending
            self.writer.mailbox.subscribe("a")
        self.publish("1")
        first.taken = True
        self.writer.answers_taken()
        self.reactor.turn()
        self.assertEqual(self.texts(), [])
        second.taken = True
        self.writer.answers_taken()
        self.reactor.turn()
        self.assertEqual(self.texts(), ["1"])

    def test_paused(self) -> None:
        """A peer that does not read is written to once it has read, in one go."""
        self.writer.mailbox.subscribe("a")
        self.writer.paused = True
        self.publish("1")
        self.reactor.turn()
        self.publish("2")
        self.assertEqual(self.texts(), [])
        self.writer.resume()
        self.assertEqual(self.texts(), [])
        self.reactor.turn()
        self.assertEqual(self.texts(), ["1", "2"])

    def test_no_batch(self) -> None:
        """A batch takes none that is metered, paused, behind an answer or too much at once."""
        self.writer._transport = batchable()
        mailbox = self.writer.mailbox
        mailbox.subscribe("a")

        def joins() -> bool:
            self.publish("x")
            joined = self.writer.join(Batch())
            mailbox.next_chunk()
            return joined

        self.assertTrue(joins())
        for name in ("metered", "paused"):
            setattr(self.writer, name, True)
            self.assertFalse(joins(), name)
            setattr(self.writer, name, False)
        self.publish("x" * CHUNK)
        self.assertFalse(joins())
        mailbox.next_chunk()
        self.owner.pending = PendingAnswer()
        mailbox.subscribe("b")
        self.assertFalse(joins())

    def test_flush(self) -> None:
        """At the end all is written, unless the peer does not read."""
        self.writer.mailbox.subscribe("a")
        self.publish(*("x" * CHUNK for _ in range(3)))
        self.writer.paused = True
        self.writer.flush()
        self.assertEqual(self.texts(), [])
        self.writer.paused = False
        self.writer.flush()
        self.assertEqual(len(self.texts()), 3)

    def test_overflow(self) -> None:
        """One that chose to be disconnected when it reads too slowly is."""
        self.start(TopicSettings(max_queue=4096, when_slow="disconnect"))
        self.writer.mailbox.subscribe("a")
        self.writer.paused = True
        self.publish("x" * 3000, "x" * 3000)
        self.assertEqual(self.owner.ends, [End.SLOW_SUBSCRIBER])

    def test_closed(self) -> None:
        """A writer that is closed keeps its connection no more, and does nothing that needs it."""
        self.start(TopicSettings(max_queue=4096, when_slow="disconnect"))
        self.owner.pending = PendingAnswer()
        self.writer.close()
        self.assertNotIn(self.owner, gc.get_referents(self.writer))
        self.writer.mailbox.subscribe("a")
        self.publish("x" * 3000, "x" * 3000)
        self.reactor.turn()
        self.assertEqual((self.owner.ends, self.owner.written), ([], []))


def batchable() -> Any:  # Any: the fakes are what a transport uses
    """Return a transport that a batch takes."""
    return Server().connect().transport


class TogetherTests(SynchronousTestCase):
    """Messages leave in batches, one send for each subscriber and nothing else."""

    def test_one_send_each(self) -> None:
        """Each subscriber costs one send, however many messages came before, and no event."""
        server = Server()
        clients = [server.connect("SUBSCRIBE a") for _ in range(3)]
        count = 2 * SENDS_IN_A_ROW + 1
        for i in range(count):
            self.assertEqual(server.topics.publish("a", str(i)), 3)
            server.reactor.turn()
        for client in clients:
            self.assertEqual(client.texts(), [str(i) for i in range(count)])
            self.assertEqual(client.socket.sends, count)
        self.assertEqual(server.reactor.added, 0)

    def test_joined(self) -> None:
        """What was published before a subscriber's turn leaves in one send."""
        server = Server()
        client = server.connect("SUBSCRIBE a")
        for i in range(50):
            server.topics.publish("a", str(i))
        server.settle()
        self.assertEqual(client.texts(), [str(i) for i in range(50)])
        self.assertEqual(client.socket.sends, 1)

    def test_turns(self) -> None:
        """No turn sends to more than its share."""
        server = Server()
        clients = [server.connect("SUBSCRIBE a") for _ in range(2 * WRITES_PER_TURN + 1)]
        server.topics.publish("a", "hi")
        for reached in (WRITES_PER_TURN, 2 * WRITES_PER_TURN, 2 * WRITES_PER_TURN + 1):
            server.reactor.turn()
            self.assertEqual(sum(client.socket.sends for client in clients), reached)

    def test_counted(self) -> None:
        """The bytes are counted for the session, as ever."""
        server = Server()
        client = server.connect("SUBSCRIBE a")
        before = client.session.sent
        server.topics.publish("a", "hi")
        server.settle()
        self.assertEqual(client.session.sent - before, len(client.socket.sent))

    def test_more_than_a_chunk(self) -> None:
        """What is too much for a batch leaves on its own, a chunk in each turn, in order."""
        server = Server()
        client, other = server.connect("SUBSCRIBE a"), server.connect("SUBSCRIBE b")
        for i in range(5):
            server.topics.publish("a", str(i) * (CHUNK // 2))
        server.topics.publish("b", "x" * 2 * CHUNK)
        server.reactor.turn()
        self.assertEqual([text[0] for text in client.texts()], ["0"])
        server.settle()
        self.assertEqual([text[0] for text in client.texts()], list("01234"))
        self.assertEqual(len(other.texts()), 1)


class AloneTests(SynchronousTestCase):
    """Who is not to be written to now is left out, and gets its messages in order later."""

    def test_answer_first(self) -> None:
        """Messages wait for the answer to SUBSCRIBE, while others have them at once."""
        server = Server()
        held, other = server.connect(), server.connect("SUBSCRIBE a")
        held.ask("WAIT", "SUBSCRIBE a")
        server.topics.publish("a", "hi")
        server.settle()
        self.assertEqual((held.answers(), other.texts()), ([], ["hi"]))
        server.waits[0].callback("done")
        server.settle()
        self.assertEqual(
            [line.get("command") for line in held.answers()], ["WAIT", "SUBSCRIBE", None]
        )

    def test_not_reading(self) -> None:
        """One whose kernel is full stops no messages to others, and reads on later."""
        server = Server()
        stuck, other = server.connect("SUBSCRIBE a"), server.connect("SUBSCRIBE a")
        stuck.socket.room = 10
        for i in range(200):
            server.topics.publish("a", f"{i} " + "x" * 1000)
            server.reactor.turn()
        self.assertEqual(len(other.texts()), 200)
        self.assertEqual(len(stuck.socket.sent), 10)
        stuck.socket.room = PLENTY
        server.settle()
        self.assertEqual(stuck.texts(), other.texts())

    def test_paused(self) -> None:
        """One that its transport has paused has its messages once it is resumed, joined."""
        server = Server()
        client = server.connect("SUBSCRIBE a")
        client.transport.protocol.pauseProducing()
        for text in ("1", "2"):
            server.topics.publish("a", text)
            server.settle()
        self.assertEqual(client.socket.sends, 0)
        client.transport.protocol.resumeProducing()
        server.settle()
        self.assertEqual((client.texts(), client.socket.sends), (["1", "2"], 1))

    def test_metered(self) -> None:
        """Where bytes are counted, those of messages are, and too many stop the reading."""
        server = Server(bytes_per_network=100, byte_burst=1000)
        client = server.connect("SUBSCRIBE a")
        server.topics.publish("a", "x" * 2000)
        server.settle()
        self.assertEqual(len(client.texts()), 1)
        self.assertNotIn(client.transport, server.reactor.readers)
        client.transport.abortConnection()
        server.reactor.advance(60)

    def test_metered_from_its_login_on(self) -> None:
        """Messages are counted from the moment on in which a rate begins to hold."""
        users = Users({"ann": User(subscribe=("a",))})
        access = Access(AuthSettings(users="x", anonymous=("JOIN",)), users.permissions)
        server = Server(access=access, bytes_per_user=100, byte_burst=1000)
        client = server.connect("JOIN")
        client.session.log_in(users.unlisted("ann"))
        client.session.open_mailbox().subscribe("a")
        server.topics.publish("a", "x" * 2000)
        server.settle()
        self.assertEqual(len(client.texts()), 1)
        self.assertNotIn(client.transport, server.reactor.readers)
        client.transport.abortConnection()
        server.reactor.advance(60)

    def test_lost(self) -> None:
        """One that is gone with a message under way harms none of the others."""
        server = Server()
        clients = [server.connect("SUBSCRIBE a") for _ in range(3)]
        server.topics.publish("a", "1")
        clients[1].transport.abortConnection()
        clients[2].socket.error = 104
        server.settle()
        server.topics.publish("a", "2")
        server.settle()
        self.assertEqual([client.texts() for client in clients], [["1", "2"], [], []])
        self.assertEqual(len(server.topics), 1)


class DeliveryMachine(RuleBasedStateMachine):
    """
    Whatever the kernels take, and when, each subscriber gets its lines whole and in order.

    Where none was dropped it gets every message; where some were, as many fewer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.server = Server(TopicSettings(max_queue=4096))
        self.clients = [self.server.connect("SUBSCRIBE a") for _ in range(3)]
        self.published: list[str] = []
        self.asked = [0, 0, 0]

    @rule(size=st.sampled_from([0, 10, 1000, 3000]), count=st.integers(1, 12))
    def publish(self, size: int, count: int) -> None:
        """Publish some messages, each of its own text."""
        for _ in range(count):
            text = f"{len(self.published)}".ljust(size, "x")
            self.published.append(text)
            self.server.topics.publish("a", text)

    @rule(who=st.integers(0, 2), room=st.sampled_from([0, 1, 100, 5000, PLENTY]))
    def take(self, who: int, room: int) -> None:
        """Let a kernel take so much from now on."""
        self.clients[who].socket.room = room

    @rule(who=st.integers(0, 2))
    def ping(self, who: int) -> None:
        """Have a client ask something."""
        self.clients[who].socket.incoming.append(b"PING\n")
        self.asked[who] += 1

    @rule()
    def turn(self) -> None:
        """Let the reactor turn."""
        self.server.reactor.turn()

    @invariant()
    def in_order(self) -> None:
        """What has come is whole, in order, and never twice."""
        for client in self.clients:
            numbers = [int(text.rstrip("x")) for text in client.texts()]
            assert numbers == sorted(set(numbers))
            assert all(text == self.published[int(text.rstrip("x"))] for text in client.texts())

    def teardown(self) -> None:
        """All that waits leaves once there is room."""
        for client in self.clients:
            client.socket.room = PLENTY
        self.server.settle()
        for client, asked in zip(self.clients, self.asked, strict=True):
            mailbox = client.session.mailbox
            assert mailbox is not None
            assert mailbox.waiting == 0
            assert len(client.texts()) == len(self.published) - mailbox.dropped
            assert len(client.answers()) == len(client.texts()) + asked


DeliveryMachineTests = DeliveryMachine.TestCase
DeliveryMachineTests.settings = hypothesis_settings(max_examples=100, stateful_step_count=40)
