"""A listener is built as its settings say, from the bottom to the commands."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import endpoints
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.tcp.issuing import Authority, write_pair
from twisted_net.auth.users import AuthSettings
from twisted_net.commands.registry import Commands
from twisted_net.commands.standard import standard_commands
from twisted_net.config.tls import TlsSettings
from twisted_net.errors import ConfigError
from twisted_net.tcp import listener as listeners
from twisted_net.tcp.admission import Access
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.listener import CommandPort, bound_address
from twisted_net.tcp.listener_settings import Listener
from twisted_net.tcp.proxy_protocol import ProxyFactory
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.tls import TlsFactory
from twisted_net.tcp.websocket import WebSocketFactory


async def _fetch(url: str) -> dict[str, object]:
    raise NotImplementedError(url)


class CommandPortTests(SynchronousTestCase):
    """:class:`CommandPort` over a reactor in memory."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()  # Any: reactors have no one type
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def port(self, limits: Limits | None = None, **settings: Any) -> CommandPort:  # Any: fields
        """Make one."""
        commands = CommandFactory(self.reactor, standard_commands(_fetch), limits)
        return CommandPort(self.reactor, Listener(**settings), commands)

    def test_limits_of_the_listener(self) -> None:
        """Limits of the listener are those of the server, or it is refused."""
        listener = Listener(port=7, limits={"max_line": 100, "max_pending": 5})
        for limits in (listener.limits_over(Limits()), Limits(max_line=100, max_pending=5)):
            CommandPort(self.reactor, listener, CommandFactory(self.reactor, Commands(), limits))
        for other in (None, Limits(max_line=100), Limits(max_pending=5)):
            commands = CommandFactory(self.reactor, Commands(), other)
            error = self.assertRaises(ValueError, CommandPort, self.reactor, listener, commands)
            self.assertIn("listener.limits has max_", str(error))

    def test_administrative_listener(self) -> None:
        """One whose clients may do everything is for a server that lets them, or it is refused."""
        listener = Listener(path="/run/x", admin=True)
        CommandPort(self.reactor, listener, CommandFactory(self.reactor, Commands()))
        access = Access(AuthSettings(), lambda name: None)
        commands = CommandFactory(self.reactor, Commands(), access=access)
        error = self.assertRaises(ValueError, CommandPort, self.reactor, listener, commands)
        self.assertIn("listener.admin is true", str(error))

    def tls(self) -> TlsSettings:
        """Return settings with a certificate."""
        file = write_pair(self.folder / "a.pem", Authority().issue("a.test"))
        return TlsSettings(certificate=str(file))

    def test_tcp(self) -> None:
        """It listens at an interface and a port, with a queue of its own."""
        port = self.port(port=7, interface="127.0.0.2", backlog=5)
        self.assertEqual((port.transport, port.address), ("tcp", "127.0.0.2:7"))
        port.listen()
        ((number, factory, backlog, interface),) = self.reactor.tcpServers
        self.assertEqual((number, backlog, interface), (7, 5, "127.0.0.2"))
        self.assertIs(factory, port.commands)

    def test_unix(self) -> None:
        """It listens at a path, with the permissions that are set, read as octal."""
        port = self.port(path="/run/x.sock", mode="600", backlog=5)
        self.assertEqual((port.transport, port.address), ("unix", "/run/x.sock"))
        port.listen()
        ((path, _, backlog, mode, _),) = self.reactor.unixServers
        self.assertEqual((path, backlog, mode), ("/run/x.sock", 5, 0o600))

    def test_endpoint(self) -> None:
        """It listens as a description of Twisted's says."""
        port = self.port(endpoint="tcp:7:interface=127.0.0.2")
        self.assertEqual(port.address, "tcp:7:interface=127.0.0.2")
        self.assertEqual(port.transport, "endpoint")
        port.listen()
        self.assertEqual(self.reactor.tcpServers[0][0], 7)

    def test_layers(self) -> None:
        """A PROXY header comes first, then TLS, then WebSocket, then the commands."""
        port = self.port(
            port=7, protocol="websocket", origins=("*",), tls=self.tls(), proxy=("127.0.0.1",)
        )
        self.assertEqual(port.transport, "tcp+proxy+tls+websocket")
        port.listen()
        proxy = self.reactor.tcpServers[0][1]
        self.assertIsInstance(proxy, ProxyFactory)
        self.assertIsInstance(proxy.inner, TlsFactory)
        socket = proxy.inner.wrappedFactory.inner
        self.assertIsInstance(socket, WebSocketFactory)
        self.assertEqual(socket.origins, {"*"})
        self.assertIs(socket.inner, port.commands)
        self.assertIsNotNone(port.certificates)

    def test_drain(self) -> None:
        """Draining ends what is under way as well as the sessions."""
        port = self.port(port=7, proxy=("127.0.0.1",))
        aborted: list[None] = []

        class HandshakingConnection:
            """A connection within its handshake."""

            def abort(self) -> None:
                """Remember it."""
                aborted.append(None)

        newcomer = HandshakingConnection()
        port.handshakes.began(newcomer)
        drained = Deferred.fromCoroutine(port.drain(5))
        self.assertEqual(len(aborted), 1)
        self.assertNoResult(drained)
        port.handshakes.lost(newcomer)
        self.successResultOf(drained)
        self.reactor.advance(5)

    def test_limits(self) -> None:
        """The bounds of handshakes are those of its limits."""
        port = self.port(Limits(handshake_timeout=3), port=7, proxy=("127.0.0.1",))
        ended: list[str] = []

        class HandshakingConnection:
            """A connection within its handshake."""

            def abort(self) -> None:
                """Remember it."""
                ended.append("aborted")

        port.handshakes.began(HandshakingConnection())
        self.reactor.advance(2.9)
        self.assertEqual(ended, [])
        self.reactor.advance(0.1)
        self.assertEqual(ended, ["aborted"])

    # --- mistakes ---

    def test_no_endpoint(self) -> None:
        """A description that is none is a mistake of the operator's, in one line."""
        for description in ("carrier-pigeon:1", "tcp", "tcp:x", "tcp:1:colour=red", ":"):
            with self.subTest(description=description):
                error = self.assertRaises(ConfigError, self.port, endpoint=description)
                (mistake,) = error.mistakes
                self.assertTrue(mistake.startswith(f"{description} is not a valid endpoint: "))

    def test_no_certificate(self) -> None:
        """So is a certificate that is not there."""
        tls = TlsSettings(certificate=str(self.folder / "no.pem"))
        error = self.assertRaises(ConfigError, self.port, port=1, tls=tls)
        self.assertIn("no.pem: No such file", error.mistakes[0])

    def test_no_extra(self) -> None:
        """So is a WebSocket without the extra that it takes."""
        with mock.patch.dict(sys.modules, {"twisted_net.tcp.websocket": None}):
            error = self.assertRaises(ConfigError, self.port, port=1, protocol="websocket")
        self.assertIn("needs twisted_net[websocket]", error.mistakes[0])

    def listen_with(self, outcome: Deferred[IListeningPort]) -> CommandPort:
        """Return a port whose endpoint has this outcome."""

        @implementer(IStreamServerEndpoint)
        class Endpoint:
            """Does as the test says."""

            def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
                """Return the outcome."""
                return outcome

        self.patch(listeners, "serverFromString", lambda reactor, description: Endpoint())
        return self.port(endpoint="some:thing")

    def test_port_that_is_taken(self) -> None:
        """An endpoint that cannot bind raises, at once, as a port does."""
        taken: Deferred[IListeningPort] = Deferred()
        refusal = CannotListenError("", 1, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))
        taken.errback(refusal)
        error = self.assertRaises(CannotListenError, self.listen_with(taken).listen)
        self.assertIs(error, refusal)

    def test_other_failures(self) -> None:
        """Whatever else an endpoint fails with is such a refusal too."""
        failed: Deferred[IListeningPort] = Deferred()
        failed.errback(RuntimeError("no pigeons"))
        error = self.assertRaises(CannotListenError, self.listen_with(failed).listen)
        self.assertEqual(str(error.socketError), "no pigeons")

    def test_plugin_that_ends_the_process(self) -> None:
        """An endpoint's plugin that calls ``sys.exit`` is a mistake in one line, too."""

        def parse(reactor: object, description: str) -> IStreamServerEndpoint:
            raise SystemExit(0)

        self.patch(listeners, "serverFromString", parse)
        error = self.assertRaises(ConfigError, self.port, endpoint="some:thing")
        (mistake,) = error.mistakes
        self.assertTrue(mistake.startswith("some:thing: it ends the process (SystemExit: 0) ("))

    def test_raised_at_once(self) -> None:
        """So is one that raises when it is to listen, whatever it raises."""
        for raised in (
            SystemExit(0),
            RuntimeError("no pigeons"),
            CannotListenError("", 1, OSError()),
        ):

            @implementer(IStreamServerEndpoint)
            class Endpoint:
                """Raises."""

                def listen(
                    self, protocolFactory: IProtocolFactory, raised: BaseException = raised
                ) -> Deferred[IListeningPort]:
                    """Raise."""
                    raise raised

            def parse(
                reactor: object, description: str, made: type[Endpoint] = Endpoint
            ) -> IStreamServerEndpoint:
                return made()

            self.patch(listeners, "serverFromString", parse)
            port = self.port(endpoint="some:thing")
            self.assertRaises(CannotListenError, port.listen)

    def test_later(self) -> None:
        """An endpoint that wants to listen later is refused; its failure would not be noticed."""
        later: Deferred[IListeningPort] = Deferred()
        error = self.assertRaises(CannotListenError, self.listen_with(later).listen)
        self.assertIn("at once", str(error.socketError))


class AddressTests(SynchronousTestCase):
    """Addresses in words."""

    def test_bound(self) -> None:
        """A port says where it is; one of a kind that we do not know, as it was asked for."""

        class Port:
            """Listens somewhere."""

            def __init__(self, host: object) -> None:
                self._host = host

            def getHost(self) -> object:
                """Say where."""
                return self._host

        for host, expected in [
            (IPv4Address("TCP", "127.0.0.1", 5), "127.0.0.1:5"),
            (IPv6Address("TCP", "::1", 5), "[::1]:5"),
            (UNIXAddress("/run/x"), "/run/x"),
            (UNIXAddress(None), "asked"),
            (object(), "asked"),
        ]:
            port: Any = Port(host)  # Any: a fake
            self.assertEqual(bound_address(port, "asked"), expected)


class EndpointsTests(SynchronousTestCase):
    """What this module stands on in Twisted."""

    def test_listening_is_immediate(self) -> None:
        """Twisted's own endpoints listen at once."""
        reactor: Any = MemoryReactorClock()  # Any: reactors have no one type
        for description in ("tcp:0", "unix:/run/x"):
            listening = endpoints.serverFromString(reactor, description).listen(
                CommandFactory(reactor, standard_commands(_fetch))
            )
            self.assertTrue(listening.called)
