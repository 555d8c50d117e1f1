"""Clients of Unix sockets are told apart by their users, beneath every layer."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import Authority, write_pair
from tests.tcp.kinds import KINDS, UNIX_HOST, Door
from tests.tcp.memory import Reactor
from tests.tcp.test_proxy_header import v2
from twisted_net.commands.standard import standard_commands
from twisted_net.net.addresses import UNIX, unix_host
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.proxy_header import TrustedProxies
from twisted_net.tcp.proxy_protocol import ProxyFactory
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.unix import UnixPeer, host_of_peer


class HostOfPeerTests(SynchronousTestCase):
    """:func:`host_of_peer` asks the kernel."""

    def test_own(self) -> None:
        """The peer of a pair of sockets is who made it."""
        if sys.platform != "linux":
            self.skipTest("only Linux says whose a peer is")
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours, theirs:
            self.assertEqual(host_of_peer(ours), f"unix:uid={os.getuid()}")

    def test_other_systems(self) -> None:
        """Other systems are not asked."""
        self.patch(sys, "platform", "freebsd14")
        silent: Any = None  # Any: it is not looked at
        self.assertEqual(host_of_peer(silent), UNIX)

    def test_forbidden(self) -> None:
        """Where the kernel does not say, the user is not known."""

        class Mute:
            def getsockopt(self, *_: object) -> bytes:
                """Fail as a sandbox may have it."""
                raise PermissionError

        mute: Any = Mute()  # Any: in place of a socket
        self.assertEqual(host_of_peer(mute), UNIX)

    def test_largest(self) -> None:
        """A user's number is unsigned: that of nobody in a user namespace may be the largest."""

        class Peer:
            def getsockopt(self, *_: object) -> bytes:
                """Return the credentials of a process."""
                return b"\1\0\0\0" + b"\xfe\xff\xff\xff" + b"\0\0\0\0"

        peer: Any = Peer()  # Any: as above
        self.patch(sys, "platform", "linux")
        self.assertEqual(host_of_peer(peer), "unix:uid=4294967294")


class UnixPeerTests(SynchronousTestCase):
    """:class:`UnixPeer` is the address of a client, with its user."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.commands = CommandFactory(self.reactor, standard_commands())

    def hosts(self) -> list[tuple[str, str]]:
        """Return the names and the hosts of the sessions."""
        return [(session.name, session.client[0]) for session in self.commands.sessions]

    def test_address(self) -> None:
        """It is an address of Twisted's."""
        peer = UnixPeer(None, unix_host(7))
        self.assertIsInstance(peer, UNIXAddress)
        self.assertEqual((peer.name, peer.host), (None, "unix:uid=7"))

    def test_every_layer(self) -> None:
        """The session has the user, whatever is spoken on the socket."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        certificate = write_pair(Path(holder.name) / "a.pem", Authority().issue("a.test"))
        kinds = [kind for kind in KINDS.values() if kind.unix]
        self.assertGreater(len(kinds), 2)
        for number, kind in enumerate(kinds, 1):
            Door(kind, self.reactor, self.commands, certificate).client()
            self.assertEqual(self.hosts()[-1], (f"{UNIX_HOST}:{number}", UNIX_HOST))

    def test_proxy(self) -> None:
        """
        A proxy that connects by a Unix socket is its own user where it announces no address.

        That is so for its own connections (LOCAL), for an unknown family, and for clients that
        came to it by a Unix socket themselves, whose users it does not say.
        """
        handshakes = Handshakes(self.reactor, 10, 100, self.commands.sessions.refused)
        factory = ProxyFactory(self.commands, TrustedProxies(["unix"]), handshakes)
        paths = b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0")
        headers = (b"PROXY UNKNOWN\r\n", v2(0x20, 0, b""), v2(0x21, 0, b""), v2(0x21, 0x31, paths))
        for header in headers:
            self.reactor.connect(factory, UnixPeer(None, UNIX_HOST)).send(header)
            self.reactor.settle()
        self.assertEqual([host for _, host in self.hosts()], [UNIX_HOST] * 4)
