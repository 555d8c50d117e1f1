"""A pool of HTTP connections in a reactor in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock

from tests.http.fakes import FakeResolver, HttpTestCase, ServerSide
from twisted_net.http.connector import Connector
from twisted_net.http.h1.exchange import ExchangeLimits
from twisted_net.http.h1.wire import Wire
from twisted_net.http.pool import ConnectionPool
from twisted_net.http.settings import HttpSettings
from twisted_net.http.ssrf_guard import SsrfGuard
from twisted_net.http.urls import parse_target

TARGET = parse_target("http://a.example/")

NO_LIMITS = ExchangeLimits(None, None, None, 10**6)


class PoolTestCase(HttpTestCase):
    """A pool with a reactor in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.resolver = FakeResolver(
            {
                "a.example": ["1.1.1.1"],
                "twice.example": ["1.1.1.1", "1.1.1.1"],
                "mixed.example": ["10.0.0.1", "1.1.1.1"],
                "both.example": ["1.1.1.1", "1.0.0.1", "2606::1", "2606::2"],
                "a.example.": ["1.1.1.1"],
                "forty.example": [f"1.1.1.{i}" for i in range(40)],
                "many.example": [f"1.1.{i // 200}.{i % 200}" for i in range(1, 400)],
            }
        )
        self.pool = self.make_pool()

    def make_pool(self, guard: SsrfGuard | None = None, **settings: Any) -> ConnectionPool:
        """Return a pool."""
        connector = Connector(self.reactor, timeout=5.0, guard=guard, resolver=self.resolver)
        return ConnectionPool(self.reactor, connector, HttpSettings(**settings))

    def hosts(self) -> list[str]:
        """Return the addresses that were tried."""
        return [client[0] for client in self.reactor.tcpClients]

    def open(self, url: str = TARGET.url) -> tuple[Wire, ServerSide]:
        """Return a new connection and its server's side."""
        connecting = self.pool.connect(parse_target(url))
        server = ServerSide(self.reactor)
        return self.successResultOf(connecting), server

    def take_idle(self, url: str = TARGET.url) -> Wire | None:
        """Return an idle connection."""
        return self.pool.take_idle(self.pool.origins.get(parse_target(url).origin))

    def use(self, wire: Wire, server: ServerSide) -> None:
        """Make a request, so that the connection is idle afterwards."""
        answered = wire.send("GET", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None, NO_LIMITS)
        server.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.successResultOf(answered)
