"""A connection answers each line once and in order, and bounds what grows."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

from tests.garbage import cyclic_garbage
from tests.tcp.memory import BUFFER
from tests.tcp.server_case import ServerTestCase
from twisted_net.commands.failures import HiddenMessage
from twisted_net.commands.registry import Commands, Request
from twisted_net.reasons import End
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import SWEEP_INTERVAL, CommandFactory


class ConnectionTests(ServerTestCase):
    """A connection is made, registered, and let go of."""

    def test_made(self) -> None:
        """Small packets are not held back, and the protocol is the transport's producer."""
        client = self.connect()
        self.assertTrue(client.no_delay)
        self.assertIs(client.producer, client.protocol)
        self.assertTrue(IHalfCloseableProtocol.providedBy(client.protocol))
        self.assertTrue(IPushProducer.providedBy(client.protocol))
        self.assertEqual(client.received(), b"")

    def test_sessions(self) -> None:
        """Clients are registered by address: IPv4, IPv6, and UNIX by number."""
        peers = (
            IPv4Address("TCP", "192.0.2.1", 1),
            IPv6Address("TCP", "2001:db8::1", 2),
            UNIXAddress(b"/tmp/socket"),
            UNIXAddress(None),
        )
        clients = [self.connect(b"PING\n", peer=peer) for peer in peers]
        names = [session.name for session in self.factory.sessions]
        self.assertEqual(names, ["192.0.2.1:1", "[2001:db8::1]:2", "unix:3", "unix:4"])
        self.assertFalse(clients[2].no_delay)
        for client in clients:
            self.assertEqual(self.results(client), ["PONG"])
        self.leave(*clients)
        self.assert_over(client_closed=4)

    def test_closed_by_the_client(self) -> None:
        """A client that ends its half without a word is gone at once."""
        self.leave(self.connect())
        self.assert_over(client_closed=1)

    def test_closed_over_tls(self) -> None:
        """Over TLS, too."""
        client = self.connect(b"PING\n", tls=True)
        self.leave(client)
        self.assertEqual(self.results(client), ["PONG"])
        self.assert_over(client_closed=1)

    def test_reset(self) -> None:
        """A reset is counted as such."""
        self.connect(b"PING\nECHO").reset()
        self.assert_over(connection_lost=1)

    def test_counted(self) -> None:
        """Every line is counted, whatever its fate."""
        client = self.connect(b"PING\n\nNOPE\n\xff\n" + b"x" * 20_000 + b"\nBUG\nhalf")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.leave(client)
        self.assertEqual(
            self.results(client),
            [
                "PONG",
                "empty",
                "unknown_command",
                "not_utf8",
                "line_too_long",
                "internal",
                "unterminated_line",
            ],
        )
        self.assertEqual(self.factory.sessions.messages, 7)

    def test_opened(self) -> None:
        """Connections that ever began are counted."""
        for _ in range(3):
            self.leave(self.connect())
        self.assertEqual(self.factory.sessions.counters.opened, 3)

    def test_default_limits(self) -> None:
        """A factory has default limits."""
        self.assertEqual(CommandFactory(self.reactor, Commands()).limits, Limits())

    def test_not_noisy(self) -> None:
        """Starting and stopping is the service's to log."""
        self.assertFalse(self.factory.noisy)


class OrderTests(ServerTestCase):
    """Answers leave in the order of the lines, each line has one, and waiting holds up the rest."""

    def test_plain_behind_waiting(self) -> None:
        """A line behind one that waits is run at once, and answered after it."""
        client = self.connect(b"WAIT a\nECHO b\nWAIT c\nECHO d\n")
        self.assertEqual(self.handlers.log, ["wait a", "wait c"])
        self.assertEqual(client.received(), b"")
        first, second = self.handlers.waits
        second.callback("c")
        self.reactor.settle()
        self.assertEqual(client.received(), b"")
        first.callback("a")
        self.reactor.settle()
        self.assertEqual(self.results(client), ["a", "b", "c", "d"])

    def test_plain_before_waiting(self) -> None:
        """A line before one that waits is answered at once."""
        client = self.connect(b"ECHO a\nWAIT\nECHO b\n")
        self.assertEqual(self.results(client), ["a"])

    def test_in_later_segments(self) -> None:
        """Lines that come while another waits take their place behind it."""
        client = self.connect(b"WAIT\n")
        client.send(b"ECHO b\n")
        self.reactor.settle()
        self.assertEqual(client.received(), b"")
        self.handlers.waits[0].callback("a")
        self.reactor.settle()
        self.assertEqual(self.results(client), ["a", "b"])

    def test_fired_by_a_later_line(self) -> None:
        """A handler may fire what an earlier line waits for; the order stays."""
        client = self.connect(b"ECHO a\nWAIT\nECHO b\nFIRE\nECHO c\n")
        self.assertEqual(self.results(client), ["a", "fired", "b", "FIRE", "c"])
        client.send(b"ECHO d\n")
        self.reactor.settle()
        self.assertEqual(self.results(client), ["d"])

    def test_at_once(self) -> None:
        """Async handlers that do not wait are answered in the same turn, in one write."""
        client = self.connect(b"ECHO a\nNOW b\nECHO c\nNOW d\n")
        self.assertEqual(self.results(client), ["a", "b", "c", "d"])
        self.assertEqual(len(client.writes), 1)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1, "the sweep alone")

    def test_other_connections(self) -> None:
        """A waiting handler holds up its own connection alone."""
        waiting = self.connect(b"WAIT\nECHO a\n")
        other = self.connect(b"ECHO b\n")
        self.assertEqual((self.results(other), self.results(waiting)), (["b"], []))

    def test_refusals(self) -> None:
        """A handler that refuses after a while is answered with its error."""
        client = self.connect(b"REFUSE\nPING\n")
        self.assertEqual(
            client.answers(),
            [
                {"error": "no", "code": "refused", "command": "REFUSE"},
                {"command": "PING", "result": "PONG"},
            ],
        )

    def test_too_long(self) -> None:
        """A line over the limit has its place in the order."""
        self.serve(max_line=64)
        client = self.connect(b"PING\n" + b"x" * 65 + b"\nWAIT\n" + b"x" * 65)
        self.assertEqual(
            client.answers(),
            [
                {"command": "PING", "result": "PONG"},
                {"error": "the line is longer than 64 bytes", "code": "line_too_long", "limit": 64},
            ],
        )
        self.handlers.waits[0].callback(1)
        client.send(b"\nPING\n")
        self.reactor.settle()
        self.assertEqual(self.results(client), [1, "line_too_long", "PONG"])


class BugTests(ServerTestCase):
    """A handler's bug is logged with its traceback, answered, and touches nothing else."""

    def check(self, line: bytes, *kinds: type[Exception]) -> None:
        """Send a line with a bug between two without."""
        client = self.connect(b"ECHO a\n" + line + b"\nECHO b\n")
        answers = client.answers()
        self.assertEqual(
            answers[1],
            {
                "error": "internal error; see the log of the server",
                "code": "internal",
                "command": line.split()[0].decode(),
            },
        )
        self.assertEqual([answers[0]["result"], answers[2]["result"]], ["a", "b"])
        logged = self.flushLoggedErrors(*kinds)
        self.assertEqual(len(logged), 1)
        self.leave(client)
        self.assert_over(client_closed=1)

    def test_plain(self) -> None:
        """In a plain function."""
        self.check(b"BUG", ZeroDivisionError)

    def test_async(self) -> None:
        """After a wait."""
        self.check(b"LATEBUG", ZeroDivisionError)

    def test_cancelled_from_within(self) -> None:
        """A handler that lets a CancelledError of its own out has a bug."""
        self.check(b"LATEBUG cancelled", CancelledError)
        self.factory.sessions.counters.ended[End.CLIENT_CLOSED] = 0
        self.check(b"ODD", CancelledError)

    def test_timed_out_from_within(self) -> None:
        """So has one that lets a time-out of its own out: it is not the command's."""
        self.check(b"LATEBUG timeout", DeferredTimeout)

    def test_not_json(self) -> None:
        """An answer that JSON does not have, at once or after a wait."""
        self.handlers.commands.command("OBJECT")(lambda: object())
        self.check(b"OBJECT", TypeError)
        client = self.connect(b"WAIT\n")
        self.handlers.waits[0].callback(object())
        self.reactor.settle()
        self.assertEqual(self.results(client), ["internal"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_log(self) -> None:
        """The log names the command and the client."""
        events: list[LogEvent] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            events.append(event)

        self.patch(self.factory.runner._records, "log", Logger(observer=observe))
        self.connect(b"bug 1\nbug\n")
        [event] = events
        self.assertEqual((event["command"], event["user"]), ("BUG", "nobody"))
        self.assertTrue(event["client"].startswith("192.0.2.1:"))
        self.assertEqual(event["log_failure"].type, ZeroDivisionError)

    def test_fallback(self) -> None:
        """A fallback's bug is of no command; its message may repeat AUTH, mistyped."""
        self.handlers.commands.fallback = lambda request, text: 1 // 0
        client = self.connect(b"anything\n\xff\n")
        self.assertEqual(self.results(client), ["internal", "not_utf8"])
        [failure] = self.flushLoggedErrors(HiddenMessage)
        self.assertIn("ZeroDivisionError", failure.getErrorMessage())


class BudgetTests(ServerTestCase):
    """A connection runs some lines a turn, and writes once; then its neighbours have theirs."""

    def test_budget(self) -> None:
        """No turn runs more lines of one connection than the budget; each writes once."""
        self.serve(turn_budget=10)
        client = self.connect(b"PING\n" * 95)
        self.assertEqual(self.results(client), ["PONG"] * 95)
        turns = [turn for turn, _ in client.writes]
        self.assertEqual(len(set(turns)), len(turns))
        self.assertEqual([data.count(b"\n") for _, data in client.writes], [10] * 9 + [5])

    def test_exactly_the_budget(self) -> None:
        """As many lines as the budget take one turn, and leave nothing behind."""
        self.serve(turn_budget=10)
        client = self.connect(b"PING\n" * 10)
        self.assertEqual(len(client.writes), 1)
        self.assertTrue(client.reading)

    def test_neighbour(self) -> None:
        """The neighbour's line is answered in the first turn, not after all of the flood."""
        self.serve(turn_budget=10)
        flood = self.reactor.connect(self.factory)
        neighbour = self.reactor.connect(self.factory)
        flood.send(b"PING\n" * 10_000)
        neighbour.send(b"ECHO me\n")
        self.reactor.turn()
        self.assertEqual(self.results(neighbour), ["me"])
        self.assertEqual(len(flood.answers()), 10)
        self.assertFalse(flood.reading)

    def test_not_read_meanwhile(self) -> None:
        """A connection with lines left over is not read, so that they do not grow."""
        self.serve(turn_budget=10)
        client = self.reactor.connect(self.factory)
        client.send(b"PING\n" * 100_000)
        for _ in range(100):
            self.reactor.turn()
            self.assertGreaterEqual(client.unheard, 500_000 - BUFFER)
        self.assertEqual(len(client.answers()), 1000)

    def test_pieces_of_one_segment(self) -> None:
        """Data that a transport delivers although it is not read waits for its turn, in order."""
        self.serve(turn_budget=10)
        client = self.reactor.connect(self.factory)
        # TLS delivers one segment in several pieces.
        for i in range(4):
            client.protocol.dataReceived(b"ECHO %d\n" % i * 15)
        self.assertEqual(self.factory.sessions.messages, 10)
        self.reactor.settle()
        self.assertEqual(self.results(client), [str(i) for i in range(4) for _ in range(15)])
        turns = [data.count(b"\n") for _, data in client.writes]
        # The first piece was cut into lines before the others came.
        self.assertEqual(turns, [10, 5, 10, 10, 10, 10, 5])

    def test_mixed_turn(self) -> None:
        """Answers that are there and answers that come at once leave in one write."""
        self.serve(turn_budget=4)
        client = self.connect(b"ECHO a\nNOW b\nECHO c\nBUG\nECHO d\nNOW e\n")
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(self.results(client), ["a", "b", "c", "internal", "d", "e"])
        self.assertEqual(len(client.writes), 2)


class PendingTests(ServerTestCase):
    """No more lines wait for their answers than ``max_pending``."""

    def test_not_read(self) -> None:
        """Over the limit no line is run and the connection is not read; an answer makes room."""
        self.serve(max_pending=3)
        client = self.connect(b"WAIT\n" * 3)
        self.assertTrue(client.reading)
        client.send(b"WAIT\n" * 3)
        self.reactor.settle()
        self.assertEqual((len(self.handlers.waits), client.reading), (3, False))
        self.handlers.waits[0].callback(1)
        self.reactor.settle()
        self.assertEqual((len(self.handlers.waits), client.reading), (4, False))
        self.assertEqual(self.results(client), [1])
        for i in range(1, 6):
            self.handlers.waits[i].callback(i + 1)
            self.reactor.settle()
        self.assertEqual(self.results(client), [2, 3, 4, 5, 6])
        self.assertTrue(client.reading)

    def test_answered_lines_count(self) -> None:
        """Answers that are ready but have to wait their turn count too: they take memory."""
        self.serve(max_pending=3)
        self.connect(b"WAIT\nECHO a\nBLOCK b\nWAIT\n")
        self.assertEqual(self.handlers.log, ["wait "])
        self.assertEqual(len(self.reactor.threads), 1)

    def test_one(self) -> None:
        """With a limit of 1 the connection is a strict dialogue."""
        self.serve(max_pending=1, turn_budget=3)
        client = self.connect(b"WAIT\nECHO a\nNOW b\nNOW c\nWAIT\nECHO d\n")
        self.assertEqual(client.received(), b"")
        self.handlers.waits.pop(0).callback(1)
        self.reactor.settle()
        self.assertEqual(self.results(client), [1, "a", "b", "c"])
        self.handlers.waits.pop(0).callback(2)
        self.reactor.settle()
        self.assertEqual(self.results(client), [2, "d"])


class PeerNotReadingTests(ServerTestCase):
    """A client that does not read is waited for, in bounded memory, for a bounded time."""

    def test_pause_and_resume(self) -> None:
        """It is not read and nothing more is run until it has read everything."""
        client = self.connect()
        client.reads = False
        client.send(b"BIG 1000\n" * 1000)
        self.reactor.settle()
        self.assertFalse(client.reading)
        self.assertLess(client.unread, BUFFER + 64 * 1100)
        ran = self.factory.sessions.messages
        self.reactor.pass_time(1)
        self.assertEqual(self.factory.sessions.messages, ran)
        client.reads = True
        self.reactor.settle()
        self.assertEqual(len(client.answers()), 1000)
        self.assertTrue(client.reading)
        self.reactor.pass_time(60)
        self.assertFalse(client.gone)

    def test_events_pause_too(self) -> None:
        """One that does not read its events, and goes on to send, is not read either."""
        client = self.connect()
        client.reads = False
        self.factory.sessions.broadcast({"event": "x", "text": "x" * BUFFER})
        sent = b"PING\n" * 1_000_000
        client.send(sent)
        self.reactor.settle()
        self.assertFalse(client.reading)
        self.assertGreaterEqual(client.unheard, len(sent) - BUFFER)
        self.assertEqual(self.factory.sessions.messages, 0)
        client.reads = True
        self.reactor.turn()
        self.reactor.turn()
        self.assertGreater(self.factory.sessions.messages, 0)

    def test_event_stops_a_turn_to_come(self) -> None:
        """Lines left over are not run once an event has filled the buffer."""
        self.serve(turn_budget=1)
        client = self.reactor.connect(self.factory)
        client.send(b"PING\n" * 3)
        self.reactor.turn()
        client.reads = False
        self.factory.sessions.broadcast({"event": "x", "text": "x" * BUFFER})
        self.reactor.settle()
        self.assertEqual(self.factory.sessions.messages, 1)
        client.reads = True
        self.reactor.settle()
        self.assertEqual(self.factory.sessions.messages, 3)

    def test_handshake(self) -> None:
        """A pause alone does not stop the reading: over TLS the handshake needs it."""
        client = self.connect(tls=True)
        client.reads = False
        self.factory.sessions.broadcast({"event": "x", "text": "x" * BUFFER})
        self.assertTrue(client.reading)

    def test_write_timeout(self) -> None:
        """One that has not read everything in time is disconnected."""
        self.serve(write_timeout=5)
        client = self.connect()
        client.reads = False
        client.send(b"BIG 100000\nWAIT\n")
        self.reactor.pass_time(4)
        self.assertFalse(client.gone)
        self.reactor.pass_time(1 + SWEEP_INTERVAL)
        self.assertTrue(client.gone)
        self.assert_over(write_timeout=1)

    def test_write_timeout_is_kept_to_the_second(self) -> None:
        """The times of all are looked at each second: a deadline of whole seconds is not late."""
        self.serve(write_timeout=5)
        client = self.connect()
        client.reads = False
        client.send(b"BIG 100000\n")
        self.reactor.pass_time(4.9)
        self.assertFalse(client.gone)
        self.reactor.pass_time(0.1)
        self.assertTrue(client.gone)
        later = self.connect()
        later.reads = False
        self.reactor.pass_time(0.5)
        later.send(b"BIG 100000\n")
        self.reactor.pass_time(5.4)
        self.assertFalse(later.gone)
        self.reactor.pass_time(0.1)
        self.assertTrue(later.gone)
        self.assert_over(write_timeout=2)

    def test_write_timeout_begins_with_the_pause(self) -> None:
        """Its time runs from when the buffer filled, not anew with each event."""
        self.serve(write_timeout=5)
        client = self.connect()
        client.reads = False
        for _ in range(6):
            self.factory.sessions.broadcast({"event": "x", "text": "x" * BUFFER})
            self.reactor.pass_time(1)
        self.assert_over(write_timeout=1)

    def test_read_in_time(self) -> None:
        """Who reads everything in time has all the time again."""
        self.serve(write_timeout=5)
        client = self.connect()
        for _ in range(5):
            client.reads = False
            client.send(b"BIG 100000\n")
            self.reactor.pass_time(4)
            client.reads = True
            self.reactor.pass_time(1)
        self.assertEqual(len(client.answers()), 5)

    def test_answers_that_come_meanwhile(self) -> None:
        """Handlers that were waiting go on to answer: they are bounded."""
        client = self.connect(b"WAIT\nWAIT\n")
        client.reads = False
        client.send(b"BIG 100000\n")
        self.reactor.settle()
        for wait in self.handlers.waits:
            wait.callback("x" * 100_000)
        self.reactor.settle()
        self.assertGreater(client.unread, 300_000)
        client.reads = True
        self.reactor.settle()
        self.assertEqual(len(client.answers()), 3)


class EventTests(ServerTestCase):
    """Events reach clients between answers; one that does not read loses some."""

    def test_broadcast(self) -> None:
        """A broadcast reaches all, the asking client before its answer."""
        other = self.connect()
        client = self.connect(b"BROADCAST hi\n")
        event = {"event": "broadcast", "from": "192.0.2.1:50002", "message": "hi"}
        self.assertEqual(other.answers(), [event])
        self.assertEqual(
            client.answers(),
            [event, {"command": "BROADCAST", "delivered": 2, "failed": 0, "failures": {}}],
        )

    def test_output_full(self) -> None:
        """Events beyond ``max_output`` are not delivered, and counted, until it has read."""
        self.serve(max_output=1000)
        client, other = self.connect(), self.connect()
        client.reads = False
        [session, _] = self.factory.sessions
        self.assertIsNone(session.deliver(b"x" * BUFFER + b"\n"))
        # Now the buffer is full, and what comes on top of it is counted to the byte.
        self.assertIsNone(session.deliver(b"x" * 400 + b"\n"))
        self.assertIsNone(session.deliver(b"x" * 598 + b"\n"))
        self.assertEqual(session.deliver(b"\n"), "output_full")
        delivery = self.factory.sessions.broadcast({"event": "x"})
        self.assertEqual(delivery.failures, {session.name: "output_full"})
        self.assertEqual(delivery.delivered, 1)
        self.assertEqual((session.undelivered, self.factory.sessions.counters.undelivered), (2, 2))
        self.reactor.settle()
        self.assertEqual(other.answers(), [{"event": "x"}])
        client.reads = True
        self.reactor.settle()
        self.assertEqual(len(client.received()), BUFFER + 1 + 1000)
        self.assertIsNone(session.deliver(b"\n"))

    def test_no_surplus(self) -> None:
        """With a limit of 0 a client that does not read gets nothing more."""
        self.serve(max_output=0)
        client = self.connect()
        client.reads = False
        [session] = self.factory.sessions
        self.assertIsNone(session.deliver(b"x" * BUFFER + b"\n"))
        self.assertEqual(session.deliver(b"\n"), "output_full")

    def test_closing(self) -> None:
        """A client that is being hung up on gets no event any more."""
        client = self.connect()
        client.polite = False
        [session] = self.factory.sessions
        self.factory.drain(60)
        self.reactor.settle()
        self.assertEqual(session.deliver(b"\n"), "closing")
        client.reset()
        self.assertEqual(session.deliver(b"\n"), "closing")

    def test_half_closed(self) -> None:
        """A client that has ended its half gets events while its lines are answered."""
        client = self.connect(b"WAIT\n")
        self.leave(client)
        self.factory.sessions.broadcast({"event": "x"})
        self.handlers.waits[0].callback(1)
        self.reactor.settle()
        self.assertEqual(client.answers()[0], {"event": "x"})
        self.assert_over(client_closed=1)


class HalfCloseTests(ServerTestCase):
    """A client that has ended its half gets all its answers, then the end of ours."""

    def test_many_lines(self) -> None:
        """20,000 lines and the end at once: 20,000 answers."""
        client = self.connect()
        client.send(b"ECHO hi\n" * 20_000)
        self.leave(client)
        self.assertEqual(client.received(), b'{"command":"ECHO","result":"hi"}\n' * 20_000)
        self.assert_over(client_closed=1)

    def test_waiting(self) -> None:
        """Handlers that wait are waited for."""
        client = self.connect(b"ECHO a\nWAIT\nSOON b\n")
        self.leave(client)
        self.assertFalse(client.gone)
        self.handlers.waits[0].callback(1)
        self.reactor.settle()
        self.assertEqual(self.results(client), ["a", 1, "b"])
        self.assert_over(client_closed=1)

    def test_unterminated(self) -> None:
        """A last line without an end is not run, but answered, after all other answers."""
        for rest in (b"BROADCAST half", b"\r", b"\0"):
            client = self.connect(b"WAIT\nECHO a\n" + rest)
            self.leave(client)
            self.handlers.waits.pop().callback(1)
            self.reactor.settle()
            self.assertEqual(
                client.answers()[1:],
                [
                    {"command": "ECHO", "result": "a"},
                    {
                        "error": "the last line does not end with LF and was not run",
                        "code": "unterminated_line",
                    },
                ],
            )
        self.assert_over(client_closed=3)

    def test_unterminated_and_too_long(self) -> None:
        """A last line that was too long has its answer already."""
        client = self.connect(b"x" * 20_000)
        self.leave(client)
        self.assertEqual(self.results(client), ["line_too_long"])

    def test_does_not_read(self) -> None:
        """One that does not read its answers is not waited for longer than ``write_timeout``."""
        client = self.connect()
        client.reads = False
        client.send(b"BIG 1000\n" * 1000)
        client.end()
        self.reactor.pass_time(29)
        self.assertFalse(client.gone)
        self.reactor.pass_time(1 + SWEEP_INTERVAL)
        self.assert_over(write_timeout=1)

    def test_reads_late(self) -> None:
        """One that reads late gets everything."""
        client = self.connect()
        client.reads = False
        client.send(b"BIG 1000\n" * 1000)
        client.end()
        self.reactor.pass_time(10)
        client.reads = True
        self.reactor.settle()
        self.assertEqual(len(client.answers()), 1000)
        self.assert_over(client_closed=1)

    def test_all_done_but_unread(self) -> None:
        """Answers that wait in the buffer alone are bounded in time as well."""
        client = self.connect()
        client.reads = False
        client.send(b"PING\n")
        client.end()
        self.reactor.pass_time(31)
        self.assert_over(write_timeout=1)

    def test_reset_after(self) -> None:
        """One that vanishes after its half ended is counted as lost."""
        client = self.connect(b"WAIT\n")
        self.leave(client)
        client.reset()
        self.assertEqual(self.handlers.log, ["wait ", "cancelled "])
        self.assert_over(connection_lost=1)


class LostTests(ServerTestCase):
    """A connection that is lost takes its work with it."""

    def test_cancels(self) -> None:
        """Handlers that wait are cancelled, in silence; lines left over are not run."""
        self.serve(max_pending=2)
        client = self.connect(b"WAIT a\nWAIT b\nWAIT c\n")
        client.reset()
        self.assertEqual(self.handlers.log, ["wait a", "wait b", "cancelled a", "cancelled b"])
        self.assert_over(connection_lost=1)

    def test_cancels_the_turn(self) -> None:
        """A turn that was to come does not."""
        self.serve(turn_budget=1)
        client = self.reactor.connect(self.factory)
        client.send(b"PING\nPING\n")
        self.reactor.turn()
        client.reset()
        self.assert_over(connection_lost=1)
        self.assertEqual(self.factory.sessions.messages, 1)

    def test_some_done(self) -> None:
        """Answers that were ready are dropped with it."""
        client = self.connect(b"WAIT a\nECHO b\nNOW c\n")
        client.reset()
        self.assert_over(connection_lost=1)

    def test_fails_when_cancelled(self) -> None:
        """A handler that fails while it is cancelled has a bug, which is logged."""

        async def clumsy() -> None:
            try:
                await Deferred()
            finally:
                raise ZeroDivisionError

        self.handlers.commands.command("CLUMSY")(clumsy)
        self.connect(b"CLUMSY\n").reset()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_over(connection_lost=1)

    def test_late_answer(self) -> None:
        """A handler that answers when it is cancelled is not answered."""
        client = self.connect(b"STUBBORN\n")
        client.reset()
        self.assertEqual(client.received(), b"")
        self.assert_over(connection_lost=1)


Line = tuple[str, bytes, object]

LINES: Sequence[Line] = [
    ("plain", b"ECHO %d", "n"),
    ("at once", b"NOW %d", "n"),
    ("in a turn", b"SOON %d", "n"),
    ("in a thread", b"BLOCK %d", "n"),
    ("waits", b"WAIT %d", "n"),
    ("never", b"WAIT never", "timeout"),
    ("fails", b"BUG", "internal"),
    ("fails later", b"LATEBUG", "internal"),
    ("refuses", b"REFUSE", "refused"),
    ("empty", b"", "empty"),
    ("too long", b"x" * 100, "line_too_long"),
    ("unknown", b"NOPE", "unknown_command"),
    ("big", b"BIG 30000", "x" * 30_000),
]


class ScheduleTests(ServerTestCase):
    """Whatever the handlers do and in whatever order, the answers are those of one by one."""

    @settings(max_examples=150)
    @given(st.data())
    def test_like_the_sequential_model(self, data: st.DataObject) -> None:
        """Random lines, cuts, limits, stalls, and orders in which handlers are done."""
        self.setUp()
        pending = data.draw(st.integers(1, 5), "max_pending")
        budget = data.draw(st.integers(1, 5), "turn_budget")
        self.serve(max_line=64, max_pending=pending, turn_budget=budget, command_timeout=5)
        kinds = data.draw(st.lists(st.sampled_from(LINES), max_size=25), "lines")
        stream, expected = b"", []
        for i, (_, line, result) in enumerate(kinds):
            stream += (line % i if b"%d" in line else line) + b"\n"
            expected.append(str(i) if result == "n" else result)
        client = self.reactor.connect(self.factory)
        for step in data.draw(st.lists(st.integers(0, 5), max_size=60), "steps"):
            if step == 0 and stream:
                size = data.draw(st.integers(1, len(stream)))
                client.send(stream[:size])
                stream = stream[size:]
            elif step == 1 and self.reactor.threads:
                self.reactor.run_thread()
            elif step == 2 and self.handlers.waits:
                self.fire(data.draw(st.integers(0, len(self.handlers.waits) - 1)))
            elif step == 3:
                client.reads = not client.reads
            elif step >= 4:
                self.reactor.turn()
        client.reads = True
        client.send(stream)
        client.end()
        while not client.gone:
            while self.reactor.threads:
                self.reactor.run_thread()
            self.reactor.settle()
            for _ in list(self.handlers.waits):
                self.fire(0)
            self.reactor.pass_time(1)
            self.assertLess(self.reactor.seconds(), 1000)
        self.assertEqual(self.results(client), expected)
        self.assertEqual(self.factory.sessions.messages, len(expected))
        self.flushLoggedErrors(ZeroDivisionError)
        self.assert_over(client_closed=1)

    def fire(self, index: int) -> None:
        """Finish a WAIT with its word, but for those that never are."""
        deferred = self.handlers.waits.pop(index)
        word = self.handlers.words[deferred]
        if word != "never" and not deferred.called:
            deferred.callback(word)


class ReentryTests(ServerTestCase):
    """A transport may deliver bytes from within a handler, as TLS can."""

    def test_from_within_a_handler(self) -> None:
        """They wait until the handler is done, and are answered after it."""
        for before in (b"", b"ECHO 0\n"):
            self.setUp()
            client = self.reactor.connect(self.factory)
            self.handlers.commands.command("MORE")(
                lambda client=client: client.protocol.dataReceived(b"ECHO 2\nEC") or "1"
            )
            client.send(before + b"MORE\n")
            self.reactor.settle()
            self.assertEqual(self.results(client)[-2:], ["1", "2"])
            client.send(b"HO 3\n")
            self.reactor.settle()
            self.assertEqual(self.results(client), ["3"])
            self.assertTrue(client.reading)


class EndWithinRunTests(ServerTestCase):
    """A command that ends its own connection is the last one that runs."""

    def end(self, how: str, request: Request) -> None:
        """End the connection of the client that asks."""
        (protocol,) = self.factory._protocols
        self.assertIs(protocol.session, request.session)
        if how == "kill":
            protocol.kill()
        elif how == "hang_up":
            protocol.hang_up(End.USER_LIMIT)
        else:
            protocol.abort(End.BUFFERS_FULL)

    def test_nothing_runs_behind_it(self) -> None:
        """Neither in the same turn, nor what is cut off later, nor what comes later."""

        def end(request: Request, how: str) -> str:
            self.end(how, request)
            return how

        self.handlers.commands.command("END")(end)
        marks: list[str] = []
        self.handlers.commands.command("MARK")(marks.append)
        ends = {"kill": "killed", "hang_up": "user_limit", "abort": "buffers_full"}
        for how, reason in ends.items():
            for budget in (1, 2, 64, 1000):
                for before in (b"", b"PING\n", b"PING\n" * 63, b"PING\n" * 300, b"WAIT\n"):
                    for proven in (False, True):
                        with self.subTest(how=how, budget=budget, before=before, proven=proven):
                            self.serve(turn_budget=budget)
                            client = self.connect(b"PING\n" if proven else b"")
                            client.polite = False
                            rest = b"MARK a\n" * 600 + b"MARK b"
                            client.send(before + f"END {how}\n".encode() + rest)
                            self.reactor.settle()
                            for waiting in self.handlers.waits:
                                if not waiting.called:
                                    waiting.callback("late")
                            self.handlers.waits.clear()
                            client.send(b"\nMARK c\n")
                            self.leave(client)
                            self.assertEqual(marks, [])
                            self.assert_over(**{reason: 1})
                            if how == "kill":
                                self.assertEqual(self.results(client)[-1], how)


class MemoryTests(ServerTestCase):
    """A connection that is lost is freed at once, and not by the garbage collector."""

    def assert_freed(self, *lines: bytes, **limits: Any) -> None:
        """Nothing keeps the connection of a client that sent these lines and is gone."""
        self.serve(**limits)
        with cyclic_garbage() as left:
            client = self.connect(b"".join(line + b"\n" for line in lines))
            protocol = weakref.ref(client.protocol)
            self.assertIsNotNone(protocol())
            client.reset()
            self.reactor.settle()
            del client.protocol
            # What is freed only by a collection is still there now.
            self.assertIsNone(protocol())
        self.assertEqual(left, set())

    def test_plain(self) -> None:
        """One that asked and was answered."""
        self.assert_freed(b"PING")

    def test_subscriber(self) -> None:
        """One that subscribed, while messages wait for it."""
        self.assert_freed(b"SUBSCRIBE a", b"PUBLISH a hi")

    def test_throttled(self) -> None:
        """One whose rate is used up."""
        self.assert_freed(b"ECHO " + b"x" * 100, bytes_per_address=10.0, byte_burst=20)
