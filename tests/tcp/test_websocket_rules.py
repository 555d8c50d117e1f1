"""Rules of RFC 6455 for clients of the WebSocket: the handshake, control frames, closing codes."""

from __future__ import annotations

from wsproto.events import CloseConnection, Pong, TextMessage

from tests.net.test_websocket_handshake import EXAMPLE, RIGHT, WRONG
from tests.tcp.test_websocket import WebSocketCase

KNOWN = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)
"""Codes of §7.4.1 that may be sent, and those that IANA has registered since."""

RESERVED = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
"""Codes that nobody may send (§7.4.1, §7.4.2)."""


def masked(first: int, payload: bytes) -> bytes:
    """Encode a short frame of a client; *first* is its first byte."""
    return bytes((first, 0x80 | len(payload), 0, 0, 0, 0)) + payload


class HandshakeRulesTests(WebSocketCase):
    """§4.2.1: a request that is not as it must be begins no session."""

    def test_wrong(self) -> None:
        """It is answered with its status and a reason, the connection ends, and it is counted."""
        for data, (status, reason) in WRONG.items():
            with self.subTest(data=data[:200]):
                connection = self.reactor.connect(self.factory)
                connection.send(data + masked(0x81, b"PING"))
                self.reactor.settle()
                head, _, body = connection.received().partition(b"\r\n\r\n")
                self.assertTrue(head.startswith(b"HTTP/1.1 %d " % status), head)
                self.assertIn(reason.encode(), body)
                self.assertTrue(connection.gone)
        self.assertEqual(self.ended(), {"handshake_failed": len(WRONG)})
        self.assertEqual(self.commands.sessions.counters.opened, 0)

    def test_right(self) -> None:
        """Any other is accepted, and frames in the same segment are processed."""
        self.factory.origins = frozenset({"http://example.com"})
        for data in RIGHT:
            with self.subTest(data=data[:200]):
                connection = self.reactor.connect(self.factory)
                connection.send(data + masked(0x81, b"ECHO hi"))
                self.reactor.settle()
                head, _, frames = connection.received().partition(b"\r\n\r\n")
                self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
                self.assertIn(b'"result":"hi"', frames)
        self.assertEqual(self.ended(), {})

    def test_origin(self) -> None:
        """A page that may not connect is told so."""
        connection = self.reactor.connect(self.factory)
        connection.send(EXAMPLE + masked(0x81, b"PING"))
        self.reactor.settle()
        received = connection.received()
        self.assertTrue(received.startswith(b"HTTP/1.1 403 "), received)
        self.assertTrue(received.endswith(b"pages of this origin may not connect\n"), received)
        self.assertEqual(self.commands.sessions.counters.opened, 0)


class ClosingCodeTests(WebSocketCase):
    """§5.5.1 and §7.4: a client may close with some codes, and is answered."""

    def closing(self, payload: bytes) -> CloseConnection:
        """Close with a payload, and return the server's closing frame."""
        client = self.opened()
        client.connection.send(masked(0x88, payload))
        (close,) = client.events()
        assert isinstance(close, CloseConnection)
        self.assertTrue(client.connection.gone)
        return close

    def test_known(self) -> None:
        """Registered codes and those of applications are a normal end, whatever their reason."""
        for code in (*KNOWN, 3000, 3999, 4000, 4999):
            for reason in (b"", b"bye", "ä".encode(), b"x" * 123):
                with self.subTest(code=code, reason=reason):
                    self.assertEqual(self.closing(code.to_bytes(2) + reason).code, 1000)
        self.assertEqual(self.ended(), {"client_closed": 4 * (len(KNOWN) + 4)})

    def test_none(self) -> None:
        """So is a frame without a code."""
        self.assertEqual(self.closing(b"").code, 1000)

    def test_reserved(self) -> None:
        """Reserved codes are refused as a violation of the protocol."""
        for code in RESERVED:
            with self.subTest(code=code):
                self.assertEqual(self.closing(code.to_bytes(2)).code, 1002)

    def test_reasons(self) -> None:
        """A reason is UTF-8, and a code has two bytes, whatever the code."""
        for code in (1000, 1014, 4000):
            self.assertEqual(self.closing(code.to_bytes(2) + b"\xff").code, 1007)
            self.assertEqual(self.closing(code.to_bytes(2) + b"ok\xc3").code, 1007)
        self.assertEqual(self.closing(b"\x03").code, 1002)


class ControlFrameTests(WebSocketCase):
    """§5.5: control frames are short and whole, and may come between those of a message."""

    def test_wrong(self) -> None:
        """What breaks a rule ends the connection with 1002."""
        for data in (
            masked(0x09, b"part"),  # a ping in fragments
            masked(0x08, b""),  # a closing frame in fragments
            masked(0x0A, b""),  # a pong in fragments
            masked(0x8B, b""),  # a reserved opcode
            masked(0xD9, b""),  # a reserved bit
            b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126,  # a ping over 125 bytes
            b"\x88\xfe\x00\x7e\0\0\0\0" + b"\x03\xe8" + b"x" * 124,  # a closing frame over 125
            b"\x89\x00",  # not masked
            masked(0x80, b"x"),  # the continuation of nothing
            masked(0x01, b"x") + masked(0x81, b"y"),  # a message within another
            b"\x81\xfe\x00\x05\0\0\0\0PING\n",  # a length in more bytes than it needs
            b"\x81\xff\xff\0\0\0\0\0\0\0\0\0\0\0",  # a length whose first bit is set
        ):
            with self.subTest(data=data[:16]):
                client = self.opened()
                client.connection.send(data)
                close = client.events()[-1]
                assert isinstance(close, CloseConnection)
                self.assertEqual(close.code, 1002)
                self.assertTrue(client.connection.gone)

    def test_between(self) -> None:
        """A ping of 125 bytes is answered at once, though a message is not whole yet."""
        client = self.opened()
        client.connection.send(masked(0x01, b"ECHO ") + masked(0x89, b"x" * 125))
        (pong,) = client.events()
        assert isinstance(pong, Pong)
        self.assertEqual(bytes(pong.payload), b"x" * 125)
        client.connection.send(masked(0x8A, b"unasked") + masked(0x80, b"hi"))
        (message,) = client.events()
        assert isinstance(message, TextMessage)
        self.assertIn('"result":"hi"', message.data)
