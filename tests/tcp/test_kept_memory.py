"""What is kept for clients counts, whatever the kind of the listener, and all of it in one sum."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from tests.tcp.kernel import FakeReactor, FakeSocket
from tests.tcp.kinds import KINDS, Door, KindClient
from tests.tcp.memory import BUFFER
from tests.tcp.server_case import Handlers
from tests.tcp.test_ends import Case, KindsTestCase
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.reasons import Audited, End
from twisted_net.sessions import Sessions
from twisted_net.tcp.answer_queue import ANSWER_BYTES, CALL_BYTES
from twisted_net.tcp.flow_control import LINE_BYTES, UNCOUNTED
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.tls_transport import HANDSHAKE_BYTES, TLS_BYTES
from twisted_net.tcp.transport import FastTransport
from twisted_net.topics import Topics
from twisted_net.turns.steps import ENDS_AT_ONCE

TCP = ("tcp", "unix", "tls", "websocket", "wss")
"""Kinds of listeners with each of the layers."""


class KeptMemoryCase(KindsTestCase):
    """A server in memory, and the bytes that it keeps, by kind."""

    def kept(self, case: Case) -> dict[str, int]:
        """Return the bytes of each kind of which there are some, and no sum."""
        figures: Any = case.factory.sessions.memory.figures()  # Any: numbers by name
        kinds = {kind: figure["bytes"] for kind, figure in figures.items() if figure["bytes"]}
        assert kinds.pop("total", 0) == sum(kinds.values())
        return kinds

    def layers(self, case: Case) -> int:
        """Return what the layers below one idle client take."""
        return TLS_BYTES if case.door.kind.tls else 0


class KindsOfMemoryTests(KeptMemoryCase):
    """Each thing that is kept counts while it is kept, and is nothing afterwards."""

    def check(
        self, act: Callable[[Case, KindClient], object], expected: int, **limits: Any
    ) -> None:
        """Something keeps so many bytes of a connection, until it is lost; on each kind."""
        for name in TCP:
            case = self.case(KINDS[name], **limits)
            client = case.door.client()
            self.assertEqual(len(client.ask(b"PING")), 1)
            before = self.kept(case)
            self.assertEqual(sum(before.values()), self.layers(case), name)
            act(case, client)
            kept = self.kept(case)
            self.assertEqual(kept.pop("connections", 0), expected, name)
            self.assertEqual(kept, before, name)
            client.connection.reset()
            client.settle()
            self.assertEqual(self.kept(case), {}, name)

    def test_calls(self) -> None:
        """Lines whose answers are waited for count, with what their commands take."""

        def wait(case: Case, client: KindClient) -> None:
            client.send(*(b"WAIT " + b"x" * 1000 for _ in range(3)))
            client.settle()

        self.check(wait, 3 * (CALL_BYTES + 1005))

    def test_answers(self) -> None:
        """So do answers that wait for one before them."""

        def ask(case: Case, client: KindClient) -> None:
            client.send(b"WAIT x", b"BIG 50000")
            client.settle()

        answer = len('{"command":"BIG","result":""}\n') + 50_000
        self.check(ask, CALL_BYTES + len("WAIT x") + ANSWER_BYTES + answer)

    def test_lines(self) -> None:
        """So do lines that wait as too many others are not answered."""

        def ask(case: Case, client: KindClient) -> None:
            client.send(*([b"WAIT"] * 2), *([b"ECHO " + b"x" * 95] * 50))
            client.settle()

        self.check(ask, 2 * (CALL_BYTES + 4) + 50 * (100 + LINE_BYTES), max_pending=2)

    def test_lines_of_the_next_piece(self) -> None:
        """Lines count by their own bytes, also where as many shorter ones were left before."""
        case = self.case(KINDS["tcp"], max_pending=64)
        client = case.door.client()
        at_once = case.factory.guard.lines_at_once
        short = [b"PING"] * (at_once - 64) + [b"WAIT"] * 64
        long = [b"ECHO " + b"x" * 895] * 64
        client.send(*short, *long)
        client.settle()
        self.assertEqual(len(client.take()), at_once - 64)
        expected = 64 * (CALL_BYTES + len("WAIT")) + 64 * (900 + LINE_BYTES)
        self.assertEqual(self.kept(case), {"connections": expected})

    def test_few(self) -> None:
        """What is little does not count: most clients wait for one short command."""

        def wait(case: Case, client: KindClient) -> None:
            client.send(b"PING", b"WAIT x")
            client.settle()

        self.assertLess(CALL_BYTES + len("WAIT x"), UNCOUNTED)
        self.check(wait, 0)

    def test_freed(self) -> None:
        """As answers leave, what they took is free again."""
        case = self.case(KINDS["tcp"])
        client = case.door.client()
        client.send(b"WAIT a", b"WAIT b", b"BIG 5000")
        client.settle()
        sizes = [self.kept(case)["connections"]]
        case.handlers.waits.pop(0).callback("x" * 10_000)
        sizes.append(self.kept(case)["connections"])
        case.handlers.waits.pop().callback("y")
        sizes.append(self.kept(case).get("connections", 0))
        self.assertEqual(sizes[0] - sizes[1], CALL_BYTES + len("WAIT a"))
        self.assertEqual(sizes[2], 0)
        client.settle()
        self.assertEqual(len(client.take()), 3)

    def test_cancelled(self) -> None:
        """What a client that leaves has asked counts no more, whatever its handlers do."""
        case = self.case(KINDS["tcp"])
        client = case.door.client()
        client.send(*([b"STUBBORN"] * 3), b"WAIT")
        client.settle()
        self.assertGreater(self.kept(case)["connections"], 0)
        client.connection.reset()
        client.settle()
        self.assertEqual(self.kept(case), {})

    def test_leaving(self) -> None:
        """Commands of who has left count until they are cancelled, in their turns."""
        case = self.case(KINDS["tcp"], max_pending=500)
        client = case.door.client()
        client.send(*([b"WAIT"] * 500))
        client.settle()
        before = self.kept(case)["connections"]
        client.connection.reset()
        while "connections" in self.kept(case):
            case.reactor.turn()
        self.assertTrue(0 < self.kept(case)["leaving"] <= before)
        case.reactor.settle()
        self.assertEqual((self.kept(case), len(case.handlers.log)), ({}, 1000))

    def test_lines_of_a_turn(self) -> None:
        """Lines that wait for their turn count until they have run."""
        case = self.case(KINDS["tcp"])
        clients = [case.door.client() for _ in range(3)]
        for client in clients:
            client.connection.protocol.dataReceived(b"ECHO " + b"x" * 94 + b"\n")
            client.connection.protocol.dataReceived((b"ECHO " + b"x" * 94 + b"\n") * 200)
        self.assertGreater(self.kept(case)["connections"], 2 * 100 * 100)
        for client in clients:
            client.settle()
            self.assertEqual(len(client.take()), 201)
        self.assertEqual(self.kept(case), {})


class LayersTests(KeptMemoryCase):
    """The layers below the lines count what they keep."""

    def test_tls(self) -> None:
        """A handshake counts, then less for the connection, more with a part of a record."""
        case = self.case(KINDS["tls"])
        client = case.door.client(opened=False)
        self.assertEqual(self.kept(case), {"tls": HANDSHAKE_BYTES})
        client.open()
        self.assertEqual(self.kept(case), {"tls": TLS_BYTES})
        tls: Any = client._tls
        tls.send(b"ECHO " + b"x" * 8000 + b"\n")
        record = tls.bio_read(65_536)
        client.connection.send(record[:5000])
        case.reactor.settle()
        self.assertGreater(self.kept(case)["tls"], TLS_BYTES + 5000)
        client.connection.send(record[5000:])
        client.settle()
        self.assertEqual(len(client.take()), 1)
        self.assertEqual(self.kept(case), {"tls": TLS_BYTES})
        client.connection.reset()
        client.settle()
        self.assertEqual(self.kept(case), {})

    def test_tls_that_waits(self) -> None:
        """Records that wait for their turn count."""
        case = self.case(KINDS["tls"])
        client = case.door.client()
        for _ in range(300):
            client.send(b"")
        case.reactor.turn()
        self.assertGreater(self.kept(case)["tls"], TLS_BYTES)
        client.settle()
        self.assertEqual(self.kept(case), {"tls": TLS_BYTES})

    def test_handshakes_that_end(self) -> None:
        """One that is aborted counts no more."""
        case = self.case(KINDS["tls"], max_handshakes=1)
        for _ in range(3):
            case.door.client(opened=False)
        case.reactor.settle()
        self.assertEqual(self.kept(case), {"tls": HANDSHAKE_BYTES})
        case.reactor.pass_time(20)
        self.assertEqual(self.kept(case), {})

    def test_websocket(self) -> None:
        """Frames that wait for their turn count, and the head of a request."""
        case = self.case(KINDS["websocket"])
        half = case.door.client(opened=False)
        half.connection.send(b"GET / HTTP/1.1\r\n")
        case.reactor.settle()
        self.assertEqual(self.kept(case), {"websocket": 16})
        half.connection.reset()
        client = case.door.client()
        self.assertEqual(self.kept(case), {})
        client.send(*([b"PING"] * 300))
        case.reactor.turn()
        self.assertGreater(self.kept(case)["websocket"], 1000)
        client.settle()
        self.assertEqual((len(client.take()), self.kept(case)), (300, {}))
        client.connection.reset()
        client.settle()
        self.assertEqual(self.kept(case), {})

    def test_audit(self) -> None:
        """A client that a layer ends, as all hold too much, is audited as any other."""
        for name in ("tls", "websocket", "wss"):
            case = self.case(KINDS[name])
            sessions = case.factory.sessions
            client = case.door.client()
            if name == "websocket":
                client.send(*([b"PING"] * 300))
                case.reactor.turn()
            [session] = sessions
            heard: list[tuple[str, Audited, str]] = []
            self.patch(sessions, "audit", lambda *line, heard=heard: heard.append(line))
            others: MemoryAccount[str] = sessions.memory.account("others")
            others.set("all", sessions.memory.limit)
            client.settle()
            self.assertTrue(client.connection.gone, name)
            self.assertEqual(case.ended(), {"buffers_full": 1}, name)
            self.assertEqual(heard, [("closed", session, "buffers_full")], name)


class UnsentTests(KeptMemoryCase):
    """Bytes that the kernel does not take count from the first, also while more may be written."""

    def connect(self) -> tuple[CommandFactory, FakeSocket, FastTransport, FakeReactor]:
        """Connect a client by a real transport over a kernel in memory."""
        case = self.case(KINDS["tcp"])
        kernel: Any = FakeSocket()  # Any: what a transport uses of a socket
        reactor: Any = FakeReactor()
        protocol = case.factory.buildProtocol(None)
        transport = FastTransport(kernel, protocol, ("peer", 1), None, 0, reactor)  # type: ignore[arg-type]  # no port
        protocol.makeConnection(transport)
        return case.factory, kernel, transport, reactor

    def test_below_the_pause(self) -> None:
        """An answer that stays counts as a whole; a further one too; what leaves does not."""
        factory, kernel, transport, _ = self.connect()
        kernel.room = 100
        kernel.incoming = [b"BIG 1000\n"]
        transport.doRead()
        size = len('{"command":"BIG","result":""}\n') + 1000
        self.assertEqual(factory.guard.buffers.total, size - 100)
        kernel.incoming = [b"BIG 1000\n"]
        transport.doRead()
        self.assertEqual(factory.guard.buffers.total, 2 * size - 100)
        kernel.room = 500
        transport.doWrite()
        self.assertEqual(factory.guard.buffers.total, 2 * size - 600)
        kernel.room = BUFFER
        transport.doWrite()
        self.assertEqual(factory.guard.buffers.total, 0)

    def test_nothing_stays(self) -> None:
        """Of answers that leave at once, nothing is reported."""
        factory, kernel, transport, _ = self.connect()
        self.patch(factory.guard, "hold", lambda *_: self.fail("reported"))
        for _ in range(20):
            kernel.incoming = [b"PING\n"]
            transport.doRead()
        kernel.incoming = [b"PING\nPING\nECHO " + b"x" * 1000 + b"\n"]
        transport.doRead()
        self.assertEqual(kernel.sent.count(b"PONG"), 22)

    def test_above_the_pause(self) -> None:
        """More than may wait counts once, until all has left."""
        factory, kernel, transport, _ = self.connect()
        kernel.room = 0
        kernel.incoming = [b"BIG 100000\n"]
        transport.doRead()
        self.assertTrue(100_000 < factory.guard.buffers.total < 110_000)
        kernel.room = 1 << 20
        while kernel.room and factory.guard.buffers.total:
            transport.doWrite()
        self.assertEqual(factory.guard.buffers.total, 0)

    def test_lost(self) -> None:
        """What was never sent counts no more once the connection is lost."""
        factory, kernel, transport, reactor = self.connect()
        kernel.room = 0
        kernel.incoming = [b"BIG 5000\n", errno.ECONNRESET]
        transport.doRead()
        self.assertGreater(factory.guard.buffers.total, 5000)
        transport.abortConnection()  # type: ignore[no-untyped-call]  # of Twisted
        reactor.advance(0)
        self.assertEqual(factory.sessions.memory.total, 0)
        transport.write(b"much too late")
        self.assertEqual(factory.sessions.memory.total, 0)


class CommonBoundTests(KindsTestCase):
    """Over the sum of all ports the largest are ended, in steps, while others are served."""

    def test_two_ports(self) -> None:
        """Clients of two ports, each within the limits of its own, give way in steps."""
        for name in TCP:
            limit = 3 << 20
            case = self.case(KINDS[name])
            memory = MemoryLedger(limit)
            sessions = Sessions(case.reactor.seconds, Topics(memory=memory))
            doors = []
            for _ in range(2):
                handlers = Handlers(case.reactor)
                factory = CommandFactory(
                    case.reactor, handlers.commands, Limits(max_line=1 << 20), sessions
                )
                doors.append(Door(KINDS[name], case.reactor, factory, self.certificate))
            small = [door.client() for door in doors for _ in range(3)]
            large = [door.client() for door in doors for _ in range(30)]
            for client in (*small, *large):
                self.assertEqual(len(client.ask(b"PING")), 1)
            for client in small:
                begin(client, 2000)
                client.settle()
            self.fill(case, large, memory)
            ended = sessions.counters.ended
            self.assertGreater(ended[End.BUFFERS_FULL], 0, name)
            self.assertLessEqual(memory.total, limit)
            self.assertFalse(any(client.connection.gone for client in small), name)
            for client in small:
                client._send_bytes(b"\n" if client._wire is None else b"\x80\x80" + bytes(4))
                self.assertEqual(len(client.ask(b"PING")), 2, name)
            for client in (*small, *large):
                client.connection.reset()
            case.reactor.settle()
            self.assertEqual((memory.total, len(sessions)), (0, 0), name)

    def fill(self, case: Case, clients: list[KindClient], memory: MemoryLedger) -> None:
        """Let clients send halves of lines, all at once; few may end in one turn."""
        for number in range(8):
            for client in clients:
                if not client.connection.gone:
                    begin(client, 14_000, goes_on=number > 0)
            gone = sum(client.connection.gone for client in clients)
            while case.reactor.turn():
                now = sum(client.connection.gone for client in clients)
                self.assertLessEqual(now - gone, ENDS_AT_ONCE)
                gone = now


def begin(client: KindClient, size: int, *, goes_on: bool = False) -> None:
    """Send a part of a line that does not end: over WebSocket a frame, with a mask of zeros."""
    if client._wire is not None:
        client._send_bytes(bytes([not goes_on, 0xFE]) + size.to_bytes(2) + bytes(4))
    client._send_bytes(b"x" * size)
