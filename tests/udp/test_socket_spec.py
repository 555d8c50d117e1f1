"""Tests for :mod:`twisted_net.udp.socket_spec`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.udp.socket_spec import (
    MAX_BUFFER,
    MIN_BUFFER,
    BoundSocket,
    InheritedSocket,
    SocketSpec,
    SystemdSocket,
    parse_socket_spec,
)

Address = IPv4Address | IPv6Address


class ParseSocketSpecTests(SynchronousTestCase):
    """:func:`parse_socket_spec` reads the description of a socket."""

    def test_ports(self) -> None:
        """A port is bound on loopback, or where the description says."""
        for text, origin in (
            ("udp:9999", BoundSocket(9999)),
            ("udp:0", BoundSocket(0)),
            ("udp:65535:interface=", BoundSocket(65_535, "")),
            ("udp:1:interface=0.0.0.0", BoundSocket(1, "0.0.0.0")),
            (r"udp:1:interface=\:\:1", BoundSocket(1, "::1")),
            ("udp:1:interface=[::1]", BoundSocket(1, "::1")),
            ("udp:1:interface=[fe80::1%eth0]", BoundSocket(1, "fe80::1%eth0")),
            ("udp:1:reuseport=yes", BoundSocket(1, "127.0.0.1", True)),
            ("udp:1:reuseport=no", BoundSocket(1)),
        ):
            with self.subTest(text=text):
                self.assertEqual(parse_socket_spec(text), SocketSpec(origin))

    def test_handed_over(self) -> None:
        """A socket that exists is named by its descriptor, its index or its name."""
        self.assertEqual(parse_socket_spec("fd:3"), SocketSpec(InheritedSocket(3)))
        self.assertEqual(parse_socket_spec("systemd:0"), SocketSpec(SystemdSocket(0)))
        self.assertEqual(
            parse_socket_spec("systemd:net.socket"), SocketSpec(SystemdSocket("net.socket"))
        )

    def test_buffers(self) -> None:
        """Buffers are in bytes, or with a unit of 1024, in either case."""
        place = parse_socket_spec("udp:1:rcvbuf=4M:sndbuf=512k")
        self.assertEqual((place.receive_buffer, place.send_buffer), (4 << 20, 512 << 10))
        for size in (MIN_BUFFER, MAX_BUFFER):
            self.assertEqual(parse_socket_spec(f"fd:3:rcvbuf={size}").receive_buffer, size)
        self.assertEqual(parse_socket_spec("systemd:0:sndbuf=1G").send_buffer, 1 << 30)

    def test_mistakes(self) -> None:
        """Each mistake says what is wrong, where, and what is allowed."""
        for text, words in (
            ("", "must begin with udp:, fd: or systemd:"),
            ("tcp:9999", "must begin with udp:"),
            ("udp", "udp: must be followed by a port, as in udp:9999"),
            ("udp:interface=::1", "udp: must be followed by a port"),
            ("udp:", "the port must be a number from 0 to 65535, not ''"),
            ("udp:65536", "not '65536'"),
            ("udp:-1", "not '-1'"),
            ("udp:\u0661", "the port must be"),
            ("udp:" + "9" * 5000, "the port must be"),
            ("udp:1:interface=localhost", "interface must be a numeric address"),
            ("udp:1:interface=[fe80::1]", "needs a scope, as fe80::1 is link-local: write fe80"),
            ("udp:1:interface=[::1", "a bracket is not closed"),
            ("udp:1:interface=::1", "udp has no ''; it has interface, rcvbuf, sndbuf or reuseport"),
            ("udp:1:rcvbuff=1M", "udp has no 'rcvbuff'"),
            ("udp:1:rcvbuf", "rcvbuf has no value"),
            ("udp:1:rcvbuf=4X", "rcvbuf must be bytes from 4096 to 1073741824"),
            ("udp:1:rcvbuf=", "not ''"),
            ("udp:1:sndbuf=4095", "sndbuf must be bytes"),
            ("udp:1:sndbuf=2G", "not '2G'"),
            ("udp:1:rcvbuf=1M:rcvbuf=1M", "rcvbuf is set twice"),
            ("udp:1:reuseport=true", "reuseport must be yes or no, not 'true'"),
            ("fd:x", "the descriptor must be a number from 0, not 'x'"),
            ("fd:3:interface=::1", "fd has no 'interface'; it has rcvbuf or sndbuf"),
            ("systemd:", "systemd: must be followed by an index or a name"),
            ("systemd:0:reuseport=yes", "systemd has no 'reuseport'"),
        ):
            with self.subTest(text=text[:40]):
                error = str(self.assertRaises(ValueError, parse_socket_spec, text))
                self.assertIn(words, error)
                self.assertIn("is not a socket spec: ", error)
                self.assertLess(len(error), 500)

    @given(st.text(alphabet="udpfsystem:=[]\\0129%.KMreuseport", max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any text is a place or a ValueError."""
        try:
            place = parse_socket_spec(text)
        except ValueError:
            return
        self.assertIsInstance(place, SocketSpec)

    @given(st.integers(0, 65_535), st.ip_addresses(), st.booleans())
    def test_every_address(self, port: int, address: Address, reuse: bool) -> None:
        """Each address is read as it was written, in brackets or with its colons escaped."""
        if address.version == 6 and address.is_link_local:
            return
        expected = SocketSpec(BoundSocket(port, str(address), reuse))
        for written in (f"[{address}]", str(address).replace(":", "\\:")):
            word = "yes" if reuse else "no"
            self.assertEqual(
                parse_socket_spec(f"udp:{port}:reuseport={word}:interface={written}"), expected
            )


class SocketSpecTests(SynchronousTestCase):
    """:class:`SocketSpec` names itself, and knows whom it serves."""

    def test_names(self) -> None:
        """An address has its port behind it; other sockets are named as they were described."""
        for text, name in (
            ("udp:1", "127.0.0.1:1"),
            ("udp:1:interface=", "0.0.0.0:1"),
            ("udp:1:interface=[::]", "[::]:1"),
            ("fd:3", "fd:3"),
            ("systemd:x", "systemd:x"),
        ):
            self.assertEqual(str(parse_socket_spec(text)), name)
