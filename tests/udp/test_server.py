"""Tests for :mod:`twisted_net.udp.server`."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from typing import Any

from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs

from tests.udp.memory import HERE, FakeSocket, PortTestCase
from twisted_net.net.addresses import Source
from twisted_net.net.log_limiter import TRACEBACK_BURST
from twisted_net.net.printable_failure import EscapedMessage
from twisted_net.udp.limits import MAX_PAYLOAD
from twisted_net.udp.port import CappedPort
from twisted_net.udp.responder import ANSWER_TOO_LONG
from twisted_net.udp.server import DatagramServer, listen_at, listen_datagrams


class ListeningTests(PortTestCase):
    """:func:`listen_datagrams` starts what stopListening ends."""

    def test_address(self) -> None:
        """The port tells where it listens; it is read from then on."""
        _, port, _ = self.serve()
        self.assertEqual((port.getHost().host, port.getHost().port), ("127.0.0.1", 40_000))
        self.assertEqual(self.reactor.getReaders(), [port])

    def test_stop_leaves_nothing(self) -> None:
        """Once stopped, the socket is closed, and no timer and no reader is left."""
        _, port, fake = self.serve()
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.stop(port)
        self.assertTrue(fake.closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.getReaders(), [])

    def test_unguarded_companion(self) -> None:
        """A guarded port answers none that is not guarded either, as on loopback."""
        server, port, fake = self.serve(interface="0.0.0.0")
        other = self.use_socket(FakeSocket())
        second = listen_datagrams(self.reactor, server.companion(), 41_000)
        for source in (("127.0.0.1", 41_000), HERE):
            fake.incoming.append((b"PING", source))
        port.doRead()
        self.assertEqual(fake.outgoing, [(b"PONG", HERE)])
        other.incoming.append((b"hello", ("127.0.0.1", 40_000)))
        second.doRead()
        self.assertEqual(other.outgoing, [(b"ECHO: hello", ("127.0.0.1", 40_000))])

    def test_listens_again(self) -> None:
        """A server that was stopped may have another port; its figures go on."""
        server, port, fake = self.serve()
        fake.incoming.append((b"PING", HERE))
        port.doRead()
        self.stop(port)
        again = self.use_socket(FakeSocket())
        again.incoming.append((b"PING", HERE))
        listen_datagrams(self.reactor, server, 0).doRead()
        self.assertEqual(again.outgoing, [(b"PONG", HERE)])
        self.assertEqual(server.responder.counts.received, 2)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_port_taken(self) -> None:
        """A port that is taken is an error; its socket is closed, no timer is left."""
        fake = self.use_socket(FakeSocket(taken=True))
        server = DatagramServer(self.reactor)
        error = self.assertRaises(CannotListenError, listen_datagrams, self.reactor, server, 9999)
        self.assertIn("9999", str(error))
        self.assertTrue(fake.closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_socket(self) -> None:
        """Where no socket can be made at all, the error is the same."""

        def fail(family: int, kind: int) -> FakeSocket:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(socket, "socket", fail)
        server = DatagramServer(self.reactor)
        self.assertRaises(CannotListenError, listen_datagrams, self.reactor, server, 9999)

    def test_async_handler(self) -> None:
        """A handler that would have to be awaited is refused when the server is made."""

        async def handler(data: bytes, source: Source) -> bytes:
            return data

        self.assertRaises(TypeError, DatagramServer, Clock(), None, handler)

    def test_wrong_handlers(self) -> None:
        """So is one that cannot be called with data and a source."""
        wrong: list[Any] = [lambda data: data, lambda: b"", b"PONG"]  # Any: wrong on purpose
        for handler in wrong:
            with self.subTest(handler=handler):
                self.assertRaises(TypeError, DatagramServer, Clock(), None, handler)


class AnsweringTests(PortTestCase):
    """:class:`DatagramServer` answers what its port reads."""

    def exchange(self, port: CappedPort, fake: FakeSocket, *datagrams: bytes) -> list[bytes]:
        """Deliver datagrams, and return the answers of one turn."""
        fake.incoming.extend((data, HERE) for data in datagrams)
        before = len(fake.outgoing)
        port.doRead()
        return [data for data, _ in fake.outgoing[before:]]

    def test_standard_answers(self) -> None:
        """Without a handler, the wire's answers are given, in order."""
        _, port, fake = self.serve()
        self.assertEqual(
            self.exchange(port, fake, b"ping", b"TIME", b"", b"\xff\xff\xff\xff", b"\xff"),
            [b"PONG", b"1970-01-01T00:00:00+00:00", b"ECHO: ", b"\x00\x00\x00\x00", b"INVALID"],
        )

    def test_limit(self) -> None:
        """A datagram at the limit is answered; a longer one, whatever its length, is refused."""
        server, port, fake = self.serve(max_datagram=10)
        refusal = b"ERROR: datagram longer than 10 bytes"
        self.assertEqual(
            self.exchange(port, fake, b"a" * 10, b"a" * 11, b"a" * 5000, b"PING"),
            [b"ECHO: aaaaaaaaaa", refusal, refusal, b"PONG"],
        )
        self.assertEqual(server.responder.counts.refused, 2)

    def test_limit_of_datagrams_per_turn(self) -> None:
        """The port keeps the server's limit of datagrams a turn."""
        _, port, fake = self.serve(datagrams_per_turn=2)
        self.assertEqual(self.exchange(port, fake, b"1", b"2", b"3"), [b"ECHO: 1", b"ECHO: 2"])

    def test_silence(self) -> None:
        """A handler's None sends nothing; its empty answer is sent."""
        _, port, fake = self.serve(lambda data, source: b"" if data == b"a" else None)
        self.assertEqual(self.exchange(port, fake, b"a", b"b"), [b""])

    def test_handler_that_raises(self) -> None:
        """A failing handler is counted each time, logged now and then, and others are served."""

        def handler(data: bytes, source: Source) -> bytes:
            return b"%d" % (10 // int(data))

        server, port, fake = self.serve(handler)
        zeros = [b"0"] * TRACEBACK_BURST
        self.assertEqual(self.exchange(port, fake, *zeros, b"5", b"0"), [b"2"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), TRACEBACK_BURST)
        self.reactor.advance(0.9)
        self.exchange(port, fake, b"x")
        self.assertEqual(self.flushLoggedErrors(ValueError), [])
        self.reactor.advance(0.1)
        self.exchange(port, fake, b"x", b"x")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(server.responder.counts.failed, TRACEBACK_BURST + 4)

    def test_handler_that_exits(self) -> None:
        """One that raises what is no Exception has failed, too; the next datagram is answered."""
        ends: dict[bytes, BaseException] = {
            b"exit": SystemExit(0),
            b"leave": GeneratorExit(),
            b"stop": KeyboardInterrupt(),
            b"cancel": asyncio.CancelledError(),
        }

        def handler(data: bytes, source: Source) -> bytes:
            if data in ends:
                raise ends[data]
            return data

        for data, end in ends.items():
            with self.subTest(data=data):
                server, port, fake = self.serve(handler)
                self.assertEqual(self.exchange(port, fake, data, b"a"), [b"a"])
                self.assertEqual(server.responder.counts.failed, 1)
                self.assertEqual(len(self.flushLoggedErrors(type(end))), 1)

    def test_what_is_logged(self) -> None:
        """Nothing of a datagram that a failing handler repeats steers a terminal."""

        def handler(data: bytes, source: Source) -> bytes:
            raise ValueError(f"bad: {data.decode()}")

        _, port, fake = self.serve(handler)
        self.assertEqual(self.exchange(port, fake, b"\x1b[2J"), [])
        [failure] = self.flushLoggedErrors(EscapedMessage)
        self.assertEqual(failure.getErrorMessage(), r"ValueError: bad: \x1b[2J")

    def test_answer_of_another_type(self) -> None:
        """A handler that gives text instead of bytes has failed."""

        class Strict(FakeSocket):
            def sendto(self, data: bytes, address: Source) -> int:
                return super().sendto(memoryview(data).tobytes(), address)

        wrong: Any = lambda data, source: "text"  # noqa: E731  # what mypy would not let pass
        fake = self.use_socket(Strict())
        server = DatagramServer(self.reactor, handler=wrong)
        port = listen_datagrams(self.reactor, server, 0)
        self.assertEqual(self.exchange(port, fake, b"x"), [])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(server.responder.counts.failed, 1)

    def test_answer_too_long(self) -> None:
        """An answer that no datagram can hold is a failure, and the client is told."""
        server, port, fake = self.serve(max_datagram=MAX_PAYLOAD)
        fits = MAX_PAYLOAD - len(b"ECHO: ")
        self.assertEqual(
            self.exchange(port, fake, b"a" * fits, b"a" * (fits + 1)),
            [b"ECHO: " + b"a" * fits, ANSWER_TOO_LONG],
        )
        self.assertEqual(server.responder.counts.failed, 1)
        self.assertEqual(len(self.flushLoggedErrors(MessageLengthError)), 1)

    def test_drops_are_in_stats(self) -> None:
        """Answers that the kernel did not take, and failed reads, appear in STATS."""
        _, port, fake = self.serve()
        fake.send_errors.append(errno.ENOBUFS)
        fake.incoming.extend([(b"PING", HERE), OSError(errno.ENOMEM, "passes")])
        port.doRead()
        (stats,) = self.exchange(port, fake, b"STATS")
        self.assertIn(b'"dropped":1', stats)
        self.assertIn(b'"read_errors":1', stats)

    def test_without_transport(self) -> None:
        """A datagram that comes before the start or after the end is not answered."""
        server = DatagramServer(Clock())
        server.datagramReceived(b"PING", HERE)
        self.assertEqual(server.responder.counts.received, 0)


class SummaryTests(PortTestCase):
    """:class:`DatagramServer` logs a summary at an interval."""

    def summaries(self, seconds: float) -> list[LogEvent]:
        """Advance the clock, and return the summaries logged meanwhile."""
        with capturedLogs() as events:
            self.reactor.advance(seconds)
        return [event for event in events if "total_packets" in event]

    def test_figures(self) -> None:
        """It has the totals, and at most five clients with their packets and ages."""
        _, port, fake = self.serve()
        fake.incoming.extend((b"x", ("127.0.0.1", number)) for number in (1, 2, 3, 4, 5, 6, 6))
        port.doRead()
        (event,) = self.summaries(10.0)
        self.assertEqual((event["total_packets"], event["active_clients"]), (7, 6))
        self.assertEqual(len(event["recent"]), 5)
        self.assertEqual(
            event["recent"][0],
            {"client": "127.0.0.1:6", "packets": 2, "age": 10.0, "known_for": 10.0},
        )
        self.assertTrue(
            event["recent_text"].startswith("127.0.0.1:6 (2 packets, 10.0 s ago), 127.0.0.1:5 (1")
        )

    def test_interval(self) -> None:
        """None comes before its time, and the interval is the limit's."""
        _, port, fake = self.serve(summary_interval=3)
        fake.incoming.append((b"x", HERE))
        port.doRead()
        self.assertEqual(self.summaries(2.9), [])
        self.assertEqual(len(self.summaries(0.1)), 1)

    def test_silent_when_nothing_came(self) -> None:
        """An interval without a datagram has no summary; the next one with some has."""
        _, port, fake = self.serve()
        self.assertEqual(self.summaries(10.0), [])
        for _ in range(2):
            fake.incoming.append((b"x", HERE))
            port.doRead()
            self.assertEqual(len(self.summaries(10.0)), 1)
            self.assertEqual(self.summaries(10.0), [])

    def test_none(self) -> None:
        """An interval of 0 means no summary, and no timer."""
        _, port, _ = self.serve(summary_interval=0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.stop(port)

    def test_losses(self) -> None:
        """It has what the kernel dropped, and what the guard withheld."""
        self.patch(sys, "platform", "linux")
        server, port, fake = self.serve(guard="always")
        fake.drops = 0
        port._drops_before = 0
        fake.incoming.extend([(b"TIME", HERE), (b"PING", ("192.0.2.1", 7))])
        port.doRead()
        fake.drops = 3
        (event,) = self.summaries(10.0)
        self.assertEqual((event["kernel_drops"], event["withheld"]), (3, 2))
        self.assertEqual(server.responder.statistics()["kernel_drops"], 3)


class GuardTests(PortTestCase):
    """:func:`listen_datagrams` guards the answers of sockets that others can reach."""

    def answers(
        self, interface: str, guard: str, question: bytes, port: int = 50_000
    ) -> list[bytes]:
        """Return the answers to a question received on *interface*."""
        _, listening, fake = self.serve(interface=interface, guard=guard)
        fake.incoming.append((question, ("192.0.2.1", port)))
        if ":" in interface:
            fake.incoming[-1] = (question, ("2001:db8::1", port, 0, 0))
        listening.doRead()
        return [data for data, _ in fake.outgoing]

    def test_public(self) -> None:
        """By default sockets beyond loopback are guarded, whatever their family, and no others."""
        for interface in ("", "0.0.0.0", "192.0.2.9", "::", "2001:db8::9", "fe80::1%1"):
            with self.subTest(interface=interface):
                self.assertEqual(self.answers(interface, "public", b"hello"), [b"PAD"])
        for interface in ("127.0.0.1", "127.9.9.9", "::1"):
            with self.subTest(interface=interface):
                self.assertEqual(self.answers(interface, "public", b"hello"), [b"ECHO: hello"])

    def test_always_and_never(self) -> None:
        """The setting may say that all sockets are guarded, or none."""
        self.assertEqual(self.answers("127.0.0.1", "always", b"hello"), [b"PAD"])
        self.assertEqual(self.answers("0.0.0.0", "never", b"hello"), [b"ECHO: hello"])

    def test_own_port(self) -> None:
        """The port that it listens on is not answered: 40000, which the fake has."""
        self.assertEqual(self.answers("0.0.0.0", "public", b"PING", 40_000), [])
        self.assertEqual(self.answers("0.0.0.0", "public", b"PING", 40_001), [b"PONG"])

    def test_companions(self) -> None:
        """Companions count together, answer no port of each other, and one alone sums up."""
        server, port, fake = self.serve(interface="0.0.0.0")
        other = self.use_socket(FakeSocket())
        second = listen_datagrams(self.reactor, server.companion(), 41_000, "0.0.0.0")
        for sock, listening, source in ((fake, port, 41_000), (other, second, 40_000)):
            sock.incoming.extend([(b"PING", ("192.0.2.1", source)), (b"PING", HERE)])
            listening.doRead()
            self.assertEqual(sock.outgoing, [(b"PONG", HERE)])
        self.assertEqual(server.responder.counts.received, 4)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_listens_again(self) -> None:
        """A server that moves to loopback answers freely from then on."""
        server, port, _ = self.serve(interface="0.0.0.0")
        self.stop(port)
        again = self.use_socket(FakeSocket())
        again.incoming.append((b"hello", HERE))
        listen_datagrams(self.reactor, server, 0).doRead()
        self.assertEqual(again.outgoing, [(b"ECHO: hello", HERE)])

    def test_strings(self) -> None:
        """listen_at takes a description, and refuses what is none before anything is opened."""
        fake = self.use_socket(FakeSocket())
        server = DatagramServer(self.reactor)
        port = listen_at(self.reactor, server, "udp:5:interface=[::1]:rcvbuf=8192:reuseport=yes")
        self.assertEqual((port.getHost().host, port.getHost().port), ("::1", 5))
        self.assertEqual(fake.asked[socket.SO_RCVBUF], 8192)
        self.assertEqual(fake.asked[socket.SO_REUSEPORT], 1)
        self.assertRaises(ValueError, listen_at, self.reactor, server.companion(), "udp:x")
