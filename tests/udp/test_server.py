"""Tests for :mod:`twisted_net.udp.server`."""

from __future__ import annotations

import errno
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import udp
from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.udp.datagrams import (
    ANSWER_TOO_LONG,
    MAX_PAYLOAD,
    DatagramHandler,
    DatagramLimits,
    Source,
)
from twisted_net.udp.server import (
    CappedPort,
    DatagramServer,
    ask_receive_buffer,
    listen_datagrams,
)

HERE: Source = ("127.0.0.1", 50_000)
WALL = 0.0


class FakeSocket:
    """
    A datagram socket without a network, which cuts as Linux does, and refuses as the BSDs do too.

    :ivar incoming: what ``recvfrom`` gives, oldest first: a datagram and its source, or an error.
    :ivar outgoing: what ``sendto`` took.
    :ivar send_errors: the errno of each coming ``sendto`` that is to fail.
    :ivar reads: how often ``recvfrom`` was called.
    """

    def __init__(self, rmem_max: int = 8 << 20, taken: bool = False) -> None:
        self.incoming: deque[tuple[bytes, tuple[Any, ...]] | OSError] = deque()  # v4 and v6 tuples
        self.outgoing: list[tuple[bytes, Source]] = []
        self.send_errors: deque[int] = deque()
        self.reads = 0
        self.closed = False
        self._rmem_max = rmem_max
        self._taken = taken
        self._doubled_buffer = 2 * 212_992
        self._address: Source = ("127.0.0.1", 0)
        self._peer: Source | None = None

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._doubled_buffer = 2 * min(value, self._rmem_max)

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_RCVBUF)
        return self._doubled_buffer

    def bind(self, address: Source) -> None:
        if self._taken:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self._address = (address[0], address[1] or 40_000)

    def getsockname(self) -> Source:
        return self._address

    def connect(self, address: Source) -> None:
        self._peer = address

    def fileno(self) -> int:
        return -1 if self.closed else 77

    def close(self) -> None:
        self.closed = True

    def recvfrom(self, size: int) -> tuple[bytes, tuple[Any, ...]]:
        self.reads += 1
        if not self.incoming:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        item = self.incoming.popleft()
        if isinstance(item, OSError):
            raise item
        data, source = item
        return data[:size], source

    def sendto(self, data: bytes, address: Source) -> int:
        if self._peer is not None:
            raise OSError(errno.EISCONN, "Socket is already connected")
        return self._send(data, address)

    def send(self, data: bytes) -> int:
        assert self._peer is not None
        return self._send(data, self._peer)

    def _send(self, data: bytes, address: Source) -> int:
        if self.send_errors:
            raise OSError(self.send_errors.popleft(), "as the test asked")
        if len(data) > MAX_PAYLOAD:
            raise OSError(errno.EMSGSIZE, "Message too long")
        self.outgoing.append((data, address))
        return len(data)


class Recorder(DatagramProtocol):
    """Keeps what it is given; raises what it is told to."""

    noisy = False

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Source]] = []
        self.refusals = 0
        self.error: Exception | None = None

    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        self.datagrams.append((datagram, addr))
        if self.error is not None:
            raise self.error

    def connectionRefused(self) -> None:
        self.refusals += 1


def texts(events: Sequence[LogEvent], level: LogLevel) -> list[str]:
    """Give the messages of our own at *level*; Twisted's tell of ports that open and close."""
    return [
        event["log_format"]
        for event in events
        if event["log_level"] is level and event["log_namespace"].startswith("twisted_net")
    ]


class PortTestCase(SynchronousTestCase):
    """Makes ports whose sockets are fakes."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def use_socket(self, fake: FakeSocket) -> FakeSocket:
        """Let the next sockets that are made be *fake*."""
        self.patch(socket, "socket", lambda family, kind: fake)
        return fake

    def open_port(
        self, protocol: DatagramProtocol, interface: str = "127.0.0.1", **options: int
    ) -> tuple[CappedPort, FakeSocket]:
        """Start a port on a fake socket."""
        fake = self.use_socket(FakeSocket())
        port = CappedPort(
            0,
            protocol,
            interface,
            4097,
            self.reactor,
            **options,  # type: ignore[arg-type]  # no option is the counts
        )
        port.startListening()
        return port, fake

    def serve(
        self, handler: DatagramHandler | None = None, **limits: float
    ) -> tuple[DatagramServer, CappedPort, FakeSocket]:
        """Start a server, as an embedder does, on a fake socket."""
        fake = self.use_socket(FakeSocket())
        server = DatagramServer(
            self.reactor,
            DatagramLimits(**limits),  # type: ignore[arg-type]  # the record checks
            handler,
            lambda: WALL,
        )
        port = listen_datagrams(self.reactor, server, 0)
        return server, port, fake

    def stop(self, port: CappedPort) -> None:
        """Stop *port*, and see that it says when it has."""
        stopped = port.stopListening()
        assert stopped is not None
        self.assertNoResult(stopped)
        self.reactor.advance(0)
        self.successResultOf(stopped)


class FairnessTests(SynchronousTestCase):
    """:class:`CappedPort` reads a bounded number of datagrams a turn."""

    @given(st.integers(0, 200), st.integers(1, 100), st.binary(max_size=3))
    def test_never_more_than_the_cap(self, waiting: int, cap: int, data: bytes) -> None:
        """However many wait, and be they empty, no turn reads more than the cap, none is lost."""
        recorder = Recorder()
        port = CappedPort(0, recorder, "127.0.0.1", 10, datagrams_per_turn=cap)
        fake = FakeSocket()
        port.socket = fake  # type: ignore[assignment]  # a fake of it
        fake.incoming.extend([(data, HERE)] * waiting)
        left = waiting
        while left:
            fake.reads = 0
            port.doRead()
            self.assertEqual(len(recorder.datagrams), waiting - max(0, left - cap))
            self.assertLessEqual(fake.reads, cap)
            left = max(0, left - cap)

    def test_empty_queue(self) -> None:
        """A turn with nothing to read ends at once."""
        port = CappedPort(0, Recorder())
        fake = FakeSocket()
        port.socket = fake  # type: ignore[assignment]  # a fake of it
        self.assertIsNone(port.doRead())
        self.assertEqual(fake.reads, 1)


class ReadTests(PortTestCase):
    """:class:`CappedPort` outlives what a read may meet."""

    def test_cuts_at_packet_size(self) -> None:
        """As many bytes are read as asked, which is over the limit of a server by one."""
        recorder = Recorder()
        port, fake = self.open_port(recorder)
        fake.incoming.append((b"a" * 5000, HERE))
        port.doRead()
        self.assertEqual(recorder.datagrams, [(b"a" * 4097, HERE)])

    def test_passing_errors(self) -> None:
        """An error that passes is counted, the port goes on, and the protocol hears nothing."""
        recorder = Recorder()
        port, fake = self.open_port(recorder)
        for number in (errno.ECONNREFUSED, errno.ENETUNREACH, errno.ENOBUFS, errno.ENOMEM):
            fake.incoming.append(OSError(number, "passes"))
            fake.incoming.append((b"after", HERE))
            self.assertIsNone(port.doRead())
            port.doRead()
        self.assertEqual(recorder.datagrams, [(b"after", HERE)] * 4)
        self.assertEqual((port.counts.read_errors, recorder.refusals), (4, 0))

    def test_refused_when_connected(self) -> None:
        """A port with one peer tells its protocol that the peer refused."""
        recorder = Recorder()
        port, fake = self.open_port(recorder)
        udp.Port.connect(port, *HERE)
        fake.incoming.append(OSError(errno.ECONNREFUSED, "refused"))
        port.doRead()
        self.assertEqual(recorder.refusals, 1)

    def test_lasting_errors(self) -> None:
        """An error that does not pass leaves, so that the reactor closes the port."""
        port, fake = self.open_port(Recorder())
        fake.incoming.append(OSError(errno.EBADF, "Bad file descriptor"))
        self.assertRaises(OSError, port.doRead)
        self.assertEqual(port.counts.read_errors, 0)

    def test_protocol_that_raises(self) -> None:
        """What a protocol raises is logged, and the datagrams after it are read."""
        recorder = Recorder()
        recorder.error = ZeroDivisionError()
        port, fake = self.open_port(recorder)
        fake.incoming.extend([(b"1", HERE), (b"2", HERE)])
        port.doRead()
        self.assertEqual(len(recorder.datagrams), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_ipv6_sources(self) -> None:
        """A source is host and port; the scope of a link-local one stays with its host."""
        recorder = Recorder()
        port, fake = self.open_port(recorder, "::1")
        fake.incoming.extend([(b"a", ("::1", 5, 0, 0)), (b"b", ("fe80::1", 6, 0, 2))])
        port.doRead()
        self.assertEqual(recorder.datagrams, [(b"a", ("::1", 5)), (b"b", ("fe80::1%2", 6))])


class WriteTests(PortTestCase):
    """:class:`CappedPort` sends, or counts what it could not."""

    def test_answers_to_the_source(self) -> None:
        """An answer goes to where its datagram came from, its scope kept."""
        recorder = Recorder()
        port, fake = self.open_port(recorder, "::1")
        fake.incoming.append((b"b", ("fe80::1", 6, 0, 2)))
        port.doRead()
        port.write(b"answer", recorder.datagrams[0][1])
        self.assertEqual(fake.outgoing, [(b"answer", ("fe80::1%2", 6))])

    def test_other_addresses(self) -> None:
        """Any other address is checked: a name is never looked up, a family never mixed."""
        port, fake = self.open_port(Recorder())
        port.write(b"x", ("127.0.0.1", 9))
        self.assertEqual(fake.outgoing, [(b"x", ("127.0.0.1", 9))])
        for host in ("localhost", "::1", ""):
            with self.subTest(host=host):
                self.assertRaises(InvalidAddressError, port.write, b"x", (host, 9))

    def test_connected(self) -> None:
        """A port with one peer sends there without an address, and to its source."""
        recorder = Recorder()
        port, fake = self.open_port(recorder)
        udp.Port.connect(port, *HERE)
        fake.incoming.append((b"a", HERE))
        port.doRead()
        port.write(b"1")
        port.write(b"2", recorder.datagrams[0][1])
        self.assertEqual(fake.outgoing, [(b"1", HERE), (b"2", HERE)])

    def test_drops(self) -> None:
        """What the kernel does not take is counted as dropped, on the quick way and the other."""
        recorder = Recorder()
        port, fake = self.open_port(recorder)
        fake.incoming.append((b"a", HERE))
        port.doRead()
        source = recorder.datagrams[0][1]
        numbers = [errno.EAGAIN, errno.ENOBUFS, errno.EPERM, errno.EINVAL, errno.ENETUNREACH]
        for number in numbers:
            for address in (source, ("127.0.0.1", 9)):
                with self.subTest(number=number, address=address):
                    fake.send_errors.append(number)
                    port.write(b"x", address)
        self.assertEqual(port.counts.dropped, 2 * len(numbers))
        self.assertEqual(fake.outgoing, [])

    def test_too_long(self) -> None:
        """A datagram that no network carries is an error of the writer, and none is dropped."""
        recorder = Recorder()
        port, fake = self.open_port(recorder)
        fake.incoming.append((b"a", HERE))
        port.doRead()
        for address in (recorder.datagrams[0][1], ("127.0.0.1", 9)):
            with self.subTest(address=address):
                port.write(b"x" * MAX_PAYLOAD, address)
                self.assertRaises(MessageLengthError, port.write, b"x" * (MAX_PAYLOAD + 1), address)
        self.assertEqual((len(fake.outgoing), port.counts.dropped), (2, 0))


class ReceiveBufferTests(PortTestCase):
    """:class:`CappedPort` asks for a receive buffer, checks what it got, and says so."""

    def test_granted(self) -> None:
        """A buffer that is granted is reported as it was asked, without a word in the log."""
        with capturedLogs() as events:
            port, _ = self.open_port(Recorder(), receive_buffer=1 << 20)
        if sys.platform == "linux":
            self.assertEqual(port.receive_buffer, 1 << 20)
        self.assertEqual(texts(events, LogLevel.warn), [])

    def test_clipped(self) -> None:
        """A buffer that the kernel clips is reported as granted, and warned about."""
        self.patch(sys, "platform", "linux")
        self.use_socket(FakeSocket(rmem_max=212_992))
        port = CappedPort(0, Recorder(), reactor=self.reactor)
        with capturedLogs() as events:
            port.startListening()
        self.assertEqual(port.receive_buffer, 212_992)
        (warning,) = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual((warning["granted"], warning["asked"]), (212_992, 4 << 20))

    def test_other_kernels(self) -> None:
        """A kernel that does not double is believed as it speaks."""
        self.patch(sys, "platform", "darwin")
        fake: Any = FakeSocket()  # a fake is no socket to mypy
        self.assertEqual(ask_receive_buffer(fake, 100_000), 200_000)

    def test_refused(self) -> None:
        """A kernel that refuses the size leaves the buffer as it was."""
        self.patch(sys, "platform", "linux")

        class Refusing(FakeSocket):
            def setsockopt(self, level: int, option: int, value: int) -> None:
                raise OSError(errno.ENOBUFS, "No buffer space available")

        fake: Any = Refusing()  # a fake is no socket to mypy
        self.assertEqual(ask_receive_buffer(fake, 1 << 30), 212_992)


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


class AnsweringTests(PortTestCase):
    """:class:`DatagramServer` answers what its port reads."""

    def exchange(self, port: CappedPort, fake: FakeSocket, *datagrams: bytes) -> list[bytes]:
        """Let datagrams come in, and give the answers of one turn."""
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
        """A failing handler is counted each time, logged once a second, and others are served."""

        def handler(data: bytes, source: Source) -> bytes:
            return b"%d" % (10 // int(data))

        server, port, fake = self.serve(handler)
        self.assertEqual(self.exchange(port, fake, b"0", b"5", b"0"), [b"2"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.reactor.advance(0.9)
        self.exchange(port, fake, b"x")
        self.assertEqual(self.flushLoggedErrors(ValueError), [])
        self.reactor.advance(0.1)
        self.exchange(port, fake, b"x", b"x")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(server.responder.counts.failed, 5)

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
        """Let time pass, and give the summaries logged meanwhile."""
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
