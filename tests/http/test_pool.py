"""Tests of :mod:`twisted_net.http.pool`."""

from __future__ import annotations

from typing import Any

from tests.http.pools import TARGET, PoolTestCase
from twisted_net.http.connector import Connector
from twisted_net.http.errors import ClientClosed
from twisted_net.http.h1.wire import Wire
from twisted_net.http.pool import ConnectionPool
from twisted_net.http.settings import HttpSettings


class IdleTests(PoolTestCase):
    """Connections are kept for reuse, within limits."""

    def test_reuse(self) -> None:
        """One that has received its response is reused, the last one first."""
        self.assertIsNone(self.take_idle())
        first, second = self.open(), self.open()
        self.use(*first)
        self.use(*second)
        self.assertIs(self.take_idle(), second[0])
        self.assertIs(self.take_idle(), first[0])
        self.assertIsNone(self.take_idle())

    def test_ended_unseen(self) -> None:
        """One that the kernel knows to be ended, or that nobody asked, is dropped for another."""
        first, second, third = self.open(), self.open(), self.open()
        for wire, server in (first, second, third):
            self.use(wire, server)
        third[1].transport.unread = b""
        second[1].transport.unread = b"HTTP/1.1 200 OK"
        self.assertIs(self.take_idle(), first[0])
        self.reactor.advance(0)
        ended = [server.transport.ended for _, server in (first, second, third)]
        self.assertEqual(ended, [False, True, True])
        self.use(*first)
        first[1].transport.unread = b""
        self.assertIsNone(self.take_idle())

    def test_ending(self) -> None:
        """One that is about to end, or has ended, in the reactor is not used either."""

        def lost() -> None:
            raise AttributeError("socket")

        first, second, third = self.open(), self.open(), self.open()
        for wire, server in (first, second, third):
            self.use(wire, server)
        third[1].transport.disconnecting = True
        self.patch(second[1].transport, "getHandle", lost)
        self.assertIs(self.take_idle(), first[0])
        self.assertIsNone(self.take_idle())

    def test_other_origin(self) -> None:
        """It is reused for its own origin only: scheme, host and port."""
        self.use(*self.open())
        for url in ("https://a.example/", "http://a.example:81/", "http://b.example/"):
            self.assertIsNone(self.take_idle(url))

    def test_any_of_many(self) -> None:
        """One of many is taken, closed or lost without a look at the others."""
        self.pool = self.make_pool()
        opened = [self.open() for _ in range(50)]
        for one in opened:
            self.use(*one)
        compared: list[object] = []

        def equal(wire: Wire, other: object) -> bool:
            compared.append(wire)
            return wire is other

        self.patch(Wire, "__eq__", equal)
        self.assertIs(self.take_idle(), opened[-1][0])
        opened[-2][1].close()
        opened[25][1].close()
        opened[0][0].close()
        self.assertIs(self.take_idle(), opened[-3][0])
        self.assertEqual(compared, [])

    def test_idle_after_close(self) -> None:
        """A wire that becomes idle when the pool is closed is dropped, without a timer."""
        wire, server = self.open()
        closing = self.pool.close()
        self.pool.idle(wire)
        self.reactor.advance(0)
        self.assertTrue(server.transport.ended)
        self.successResultOf(closing)
        self.assert_quiet(self.reactor)

    def test_closed_by_the_server(self) -> None:
        """One that the server has closed is not reused."""
        connection, wire = self.open()
        self.use(connection, wire)
        wire.close()
        self.assertIsNone(self.take_idle())

    def test_unasked_data(self) -> None:
        """One that receives data without a request is not reused."""
        connection, wire = self.open()
        self.use(connection, wire)
        wire.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        self.assertTrue(wire.transport.ended)
        self.assertIsNone(self.take_idle())

    def test_most_for_one_origin(self) -> None:
        """Beyond the limit of one origin the oldest is closed."""
        self.pool = self.make_pool(idle_per_origin=1)
        first, second = self.open(), self.open()
        self.use(*first)
        self.use(*second)
        self.assertTrue(first[1].transport.ended)
        self.assertIs(self.take_idle(), second[0])

    def test_most_of_all(self) -> None:
        """Beyond the total limit the oldest is closed, whatever its origin."""
        self.pool = self.make_pool(max_idle=1)
        first, second = self.open(), self.open("http://1.2.3.4/")
        self.use(*first)
        self.use(*second)
        self.assertTrue(first[1].transport.ended)
        self.assertFalse(second[1].transport.ended)

    def test_none_kept(self) -> None:
        """With a limit of 0 each is closed, and no timer runs."""
        for settings in (HttpSettings(idle_per_origin=0), HttpSettings(max_idle=0)):
            connector = Connector(self.reactor, timeout=5.0)
            self.pool = ConnectionPool(self.reactor, connector, settings)
            connection, wire = self.open()
            self.use(connection, wire)
            self.assertTrue(wire.transport.ended)
            self.pool.close()
            self.assert_quiet(self.reactor)

    def test_kept_while_idle(self) -> None:
        """What is known of an origin is kept while a wire to it is idle, and may go after that."""
        self.pool = self.make_pool(max_origins=1, idle_timeout=10.0)
        kept = self.pool.origins.get(TARGET.origin)
        connection, server = self.open()
        self.use(connection, server)
        self.pool.origins.get(("http", "other", 80))
        self.assertIs(self.take_idle(), connection)
        self.use(connection, server)
        self.reactor.advance(10)
        self.assertTrue(server.transport.ended)
        self.pool.origins.get(("http", "other", 80))
        self.assertIsNot(self.pool.origins.get(TARGET.origin), kept)

    def test_idle_timeout(self) -> None:
        """Each is closed at its timeout; there is one timer for all."""
        self.pool = self.make_pool(idle_timeout=10.0)
        first = self.open()
        self.use(*first)
        self.reactor.advance(4)
        second = self.open()
        self.use(*second)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(6)
        self.assertEqual([w.transport.ended for _, w in (first, second)], [True, False])
        self.reactor.advance(4)
        self.assertTrue(second[1].transport.ended)
        self.pool.close()
        self.assert_quiet(self.reactor)

    def test_used_in_time(self) -> None:
        """Reuse starts the timeout again."""
        self.pool = self.make_pool(idle_timeout=10.0)
        connection, wire = self.open()
        self.use(connection, wire)
        self.reactor.advance(9)
        self.assertIs(self.take_idle(), connection)
        self.use(connection, wire)
        self.reactor.advance(9)
        self.assertFalse(wire.transport.ended)
        self.reactor.advance(1)
        self.assertTrue(wire.transport.ended)


class CloseTests(PoolTestCase):
    """:meth:`ConnectionPool.close` leaves no connection and no timer."""

    def test_nothing_open(self) -> None:
        """A pool without connections is closed at once."""
        self.successResultOf(self.pool.close())
        self.successResultOf(self.pool.close())

    def test_all(self) -> None:
        """Idle and busy connections are dropped, and the timer with them."""
        idle, busy = self.open(), self.open()
        self.use(*idle)
        closing = self.pool.close()
        self.assertNoResult(closing)
        self.assertTrue(idle[1].transport.ended and busy[1].transport.ended)
        self.assert_quiet(self.reactor)
        self.successResultOf(closing)

    def test_twice(self) -> None:
        """A second call waits for the same end."""
        self.open()
        both = [self.pool.close(), self.pool.close()]
        self.reactor.advance(0)
        for closing in both:
            self.successResultOf(closing)

    def test_afterwards(self) -> None:
        """No connection is made; one that is being made is given up."""
        connecting = self.pool.connect(TARGET)
        self.successResultOf(self.pool.close())
        self.failureResultOf(connecting, ClientClosed)
        self.failureResultOf(self.pool.connect(TARGET), ClientClosed)
        connector: Any = self.reactor.connectors[0]
        self.assertTrue(connector.stoppedConnecting)
