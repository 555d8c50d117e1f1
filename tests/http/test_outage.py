"""While a server is away it gets few requests, and it is found again soon after it is back."""

from __future__ import annotations

import itertools

from twisted.internet.error import ConnectError
from twisted.internet.testing import MemoryReactorClock

from tests.http.fakes import HttpTestCase, ServerSide, refuse
from twisted_net.http.client import Client
from twisted_net.http.response import Response

OUTAGE = 60
"""Seconds."""

EACH_SECOND = 5
"""Calls; each of a URL of its own, so that none waits for another."""

ANSWER = b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 3\r\n\r\nabc"


class OutageTests(HttpTestCase):
    """A client with default settings, whose callers go on."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.client = Client(self.reactor, chance=lambda: 0.5)
        self.asked_at: list[float] = []
        self.servers: list[ServerSide] = []
        self.seen = self.called = 0

    def call(self, seconds: int, *, answered: bool = False) -> list[object]:
        """Go on for some seconds; refuse all connections, or answer the requests on them."""
        results: list[object] = []
        for _ in range(seconds * EACH_SECOND):
            url = f"http://1.2.3.4/{self.called}"
            self.start(self.client.get(url)).addBoth(results.append)
            self.called += 1
            while self.seen < len(self.reactor.tcpClients):
                self.seen += 1
                self.asked_at.append(self.reactor.seconds())
                if answered:
                    self.servers.append(ServerSide(self.reactor, self.seen - 1))
                else:
                    refuse(self.reactor, ConnectError(), self.seen - 1)
            for server in self.servers:
                if server.received():
                    server.send(ANSWER)
            self.reactor.advance(1 / EACH_SECOND)
        return results

    def test_no_herd(self) -> None:
        """Ten failures open the circuit breaker, retries included; then a probe comes in 10 s."""
        self.call(OUTAGE)
        first = [time for time in self.asked_at if time < 3.0]
        probes = self.asked_at[len(first) :]
        # One more is on its way when the tenth fails.
        self.assertLessEqual(len(first), 11)
        self.assertEqual(len(probes), 5)
        times = [first[-1], *probes]
        for before, after in itertools.pairwise(times):
            self.assertGreaterEqual(after - before, 10.0)
            self.assertLess(after - before, 10.0 + 2 / EACH_SECOND)

    def test_back(self) -> None:
        """When it is back the next probe finds it, and all calls succeed from then on."""
        self.call(OUTAGE)
        results = self.call(12, answered=True)
        found = [isinstance(result, Response) for result in results]
        first = found.index(True)
        self.assertLess(first, 10.4 * EACH_SECOND)
        # One connection suffices for those that follow each other.
        self.assertEqual(len(self.asked_at), 11 + 5 + 1)
        self.assertNotIn(False, found[first:])
