"""Every call ends once, with its own answer or an error; the connection is kept up in bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.tcp.memory import Connection, Reactor
from twisted_net.errors import (
    AnswerLost,
    CallError,
    CallRefused,
    CallTimeout,
    NotConnected,
    TooManyCalls,
)
from twisted_net.net.untrusted_json import decoded_size
from twisted_net.tcp.client import CLOSE_TIMEOUT, CommandClient, server_endpoint
from twisted_net.tcp.limits import ClientSettings


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Where the tests' server is: each attempt waits until the test says what becomes of it."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self.attempts: list[tuple[IProtocolFactory, Deferred[Any]]] = []  # Any: protocols

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # Any: as above
        """Begin an attempt."""
        deferred: Deferred[Any] = Deferred()
        self.attempts.append((protocolFactory, deferred))
        return deferred

    @property
    def trying(self) -> bool:
        """Whether an attempt is under way."""
        return any(not deferred.called for _, deferred in self.attempts)

    def accept(self, *, tls: bool = False) -> Connection:
        """Let the attempt succeed, and return the server's side of the connection."""
        factory, deferred = self.attempts.pop()
        connection = self._reactor.connect(factory, tls=tls)
        deferred.callback(connection.protocol)
        return connection

    def refuse(self) -> None:
        """Let the attempt fail."""
        self.attempts.pop()[1].errback(ConnectError(string="refused by the test"))


def lines(connection: Connection) -> list[str]:
    """Take the lines that the client has sent."""
    return connection.received().decode().splitlines()


def reply(connection: Connection, *answers: Mapping[str, object]) -> None:
    """Let the server send these."""
    connection.send(b"".join(json.dumps(answer).encode() + b"\n" for answer in answers))


HOSTILE = (
    b"[" * 100_000,
    b'{"command":"A","result":' + b"[" * 100_000,
    b'{"command":"A","result":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    b'{"command":"A","result":' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"event":' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"command":"A","result":NaN}',
    b'{"command":"A","result":1e999}',
    b'{"command":"A","result":' + b"9" * 5000 + b"}",
    b'{"command":"A","result":"\\ud800"}',
    b'{"command":"A","result":"\xff"}',
    b'{"command":["A"]}',
    b'{"command":null}',
    b'[{"command":"A"}]',
    b'"A"',
    b"\xef\xbb\xbf{}",
    b"{}" * 2,
    b"x" * 1_000_001,
)
"""Lines of a server that are no answers."""


class ClientCase(SynchronousTestCase):
    """Has a client whose server the test plays."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.endpoint = Endpoint(self.reactor)

    def make(self, *credentials: str, **settings: Any) -> CommandClient:  # Any: those of the record
        """Make a client."""
        return CommandClient(
            self.reactor, self.endpoint, ClientSettings(**settings), credentials, lambda: 1.0
        )

    def connected(self, **settings: Any) -> tuple[CommandClient, Connection]:  # Any: as above
        """Make a client that is connected."""
        client = self.make(**settings)
        done = Deferred.fromCoroutine(client.connect())
        server = self.endpoint.accept()
        self.successResultOf(done)
        return client, server

    def call(
        self, client: CommandClient, *words: str, timeout: float | None = None
    ) -> Deferred[Any]:
        """Begin a call."""
        return Deferred.fromCoroutine(client.call(*words, timeout=timeout))

    def take(self, client: CommandClient) -> Deferred[Any]:  # Any: JSON
        """Begin to take an event."""
        return Deferred.fromCoroutine(anext(client.events()))  # type: ignore[arg-type]  # it is one

    def close(self, client: CommandClient) -> None:
        """Close, and see that nothing is left."""
        closed = Deferred.fromCoroutine(client.close())
        self.reactor.settle()
        self.successResultOf(closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.connections, [])


class CallTests(ClientCase):
    """:meth:`CommandClient.call`."""

    def test_pipelined(self) -> None:
        """Calls are sent at once, and each gets its answer, in order."""
        client, server = self.connected()
        calls = [self.call(client, "ECHO", word) for word in ("a", "b c", "")]
        self.reactor.settle()
        self.assertEqual(lines(server), ["ECHO a", 'ECHO "b c"', 'ECHO ""'])
        reply(server, *({"command": "ECHO", "result": i} for i in range(3)))
        self.reactor.settle()
        self.assertEqual([self.successResultOf(call)["result"] for call in calls], [0, 1, 2])
        self.close(client)

    def test_refused(self) -> None:
        """An error of the server's is raised, with all that it said."""
        client, server = self.connected()
        call = self.call(client, "NOPE")
        answer = {"error": "unknown command: NOPE", "code": "unknown_command"}
        reply(server, answer)
        self.reactor.settle()
        error = self.failureResultOf(call, CallRefused).value
        self.assertEqual((str(error), error.reason), (answer["error"], "unknown_command"))
        self.assertEqual(error.answer, answer)
        self.close(client)

    def test_bad_words(self) -> None:
        """What no line can carry is not sent."""
        client, server = self.connected()
        self.failureResultOf(self.call(client, "ECHO", "a\nSTOP"), ValueError)
        self.reactor.settle()
        self.assertEqual(lines(server), [])
        self.close(client)

    def test_timeout(self) -> None:
        """A call that is not answered in time fails; its late answer goes to no other call."""
        client, server = self.connected(call_timeout=5)
        late, next_one = self.call(client, "A"), self.call(client, "B", timeout=9)
        self.reactor.pass_time(6)
        error = self.failureResultOf(late, CallTimeout).value
        self.assertEqual((error.command, error.limit), ("A", 5))
        reply(server, {"command": "A", "result": 1}, {"command": "B", "result": 2})
        self.reactor.settle()
        self.assertEqual(self.successResultOf(next_one)["result"], 2)
        self.close(client)

    def test_cancelled(self) -> None:
        """A call that is cancelled keeps its place among the answers."""
        client, server = self.connected()
        first, second = self.call(client, "A"), self.call(client, "B")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        reply(server, {"command": "A"}, {"command": "B"})
        self.reactor.settle()
        self.assertEqual(self.successResultOf(second), {"command": "B"})
        self.close(client)

    def test_too_many(self) -> None:
        """One call more than the limit fails, connected or not."""
        client, server = self.connected(max_calls=2)
        calls = [self.call(client, "A") for _ in range(3)]
        self.failureResultOf(calls[2], TooManyCalls)
        reply(server, {"command": "A"})
        self.reactor.settle()
        calls[2] = self.call(client, "A")
        server.reset()
        for call in calls[1:]:
            self.failureResultOf(call, AnswerLost)
        for _ in range(2):
            self.assertNoResult(self.call(client, "A").addErrback(lambda _: None))
        self.failureResultOf(self.call(client, "A"), TooManyCalls)
        self.close(client)

    def test_lost(self) -> None:
        """Each call that was sent fails with the connection, and none is sent again."""
        client, server = self.connected()
        calls = [self.call(client, "A"), self.call(client, "B")]
        self.reactor.settle()
        reply(server, {"command": "A"})
        self.reactor.settle()
        server.reset()
        self.successResultOf(calls[0])
        error = self.failureResultOf(calls[1], AnswerLost).value
        self.assertEqual(error.command, "B")
        self.reactor.pass_time(1)
        again = self.endpoint.accept()
        self.reactor.settle()
        self.assertEqual(lines(again), [])
        self.close(client)

    def test_call_when_lost(self) -> None:
        """A call made as soon as one is lost takes the next connection."""
        client, server = self.connected()
        states: list[bool] = []
        again: list[Deferred[Any]] = []

        def call_again(failure: Failure) -> None:
            failure.trap(AnswerLost)
            states.append(client.connected)
            again.append(self.call(client, "B"))

        for _ in range(2):
            self.call(client, "A").addErrback(call_again)
        server.reset()
        self.assertEqual(states, [False, False])
        for call in again:
            self.assertNoResult(call)
        self.answered_on_next_connection(again, "B")
        self.close(client)

    def test_call_when_aborted(self) -> None:
        """A call made while a connection is being aborted takes the next one."""
        client, server = self.connected()
        before = self.call(client, "A")
        reply(server, {"command": "WRONG"})
        self.reactor.connections[0].read_turn()
        self.assertFalse(client.connected)
        after = self.call(client, "B")
        self.reactor.settle()
        self.failureResultOf(before, AnswerLost)
        self.answered_on_next_connection([after], "B")
        self.close(client)

    def test_close_when_lost(self) -> None:
        """A caller may close the client when it hears of a loss, and cancel other calls."""
        client, server = self.connected()
        first, second, third = (self.call(client, "A") for _ in "abc")
        closing: list[Deferred[None]] = []

        def close(failure: Failure) -> None:
            failure.trap(AnswerLost)
            second.cancel()
            closing.append(Deferred.fromCoroutine(client.close()))

        first.addErrback(close)
        server.reset()
        self.failureResultOf(second, CancelledError)
        self.failureResultOf(third, AnswerLost)
        self.successResultOf(closing[0])
        self.failureResultOf(self.call(client, "B"), NotConnected)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def answered_on_next_connection(self, calls: list[Deferred[Any]], command: str) -> None:
        """Check that the calls are sent on the next connection, once each, and answered."""
        self.reactor.pass_time(1)
        server = self.endpoint.accept()
        self.reactor.settle()
        self.assertEqual(lines(server), [command] * len(calls))
        reply(server, *[{"command": command}] * len(calls))
        self.reactor.settle()
        for call in calls:
            self.assertEqual(self.successResultOf(call), {"command": command})

    def test_bad_timeout(self) -> None:
        """A time limit that is no time is refused before anything is sent."""
        client, server = self.connected()
        for timeout in (-1, float("nan"), float("inf"), 10**400, "5", True):
            call = self.call(client, "A", timeout=timeout)  # type: ignore[arg-type]  # on purpose
            self.failureResultOf(call, ValueError, TypeError)
        self.reactor.settle()
        self.assertEqual(lines(server), [])
        self.close(client)

    def test_hostile_answers(self) -> None:
        """Whatever a server sends in place of an answer, the call fails and the next one works."""
        for line in HOSTILE:
            with self.subTest(line=line[:30]):
                client, server = self.connected(max_line=1_000_000)
                call = self.call(client, "A")
                server.send(line + b"\n")
                self.reactor.settle()
                self.failureResultOf(call, AnswerLost)
                self.answered_on_next_connection([self.call(client, "B")], "B")
                self.close(client)

    def test_odd_answers(self) -> None:
        """An answer whose members have odd types is that of its call all the same."""
        client, server = self.connected()
        for line in (
            b'{"error":[],"code":{}}',
            b'{"error":null,"code":1e300,"command":"A"}',
            b'{"error":{"a":1},"code":"x","code":"y"}',
        ):
            call = self.call(client, "A")
            server.send(line + b"\n")
            self.reactor.settle()
            self.failureResultOf(call, CallRefused)
        self.close(client)

    def test_wrong_answer(self) -> None:
        """An answer that is another command's is dropped, and ends the connection."""
        client, server = self.connected()
        call = self.call(client, "A")
        reply(server, {"command": "B"}, {"command": "A"})
        self.reactor.settle()
        error = self.failureResultOf(call, AnswerLost).value
        self.assertIn("the answer to A was expected, not B", str(error))
        self.assertTrue(server.gone)
        self.close(client)

    def test_closed_by_an_answer(self) -> None:
        """A caller that closes on an answer has the answers after it reported as lost."""
        client, server = self.connected()
        first, second = self.call(client, "A"), self.call(client, "B")
        closing: list[Deferred[None]] = []
        first.addCallback(lambda _: closing.append(Deferred.fromCoroutine(client.close())))
        reply(server, {"command": "A"}, {"command": "B"})
        self.reactor.settle()
        self.failureResultOf(second, AnswerLost)
        self.successResultOf(closing[0])


class EndpointTests(SynchronousTestCase):
    """:func:`server_endpoint` chooses what connects."""

    def test_addresses(self) -> None:
        """An address is connected to without a thread, which others may keep busy."""
        for host in ("127.0.0.1", "::1", "fe80::1%lo"):
            reactor: Any = MemoryReactorClock()  # Any: reactors have no one type
            server_endpoint(reactor, host, 8888).connect(Factory())
            self.assertEqual([made[:2] for made in reactor.tcpClients], [(host, 8888)])

    def test_names(self) -> None:
        """A name is looked up by the reactor's resolver."""
        reactor: Any = MemoryReactorClock()
        asked = []

        class Resolver:
            def resolveHostName(self, receiver: object, name: str, **_: object) -> None:
                asked.append(name)

        reactor.nameResolver = Resolver()
        server_endpoint(reactor, "example.com", 8888).connect(Factory())
        self.assertEqual(asked, ["example.com"])

    def test_port(self) -> None:
        """A number that no port has is refused."""
        for port in (-1, 0, 65_536):
            said = f"port must be an integer from 1 to 65535, not {port}"
            for host in ("192.0.2.1", "::1", "example.com"):
                error = self.assertRaises(
                    ValueError, server_endpoint, MemoryReactorClock(), host, port
                )
                self.assertEqual(str(error), said)


class ConnectingTests(ClientCase):
    """The connection is made, kept up, and ended."""

    def test_first_fails(self) -> None:
        """Where the first attempt fails, connect says why, and the client is closed."""
        client = self.make()
        done = Deferred.fromCoroutine(client.connect())
        waiting = self.call(client, "A")
        self.endpoint.refuse()
        self.assertIn("refused", str(self.failureResultOf(done, NotConnected).value))
        self.failureResultOf(waiting, NotConnected)
        self.failureResultOf(self.call(client, "A"), NotConnected)
        self.failureResultOf(self.take(client), StopAsyncIteration)
        self.close(client)

    def test_too_long(self) -> None:
        """A connection, and a handshake, that take too long are aborted."""
        client = self.make(connect_timeout=3)
        done = Deferred.fromCoroutine(client.connect())
        self.reactor.pass_time(4)
        self.failureResultOf(done, NotConnected)
        client = self.make(connect_timeout=3)
        done = Deferred.fromCoroutine(client.connect())
        self.reactor.pass_time(2)
        server = self.endpoint.accept(tls=True)
        self.assertNoResult(done)
        self.reactor.pass_time(2)
        self.assertIn("in 3 seconds", str(self.failureResultOf(done, NotConnected).value))
        self.assertTrue(server.gone)

    def test_cancelled_lookup(self) -> None:
        """An endpoint that calls its cancellation another failure does not hide the time limit."""
        client = self.make(connect_timeout=3)
        connect = self.endpoint.connect

        def look_up(factory: IProtocolFactory) -> Deferred[Any]:  # Any: as above
            # As HostnameEndpoint does.
            return connect(factory).addErrback(lambda _: Failure(DNSLookupError("no such host")))

        self.patch(self.endpoint, "connect", look_up)
        done = Deferred.fromCoroutine(client.connect())
        self.reactor.pass_time(4)
        self.assertIn("in 3 seconds", str(self.failureResultOf(done, NotConnected).value))

    def test_handshake(self) -> None:
        """Over TLS nothing is sent before the server has proved who it is."""
        client = self.make("secret")
        done = Deferred.fromCoroutine(client.connect())
        server = self.endpoint.accept(tls=True)
        self.reactor.settle()
        self.assertEqual(lines(server), [])
        server.protocol.handshakeCompleted()  # type: ignore[attr-defined]  # IHandshakeListener
        self.reactor.settle()
        self.assertEqual(lines(server), ["AUTH secret"])
        reply(server, {"command": "AUTH"})
        self.reactor.settle()
        self.successResultOf(done)
        self.close(client)

    def test_handshake_fails(self) -> None:
        """A handshake that fails is a connection that fails."""
        client = self.make()
        done = Deferred.fromCoroutine(client.connect())
        self.endpoint.accept(tls=True).reset()
        self.failureResultOf(done, NotConnected)

    def test_login(self) -> None:
        """Calls wait for AUTH, on each connection; a refusal is raised by connect."""
        client = self.make("ada", "pass word")
        client.start()
        call = self.call(client, "A")
        server = self.endpoint.accept()
        self.reactor.settle()
        self.assertEqual(lines(server), ['AUTH ada "pass word"'])
        reply(server, {"command": "AUTH", "result": "ada"})
        self.reactor.settle()
        self.assertEqual(lines(server), ["A"])
        call.addErrback(lambda _: None)
        self.close(client)
        client = self.make("wrong")
        done = Deferred.fromCoroutine(client.connect())
        server = self.endpoint.accept()
        reply(server, {"error": "no", "code": "auth_failed"})
        self.reactor.settle()
        self.assertEqual(self.failureResultOf(done, CallRefused).value.reason, "auth_failed")
        self.assertTrue(server.gone)

    def test_lost_in_login(self) -> None:
        """A connection that is lost before AUTH is answered was none."""
        client = self.make("token")
        done = Deferred.fromCoroutine(client.connect())
        self.endpoint.accept().reset()
        self.failureResultOf(done, NotConnected)

    def test_turned_away(self) -> None:
        """What the server says unasked before it closes is the reason."""
        client = self.make("token")
        done = Deferred.fromCoroutine(client.connect())
        server = self.endpoint.accept(tls=True)
        reply(server, {"error": "too many connections: the limit of this server is 1", "code": "x"})
        self.reactor.settle()
        self.assertIn("too many connections", str(self.failureResultOf(done, NotConnected).value))

    def test_waits_grow(self) -> None:
        """The waits double up to the cap, and begin anew after a connection that lasted."""
        client = self.make(reconnect_base=1, reconnect_cap=4)
        client.start()
        waits = []
        for _ in range(5):
            self.endpoint.refuse()
            began = self.reactor.seconds()
            while not self.endpoint.trying:
                self.reactor.pass_time(0.5)
            waits.append(self.reactor.seconds() - began)
        self.assertEqual(waits, [1, 2, 4, 4, 4])
        server = self.endpoint.accept()
        self.reactor.pass_time(4)
        server.reset()
        self.reactor.pass_time(0.9)
        self.assertFalse(self.endpoint.trying)
        self.reactor.pass_time(0.2)
        self.assertTrue(self.endpoint.trying)
        self.close(client)

    def test_resubscribes(self) -> None:
        """A new connection has the same patterns, before what waits is sent."""
        client, server = self.connected()
        first = Deferred.fromCoroutine(client.subscribe("a.*"))
        second = Deferred.fromCoroutine(client.subscribe("b", "disconnect"))
        third = Deferred.fromCoroutine(client.subscribe("bad"))
        reply(server, {"command": "SUBSCRIBE"}, {"command": "SUBSCRIBE"})
        reply(server, {"command": "SUBSCRIBE", "error": "no", "code": "not_permitted"})
        self.reactor.settle()
        self.successResultOf(first)
        self.successResultOf(second)
        self.failureResultOf(third, CallRefused)
        server.reset()
        call = self.call(client, "PING")
        self.reactor.pass_time(1)
        server = self.endpoint.accept()
        self.reactor.settle()
        self.assertEqual(lines(server), ["SUBSCRIBE a.*", "SUBSCRIBE b disconnect", "PING"])
        reply(server, {"command": "SUBSCRIBE", "error": "no", "code": "not_permitted"})
        reply(server, {"command": "SUBSCRIBE"}, {"command": "PING"})
        self.reactor.settle()
        self.successResultOf(call)
        self.assertEqual(self.successResultOf(self.take(client))["event"], "reconnected")
        self.assertEqual(
            self.successResultOf(self.take(client)),
            {"event": "unsubscribed", "pattern": "a.*", "code": "not_permitted"},
        )
        self.assertEqual(client.reconnections, 1)
        gone = Deferred.fromCoroutine(client.unsubscribe("b"))
        server.reset()
        self.failureResultOf(gone, AnswerLost)
        self.reactor.pass_time(1)
        server = self.endpoint.accept()
        self.reactor.settle()
        self.assertEqual(lines(server), [])
        self.close(client)

    def test_unsent_times_out(self) -> None:
        """A call that finds no connection in time was certainly not sent, nor will be."""
        client = self.make()
        client.start()
        call, cancelled = self.call(client, "A", timeout=2), self.call(client, "B")
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.reactor.pass_time(3)
        self.failureResultOf(call, NotConnected)
        server = self.endpoint.accept()
        self.reactor.settle()
        self.assertEqual(lines(server), [])
        self.close(client)


class ClosingTests(ClientCase):
    """:meth:`CommandClient.close`, at every stage."""

    def test_stages(self) -> None:
        """Whatever is under way ends, and the calls with it."""

        def trying() -> CommandClient:
            client = self.make()
            client.start()
            return client

        def first_trying() -> CommandClient:
            client = self.make()
            Deferred.fromCoroutine(client.connect()).addErrback(lambda f: f.trap(NotConnected))
            return client

        def greeting() -> CommandClient:
            client = self.make("token")
            client.start()
            self.endpoint.accept()
            return client

        def between() -> CommandClient:
            client, server = self.connected()
            server.reset()
            return client

        for stage in (trying, first_trying, greeting, between, lambda: self.connected()[0]):
            client = stage()
            call = self.call(client, "A")
            event = self.take(client)
            self.close(client)
            self.failureResultOf(call, NotConnected, AnswerLost)
            self.failureResultOf(event, StopAsyncIteration)
            self.close(client)

    def test_stuck(self) -> None:
        """A server that reads nothing does not hold the client for long."""
        client, server = self.connected()
        server.reads = False
        self.call(client, "A").addErrback(lambda _: None)
        closed = Deferred.fromCoroutine(client.close())
        self.reactor.pass_time(CLOSE_TIMEOUT - 0.5)
        self.assertNoResult(closed)
        self.reactor.pass_time(1)
        self.successResultOf(closed)

    def test_context(self) -> None:
        """As a context the client is connected within, and closed after."""

        async def use() -> None:
            async with self.make() as client:
                self.assertTrue(client.connected)

        used = Deferred.fromCoroutine(use())
        server = self.endpoint.accept()
        self.reactor.settle()
        self.successResultOf(used)
        self.assertTrue(server.gone)

    def test_closed_for_good(self) -> None:
        """A client that was closed, or that failed to connect, does not connect again."""
        client, _ = self.connected()
        self.close(client)
        failed = self.make()
        attempt = Deferred.fromCoroutine(failed.connect())
        self.endpoint.refuse()
        self.failureResultOf(attempt, NotConnected)
        unused = self.make()
        self.close(unused)
        for closed in (client, failed, unused):
            self.failureResultOf(Deferred.fromCoroutine(closed.connect()), NotConnected)
            self.assertRaises(NotConnected, closed.start)
            self.assertEqual(self.endpoint.attempts, [])
            self.assertFalse(closed.connected)

    def test_started_once(self) -> None:
        """A client that connects already is not connected a second time: one would be left."""
        client = self.make()
        first = Deferred.fromCoroutine(client.connect())
        for _ in range(2):
            again = Deferred.fromCoroutine(client.connect())
            self.failureResultOf(again, RuntimeError)
            self.assertRaises(RuntimeError, client.start)
            self.assertEqual(len(self.endpoint.attempts), 1 - first.called)
            if not first.called:
                self.endpoint.accept()
        self.successResultOf(first)
        self.close(client)

    def test_endpoint_that_hides_the_close(self) -> None:
        """An endpoint may end its attempt by an error of its own when it is cancelled."""
        attempt: Deferred[Any] = Deferred(lambda d: d.errback(ConnectError(string="no such name")))
        client = self.make()
        self.patch(self.endpoint, "connect", lambda factory: attempt)
        done = Deferred.fromCoroutine(client.connect())
        self.close(client)
        self.assertIn("was closed", str(self.failureResultOf(done, NotConnected).value))

    def test_connect_again(self) -> None:
        """After connect was cancelled, it may be called again."""
        client = self.make()
        Deferred.fromCoroutine(client.connect()).addErrback(lambda f: None).cancel()
        self.endpoint.attempts.clear()
        done = Deferred.fromCoroutine(client.connect())
        self.assertEqual(len(self.endpoint.attempts), 1)
        self.endpoint.accept()
        self.successResultOf(done)
        self.close(client)

    def test_connect_cancelled(self) -> None:
        """To cancel connect ends the attempt, and the connection if there is one."""
        done = Deferred.fromCoroutine(self.make().connect())
        done.cancel()
        self.failureResultOf(done, CancelledError)
        done = Deferred.fromCoroutine(self.make("token").connect())
        server = self.endpoint.attempts and self.endpoint.accept()
        assert isinstance(server, Connection)
        done.cancel()
        self.reactor.settle()
        self.failureResultOf(done, CancelledError)
        self.assertTrue(server.gone)


class EventTests(ClientCase):
    """:meth:`CommandClient.events`."""

    def flood(self, when_full: str) -> tuple[CommandClient, Connection]:
        """Send four events to a client that keeps two."""
        client, server = self.connected(max_events=2, when_full=when_full)
        reply(server, *({"event": "message", "n": n} for n in range(4)))
        self.reactor.settle()
        return client, server

    def test_in_order(self) -> None:
        """Events come as they were sent, to iterators that wait and to later ones."""
        client, server = self.connected()
        first, second = self.take(client), self.take(client)
        reply(server, *({"event": "message", "n": n} for n in range(3)))
        self.reactor.settle()
        events = [self.successResultOf(event)["n"] for event in (first, second, self.take(client))]
        self.assertEqual(events, [0, 1, 2])
        waiting = self.take(client)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.close(client)

    def test_turns(self) -> None:
        """Of what is read at once some is taken in a turn; meanwhile nothing is read."""
        client, server = self.connected(max_events=10_000)
        reply(server, *({"event": "message", "n": n} for n in range(2000)))
        self.reactor.turn()
        events = [self.take(client) for _ in range(2000)]
        taken = sum(event.called for event in events)
        self.assertTrue(0 < taken < 1000, taken)
        self.assertFalse(server.reading)
        self.reactor.settle()
        self.assertEqual([self.successResultOf(event)["n"] for event in events], [*range(2000)])
        self.close(client)

    def test_drop_oldest(self) -> None:
        """The newest are kept."""
        client, _ = self.flood("drop_oldest")
        self.assertEqual([self.successResultOf(self.take(client))["n"] for _ in "ab"], [2, 3])
        self.assertEqual(client.dropped, 2)

    def test_drop_newest(self) -> None:
        """The oldest are kept."""
        client, _ = self.flood("drop_newest")
        self.assertEqual([self.successResultOf(self.take(client))["n"] for _ in "ab"], [0, 1])
        self.assertEqual(client.dropped, 2)

    def test_disconnect(self) -> None:
        """The connection is aborted."""
        client, server = self.flood("disconnect")
        self.assertTrue(server.gone)
        self.assertEqual(client.dropped, 1)
        self.close(client)

    def sized(self, when_full: str, limit: int, *sizes: int) -> tuple[CommandClient, Connection]:
        """Send events of about so many bytes to a client that keeps *limit* bytes."""
        client, server = self.connected(max_event_bytes=limit, when_full=when_full)
        for n, size in enumerate(sizes):
            reply(server, {"event": "message", "n": n, "text": "a" * size})
            self.reactor.settle()
        return client, server

    def kept(self, client: CommandClient) -> list[int]:
        """Return the events that are kept, by their number."""
        return [self.successResultOf(self.take(client))["n"] for _ in range(len(client._events))]

    def test_bytes(self) -> None:
        """Events are bounded by their memory too, and dropped by the same rule."""
        sizes = (3000,) * 4
        each = decoded_size(b'{"event": "message", "n": 0, "text": "%s"}' % (b"a" * 3000))
        for when_full, kept in (("drop_oldest", [2, 3]), ("drop_newest", [0, 1])):
            client, _ = self.sized(when_full, 2 * each, *sizes)
            self.assertEqual((self.kept(client), client.dropped), (kept, 2))
            client, _ = self.sized(when_full, 2 * each - 1, *sizes)
            self.assertEqual((len(self.kept(client)), client.dropped), (1, 3))
            self.assertEqual(client._event_bytes, 0)
        self.reactor.connections.clear()
        client, server = self.sized("disconnect", 2 * each, *sizes)
        self.assertTrue(server.gone)
        self.assertEqual((self.kept(client), client.dropped), ([0, 1], 1))
        self.close(client)

    def test_one_large(self) -> None:
        """An event larger than the bound is kept if no other is."""
        for when_full, kept in (("drop_oldest", [3]), ("drop_newest", [0])):
            client, _ = self.sized(when_full, 2000, 5000, 1, 1, 5000)
            self.assertEqual((self.kept(client), client.dropped), (kept, 3))

    def test_own_events_take_memory(self) -> None:
        """So the client's own events do not drop all others."""
        client, server = self.sized("drop_oldest", 4096, 10, 10)
        server.reset()
        self.reactor.pass_time(1)
        self.endpoint.accept()
        self.reactor.settle()
        self.assertEqual((len(client._events), client.dropped), (3, 0))
        self.close(client)

    def test_disconnected_by_its_own_event(self) -> None:
        """Calls wait for the next connection, if the first event on one ends it at once."""
        client, server = self.connected(max_events=1, when_full="disconnect")
        reply(server, {"event": "message"})
        self.reactor.settle()
        server.reset()
        call = self.call(client, "A")
        self.reactor.pass_time(1)
        self.endpoint.accept()  # "reconnected" finds no room
        self.reactor.settle()
        self.assertNoResult(call)
        self.successResultOf(self.take(client))
        self.reactor.pass_time(1)
        server = self.endpoint.accept()
        self.reactor.settle()
        self.assertEqual(lines(server), ["A"])
        reply(server, {"command": "A"})
        self.reactor.settle()
        self.successResultOf(call)
        self.close(client)


class LossMachine(RuleBasedStateMachine):
    """
    A server that may answer, refuse, or lose the connection at every step.

    Each call has a number of its own, which the server sends back in its answer. So an answer
    that reaches another call shows, and so does a line that is sent twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reactor = Reactor()
        self.endpoint = Endpoint(self.reactor)
        settings = ClientSettings(max_calls=8, call_timeout=20, max_events=1000)
        self.client = CommandClient(self.reactor, self.endpoint, settings, ("t",), lambda: 0.5)
        self.client.start()
        self.server: Connection | None = None
        self.to_answer: list[str] = []
        self.seen: list[int] = []
        self.answered: set[int] = set()
        self.refused: set[int] = set()
        self.given_up: set[int] = set()
        self.calls: dict[int, Deferred[Any]] = {}
        self.results: dict[int, object] = {}
        self.number = 0
        self.wanted: list[str] = []  # patterns whose SUBSCRIBE was answered, in order
        self.subscribing: dict[str, Deferred[Any]] = {}
        self.sent: list[str] = []  # on this connection
        self.first: list[str] = []  # what must come first on it

    def settle(self) -> None:
        """Let everything happen that can, and read what the client sent."""
        self.reactor.settle()
        if self.server is not None:
            got = lines(self.server)
            self.to_answer += got
            self.sent += got
            self.seen += [int(line.split()[1]) for line in got if line.startswith("ECHO")]
            if self.server.gone:
                self.server, self.to_answer = None, []

    @rule()
    def call(self) -> None:
        """Make a call."""
        number, self.number = self.number, self.number + 1

        def done(result: object) -> None:
            assert number not in self.results, "ended twice"
            self.results[number] = result

        self.calls[number] = Deferred.fromCoroutine(self.client.call("ECHO", str(number)))
        self.calls[number].addBoth(done)
        self.settle()

    @precondition(lambda self: bool(set(self.calls) - set(self.results)))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """Cancel a call that has no answer yet; its place in the order must not be another's."""
        number = data.draw(st.sampled_from(sorted(set(self.calls) - set(self.results))))
        self.given_up.add(number)
        self.calls[number].cancel()
        self.settle()

    @rule(pattern=st.sampled_from(["a", "b.*", "c.>"]))
    def subscribe(self, pattern: str) -> None:
        """Subscribe; where it succeeds every later connection must have the pattern again."""
        if pattern in self.wanted or pattern in self.subscribing:
            return

        def done(result: object) -> None:
            del self.subscribing[pattern]
            if isinstance(result, dict):
                assert result["result"] == pattern
                self.wanted.append(pattern)
            else:
                assert isinstance(result, Failure)
                assert result.check(CallError), result

        subscribed = Deferred.fromCoroutine(self.client.subscribe(pattern))
        self.subscribing[pattern] = subscribed
        subscribed.addBoth(done)
        self.settle()

    @precondition(lambda self: self.endpoint.trying)
    @rule(accept=st.booleans())
    def connect(self, accept: bool) -> None:
        """Accept or refuse the connection."""
        if accept:
            self.server = self.endpoint.accept()
            self.sent, self.first = [], []
        else:
            self.endpoint.refuse()
        self.settle()

    @precondition(lambda self: self.endpoint.trying)
    @rule()
    def log_in(self) -> None:
        """Accept the connection and the credentials, which few steps by chance come to."""
        self.connect(accept=True)
        self.answer(count=1, cut=0, lose=False, refuse=False, event=False)

    @precondition(lambda self: self.server is not None and self.to_answer)
    @rule()
    def answer_all(self) -> None:
        """Answer all that was asked."""
        self.answer(count=1000, cut=0, lose=False, refuse=False, event=False)

    @precondition(lambda self: bool(self.wanted) and self.server is not None)
    @rule()
    def come_back(self) -> None:
        """Lose the connection of a client that has subscribed, and let it connect anew."""
        self.lose()
        self.wait(60.0)
        if self.endpoint.trying:
            self.log_in()

    @precondition(lambda self: self.server is not None and self.to_answer)
    @rule(
        count=st.integers(1, 4),
        cut=st.integers(0, 40),
        lose=st.booleans(),
        refuse=st.booleans(),
        event=st.booleans(),
    )
    def answer(self, count: int, cut: int, lose: bool, refuse: bool, event: bool) -> None:
        """
        Answer some lines, the last one perhaps in part, and perhaps lose the connection.

        Events come in between, and ECHO may be refused.
        """
        assert self.server is not None
        stream = b""
        lengths = []
        some, self.to_answer = self.to_answer[:count], self.to_answer[count:]
        for line in some:
            command, word = line.split()
            if event:
                stream += b'{"event":"message","topic":"a","message":"hi"}\n'
            answer = {"command": command, "result": word}
            if refuse and command == "ECHO":
                answer = {"command": command, "error": word, "code": "refused"}
                self.refused.add(int(word))
            if command == "AUTH":
                self.first = [f"SUBSCRIBE {pattern}" for pattern in self.wanted]
            stream += json.dumps(answer).encode() + b"\n"
            lengths.append((len(stream), command, word))
        if lose:
            stream = stream[: max(len(stream) - cut, 0)]
        self.answered |= {
            int(word) for end, command, word in lengths if command == "ECHO" and end <= len(stream)
        }
        self.server.send(stream)
        self.reactor.settle()
        if lose:
            self.server.reset()
        self.settle()

    @precondition(lambda self: self.server is not None)
    @rule()
    def lose(self) -> None:
        """Lose the connection, whatever was just sent."""
        assert self.server is not None
        self.server.reset()
        self.settle()

    @rule(seconds=st.sampled_from([0.1, 1.0, 25.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.reactor.pass_time(seconds)
        self.settle()

    @invariant()
    def right(self) -> None:
        """No answer went to another call, none came from nothing, and no line was sent twice."""
        assert len(set(self.seen)) == len(self.seen)
        if self.server is not None:
            assert [line.split()[0] for line in self.sent[:1]] in ([], ["AUTH"])
            assert self.sent[1 : 1 + len(self.first)] == self.first
        for number, result in self.results.items():
            if isinstance(result, dict):
                assert result["result"] == str(number)
                assert number in self.answered
            else:
                assert isinstance(result, Failure)
                if number in self.given_up:
                    assert result.check(CancelledError), result
                    continue
                assert result.check(CallError), result
                if result.check(NotConnected, TooManyCalls):
                    assert number not in self.seen
                if result.check(CallRefused):
                    assert str(result.value) == str(number)
                    assert number in self.answered & self.refused

    def teardown(self) -> None:
        """Close: every call has ended by then, and nothing is left."""
        closed = Deferred.fromCoroutine(self.client.close())
        self.settle()
        assert closed.called
        assert set(self.results) == set(range(self.number))
        lost = [n for n in self.answered if not isinstance(self.results[n], dict)]
        for number in lost:
            result = self.results[number]
            assert isinstance(result, Failure)
            if number in self.given_up:
                continue
            expected = CallRefused if number in self.refused else CallTimeout
            assert result.check(expected, CallTimeout), "an answer was lost in silence"
        assert self.reactor.getDelayedCalls() == []
        assert self.reactor.connections == []


LossMachineTests = LossMachine.TestCase
LossMachineTests.settings = hypothesis_settings(max_examples=100, stateful_step_count=60)
