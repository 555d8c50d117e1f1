"""The assembled service starts as a whole, serves what it is told, and drains."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import (
    EventLoggingObserver,
    MemoryReactorClock,
    StringTransportWithDisconnection,
)
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.commands import Commands
from twisted_net.config import Config, TcpSettings, UdpSettings
from twisted_net.errors import CannotListen, ConfigError
from twisted_net.service import NetService

TCP_ALONE = UdpSettings(enabled=False)


class TakenReactor(MemoryReactorClock):
    """Has a port that somebody else listens on."""

    def listenTCP(self, *arguments: Any, **options: Any) -> Any:  # Any: never reached
        """Refuse, as Linux does."""
        raise CannotListenError("", 8888, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))


class Wire(StringTransportWithDisconnection):
    """A TCP transport in memory; what is ended by one side is ended."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Be there, as on any TCP transport."""

    def loseWriteConnection(self) -> None:
        """End the whole connection: the peer in these tests ends its half at once."""
        self.loseConnection()


def connect(service: NetService) -> Wire:
    """Connect a client to the command server of *service*."""
    assert service.tcp is not None
    protocol = service.tcp.factory.buildProtocol(None)
    assert protocol is not None
    wire = Wire()
    wire.protocol = protocol
    protocol.makeConnection(wire)
    return wire


def ask(wire: Wire, line: bytes) -> Any:  # Any: whatever JSON holds
    """Send a line to the server behind *wire* and give its answer."""
    wire.clear()
    wire.protocol.dataReceived(line + b"\n")
    return json.loads(wire.value())


class NetServiceTests(SynchronousTestCase):
    """:class:`NetService` over a reactor in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.logged = EventLoggingObserver()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)

    def service(self, commands: Commands | None = None, **settings: Any) -> NetService:
        """Make a service without UDP, whose port is always a real socket."""
        config = Config(udp=TCP_ALONE, **settings)
        return NetService(self.reactor, config, commands)

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
        """What was bound with privileges is not bound again at the start."""
        service = self.service()
        service.privilegedStartService()
        service.startService()
        self.assertEqual(len(self.reactor.tcpServers), 1)
        assert service.tcp is not None
        self.assertEqual(service.tcp.port, 8888)

    def test_launchers_without_privileges(self) -> None:
        """A launcher that has no privileged step gets its port at the start."""
        self.service().startService()
        self.assertEqual(len(self.reactor.tcpServers), 1)

    def test_parts(self) -> None:
        """A server that is not enabled is not made."""
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
        """The error names the address, the transport and the reason; nothing runs after it."""
        service = NetService(TakenReactor(), Config(udp=TCP_ALONE))
        error = self.assertRaises(CannotListen, service.privilegedStartService)
        self.assertEqual(
            str(error), "cannot listen on 127.0.0.1:8888 (tcp): address already in use"
        )
        self.assertEqual((error.transport, error.address), ("tcp", "127.0.0.1:8888"))
        self.assertRaises(CannotListen, service.startService)
        self.assertFalse(service.running)

    def test_addresses_in_words(self) -> None:
        """An IPv6 address stands in brackets, and no address is all of IPv4."""
        for interface, address in (("::1", "[::1]:8888"), ("", "0.0.0.0:8888")):
            with self.subTest(interface=interface):
                config = Config(tcp=TcpSettings(interface=interface), udp=TCP_ALONE)
                service = NetService(TakenReactor(), config)
                error = self.assertRaises(CannotListen, service.startService)
                self.assertEqual(error.address, address)

    def test_reasons_that_are_no_errors(self) -> None:
        """A reactor that gives its reason as text is repeated."""

        def refuse(*arguments: Any) -> None:
            raise CannotListenError("", 8888, "Not today")

        self.patch(self.reactor, "listenTCP", refuse)
        error = self.assertRaises(CannotListen, self.service().startService)
        self.assertEqual(error.reason, "not today")

    def test_answers(self) -> None:
        """The standard commands answer; the fallback of the configuration is one of them."""
        wire = connect(self.service())
        self.assertEqual(ask(wire, b"ECHO a b")["result"], "a b")
        self.assertEqual(ask(wire, b"NOPE")["code"], "unknown_command")
        wire = connect(self.service(tcp=TcpSettings(fallback="acknowledge")))
        self.assertEqual(ask(wire, b"NOPE")["message"], "received: NOPE")

    def test_limits(self) -> None:
        """The limits of the configuration hold."""
        wire = connect(self.service(tcp=TcpSettings(max_line=64)))
        self.assertEqual(ask(wire, b"x" * 65)["limit"], 64)

    def test_fetch(self) -> None:
        """FETCH reaches only what the configuration allows."""
        service = self.service()
        wire = connect(service)
        self.assertEqual(ask(wire, b"FETCH http://127.0.0.1/")["code"], "address_refused")
        self.assertEqual(ask(wire, b"FETCH http://127.0.0.1/")["code"], "address_refused")
        self.successResultOf(service.stopService())

    def test_own_commands(self) -> None:
        """A registry handed in is served beside the standard commands."""
        own = Commands()
        own.command("DOUBLE", help="Twice.")(_double)
        self.assertEqual(ask(connect(self.service(own)), b"DOUBLE 4")["result"], 8)

    def test_own_command_of_a_taken_name(self) -> None:
        """An own command may not take the name of a standard one."""
        own = Commands()
        own.command("ECHO", help="Mine.")(_double)
        self.assertRaises(ValueError, self.service, own)

    def test_commands_that_are_not_there(self) -> None:
        """Commands that the configuration names and that are not there are refused."""
        config = Config(commands=("nowhere_at_all:commands",), udp=TCP_ALONE)
        self.assertRaises(ConfigError, NetService, self.reactor, config)

    def test_drains(self) -> None:
        """Stopping tells the clients, waits for their ends, and says how it went."""
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
        """A connection that still waits when the time is over is aborted and counted."""
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
        """A service that was never started has nothing to stop; nor has one stopped twice."""
        service = self.service()
        self.successResultOf(service.stopService())
        service.startService()
        self.successResultOf(service.stopService())
        self.successResultOf(service.stopService())
        assert service.tcp is not None
        self.assertIsNone(service.tcp.port)

    def test_starts_again(self) -> None:
        """After a stop it can be started again, and answers."""
        service = self.service()
        service.startService()
        self.successResultOf(service.stopService())
        service.startService()
        self.assertEqual(len(self.reactor.tcpServers), 2)
        assert service.tcp is not None
        service.tcp.factory.startFactory()  # as a port does that is bound, but not the fake one
        self.assertEqual(ask(connect(service), b"PING")["result"], "PONG")


def _double(number: int) -> int:
    return 2 * number


async def _wait() -> None:
    await Deferred()
