"""The lines of the command protocol, in the messages of a WebSocket."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from tests.garbage import cyclic_garbage
from tests.tcp.memory import Reactor
from twisted_net.commands.registry import Commands
from twisted_net.commands.standard import standard_commands
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.rejection import LINGER_TIMEOUT
from twisted_net.tcp.server import SWEEP_INTERVAL, CommandFactory
from twisted_net.tcp.websocket import MAX_FRAGMENTS, WebSocketFactory

LIMITS = Limits(max_line=1000, max_pending=4)


async def _fetch(url: str) -> dict[str, object]:
    raise NotImplementedError(url)


class Client:
    """A WebSocket client over a connection in memory, made by another library than the server."""

    def __init__(self, reactor: Reactor, factory: Factory) -> None:
        self._reactor = reactor
        self.connection = reactor.connect(factory)
        self._wire = WSConnection(ConnectionType.CLIENT)

    def open(self, origin: str | None = None) -> Event | None:
        """Shake hands, and return what came of it."""
        headers = [] if origin is None else [(b"Origin", origin.encode())]
        request = Request(host="a.test", target="/any", extra_headers=headers)
        self.connection.send(self._wire.send(request))
        return next(iter(self.events()), None)

    def send(self, *events: Event) -> None:
        """Send events in one segment."""
        self.connection.send(b"".join(map(self._wire.send, events)))

    def events(self) -> list[Event]:
        """Let the server do what it does, and take what it has sent."""
        self._reactor.settle()
        received = self.connection.received()
        if received:
            self._wire.receive_data(received)
        return list(self._wire.events())

    def say(self, *texts: str) -> None:
        """Send text messages."""
        self.send(*(TextMessage(data=text) for text in texts))

    def answers(self) -> list[Any]:  # Any: JSON
        """Take the messages that came, decoded; all must be whole lines without their ends."""
        messages = [event for event in self.events() if isinstance(event, Message)]
        assert all(isinstance(message, TextMessage) for message in messages)
        assert all(message.message_finished for message in messages)
        assert not any("\n" in str(message.data) for message in messages)
        return [json.loads(message.data) for message in messages]


class WebSocketCase(SynchronousTestCase):
    """A command server behind a WebSocket."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.registry = standard_commands(_fetch)
        self.commands = CommandFactory(self.reactor, self.registry, LIMITS)
        self.handshakes = Handshakes(self.reactor, 10, 100, self.commands.sessions.refused)
        self.factory = WebSocketFactory(
            self.commands, self.handshakes, self.reactor, ["https://a.test"]
        )

    def client(self) -> Client:
        """Connect, and say nothing."""
        return Client(self.reactor, self.factory)

    def opened(self) -> Client:
        """Connect and shake hands."""
        client = self.client()
        self.assertIsInstance(client.open(), AcceptConnection)
        return client

    def ended(self) -> dict[str, int]:
        """Return the reasons for which connections have ended."""
        ended = self.commands.sessions.counters.ended
        return {end.value: count for end, count in ended.items() if count}


class HandshakeTests(WebSocketCase):
    """Who may connect, and how."""

    def test_accepted(self) -> None:
        """A client is a session when its handshake is done, with its own address."""
        client = self.client()
        self.reactor.settle()
        self.assertEqual((len(self.commands.sessions), len(self.handshakes)), (0, 1))
        client.open()
        (session,) = self.commands.sessions
        self.assertEqual(session.client[0], "192.0.2.1")
        self.assertTrue(client.connection.no_delay)
        self.assertEqual(len(self.handshakes), 0)

    def test_origins(self) -> None:
        """Pages of sites that are listed may connect, and those of others may not."""
        self.assertIsInstance(self.client().open("https://a.test"), AcceptConnection)
        for origin in ("https://b.test", "http://a.test", "null", "https://a.test:444"):
            client = self.client()
            refusal = client.open(origin)
            assert isinstance(refusal, RejectConnection)
            self.assertEqual(refusal.status_code, 403)
            self.assertTrue(client.connection.gone)
        self.assertEqual(self.ended(), {"handshake_failed": 4})

    def test_two_origins(self) -> None:
        """A request with two origins has none that can be believed."""
        connection = self.reactor.connect(self.factory)
        connection.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC==\r\n"
            b"Origin: https://a.test\r\nOrigin: https://a.test\r\n\r\n"
        )
        self.reactor.settle()
        self.assertIn(b" 403 ", connection.received())

    def test_any_origin(self) -> None:
        """An asterisk lets all pages in."""
        self.factory.origins = frozenset("*")
        self.assertIsInstance(self.client().open("https://b.test"), AcceptConnection)

    def test_no_websocket(self) -> None:
        """Plain HTTP, another version and what is no HTTP at all are refused and closed."""
        for data, status in [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nPING\n", b"400"),
            (b"PING\n\n", b"400"),
            (b"GET / HTTP/1.1\r\nHost: \xff\xff.\xfe\r\nConnection: Upgrade\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: \xff\r\n\r\n", b"400"),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: x\r\n\r\n",
                b"426",
            ),
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, b"4"),
        ]:
            with self.subTest(data=data[:60]):
                connection = self.reactor.connect(self.factory)
                connection.send(data)
                self.reactor.settle()
                self.assertTrue(connection.received().startswith(b"HTTP/1.1 " + status))
                self.assertTrue(connection.gone)
        self.assertEqual(self.ended(), {"handshake_failed": 7})

    def test_any_segments(self) -> None:
        """The request may come byte by byte."""
        connection = self.reactor.connect(self.factory)
        wire = WSConnection(ConnectionType.CLIENT)
        for byte in wire.send(Request(host="a.test", target="/")):
            connection.send(bytes([byte]))
            self.reactor.settle()
        self.assertEqual(len(self.commands.sessions), 1)

    def test_silence(self) -> None:
        """A handshake that is not over in time ends the connection; so does a refusal unread."""
        silent = self.client().connection
        slow = self.client().connection
        slow.send(b"GET / HTTP/1.1\r\n")
        unread = self.client().connection
        unread.reads = False
        unread.send(b"PING\n\n")
        self.reactor.pass_time(10)
        for connection in (silent, slow, unread):
            self.assertTrue(connection.gone)
        self.assertEqual(self.ended(), {"handshake_timeout": 3})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_bytes_after_a_refusal(self) -> None:
        """What follows a refusal is dropped."""
        connection = self.client().connection
        connection.reads = False
        connection.send(b"PING\n\n")
        self.reactor.settle()
        connection.protocol.dataReceived(b"PING\n\n")
        connection.reads = True
        self.reactor.settle()
        self.assertEqual(connection.received().count(b"HTTP/1.1"), 1)


class LinesTests(WebSocketCase):
    """Messages are lines, and lines are messages."""

    def test_messages(self) -> None:
        """Each message is a line, or several; each line is answered with a message."""
        client = self.opened()
        client.say("ECHO a", "ECHO b\n", "ECHO c\nECHO d\r\n", "ECHO ä€𝄞", "")
        answers = client.answers()
        self.assertEqual(
            [answer.get("result") for answer in answers], ["a", "b", "c", "d", "ä€𝄞", None]
        )
        self.assertEqual(answers[-1]["code"], "empty")

    def test_fragments(self) -> None:
        """A message may come in any number of frames, cut within a line or after it."""
        for pieces in (["EC", "HO a", " b"], ["ECHO a b\n", ""], ["", "ECHO a b"]):
            client = self.opened()
            client.send(
                *(
                    TextMessage(data=piece, message_finished=i == len(pieces) - 1)
                    for i, piece in enumerate(pieces)
                )
            )
            self.assertEqual([answer["result"] for answer in client.answers()], ["a b"])

    @given(st.lists(st.integers(1, 200), max_size=8), st.integers(0, 9))
    def test_any_cut(self, cuts: list[int], size: int) -> None:
        """However the stream of bytes is cut, the answers are the same."""
        client = self.opened()
        stream = b"".join(
            client._wire.send(TextMessage(data=f"ECHO {'x' * size * 20} {i}")) for i in range(3)
        )
        for cut in cuts:
            client.connection.send(stream[:cut])
            self.reactor.settle()
            stream = stream[cut:]
        client.connection.send(stream)
        self.assertEqual([answer["result"][-1] for answer in client.answers()], ["0", "1", "2"])

    def test_sizes(self) -> None:
        """Answers of any size arrive whole, at the edges of the three forms of a frame too."""
        self.commands = CommandFactory(self.reactor, self.registry, Limits(max_line=100_000))
        self.factory.inner = self.commands
        client = self.opened()
        for size in (86, 87, 88, 65_490, 65_496, 65_497, 80_000):
            client.say("ECHO " + "x" * size)
            self.assertEqual(client.answers()[0]["result"], "x" * size)

    def test_long_message(self) -> None:
        """A message over the limit of a line is refused as such, and nothing of it is kept."""
        client = self.opened()
        client.send(*(TextMessage(data="x" * 500, message_finished=False) for _ in range(50)))
        client.send(TextMessage(data="x\nPING"))
        self.assertEqual(
            [answer.get("code") for answer in client.answers()], ["line_too_long", None]
        )

    def test_events(self) -> None:
        """Events are messages too."""
        client = self.opened()
        self.commands.sessions.broadcast({"event": "news"})
        self.assertEqual(client.answers(), [{"event": "news"}])

    def test_many_messages(self) -> None:
        """A client that sends a thousand messages at once does not hold up another."""
        busy, other = self.opened(), self.opened()
        busy.say(*["PING"] * 2000)
        other.say("PING")
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(len(other.answers()), 1)
        self.assertEqual(len(busy.answers()), 2000)

    def test_binary(self) -> None:
        """A message that is not text ends the connection with code 1003."""
        client = self.opened()
        client.say("PING")
        client.send(BytesMessage(data=b"PING"))
        events = client.events()
        self.assertEqual(len(events), 2)
        close = events[-1]
        assert isinstance(close, CloseConnection)
        self.assertEqual(close.code, 1003)
        self.assertTrue(client.connection.gone)

    def test_many_fragments(self) -> None:
        """A message may have as many frames as the limit says; one more ends the connection."""
        client = self.opened()
        limit = [TextMessage(data="", message_finished=False)] * (MAX_FRAGMENTS - 1)
        for _ in range(2):
            client.send(*limit, TextMessage(data="PING"))
            self.assertEqual(len(client.answers()), 1)
        # A frame counts once, in however many segments it comes.
        (frame,) = map(client._wire.send, [TextMessage(data="PING " * 9, message_finished=False)])
        for i in range(len(frame)):
            client.connection.send(frame[i : i + 1])
            self.reactor.settle()
        client.send(*limit[1:], TextMessage(data="\nPING"))
        self.assertEqual(len(client.answers()), 2)
        client.send(TextMessage(data="PING\n", message_finished=False), *limit)
        client.send(TextMessage(data="PING", message_finished=True))
        answer, close = client.events()
        assert isinstance(answer, TextMessage)
        assert isinstance(close, CloseConnection)
        self.assertEqual((close.code, close.reason), (1009, "a message has at most 1024 frames"))
        self.assertTrue(client.connection.gone)

    def test_broken_rules(self) -> None:
        """Frames that are not as they must be end the connection, with the code for that."""
        for data, code in [
            (b"\x81\x04PING", 1002),  # not masked
            (b"\x83\x84\0\0\0\0PING", 1002),  # no such opcode
            (b"\xc1\x84\0\0\0\0PING", 1002),  # compressed
            (b"\x81\x81\0\0\0\0\xff", 1007),  # not UTF-8
            (b"\x89\xfe\x00\x80\0\0\0\0", 1002),  # a ping that is too long
        ]:
            with self.subTest(data=data):
                client = self.opened()
                client.connection.send(data)
                (close,) = client.events()
                assert isinstance(close, CloseConnection)
                self.assertEqual(close.code, code)
                self.assertTrue(client.connection.gone)

    def test_lines_not_yet_whole(self) -> None:
        """What the protocol within writes is sent when its line ends."""
        client = self.opened()
        (session,) = self.commands.sessions
        session.deliver(b'{"event":')
        self.assertEqual(client.answers(), [])
        session.deliver(b'"x"}\n')
        self.assertEqual(client.answers(), [{"event": "x"}])


class PingTests(WebSocketCase):
    """Pings are answered."""

    def test_ping(self) -> None:
        """With their own payload; a pong is not answered."""
        client = self.opened()
        client.send(Ping(payload=b"1"), Pong(payload=b"2"))
        (pong,) = client.events()
        assert isinstance(pong, Pong)
        self.assertEqual(pong.payload, b"1")

    def test_pings_unread(self) -> None:
        """Pings of a client that does not read cost no memory; the last is answered."""
        client = self.opened()
        client.connection.reads = False
        while client.connection.unread <= 65_536:
            self.commands.sessions.broadcast({"event": "x" * 900})
        before = client.connection.unread
        for i in range(1000):
            client.send(Ping(payload=b"%d" % i))
            self.reactor.settle()
        self.assertEqual(client.connection.unread, before)
        client.connection.reads = True
        pongs = [event for event in client.events() if isinstance(event, Pong)]
        self.assertEqual([pong.payload for pong in pongs], [b"999"])


class EndTests(WebSocketCase):
    """How a WebSocket ends, from either side."""

    def wait_command(self) -> None:
        """Add a command that takes five seconds."""
        own = Commands()

        async def wait() -> str:
            from twisted.internet.task import deferLater

            return await deferLater(self.reactor, 5, lambda: "waited")

        own.command("WAIT", help="Five seconds.")(wait)
        self.registry.update(own)

    def test_client_closes(self) -> None:
        """A client that closes gets a closing frame in turn."""
        client = self.opened()
        client.say("PING")
        client.send(CloseConnection(code=1001))
        events = client.events()
        self.assertEqual([type(event) for event in events], [TextMessage, CloseConnection])
        self.assertTrue(client.connection.gone)
        self.assertEqual(self.ended(), {"client_closed": 1})

    def test_freed(self) -> None:
        """Nothing of one that has ended is left to the garbage collector, however it ended."""

        def close(client: Client) -> None:
            client.send(CloseConnection(code=1000))
            client.events()

        for end in (close, lambda client: client.connection.reset()):
            with cyclic_garbage() as left:
                client = self.opened()
                client.say("PING", "SUBSCRIBE a")
                end(client)
                self.reactor.settle()
                # Twisted's connections let go of their protocols, these do not.
                del client.connection.protocol, client
            self.assertEqual(left, set())
        self.assertEqual(len(self.commands.sessions), 0)

    def test_answers_before_the_close(self) -> None:
        """Answers that are waited for, and more lines than run in a turn, leave before it."""
        self.wait_command()
        client = self.opened()
        client.say(*["PING"] * 300, "WAIT")
        client.send(CloseConnection(code=1000))
        self.reactor.pass_time(6)
        events = client.events()
        self.assertEqual(len(events), 302)
        self.assertIsInstance(events[-1], CloseConnection)

    def test_drain(self) -> None:
        """A drained client gets the event and the close, and closes itself."""
        client = self.opened()
        client.connection.polite = False  # it goes by the closing frame
        drained = self.commands.drain(10)
        events = client.events()
        self.assertEqual([type(event) for event in events], [TextMessage, CloseConnection])
        self.assertNoResult(drained)
        close = events[-1]
        assert isinstance(close, CloseConnection)
        client.send(close.response())
        self.reactor.settle()
        self.successResultOf(drained)
        self.assertEqual(self.ended(), {"drained": 1})

    def test_client_that_does_not_close(self) -> None:
        """One that never closes in turn is cut off, long before the drain is over."""
        client = self.opened()
        client.connection.polite = False
        drained = self.commands.drain(90)
        self.reactor.pass_time(LINGER_TIMEOUT + SWEEP_INTERVAL)
        self.successResultOf(drained)
        self.assertTrue(client.connection.gone)
        self.assertEqual(self.ended(), {"drained": 1})

    def test_too_many(self) -> None:
        """A refusal of the server is a message, and the close."""
        self.commands.limits = Limits(max_connections=1)
        self.opened()
        client = self.client()
        client.send(Request(host="a.test", target="/"))
        accepted, message, close = client.events()
        self.assertIsInstance(accepted, AcceptConnection)
        assert isinstance(message, TextMessage)
        self.assertEqual(json.loads(message.data)["code"], "too_many_connections")
        self.assertIsInstance(close, CloseConnection)

    def test_never_reading(self) -> None:
        """A client that does not read is not read either, and disconnected in time."""
        client = self.opened()
        client.connection.reads = False
        for _ in range(400):
            client.say("ECHO " + "x" * 900)
        self.reactor.settle()
        self.assertLess(client.connection.unread, 200_000)
        self.reactor.pass_time(40)
        self.assertTrue(client.connection.gone)
        self.assertEqual(self.ended(), {"write_timeout": 1})

    def test_reset(self) -> None:
        """A connection that breaks ends the session, also while messages wait for a turn."""
        client = self.opened()
        client.say(*["PING"] * 1000)
        self.reactor.turn()
        client.connection.reset()
        self.assertEqual(len(self.commands.sessions), 0)
        self.reactor.settle()
        self.assertEqual(self.ended(), {"connection_lost": 1})


class TransportTests(WebSocketCase):
    """What a protocol may do with its transport."""

    def setUp(self) -> None:
        super().setUp()
        self.received: list[bytes] = []
        self.protocol: Any = None  # Any: the protocol below, once it is there
        case = self

        class Within(Protocol):
            """Keeps what comes."""

            def connectionMade(self) -> None:
                """Be known to the test."""
                case.protocol = self

            def dataReceived(self, data: bytes) -> None:
                """Keep it."""
                case.received.append(data)

        self.factory.inner = Factory.forProtocol(Within)

    def opened(self) -> Client:
        """Connect by a factory that is not the command server's."""
        client = self.client()
        client.open()
        return client

    def test_write_after_the_end(self) -> None:
        """What is written after the closing frame is dropped; to close twice is to close once."""
        client = self.opened()
        transport = self.protocol.transport
        transport.loseWriteConnection()
        transport.write(b"late\n")
        transport.loseConnection()
        self.assertEqual([type(event) for event in client.events()], [CloseConnection])

    def test_pause(self) -> None:
        """While it is paused nothing is read; then what has come is, once."""
        client = self.opened()
        transport = self.protocol.transport
        transport.pauseProducing()
        client.say("one")
        self.reactor.settle()
        self.assertEqual(self.received, [])
        transport.resumeProducing()
        transport.resumeProducing()
        self.reactor.settle()
        self.assertEqual(self.received, [b"one\n"])

    def test_bytes_that_come_while_a_turn_is_due(self) -> None:
        """What a layer below hands over while messages wait for a turn, waits behind them."""
        client = self.opened()
        client.say(*(f"{i}" for i in range(100)))
        more = client._wire.send(TextMessage(data="last"))
        self.reactor.turn()
        client.connection.protocol.dataReceived(more)
        self.assertEqual(len(self.received), 1)
        self.reactor.settle()
        lines = b"".join(self.received).split()
        self.assertEqual(lines, [*(b"%d" % i for i in range(100)), b"last"])


class InnerFactoryTests(WebSocketCase):
    """What :class:`WebSocketFactory` asks of the factory behind it."""

    def test_starts_and_stops_it(self) -> None:
        """The inner factory starts with the first port and stops with the last."""
        self.factory.doStart()  # type: ignore[no-untyped-call]  # as a port does
        self.assertEqual(self.commands.numPorts, 1)
        self.factory.doStop()  # type: ignore[no-untyped-call]  # as a port does
        self.assertEqual(self.commands.numPorts, 0)

    def test_no_protocol(self) -> None:
        """If it returns no protocol the connection ends."""

        class Refusing(Factory):
            """Accepts no connection."""

            def buildProtocol(self, addr: IAddress | None) -> None:
                """Refuse."""

        self.factory.inner = Refusing()
        client = self.client()
        client.open()
        self.assertTrue(client.connection.gone)

    def test_plain_protocol(self) -> None:
        """A protocol that knows no half of a connection is closed with its client."""

        class Greeting(Protocol):
            """Greets in two pieces."""

            def connectionMade(self) -> None:
                """Greet."""
                assert self.transport is not None
                self.transport.writeSequence([b"hel", b"lo\n"])

        self.factory.inner = Factory.forProtocol(Greeting)
        client = self.client()
        request = Request(host="a.test", target="/")
        client.send(request)
        events = client.events()
        self.assertEqual([type(event) for event in events], [AcceptConnection, TextMessage])
        client.send(CloseConnection(code=1000))
        client.events()
        self.assertTrue(client.connection.gone)
