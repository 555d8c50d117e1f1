"""The transport that sends at once, over a kernel in memory; see also tests/live."""

from __future__ import annotations

import errno
from typing import Any, cast
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import tcp
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.garbage import cyclic_garbage
from tests.tcp.kernel import FakeQuietReactor, FakeReactor, FakeSocket
from twisted_net.tcp import transport
from twisted_net.tcp.endpoints import FastServerEndpoint, FastServerParser
from twisted_net.tcp.transport import (
    BUFFER_SIZE,
    SENDS_IN_A_ROW,
    Batch,
    FastTransport,
    listen_tcp,
)
from twisted_net.twisted_internals import fast_transport_changes


class Peer(Protocol):
    """
    Does in ``dataReceived`` what a test says, and records what happens to it.

    :ivar told: the names of the events, in order; the class of the reason for the last one.
    """

    def __init__(self) -> None:
        self.told: list[object] = []
        self.received = b""
        self.on_data: Any = lambda: None  # Any: what a lambda returns is not used

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.on_data()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.told.append(reason.type)


@implementer(IHalfCloseableProtocol)
class HalfPeer(Peer):
    """The same, and each half ends by itself."""

    def readConnectionLost(self) -> None:
        """The peer sends no more."""
        self.told.append("read")

    def writeConnectionLost(self) -> None:
        """We send no more."""
        self.told.append("write")


@implementer(IPushProducer)
class Producer:
    """Records the calls of its consumer."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.on_pause: Any = lambda: None  # Any: as above
        self.on_resume: Any = lambda: None

    def pauseProducing(self) -> None:
        """Enough."""
        self.told.append("pause")
        self.on_pause()

    def resumeProducing(self) -> None:
        """More."""
        self.told.append("resume")
        self.on_resume()

    def stopProducing(self) -> None:
        """No more, ever."""
        self.told.append("stop")


class Connection:
    """One transport with all that is around it."""

    def __init__(
        self,
        kind: type[tcp.Server] = FastTransport,
        protocol: type[Peer] = Peer,
        reactor: type[FakeReactor] = FakeReactor,
    ) -> None:
        self.socket = FakeSocket()
        self.reactor = reactor()
        self.protocol = protocol()
        made: Any = kind  # Any: the fakes are what a transport uses of a socket and a reactor
        self.transport = made(self.socket, self.protocol, ("peer", 1), None, 0, self.reactor)
        self.protocol.makeConnection(self.transport)

    def receive(self, data: bytes, on_data: Any = lambda: None) -> None:  # Any: as above
        """Have bytes arrive, and something done about them; the reactor does nothing else."""
        self.protocol.on_data = on_data
        self.socket.incoming.append(data)
        why = self.transport.doRead()
        assert why is None, why

    @property
    def waits_to_write(self) -> bool:
        """Whether the reactor watches for room."""
        return self.transport in self.reactor.writers


class DescriptorTests(SynchronousTestCase):
    """The number of its socket."""

    def test_lost(self) -> None:
        """It is -1 once the connection is lost, as reactors expect of what they have to forget."""
        for kind in (FastTransport, tcp.Server):
            connection = Connection(kind)
            self.assertEqual(connection.transport.fileno(), 7)
            connection.transport.connectionLost(Failure(ConnectionLost()))
            self.assertEqual(connection.transport.fileno(), -1)


class NamesTests(SynchronousTestCase):
    """What a connection is called is made when it is asked for."""

    def test_nothing_kept(self) -> None:
        """A connection has all that it is in slots, and no text."""
        transport = Connection().transport
        self.assertEqual(vars(transport), {})
        self.assertEqual((transport._shown, transport._log_context), (None, None))

    def test_as_stock(self) -> None:
        """The context of its log events is as the stock transport's, and kept once asked for."""
        ours, stock = Connection().transport, Connection(tcp.Server).transport
        self.assertEqual(ours.logPrefix(), stock.logPrefix())
        self.assertIs(ours.logPrefix(), ours.logPrefix())

    def test_shown(self) -> None:
        """``repr`` has the protocol and the port, or what Twisted says of an adopted one."""
        transport = Connection().transport
        self.assertEqual(repr(transport), "<Peer #0 on None>")
        transport.repstr = "<Peer #0 on 8888>"
        self.assertEqual(repr(transport), "<Peer #0 on 8888>")


class SendingTests(SynchronousTestCase):
    """What is written leaves in one send, and at once."""

    def setUp(self) -> None:
        self.connection = Connection()
        self.socket = self.connection.socket
        self.transport = self.connection.transport

    def test_at_once(self) -> None:
        """A write outside dataReceived is sent before it returns, and nothing waits."""
        self.transport.write(b"hello")
        self.assertEqual(self.socket.sent, b"hello")
        self.assertEqual(self.connection.reactor.added, 0)

    def test_sequence_at_once(self) -> None:
        """writeSequence is one send."""
        self.transport.writeSequence([b"a", b"b", b"c"])
        self.assertEqual((self.socket.sent, self.socket.sends), (b"abc", 1))

    def test_joined_while_receiving(self) -> None:
        """All writes of one dataReceived leave in one send, when it returns."""

        def answer() -> None:
            self.transport.write(b"a")
            self.transport.writeSequence([b"b", b"c"])
            self.transport.write(b"d")
            self.assertEqual(self.socket.sends, 0)

        self.connection.receive(b"?", answer)
        self.assertEqual((self.socket.sent, self.socket.sends), (b"abcd", 1))
        self.assertEqual(self.connection.reactor.added, 0)

    def test_nothing_written(self) -> None:
        """Receiving alone sends nothing, nor does an empty write."""
        self.connection.receive(b"?")
        self.transport.write(b"")
        self.assertEqual(self.socket.sends, 0)
        self.assertEqual(self.connection.reactor.added, 0)

    def test_rest_waits(self) -> None:
        """What the kernel does not take waits in order, with what comes after it."""
        self.socket.room = 3
        self.transport.write(b"hello ")
        self.assertEqual(self.socket.sent, b"hel")
        self.assertTrue(self.connection.waits_to_write)
        self.socket.room = 100
        self.transport.write(b"world")
        self.assertEqual(self.socket.sent, b"hel")
        self.connection.reactor.turn()
        self.assertEqual(self.socket.sent, b"hello world")
        self.assertFalse(self.connection.waits_to_write)

    def test_no_room(self) -> None:
        """A kernel that takes nothing now is asked again by the reactor."""
        for code in (errno.EWOULDBLOCK, errno.ENOBUFS):
            with self.subTest(code=code):
                connection = Connection()
                connection.socket.error = code
                connection.transport.write(b"hello")
                self.assertEqual(connection.socket.sent, b"")
                connection.reactor.turn()
                self.assertEqual(connection.socket.sent, b"hello")
                self.assertEqual(connection.protocol.told, [])

    def test_many_small_writes(self) -> None:
        """A loop of writes sends a few at once and joins the others."""
        for i in range(1000):
            self.transport.write(b"%03d" % i)
        self.assertEqual(self.socket.sends, SENDS_IN_A_ROW)
        self.connection.reactor.turn()
        self.assertEqual(self.socket.sends, SENDS_IN_A_ROW + 1)
        self.assertEqual(self.socket.sent, b"".join(b"%03d" % i for i in range(1000)))

    def test_sends_come_back(self) -> None:
        """After an event of either kind writes are sent at once again."""

        def read() -> None:
            self.connection.receive(b"?")

        for event in (self.connection.reactor.turn, read):
            with self.subTest(event=event):
                for _ in range(SENDS_IN_A_ROW + 1):
                    self.transport.write(b"x")
                event()
                self.connection.reactor.turn()
                sends = self.socket.sends
                self.transport.write(b"x")
                self.assertEqual(self.socket.sends, sends + 1)

    def test_large_writes_wait(self) -> None:
        """More than the reactor's share of one turn is left to it."""
        data = b"x" * (self.transport.SEND_LIMIT + 1)
        self.transport.write(data)
        self.assertEqual(self.socket.sends, 0)
        for _ in range(3):
            self.connection.reactor.turn()
        self.assertEqual(self.socket.sent, data)

    def test_only_bytes(self) -> None:
        """Anything but bytes is refused, as ever; a subclass of bytes is not."""
        for wrong in ("text", bytearray(b"x"), None):
            self.assertRaises(TypeError, self.transport.write, wrong)

        class Tagged(bytes):
            pass

        self.transport.write(Tagged(b"fine"))
        self.assertEqual(self.socket.sent, b"fine")


class PendingWriteTests(SynchronousTestCase):
    """On a reactor that wishes it, what is written while receiving leaves at the end of a turn."""

    def setUp(self) -> None:
        self.connection = Connection(reactor=FakeQuietReactor)
        self.socket = self.connection.socket
        self.transport = self.connection.transport

    def turn(self, on_data: Any, on_read: Any = lambda: None) -> None:  # Any: as above
        """Have bytes arrive, something done about them, and something else before the turn ends."""
        self.connection.protocol.on_data = on_data
        self.socket.incoming.append(b"?")
        self.connection.reactor.turn(on_read)

    def test_at_the_end(self) -> None:
        """It leaves in one send, with what others wrote to the connection in the same turn."""

        def others() -> None:
            self.assertFalse(Batch().takes(self.transport))
            self.transport.write(b" news")
            self.assertEqual(self.socket.sends, 0)

        self.turn(lambda: self.transport.write(b"answer"), others)
        self.assertEqual((self.socket.sent, self.socket.sends), (b"answer news", 1))
        self.assertEqual(self.connection.reactor.added, 0)
        self.transport.write(b"!")
        self.assertEqual(self.socket.sent, b"answer news!")

    def test_nothing_written(self) -> None:
        """Who wrote nothing is not asked at the end."""
        pending = cast(FakeQuietReactor, self.connection.reactor).pending_writes
        self.turn(lambda: None, lambda: self.assertEqual(pending, []))
        self.assertEqual(self.socket.sends, 0)

    def test_ended_meanwhile(self) -> None:
        """One that is aborted, or lost, before the turn ends sends nothing any more."""

        def lose() -> None:
            self.transport.connectionLost(Failure(ConnectionDone()))

        for end in (self.transport.abortConnection, lose):
            with self.subTest(end=end):
                self.turn(lambda: self.transport.write(b"answer"), end)
                self.assertEqual(self.socket.sends, 0)
                self.connection.reactor.turn()
                self.assertFalse(self.connection.waits_to_write)
                self.setUp()

    def test_closed_meanwhile(self) -> None:
        """One that is to close before the turn ends still sends its answer."""
        self.turn(lambda: self.transport.write(b"answer"), self.transport.loseConnection)
        self.assertEqual(self.socket.sent, b"answer")
        self.assertEqual(self.connection.protocol.told, [ConnectionDone])

    def test_read_and_written_at_once(self) -> None:
        """Where the reactor also says that there is room, what is written leaves then."""

        def room() -> None:
            self.assertIsNone(self.transport.doWrite())
            self.assertEqual(self.socket.sent, b"answer")

        self.turn(lambda: self.transport.write(b"answer"), room)
        self.assertEqual(self.socket.sends, 1)
        self.assertFalse(self.connection.waits_to_write)

    def test_too_much(self) -> None:
        """The producer is paused for more than the transport holds, though nothing is sent yet."""
        producer = Producer()
        self.transport.registerProducer(producer, True)

        def write() -> None:
            self.transport.write(b"x" * (BUFFER_SIZE + 1))
            self.assertEqual(producer.told, ["pause"])

        self.turn(write)
        self.connection.reactor.turn()
        self.assertEqual(producer.told, ["pause", "resume"])
        self.assertEqual(len(self.socket.sent), BUFFER_SIZE + 1)


class EndingTests(SynchronousTestCase):
    """A connection ends as on the stock transport."""

    def test_close_while_receiving(self) -> None:
        """An answer with loseConnection behind it leaves, and then the connection ends."""
        connection = Connection()

        def answer() -> None:
            connection.transport.write(b"bye")
            connection.transport.loseConnection()

        connection.receive(b"?", answer)
        connection.reactor.turn()
        self.assertEqual(connection.socket.sent, b"bye")
        self.assertEqual(connection.protocol.told, [ConnectionDone])

    def test_close_with_queue(self) -> None:
        """loseConnection waits for the bytes before it."""
        connection = Connection()
        connection.socket.room = 1
        connection.transport.write(b"bye")
        connection.transport.loseConnection()
        connection.reactor.turn()
        self.assertEqual(connection.protocol.told, [])
        connection.socket.room = 10
        connection.reactor.turn()
        self.assertEqual(connection.socket.sent, b"bye")
        self.assertEqual(connection.protocol.told, [ConnectionDone])

    def test_write_after_loss(self) -> None:
        """A write to a connection that is lost is dropped."""
        connection = Connection()
        connection.transport.loseConnection()
        connection.reactor.turn()
        connection.transport.write(b"x")
        self.assertEqual(connection.socket.sends, 1)  # the empty one of the stock transport
        self.assertFalse(connection.waits_to_write)

    def test_half_close(self) -> None:
        """loseWriteConnection sends what came before it; what comes later is dropped."""
        connection = Connection(protocol=HalfPeer)

        def answer() -> None:
            connection.transport.write(b"last")
            connection.transport.loseWriteConnection()

        connection.receive(b"?", answer)
        connection.reactor.turn()
        self.assertEqual(connection.socket.sent, b"last")
        self.assertEqual(connection.socket.shut, [1])
        self.assertEqual(connection.protocol.told, ["write"])
        connection.receive(b"?", lambda: connection.transport.write(b"dropped"))
        connection.reactor.turn()
        self.assertEqual(connection.socket.sent, b"last")
        connection.transport.loseConnection()
        self.assertEqual(connection.protocol.told, ["write", ConnectionDone])

    def test_abort_while_receiving(self) -> None:
        """Nothing written around abortConnection is sent."""
        connection = Connection()

        def abort() -> None:
            connection.transport.write(b"before")
            connection.transport.abortConnection()
            connection.transport.write(b"after")

        connection.receive(b"?", abort)
        connection.reactor.turn()
        self.assertEqual(connection.socket.sent, b"")
        self.assertTrue(connection.socket.reset)
        self.assertEqual(connection.protocol.told, [ConnectionAborted])

    def test_lost_while_receiving(self) -> None:
        """A connection that is gone when dataReceived returns is left alone."""
        connection = Connection()

        def lose() -> None:
            connection.transport.write(b"x")
            connection.transport.connectionLost(Failure(ConnectionDone()))

        connection.receive(b"?", lose)
        self.assertEqual(connection.socket.sends, 0)
        self.assertFalse(connection.waits_to_write)
        self.assertEqual(connection.protocol.told, [ConnectionDone])

    def test_bug_while_receiving(self) -> None:
        """A dataReceived that fails ends the connection, and what it wrote is dropped."""
        connection = Connection()

        def fail() -> None:
            connection.transport.write(b"half an ans")
            raise ZeroDivisionError

        connection.protocol.on_data = fail
        connection.socket.incoming.append(b"?")
        connection.reactor.turn()
        self.assertEqual(connection.socket.sent, b"")
        self.assertEqual(connection.protocol.told, [ZeroDivisionError])

    def test_reads(self) -> None:
        """No bytes now is nothing; the end is clean; an error is a loss."""
        for item, told in (
            (errno.EWOULDBLOCK, []),
            (b"", [ConnectionDone]),
            (errno.ECONNRESET, [ConnectionLost]),
        ):
            with self.subTest(item=item):
                connection = Connection()
                connection.socket.incoming.append(item)
                connection.reactor.turn()
                self.assertEqual(connection.protocol.told, told)


class FailedSendTests(SynchronousTestCase):
    """A send that fails ends the connection in the next turn, not within the write."""

    def test_not_within_write(self) -> None:
        """The protocol hears of it from the reactor; nothing more is sent."""
        for code in (errno.EPIPE, errno.ECONNRESET, errno.ETIMEDOUT):
            with self.subTest(code=code):
                connection = Connection()
                connection.socket.error = code
                connection.transport.write(b"hello")
                connection.transport.write(b"again")
                self.assertEqual(connection.protocol.told, [])
                connection.reactor.turn()
                self.assertEqual(connection.protocol.told, [ConnectionLost])
                self.assertEqual(connection.socket.sends, 1)

    def test_reset_is_no_clean_end(self) -> None:
        """A send that took a reset off the socket leaves no clean end for the read to find."""
        for code, told in ((errno.ECONNRESET, ConnectionLost), (errno.EPIPE, ConnectionDone)):
            with self.subTest(code=code):
                connection = Connection()
                connection.socket.error = code
                connection.transport.write(b"hello")
                connection.socket.incoming.append(b"")
                connection.reactor.turn()
                self.assertEqual(connection.protocol.told, [told])


class ProducerTests(SynchronousTestCase):
    """Producers are paused and resumed for what the kernel does not take."""

    def setUp(self) -> None:
        self.connection = Connection()
        self.socket = self.connection.socket
        self.transport = self.connection.transport
        self.producer = Producer()

    def test_push_not_paused(self) -> None:
        """While the kernel takes all, a producer is not paused."""
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * BUFFER_SIZE)
        self.transport.write(b"x" * BUFFER_SIZE)
        self.assertEqual(self.producer.told, [])
        self.assertEqual(len(self.socket.sent), 2 * BUFFER_SIZE)

    def test_push_paused_and_resumed(self) -> None:
        """Over the buffer's size it is paused, and resumed by the reactor once all has left."""
        self.transport.registerProducer(self.producer, True)
        self.socket.room = 1
        self.transport.write(b"x" * BUFFER_SIZE)
        self.assertEqual(self.producer.told, [])
        self.transport.write(b"xx")
        self.assertEqual(self.producer.told, ["pause"])
        self.socket.room = 10 * BUFFER_SIZE
        self.connection.reactor.turn()
        self.assertEqual(self.producer.told, ["pause", "resume"])
        self.transport.loseConnection()
        self.transport.unregisterProducer()
        self.connection.reactor.turn()
        self.assertEqual(self.connection.protocol.told, [ConnectionDone])

    def test_resume_never_within_write(self) -> None:
        """A producer that fills the buffer in one write is resumed in the next turn."""
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * (BUFFER_SIZE + 1))
        self.assertEqual(self.producer.told, ["pause"])
        self.assertEqual(self.socket.sends, 0)
        self.connection.reactor.turn()
        self.assertEqual(self.producer.told, ["pause", "resume"])

    def test_paused_while_receiving(self) -> None:
        """The same holds for answers."""
        self.transport.registerProducer(self.producer, True)
        answer = b"x" * (BUFFER_SIZE + 1)
        self.connection.receive(b"?", lambda: self.transport.write(answer))
        self.assertEqual(self.producer.told, ["pause"])
        self.connection.reactor.turn()
        self.assertEqual(self.producer.told, ["pause", "resume"])
        self.assertEqual(self.socket.sent, answer)

    def test_gives_up_when_paused(self) -> None:
        """A producer that ends the connection when it is paused has its bytes sent first."""
        self.transport.registerProducer(self.producer, True)

        def give_up() -> None:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

        self.producer.on_pause = give_up
        self.transport.write(b"x" * (BUFFER_SIZE + 1))
        self.assertEqual(self.connection.protocol.told, [])
        self.connection.reactor.turn()
        self.assertEqual(len(self.socket.sent), BUFFER_SIZE + 1)
        self.assertEqual(self.connection.protocol.told, [ConnectionDone])

    def test_pull(self) -> None:
        """A pull producer is asked for one piece in each turn."""
        pieces = [b"a", b"b", b"c"]

        def produce() -> None:
            if pieces:
                self.transport.write(pieces.pop(0))
            else:
                self.transport.unregisterProducer()

        self.producer.on_resume = produce
        self.transport.registerProducer(self.producer, False)
        for turn, sent in enumerate([b"a", b"ab", b"abc", b"abc"], 1):
            self.connection.reactor.turn()
            self.assertEqual(self.socket.sent, sent)
            self.assertEqual(len(self.producer.told), turn + 1 if turn < 4 else 4)

    def test_stopped(self) -> None:
        """A producer is stopped where the connection is lost."""
        self.transport.registerProducer(self.producer, True)
        self.socket.error = errno.EPIPE
        self.transport.write(b"x")
        self.connection.reactor.turn()
        self.assertEqual(self.producer.told, ["stop"])

    def test_pause_in_a_chunk(self) -> None:
        """pauseProducing in dataReceived stops the reading, and answers leave nevertheless."""

        def pause() -> None:
            self.transport.pauseProducing()
            self.transport.write(b"x")

        self.connection.receive(b"?", pause)
        self.assertEqual(self.socket.sent, b"x")
        self.assertNotIn(self.transport, self.connection.reactor.readers)
        self.transport.resumeProducing()
        self.assertIn(self.transport, self.connection.reactor.readers)


class BatchTests(SynchronousTestCase):
    """Writes to many connections are made together, and each is as one on its own."""

    def setUp(self) -> None:
        self.connections = [Connection() for _ in range(4)]

    def write(self, data: bytes) -> None:
        """Write to all that a batch takes."""
        batch = Batch()
        for connection in self.connections:
            if batch.takes(connection.transport):
                batch.add(connection.transport, data)
        batch.send()

    def test_at_once(self) -> None:
        """Each is sent its own at once, in one send; the reactor has nothing to do."""
        batch = Batch()
        for i, connection in enumerate(self.connections):
            self.assertTrue(batch.takes(connection.transport))
            batch.add(connection.transport, b"%d" % i)
        batch.send()
        self.assertEqual([c.socket.sent for c in self.connections], [b"0", b"1", b"2", b"3"])
        self.assertEqual([c.socket.sends for c in self.connections], [1] * 4)
        self.assertEqual([c.reactor.added for c in self.connections], [0] * 4)
        Batch().send()

    def test_always_at_once(self) -> None:
        """However many follow each other, none goes through the reactor."""
        for _ in range(3 * SENDS_IN_A_ROW):
            self.write(b"x")
        for connection in self.connections:
            self.assertEqual(connection.socket.sent, b"x" * 3 * SENDS_IN_A_ROW)
            self.assertEqual(connection.reactor.added, 0)

    def test_not_all_taken(self) -> None:
        """What one kernel does not take waits in order; the others have all of theirs."""
        first, second, third, _ = self.connections
        first.socket.room = 0
        second.socket.room = 2
        third.socket.error = errno.ENOBUFS
        self.write(b"hello ")
        self.assertEqual([c.socket.sent for c in self.connections], [b"", b"he", b"", b"hello "])
        self.assertEqual([c.waits_to_write for c in self.connections], [True] * 3 + [False])
        for connection in self.connections:
            connection.socket.room = 100
        batch = Batch()
        self.assertEqual([batch.takes(c.transport) for c in self.connections], [False] * 3 + [True])
        for connection in self.connections:
            connection.transport.write(b"world")
            connection.reactor.turn()
            self.assertEqual(connection.socket.sent, b"hello world")

    def test_failed(self) -> None:
        """A send that fails ends its own connection alone, and in the next turn."""
        self.connections[1].socket.error = errno.ECONNRESET
        with cyclic_garbage() as left:
            self.write(b"hello")
        self.assertEqual(left, set())
        self.assertEqual([c.protocol.told for c in self.connections], [[]] * 4)
        for connection in self.connections:
            connection.reactor.turn()
        self.assertEqual(
            [c.protocol.told for c in self.connections], [[], [ConnectionLost], [], []]
        )
        self.assertEqual([c.socket.sent for c in self.connections].count(b"hello"), 3)

    def test_taken(self) -> None:
        """A connection that has anything else to see to is not taken, nor is a stock one."""
        producer = Producer()

        def spend(connection: Any) -> None:  # Any: the fakes are a transport's
            for _ in range(SENDS_IN_A_ROW):
                connection.write(b"x")

        states: dict[str, Any] = {
            "nothing": lambda _: None,
            "a push producer": lambda c: c.registerProducer(producer, True),
            "a pull producer": lambda c: c.registerProducer(producer, False),
            "its sends made": spend,
            "more than it may send": lambda c: c.write(b"x" * (BUFFER_SIZE + 1)),
            "closing": lambda c: c.loseConnection(),
            "half closed": lambda c: c.loseWriteConnection(),
            "aborted": lambda c: c.abortConnection(),
            "lost": lambda c: c.connectionLost(Failure(ConnectionDone())),
            "under TLS": lambda c: setattr(c, "TLS", True),
        }
        taken = []
        for name, bring_about in states.items():
            connection = Connection()
            bring_about(connection.transport)
            if Batch().takes(connection.transport):
                taken.append(name)
        self.assertEqual(taken, ["nothing", "a push producer"])
        self.assertFalse(Batch().takes(Connection(tcp.Server).transport))
        within = Connection()
        within.receive(b"?", lambda: taken.append(str(Batch().takes(within.transport))))
        self.assertEqual(taken[2:], ["False"])


def write_together(connection: Connection, data: bytes) -> None:
    """Write in a batch where one takes the connection, and as ever where none does."""
    batch = Batch()
    if data and batch.takes(connection.transport):
        batch.add(connection.transport, data)
        batch.send()
    else:
        connection.transport.write(data)


STEPS = st.one_of(
    st.tuples(st.sampled_from(["write", "write_together"]), st.binary(max_size=4)),
    st.tuples(st.just("writeSequence"), st.lists(st.binary(max_size=2), max_size=3)),
    st.tuples(st.sampled_from(["loseConnection", "loseWriteConnection", "abortConnection"])),
    st.tuples(st.sampled_from(["pauseProducing", "resumeProducing", "stopProducing"])),
)
ENDINGS = ("loseConnection", "loseWriteConnection", "abortConnection", "stopProducing")
SCRIPTS = st.lists(
    st.one_of(
        STEPS,
        # What is done while it receives, and what by others before the turn is over.
        st.tuples(st.just("receive"), st.lists(STEPS, max_size=4), st.lists(STEPS, max_size=2)),
        st.tuples(st.just("room"), st.integers(0, 6)),
        st.tuples(st.just("turn")),
    ),
    max_size=12,
)


def play(
    kind: type[tcp.Server],
    protocol: type[Peer],
    script: Any,
    reactor: type[FakeReactor] = FakeReactor,
) -> tuple[object, ...]:
    """Return what the peer and the protocol of a transport see of a script in the end."""
    connection = Connection(kind, protocol, reactor)
    # With too little room the stock transport still has bytes to send where ours has none, and
    # ends later: what is said to it in between still counts.
    no_last_words = any(step[0] == "room" for step in script)
    ending = False

    def act(steps: Any) -> None:  # Any: tuples of many forms
        nonlocal ending
        for name, *arguments in steps:
            if ending and no_last_words and name.startswith(("write", *ENDINGS)):
                pass
            elif name == "write_together":
                write_together(connection, *arguments)
            else:
                getattr(connection.transport, name)(*arguments)
            ending = ending or name in ENDINGS

    for step in script:
        match step:
            case ("receive", steps, others):
                if connection.transport in connection.reactor.readers:
                    connection.protocol.on_data = lambda steps=steps: act(steps)
                    connection.socket.incoming.append(b"?")
                    connection.reactor.turn(lambda others=others: act(others))
            case ("room", room):
                connection.socket.room = room
            case ("turn",):
                connection.reactor.turn()
            case ("loseWriteConnection",) if connection.socket.closed:
                pass  # the stock transport then asks the reactor to watch a closed socket
            case _:
                act([step])
    connection.socket.room = 1000
    for _ in range(4):
        connection.reactor.turn()
    told, socket = connection.protocol.told, connection.socket
    return socket.sent, told, connection.protocol.received, socket.shut, socket.reset


class LikenessTests(SynchronousTestCase):
    """Whatever is done with it, it comes to the same as with the stock transport."""

    @settings(max_examples=300)
    @given(
        st.sampled_from([Peer, HalfPeer]),
        SCRIPTS,
        st.sampled_from([FakeReactor, FakeQuietReactor]),
    )
    def test_like_stock(
        self, protocol: type[Peer], script: Any, reactor: type[FakeReactor]
    ) -> None:
        """The peer gets the same bytes and ends, and the protocol hears the same."""
        aborts = any("abortConnection" in str(step) for step in script)
        ours = play(FastTransport, protocol, script, reactor)
        stock = play(tcp.Server, protocol, script)
        if aborts:
            # What an abort overtakes may have left already.
            self.assertTrue(ours[0].startswith(stock[0]))  # type: ignore[attr-defined]  # bytes
            self.assertEqual(ours[1], stock[1])
        else:
            self.assertEqual(ours, stock)


class KnownTwistedTests(SynchronousTestCase):
    """The transport leans on private parts of Twisted, which must be as we know them."""

    def test_as_we_know_it(self) -> None:
        """
        No method that FastTransport leans on has changed.

        If this fails, Twisted has: until it is mended, all connections use the stock transport.
        Read what changed in these methods, make FastTransport fit, run
        ``python -m tests.conformance.transports``, and update the table in twisted_internals.
        """
        self.assertEqual(fast_transport_changes(), [])

    def test_falls_back(self) -> None:
        """With another Twisted, the stock transport serves, and the log says so once."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)  # mypy sees no function's interface
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        transport._known.cache_clear()
        self.addCleanup(transport._known.cache_clear)
        reactor: Any = PretendedPosixReactor()  # Any: listenTCP is all that is called
        with patch.object(transport, "fast_transport_changes", lambda: ["Server.write"]):
            for _ in range(2):
                listen_tcp(reactor, 8888, Factory.forProtocol(Protocol))
        self.assertEqual(reactor.listening, [8888, 8888])
        warnings = [event for event in events if "changes" in event]
        self.assertEqual([event["changes"] for event in warnings], ["Server.write"])


class PretendedPosixReactor(PosixReactorBase):
    """A reactor that FastPort works with, but for its ports."""

    def __init__(self) -> None:
        self.listening: list[object] = []

    def listenTCP(self, port: int, *arguments: object) -> None:
        """Note what is asked for."""
        self.listening.append(port)


class ListenTests(SynchronousTestCase):
    """:func:`listen_tcp` and the endpoint; real ports are in tests/live."""

    def test_other_reactors(self) -> None:
        """A reactor in memory is asked for its own port, with the same arguments."""
        reactor = MemoryReactorClock()
        factory = Factory.forProtocol(Protocol)
        listen_tcp(reactor, 8888, factory)
        listen_tcp(reactor, 8889, factory, 7, "::1")
        self.assertEqual(
            reactor.tcpServers,
            [(8888, factory, 4096, "127.0.0.1"), (8889, factory, 7, "::1")],
        )

    def test_endpoint(self) -> None:
        """A description yields an endpoint that listens where it says."""
        reactor: Any = MemoryReactorClock()  # Any: it is a reactor to the parser
        factory = Factory.forProtocol(Protocol)
        parser = FastServerParser()
        for endpoint, expected in (
            (parser.parseStreamServer(reactor, "80"), (80, factory, 4096, "")),
            (
                parser.parseStreamServer(reactor, "81", interface="::1", backlog="9"),
                (81, factory, 9, "::1"),
            ),
            (
                FastServerEndpoint(reactor, 82, interface="127.0.0.1"),
                (82, factory, 4096, "127.0.0.1"),
            ),
        ):
            self.successResultOf(endpoint.listen(factory))
            self.assertEqual(reactor.tcpServers[-1], expected)

    def test_bad_description(self) -> None:
        """What is no number is refused while the description is read."""
        reactor: Any = MemoryReactorClock()  # Any: as above
        parser = FastServerParser()
        self.assertRaises(ValueError, parser.parseStreamServer, reactor, "http")
        self.assertRaises(ValueError, parser.parseStreamServer, reactor, "80", backlog="many")
