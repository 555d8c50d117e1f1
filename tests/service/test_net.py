"""The assembled service starts completely or not at all, serves, and drains."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import (
    EventLoggingObserver,
    MemoryReactorClock,
    StringTransportWithDisconnection,
)
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import Authority, write_pair
from tests.threads import ThreadClock
from twisted_net.auth.users import AuthSettings
from twisted_net.coap.exchange import MAX_DELAYED_BYTES
from twisted_net.commands.registry import Commands
from twisted_net.config.tls import TlsSettings
from twisted_net.errors import AuthRequired, CannotListen, ConfigError
from twisted_net.net.memory_ledger import MemorySettings
from twisted_net.net.reactor import ServiceReactor
from twisted_net.ops.long_turns import LatencySettings
from twisted_net.ops.slowlog import SlowLogSettings
from twisted_net.service.config import (
    CoapDtlsSettings,
    CoapSettings,
    Config,
    TcpSettings,
    UdpSettings,
)
from twisted_net.service.listeners import CommandListener
from twisted_net.service.net import NetService
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.listener_settings import Listener
from twisted_net.topics import TopicSettings
from twisted_net.turns.broadcast_scheduler import MAX_WAITING_BYTES

TCP_ALONE = UdpSettings(enabled=False)


class TakenReactor(MemoryReactorClock):
    """A reactor whose ports are all in use."""

    def listenTCP(self, *arguments: Any, **options: Any) -> Any:  # Any: never reached
        """Fail as Linux does."""
        raise CannotListenError("", 8888, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))


class ThreadedReactor(ThreadClock, MemoryReactorClock):
    """A reactor in memory with threads."""


class ServerSide(StringTransportWithDisconnection):
    """A TCP transport in memory without half-close."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: every TCP transport has this method."""

    def loseWriteConnection(self) -> None:
        """Close the whole connection: the peer in these tests closes its side at once."""
        self.loseConnection()


def connect(service: NetService, listener: CommandListener | None = None) -> ServerSide:
    """Connect a client to a command server of *service*, which is the default one if None."""
    listener = listener or service.tcp
    assert listener is not None
    protocol = listener.factory.buildProtocol(None)
    assert protocol is not None
    wire = ServerSide()
    wire.protocol = protocol
    protocol.makeConnection(wire)
    return wire


def ask(wire: ServerSide, line: bytes) -> Any:  # Any: whatever JSON holds
    """Send a line to the server of *wire* and return its answer."""
    wire.clear()
    wire.protocol.dataReceived(line + b"\n")
    return json.loads(wire.value())


OPEN = AuthSettings(open=True)

NOTHING_KEPT = dict.fromkeys(
    (
        *("broadcasts", "coap_exchanges", "coap_observers", "coap_sessions", "coap_topics"),
        *("coap_transfers", "coap_waiting", "connections", "group_answers", "leaving", "messages"),
        "retained",
        *("subscriptions", "total"),
    ),
    0,
)
"""The bytes of each kind in INFO memory, with CoAP."""


class NetServiceTestCase(SynchronousTestCase):
    """A service over a reactor in memory."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()  # Any: it has no threads
        self.logged = EventLoggingObserver()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)

    def service(self, commands: Commands | None = None, **settings: Any) -> NetService:
        """Make a service without UDP, whose port is always a real socket."""
        config = Config(udp=TCP_ALONE, **{"auth": OPEN, **settings})
        return NetService(self.reactor, config, commands)


class NetServiceTests(NetServiceTestCase):
    """:class:`NetService`."""

    def test_listens_as_configured(self) -> None:
        """Port, queue and interface are those of the configuration."""
        service = self.service(tcp=TcpSettings(port=7, backlog=5, interface="127.0.0.2"))
        service.privilegedStartService()
        ((port, _, backlog, interface),) = self.reactor.tcpServers
        self.assertEqual((port, backlog, interface), (7, 5, "127.0.0.2"))
        self.assertEqual(
            [event["transport"] for event in self.logged if "transport" in event], ["tcp"]
        )

    def test_listens_once(self) -> None:
        """A port that was bound with privileges is not bound again at the start."""
        service = self.service()
        service.privilegedStartService()
        service.startService()
        self.assertEqual(len(self.reactor.tcpServers), 1)
        assert service.tcp is not None
        self.assertEqual(service.tcp.port, 8888)

    def test_launchers_without_privileges(self) -> None:
        """If the launcher has no privileged step, the port is bound at the start."""
        self.service().startService()
        self.assertEqual(len(self.reactor.tcpServers), 1)

    def test_parts(self) -> None:
        """A server that is not enabled is not created."""
        self.assertIsNone(self.service().udp)
        service = NetService(self.reactor, Config(tcp=TcpSettings(enabled=False)))
        self.assertIsNone(service.tcp)
        self.assertIsNotNone(service.udp)

    def test_defaults(self) -> None:
        """Without a configuration it is the default one."""
        service = NetService(self.reactor)
        self.assertIsNotNone(service.tcp)
        self.assertIsNotNone(service.udp)

    def test_port_that_is_taken(self) -> None:
        """The error names the address, the transport and the reason; nothing is running then."""
        service = NetService(cast(ServiceReactor, TakenReactor()), Config(udp=TCP_ALONE))
        error = self.assertRaises(CannotListen, service.privilegedStartService)
        self.assertEqual(
            str(error), "cannot listen on 127.0.0.1:8888 (tcp): address already in use"
        )
        self.assertEqual((error.transport, error.address), ("tcp", "127.0.0.1:8888"))
        self.assertRaises(CannotListen, service.startService)
        self.assertFalse(service.running)

    def test_addresses_in_words(self) -> None:
        """An IPv6 address is in brackets; an empty one is shown as 0.0.0.0."""
        for interface, address in (("::1", "[::1]:8888"), ("", "0.0.0.0:8888")):
            with self.subTest(interface=interface):
                config = Config(tcp=TcpSettings(interface=interface), udp=TCP_ALONE, auth=OPEN)
                service = NetService(cast(ServiceReactor, TakenReactor()), config)
                error = self.assertRaises(CannotListen, service.startService)
                self.assertEqual(error.address, address)

    def test_reasons_that_are_no_errors(self) -> None:
        """If the reactor has a message in place of an error number, it is repeated."""

        def refuse(*arguments: Any) -> None:
            raise CannotListenError("", 8888, "Not today")

        self.patch(self.reactor, "listenTCP", refuse)
        error = self.assertRaises(CannotListen, self.service().startService)
        self.assertEqual(error.reason, "not today")

    def test_answers(self) -> None:
        """The standard commands answer, and so does the configured fallback."""
        wire = connect(self.service())
        self.assertEqual(ask(wire, b"ECHO a b")["result"], "a b")
        self.assertEqual(ask(wire, b"NOPE")["code"], "unknown_command")
        wire = connect(self.service(tcp=TcpSettings(fallback="acknowledge")))
        self.assertEqual(ask(wire, b"NOPE")["message"], "received: NOPE")

    def test_limits(self) -> None:
        """The configured limits apply."""
        wire = connect(self.service(tcp=TcpSettings(max_line=64)))
        self.assertEqual(ask(wire, b"x" * 65)["limit"], 64)

    def test_fetch(self) -> None:
        """FETCH follows the egress policy, and needs no thread for an address."""
        self.reactor = ThreadedReactor()
        service = self.service()
        wire = connect(service)
        self.assertEqual(ask(wire, b"FETCH http://127.0.0.1/")["code"], "address_refused")
        self.successResultOf(service.stopService())

    def test_own_commands(self) -> None:
        """The commands of a registry argument are added to the standard ones."""
        own = Commands()
        own.command("DOUBLE", help="Twice.")(_double)
        self.assertEqual(ask(connect(self.service(own)), b"DOUBLE 4")["result"], 8)

    def test_own_command_of_a_taken_name(self) -> None:
        """A command with the name of a standard one is refused."""
        own = Commands()
        own.command("ECHO", help="Mine.")(_double)
        self.assertRaises(ValueError, self.service, own)

    def test_commands_that_are_not_there(self) -> None:
        """Configured commands that do not exist are refused."""
        config = Config(commands=("nowhere_at_all:commands",), udp=TCP_ALONE)
        self.assertRaises(ConfigError, NetService, self.reactor, config)

    def test_drains(self) -> None:
        """Stopping notifies the clients, waits for them, and logs a summary."""
        service = self.service(drain_timeout=5)
        service.startService()
        wire = connect(service)
        stopped = service.stopService()
        self.assertEqual(
            json.loads(wire.value().splitlines()[0]), {"event": "shutdown", "timeout": 5}
        )
        self.reactor.advance(5)
        self.successResultOf(stopped)
        self.assertFalse(wire.connected)
        (event,) = [event for event in self.logged if "seconds" in event]
        self.assertEqual(event["connected"], 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_drain_has_a_deadline(self) -> None:
        """A connection that is pending after the drain timeout is aborted and counted."""
        own = Commands()
        own.command("WAIT", help="For ever.")(_wait)
        service = self.service(own, drain_timeout=5)
        service.startService()
        wire = connect(service)
        wire.protocol.dataReceived(b"WAIT\n")
        stopped = service.stopService()
        self.reactor.advance(4)
        self.assertNoResult(stopped)
        self.reactor.advance(1)
        self.successResultOf(stopped)
        (event,) = [event for event in self.logged if "seconds" in event]
        self.assertEqual((event["seconds"], event["connected"], event["aborted"]), (5, 1, 1))

    def test_stops_without_a_start(self) -> None:
        """Stopping a service that does not run does nothing."""
        service = self.service()
        self.successResultOf(service.stopService())
        service.startService()
        self.successResultOf(service.stopService())
        self.successResultOf(service.stopService())
        assert service.tcp is not None
        self.assertIsNone(service.tcp.port)

    def test_starts_again(self) -> None:
        """A stopped service can be started again."""
        service = self.service()
        service.startService()
        self.successResultOf(service.stopService())
        service.startService()
        self.assertEqual(len(self.reactor.tcpServers), 2)
        assert service.tcp is not None
        service.tcp.factory.startFactory()  # as a port does that is bound, but not the fake one
        self.assertEqual(ask(connect(service), b"PING")["result"], "PONG")

    def test_progress(self) -> None:
        """While it drains, it logs every second how many connections are left."""
        own = Commands()
        own.command("WAIT", help="For ever.")(_wait)
        service = self.service(own, drain_timeout=3)
        service.startService()
        connect(service).protocol.dataReceived(b"WAIT\n")
        stopped = service.stopService()
        for _ in range(3):
            self.reactor.advance(1)
        self.successResultOf(stopped)
        left = [(event["left"], event["connected"]) for event in self.logged if "left" in event]
        self.assertEqual(left[:3], [(1, 1)] * 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_info(self) -> None:
        """INFO has versions, listeners and resource usage."""
        service = self.service(listeners=(Listener(path="/run/x", admin=True),))
        service.startService()
        answer = ask(connect(service, service.listeners[0]), b"INFO")
        self.assertEqual(
            answer.keys(),
            {
                *("command", "clients", "commands", "latency", "memory", "process", "server"),
                *("bans", "topics"),
            },
        )
        server = answer["server"]
        self.assertEqual(server["listeners"], ["0.0.0.0:8888 (tcp)", "/run/x (unix)"])
        self.assertEqual(
            (server["reactor"], server["process"]), ("MemoryReactorClock", os.getpid())
        )
        self.assertGreater(answer["process"]["resident"], 1_000_000)

    def test_info_about_memory(self) -> None:
        """INFO has the bytes that are kept for clients of all ports, beside their limits."""
        coap = CoapSettings(enabled=True, port=0)
        memory = MemorySettings(limit=1 << 29)
        service = self.service(
            listeners=(Listener(path="/run/x", admin=True),), coap=coap, memory=memory
        )
        service.startService()
        operator = connect(service, service.listeners[0])
        before = ask(operator, b"INFO memory")["memory"]
        self.assertEqual({kind: figures["bytes"] for kind, figures in before.items()}, NOTHING_KEPT)
        limits = {kind: figures["limit"] for kind, figures in before.items()}
        self.assertEqual(
            limits,
            {
                "broadcasts": MAX_WAITING_BYTES,
                "coap_exchanges": memory.limit,
                "coap_observers": memory.limit,
                "coap_sessions": memory.limit,
                "coap_topics": coap.max_topic_bytes,
                "coap_transfers": 2 * coap.max_transfer_bytes,
                "connections": 2 * Limits().max_buffered,
                "group_answers": MAX_DELAYED_BYTES,
                "coap_waiting": memory.limit,
                "leaving": memory.limit,
                "messages": 2 * Limits().max_buffered,
                "retained": TopicSettings().max_retained_bytes,
                "total": memory.limit,
                "subscriptions": TopicSettings().max_subscription_bytes,
            },
        )
        client = connect(service)
        ask(client, b"SUBSCRIBE news")
        client.protocol.dataReceived(b"x" * 1000)
        ask(operator, b"PUBLISH news x")
        after = ask(operator, b"INFO memory")["memory"]
        self.assertEqual(
            {kind: figures["bytes"] for kind, figures in after.items()},
            {
                **NOTHING_KEPT,
                "connections": 1000,
                "subscriptions": service.sessions.topics.kept,
                "total": 1000 + service.sessions.topics.kept,
            },
        )
        self.assertGreater(service.sessions.topics.kept, 0)

    def test_info_opens_no_package(self) -> None:
        """
        INFO has the version that runs, and reads it from no file: there may be no descriptor left.

        The files may be those of another version by then.
        """
        service = self.service(listeners=(Listener(path="/run/x", admin=True),))
        service.startService()
        talk = connect(service, service.listeners[0])
        before = ask(talk, b"INFO server")["server"]["version"]
        opened: list[object] = []

        def finder(name: str) -> NoReturn:
            opened.append(name)
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(metadata, "distribution", finder)
        self.assertEqual(ask(talk, b"INFO server")["server"]["version"], before)
        self.assertEqual(opened, [])

    def test_info_about_coap(self) -> None:
        """INFO has the counters of CoAP's messages, by transport, if CoAP is served."""
        listeners = (Listener(path="/run/x", admin=True),)
        service = self.service(listeners=listeners, coap=CoapSettings(enabled=True))
        assert service.coap is not None
        service.coap.server.layer.receive(b"\x40\x00\x00\x07", ("192.0.2.1", 5683), 0)
        service.coap.server.layer.receive(b"no message", ("192.0.2.1", 5683), 0)
        section = ask(connect(service, service.listeners[0]), b"INFO coap")["coap"]
        self.assertEqual(list(section), ["coap"])
        figures = section["coap"]
        self.assertEqual((figures["received"], figures["malformed"]), (2, 1))
        self.assertEqual(
            figures.keys(),
            {
                *("received", "malformed", "duplicates", "peers_refused", "sent", "timeouts"),
                *("retransmissions", "resets", "responses_dropped", "evicted"),
                *("peers", "exchanges", "observers_refused", "observers", "failures", "overdue"),
            },
        )

    def test_latency(self) -> None:
        """The latency of the reactor is measured while the service runs."""
        service = self.service()
        service.startService()
        self.reactor.advance(0.5)
        self.assertEqual(service.sessions.instruments.latency.lateness.count, 1)
        self.successResultOf(service.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_long_turns(self) -> None:
        """Which turns of the reactor are long is configured; a reactor in memory has none."""
        service = self.service(latency=LatencySettings(long_turn=0.5))
        service.startService()
        long_turns = service.sessions.instruments.long_turns
        self.assertEqual(long_turns.settings.long_turn, 0.5)
        self.assertEqual(long_turns.measured, "nothing")

    def test_slow_log(self) -> None:
        """The thresholds and the size of the slow log are configured."""
        service = self.service(slowlog=SlowLogSettings(threshold=0.5, kept=3))
        self.assertEqual(service.sessions.instruments.slow_log.settings.threshold, 0.5)
        assert service.tcp is not None
        self.assertEqual(service.tcp.factory.turn_time, 0.001)


class ListenersTests(NetServiceTestCase):
    """The additional listeners of :class:`NetService`."""

    def test_all_listen(self) -> None:
        """They start in order, after that of ``[tcp]``, and are logged with their layers."""
        service = self.service(
            listeners=("tcp:1", Listener(port=2, proxy=("10.0.0.0/8",)), Listener(path="/run/x"))
        )
        service.startService()
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [8888, 1, 2])
        self.assertEqual(self.reactor.unixServers[0][0], "/run/x")
        self.assertEqual(
            [event["transport"] for event in self.logged if "transport" in event],
            ["tcp", "endpoint", "tcp+proxy", "unix"],
        )
        self.assertEqual([listener.port for listener in service.listeners], [1, 2, None])

    def test_without_the_default(self) -> None:
        """They work without ``[tcp]``."""
        service = self.service(tcp=TcpSettings(enabled=False), listeners=("tcp:1",))
        self.assertIsNone(service.tcp)
        service.startService()
        self.assertEqual(len(self.reactor.tcpServers), 1)

    def test_same_clients(self) -> None:
        """The listeners share their sessions."""
        service = self.service(listeners=("tcp:1",))
        first = connect(service)
        second = connect(service, service.listeners[0])
        self.assertEqual(ask(first, b"STATS")["connections"], 2)
        ask(second, b"PING")
        self.assertEqual(ask(first, b"STATS")["message_count"], 3)
        self.assertEqual(len(service.sessions), 2)

    def test_administration(self) -> None:
        """With an administration socket, only its clients administer, without a login."""
        admin = Listener(path="/run/x", admin=True)
        for auth in (OPEN, AuthSettings(checkers=("memory:ann:secret",))):
            service = self.service(listeners=("tcp:1", admin), auth=auth)
            codes = [
                ask(connect(service, listener), b"CLIENTS").get("code")
                for listener in (service.tcp, *service.listeners)
            ]
            refused = "auth_required" if auth.required else "not_permitted"
            self.assertEqual(codes, [refused, refused, None])

    def test_limits_of_their_own(self) -> None:
        """The limits of a listener override those of ``[tcp]``; the others are inherited."""
        service = self.service(
            tcp=TcpSettings(max_line=100, max_pending=7),
            listeners=(Listener(port=1, limits={"max_line": 200}), "tcp:2"),
        )
        lines = [ask(connect(service), b"x" * 300)]
        lines += [ask(connect(service, part), b"x" * 300) for part in service.listeners]
        self.assertEqual([line["limit"] for line in lines], [100, 200, 100])
        self.assertEqual(service.listeners[0].factory.limits.max_pending, 7)

    def test_drains_all(self) -> None:
        """Stopping drains all listeners, and logs one summary."""
        service = self.service(listeners=("tcp:1",), drain_timeout=5)
        service.startService()
        wires = [connect(service), connect(service, service.listeners[0])]
        stopped = service.stopService()
        for wire in wires:
            self.assertEqual(wire.value().count(b'"shutdown"'), 1)
        self.reactor.advance(5)
        self.successResultOf(stopped)
        (event,) = [event for event in self.logged if "seconds" in event]
        self.assertEqual(event["connected"], 2)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_taken(self) -> None:
        """An address in use is reported as configured, with its layers."""
        reactor: Any = TakenReactor()  # Any: it has no threads
        cases: list[tuple[str | Listener, str]] = [
            ("tcp:1", "cannot listen on tcp:1 (endpoint): address already in use"),
            (
                Listener(port=1, proxy=("unix",)),
                "cannot listen on 127.0.0.1:1 (tcp+proxy): address already in use",
            ),
        ]
        for listener, message in cases:
            off = TcpSettings(enabled=False)
            config = Config(udp=TCP_ALONE, tcp=off, listeners=(listener,), auth=OPEN)
            error = self.assertRaises(CannotListen, NetService(reactor, config).startService)
            self.assertEqual(str(error), message)

    def test_reason(self) -> None:
        """A reason that begins with an abbreviation is left as it is."""
        error = OSError("AF_UNIX path too long")

        class PathlessReactor(MemoryReactorClock):
            def listenUNIX(self, *args: object, **keywords: object) -> NoReturn:
                raise CannotListenError(None, "/x", error)

        reactor: Any = PathlessReactor()  # Any: it has no threads
        off = TcpSettings(enabled=False)
        config = Config(udp=TCP_ALONE, tcp=off, listeners=(Listener(path="/x"),), auth=OPEN)
        raised = self.assertRaises(CannotListen, NetService(reactor, config).startService)
        self.assertEqual(str(raised), "cannot listen on /x (unix): AF_UNIX path too long")

    def test_mistakes(self) -> None:
        """All invalid listeners are reported at once, with their indexes."""
        nowhere = TlsSettings(certificate="/nowhere.pem")
        error = self.assertRaises(
            ConfigError, self.service, listeners=("x:1", "tcp:1", Listener(port=1, tls=nowhere))
        )
        first, second = error.mistakes
        self.assertTrue(first.startswith("listeners[0]: x:1 is not a valid endpoint"))
        self.assertEqual(second, "listeners[2]: /nowhere.pem: No such file or directory")

    def test_certificates(self) -> None:
        """STATS has the seconds until certificates expire; of two for one host, the smaller."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        authority = Authority()
        listeners = []
        for i, days in enumerate((60, 30)):
            file = write_pair(folder / f"{i}.pem", authority.issue("a.test", days=days))
            listeners.append(Listener(port=i, tls=TlsSettings(certificate=str(file))))
        service = self.service(listeners=(*listeners, "tcp:9"))
        left = ask(connect(service), b"STATS")["certificates"]
        self.assertEqual(list(left), ["a.test"])
        self.assertLess(left["a.test"], 45 * 86_400)
        self.assertNotIn("certificates", ask(connect(self.service()), b"STATS"))


class SecureListenersTests(NetServiceTestCase):
    """Ports with DTLS."""

    def setUp(self) -> None:
        super().setUp()
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        authority = Authority()
        self.ca = str(authority.write(folder / "ca.pem"))
        pair = authority.issue("a.test")
        self.certificate = str(write_pair(folder / "a.pem", pair))

    def test_off(self) -> None:
        """Without certificates there is no DTLS."""
        service = self.service()
        self.assertIsNone(service.secure_coap)
        self.assertIsNone(service.secure_udp)
        self.assertNotIn("dtls", ask(connect(service), b"STATS"))

    def test_figures(self) -> None:
        """STATS has the certificates and the sessions of DTLS."""
        coap = CoapSettings(dtls=CoapDtlsSettings(certificate=self.certificate))
        service = self.service(coap=coap)
        figures = ask(connect(service), b"STATS")
        self.assertEqual(list(figures["certificates"]), ["a.test"])
        self.assertEqual(list(figures["dtls"]), ["coap+dtls"])
        self.assertEqual(figures["dtls"]["coap+dtls"]["sessions"], 0)
        assert service.secure_coap is not None
        own = service.secure_coap.server.sessions.figures
        self.assertEqual(list(own), ["certificates", "dtls"])

    def test_mistakes(self) -> None:
        """An invalid certificate is reported with its section."""
        coap = CoapSettings(dtls=CoapDtlsSettings(certificate="/nowhere.pem"))
        error = self.assertRaises(ConfigError, self.service, coap=coap)
        self.assertEqual(error.mistakes, ["coap.dtls: /nowhere.pem: No such file or directory"])

    def test_users(self) -> None:
        """With users, certificates decide the permissions; without, there is no administration."""
        tls = CoapDtlsSettings(certificate=self.certificate, client_ca=self.ca)
        service = self.service(coap=CoapSettings(dtls=tls))
        assert service.secure_coap is not None
        self.assertIsNone(service.secure_coap.server._peers._permissions_of)
        limit = service.secure_coap.dtls._session_limit
        assert limit is not None
        self.assertIsNone(limit("ann"))
        service = self.service(
            coap=CoapSettings(dtls=tls), auth=AuthSettings(checkers=("memory:ann:x",))
        )
        assert service.secure_coap is not None
        permissions_of = service.secure_coap.server._peers._permissions_of
        assert permissions_of is not None
        anonymous = permissions_of(None)
        assert anonymous is not None
        self.assertIsNone(anonymous.name)
        self.assertRaises(AuthRequired, anonymous.check_command, "TIME", False)
        self.assertIsNone(permissions_of("ann"))
        limit = service.secure_coap.dtls._session_limit
        assert limit is not None
        self.assertEqual(limit("ann"), 1)


def _double(number: int) -> int:
    return 2 * number


async def _wait() -> None:
    await Deferred()
