"""Tests for :mod:`twisted_net.udp.client`."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionLost, DNSLookupError
from twisted.python.failure import Failure

from tests.udp.memory import FakeSocket, PortTestCase
from twisted_net.net.addresses import Source
from twisted_net.udp.amplification_guard import AmplificationGuard
from twisted_net.udp.client import DatagramClient
from twisted_net.udp.errors import (
    DatagramClientClosed,
    DatagramHostNotFound,
    DatagramRefused,
    DatagramTimeout,
    DatagramUnreachable,
    TooManyQuestions,
)
from twisted_net.udp.limits import MAX_PAYLOAD, DatagramClientSettings, DatagramLimits
from twisted_net.udp.responder import DatagramResponder

SERVER: Source = ("192.0.2.1", 9999)
T = TypeVar("T")


class ClientTestCase(PortTestCase):
    """A client on sockets that are fakes; ``self.sockets`` has them, the latest last."""

    def setUp(self) -> None:
        super().setUp()
        self.sockets: list[FakeSocket] = []
        self.patch(socket, "socket", self.new_socket)
        self.client = self.make()

    def new_socket(self, family: int, kind: int) -> FakeSocket:
        """Make the next fake."""
        self.sockets.append(FakeSocket())
        return self.sockets[-1]

    def make(self, host: str = SERVER[0], **settings: Any) -> DatagramClient:
        """Make a client whose waits are as long as its settings say."""
        # Any: the record checks
        return DatagramClient(
            self.reactor, host, SERVER[1], DatagramClientSettings(**settings), lambda: 0.0
        )

    def ask(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Begin to ask."""
        return Deferred.fromCoroutine(coroutine)

    def answer(self, data: bytes | OSError, sock: FakeSocket | None = None) -> None:
        """Deliver a datagram, and make the reactor read it."""
        sock = sock or self.sockets[-1]
        sock.incoming.append(data if isinstance(data, OSError) else (data, SERVER))
        for reader in list(self.reactor.getReaders()):
            if reader.socket is sock:
                reader.doRead()

    def sent(self) -> list[bytes]:
        """Return what was sent on the latest socket."""
        return [data for data, _ in self.sockets[-1].outgoing]

    def close(self) -> None:
        """Close the client, and see that nothing is left."""
        closed = self.ask(self.client.close())
        self.reactor.advance(0)
        self.successResultOf(closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertTrue(all(sock.closed for sock in self.sockets))


class MisuseTests(ClientTestCase):
    """Numbers that cannot be meant are refused, and nothing is sent."""

    def test_numbers(self) -> None:
        """Ports, retries, and numbers to increment have bounds."""
        for port in (-1, 0, 65_536):
            self.assertRaises(ValueError, DatagramClient, self.reactor, SERVER[0], port)
        for retries in (-1, 101):
            asked = self.ask(self.client.ask(b"x", retries=retries))
            self.failureResultOf(asked, ValueError)
        for number in (-1, 1 << 32):
            self.failureResultOf(self.ask(self.client.increment(number)), ValueError)
        wrong: tuple[Any, ...] = ("1", 1.5, True, float("nan"))  # Any: on purpose
        for other in wrong:
            self.assertRaises(TypeError, self.client.increment, other)
        self.assertEqual(self.sockets, [])


class QuestionTests(ClientTestCase):
    """Each question takes the answer that has its form."""

    def test_ping(self) -> None:
        """ping gives the seconds that it took."""
        asked = self.ask(self.client.ping())
        self.assertEqual(self.sockets[-1].outgoing, [(b"PING", SERVER)])
        self.reactor.advance(0.25)
        self.answer(b"PONG")
        self.assertEqual(self.successResultOf(asked), 0.25)
        self.close()

    def test_time(self) -> None:
        """time gives a time with its offset."""
        asked = self.ask(self.client.time())
        for wrong in (b"soon", b"2026-11-22", b"2026-11-22T09:30:00", b"\xff"):
            self.answer(wrong)
        self.assertNoResult(asked)
        self.answer(b"2026-11-22T09:30:00.123456+00:00")
        self.assertEqual(self.successResultOf(asked), datetime(2026, 11, 22, 9, 30, 0, 123456, UTC))
        self.assertEqual(self.client.strays, 4)

    def test_stats(self) -> None:
        """stats gives the figures by their names."""
        asked = self.ask(self.client.stats())
        for wrong in (b"[1]", b'{"a":"b"}', b"{"):
            self.answer(wrong)
        self.answer(json.dumps({"total_packets": 3}).encode())
        self.assertEqual(self.successResultOf(asked), {"total_packets": 3})

    def test_echo(self) -> None:
        """echo gives the text back, and takes no other's for it."""
        asked = self.ask(self.client.echo("grüße"))
        self.answer(b"ECHO: other")
        self.answer("ECHO: grüße".encode())
        self.assertEqual(self.successResultOf(asked), "grüße")

    def test_echo_of_what_is_none(self) -> None:
        """Text that the server would change or take for a command is refused."""
        for text in (" a", "a\n", "ping", "STATS"):
            self.failureResultOf(self.ask(self.client.echo(text)), ValueError)

    def test_increment(self) -> None:
        """increment counts modulo 2**32, also numbers whose bytes are text."""
        for number, following in ((0, 1), (0x29, 0x2A), (0xFFFFFFFF, 0)):
            asked = self.ask(self.client.increment(number))
            self.answer(b"\x12\x34\x56\x78")
            self.answer(following.to_bytes(4, "big"))
            self.assertEqual(self.successResultOf(asked), following)
        for number in (-1, 1 << 32):
            self.failureResultOf(self.ask(self.client.increment(number)), ValueError)

    def test_guarded_server(self) -> None:
        """A server that guards its answers answers every question that has a method here."""
        limits = DatagramLimits()
        guard = AmplificationGuard(DatagramResponder(limits), limits)
        for question in (
            self.client.ping(),
            self.client.time(),
            self.client.stats(),
            self.client.echo("hello"),
            self.client.echo(""),
            self.client.increment(0),
        ):
            asked = self.ask(question)
            answer = guard.answer(self.sent()[-1], ("192.0.2.9", 50_000), 0.0, lambda: 0.0)
            assert answer is not None
            self.answer(answer)
            self.successResultOf(asked)

    def test_ask(self) -> None:
        """ask sends bytes as they are, takes the first answer, and asks once."""
        asked = self.ask(self.client.ask(b"any\x00"))
        self.assertEqual(self.sent(), [b"any\x00"])
        self.answer(b"ERROR: even this")
        self.assertEqual(self.successResultOf(asked), b"ERROR: even this")
        asked = self.ask(self.client.ask(b"again"))
        self.reactor.advance(0.5)
        self.failureResultOf(asked, DatagramTimeout)
        self.failureResultOf(self.ask(self.client.ask(b"x" * (MAX_PAYLOAD + 1))), ValueError)


class RetryTests(ClientTestCase):
    """A question that is not answered is asked anew, then given up."""

    def test_waits(self) -> None:
        """Each wait is twice the one before, and the error says how often it was asked."""
        asked = self.ask(self.client.ping())
        sent = []
        for _ in range(16):
            sent.append(len(self.sent()))
            self.reactor.advance(0.5)
        self.assertEqual(sent, [1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4])
        self.assertEqual(self.failureResultOf(asked, DatagramTimeout).value.sent, 4)
        self.close()

    def test_chance(self) -> None:
        """Waits are longer by up to a half, as chance has it."""
        settings = DatagramClientSettings(retries=0)
        client = DatagramClient(self.reactor, *SERVER, settings, lambda: 1.0)
        asked = self.ask(client.ping())
        self.reactor.advance(0.74)
        self.assertNoResult(asked)
        self.reactor.advance(0.02)
        self.failureResultOf(asked, DatagramTimeout)

    def test_late_answers(self) -> None:
        """After a question that was asked twice the port is left, and late answers go nowhere."""
        asked = self.ask(self.client.time())
        self.reactor.advance(0.5)
        self.answer(b"2026-11-22T09:30:00+00:00")
        self.successResultOf(asked)
        old = self.sockets[-1]
        asked = self.ask(self.client.time())
        self.assertIsNot(self.sockets[-1], old)
        self.answer(b"2026-11-22T09:30:01+00:00", old)
        self.assertNoResult(asked)
        self.answer(b"2026-11-22T09:30:02+00:00")
        self.assertEqual(self.successResultOf(asked).second, 2)
        self.close()

    def test_port_is_kept(self) -> None:
        """While every question is answered at once, one port is enough."""
        for _ in range(3):
            asked = self.ask(self.client.ping())
            self.answer(b"PONG")
            self.successResultOf(asked)
        self.assertEqual(len(self.sockets), 1)
        self.answer(b"PONG")
        self.assertEqual(self.client.strays, 1)

    def test_refused(self) -> None:
        """PAD and ERROR end a question that has another form of answer, in the server's words."""
        for refusal in (b"PAD", b"ERROR: datagram longer than 10 bytes"):
            asked = self.ask(self.client.ping())
            self.answer(refusal)
            error = self.failureResultOf(asked, DatagramRefused).value
            self.assertEqual(error.answer, refusal)
            self.assertIn(refusal.decode(), str(error))

    def test_unreachable(self) -> None:
        """After "port unreachable" the question is sent again, as the server may be restarting."""
        gone = OSError(errno.ECONNREFUSED, "Connection refused")
        asked = self.ask(self.client.ping())
        self.answer(gone)
        self.assertNoResult(asked)
        self.reactor.advance(0.5)
        self.answer(b"PONG")
        self.successResultOf(asked)
        once = self.ask(self.client.ask(b"x"))
        self.answer(gone)
        self.failureResultOf(once, DatagramUnreachable)
        asked = self.ask(self.client.ping())
        self.answer(gone)
        self.reactor.pump([0.5] * 16)
        error = self.failureResultOf(asked, DatagramUnreachable).value
        self.assertRegex(str(error), "^the server cannot be reached: nobody listens at .+:[0-9]+$")

    def test_no_socket(self) -> None:
        """Where no socket can be had, each question fails, however many wait."""

        def fail_always(family: int, kind: int) -> FakeSocket:
            raise OSError(errno.EMFILE, "Too many open files")

        asked = [self.ask(self.client.ping()) for _ in range(900)]
        self.patch(socket, "socket", fail_always)
        self.reactor.pump([0.5] * 16)
        self.failureResultOf(asked[0], DatagramTimeout)
        for one in asked[1:]:
            self.failureResultOf(one, DatagramUnreachable)

    def test_no_route(self) -> None:
        """A server to which there is no way cannot be reached; the socket is closed again."""

        class Routeless(FakeSocket):
            def connect(self, address: Source) -> None:
                raise OSError(errno.ENETUNREACH, "Network is unreachable")

        self.sockets.append(Routeless())
        self.patch(socket, "socket", lambda family, kind: self.sockets[-1])
        error = self.failureResultOf(self.ask(self.client.ping()), DatagramUnreachable).value
        self.assertIn("Network is unreachable", str(error))
        self.close()

    def test_too_long_for_the_way(self) -> None:
        """A question that the network does not take at its length fails, and the next is asked."""
        asked = self.ask(self.client.ask(b"x" * 60_000))
        self.answer(b"ok")
        self.successResultOf(asked)
        self.sockets[-1].send_errors.append(errno.EMSGSIZE)
        asked = self.ask(self.client.ask(b"x" * 60_000))
        self.failureResultOf(asked, DatagramUnreachable)
        pinged = self.ask(self.client.ping())
        self.answer(b"PONG")
        self.successResultOf(pinged)
        self.close()

    def test_strangers(self) -> None:
        """What was sent to the socket before it knew its server is from a stranger, and unheard."""
        asked = self.ask(self.client.ping())
        sock = self.sockets[-1]
        for stranger in (("192.0.2.1", 9998), ("192.0.2.2", 9999)):
            sock.incoming.append((b"PONG", stranger))
        self.answer(b"")
        self.assertNoResult(asked)
        self.assertEqual(self.client.strays, 1)
        self.answer(b"PONG")
        self.successResultOf(asked)

    def test_socket_that_is_lost(self) -> None:
        """A socket that the reactor takes away is replaced when the question is asked anew."""
        asked = self.ask(self.client.ping())
        (port,) = self.reactor.getReaders()
        port.connectionLost(Failure(ConnectionLost()))
        self.reactor.advance(0.5)
        self.assertEqual(len(self.sockets), 2)
        self.answer(b"PONG")
        self.successResultOf(asked)
        again = self.ask(self.client.ping())
        (port,) = self.reactor.getReaders()
        port.connectionLost(Failure(ConnectionLost()))

        def fail_always(family: int, kind: int) -> FakeSocket:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(socket, "socket", fail_always)
        self.reactor.advance(0.5)
        self.failureResultOf(again, DatagramUnreachable)
        self.close()


class QueueTests(ClientTestCase):
    """One question is under way; the others wait."""

    def test_order(self) -> None:
        """Questions are asked in the order in which they were made."""
        first, second = self.ask(self.client.echo("1")), self.ask(self.client.echo("2"))
        self.assertEqual(self.sent(), [b"1       "])
        self.answer(b"ECHO: 2")
        self.assertNoResult(second)
        self.answer(b"ECHO: 1")
        self.assertEqual(self.successResultOf(first), "1")
        self.answer(b"ECHO: 2")
        self.assertEqual(self.successResultOf(second), "2")

    def test_bound(self) -> None:
        """One more than may wait is refused; room is made by an answer."""
        self.client = self.make(max_waiting=1)
        asked = [self.ask(self.client.ping()) for _ in range(3)]
        self.failureResultOf(asked[2], TooManyQuestions)
        self.answer(b"PONG")
        self.assertNoResult(self.ask(self.client.ping()))

    def test_cancelled(self) -> None:
        """A question that its caller gives up makes room for the next one, at a new port."""
        first, second, third = (self.ask(self.client.ping()) for _ in range(3))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second_socket = self.sockets[-1]
        self.assertEqual((len(self.sockets), self.sent()), (2, [b"PING"]))
        third.cancel()
        self.failureResultOf(third, CancelledError)
        self.answer(b"PONG", second_socket)
        self.successResultOf(second)
        self.close()

    def test_close(self) -> None:
        """What is under way, what waits and what comes later fails."""
        asked = [self.ask(self.client.ping()) for _ in range(2)]
        self.close()
        asked.append(self.ask(self.client.ping()))
        for one in asked:
            self.failureResultOf(one, DatagramClientClosed)
        self.close()

    def test_close_by_a_caller(self) -> None:
        """A caller that hears of its failure may cancel others, close, and ask once more."""
        asked = [self.ask(self.client.ask(b"x")) for _ in range(3)]
        late: list[Deferred[Any]] = []

        def react(failure: Failure) -> None:
            asked[2].cancel()
            late.append(self.ask(self.client.close()))
            late.append(self.ask(self.client.ask(b"y")))

        asked[0].addErrback(react)
        self.close()
        self.failureResultOf(asked[1], DatagramClientClosed)
        self.failureResultOf(asked[2], CancelledError)
        self.successResultOf(late[0])
        self.failureResultOf(late[1], DatagramClientClosed)

    def test_ask_when_failed(self) -> None:
        """A caller asks again as soon as it hears of a failure: that question has its own turn."""
        failures: tuple[Callable[[], object], ...] = (
            lambda: self.reactor.advance(10),
            lambda: self.answer(b"ERROR: too long"),
            lambda: self.answer(ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
        )
        again: list[Deferred[bytes]] = []

        def ask_again(failure: Failure) -> None:
            again.append(self.ask(self.client.ask(b"y")))

        for fail_it in failures:
            self.ask(self.client.ask(b"x", fits=b"a".__eq__)).addErrback(ask_again)
            fail_it()
            self.assertEqual(self.sent()[-1], b"y")
            self.assertNoResult(again[-1])
            self.answer(b"z")
            self.assertEqual(self.successResultOf(again[-1]), b"z")
        self.close()

    def test_hostile_stats(self) -> None:
        """Figures that are none are no answer, whatever they are."""
        asking = self.ask(self.client.stats())
        for answer in (b"[" * 60_000, b'{"a":' * 10_000, b"[]", b'{"a":1e99}', b"\xff", b"NaN"):
            self.answer(answer)
            self.assertNoResult(asking)
        self.answer(b'{"a":1}')
        self.assertEqual(self.successResultOf(asking), {"a": 1})
        self.close()

    def test_names(self) -> None:
        """A name is looked up once; one without an address is an error, and asked for again."""
        answers = [fail(DNSLookupError()), succeed("192.0.2.1")]
        self.patch(self.reactor, "resolve", lambda host: answers.pop(0))
        self.client = self.make("server.example")
        self.failureResultOf(self.ask(self.client.ping()), DatagramHostNotFound)
        for _ in range(2):
            asked = self.ask(self.client.ping())
            self.answer(b"PONG")
            self.successResultOf(asked)
        self.assertEqual(self.sockets[-1].outgoing[0], (b"PING", SERVER))

    def test_closed_while_looking_up(self) -> None:
        """A client that is closed while it looks up a name opens nothing afterwards."""
        looked_up: Deferred[str] = Deferred()
        self.patch(self.reactor, "resolve", lambda host: looked_up)
        self.client = self.make("server.example")
        asked = self.ask(self.client.ping())
        self.close()
        looked_up.callback("192.0.2.1")
        self.failureResultOf(asked, DatagramClientClosed)
        self.assertEqual(self.sockets, [])
