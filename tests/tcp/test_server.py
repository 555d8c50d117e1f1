"""A server limits, times, drains and counts its connections."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Reactor
from tests.tcp.server_case import GRACE, ServerTestCase
from twisted_net.commands.registry import Request
from twisted_net.commands.standard import standard_commands
from twisted_net.sessions import Sessions
from twisted_net.tcp.rejection import MAX_LINGERING
from twisted_net.tcp.server import SWEEP_INTERVAL, CommandFactory


class TimeTests(ServerTestCase):
    """Silence and slow commands come to an end."""

    def idle_client(self, timeout: float, **how: Any) -> float:
        """Return the seconds after which a silent client is notified and closed."""
        self.serve(idle_timeout=timeout)
        client = self.connect(**how)
        start = self.reactor.seconds()
        while not client.gone:
            self.reactor.pass_time(0.25)
        self.assertEqual(client.answers(), [{"event": "closing", "reason": "idle_timeout"}])
        self.assert_over(idle_timeout=1)
        return self.reactor.seconds() - start

    def test_idle(self) -> None:
        """A silent client is closed after its time, at most a quarter or some sweeps late."""
        for timeout in (0.5, 1, 3, 10, 100, 601):
            taken = self.idle_client(timeout)
            self.assertGreaterEqual(taken, timeout)
            self.assertLessEqual(taken, max(1.25 * timeout, timeout + 1) + 5 * SWEEP_INTERVAL)

    def test_idle_over_tls(self) -> None:
        """Over TLS, too."""
        taken = self.idle_client(10, tls=True)
        self.assertGreaterEqual(taken, 10)
        self.assertLessEqual(taken, 12.5 + 5 * SWEEP_INTERVAL)

    def test_later_client(self) -> None:
        """A client has its time although others were looked at just before it came."""
        self.serve(idle_timeout=10)
        first = self.connect()
        self.reactor.pass_time(1.5)
        second = self.connect()
        self.reactor.pass_time(9.5)
        self.assertFalse(second.gone)
        self.reactor.pass_time(10)
        self.assertTrue(first.gone)
        self.assertTrue(second.gone)
        self.assert_over(idle_timeout=2)

    def test_never(self) -> None:
        """With 0 it never is."""
        self.serve(idle_timeout=0)
        client = self.connect()
        self.reactor.pass_time(5000)
        self.assertFalse(client.gone)

    def test_any_byte(self) -> None:
        """A byte now and then is not silence, even without a line's end."""
        self.serve(idle_timeout=10)
        client = self.connect()
        for _ in range(20):
            self.reactor.pass_time(9)
            client.send(b"x")
            self.reactor.settle()
        self.assertFalse(client.gone)

    def test_waiting_is_not_idle(self) -> None:
        """A client that waits for an answer, or does not read, is not idle."""
        self.serve(idle_timeout=2, command_timeout=100, write_timeout=100)
        waiting, stuck = self.connect(b"WAIT\n"), self.connect()
        stuck.reads = False
        stuck.send(b"BIG 100000\n")
        self.reactor.pass_time(50)
        self.assertFalse(waiting.gone or stuck.gone)
        self.handlers.waits[0].callback(1)
        self.reactor.pass_time(10)
        self.assertTrue(waiting.gone)

    def test_peer_that_stays(self) -> None:
        """One that does not end its half is cut off in time; what it sends is dropped."""
        self.serve(idle_timeout=10)
        client = self.connect()
        client.polite = False
        while not client.ended:
            self.reactor.pass_time(0.25)
        client.send(b"PING\n" * 1000)
        self.reactor.settle()
        self.assertEqual(client.unheard, 0)
        self.assertEqual(self.factory.sessions.messages, 0)
        self.assertFalse(client.gone)
        self.reactor.pass_time(GRACE)
        self.assertTrue(client.gone)
        self.assert_over(idle_timeout=1)

    def test_command_timeout(self) -> None:
        """A command that takes too long is cancelled and answered; the connection lives."""
        self.serve(command_timeout=2)
        client = self.connect(b"WAIT a\nECHO b\n")
        self.reactor.pass_time(1.9)
        self.assertEqual(client.received(), b"")
        self.reactor.pass_time(0.1)
        self.assertEqual(
            client.answers(),
            [
                {
                    "error": "the command took longer than 2 seconds",
                    "code": "timeout",
                    "limit": 2.0,
                    "command": "WAIT",
                },
                {"command": "ECHO", "result": "b"},
            ],
        )
        self.assertEqual(self.handlers.log, ["wait a", "cancelled a"])
        self.leave(client)
        self.assert_over(client_closed=1)

    def test_late_value(self) -> None:
        """A handler that has a value when it is cancelled has answered after all."""
        self.serve(command_timeout=2)
        client = self.connect(b"STUBBORN\n")
        self.reactor.pass_time(2)
        self.assertEqual(self.results(client), ["late"])

    def test_in_time(self) -> None:
        """A command that is done in time leaves no timer behind."""
        client = self.connect(b"WAIT\n")
        self.handlers.waits[0].callback(1)
        self.leave(client)
        self.assert_over(client_closed=1)


class BlockingTests(ServerTestCase):
    """Blocking handlers run in threads, and in a bounded number."""

    def test_in_a_thread(self) -> None:
        """The answer comes once the thread has run, in its place."""
        client = self.connect(b"BLOCK a\nECHO b\n")
        self.assertEqual((self.handlers.log, client.received()), ([], b""))
        self.reactor.run_thread()
        self.reactor.settle()
        self.assertEqual(self.results(client), ["a", "b"])

    def test_busy(self) -> None:
        """Above the limit, over all connections, it does not begin; the others go on."""
        self.serve(max_blocking=2)
        first = self.connect(b"BLOCK a\nBLOCK b\nBLOCK c\n")
        second = self.connect(b"BLOCK d\nECHO e\n")
        self.assertEqual(self.results(second), ["busy", "e"])
        for _ in range(2):
            self.reactor.run_thread()
        self.reactor.settle()
        answers = first.answers()
        self.assertEqual([answer.get("result") for answer in answers], ["a", "b", None])
        self.assertEqual(
            answers[2],
            {
                "error": "busy: 2 commands are pending; try again later",
                "code": "busy",
                "limit": 2,
                "command": "BLOCK",
            },
        )
        second.send(b"BLOCK f\n")
        self.reactor.settle()
        self.reactor.run_thread()
        self.reactor.settle()
        self.assertEqual(self.results(second), ["f"])

    def test_client_leaves(self) -> None:
        """A command that is not waited for any more does not begin."""
        self.connect(b"BLOCK a\n").reset()
        self.reactor.run_thread()
        self.assertEqual(self.handlers.log, [])
        self.assert_over(connection_lost=1)

    def test_timeout(self) -> None:
        """A thread that takes too long is not waited for."""
        self.serve(command_timeout=2)
        client = self.connect(b"BLOCK a\n")
        self.reactor.pass_time(2)
        self.assertEqual(self.results(client), ["timeout"])
        self.reactor.run_thread()
        self.leave(client)
        self.assert_over(client_closed=1)

    def test_fair(self) -> None:
        """Commands of one address leave threads to other addresses; so do those of one user."""
        self.reactor.limit = 4
        for _ in range(3):
            self.connect(b"BLOCK a\nBLOCK a\n")
        self.assertEqual(len(self.reactor.threads), 2)
        other = self.reactor.connect(self.factory, IPv4Address("TCP", "192.0.2.99", 5000))
        other.send(b"BLOCK b\n")
        self.reactor.settle()
        self.assertEqual(len(self.reactor.threads), 3)
        for _ in range(3):
            self.reactor.run_thread()
        self.reactor.settle()
        self.assertEqual(self.results(other), ["b"])
        self.assertEqual(self.factory.runner.busy_threads, 2)

    def test_stops(self) -> None:
        """Threads that are idle end when the last port has closed, and may come again."""
        self.factory.startFactory()
        self.factory.stopFactory()
        self.assertTrue(self.reactor.stopped)
        self.factory.startFactory()
        self.assertFalse(self.reactor.stopped)

    def test_bug(self) -> None:
        """A bug in a thread is logged and answered."""
        self.handlers.commands.command("BAD", blocking=True)(lambda: 1 // 0)
        client = self.connect(b"BAD\n")
        self.reactor.run_thread()
        self.reactor.settle()
        self.assertEqual(self.results(client), ["internal"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class FullTests(ServerTestCase):
    """One client above the limit is notified, and has a moment to read it."""

    def setUp(self) -> None:
        super().setUp()
        self.serve(max_connections=1)
        self.first = self.connect()

    def test_refused(self) -> None:
        """The refusal is a line of JSON, then the end; nothing it sent is run."""
        client = self.connect(b"BROADCAST hi\n")
        self.assertEqual(
            client.answers(),
            [
                {
                    "error": "too many connections: the limit of this server is 1",
                    "code": "too_many_connections",
                    "limit": 1,
                }
            ],
        )
        self.assertTrue(client.gone)
        self.assertEqual(self.first.answers(), [])
        self.assertEqual(len(self.factory.sessions), 1)
        self.assertEqual(self.factory.sessions.counters.opened, 1)
        self.leave(self.first)
        self.assert_over(client_closed=1, too_many_connections=1)

    def test_lowered(self) -> None:
        """The limit may be lower than the configured one, for want of file descriptors."""
        self.serve(max_connections=9)
        self.factory.max_descriptors = 1
        self.connect()
        (refusal,) = self.connect().answers()
        self.assertEqual((refusal["code"], refusal["limit"]), ("too_many_connections", 1))

    def test_over_tls(self) -> None:
        """Over TLS the refusal is read too."""
        client = self.connect(b"PING\n", tls=True)
        self.assertEqual(self.results(client), ["too_many_connections"])
        self.assertTrue(client.gone)

    def test_room_again(self) -> None:
        """Once the first has left the next is welcome."""
        self.leave(self.first)
        self.assertEqual(self.results(self.connect(b"PING\n")), ["PONG"])

    def test_stays(self) -> None:
        """One that neither reads nor leaves is cut off soon."""
        client = self.reactor.connect(self.factory)
        client.polite = client.reads = False
        client.send(b"x" * 100_000)
        self.reactor.pass_time(GRACE)
        self.assertTrue(client.gone)
        self.leave(self.first)
        self.assert_over(client_closed=1, too_many_connections=1)

    def test_many(self) -> None:
        """Beyond a number of such clients the next are closed without a word, and counted."""
        refused = []
        for _ in range(MAX_LINGERING):
            refused.append(self.reactor.connect(self.factory))
            refused[-1].polite = False
        self.reactor.settle()
        wordless = self.connect(b"PING\n")
        self.assertTrue(wordless.gone)
        self.assertEqual(wordless.received(), b"")
        self.assertTrue(all(client.answers() for client in refused))
        self.reactor.pass_time(GRACE)
        self.assertEqual(self.results(self.connect()), ["too_many_connections"])
        self.leave(self.first)
        self.assert_over(client_closed=1, too_many_connections=MAX_LINGERING + 2)

    def test_wordless_over_tls(self) -> None:
        """A protocol is built even then: TLS cannot do without one."""
        self.factory.drain(60)
        self.assertIsNotNone(self.factory.buildProtocol(None))


class DrainTests(ServerTestCase):
    """:meth:`CommandFactory.drain` notifies, answers, closes, and has a deadline."""

    def test_idle_clients(self) -> None:
        """Clients that wait for nothing are notified, and closed."""
        clients = [self.connect(), self.connect(tls=True)]
        drained = self.factory.drain(10)
        self.assertNoResult(drained)
        self.reactor.settle()
        self.successResultOf(drained)
        for client in clients:
            self.assertEqual(client.answers(), [{"event": "shutdown", "timeout": 10}])
        self.assert_over(drained=2)

    def test_nobody(self) -> None:
        """Without connections it is done at once."""
        self.successResultOf(self.factory.drain(10))
        self.assert_over()

    def test_answers_first(self) -> None:
        """Lines that were taken are answered first, those that wait and those left over."""
        self.serve(turn_budget=1, max_pending=2)
        client = self.connect(b"WAIT\nSOON b\nECHO c\nNOW d\n")
        drained = self.factory.drain(10)
        client.send(b"ECHO never\n")
        self.reactor.settle()
        self.assertNoResult(drained)
        self.handlers.waits[0].callback("a")
        self.reactor.settle()
        self.assertEqual(self.results(client)[1:], ["a", "b", "c", "d"])
        self.successResultOf(drained)
        self.assert_over(drained=1)

    def test_unterminated(self) -> None:
        """Half a line is dropped in silence: its client had no time to end it."""
        client = self.connect(b"ECHO")
        self.factory.drain(10)
        self.reactor.settle()
        self.assertEqual(client.answers(), [{"event": "shutdown", "timeout": 10}])

    def test_deadline(self) -> None:
        """At the deadline the connections that are left are aborted, their handlers cancelled."""
        self.connect(b"WAIT a\n")
        stuck = self.connect()
        stuck.reads = False
        drained = self.factory.drain(10)
        self.reactor.pass_time(9.5)
        self.assertNoResult(drained)
        self.reactor.pass_time(0.5)
        self.successResultOf(drained)
        self.assertEqual(self.handlers.log, ["wait a", "cancelled a"])
        self.assert_over(aborted=2)

    def test_peer_that_stays(self) -> None:
        """One that reads all but does not end its half is cut off, and drained all the same."""
        client = self.connect()
        client.polite = False
        drained = self.factory.drain(60)
        self.reactor.pass_time(GRACE)
        self.successResultOf(drained)
        self.assert_over(drained=1)

    def test_stuck_peer(self) -> None:
        """One that does not read is not waited for longer than ``write_timeout``."""
        self.serve(write_timeout=5)
        client = self.connect()
        client.reads = False
        drained = self.factory.drain(60)
        self.reactor.pass_time(5 + SWEEP_INTERVAL)
        self.successResultOf(drained)
        self.assert_over(write_timeout=1)

    def test_half_closed(self) -> None:
        """A client that had ended its half is answered, and counted as it ended."""
        client = self.connect(b"WAIT\n")
        self.leave(client)
        drained = self.factory.drain(10)
        self.handlers.waits[0].callback(1)
        self.reactor.settle()
        self.successResultOf(drained)
        self.assert_over(client_closed=1)

    def test_twice(self) -> None:
        """Both calls end together, clients are notified once, and the shorter time holds."""
        client = self.connect(b"WAIT\n")
        first, second = self.factory.drain(10), self.factory.drain(5)
        self.reactor.pass_time(1)
        self.assertEqual(len(client.answers()), 1)
        self.reactor.pass_time(4)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assert_over(aborted=1)
        self.successResultOf(self.factory.drain(1))
        self.assert_over(aborted=1)

    def test_cancelled(self) -> None:
        """Who no longer wants to wait cancels; the draining goes on."""
        self.connect(b"WAIT\n")
        drained = self.factory.drain(10)
        drained.cancel()
        self.failureResultOf(drained, CancelledError)
        self.handlers.waits[0].callback(1)
        self.reactor.settle()
        self.assert_over(drained=1)

    def test_new_connection(self) -> None:
        """A connection that comes meanwhile is closed without a word, and counted."""
        client = self.connect(b"WAIT\n")
        self.factory.drain(10)
        late = self.connect(b"PING\n")
        self.assertTrue(late.gone)
        self.assertEqual(late.received(), b"")
        self.assertEqual(self.ended(), {"drained": 1})
        client.reset()

    def test_refused_clients(self) -> None:
        """Clients that are being refused are waited for too."""
        self.serve(max_connections=1)
        first = self.connect()
        second = self.reactor.connect(self.factory)
        second.polite = False
        drained = self.factory.drain(60)
        self.reactor.settle()
        self.assertTrue(first.gone)
        self.assertNoResult(drained)
        self.reactor.pass_time(GRACE)
        self.successResultOf(drained)
        self.assert_over(drained=1, too_many_connections=1)

    def test_from_a_handler(self) -> None:
        """A command may begin it, and is answered."""
        drained: list[Deferred[None]] = []

        def stop(request: Request) -> str:
            drained.append(self.factory.drain(10))
            return "bye"

        self.handlers.commands.command("STOP")(stop)
        client = self.connect(b"ECHO a\nSTOP\nECHO b\n")
        self.successResultOf(drained[0])
        self.assertEqual(self.results(client), [None, "a", "bye", "b"])
        self.assert_over(drained=1)

    def test_served_again(self) -> None:
        """A factory that is listened on anew serves anew."""
        self.successResultOf(self.factory.drain(10))
        self.factory.startFactory()
        self.assertEqual(self.results(self.connect(b"PING\n")), ["PONG"])


class AbortTests(ServerTestCase):
    """:meth:`CommandFactory.abort` ends everything now."""

    def test_all(self) -> None:
        """Served and refused clients, at work or not."""
        self.serve(max_connections=2, turn_budget=1)
        self.connect(b"WAIT a\n")
        busy = self.reactor.connect(self.factory)
        refused = self.reactor.connect(self.factory)
        refused.polite = False
        busy.send(b"PING\n" * 3)
        self.reactor.turn()
        self.factory.abort()
        self.reactor.settle()
        self.assertEqual(self.factory.sessions.messages, 2, "no line is run after it")
        self.assertEqual(self.handlers.log, ["wait a", "cancelled a"])
        self.assert_over(aborted=2, too_many_connections=1)

    def test_while_draining(self) -> None:
        """A drain is done then."""
        self.connect(b"WAIT\n")
        drained = self.factory.drain(60)
        self.factory.abort()
        self.reactor.settle()
        self.successResultOf(drained)
        self.assert_over(aborted=1)

    def test_nobody(self) -> None:
        """Without connections it does nothing."""
        self.factory.abort()
        self.assert_over()

    def test_answer_after_it(self) -> None:
        """A handler that is done between the abort and its end writes no more."""
        client = self.connect(b"WAIT\n")
        self.factory.abort()
        self.handlers.waits[0].callback(1)
        self.reactor.settle()
        self.assertEqual(client.received(), b"")
        self.assert_over(aborted=1)


class SweepTests(ServerTestCase):
    """The factory's timer runs only while somebody is connected."""

    def test_runs(self) -> None:
        """One timer for all, from the first client to the last."""
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        clients = [self.connect() for _ in range(3)]
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.pass_time(10)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.leave(*clients[:2])
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.leave(clients[2])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class SharedSessionsTests(SynchronousTestCase):
    """Two :class:`CommandFactory` over the same :class:`Sessions`."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.sessions = Sessions(self.reactor.seconds)
        self.first, self.second = (
            CommandFactory(self.reactor, standard_commands(), sessions=self.sessions)
            for _ in range(2)
        )

    def test_one_registry(self) -> None:
        """A broadcast of one server's client reaches the clients of the other."""
        asking = self.reactor.connect(self.first)
        other = self.reactor.connect(self.second)
        self.reactor.settle()
        asking.send(b"BROADCAST hello\n")
        self.reactor.settle()
        self.assertEqual(other.answers()[0]["message"], "hello")
        self.assertEqual(len(self.sessions), 2)

    def test_drain_of_one(self) -> None:
        """Draining one server notifies and ends its own clients alone."""
        gone = self.reactor.connect(self.first)
        stays = self.reactor.connect(self.second)
        drained = self.first.drain(10)
        self.reactor.settle()
        self.successResultOf(drained)
        self.assertEqual(gone.answers()[0]["event"], "shutdown")
        self.assertEqual(stays.received(), b"")
        stays.send(b"PING\n")
        self.reactor.settle()
        self.assertEqual(stays.answers()[0]["result"], "PONG")
