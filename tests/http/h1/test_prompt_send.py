"""Sends of a request at once."""

from __future__ import annotations

from errno import ECONNRESET, EWOULDBLOCK
from typing import Any

from twisted.internet.protocol import ClientFactory
from twisted.internet.tcp import Client, Connector
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.h1.prompt_send import MAX_PROMPT, send_promptly


class Socket:
    """A socket whose kernel accepts *room* bytes, or fails with an error number."""

    def __init__(self, room: int = 10**9, error: int = 0) -> None:
        self.sent = b""
        self.room = room
        self.error = error

    def send(self, data: bytes) -> int:
        """Take what there is room for."""
        if self.error:
            raise OSError(self.error, "no")
        taken = data[: self.room]
        self.sent += taken
        return len(taken)


class SendPromptlyTests(SynchronousTestCase):
    """:func:`send_promptly` leaves to the reactor only what the kernel does not accept."""

    def connection(self, socket: Socket) -> Any:  # Any: of Twisted's, with a socket of ours
        """Return a connection that is made, and read."""
        self.reactor = MemoryReactorClock()
        connector = Connector("127.0.0.1", 1, ClientFactory(), 0, None, self.reactor)
        made: Any = Client("127.0.0.1", 1, None, connector, self.reactor)
        made.socket.close()
        made.socket = socket
        made.connected = 1
        made.startReading()
        return made

    def test_sent(self) -> None:
        """What is sent does not wait for the reactor."""
        socket = Socket()
        send_promptly(self.connection(socket), b"GET")
        self.assertEqual(socket.sent, b"GET")
        self.assertEqual(self.reactor.getWriters(), [])

    def test_rest(self) -> None:
        """What the kernel does not accept follows when the reactor reports the socket writable."""
        for room in range(4):
            with self.subTest(room=room):
                socket = Socket(room)
                connection = self.connection(socket)
                send_promptly(connection, b"GET")
                self.assertEqual(socket.sent, b"GET"[:room])
                socket.room = 9
                if room < 3:
                    self.assertEqual(self.reactor.getWriters(), [connection])
                    connection.doWrite()
                self.assertEqual(socket.sent, b"GET")

    def test_full(self) -> None:
        """Where the kernel accepts nothing, all waits, and the connection is read on."""
        socket = Socket(error=EWOULDBLOCK)
        connection = self.connection(socket)
        send_promptly(connection, b"GET")
        socket.error = 0
        connection.doWrite()
        self.assertEqual(socket.sent, b"GET")
        self.assertEqual(self.reactor.getReaders(), [connection])

    def test_order(self) -> None:
        """Nothing overtakes what waits."""
        socket = Socket()
        connection = self.connection(socket)
        connection.write(b"first ")
        send_promptly(connection, b"second")
        self.assertEqual(socket.sent, b"")
        connection.doWrite()
        self.assertEqual(socket.sent, b"first second")

    def test_error(self) -> None:
        """A failed send is reported as a loss; the socket, which has no error left, is not read."""
        connection = self.connection(Socket(error=ECONNRESET))
        send_promptly(connection, b"GET")
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.reactor.getWriters(), [connection])
        self.assertIsInstance(connection.doWrite(), Exception)

    def test_waits(self) -> None:
        """A large request, and one of a connection in another state, waits for the reactor."""
        for name in ("TLS", "disconnecting", "_writeDisconnecting", "_aborting", "producer"):
            with self.subTest(state=name):
                socket = Socket()
                connection = self.connection(socket)
                connection.protocol = StringTransport()  # that of TLS is written to
                setattr(connection, name, self)
                send_promptly(connection, b"GET")
                self.assertEqual(socket.sent, b"")
        socket = Socket()
        send_promptly(self.connection(socket), bytes(MAX_PROMPT + 1))
        self.assertEqual(socket.sent, b"")

    def test_lost(self) -> None:
        """To a connection that is lost nothing is sent."""
        socket = Socket()
        connection = self.connection(socket)
        connection.connected = 0
        send_promptly(connection, b"GET")
        self.assertEqual((socket.sent, self.reactor.getWriters()), (b"", []))

    def test_others(self) -> None:
        """Any other transport is written to."""
        transport = StringTransport()
        send_promptly(transport, b"GET")
        self.assertEqual(transport.value(), b"GET")
