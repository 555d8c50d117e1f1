"""What is kept for CoAP peers counts as long as it is kept, and gives way where it is too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.coap.coap_driver import LOCAL, OBSERVE, OTHER, ServerTests
from tests.dtls.dtls_wire import Files, Wire
from twisted_net.coap.blockwise import Block
from twisted_net.coap.codec import Code, Option
from twisted_net.coap.exchange import OUTGOING_BYTES
from twisted_net.coap.observe import OBSERVER_BYTES, OPTION_BYTES
from twisted_net.coap.peer_table import EXCHANGE_BYTES, MESSAGES_SWEPT_AT_ONCE, PEER_BYTES
from twisted_net.coap.peers.peer_sessions import SESSION_BYTES as PEER_SESSION_BYTES
from twisted_net.coap.settings import CoapLimits
from twisted_net.coap.waiting_requests import REQUEST_BYTES
from twisted_net.dtls.server import SESSION_BYTES
from twisted_net.dtls.settings import DtlsSettings
from twisted_net.net.addresses import Source
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.reasons import End

LIFETIME = CoapLimits().exchange_lifetime


def peer(number: int) -> Source:
    """Return one of many peers on this machine."""
    return f"127.0.1.{number}", 40_000


class DocumentedMemoryTests(SynchronousTestCase):
    """The howto of CoAP says what a client takes in memory."""

    def test_sums(self) -> None:
        """Each sum is there."""
        page = Path(__file__).parents[2].joinpath("docs/howto/coap.rst").read_text()
        for text in (
            f"{PEER_BYTES} B {10_000 * PEER_BYTES / 1e6:g}:",
            f"{PEER_SESSION_BYTES} B  {10_000 * PEER_SESSION_BYTES / 1e6:g}:",
            f"{EXCHANGE_BYTES} B  {50_000 * EXCHANGE_BYTES / 1e6:g}:",
            f"{OBSERVER_BYTES} B {10_000 * OBSERVER_BYTES / 1e6:g}:",
            f"{REQUEST_BYTES} B {1000 * REQUEST_BYTES / 1e6:g}:",
            f"{SESSION_BYTES // 1000} kB more",
        ):
            self.assertIn(text, page)


class KeptMemoryTests(ServerTests):
    """The bytes of each kind, through a server."""

    limits = CoapLimits(max_waiting_per_peer=1000, max_queued=4)

    @property
    def memory(self) -> MemoryLedger:
        """The ledger of the server."""
        return self.driver.server.sessions.memory

    def kept(self) -> dict[str, int]:
        """Return the bytes of each kind of which there are some, without the peers' sessions."""
        figures: Any = self.memory.figures()  # Any: numbers by name
        figures["total"]["bytes"] -= figures.pop("coap_sessions")["bytes"]
        return {kind: figure["bytes"] for kind, figure in figures.items() if figure["bytes"]}

    def session_figures(self) -> Any:  # Any: as above
        """Return the figures of the peers' sessions."""
        return self.memory.figures()["coap_sessions"]

    def expire(self) -> None:
        """Let the lifetime of all that was exchanged pass."""
        for _ in range(20):
            self.driver.clock.advance(LIFETIME + 1)
        self.driver.transport.written.clear()

    def fill(self, size: int) -> None:
        """Let others keep so many bytes."""
        others: MemoryAccount[int] = self.memory.account("others")
        others.set(1, size)

    def test_sessions(self) -> None:
        """Sessions outlive what is kept for their peers, and count; the idle ones give way."""
        for number in range(100):
            self.driver.ask(Code.GET, "ping", source=peer(number))
        self.driver.ask(Code.GET, "ping", source=peer(0))
        sessions = self.driver.server.sessions
        self.driver.clock.advance(LIFETIME + 1)
        self.assertEqual(
            (self.kept(), self.session_figures()["bytes"]), ({}, 100 * PEER_SESSION_BYTES)
        )
        self.fill(self.memory.limit - 10 * PEER_SESSION_BYTES)
        self.driver.clock.advance(0)
        self.driver.clock.advance(0)
        # Not the one that was active last, though it was opened first; that cannot give way.
        self.assertEqual([session.name for session in sessions], [f"{peer(0)[0]}:{peer(0)[1]}"])
        self.assertEqual(
            (self.session_figures()["bytes"], self.session_figures()["relieved"]),
            (PEER_SESSION_BYTES, 99),
        )
        self.assertEqual(sessions.counters.ended[End.BUFFERS_FULL], 99)
        self.driver.server.peer_lost(peer(0), End.KILLED)
        self.assertEqual(self.session_figures()["bytes"], 0)

    def test_exchanges(self) -> None:
        """Peers count, with their messages and the replies, until their lifetime is over."""
        for number in range(10):
            self.driver.ask(Code.POST, "note", bytes(b"x" * 500), source=peer(1))
            self.assertGreaterEqual(
                self.kept()["coap_exchanges"], PEER_BYTES + number * (EXCHANGE_BYTES + 500) - 1024
            )
        self.driver.ask(Code.GET, "ping", source=peer(2))
        self.assertGreaterEqual(
            self.kept()["coap_exchanges"], 2 * PEER_BYTES + 11 * EXCHANGE_BYTES + 9 * 500 - 2048
        )
        self.expire()
        self.assertEqual(self.kept(), {})

    def test_exchanges_give_way(self) -> None:
        """The replies of the peer that has most are dropped first."""
        for number in range(30):
            self.driver.ask(Code.POST, "note", b"x" * 900, source=peer(number % 3 // 2))
        before = self.driver.server.layer.sizes["exchanges"]
        self.memory.limit = self.memory.total
        self.fill(1)
        self.driver.clock.advance(0)
        self.assertEqual((before, self.driver.server.layer.sizes["exchanges"]), (30, 10))
        self.assertEqual(self.driver.server.layer.figures()["evicted"], 20)

    def test_many_exchanges_give_way(self) -> None:
        """Of a peer that has very many, some are dropped in each turn, and no more than needed."""
        layer = self.driver.server.layer
        count = 8 * MESSAGES_SWEPT_AT_ONCE
        for _ in range(count):
            self.driver.ask(Code.GET, "ping", source=peer(1))
        self.memory.limit = self.memory.total
        self.fill(self.memory.limit // 10)
        dropped: list[int] = []

        def look() -> None:
            dropped.append(count - layer.sizes["exchanges"])
            if len(dropped) < 5:
                self.driver.clock.callLater(0, look)

        look()
        self.driver.clock.advance(0)
        at_once = MESSAGES_SWEPT_AT_ONCE
        self.assertEqual(dropped, [0, at_once, *[2 * at_once] * 3])

    def test_idle_peers_give_way(self) -> None:
        """Peers for which nothing is due are forgotten with their messages, but for the latest."""
        layer = self.driver.server.layer
        self.driver.send(Code.POST, "later", source=peer(0))
        self.driver.clock.advance(0)
        for number in range(1, 51):
            self.driver.ask(Code.GET, "ping", source=peer(number))
        self.memory.limit = self.memory.total
        others: MemoryAccount[int] = self.memory.account("others")
        others.set(1, self.memory.limit // 2)
        self.driver.clock.advance(0)
        self.assertLessEqual(self.memory.total, self.memory.limit)
        self.assertLess(layer.sizes["peers"], 30)
        # Whoever asks while there is no room is answered, and forgotten as the next one comes.
        others.set(1, self.memory.limit)
        for number in range(1, 51):
            self.driver.ask(Code.GET, "ping", source=peer(number))
        self.driver.clock.advance(0)
        self.assertLessEqual(layer.sizes["peers"], 2)
        others.set(1, 0)
        for waiting in self.waiting:
            waiting.callback("done")
        self.expire()
        self.assertEqual((self.kept(), layer.sizes["exchanges"]), ({}, 0))

    def test_observers(self) -> None:
        """Observers count with the options of their requests, until they are removed."""
        options = [OBSERVE, (int(Option.URI_QUERY), b"a=1")]
        self.driver.send(Code.GET, "events", options=options)
        self.driver.send(Code.GET, "stats", options=[OBSERVE], source=OTHER)
        size = len("events") + len("stats") + len("a=1")
        self.assertEqual(
            self.kept()["coap_observers"], 2 * OBSERVER_BYTES + 3 * OPTION_BYTES + size
        )
        for source in (LOCAL, OTHER):
            self.driver.server.peer_lost(source, End.CLIENT_CLOSED)
        self.assertNotIn("coap_observers", self.kept())

    def test_notifications(self) -> None:
        """A notification that is not acknowledged counts with its peer, until it is given up."""
        self.driver.send(Code.GET, "events", options=[OBSERVE])
        before = self.kept()["coap_exchanges"]
        self.driver.server.sessions.broadcast({"event": "x", "text": "y" * 900})
        grown = self.kept()["coap_exchanges"] - before
        self.assertGreater(grown, OUTGOING_BYTES + 900)
        self.expire()
        self.assertEqual((self.kept(), self.driver.server.observers), ({}, 0))

    def test_observers_give_way(self) -> None:
        """Where all hold too much they end, with what they have not acknowledged."""
        for number in range(5):
            self.driver.send(Code.GET, "events", options=[OBSERVE], source=peer(number))
        self.driver.server.sessions.broadcast({"event": "x"})
        self.fill(self.memory.limit)
        for _ in range(5):
            self.driver.clock.advance(0)
        self.assertEqual(self.driver.server.observers, 0)
        self.assertEqual(self.driver.server._notifier._outstanding, {})
        for number in range(5):
            # Each is told (RFC 7641 §4.5).
            *_, gone = self.driver.answers(peer(number))
            self.assertEqual((gone.code, gone.token), (Code.SERVICE_UNAVAILABLE, b"t"))
        self.driver.server.sessions.broadcast({"event": "x"})
        self.driver.clock.advance(10)
        self.expire()
        self.assertEqual(self.kept(), {"others": self.memory.limit, "total": self.memory.limit})

    def test_waiting(self) -> None:
        """Requests whose commands wait count with their arguments, until they are answered."""
        self.driver.send(Code.POST, "later")
        self.assertEqual(self.kept()["coap_waiting"], REQUEST_BYTES)
        self.waiting.pop().callback("x")
        self.assertNotIn("coap_waiting", self.kept())

    def test_waiting_give_way(self) -> None:
        """Where all hold too much they are cancelled, and answered."""
        self.driver.send(Code.POST, "later")
        self.fill(self.memory.limit)
        for _ in range(3):
            self.driver.clock.advance(0)
        [answer] = self.driver.answers()
        self.assertEqual(answer.code, Code.SERVICE_UNAVAILABLE)
        self.assertNotIn("coap_waiting", self.kept())

    def test_transfers(self) -> None:
        """Bodies in transfer count for their peers, each way, until they are whole or expire."""
        block = (int(Option.BLOCK1), Block(0, True, 1024).encode())
        self.driver.send(Code.POST, "note", b"x" * 1024, [block], source=peer(1))
        self.assertEqual(self.kept()["coap_transfers"], 1024)
        self.driver.send(Code.GET, "big", source=peer(2))
        self.assertEqual(self.kept()["coap_transfers"], 1024 + 3000)
        self.fill(self.memory.limit)
        self.driver.clock.advance(0)
        self.assertNotIn("coap_transfers", self.kept())

    def test_topics(self) -> None:
        """Last messages count for their topics."""
        self.driver.send(Code.POST, "topics/a", b"hello")
        size = len('{"event":"message","topic":"a","message":"hello"}\n')
        # With its number, its time and its sender.
        kept = self.kept()["coap_topics"]
        self.assertTrue(size < kept < size + 150, kept)
        self.fill(self.memory.limit)
        self.driver.clock.advance(0)
        self.assertNotIn("coap_topics", self.kept())

    def test_unacknowledged_responses(self) -> None:
        """Of responses that a peer never acknowledges, it has as many as may be queued."""
        for number in range(20):
            self.driver.send(Code.POST, "later", token=bytes([number]))
        self.driver.clock.advance(1)
        while self.waiting:
            self.waiting.pop().callback("x" * 900)
        layer, queued = self.driver.server.layer, 4
        self.assertEqual(layer.counts.responses_dropped, 20 - queued - 1)
        outgoing = (queued + 1) * (OUTGOING_BYTES + 2 * 900)
        self.assertGreater(self.kept()["coap_exchanges"], outgoing)
        self.fill(self.memory.limit - self.memory.total + 1)
        self.driver.clock.advance(0)
        self.assertLess(self.kept()["coap_exchanges"], outgoing // 2)
        self.expire()
        self.assertNotIn("coap_exchanges", self.kept())


class DtlsMemoryTests(SynchronousTestCase):
    """Sessions and handshakes of DTLS count, and give way after all else."""

    def setUp(self) -> None:
        files = Files()
        self.addCleanup(files.remove)
        self.memory = MemoryLedger(10 * SESSION_BYTES)
        settings = DtlsSettings(certificate=files.server, max_handshakes_per_address=100)
        self.wire = Wire(files, settings, memory=self.memory)
        self.addCleanup(self.wire.stop)

    def connect(self, count: int) -> list[Any]:  # Any: clients
        """Connect clients, each from an address of its own."""
        return [self.wire.connect((f"198.51.100.{number}", 40_000)) for number in range(count)]

    def test_sessions(self) -> None:
        """One counts from the handshake on, until it ends."""
        first, *_ = self.connect(3)
        self.assertEqual(self.memory.total, 3 * SESSION_BYTES)
        first.dtls.close()
        self.wire.run()
        self.assertEqual(self.memory.total, 2 * SESSION_BYTES)
        self.wire.clock.advance(10_000)
        self.wire.run()
        self.assertEqual(self.memory.total, 0)

    def test_give_way(self) -> None:
        """Over the limit of all the oldest are ended, with a close_notify."""
        clients = self.connect(11)
        self.wire.clock.advance(0)
        self.wire.run()
        self.assertLessEqual(self.memory.total, 10 * SESSION_BYTES)
        self.assertEqual(self.wire.server.counts.ended[End.BUFFERS_FULL], 2)
        self.assertEqual(self.wire.server.figures()["ended_buffers_full"], 2)
        self.assertTrue(all(client.lost for client in clients[:2]))
        self.assertFalse(any(client.lost for client in clients[2:]))

    def test_after_all_else(self) -> None:
        """Where others hold more than they should, no session ends."""
        self.connect(5)
        account: Any = self.memory.account("x", relieve=lambda holder: self.drop(account, holder))
        for holder in range(6):
            account.set(holder, SESSION_BYTES)
        self.wire.clock.advance(0)
        self.assertEqual((len(account), self.wire.server.sessions), (4, 5))

    def drop(self, account: Any, holder: int) -> float:
        """Drop what a holder of the test has."""
        account.set(holder, 0)
        return 1.0
