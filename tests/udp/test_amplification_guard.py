"""Tests for :mod:`twisted_net.udp.amplification_guard`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.addresses import Source
from twisted_net.udp.amplification_guard import PAD, AmplificationGuard
from twisted_net.udp.limits import MAX_PAYLOAD, REFLECTOR_PORTS, DatagramLimits
from twisted_net.udp.responder import DatagramHandler, DatagramResponder, Wall

CLIENT: Source = ("192.0.2.1", 50_000)


def wall() -> float:
    """Return the time of day."""
    return 1_795_339_800.123456


def guarded(
    handler: DatagramHandler | None = None,
    **limits: Any,  # Any: the record checks
) -> tuple[AmplificationGuard, DatagramResponder]:
    """Make a guard, and the responder behind it."""
    record = DatagramLimits(**limits)
    responder = DatagramResponder(record, handler)
    return AmplificationGuard(responder, record), responder


def answer(data: bytes, source: Source = CLIENT) -> bytes | None:
    """Ask a guard that has seen nothing yet."""
    return guarded()[0].answer(data, source, 0.0, wall)


DATAGRAMS = (
    st.binary(max_size=80)
    | st.text(max_size=40).map(str.encode)
    | st.tuples(
        st.sampled_from([b"PING", b"time", b"STATS", b"ECHO: x", b"PONG", PAD, b"ERROR: x"]),
        st.integers(0, 600),
    ).map(lambda pair: pair[0] + b" " * pair[1])
)


class LengthTests(SynchronousTestCase):
    """:class:`AmplificationGuard` gives no answer as long as its question, but for ``PONG``."""

    def test_padded_questions(self) -> None:
        """With white space behind them, or bytes behind a number, all questions are answered."""
        self.assertEqual(answer(b"TIME".ljust(33)), b"2026-11-22T09:30:00.123456+00:00")
        self.assertEqual(answer(b"hello".ljust(12)), b"ECHO: hello")
        self.assertEqual(answer(b"\xff\x00\x00\x29\x00"), b"\xff\x00\x00\x2a")
        stats = answer(b"STATS".ljust(1200))
        assert stats is not None
        self.assertEqual(json.loads(stats)["total_packets"], 1)

    def test_ping(self) -> None:
        """PING needs no padding: its answer is as long, and gets none itself."""
        self.assertEqual(answer(b"PING"), b"PONG")
        self.assertEqual(answer(b"PONG"), PAD)

    def test_refusal(self) -> None:
        """One byte less than is needed gets the refusal, which is shorter than the question."""
        for question in (b"TIME", b"TIME".ljust(32), b"hello".ljust(11), b"\xff\x00\x00\x29"):
            with self.subTest(question=question):
                self.assertEqual(answer(question), PAD)

    def test_too_short_for_a_refusal(self) -> None:
        """A question no longer than the refusal gets silence; all that is withheld is counted."""
        guard, responder = guarded()
        for question in (b"", b"hi", b"\xff\xff\xff", PAD):
            self.assertIsNone(guard.answer(question, CLIENT, 0.0, wall))
        self.assertEqual(responder.counts.too_short, 4)

    def test_silence(self) -> None:
        """Where silence is set, there is no refusal either, but the count is the same."""
        guard, responder = guarded(refusal="silence")
        self.assertIsNone(guard.answer(b"TIME", CLIENT, 0.0, wall))
        self.assertEqual(responder.counts.too_short, 1)

    def test_refusal_of_long_datagrams(self) -> None:
        """A datagram over the limit is told so where that is shorter than itself."""
        guard, responder = guarded(max_datagram=10)
        self.assertEqual(guard.answer(b"a" * 11, CLIENT, 0.0, wall), PAD)
        self.assertEqual(responder.counts.refused, 1)
        guard, _ = guarded(max_datagram=100)
        self.assertEqual(
            guard.answer(b"a" * 101, CLIENT, 0.0, wall), b"ERROR: datagram longer than 100 bytes"
        )

    def test_handlers(self) -> None:
        """The rule holds for handlers too; what they keep to themselves is no refusal."""
        guard, responder = guarded(lambda data, source: data if data else None)
        self.assertEqual(guard.answer(b"abcd", CLIENT, 0.0, wall), PAD)
        self.assertIsNone(guard.answer(b"", CLIENT, 0.0, wall))
        self.assertEqual((responder.counts.too_short, responder.counts.unanswered), (1, 1))

    @given(DATAGRAMS)
    def test_any(self, data: bytes) -> None:
        """Whatever comes, less leaves than came, or as much where PING is answered by PONG."""
        given = answer(data)
        if given is not None:
            self.assertTrue(len(given) < len(data) or (data.upper(), given) == (b"PING", b"PONG"))

    def test_statistics_fit(self) -> None:
        """Whatever the counts, a question of 1200 bytes is long enough for STATS."""
        responder = DatagramResponder(DatagramLimits())
        figures = dict.fromkeys(responder.statistics(), 2**64)
        self.assertLess(len(json.dumps(figures)), 1200)


class PortTests(SynchronousTestCase):
    """:class:`AmplificationGuard` answers no port from which another server would answer back."""

    def test_privileged(self) -> None:
        """Ports below 1024 are not answered: echo, chargen and DNS are among them."""
        guard, responder = guarded()
        for port in (0, 7, 19, 53, 1023):
            self.assertIsNone(guard.answer(b"PING", ("192.0.2.1", port), 0.0, wall))
        self.assertEqual(guard.answer(b"PING", ("192.0.2.1", 1024), 0.0, wall), b"PONG")
        counts = responder.counts
        self.assertEqual((counts.received, counts.ignored), (6, 5))
        self.assertEqual(len(responder.clients), 1)

    def test_reflectors(self) -> None:
        """Nor are the ports of services that are known to answer anything."""
        for port in REFLECTOR_PORTS:
            self.assertIsNone(answer(b"PING", ("192.0.2.1", port)))

    def test_own(self) -> None:
        """Nor is a port that we listen on, from any address."""
        guard, responder = guarded()
        self.assertEqual(guard.answer(b"PING", ("192.0.2.1", 9999), 0.0, wall), b"PONG")
        guard.own_ports.add(9999)
        self.assertIsNone(guard.answer(b"PING", ("192.0.2.1", 9999), 0.0, wall))
        self.assertEqual(responder.counts.ignored, 1)

    def test_settings(self) -> None:
        """Both can be set."""
        guard, _ = guarded(lowest_source_port=1, reflector_ports=(4000,))
        self.assertEqual(guard.answer(b"PING", ("192.0.2.1", 53), 0.0, wall), b"PONG")
        self.assertIsNone(guard.answer(b"PING", ("192.0.2.1", 4000), 0.0, wall))


class RateTests(SynchronousTestCase):
    """:class:`AmplificationGuard` keeps a rate for each network."""

    def ask(self, guard: AmplificationGuard, host: str, now: float) -> bool:
        """Whether a question of *host* is answered."""
        return guard.answer(b"PING", (host, 50_000), now, wall) is not None

    def test_networks(self) -> None:
        """Hosts of one /24 or /64 share a rate; others have their own."""
        for hosts, other in (
            (("192.0.2.1", "192.0.2.9"), "192.0.3.1"),
            (("2001:db8::1", "2001:db8::2"), "2001:db8:0:1::1"),
            (("::ffff:192.0.2.1", "::ffff:192.0.2.9"), "::ffff:192.0.3.1"),
            (("fe80::1%2", "fe80::2%2"), "2001:db8::1"),
            (("192.0.2.1", "::ffff:192.0.2.9"), "192.0.3.1"),
        ):
            with self.subTest(hosts=hosts):
                guard, responder = guarded(datagrams_per_network=1.0, datagram_burst=2)
                self.assertEqual([self.ask(guard, host, 0.0) for host in hosts], [True, True])
                self.assertEqual([self.ask(guard, host, 0.0) for host in hosts], [False, False])
                self.assertTrue(self.ask(guard, other, 0.0))
                self.assertEqual(responder.counts.rate_limited, 2)
                self.assertEqual(responder.counts.received, 5)

    def test_recovers(self) -> None:
        """What was refused costs nothing: the rate is kept, not undercut."""
        guard, _ = guarded(datagrams_per_network=8.0, datagram_burst=1)
        answered = sum(self.ask(guard, "192.0.2.1", tick / 1024) for tick in range(1025))
        self.assertEqual(answered, 9)

    def test_none(self) -> None:
        """Without a rate nothing is limited."""
        guard, responder = guarded(datagrams_per_network=None, datagram_burst=1)
        self.assertTrue(all(self.ask(guard, "192.0.2.1", 0.0) for _ in range(50)))
        self.assertEqual(responder.counts.rate_limited, 0)


class Network:
    """
    Some servers that hear each other, and nothing else.

    :ivar carried: the datagrams that were carried, each with its sender.
    """

    def __init__(self, *answers: Callable[[bytes, Source, float, Wall], bytes | None]) -> None:
        self._servers = {("192.0.2.1", 40_000 + i): answers[i] for i in range(len(answers))}
        self.carried: list[tuple[Source, bytes]] = []

    def forge(self, data: bytes, limit: int) -> int:
        """
        Send *data* to each server as if from each one, itself too, and let them talk.

        :param limit: datagrams after which it counts as endless.
        :return: the most datagrams that one forged one led to, it included.
        """
        longest = 0
        for sender in self._servers:
            for receiver in self._servers:
                self.carried = [(sender, data)]
                way: tuple[Source, Source] = (sender, receiver)
                said: bytes | None = data
                while said is not None and len(self.carried) <= limit:
                    source, target = way
                    said = self._servers[target](said, source, 0.0, wall)
                    if said is not None:
                        self.carried.append((target, said))
                        way = (target, source)
                longest = max(longest, len(self.carried))
        return longest


class LoopTests(SynchronousTestCase):
    """Guarded servers do not answer each other without end, whatever is forged."""

    def guards(self, *handlers: DatagramHandler | None) -> Network:
        """Connect a server for each handler, without rates and ports: lengths alone count."""
        return Network(
            *(
                guarded(
                    handler,
                    datagrams_per_network=None,
                    lowest_source_port=1,
                    max_datagram=MAX_PAYLOAD,
                )[0].answer
                for handler in handlers
            )
        )

    def test_unguarded_servers_loop(self) -> None:
        """Without the guard an echo and a number both go on for ever: the simulation sees loops."""
        limits = DatagramLimits()
        network = Network(*(DatagramResponder(limits).answer for _ in range(2)))
        for data in (b"hello", b"\xff\x00\x00\x00", b"", b"\xff", b"x" * 4097):
            with self.subTest(data=data[:9]):
                self.assertEqual(network.forge(data, 1000), 1001)

    @given(DATAGRAMS)
    def test_standard_answers(self, data: bytes) -> None:
        """Between two of our servers, one forged datagram leads to at most two answers."""
        network = self.guards(None, None)
        self.assertLessEqual(network.forge(data, 100), 3)
        self.assertLessEqual(
            sum(len(said) for _, said in network.carried[1:]), max(2 * len(data) - 1, 0)
        )

    def test_known_loops(self) -> None:
        """What loops elsewhere ends here: echoes of echoes, numbers, errors about errors."""
        network = self.guards(None, None)
        for data in (
            b"ECHO: ECHO: hello",
            b"ECHO: hello".ljust(100),
            b"\xff\x00\x00\x00",
            b"\xff\x00\x00\x00" * 10,
            b"ERROR: datagram longer than 4096 bytes",
            b"PAD".ljust(50),
            b"x" * (MAX_PAYLOAD + 1),
        ):
            with self.subTest(data=data[:20]):
                self.assertLessEqual(network.forge(data, 100), 3)

    def test_handlers(self) -> None:
        """With any handler a chain ends too, as each answer is shorter than the one before."""
        for handler in (
            lambda data, source: data,
            lambda data, source: data[1:],
            lambda data, source: data[:3] or b"new",
            lambda data, source: b"PING",
            lambda data, source: b"PONG",
        ):
            for other in (handler, None):
                network = self.guards(handler, other)
                for data in (b"PING", b"a" * 50, b"\xff" * 50):
                    self.assertLessEqual(network.forge(data, 100), len(data) + 2)

    def test_echo_service(self) -> None:
        """Nor is there a loop with a service that sends back what it gets, at any port."""
        for data in (b"PING", b"hello".ljust(40), b"\xff" * 40, b"STATS".ljust(1000)):
            guard, _ = guarded()
            said: bytes | None = data
            answers = 0
            while said is not None and answers < 100:
                said = guard.answer(said, CLIENT, 0.0, wall)
                answers += said is not None
            self.assertLessEqual(answers, 3)

    def test_unknown_reflector(self) -> None:
        """A service that always says more gets no more than the rate of its network."""
        guard, responder = guarded(datagrams_per_network=10.0, datagram_burst=5)
        answered = 0
        for tick in range(10_000):
            answered += guard.answer(b"x" * 1000, CLIENT, tick / 1000, wall) is not None
        self.assertLessEqual(answered, 105)
        self.assertEqual(responder.counts.rate_limited, 10_000 - answered)
