"""Tests for :mod:`twisted_net.udp.port`."""

from __future__ import annotations

import errno
import select
import socket
import sys
from typing import Any
from unittest import skipIf

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost, InvalidAddressError, MessageLengthError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.udp.memory import HERE, FakeSocket, PortTestCase, Recorder, texts
from twisted_net.net.addresses import Source
from twisted_net.udp.gso import MAX_SEGMENTS
from twisted_net.udp.limits import MAX_PAYLOAD
from twisted_net.udp.port import (
    DELIVERY_BUDGET,
    MAX_BATCH,
    MAX_BATCHED_ANSWER,
    QUEUED_COST,
    CappedPort,
)
from twisted_net.udp.responder import DatagramCounts
from twisted_net.udp.sockets import set_receive_buffer


class FairnessTests(SynchronousTestCase):
    """:class:`CappedPort` reads a bounded number of datagrams a turn."""

    @given(st.integers(0, 200), st.integers(1, 100), st.binary(max_size=3))
    def test_never_more_than_the_cap(self, waiting: int, cap: int, data: bytes) -> None:
        """However many wait, and be they empty, no turn reads more than the cap, none is lost."""
        recorder = Recorder()
        clock: Any = MemoryReactorClock()  # Any: it is no reactor to mypy
        port = CappedPort(0, recorder, "127.0.0.1", 10, clock, datagrams_per_turn=cap)
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


class TurnTests(PortTestCase):
    """Datagrams that take long are passed on over turns."""

    def open_slow(self, waiting: int) -> tuple[CappedPort, FakeSocket]:
        """Open a port to which datagrams came that each take nearly the time of a turn."""
        self.passed: list[bytes] = []
        passed, reactor, call_later = self.passed, self.reactor, self.reactor.callLater

        class Slow(DatagramProtocol):
            def datagramReceived(self, datagram: bytes, addr: Source) -> None:
                passed.append(datagram)
                port.write(datagram, addr)
                reactor.rightNow += 0.75 * DELIVERY_BUDGET

        def note(*call: Any) -> IDelayedCall:  # Any: as callLater has them
            passed.append(b"turn")
            return call_later(*call)

        port, fake = self.open_port(Slow())
        self.patch(self.reactor, "callLater", note)
        fake.incoming.extend((b"%d" % number, HERE) for number in range(waiting))
        return port, fake

    def test_alone(self) -> None:
        """After a turn with one datagram, the next one is answered before others are looked for."""
        fake = FakeSocket()
        answered: list[tuple[int, int]] = []

        class Echo(DatagramProtocol):
            """Answers each datagram with its number."""

            def datagramReceived(self, datagram: bytes, addr: Source) -> None:
                assert self.transport is not None
                self.transport.write(datagram, addr)

        clock: Any = MemoryReactorClock()  # Any: it is no reactor to mypy
        echo = Echo()
        port = CappedPort(0, echo, "127.0.0.1", 10, clock, datagrams_per_turn=4)
        echo.transport = port
        port.socket = fake  # type: ignore[assignment]  # a fake of it
        send = fake.sendto

        def note(data: bytes, address: Source) -> int:
            answered.append((fake.reads, len(data)))
            return send(data, address)

        fake.sendto = note  # type: ignore[method-assign]  # to see when it is called
        for sizes, expected in (
            # How many reads there were in the turn when each was answered.
            ((1,), [(2, 1)]),
            ((2,), [(1, 2)]),
            ((1, 2, 3), [(1, 1), (4, 2), (4, 3)]),
            ((1, 2), [(3, 1), (3, 2)]),
            ((1,), [(2, 1)]),
            ((1, 2, 3, 4, 5), [(1, 1), (4, 2), (4, 3), (4, 4)]),
            ((), [(2, 5)]),
            ((1,), [(1, 1)]),
        ):
            fake.incoming.extend([(b"x" * size, HERE) for size in sizes])
            fake.reads = 0
            answered.clear()
            port.doRead()
            self.assertEqual(answered, expected)

    def test_slow_datagrams(self) -> None:
        """A turn ends when its time is over; the others follow in their order, then new ones."""
        port, fake = self.open_slow(5)
        port.doRead()
        self.assertEqual([data for data, _ in fake.outgoing], [b"0", b"1"])
        fake.incoming.append((b"5", HERE))
        port.doRead()
        self.assertEqual(self.passed, [b"0", b"1", b"turn"])
        self.reactor.advance(0)
        self.assertEqual(self.passed, [b"0", b"1", b"turn", b"2", b"3", b"turn", b"4"])
        port.doRead()
        self.assertEqual([data for data, _ in fake.outgoing], list(map(str.encode, "012345")))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """Once it is stopped nothing is passed on: what is left is counted as dropped."""
        port, _ = self.open_slow(5)
        port.doRead()
        port.stopListening()
        self.reactor.advance(0)
        self.assertEqual([each for each in self.passed if each != b"turn"], [b"0", b"1"])
        self.assertEqual(port.counts.dropped, 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stopped_by_its_protocol(self) -> None:
        """So is what follows the datagram for which the protocol stops it."""
        received: list[bytes] = []

        class Stops(DatagramProtocol):
            def datagramReceived(self, datagram: bytes, addr: Source) -> None:
                received.append(datagram)
                port.stopListening()

        port, fake = self.open_port(Stops())
        fake.incoming.extend((b"%d" % number, HERE) for number in range(3))
        port.doRead()
        self.reactor.advance(0)
        self.assertEqual((received, port.counts.dropped), ([b"0"], 2))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_end(self) -> None:
        """Those that were read and not passed on are counted as dropped when the port ends."""
        port, _ = self.open_slow(5)
        port.doRead()
        port.connectionLost()
        self.assertEqual(self.passed, [b"0", b"1", b"turn"])
        self.assertEqual(port.counts.dropped, 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class LoneTests(PortTestCase):
    """After a turn with one datagram, the next one is answered before the socket is read on."""

    def open_lone(self, takes: float = 0.0) -> tuple[CappedPort, FakeSocket]:
        """Open a port whose last turn had one datagram; each takes a time and is echoed."""
        self.events: list[tuple[str, bytes]] = []
        events, reactor = self.events, self.reactor

        class Echo(DatagramProtocol):
            def datagramReceived(self, datagram: bytes, addr: Source) -> None:
                reactor.rightNow += takes
                port.write(datagram, addr)

        class Noting(FakeSocket):
            def recvfrom(self, size: int) -> tuple[bytes, tuple[Any, ...]]:
                data, source = super().recvfrom(size)
                events.append(("read", data))
                return data, source

            def sendto(self, data: bytes, address: Source) -> int:
                events.append(("sent", data))
                return super().sendto(data, address)

        fake = self.use_socket(Noting())
        port = CappedPort(0, Echo(), "127.0.0.1", 4097, self.reactor, datagrams_per_turn=4)
        port.startListening()
        self.receive(port, fake, b"0")
        events.clear()
        return port, fake

    def receive(self, port: CappedPort, fake: FakeSocket, *data: bytes) -> None:
        """Let one turn have datagrams."""
        fake.incoming.extend((each, HERE) for each in data)
        fake.reads = fake.polls = 0
        port.doRead()

    @skipIf(not hasattr(select, "poll"), "needs poll()")
    def test_nothing_behind(self) -> None:
        """A lone one costs one read: none fails, before its answer or after it."""
        port, fake = self.open_lone()
        for _ in range(3):
            self.receive(port, fake, b"1")
            self.assertEqual((fake.reads, fake.polls), (1, 1))
        self.assertEqual(self.events, [("read", b"1"), ("sent", b"1")] * 3)

    def test_without_poll(self) -> None:
        """Without poll() the socket is read on, after the answer."""
        self.patch(select, "poll", None)
        del select.poll
        port, fake = self.open_lone()
        self.assertEqual(fake.polls, 0)
        self.receive(port, fake, b"1", b"2")
        self.assertEqual(fake.reads, 3)
        self.assertEqual(self.events[:3], [("read", b"1"), ("sent", b"1"), ("read", b"2")])

    def test_others_behind(self) -> None:
        """Those behind it are read in the same turn, up to its limit; the next one reads first."""
        port, fake = self.open_lone()
        self.receive(port, fake, *(b"%d" % number for number in range(1, 7)))
        self.assertEqual(fake.reads, 4)
        self.assertEqual([data for data, _ in fake.outgoing], list(map(str.encode, "01234")))
        self.assertEqual(self.events[:3], [("read", b"1"), ("sent", b"1"), ("read", b"2")])
        self.events.clear()
        self.receive(port, fake)
        kinds = [kind for kind, _ in self.events]
        self.assertEqual(kinds, ["read", "read", "sent", "sent"])

    def test_burst_ends(self) -> None:
        """Once a turn has one datagram again, the next is answered first again."""
        port, fake = self.open_lone()
        self.receive(port, fake, b"1", b"2", b"3")
        self.receive(port, fake, b"4")
        self.events.clear()
        self.receive(port, fake, b"5", b"6")
        kinds = [kind for kind, _ in self.events]
        self.assertEqual(kinds, ["read", "sent", "read", "sent"])

    def test_slow(self) -> None:
        """One that uses up the turn leaves those behind it to the next turn."""
        port, fake = self.open_lone(takes=DELIVERY_BUDGET)
        self.receive(port, fake, b"1", b"2")
        self.assertEqual(self.events, [("read", b"1"), ("sent", b"1")])
        self.receive(port, fake)
        self.assertEqual(fake.outgoing[-1], (b"2", HERE))

    def test_stopped(self) -> None:
        """One for which the protocol stops the port is the last that is read."""
        port, fake = self.open_lone()
        self.patch(port.protocol, "datagramReceived", lambda *_: port.stopListening())
        self.receive(port, fake, b"1", b"2")
        self.assertEqual(fake.reads, 1)
        self.reactor.advance(0)
        self.assertTrue(fake.closed)

    def test_error(self) -> None:
        """A transient error in place of it is counted, and ends the turn."""
        port, fake = self.open_lone()
        fake.incoming.append(OSError(errno.ENOMEM, "passes"))
        self.receive(port, fake, b"1")
        self.assertEqual((port.counts.read_errors, self.events), (1, []))
        self.receive(port, fake)
        self.assertEqual(self.events, [("read", b"1"), ("sent", b"1")])

    def test_bug(self) -> None:
        """What the protocol raises for it is logged, and its answer to the next one is sent."""
        port, fake = self.open_lone()
        echo = port.protocol.datagramReceived
        self.patch(port.protocol, "datagramReceived", lambda *_: 1 // 0)
        self.receive(port, fake, b"1")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.patch(port.protocol, "datagramReceived", echo)
        self.receive(port, fake, b"2")
        self.assertEqual(fake.outgoing[1:], [(b"2", HERE)])

    def test_ipv6(self) -> None:
        """The scope of its source stays with the host, and its answer goes where it came from."""
        received: list[Source] = []

        def echo(port: CappedPort, datagram: bytes, source: Source) -> None:
            received.append(source)
            port.write(datagram, source)

        port, fake = self.open_port(Answering(echo), "::1")
        for _ in range(2):
            fake.incoming.append((b"a", ("fe80::1", 6, 0, 2)))
            port.doRead()
        self.assertEqual(received, [("fe80::1%2", 6)] * 2)
        self.assertEqual(fake.outgoing, [(b"a", ("fe80::1", 6, 0, 2))] * 2)

    def test_nothing(self) -> None:
        """A turn without any datagram reads once."""
        port, fake = self.open_lone()
        self.receive(port, fake)
        self.assertEqual((fake.reads, self.events), (1, []))


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
        port.connect(*HERE)
        fake.incoming.append(OSError(errno.ECONNREFUSED, "refused"))
        port.doRead()
        self.assertEqual(recorder.refusals, 1)

    def test_connect_once(self) -> None:
        """A port is connected once, to an address, and then sends to no other."""
        port, _ = self.open_port(Recorder())
        self.assertRaises(InvalidAddressError, port.connect, "example.org", 1)
        port.connect(*HERE)
        self.assertRaises(RuntimeError, port.connect, *HERE)
        port.write(b"x", HERE)
        self.assertRaises(InvalidAddressError, port.write, b"x", ("192.0.2.1", 1))

    def test_error_taken_for_the_end(self) -> None:
        """An error that passes does not end a connected port, though epoll says so."""
        recorder = Recorder()
        port, fake = self.open_port(recorder)
        port.connect(*HERE)
        for number, ends in ((errno.ECONNREFUSED, False), (errno.EHOSTUNREACH, False), (0, True)):
            fake.error = number
            self.reactor.removeReader(port)
            port.connectionLost(Failure(ConnectionLost()))
            self.assertEqual(fake.closed, ends)
            self.assertEqual(self.reactor.getReaders(), [] if ends else [port])
        self.assertEqual((recorder.refusals, port.counts.read_errors), (1, 2))

    def test_queue_after_error(self) -> None:
        """A connected port that survives an error sends what is in its queue."""
        port, fake = self.open_port(Recorder())
        port.connect(*HERE)
        fake.send_errors.append(errno.EAGAIN)
        port.write(b"queued")
        self.reactor.removeReader(port)
        self.reactor.removeWriter(port)
        fake.error = errno.ECONNREFUSED
        port.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.reactor.getWriters(), [port])
        port.doWrite()
        self.assertEqual(fake.outgoing, [(b"queued", HERE)])

    def test_lasting_errors(self) -> None:
        """An error that does not pass leaves, so that the reactor closes the port."""
        port, fake = self.open_port(Recorder())
        fake.incoming.append(OSError(errno.EBADF, "Bad file descriptor"))
        self.assertRaises(OSError, port.doRead)
        self.assertEqual(port.counts.read_errors, 0)

    def test_protocol_that_raises(self) -> None:
        """What a protocol raises is logged, and the datagrams after it are read."""
        for error in (ZeroDivisionError, SystemExit, GeneratorExit):
            recorder = Recorder()
            recorder.error = error()
            port, fake = self.open_port(recorder)
            fake.incoming.extend([(b"1", HERE), (b"2", HERE)])
            port.doRead()
            self.assertEqual(len(recorder.datagrams), 2)
            self.assertEqual(len(self.flushLoggedErrors(error)), 2)

    @skipIf(sys.platform != "linux", "Linux alone delivers them")
    def test_groups_of_others(self) -> None:
        """Groups that other sockets have joined are not received (RFC 7252 §8.1)."""
        for interface in ("", "::"):
            _, fake = self.open_port(Recorder(), interface)
            ipv4, ipv6 = (socket.IPPROTO_IP, 49), (socket.IPPROTO_IPV6, 29)
            self.assertEqual(fake.groups, {ipv4: 0, ipv6: 0})

    def test_ipv6_sources(self) -> None:
        """A source is host and port; the scope of a link-local one stays with its host."""
        recorder = Recorder()
        port, fake = self.open_port(recorder, "::1")
        fake.incoming.extend([(b"a", ("::1", 5, 0, 0)), (b"b", ("fe80::1", 6, 0, 2))])
        port.doRead()
        self.assertEqual(recorder.datagrams, [(b"a", ("::1", 5)), (b"b", ("fe80::1%2", 6))])


class StopTests(PortTestCase):
    """:meth:`CappedPort.stopListening` closes the port once."""

    def test_twice(self) -> None:
        """Each call before the end gets a Deferred, and all fire at the end."""
        port, fake = self.open_port(Recorder())
        stopped = [port.stopListening(), port.stopListening()]
        self.reactor.advance(0)
        for deferred in stopped:
            assert deferred is not None
            self.successResultOf(deferred)
        self.assertTrue(fake.closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_after_the_end(self) -> None:
        """A port that is closed has nothing to wait for."""
        port, _ = self.open_port(Recorder())
        self.stop(port)
        self.assertIsNone(port.stopListening())

    def test_error_before_the_end(self) -> None:
        """A port that the reactor closes for an error while it stops is closed once."""
        port, fake = self.open_port(Recorder())
        stopped = port.stopListening()
        assert stopped is not None
        port.connectionLost(Failure(ConnectionLost()))
        self.successResultOf(stopped)
        self.assertTrue(fake.closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_survived_error_before_the_end(self) -> None:
        """A transient error while the port stops does not make it read again."""
        port, fake = self.open_port(Recorder())
        port.connect(*HERE)
        stopped = port.stopListening()
        assert stopped is not None
        fake.error = errno.ECONNREFUSED
        port.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.reactor.getReaders(), [])
        self.reactor.advance(0)
        self.successResultOf(stopped)


class WriteTests(PortTestCase):
    """:class:`CappedPort` sends, or counts what it could not."""

    def test_answers_to_the_source(self) -> None:
        """An answer goes to where its datagram came from, its scope kept."""
        recorder = Recorder()
        port, fake = self.open_port(recorder, "::1")
        fake.incoming.append((b"b", ("fe80::1", 6, 0, 2)))
        port.doRead()
        port.write(b"answer", recorder.datagrams[0][1])
        self.assertEqual(fake.outgoing, [(b"answer", ("fe80::1", 6, 0, 2))])

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
        port.connect(*HERE)
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
        numbers = [errno.ENOBUFS, errno.EPERM, errno.EINVAL, errno.ENETUNREACH]
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


class Answering(DatagramProtocol):
    """Does with each datagram what a test says."""

    def __init__(self, answer: Any) -> None:  # Any: what a lambda gives
        self._do = answer

    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        self._do(self.transport, datagram, addr)


class AnswersTests(PortTestCase):
    """The small answers of a turn are sent in a row, and nothing overtakes anything."""

    def turn(self, answer: Any, datagrams: list[bytes]) -> FakeSocket:  # Any: as above
        """Receive datagrams in one turn, and answer them."""
        self.port, fake = self.open_port(Answering(answer))
        self.fake = fake
        fake.incoming.extend((datagram, HERE) for datagram in datagrams)
        self.port.doRead()
        return fake

    def test_in_a_row(self) -> None:
        """They leave when all have been answered, in order, and so many at once at most."""
        sent: list[int] = []

        def answer(port: CappedPort, datagram: bytes, source: Source) -> None:
            sent.append(len(self.fake.outgoing))
            port.write(datagram, source)

        datagrams = [b"%d" % i for i in range(MAX_BATCH + 3)]
        fake = self.turn(answer, datagrams)
        self.assertEqual(fake.outgoing, [(datagram, HERE) for datagram in datagrams])
        self.assertEqual(sent, [0] * MAX_BATCH + [MAX_BATCH] * 3)

    def test_many_to_one(self) -> None:
        """Those to one datagram leave as the others do, before they are more."""
        kept: list[int] = []

        def answer(port: CappedPort, datagram: bytes, source: Source) -> None:
            for number in range(2 * MAX_BATCH + 1):
                port.write(b"%d" % number, source)
                kept.append(number + 1 - len(self.fake.outgoing))

        fake = self.turn(answer, [b"1"])
        self.assertEqual(max(kept), MAX_BATCH - 1)
        numbers = [b"%d" % number for number in range(2 * MAX_BATCH + 1)]
        self.assertEqual([data for data, _ in fake.outgoing], numbers)

    def test_equal_address(self) -> None:
        """They may be written to an address that equals the source; outside a turn, at once."""

        def answer(port: CappedPort, datagram: bytes, source: Source) -> None:
            port.write(datagram, (*source,))
            self.assertEqual(self.fake.outgoing, [])

        fake = self.turn(answer, [b"1", b"2"])
        self.assertEqual(fake.outgoing, [(b"1", HERE), (b"2", HERE)])
        self.port.write(b"3", HERE)
        self.assertEqual(fake.outgoing[2:], [(b"3", HERE)])

    def test_scope(self) -> None:
        """They go to the address as the kernel gave it."""
        port, fake = self.open_port(Answering(lambda port, *asked: port.write(*asked)), "::1")
        fake.incoming.append((b"b", ("fe80::1", 6, 0, 2)))
        port.doRead()
        self.assertEqual(fake.outgoing, [(b"b", ("fe80::1", 6, 0, 2))])

    def test_order(self) -> None:
        """What is long, no bytes, or for somebody else leaves after those that came before it."""
        other = ("127.0.0.1", 9)

        def answer(port: Any, datagram: bytes, source: Source) -> None:
            port.write(datagram, source)
            port.write(b"x" * 2000, source)
            port.write(bytearray(b"buffer"), source)
            port.write(datagram, source)
            port.write(b"other", other)

        fake = self.turn(answer, [b"1", b"2"])
        each = [b"x" * 2000, b"buffer"]
        self.assertEqual(
            [data for data, _ in fake.outgoing],
            [b"1", *each, b"1", b"other", b"2", *each, b"2", b"other"],
        )
        self.assertEqual([to for _, to in fake.outgoing].count(other), 2)

    def test_too_long(self) -> None:
        """What no network carries is an error of the writer, as ever."""

        def answer(port: CappedPort, datagram: bytes, source: Source) -> None:
            self.assertRaises(MessageLengthError, port.write, b"x" * (MAX_PAYLOAD + 1), source)
            port.write(b"sorry", source)

        fake = self.turn(answer, [b"a"])
        self.assertEqual(fake.outgoing, [(b"sorry", HERE)])

    def test_not_taken(self) -> None:
        """Those that the kernel takes later wait in order, a long one behind them too."""

        def answer(port: CappedPort, datagram: bytes, source: Source) -> None:
            if datagram == b"1":
                self.fake.send_errors.append(errno.EAGAIN)
            port.write(datagram, source)
            if datagram == b"2":
                port.write(b"x" * 2000, source)

        fake = self.turn(answer, [b"1", b"2", b"3"])
        self.assertEqual(fake.outgoing, [])
        self.port.doWrite()
        self.assertEqual([data for data, _ in fake.outgoing], [b"1", b"2", b"x" * 2000, b"3"])

    def test_refused(self) -> None:
        """One that the kernel refuses is counted as dropped, and the others are sent."""

        def answer(port: CappedPort, datagram: bytes, source: Source) -> None:
            if datagram == b"1":
                self.fake.send_errors.append(errno.EPERM)
            port.write(datagram, source)

        fake = self.turn(answer, [b"1", b"2"])
        self.assertEqual((fake.outgoing, self.port.counts.dropped), ([(b"2", HERE)], 1))

    def test_bug_after_an_answer(self) -> None:
        """A protocol that fails after it has answered has answered."""

        def answer(port: CappedPort, datagram: bytes, source: Source) -> None:
            port.write(datagram, source)
            raise ZeroDivisionError

        fake = self.turn(answer, [b"1", b"2"])
        self.assertEqual([data for data, _ in fake.outgoing], [b"1", b"2"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_stopped_meanwhile(self) -> None:
        """A port that is told to stop by a datagram sends the answers to it, and those before."""

        def answer(port: CappedPort, datagram: bytes, source: Source) -> None:
            port.write(datagram, source)
            if datagram == b"2":
                port.stopListening()

        fake = self.turn(answer, [b"1", b"2"])
        self.assertEqual([data for data, _ in fake.outgoing], [b"1", b"2"])


class RunsTests(PortTestCase):
    """Answers of one size to one client leave in one call, where the kernel cuts that."""

    def turn(
        self,
        incoming: list[tuple[bytes, Source]],
        *errors: int,
        **options: Any,  # Any: as the port has them
    ) -> FakeSocket:
        """Receive datagrams in one turn and echo them; the first calls to send fail with errors."""
        echo = Answering(lambda port, datagram, source: port.write(datagram, source))
        self.port, fake = self.open_port(echo, cuts=True, **options)
        fake.incoming.extend((data, (*source,)) for data, source in incoming)
        fake.send_errors.extend(errors)
        self.port.doRead()
        return fake

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"", b"a", b"b", b"long", b"x" * 2000]),
                st.sampled_from([HERE, ("127.0.0.1", 9), ("127.0.0.2", 9)]),
            ),
            max_size=80,
        )
    )
    def test_as_one_by_one(self, incoming: list[tuple[bytes, Source]]) -> None:
        """What is sent, to whom, and in which order, is the same as it is one by one."""
        fake = self.turn(incoming, datagrams_per_turn=100)
        self.assertEqual(fake.outgoing, incoming)
        self.assertTrue(all(1 < count <= MAX_BATCH for count in fake.runs))

    def test_one_call(self) -> None:
        """A run is one call; those that are alone are sent as ever."""
        other = ("127.0.0.1", 9)
        incoming = [(b"1", HERE), (b"2", HERE), (b"3", other), (b"44", HERE), (b"5", HERE)]
        fake = self.turn([*incoming, (b"6", HERE), (b"7", HERE)])
        self.assertEqual(fake.runs, [2, 3])

    def test_bound(self) -> None:
        """The longest run is within what the kernel cuts at once."""
        fake = self.turn([(b"x" * MAX_BATCHED_ANSWER, HERE)] * (MAX_BATCH + 1))
        self.assertEqual(fake.runs, [MAX_BATCH])
        self.assertLessEqual(MAX_BATCH, MAX_SEGMENTS)
        self.assertLessEqual(MAX_BATCH * MAX_BATCHED_ANSWER, MAX_PAYLOAD)

    def test_refused(self) -> None:
        """A run that the kernel does not take is sent one by one, and what fails then, counted."""
        incoming = [(b"1", HERE), (b"2", HERE), (b"3", HERE)]
        fake = self.turn(incoming, errno.EIO)
        self.assertEqual((fake.outgoing, fake.runs, self.port.counts.dropped), (incoming, [], 0))
        fake = self.turn(incoming, errno.EPERM, errno.EPERM)
        self.assertEqual((fake.outgoing, self.port.counts.dropped), (incoming[1:], 1))

    def test_no_room(self) -> None:
        """Where the kernel has no room for all, those that it has none for wait, in order."""
        incoming = [(b"1", HERE), (b"2", HERE), (b"33", HERE), (b"44", HERE)]
        fake = self.turn(incoming, errno.EAGAIN, errno.EAGAIN)
        self.assertEqual((fake.outgoing, fake.runs), ([], []))
        self.port.doWrite()
        self.assertEqual((fake.outgoing, self.port.counts.dropped), (incoming, 0))


class SendQueueTests(PortTestCase):
    """:class:`CappedPort` keeps what the kernel takes only later, up to a bound."""

    def full(
        self,
        **options: Any,  # Any: as the port has them
    ) -> tuple[CappedPort, FakeSocket]:
        """Start a port whose kernel has taken no more for one datagram, which waits."""
        port, fake = self.open_port(Recorder(), **options)
        fake.send_errors.append(errno.EAGAIN)
        port.write(b"0", HERE)
        return port, fake

    def test_waits(self) -> None:
        """What was not taken is sent once the socket can be written, and nothing is dropped."""
        port, fake = self.full()
        self.assertEqual(self.reactor.getWriters(), [port])
        self.assertEqual(fake.outgoing, [])
        port.doWrite()
        self.assertEqual(fake.outgoing, [(b"0", HERE)])
        self.assertEqual((self.reactor.getWriters(), port.counts.dropped), ([], 0))

    def test_order(self) -> None:
        """What is written meanwhile waits behind it, answers to the datagram at hand too."""
        port, fake = self.full()
        recorder = port.protocol
        fake.incoming.append((b"a", HERE))
        port.doRead()
        port.write(b"1", recorder.datagrams[0][1])
        port.write(b"2", HERE)
        self.assertEqual(fake.outgoing, [])
        fake.send_errors.append(errno.EAGAIN)
        port.doWrite()
        self.assertEqual((fake.outgoing, self.reactor.getWriters()), ([], [port]))
        port.doWrite()
        self.assertEqual([data for data, _ in fake.outgoing], [b"0", b"1", b"2"])
        port.write(b"3", HERE)
        self.assertEqual(fake.outgoing[-1], (b"3", HERE))

    def test_bound(self) -> None:
        """The queue takes bytes up to its bound, the cost of each datagram counted; then drops."""
        port, fake = self.full(send_queue=2 * QUEUED_COST + 5)
        port.write(b"1234", HERE)
        self.assertEqual(port.counts.dropped, 0)
        port.write(b"", HERE)
        self.assertEqual(port.counts.dropped, 1)
        port.doWrite()
        self.assertEqual(fake.outgoing, [(b"0", HERE), (b"1234", HERE)])
        fake.send_errors.append(errno.EAGAIN)
        port.write(b"again", HERE)
        self.assertEqual(port.counts.dropped, 1)

    def test_none(self) -> None:
        """A bound of 0 is no queue: what is not taken at once is dropped."""
        port, _ = self.full(send_queue=0)
        self.assertEqual((port.counts.dropped, self.reactor.getWriters()), (1, []))

    def test_refused_later(self) -> None:
        """What the kernel refuses when its turn comes is dropped, and the others are sent."""
        port, fake = self.full()
        port.write(b"x" * (MAX_PAYLOAD + 1), HERE)
        port.write(b"to a name", ("localhost", 9))
        port.write(b"1", HERE)
        fake.send_errors.append(errno.ENOBUFS)
        port.doWrite()
        self.assertEqual(fake.outgoing, [(b"1", HERE)])
        self.assertEqual(port.counts.dropped, 3)

    def test_copies(self) -> None:
        """A buffer that its owner changes afterwards is sent as it was."""
        port, fake = self.full()
        buffer = bytearray(b"before")
        port.write(buffer, HERE)  # type: ignore[arg-type]  # what sendto takes as well
        buffer[:] = b"after!"
        port.doWrite()
        self.assertEqual(fake.outgoing[-1], (b"before", HERE))

    def test_stop(self) -> None:
        """A port that stops sends what the kernel takes now, and drops the rest."""
        port, fake = self.full()
        for number in (b"1", b"2"):
            port.write(number, HERE)
        fake.send_errors.append(errno.EAGAIN)
        self.stop(port)
        self.assertEqual((fake.outgoing, port.counts.dropped), ([], 3))
        self.assertEqual(self.reactor.getWriters(), [])
        port, fake = self.full()
        self.stop(port)
        self.assertEqual((fake.outgoing, port.counts.dropped), ([(b"0", HERE)], 0))


class KernelDropsTests(PortTestCase):
    """:class:`CappedPort` tells what the kernel dropped at its socket."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(sys, "platform", "linux")
        self.counts = DatagramCounts()

    def started(self, drops: int | None) -> tuple[CappedPort, FakeSocket]:
        """Start a port at whose socket so many had been dropped before."""
        fake = self.use_socket(FakeSocket())
        fake.drops = drops
        port = CappedPort(0, Recorder(), "127.0.0.1", reactor=self.reactor, counts=self.counts)
        port.startListening()
        return port, fake

    def test_since_the_start(self) -> None:
        """What was dropped before the start is not counted; the kernel's number may wrap."""
        _, fake = self.started(0xFFFFFFFE)
        self.assertEqual(self.counts.kernel_drops, 0)
        fake.drops = 3
        self.assertEqual(self.counts.kernel_drops, 5)

    def test_several(self) -> None:
        """The drops of several sockets are added up, those of closed ones too."""
        first, fake = self.started(0)
        _, other = self.started(0)
        fake.drops, other.drops = 2, 3
        self.assertEqual(self.counts.kernel_drops, 5)
        self.stop(first)
        other.drops = 4
        self.assertEqual(self.counts.kernel_drops, 6)

    def test_kernel_that_does_not_tell(self) -> None:
        """Where the kernel tells nothing, there are none."""
        self.started(None)
        self.assertEqual(self.counts.kernel_drops, 0)

    def test_other_systems(self) -> None:
        """Systems other than Linux are not asked."""
        self.patch(sys, "platform", "darwin")
        _, fake = self.started(5)
        fake.drops = 9
        self.assertEqual(self.counts.kernel_drops, 0)


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
        self.assertEqual(set_receive_buffer(fake, 100_000), 200_000)

    def test_refused(self) -> None:
        """A kernel that refuses the size leaves the buffer as it was."""
        self.patch(sys, "platform", "linux")

        class Refusing(FakeSocket):
            def setsockopt(self, level: int, option: int, value: int) -> None:
                raise OSError(errno.ENOBUFS, "No buffer space available")

        fake: Any = Refusing()  # a fake is no socket to mypy
        self.assertEqual(set_receive_buffer(fake, 1 << 30), 212_992)

    def test_send_buffer(self) -> None:
        """A send buffer is asked for where one is named, and warned about where it is clipped."""
        self.patch(sys, "platform", "linux")
        _, fake = self.open_port(Recorder())
        self.assertNotIn(socket.SO_SNDBUF, fake.asked)
        for size, warnings in ((1 << 20, 0), (16 << 20, 1)):
            with self.subTest(size=size), capturedLogs() as events:
                _, fake = self.open_port(Recorder(), send_buffer=size)
                self.assertEqual(fake.asked[socket.SO_SNDBUF], size)
                self.assertEqual(len(texts(events, LogLevel.warn)), warnings)

    def test_shared_port(self) -> None:
        """A port is shared with other processes where that is asked for alone."""
        for reuse in (False, True):
            _, fake = self.open_port(Recorder(), reuse_port=reuse)
            self.assertEqual(fake.asked.get(socket.SO_REUSEPORT), 1 if reuse else None)
