"""Tests of :mod:`twisted_net.http.connector`."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectBindError, ConnectError, DNSLookupError
from twisted.web.client import BrowserLikePolicyForHTTPS

from tests.http.fakes import ServerSide, refuse
from tests.http.pools import TARGET, PoolTestCase
from tests.threads import ThreadClock
from twisted_net.http.connector import (
    MAX_ADDRESSES,
    Connector,
)
from twisted_net.http.errors import (
    AddressRefused,
    CannotConnect,
    LookupsBusy,
    NameNotFound,
    OutOfResources,
)
from twisted_net.http.pool import ConnectionPool
from twisted_net.http.retry.retrier import origin_health
from twisted_net.http.settings import EgressPolicy, HttpSettings
from twisted_net.http.ssrf_guard import SsrfGuard
from twisted_net.http.urls import parse_target
from twisted_net.net.name_lookups import MAX_ANSWERS, NameLookups
from twisted_net.net.tls_policy import TlsPolicy


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
                self.assertIsNone(origin_health(error, HttpSettings()))

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
        self.assertIsNone(origin_health(busy, HttpSettings()))
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
        wire = ServerSide(self.reactor)
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
        ServerSide(self.reactor)
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

        self.patch(TlsPolicy, "creatorForNetloc", creator)
        connecting = self.pool.connect(parse_target("https://a.example./"))
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(asked, [b"a.example"])

    def test_other_lookup_error(self) -> None:
        """Any other error of connecting becomes CannotConnect."""
        connecting = self.pool.connect(TARGET)
        refuse(self.reactor, DNSLookupError("odd"))
        self.failureResultOf(connecting, CannotConnect)
