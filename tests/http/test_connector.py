"""Tests of :mod:`twisted_net.http.connector`."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectBindError, ConnectError, DNSLookupError
from twisted.internet.testing import MemoryReactorClock
from twisted.web.client import BrowserLikePolicyForHTTPS, HostnameCachingHTTPSPolicy
from twisted.web.http_headers import Headers

from tests.http.fakes import FakeResolver, HttpTestCase, Wire, refuse
from tests.threads import ThreadClock
from twisted_net.http.agent_layer import AgentRequest
from twisted_net.http.bodies import BufferedResponse, collect
from twisted_net.http.connector import (
    MAX_ADDRESSES,
    ConnectionPool,
    Connector,
)
from twisted_net.http.errors import (
    AddressRefused,
    CannotConnect,
    ClientClosed,
    LookupsBusy,
    NameNotFound,
    OutOfResources,
)
from twisted_net.http.h1 import connection as http_connection
from twisted_net.http.h1.connection import HttpConnection
from twisted_net.http.retry.agent import _origin_health
from twisted_net.http.settings import EgressPolicy, HttpSettings
from twisted_net.http.ssrf_guard import SsrfGuard
from twisted_net.http.urls import parse_target
from twisted_net.net.name_lookups import MAX_ANSWERS, NameLookups
from twisted_net.twisted_internals import ClientRequest

TARGET = parse_target("http://a.example/")


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

    def open(self, url: str = TARGET.url) -> tuple[HttpConnection, Wire]:
        """Return a new connection and its server's side."""
        connecting = self.pool.connect(parse_target(url))
        wire = Wire(self.reactor)
        return self.successResultOf(connecting), wire

    def use(self, connection: HttpConnection, wire: Wire) -> None:
        """Make a request, so that the connection is idle afterwards."""
        request = ClientRequest(b"GET", b"/", Headers({"host": ["a"]}), None, persistent=True)
        answered = connection.request(request)
        wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.successResultOf(answered)


class ConnectTests(PoolTestCase):
    """:meth:`ConnectionPool.connect` connects to the addresses that were checked."""

    def test_name(self) -> None:
        """A name is looked up, and its address is connected to."""
        _, wire = self.open("http://a.example:8080/")
        self.assertEqual((wire.host, wire.port), ("1.1.1.1", 8080))
        self.assertEqual(self.resolver.asked, ["a.example"])

    def test_address(self) -> None:
        """An address is not looked up."""
        _, wire = self.open("http://[2606::1]/")
        self.assertEqual(wire.host, "2606::1")
        self.assertEqual(self.resolver.asked, [])

    def test_address_that_comes_twice(self) -> None:
        """An address that the resolver returns twice is tried once."""
        connecting = self.pool.connect(parse_target("http://twice.example/"))
        refuse(self.reactor, ConnectError())
        self.failureResultOf(connecting, CannotConnect)
        self.assertEqual(self.hosts(), ["1.1.1.1"])

    def test_reactors_resolver(self) -> None:
        """Without a resolver of its own it uses the reactor's."""
        connector = Connector(self.reactor, timeout=5.0)
        self.pool = ConnectionPool(self.reactor, connector, HttpSettings())
        _, wire = self.open("http://anything.example/")
        self.assertEqual(wire.host, "127.0.0.1")

    def test_unknown_name(self) -> None:
        """A name without an address raises NameNotFound."""
        failed = self.failureResultOf(self.pool.connect(parse_target("http://nope/")), NameNotFound)
        self.assertEqual(str(failed.value), "no address found for nope")
        self.assertEqual(failed.value.details(), {"host": "nope"})

    def test_refused(self) -> None:
        """A connection that is refused is an error with the reason; nothing was sent."""
        connecting = self.pool.connect(TARGET)
        refuse(self.reactor, ConnectError("no"))
        error = self.failureResultOf(connecting, CannotConnect).value
        self.assertIn("cannot connect to a.example port 80", str(error))
        self.assertEqual(error.details(), {"host": "a.example", "port": 80})
        self.assertTrue(error.unsent and error.transient)
        self.assert_quiet(self.reactor)

    def test_shortage(self) -> None:
        """What this machine lacks is an error of its own, which says nothing of the server."""
        for number in (
            errno.EMFILE,
            errno.ENFILE,
            errno.ENOMEM,
            errno.ENOBUFS,
            errno.EADDRNOTAVAIL,
        ):
            for failure in (
                ConnectBindError(number, os.strerror(number)),
                OSError(number, os.strerror(number)),
            ):
                connecting = self.pool.connect(parse_target("http://1.1.1.1/"))
                refuse(self.reactor, failure)
                error = self.failureResultOf(connecting, OutOfResources).value
                self.assertIn(os.strerror(number), str(error))
                self.assertTrue(error.unsent and not error.transient)
                self.assertIsNone(_origin_health(error))

    def test_guard(self) -> None:
        """A name with one refused address is not connected to."""
        self.pool = self.make_pool(SsrfGuard(EgressPolicy()))
        self.failureResultOf(
            self.pool.connect(parse_target("http://mixed.example/")), AddressRefused
        )
        self.failureResultOf(self.pool.connect(parse_target("http://127.0.0.1/")), AddressRefused)
        self.assertEqual(self.hosts(), [])
        _, wire = self.open()
        self.assertEqual(wire.host, "1.1.1.1")

    def test_cancelled_lookup(self) -> None:
        """Cancelling a look-up ends it; its result is dropped."""
        self.resolver.held = []
        connecting = self.pool.connect(TARGET)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.resolver.held[0]()
        self.assertEqual(self.hosts(), [])

    def test_own_lookups(self) -> None:
        """A cancelled look-up gives up its place; one that has no place is refused, not retried."""
        threads = ThreadClock()
        threads.limit = 1
        lookups: Any = NameLookups(threads, threads=threads, limit=2)  # Any: for its interface
        self.pool = ConnectionPool(
            self.reactor, Connector(self.reactor, timeout=5.0, resolver=lookups), HttpSettings()
        )
        first, second = (self.pool.connect(parse_target(f"http://{name}/")) for name in "ab")
        busy = self.failureResultOf(self.pool.connect(parse_target("http://c/")), LookupsBusy).value
        self.assertEqual(busy.details(), {"host": "c"})
        self.assertIsNone(_origin_health(busy))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(lookups.pending, 1)
        first.cancel()
        self.failureResultOf(first, CancelledError)

    def test_no_thread(self) -> None:
        """A machine that has no thread to give lacks what a connection takes."""

        def refuse_threads(*_: object) -> Deferred[Any]:
            return fail(RuntimeError("can't start new thread"))

        threads = ThreadClock()
        self.patch(threads, "call", refuse_threads)
        lookups: Any = NameLookups(threads, threads=threads)  # Any: as above
        self.pool = ConnectionPool(
            self.reactor, Connector(self.reactor, timeout=5.0, resolver=lookups), HttpSettings()
        )
        self.failureResultOf(self.pool.connect(TARGET), OutOfResources)

    def test_resolver_that_cannot_cancel(self) -> None:
        """Twisted's resolutions cannot be cancelled; cancelling works all the same."""

        class Stubborn:
            name = "a.example"

            def cancel(self) -> None:
                """Fail as Twisted's does."""
                raise NotImplementedError

        def begin(receiver: Any, *_: object) -> None:  # Any: zope interfaces are untyped
            receiver.resolutionBegan(Stubborn())

        self.patch(self.resolver, "resolveHostName", begin)
        connecting = self.pool.connect(TARGET)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)

    def test_https(self) -> None:
        """An https connection uses TLS, with the clock of the given reactor."""
        connecting = self.pool.connect(parse_target("https://a.example/"))
        wire = Wire(self.reactor)
        self.successResultOf(connecting)
        self.assertEqual(wire.port, 443)
        self.assertEqual(wire.received()[:1], b"\x16")  # a handshake record


class AddressTests(PoolTestCase):
    """The limit of addresses, and other errors of connecting."""

    def test_most_addresses(self) -> None:
        """Of a name with very many addresses only the first ones are tried."""
        connecting = self.pool.connect(parse_target("http://many.example/"))
        for _ in range(MAX_ADDRESSES):
            refuse(self.reactor, ConnectError())
        self.failureResultOf(connecting, CannotConnect)
        self.assertEqual(len(self.hosts()), MAX_ADDRESSES)

    def test_silent_addresses(self) -> None:
        """Forty addresses of which none answers are all tried within the time for connecting."""
        connecting = self.pool.connect(parse_target("http://forty.example/"))
        self.reactor.pump([0.1] * 45)
        self.assertEqual(len(self.hosts()), 40)
        Wire(self.reactor)
        self.successResultOf(connecting)

    def test_most_answers(self) -> None:
        """Of very many answers to a look-up only so many are checked as a name may have."""
        guard = SsrfGuard(EgressPolicy())
        checked: list[list[str]] = []
        self.patch(guard, "check_addresses", lambda _host, _port, found: checked.append(found))
        connecting = self.make_pool(guard).connect(parse_target("http://many.example/"))
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual([len(found) for found in checked], [MAX_ANSWERS])

    def test_name_in_tls(self) -> None:
        """The policy for TLS is asked for a host without its final dot (RFC 6066 §3)."""
        asked: list[bytes] = []

        def creator(_: object, hostname: bytes, port: int) -> object:
            asked.append(hostname)
            return BrowserLikePolicyForHTTPS().creatorForNetloc(hostname, port)

        self.patch(HostnameCachingHTTPSPolicy, "creatorForNetloc", creator)
        connecting = self.pool.connect(parse_target("https://a.example./"))
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(asked, [b"a.example"])

    def test_other_lookup_error(self) -> None:
        """Any other error of connecting becomes CannotConnect."""
        connecting = self.pool.connect(TARGET)
        refuse(self.reactor, DNSLookupError("odd"))
        self.failureResultOf(connecting, CannotConnect)


class IdleTests(PoolTestCase):
    """Connections are kept for reuse, within limits."""

    def test_reuse(self) -> None:
        """One that has received its response is reused, the last one first."""
        self.assertIsNone(self.pool.take_idle(TARGET.origin))
        first, second = self.open(), self.open()
        self.use(*first)
        self.use(*second)
        self.assertIs(self.pool.take_idle(TARGET.origin), second[0])
        self.assertIs(self.pool.take_idle(TARGET.origin), first[0])
        self.assertIsNone(self.pool.take_idle(TARGET.origin))

    def test_other_origin(self) -> None:
        """It is reused for its own origin only: scheme, host and port."""
        self.use(*self.open())
        for url in ("https://a.example/", "http://a.example:81/", "http://b.example/"):
            self.assertIsNone(self.pool.take_idle(parse_target(url).origin))

    def test_idle_after_close(self) -> None:
        """A connection that becomes idle when the pool is closed is dropped, without a timer."""
        connection, wire = self.open()
        closing = self.pool.close()
        self.pool.put_idle(connection)
        self.reactor.advance(0)
        self.assertTrue(wire.transport.ended)
        self.successResultOf(closing)
        self.assert_quiet(self.reactor)

    def test_closed_by_the_server(self) -> None:
        """One that the server has closed is not reused."""
        connection, wire = self.open()
        self.use(connection, wire)
        wire.close()
        self.assertIsNone(self.pool.take_idle(TARGET.origin))

    def test_unasked_data(self) -> None:
        """One that receives data without a request is not reused."""
        connection, wire = self.open()
        self.use(connection, wire)
        wire.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        self.assertTrue(wire.transport.ended)
        self.assertIsNone(self.pool.take_idle(TARGET.origin))

    def test_most_for_one_origin(self) -> None:
        """Beyond the limit of one origin the oldest is closed."""
        self.pool = self.make_pool(idle_per_origin=1)
        first, second = self.open(), self.open()
        self.use(*first)
        self.use(*second)
        self.assertTrue(first[1].transport.ended)
        self.assertIs(self.pool.take_idle(TARGET.origin), second[0])

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
            self.assert_quiet(self.reactor)

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
        self.assert_quiet(self.reactor)

    def test_used_in_time(self) -> None:
        """Reuse starts the timeout again."""
        self.pool = self.make_pool(idle_timeout=10.0)
        connection, wire = self.open()
        self.use(connection, wire)
        self.reactor.advance(9)
        self.assertIs(self.pool.take_idle(TARGET.origin), connection)
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
        """No connection is made; one that is being made is dropped."""
        connecting = self.pool.connect(TARGET)
        self.successResultOf(self.pool.close())
        self.failureResultOf(self.pool.connect(TARGET), ClientClosed)
        wire = Wire(self.reactor)
        self.assertTrue(wire.transport.ended)
        self.successResultOf(connecting)


class UnknownParserTests(PoolTestCase):
    """With a version of Twisted whose client has changed, its parser reads every response."""

    def test_get(self) -> None:
        """A GET is sent and answered in Twisted's own way."""
        self.patch(http_connection, "_PARSER_IS_KNOWN", False)
        connection, wire = self.open()
        waiting = connection.send_request(
            AgentRequest(b"GET", b"", Headers({"X": ["y"]}), None), TARGET
        )
        self.assertIn(b"GET / HTTP/1.1\r\n", wire.received())
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        response = self.successResultOf(waiting)
        self.assertNotIsInstance(response, BufferedResponse)
        body, _ = self.successResultOf(collect(response))
        self.assertEqual(body, b"ok")
