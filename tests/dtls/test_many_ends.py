"""What ends many sessions of :class:`DtlsServer`, or is due for many, takes some in each turn."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.dtls.dtls_wire import Client, Files, Wire, stop
from tests.due_calls import call_due
from twisted_net.dtls.errors import DtlsEnded
from twisted_net.dtls.settings import DtlsSettings
from twisted_net.net.addresses import Source
from twisted_net.reasons import End
from twisted_net.turns.steps import ENDS_AT_ONCE

COUNT = 2 * ENDS_AT_ONCE + 3


def at(number: int) -> Source:
    """Return one of many addresses."""
    return f"198.51.{number}.1", 40_000


class ManyEndsTests(SynchronousTestCase):
    """A server with many clients, and how many of them end in each turn."""

    limit: int | None = None

    def setUp(self) -> None:
        self.files = Files()
        self.addCleanup(self.files.remove)
        settings = DtlsSettings(
            certificate=self.files.server,
            client_ca=self.files.ca,
            client_certificate="optional",
            idle_timeout=60.0,
            handshake_timeout=3.0,
            max_handshakes=COUNT,
        )
        self.wire = Wire(self.files, settings, session_limit=lambda user: self.limit)

    def connect(self, **settings: object) -> list[Client]:
        """Connect all clients."""
        return [self.wire.connect(at(i), **settings) for i in range(COUNT)]

    def turns(self) -> list[int]:
        """Take turns for what is due now; return how many sessions and handshakes end in each."""
        clock, server = self.wire.clock, self.wire.server
        ended, before = [], server.sessions + server.handshakes
        while call_due(clock):
            ended.append(before - server.sessions - server.handshakes)
            before -= ended[-1]
        return [count for count in ended if count]

    def assert_over(self, end: End, count: int) -> None:
        """So many have ended, for this reason, and the rest is stopped."""
        self.assertEqual(self.wire.server.counts.ended[end], count)
        if self.wire.server.transport is not None:
            self.wire.stop()
        for client in self.wire._clients.values():
            if client.dtls.transport is not None:
                stop(client.dtls)
        self.assertEqual(self.wire.clock.getDelayedCalls(), [])

    def test_drain(self) -> None:
        """A drain ends so many in each turn, each is told, and nobody comes in meanwhile."""
        clients = self.connect()
        drained = Deferred.fromCoroutine(self.wire.server.drain())
        self.assertEqual(self.wire.server.sessions, COUNT - ENDS_AT_ONCE)
        self.assertNoResult(drained)
        late = self.wire.connect(at(COUNT))
        self.assertEqual(self.turns(), [ENDS_AT_ONCE, 3])
        self.successResultOf(drained)
        self.wire.run()
        for client in clients:
            self.assertIsInstance(client.lost[0], DtlsEnded)
        self.assertFalse(late.connected)
        self.assertEqual(self.wire.server.counts.challenged, COUNT)
        self.assert_over(End.DRAINED, COUNT)

    def test_left_meanwhile(self) -> None:
        """A session that ends before its turn is not ended twice."""
        self.connect()
        drained = Deferred.fromCoroutine(self.wire.server.drain())
        self.wire.server.end(next(reversed(list(self.wire.server._sessions))), End.CLIENT_CLOSED)
        self.turns()
        self.successResultOf(drained)
        self.assert_over(End.DRAINED, COUNT - 1)

    def test_stopped_meanwhile(self) -> None:
        """If the port is closed all that are left end at once."""
        self.connect()
        Deferred.fromCoroutine(self.wire.server.drain())
        self.wire.stop()
        self.assertEqual(self.wire.server.sessions, 0)
        self.assert_over(End.DRAINED, COUNT)

    def test_idle(self) -> None:
        """So many that are idle end in each turn."""
        self.connect()
        self.wire.clock.rightNow += 60.0
        self.assertEqual(self.turns(), [ENDS_AT_ONCE, ENDS_AT_ONCE, 3])
        self.assert_over(End.IDLE_TIMEOUT, COUNT)

    def test_handshakes(self) -> None:
        """So many handshakes that were not finished in time end in each turn."""
        self.wire.fate = lambda number, datagram, to_server: (
            [datagram] if to_server or datagram[13] == 3 else []
        )
        for i in range(COUNT):
            self.wire.client(at(i))
            self.wire.run()
        server = self.wire.server
        self.assertEqual(server.handshakes, COUNT)
        self.wire.clock.rightNow += 3.0
        self.assertEqual(self.turns(), [ENDS_AT_ONCE, ENDS_AT_ONCE, 3])
        self.assert_over(End.HANDSHAKE_TIMEOUT, COUNT)

    def test_limit_lowered(self) -> None:
        """So many sessions over the lowered limit of their user end in each turn."""
        self.connect(certificate=self.files.write("ann", user="ann"))
        self.limit = 1
        for _ in range(3):
            self.wire.server.enforce_limit("ann")
        self.assertEqual(self.wire.server.sessions, COUNT - ENDS_AT_ONCE)
        self.assertEqual(self.turns(), [ENDS_AT_ONCE, 2])
        self.assertEqual(self.wire.server.sessions, 1)
        self.assert_over(End.USER_LIMIT, COUNT - 1)
