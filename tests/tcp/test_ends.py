"""Connections end alike over every kind of listener: for the same reason, in the same time."""

from __future__ import annotations

import gc
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import Authority, write_pair
from tests.tcp.kinds import HEADERS, KINDS, Door, Kind, KindClient
from tests.tcp.memory import Reactor
from tests.tcp.server_case import Handlers
from twisted_net.auth.users import AuthSettings, Users
from twisted_net.sessions import Sessions
from twisted_net.tcp.admission import Access
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.rejection import LINGER_TIMEOUT
from twisted_net.tcp.server import CommandFactory

STEP = 0.5
"""Seconds between two looks at a connection."""

LONGEST = 100.0
"""Seconds after which a connection is held to stay for ever."""


class Case:
    """One client of one kind of listener, and the server behind it."""

    def __init__(
        self,
        kind: Kind,
        certificate: Path,
        limits: dict[str, Any],  # Any: fields of Limits
        access: Access | None = None,
    ) -> None:
        self.reactor = Reactor()
        self.handlers = Handlers(self.reactor)
        sessions = Sessions(self.reactor.seconds)
        self.factory = CommandFactory(
            self.reactor, self.handlers.commands, Limits(**limits), sessions, access
        )
        self.door = Door(kind, self.reactor, self.factory, certificate)

    def ended(self) -> dict[str, int]:
        """Return the reasons for which connections have ended."""
        ended = self.factory.sessions.counters.ended
        return {end.value: count for end, count in ended.items() if count}

    def seconds_to_end(self, client: KindClient, floods: bool) -> float:
        """Let time pass until the connection is gone, and return how long that took."""
        began = self.reactor.seconds()
        while not client.connection.gone and self.reactor.seconds() - began < LONGEST:
            if floods:
                client.send(b"PING", b"ECHO " + b"x" * 2000)
            client.pass_time(STEP, STEP)
        return self.reactor.seconds() - began


# --- what clients do once they are to leave ---


def leave(client: KindClient) -> None:
    """Answer the end of each layer with one's own."""


def stay(client: KindClient) -> None:
    """Read everything, and close nothing."""
    client.answers_close = client.connection.polite = False


def stop_reading(client: KindClient) -> None:
    """Read nothing, and close nothing."""
    stay(client)
    client.connection.reads = False


CLIENTS = {"leaves": leave, "stays": stay, "stops reading": stop_reading, "sends on": stay}


# --- why the server ends a connection ---


def drain(case: Case, client: KindClient) -> None:
    """Drain the server, with more time than any client may take."""
    case.factory.drain(90)


def short_drain(case: Case, client: KindClient) -> None:
    """Drain the server in less time than a client may take."""
    case.factory.drain(1)


def kill(case: Case, client: KindClient) -> None:
    """Disconnect the client."""
    for session in list(case.factory.sessions):
        session.kill()


def abort(case: Case, client: KindClient) -> None:
    """Abort all connections."""
    case.factory.abort()


def nothing(case: Case, client: KindClient) -> None:
    """Wait for a time limit."""


def overflow(case: Case, client: KindClient) -> None:
    """Publish more than a subscriber that does not read may have waiting."""
    client.ask(b"SUBSCRIBE t disconnect")
    client.connection.reads = False
    for _ in range(3000):
        case.factory.sessions.topics.publish("t", "x" * 1000)
        case.reactor.settle()


def fill(case: Case, client: KindClient) -> None:
    """Ask for more than is kept for one that does not read."""
    client.connection.reads = False
    client.ask(b"BIG 3000000")


def big(case: Case, client: KindClient) -> None:
    """Ask for more than a transport buffers, and do not read it."""
    client.connection.reads = False
    client.ask(b"BIG 200000")


def big_drain(case: Case, client: KindClient) -> None:
    """Drain while a client has not read what it asked for."""
    client.send(b"BIG 200000")
    client.settle()
    case.factory.drain(90)


@frozen
class Trigger:
    """
    Something that ends connections.

    :param limits: of the server.
    :param act: makes it happen; the client has been answered before.
    :param login: whether clients must log in.
    """

    limits: dict[str, Any]  # Any: fields of Limits
    act: Callable[[Case, KindClient], None]
    login: bool = False


TRIGGERS = {
    "drain": Trigger({}, drain),
    "short drain": Trigger({}, short_drain),
    "drain with output": Trigger({}, big_drain),
    "kill": Trigger({}, kill),
    "abort": Trigger({}, abort),
    "idle": Trigger({"idle_timeout": 5}, nothing),
    "no login": Trigger({}, nothing, login=True),
    "subscriber": Trigger({}, overflow),
    "buffers": Trigger({"max_buffered": 1_048_576}, fill),
    "output": Trigger({"write_timeout": 20}, big),
}


class KindsTestCase(SynchronousTestCase):
    """Makes cases, with a certificate for all of them."""

    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        self.certificate = write_pair(folder / "a.pem", Authority().issue("a.test"))

    def case(self, kind: Kind, access: Access | None = None, **limits: Any) -> Case:
        """Make one, with limits of the server."""
        return Case(kind, self.certificate, limits, access)


class EndsTests(KindsTestCase):
    """Why and when connections end does not depend on the kind of the listener."""

    def outcome(self, kind: Kind, trigger: Trigger, client_name: str) -> tuple[object, float]:
        """Return for which reason one connection ended, and after how many seconds."""
        access = None
        if trigger.login:
            access = Access(AuthSettings(users="u", timeout=10.0), Users({}).permissions)
        case = self.case(kind, access, **trigger.limits)
        client = case.door.client()
        self.assertEqual(len(client.ask(b"PING")), 1)
        CLIENTS[client_name](client)
        trigger.act(case, client)
        taken = case.seconds_to_end(client, client_name == "sends on")
        self.assertEqual(case.reactor.connections, [])
        self.assertEqual(len(case.factory.sessions), 0)
        self.assertEqual(case.factory.sessions.memory.total, 0)
        self.assertEqual(case.reactor.getDelayedCalls(), [])
        return case.ended(), round(taken / STEP) * STEP

    def test_alike(self) -> None:
        """Each end, over each kind, of each client: as over plain TCP."""
        for trigger_name, trigger in TRIGGERS.items():
            for client_name in CLIENTS:
                if trigger_name == "idle" and client_name == "sends on":
                    continue  # one that sends is not idle
                expected = self.outcome(KINDS["tcp"], trigger, client_name)
                self.assertLess(expected[-1], LONGEST)
                for kind_name, kind in KINDS.items():
                    with self.subTest(end=trigger_name, client=client_name, kind=kind_name):
                        self.assertEqual(self.outcome(kind, trigger, client_name), expected)

    def test_too_late(self) -> None:
        """One that comes during a drain is closed at once, whether it leaves or not."""
        for kind_name, kind in KINDS.items():
            with self.subTest(kind=kind_name):
                case = self.case(kind)
                first = case.door.client()
                first.ask(b"PING")
                stop_reading(first)
                case.factory.drain(90)
                late = case.door.client(opened=False)
                stay(late)
                late.open()
                late.settle()
                self.assertEqual((late.take(), late.connection.gone), ([], True))
                self.assertEqual(case.ended(), {"drained": 1})
                self.assertEqual(case.reactor.connections, [first.connection])

    def test_rejected(self) -> None:
        """One that is turned away with an answer leaves, or is aborted, in the same time."""
        for client_name, behave in CLIENTS.items():
            expected = None
            for kind_name, kind in KINDS.items():
                with self.subTest(client=client_name, kind=kind_name):
                    case = self.case(kind, max_connections=1)
                    case.door.client()
                    client = case.door.client(opened=False)
                    behave(client)
                    client.connection.reads = True
                    client.open()
                    client.connection.reads = client_name != "stops reading"
                    self.assertEqual(
                        [line["code"] for line in client.take()], ["too_many_connections"]
                    )
                    outcome = case.seconds_to_end(client, client_name == "sends on"), case.ended()
                    expected = expected or outcome
                    self.assertEqual(outcome, expected)
                    self.assertEqual(len(case.reactor.connections), 1)


def ways(kind: Kind) -> list[str]:
    """Return the ways in which a client of a kind may end its half."""
    return ["frame"] * kind.websocket + ["notify"] * kind.tls + ["fin"]


class HalfCloseTests(KindsTestCase):
    """A client that ends its half, in whichever layer, gets the answers to what it has asked."""

    def each(self, check: Callable[[Case, KindClient, str], None]) -> None:
        """Check all kinds and ways, each with a client that has been answered once."""
        for kind_name, kind in KINDS.items():
            for way in ways(kind):
                with self.subTest(kind=kind_name, way=way):
                    case = self.case(kind, turn_budget=2)
                    client = case.door.client()
                    self.assertEqual(len(client.ask(b"PING")), 1)
                    check(case, client, way)

    def assert_over(self, case: Case, client: KindClient, **ended: int) -> None:
        """Nothing is left, and connections ended for these reasons."""
        client.settle()
        self.assertEqual((case.ended(), case.reactor.connections), (ended, []))
        self.assertEqual(case.reactor.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_answers(self) -> None:
        """Commands that wait, lines of later turns and their answers come before our end."""

        def check(case: Case, client: KindClient, way: str) -> None:
            client.send(b"WAIT one", *[b"ECHO x"] * 300)
            client.end(way)
            client.settle()
            self.assertFalse(client.connection.gone)
            case.handlers.waits.pop().callback("waited")
            client.settle()
            results = [line.get("result") for line in client.take()]
            self.assertEqual(results, ["waited", *["x"] * 300])
            self.assert_over(case, client, client_closed=1)
            self.assertEqual(client.closed, case.door.kind.tls or case.door.kind.websocket)

        self.each(check)

    def test_all_at_once(self) -> None:
        """The end may come in the same segment as the lines."""

        def check(case: Case, client: KindClient, way: str) -> None:
            client.send(b"ECHO a", b"ECHO b", b"ECHO c", b"ECHO d")
            client.end(way)
            client.settle()
            self.assertEqual([line["result"] for line in client.take()], ["a", "b", "c", "d"])
            self.assert_over(case, client, client_closed=1)

        self.each(check)

    def test_ends_within_a_line(self) -> None:
        """A line that is not whole is refused, and not run."""

        def check(case: Case, client: KindClient, way: str) -> None:
            if case.door.kind.websocket:
                return  # a message is a line
            client._send_bytes(b"ECHO half")
            client.end(way)
            client.settle()
            self.assertEqual([line["code"] for line in client.take()], ["unterminated_line"])
            self.assert_over(case, client, client_closed=1)

        self.each(check)

    def test_stops_reading(self) -> None:
        """A client that ends its half and does not read the answers is aborted in time."""

        def check(case: Case, client: KindClient, way: str) -> None:
            client.send(b"BIG 200000")
            client.end(way)
            client.connection.reads = client.connection.polite = False
            self.assertEqual(case.seconds_to_end(client, floods=False), 30)
            self.assert_over(case, client, write_timeout=1)

        self.each(check)

    def test_sends_on(self) -> None:
        """What follows the end of a layer is dropped, and nothing of it is kept."""

        def check(case: Case, client: KindClient, way: str) -> None:
            if way == "fin":
                return  # nothing can follow
            client.send(b"WAIT one")
            client.end(way)
            client.settle()
            for _ in range(100):
                client.connection.send(b"x" * 60_000)
                case.reactor.settle()
            (session,) = case.factory.sessions
            self.assertLess(session.received, 1000)
            case.handlers.waits.pop().callback("waited")
            client.settle()
            self.assertEqual([line.get("result") for line in client.take()], ["waited"])
            self.assert_over(case, client, client_closed=1)

        self.each(check)

    def test_drained_meanwhile(self) -> None:
        """A drain waits for those answers, too, and for no longer than it may."""

        def check(case: Case, client: KindClient, way: str) -> None:
            client.send(b"WAIT one")
            client.end(way)
            client.settle()
            drained = case.factory.drain(5)
            self.assertGreaterEqual(case.seconds_to_end(client, floods=False), 5)
            self.successResultOf(drained)
            self.assert_over(case, client, aborted=1)

        self.each(check)

    def test_lost_meanwhile(self) -> None:
        """One that breaks after its half has ended is gone at once, and its command cancelled."""

        def check(case: Case, client: KindClient, way: str) -> None:
            client.send(b"WAIT one")
            client.end(way)
            client.settle()
            client.connection.reset()
            self.assertEqual(case.handlers.log, ["wait one", "cancelled one"])
            self.assert_over(case, client, connection_lost=1)

        self.each(check)

    def test_both_halves(self) -> None:
        """The ends of several layers, one upon another, are one end."""
        for kind_name, kind in KINDS.items():
            with self.subTest(kind=kind_name):
                case = self.case(kind)
                client = case.door.client()
                client.send(b"WAIT one")
                for way in ways(kind):
                    client.end(way)
                    client.settle()
                case.handlers.waits.pop().callback("waited")
                client.settle()
                self.assertEqual([line.get("result") for line in client.take()], ["waited"])
                self.assert_over(case, client, client_closed=1)

    def test_during_the_handshake(self) -> None:
        """A client that ends its half before it has been let in is let go."""
        for kind_name, kind in KINDS.items():
            if not (kind.proxy or kind.tls or kind.websocket):
                continue
            with self.subTest(kind=kind_name):
                case = self.case(kind)
                client = case.door.client(opened=False)
                client.connection.end()
                client.settle()
                self.assert_over(case, client, handshake_failed=1)


class ResetTests(KindsTestCase):
    """A connection that breaks is lost over every kind, and leaves nothing."""

    def test_lost(self) -> None:
        """It is counted as lost, and all that belonged to it is let go."""
        for kind_name, kind in KINDS.items():
            with self.subTest(kind=kind_name):
                case = self.case(kind)
                client = case.door.client()
                client.ask(b"SUBSCRIBE t", b"WAIT one")
                (protocol,) = case.factory._protocols
                kept = weakref.ref(protocol)
                del protocol
                client.connection.reset()
                del client
                gc.collect()
                self.assertEqual(case.ended(), {"connection_lost": 1})
                self.assertEqual(case.handlers.log, ["wait one", "cancelled one"])
                case.handlers.waits.clear()
                case.handlers.words.clear()
                self.assertIsNone(kept())


class ForeignLayersTests(KindsTestCase):
    """Layers that are not ours, as endpoints of Twisted's have, are waited for no longer."""

    def wrapped(self, wrap: Callable[[Case], IProtocolFactory], kind: Kind) -> Case:
        """Return a case of a kind, whose outermost layer is another."""
        case = self.case(kind)
        case.door.factory = wrap(case)
        return case

    def stock_tls(self, case: Case) -> IProtocolFactory:
        """Return Twisted's own TLS, with our certificate."""
        assert case.door.port.certificates is not None
        return TLSMemoryBIOFactory(case.door.port.certificates, False, case.factory, case.reactor)

    def stock_tls_below(self, case: Case) -> IProtocolFactory:
        """Return Twisted's own TLS below our WebSocket."""
        outer: Any = case.door.port._factory  # Any: our TLS
        assert case.door.port.certificates is not None
        websocket = outer.wrappedFactory.inner
        return TLSMemoryBIOFactory(case.door.port.certificates, False, websocket, case.reactor)

    def haproxy(self, case: Case) -> IProtocolFactory:
        """Return Twisted's own PROXY protocol."""
        return HAProxyWrappingFactory(case.factory)

    def proxy_within_tls(self, case: Case) -> IProtocolFactory:
        """Return Twisted's own TLS below our PROXY header."""
        outer: Any = case.door.port._factory  # Any: our PROXY header
        assert case.door.port.certificates is not None
        outer.inner = case.factory
        return TLSMemoryBIOFactory(case.door.port.certificates, False, outer, case.reactor)

    def test_proxy_within_tls(self) -> None:
        """A PROXY header may come within another layer; what follows goes on as it does below."""
        case = self.wrapped(self.proxy_within_tls, KINDS["tls behind proxy"])
        connection = case.reactor.connect(case.door.factory, KINDS["proxy v1"].peer)
        client = KindClient(Kind(tls=True), case.reactor, connection)
        client.open()
        client._send_bytes(HEADERS[1])
        client.settle()
        for _ in range(3):
            self.assertEqual([line["result"] for line in client.ask(b"PING")], ["PONG"])
        self.assertEqual([session.client[0] for session in case.factory.sessions], ["192.0.2.1"])
        stay(client)
        case.factory.drain(90)
        self.assertLessEqual(case.seconds_to_end(client, floods=False), LINGER_TIMEOUT)
        self.assertEqual(case.ended(), {"drained": 1})

    def test_bounds(self) -> None:
        """Whatever the client does, the end comes as soon as over plain TCP, or nearly."""
        layers = [
            (self.stock_tls, KINDS["tls"]),
            (self.stock_tls_below, KINDS["wss"]),
            (self.haproxy, KINDS["proxy v1"]),
        ]
        for wrap, kind in layers:
            for client_name, behave in CLIENTS.items():
                with self.subTest(layer=wrap.__name__, client=client_name):
                    case = self.wrapped(wrap, kind)
                    client = case.door.client()
                    self.assertEqual(len(client.ask(b"PING")), 1)
                    behave(client)
                    case.factory.drain(90)
                    taken = case.seconds_to_end(client, client_name == "sends on")
                    self.assertLessEqual(taken, LINGER_TIMEOUT)
                    self.assertEqual(case.ended(), {"drained": 1})
                    self.assertEqual(case.reactor.getDelayedCalls(), [])

    def test_much_output(self) -> None:
        """A client that has much to read has the time that it has over plain TCP."""
        for wrap in (self.stock_tls, self.stock_tls_below):
            kind = KINDS["tls" if wrap == self.stock_tls else "wss"]
            case = self.wrapped(wrap, kind)
            client = case.door.client()
            stop_reading(client)
            client.send(b"BIG 200000")
            client.settle()
            case.factory.drain(90)
            self.assertEqual(case.seconds_to_end(client, floods=False), 30)
            self.assertEqual(case.ended(), {"write_timeout": 1})


class BrokenTlsTests(KindsTestCase):
    """TLS that fails in the middle closes the connection, whether the peer reads or not."""

    def test_garbage(self) -> None:
        """A broken record is answered with an alert, and the connection is lost."""
        for kind_name, kind in KINDS.items():
            if not kind.tls:
                continue
            for reads, limit in ((True, STEP), (False, LINGER_TIMEOUT)):
                with self.subTest(kind=kind_name, reads=reads):
                    case = self.case(kind, idle_timeout=0)
                    client = case.door.client()
                    client.connection.reads = reads
                    client.ask(b"BIG 50000")
                    client.connection.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
                    self.assertLessEqual(case.seconds_to_end(client, floods=False), limit)
                    self.assertEqual(len(case.factory.sessions), 0)
                    self.assertEqual(case.reactor.getDelayedCalls(), [])
