"""A session behind a proxy has the real address; no other peer may set one."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Address, Connection, Reactor
from tests.tcp.test_proxy_header import RIGHT, V4, V6, WRONG, v2
from twisted_net.commands.standard import standard_commands
from twisted_net.reasons import End
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.proxy_header import TrustedProxies
from twisted_net.tcp.proxy_protocol import ProxyFactory
from twisted_net.tcp.server import CommandFactory

PROXY = IPv4Address("TCP", "10.0.0.1", 40_000)
HEADER = b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 8888\r\n"


async def _fetch(url: str) -> dict[str, object]:
    raise NotImplementedError(url)


class Proxied(SynchronousTestCase):
    """A command server behind a proxy at 10.0.0.1."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.commands = CommandFactory(self.reactor, standard_commands(_fetch), Limits())
        self.handshakes = Handshakes(self.reactor, 10, 100, self.commands.sessions.refused)
        self.factory = ProxyFactory(
            self.commands, TrustedProxies(["10.0.0.0/8", "unix"]), self.handshakes
        )

    def connect(self, peer: Address = PROXY) -> Connection:
        """Connect from *peer*."""
        return self.reactor.connect(self.factory, peer)

    def talk(self, data: bytes, peer: Address = PROXY) -> Connection:
        """Connect, send, and let the server do what it does."""
        connection = self.connect(peer)
        connection.send(data)
        self.reactor.settle()
        return connection

    def clients(self) -> Iterator[str]:
        """Return the names of the sessions."""
        return (session.name for session in self.commands.sessions)

    def ended(self) -> dict[str, int]:
        """Return the reasons for which connections have ended."""
        ended = self.commands.sessions.counters.ended
        return {end.value: count for end, count in ended.items() if count}


class ProxyFactoryTests(Proxied):
    """:class:`ProxyFactory` in front of a command server."""

    def test_real_address(self) -> None:
        """The session has the client's address, and what follows the header is answered."""
        for data, expected in [
            (HEADER, "192.0.2.1:50000"),
            (v2(0x21, 0x11, V4), "192.0.2.1:50000#2"),
            (v2(0x21, 0x21, V6), "[2001:db8::1]:50000"),
            (b"PROXY UNKNOWN\r\n", "10.0.0.1:40000"),
            (v2(0x20, 0x00, b""), "10.0.0.1:40000#2"),
        ]:
            with self.subTest(data=data):
                connection = self.talk(data + b"PING\n")
                self.assertEqual(connection.answers()[0]["result"], "PONG")
                self.assertIn(expected, list(self.clients()))
                self.assertTrue(connection.no_delay)

    def test_any_segments(self) -> None:
        """A header may come in any two segments, or byte by byte."""
        for header in RIGHT:
            if len(header) > 70:
                continue
            stream = header + b"PING\n"
            for cut in range(len(stream) + 1):
                connection = self.talk(stream[:cut])
                connection.send(stream[cut:])
                self.reactor.settle()
                self.assertEqual(connection.answers()[0]["result"], "PONG")
            connection = self.connect()
            for byte in stream:
                connection.send(bytes([byte]))
                self.reactor.settle()
            self.assertEqual(connection.answers()[0]["result"], "PONG")

    def test_no_session_before_the_header(self) -> None:
        """Until its header is whole a connection is no session, and gets no broadcast."""
        connection = self.talk(HEADER[:-1])
        self.commands.sessions.broadcast({"event": "news"})
        self.reactor.settle()
        self.assertEqual((len(self.commands.sessions), connection.received()), (0, b""))

    def test_wrong(self) -> None:
        """What is no header ends the connection, without an answer."""
        wrong = [data for data, reason in WRONG.items() if reason]
        for data in wrong:
            with self.subTest(data=data[:60]):
                connection = self.talk(data)
                self.assertTrue(connection.gone)
                self.assertEqual(connection.received(), b"")
        self.assertEqual(self.ended(), {"handshake_failed": len(wrong)})

    def test_untrusted(self) -> None:
        """Who is not trusted is disconnected, whatever he says of himself; one line is logged."""
        logged = EventLoggingObserver()
        globalLogPublisher.addObserver(logged)
        self.addCleanup(globalLogPublisher.removeObserver, logged)
        for peer in (
            IPv4Address("TCP", "192.0.2.9", 1),
            IPv6Address("TCP", "::1", 1),
            IPv6Address("TCP", "::ffff:192.0.2.9", 1),
        ):
            connection = self.talk(HEADER + b"PING\n", peer)
            self.assertTrue(connection.gone)
            self.assertEqual(connection.received(), b"")
        self.assertEqual(self.ended(), {"untrusted_proxy": 3})
        self.assertEqual(len(logged), 1)

    def test_lies_about_loopback(self) -> None:
        """A stranger who claims to be this machine is a stranger all the same."""
        self.talk(
            b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nPING\n", IPv4Address("TCP", "192.0.2.9", 1)
        )
        self.assertEqual(list(self.clients()), [])

    def test_header_that_does_not_come(self) -> None:
        """A header that is not whole in time ends the connection, however it trickles in."""
        silent = self.connect()
        slow = self.connect()
        for byte in HEADER[:9]:
            slow.send(bytes([byte]))
            self.reactor.pass_time(1)
        self.reactor.pass_time(1)
        self.assertTrue(silent.gone)
        self.assertTrue(slow.gone)
        self.assertEqual(self.ended(), {"handshake_timeout": 2})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_header_and_then_silence(self) -> None:
        """The time limit of the header is over with the header."""
        connection = self.talk(HEADER)
        self.reactor.pass_time(60)
        self.assertFalse(connection.gone)

    def test_many_half_headers(self) -> None:
        """A crowd of unfinished headers keeps no client out."""
        crowd = [self.talk(HEADER[:20]) for _ in range(150)]
        self.assertEqual(len(self.handshakes), 100)
        self.assertEqual(self.talk(HEADER + b"PING\n").answers()[0]["result"], "PONG")
        self.assertEqual(sum(one.gone for one in crowd), 51)

    def test_half_close(self) -> None:
        """A client may end its half after its lines, as without a proxy."""
        connection = self.connect()
        connection.send(HEADER + b"PING\nPING\n")
        connection.end()
        self.reactor.settle()
        self.assertEqual(len(connection.answers()), 2)
        self.assertEqual(self.ended(), {"client_closed": 1})

    def test_end_within_the_header(self) -> None:
        """A client that goes in the middle of its header has failed."""
        connection = self.talk(HEADER[:5])
        connection.reset()
        self.assertEqual(self.ended(), {"handshake_failed": 1})

    def test_unix(self) -> None:
        """A proxy may come over a Unix socket."""
        connection = self.talk(HEADER + b"PING\n", UNIXAddress(""))
        self.assertEqual(connection.answers()[0]["result"], "PONG")
        self.assertEqual(list(self.clients()), ["192.0.2.1:50000"])
        self.assertFalse(connection.no_delay)

    def test_refusal_of_the_server(self) -> None:
        """The server's own refusals reach the client."""
        self.commands.limits = Limits(max_connections=1)
        self.talk(HEADER)
        self.assertEqual(self.talk(HEADER).answers()[0]["code"], "too_many_connections")


class InnerFactoryTests(Proxied):
    """What :class:`ProxyFactory` asks of the factory behind it."""

    def test_starts_and_stops_it(self) -> None:
        """The inner factory starts with the first port and stops with the last."""
        self.factory.doStart()  # type: ignore[no-untyped-call]  # as a port does
        self.assertEqual(self.commands.numPorts, 1)
        self.factory.doStop()  # type: ignore[no-untyped-call]  # as a port does
        self.assertEqual(self.commands.numPorts, 0)

    def test_ends(self) -> None:
        """Its protocols see both real ends of the connection."""
        seen: list[IAddress] = []

        class Looking(Protocol):
            """Looks at its transport."""

            def connectionMade(self) -> None:
                """Keep the ends."""
                assert self.transport is not None
                seen.extend([self.transport.getPeer(), self.transport.getHost()])

        self.factory.inner = Factory.forProtocol(Looking)
        self.talk(HEADER)
        self.assertEqual(
            seen,
            [IPv4Address("TCP", "192.0.2.1", 50_000), IPv4Address("TCP", "198.51.100.2", 8888)],
        )

    def test_no_protocol(self) -> None:
        """If it returns no protocol the connection ends."""

        class Refusing(Factory):
            """Accepts no connection."""

            def buildProtocol(self, addr: IAddress | None) -> None:
                """Refuse."""

        self.factory.inner = Refusing()
        self.assertTrue(self.talk(HEADER).gone)
        self.assertEqual(len(self.handshakes), 0)

    def test_drained(self) -> None:
        """Headers under way at the stop are counted as drained."""
        connection = self.talk(HEADER[:9])
        self.handshakes.close()
        self.reactor.settle()
        self.assertTrue(connection.gone)
        self.assertEqual(self.commands.sessions.counters.ended[End.DRAINED], 1)
