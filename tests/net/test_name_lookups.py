"""Look-ups of names keep nobody waiting but who asked, and who asks for the same name."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.threads import ThreadClock
from twisted_net.errors import TooBusy
from twisted_net.http.settings import FetchSettings
from twisted_net.net.name_lookups import LOOKUP_THREADS, MAX_LOOKUPS, Found, NameLookups
from twisted_net.net.worker_threads import WorkerThreads

FOUND: Found = [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 7, 3)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
    (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", ("not an address",)),
]


class Receiver:
    """Keeps the addresses of a name."""

    def __init__(self) -> None:
        self.resolution: Any = None  # Any: zope interfaces are untyped
        self.addresses: list[IAddress] = []
        self.complete = False

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        """Keep the resolution."""
        self.resolution = resolution

    def addressResolved(self, address: IAddress) -> None:
        """Keep an address."""
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        """Note the end."""
        self.complete = True


class FailedReceiver(Receiver):
    """Keeps the error, too."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None

    def resolution_failed(self, error: BaseException) -> None:
        """Keep it."""
        self.error = error


class NameLookupsTests(SynchronousTestCase):
    """:class:`NameLookups` with threads that run when the test says so."""

    def setUp(self) -> None:
        self.threads = ThreadClock()
        self.threads.limit = 4
        self.owner = "a"
        self.asked: list[tuple[object, ...]] = []
        self.found: Found | Exception = FOUND
        self.lookups = self.make()

    def make(self, limit: int = 8) -> NameLookups:
        """Return a resolver."""
        return NameLookups(
            self.threads,
            lambda: self.owner,
            threads=self.threads,
            limit=limit,
            getaddrinfo=self.getaddrinfo,
        )

    def getaddrinfo(self, *question: object) -> Found:
        """Look up, as the test says."""
        self.asked.append(question)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def ask(self, name: str = "example.com", receiver: Receiver | None = None) -> Receiver:
        """Ask for a name."""
        receiver = receiver or Receiver()
        lookups: Any = self.lookups  # Any: zope interfaces are untyped
        lookups.resolveHostName(receiver, name, 443)
        return receiver

    def run_all(self) -> None:
        """Run all that there is to run."""
        while self.threads.threads:
            self.threads.run_thread()

    def test_interface(self) -> None:
        """It is a resolver as Twisted's reactors have one."""
        verifyObject(IHostnameResolver, self.lookups)
        verifyObject(IHostResolution, self.ask().resolution)
        self.run_all()

    def test_addresses(self) -> None:
        """The addresses come with the port, once the thread has run."""
        receiver = self.ask("Example.com")
        self.assertEqual(receiver.resolution.name, "Example.com")
        self.assertFalse(receiver.complete)
        self.threads.run_thread()
        self.assertTrue(receiver.complete)
        self.assertEqual(
            receiver.addresses,
            [
                IPv6Address("TCP", "2001:db8::1", 443, 7, 3),
                IPv4Address("TCP", "192.0.2.1", 443),
            ],
        )
        self.assertEqual(self.asked, [("example.com", 0, socket.AF_UNSPEC, socket.SOCK_STREAM)])
        self.assertEqual(self.lookups.pending, 0)

    def test_kinds(self) -> None:
        """Families and transports are those that were asked for."""
        lookups: Any = self.lookups  # Any: as above
        both = [IPv4Address, IPv6Address]
        for types in ([IPv4Address], [IPv6Address], both):
            lookups.resolveHostName(Receiver(), "x", 1, types, "UDP")
        self.found = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 0))]
        receiver = Receiver()
        lookups.resolveHostName(receiver, "x", 1, [IPv4Address], "UDP")
        self.run_all()
        families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNSPEC)
        expected = [("x", 0, family, socket.SOCK_DGRAM) for family in families]
        self.assertEqual(self.asked, expected)
        self.assertEqual(receiver.addresses, [IPv4Address("UDP", "192.0.2.1", 1)])

    def test_no_address(self) -> None:
        """A name that is not found, or that is none, has no address."""
        for error in (socket.gaierror(-2, "unknown"), UnicodeError("label too long"), OSError()):
            self.found = error
            receivers = [self.ask(), self.ask(receiver=FailedReceiver())]
            self.threads.run_thread()
            for receiver in receivers:
                self.assertEqual((receiver.addresses, receiver.complete), ([], True))

    def test_shared(self) -> None:
        """Those who ask for one name share a look-up; each gets its own port and its own end."""
        first, second = self.ask("example.com"), self.ask("EXAMPLE.com")
        self.assertEqual((len(self.threads.threads), self.lookups.pending), (1, 1))
        first.resolution.cancel()
        self.threads.run_thread()
        self.assertEqual((first.complete, second.complete), (False, True))

    def test_not_remembered(self) -> None:
        """Who asks afterwards is answered anew."""
        for _ in range(2):
            self.ask()
            self.run_all()
        self.assertEqual(len(self.asked), 2)

    def test_turns(self) -> None:
        """A client whose names find no end has half of the threads; others go on."""
        for i in range(6):
            self.ask(f"{i}.dead.example")
        self.assertEqual(len(self.threads.threads), 2)
        self.owner = "b"
        fine = self.ask("fine.example")
        self.assertEqual(len(self.threads.threads), 3)
        self.threads.threads.rotate(1)
        self.threads.run_thread()
        self.assertTrue(fine.complete)
        self.assertEqual([host for host, *_ in self.asked], ["fine.example"])
        self.run_all()

    def test_name_of_another(self) -> None:
        """Who asks for a name that another has not come to yet has a turn of its own."""
        names = [f"{i}.dead.example" for i in range(4)]
        for name in (*names, "fine.example"):
            self.ask(name)
        first = self.ask("fine.example")
        self.owner = "b"
        fine = self.ask("fine.example")
        self.assertEqual((len(self.threads.threads), self.lookups.pending), (3, 5))
        self.threads.threads.rotate(1)
        self.threads.run_thread()
        self.assertEqual((fine.complete, first.complete, self.lookups.pending), (True, True, 4))
        self.run_all()
        self.assertEqual([host for host, *_ in self.asked], ["fine.example", *names])

    def test_name_that_another_gives_up(self) -> None:
        """It is looked up for who still wants it; for nobody, if all leave before it begins."""
        for leaving in (("a",), ("b",), ("a", "b"), ("b", "a")):
            with self.subTest(leaving=leaving):
                self.asked.clear()
                asked: dict[str, Receiver] = {}
                for self.owner in "ab":
                    for i in range(2):
                        self.ask(f"{i}.{self.owner}.example")
                for self.owner in "ab":
                    asked[self.owner] = self.ask("wanted.example")
                for owner in leaving:
                    asked[owner].resolution.cancel()
                self.run_all()
                for owner, receiver in asked.items():
                    self.assertEqual(receiver.complete, owner not in leaving)
                wanted = [host for host, *_ in self.asked if host == "wanted.example"]
                self.assertEqual(len(wanted), 0 if len(leaving) == 2 else 1)
                self.assertEqual(self.lookups.pending, 0)

    def test_refused_to_one(self) -> None:
        """Who has asked for too much gets no addresses; who asks for one of its names does."""
        self.lookups = self.make(limit=4)
        greedy = [self.ask(f"{i}.example") for i in range(4)]
        self.owner = "b"
        modest = self.ask("3.example")
        self.assertEqual([receiver.complete for receiver in greedy], [False] * 3 + [True])
        self.assertFalse(modest.complete)
        self.run_all()
        self.assertEqual(len(modest.addresses), 2)

    def test_cancelled_at_once(self) -> None:
        """A receiver may cancel as soon as it can; nothing is looked up, or kept."""

        class Hasty(Receiver):
            def resolutionBegan(self, resolution: IHostResolution) -> None:
                """Cancel."""
                resolution.cancel()

        self.ask(receiver=Hasty())
        self.assertEqual((self.lookups.pending, len(self.threads.threads)), (0, 0))

    def test_too_many(self) -> None:
        """Over the limit a look-up ends without an address, and says why if it is asked."""
        self.lookups = self.make(limit=2)
        self.ask("1.example")
        self.ask("2.example")
        receivers = [self.ask("3.example"), self.ask("4.example", FailedReceiver())]
        self.assertEqual((receivers[0].addresses, receivers[0].complete), ([], True))
        assert isinstance(receivers[1], FailedReceiver)
        self.assertIsInstance(receivers[1].error, TooBusy)
        self.assertFalse(receivers[1].complete)
        self.run_all()

    def test_cancelled_before_it_runs(self) -> None:
        """A look-up that nobody wants any more gives up its place, and is not begun."""
        receivers = [self.ask(f"{i}.example") for i in range(8)]
        self.ask("7.example").resolution.cancel()
        self.assertEqual(self.lookups.pending, 8)
        receivers[7].resolution.cancel()
        receivers[7].resolution.cancel()
        self.assertEqual(self.lookups.pending, 7)
        last = self.ask("8.example")
        self.run_all()
        self.assertTrue(last.complete)
        self.assertFalse(receivers[7].complete)
        hosts = [host for host, *_ in self.asked]
        self.assertEqual(hosts, [f"{i}.example" for i in (*range(7), 8)])

    def test_cancelled_while_it_runs(self) -> None:
        """One that runs goes on, and who asks for its name then shares it."""

        def look_up(*question: object) -> Found:
            receiver.resolution.cancel()
            later.append(self.ask())
            self.asked.append(question)
            return FOUND

        later: list[Receiver] = []
        self.getaddrinfo = look_up  # type: ignore[method-assign]  # in place of the method
        self.lookups = self.make()
        receiver = self.ask()
        self.run_all()
        self.assertFalse(receiver.complete)
        self.assertEqual((later[0].complete, len(self.asked), self.lookups.pending), (True, 1, 0))

    def test_receiver_that_fails(self) -> None:
        """A receiver that raises is logged, and the others get the addresses."""

        class Broken(Receiver):
            def resolutionComplete(self) -> None:
                """Fail."""
                raise ZeroDivisionError

        logged = EventLoggingObserver()
        globalLogPublisher.addObserver(logged)
        self.addCleanup(globalLogPublisher.removeObserver, logged)
        self.ask(receiver=Broken())
        other = self.ask()
        self.threads.run_thread()
        self.assertTrue(other.complete)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_threads(self) -> None:
        """Its own threads are not waited for at a shutdown: they may be stuck for long."""
        lookups = NameLookups(self.threads)
        assert isinstance(lookups._threads, WorkerThreads)
        self.assertEqual(lookups._threads.limit, LOOKUP_THREADS)
        settings = FetchSettings()
        self.assertEqual(settings.lookup_threads, LOOKUP_THREADS)
        self.assertEqual(settings.max_lookups, MAX_LOOKUPS)
        self.assertFalse(lookups._threads._awaited)
        self.lookups.stop()
        self.assertTrue(self.threads.stopped)
        self.lookups.start()
        self.assertFalse(self.threads.stopped)
