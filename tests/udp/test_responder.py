"""Tests for :mod:`twisted_net.udp.responder`."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.addresses import Source
from twisted_net.udp.amplification_guard import AmplificationGuard
from twisted_net.udp.limits import DatagramLimits
from twisted_net.udp.responder import (
    ClientRecord,
    ClientTable,
    DatagramCounts,
    DatagramResponder,
    increment,
)

HERE: Source = ("127.0.0.1", 50_000)


def wall() -> float:
    """Return the time of day."""
    return 1_795_339_800.123456


def answer(data: bytes) -> bytes | None:
    """Ask a responder that has seen nothing yet."""
    return DatagramResponder(DatagramLimits()).answer(data, HERE, 0.0, wall)


def obvious_answer(data: bytes) -> bytes:
    """Return the answer of the protocol's table, except for ``STATS`` and ``TIME``."""
    try:
        text = data.decode("utf-8", "strict").strip()
    except UnicodeDecodeError:
        if len(data) < 4:
            return b"INVALID"
        number = data[0] * 2**24 + data[1] * 2**16 + data[2] * 2**8 + data[3]
        number = (number + 1) % 2**32
        return bytes([number // 2**24, number // 2**16 % 256, number // 256 % 256, number % 256])
    if text in {a + b + c + d for a in "Pp" for b in "Ii" for c in "Nn" for d in "Gg"}:
        return b"PONG"
    return f"ECHO: {text}".encode()


class ClientTableTests(SynchronousTestCase):
    """:class:`ClientTable` keeps the figures of a bounded number of clients."""

    def test_figures(self) -> None:
        """A client has the times of its first and last packet, and their number."""
        table = ClientTable(3)
        for now in (1.0, 4.0, 9.0):
            table.record(HERE, now)
        client = table.get(HERE)
        assert client is not None
        self.assertEqual((client.first_seen, client.last_seen, client.packets), (1.0, 9.0, 3))

    def test_port_tells_clients_apart(self) -> None:
        """Two ports of one host are two clients."""
        table = ClientTable(3)
        table.record(("127.0.0.1", 1), 0.0)
        table.record(("127.0.0.1", 2), 0.0)
        self.assertEqual(len(table), 2)

    def test_limit_of_one(self) -> None:
        """A table of one client forgets it for the next, and knows the latter alone."""
        table = ClientTable(1)
        for port in (1, 1, 2, 2, 1):
            table.record(("::1", port), 0.0)
        self.assertEqual((len(table), table.evicted), (1, 2))
        self.assertIsNone(table.get(("::1", 2)))
        client = table.get(("::1", 1))
        assert client is not None
        self.assertEqual(client.packets, 1)

    def test_recent_of_none(self) -> None:
        """An empty table has no recent client."""
        self.assertEqual(ClientTable(1).recent(5), [])

    @given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 8), st.integers(0, 9))
    def test_like_a_slow_table(self, ports: list[int], limit: int, count: int) -> None:
        """Any sequence of packets leaves what a plain list, searched each time, would hold."""
        table = ClientTable(limit)
        slow: list[tuple[int, list[float]]] = []  # the oldest first: a port, and its packets
        forgotten = 0
        for now, port in enumerate(ports):
            table.record(("10.0.0.1", port), float(now))
            times = next((times for known, times in slow if known == port), [])
            slow = [entry for entry in slow if entry[0] != port]
            slow.append((port, [*times, float(now)]))
            if len(slow) > limit:
                slow.pop(0)
                forgotten += 1
        self.assertEqual(table.evicted, forgotten)
        self.assertEqual(len(table), len(slow))
        expected = [
            (("10.0.0.1", port), times[0], times[-1], len(times)) for port, times in reversed(slow)
        ]
        self.assertEqual(
            [
                (source, client.first_seen, client.last_seen, client.packets)
                for source, client in table.recent(count)
            ],
            expected[:count],
        )
        for source, *_figures in expected:
            self.assertIsInstance(table.get(source), ClientRecord)


class TextAnswerTests(SynchronousTestCase):
    """:class:`DatagramResponder` answers text as the wire says."""

    def test_ping_in_any_case(self) -> None:
        """PING is answered in every mixture of cases, with white space around it."""
        for text in (b"PING", b"ping", b"pInG", b" ping\r\n", b"\tPING\x00"[:-1]):
            with self.subTest(text=text):
                self.assertEqual(answer(text), b"PONG")

    def test_time(self) -> None:
        """TIME is answered with the wall's time in ISO 8601, with its offset."""
        reply = answer(b"time")
        assert reply is not None
        stamp = datetime.fromisoformat(reply.decode())
        self.assertEqual(stamp.utcoffset(), timedelta(0))
        self.assertEqual(stamp.timestamp(), wall())

    def test_stats(self) -> None:
        """STATS is answered with the totals, the datagram that asks among them."""
        responder = DatagramResponder(DatagramLimits(max_datagram=8, max_clients=2))
        for port, data in ((1, b"a"), (2, b"too long!"), (3, b"b"), (3, b"stats")):
            reply = responder.answer(data, ("127.0.0.1", port), 0.0, wall)
        assert reply is not None
        self.assertEqual(
            json.loads(reply),
            {
                "total_packets": 4,
                "active_clients": 2,
                "refused": 1,
                "failed": 0,
                "unanswered": 0,
                "ignored": 0,
                "rate_limited": 0,
                "too_short": 0,
                "kernel_drops": 0,
                "dropped": 0,
                "read_errors": 0,
                "forgotten_clients": 1,
            },
        )

    def test_echo_is_stripped(self) -> None:
        """Other text comes back after ``ECHO:``, without the white space around it."""
        self.assertEqual(answer(b"  hello  world \n"), b"ECHO: hello  world")
        self.assertEqual(answer("\u3000grüße\u2003".encode()), "ECHO: grüße".encode())

    def test_empty_is_text(self) -> None:
        """An empty datagram is text, and so is one of white space alone."""
        self.assertEqual(answer(b""), b"ECHO: ")
        self.assertEqual(answer(b" \r\n\t"), b"ECHO: ")

    def test_nearly_commands(self) -> None:
        """Text that is not quite a command is echoed; case is a matter of ASCII alone."""
        for text in ("PIN", "PINGS", "PING PING", "TIMES", "STAT", "\u017ftats", "\ufb06ats"):
            with self.subTest(text=text):
                self.assertEqual(answer(text.encode()), f"ECHO: {text}".encode())

    def test_ascii_numbers_are_text(self) -> None:
        """Four bytes that are valid UTF-8 are text, also where they look like a number."""
        self.assertEqual(answer(b"\x00\x00\x00\x29"), b"ECHO: \x00\x00\x00\x29")


class AnyDatagramTests(SynchronousTestCase):
    """:class:`DatagramResponder` takes whatever a network can deliver."""

    @given(
        st.binary(max_size=1100) | st.text(max_size=400).map(lambda text: text.encode()),
        st.text(max_size=45),
        st.integers(0, 65_535),
        st.floats(0, 2**32),
    )
    def test_no_exception(self, data: bytes, host: str, port: int, now: float) -> None:
        """No datagram, source or time makes an exception leave, and every answer is bytes."""
        limits = DatagramLimits(max_datagram=1024, max_clients=2)
        responder = DatagramResponder(limits)
        for sent in (data, data + b"\xff", b"STATS", b"TIME"):
            said = responder.answer(sent, (host, port), now, lambda: now)
            self.assertIsInstance(said, bytes)
            AmplificationGuard(responder, limits).answer(sent, (host, port), now, lambda: now)
        self.assertEqual(responder.counts.failed, 0)


class BinaryAnswerTests(SynchronousTestCase):
    """:class:`DatagramResponder` adds one to what is not text."""

    def test_lengths(self) -> None:
        """Below four bytes there is no number; from four on, bytes after them count nothing."""
        for length in range(4):
            with self.subTest(length=length):
                self.assertEqual(increment(b"\xff" * length), b"INVALID")
        for length in (1, 2, 3):
            self.assertEqual(answer(b"\xff" * length), b"INVALID")
        self.assertEqual(answer(b"\xff\x00\x00\x29"), b"\xff\x00\x00\x2a")
        self.assertEqual(answer(b"\xff\x00\x00\x29\x07"), b"\xff\x00\x00\x2a")

    def test_wraps(self) -> None:
        """The largest number is followed by 0, and carries pass through every byte."""
        for number, following in (
            (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00"),
            (b"\xff\xff\xff\xfe", b"\xff\xff\xff\xff"),
            (b"\xfe\xff\xff\xff", b"\xff\x00\x00\x00"),
            (b"\x80\x00\xff\xff", b"\x80\x01\x00\x00"),
        ):
            with self.subTest(number=number):
                self.assertEqual(answer(number), following)

    def test_every_byte(self) -> None:
        """Each byte, alone and in each of five places, is answered as the slow model does."""
        for byte in range(256):
            for data in (
                bytes([byte]),
                *(b"\xff" * i + bytes([byte]) + b"\xff" * (4 - i) for i in range(5)),
                *(b"a" * i + bytes([byte]) + b"a" * (4 - i) for i in range(5)),
            ):
                with self.subTest(data=data):
                    self.assertEqual(answer(data), obvious_answer(data))

    @given(
        st.binary(max_size=8)
        | st.text(max_size=8).map(str.encode)
        | st.sampled_from([b"ping", b"PING"])
    )
    def test_like_a_slow_reader(self, data: bytes) -> None:
        """Any datagram is answered as the slow model does."""
        if data.strip().upper() not in (b"TIME", b"STATS"):
            self.assertEqual(answer(data), obvious_answer(data))


class RefusalTests(SynchronousTestCase):
    """:class:`DatagramResponder` refuses what is over its limit, and reads no part of it."""

    def test_limit(self) -> None:
        """A datagram at the limit is answered; one byte more is refused and counted."""
        for fill in (b"a", b"\xff"):
            with self.subTest(fill=fill):
                responder = DatagramResponder(DatagramLimits(max_datagram=100))
                self.assertEqual(
                    responder.answer(fill * 100, HERE, 0.0, wall), obvious_answer(fill * 100)
                )
                self.assertEqual(responder.counts.refused, 0)
                self.assertEqual(
                    responder.answer(fill * 101, HERE, 0.0, wall),
                    b"ERROR: datagram longer than 100 bytes",
                )
                self.assertEqual(responder.counts.refused, 1)
                self.assertEqual(responder.counts.received, 2)

    def test_handler_sees_none(self) -> None:
        """A handler is not called for a datagram over the limit, and its client is counted."""
        seen: list[bytes] = []

        def handler(data: bytes, source: Source) -> None:
            seen.append(data)

        responder = DatagramResponder(DatagramLimits(max_datagram=3), handler)
        responder.answer(b"abcd", HERE, 0.0, wall)
        responder.answer(b"abc", HERE, 0.0, wall)
        self.assertEqual(seen, [b"abc"])
        self.assertEqual([client.packets for _, client in responder.clients.recent(1)], [2])


class HandlerTests(SynchronousTestCase):
    """A handler answers in place of the wire's answers."""

    def test_answer(self) -> None:
        """What a handler returns is the answer, also where the wire has one of its own."""
        calls: list[tuple[bytes, Source]] = []

        def handler(data: bytes, source: Source) -> bytes:
            calls.append((data, source))
            return data[::-1]

        responder = DatagramResponder(DatagramLimits(), handler)
        self.assertEqual(responder.answer(b"PING", HERE, 0.0, wall), b"GNIP")
        self.assertEqual(responder.answer(b"", HERE, 0.0, wall), b"")
        self.assertEqual(calls, [(b"PING", HERE), (b"", HERE)])
        self.assertEqual(responder.counts.unanswered, 0)

    def test_silence(self) -> None:
        """None is no answer, and is counted; an empty answer is one."""
        responder = DatagramResponder(DatagramLimits(), lambda data, source: None)
        self.assertIsNone(responder.answer(b"PING", HERE, 0.0, wall))
        self.assertEqual(responder.counts.unanswered, 1)

    def test_exception(self) -> None:
        """What a handler raises leaves, after its datagram was counted."""

        def handler(data: bytes, source: Source) -> bytes:
            raise KeyError(data)

        responder = DatagramResponder(DatagramLimits(), handler)
        self.assertRaises(KeyError, responder.answer, b"x", HERE, 0.0, wall)
        self.assertEqual((responder.counts.received, len(responder.clients)), (1, 1))


class DatagramCountsTests(SynchronousTestCase):
    """:class:`DatagramCounts` adds up what the kernel drops at each socket."""

    def test_kernel_drops(self) -> None:
        """Sockets that are closed count on with what they had last."""
        counts = DatagramCounts()
        meters = [lambda size=size: size for size in (1, 10, 100)]
        for meter in meters:
            counts.add_meter(meter)
        for meter in meters:
            self.assertEqual(counts.kernel_drops, 111)
            counts.end_meter(meter)
        self.assertEqual(counts.kernel_drops, 111)


class RecentClientsTests(SynchronousTestCase):
    """:meth:`DatagramResponder.recent_clients` describes the clients heard last."""

    def test_five(self) -> None:
        """Of more clients than five, the five most recent are told, with packets and ages."""
        responder = DatagramResponder(DatagramLimits())
        for now, port in enumerate((1, 2, 3, 4, 5, 6, 2), 1):
            responder.answer(b"x", ("127.0.0.1", port), float(now), wall)
        told = responder.recent_clients(10.0)
        self.assertEqual(
            [client["client"] for client in told], [f"127.0.0.1:{port}" for port in (2, 6, 5, 4, 3)]
        )
        self.assertEqual(
            told[1], {"client": "127.0.0.1:6", "packets": 1, "age": 4.0, "known_for": 4.0}
        )
        self.assertEqual(
            told[0], {"client": "127.0.0.1:2", "packets": 2, "age": 3.0, "known_for": 8.0}
        )
