"""The headers of the PROXY protocol: right ones, wrong ones, and every cut of both."""

from __future__ import annotations

import contextlib
import socket

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.errors import BadProxyHeader
from twisted_net.tcp.proxy_header import (
    V1_MAX,
    V2_MAX,
    ProxyHeader,
    TrustedProxies,
    parse_header,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.2") + b"\xc3\x50\x22\xb8"
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + b"\xc3\x50\x22\xb8"
)


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    """Make a header of version 2, whose length may lie."""
    stated = len(body) if length is None else length
    return SIGNATURE + bytes([command, family]) + stated.to_bytes(2) + body


RIGHT = {
    b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 8888\r\n": ("192.0.2.1", 50_000),
    b"PROXY TCP6 2001:db8::1 2001:db8::2 50000 8888\r\n": ("2001:db8::1", 50_000),
    b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n": ("0.0.0.0", 0),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n": None,
    v2(0x21, 0x11, V4): ("192.0.2.1", 50_000),
    v2(0x21, 0x21, V6): ("2001:db8::1", 50_000),
    v2(0x21, 0x11, V4 + b"\x04\x00\x01\x00"): ("192.0.2.1", 50_000),
    v2(0x20, 0x00, b""): None,
    v2(0x20, 0x11, V4): None,
    v2(0x20, 0x12, b"x"): None,
    v2(0x21, 0x00, b"anything"): None,
    v2(0x21, 0x31, bytes(216)): None,
    v2(0x21, 0x11, V4 + bytes(V2_MAX - 16 - len(V4))): ("192.0.2.1", 50_000),
}
"""Headers, and the client that each announces."""

WRONG = {
    b"GET / HTTP/1.1\r\n": "signature",
    b"\x16\x03\x01\x02\x00\x01": "signature",
    b"PING\n": "signature",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 50000\r\n": "two addresses",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 8888 1\r\n": "two addresses",
    b"PROXY TCP4  192.0.2.1 198.51.100.2 50000 8888\r\n": "two addresses",
    b"PROXY UDP4 192.0.2.1 198.51.100.2 50000 8888\r\n": "two addresses",
    b"PROXY \r\n": "two addresses",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 50000 8888\r\n": "an address",
    b"PROXY TCP6 192.0.2.1 198.51.100.2 50000 8888\r\n": "an address",
    b"PROXY TCP6 fe80::1%eth0 2001:db8::2 50000 8888\r\n": "an address",
    b"PROXY TCP6 fe80::1%\x1b[31m 2001:db8::2 50000 8888\r\n": "an address",
    b"PROXY TCP6 2001:db8::1 fe80::2%\n 50000 8888\r\n": "an address",
    b"PROXY TCP6 2001:db8::1 fe80::2%25 50000 8888\r\n": "an address",
    b"PROXY TCP4 192.0.2.1%1 198.51.100.2 50000 8888\r\n": "an address",
    b"PROXY TCP4 192.0.2.256 198.51.100.2 50000 8888\r\n": "an address",
    b"PROXY TCP4 192.0.02.1 198.51.100.2 50000 8888\r\n": "an address",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 8888\r\n": "a port",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 8888\r\n": "a port",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 050 8888\r\n": "a port",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 8888\n": "",
    b"PROXY TCP4 \xff\r\n": "not ASCII",
    b"PROXY TCP4 " + b"1" * V1_MAX: "within 107",
    b"PROXY UNKNOWN" + b" " * (V1_MAX - 14) + b"\r\n": "within 107",
    v2(0x11, 0x11, V4): "not a valid version",
    v2(0x22, 0x11, V4): "not a valid version",
    v2(0x21, 0x12, V4): "not a family",
    v2(0x21, 0x41, V4): "not a family",
    v2(0x21, 0x11, V4[:-1]): "too short",
    v2(0x21, 0x21, V4): "too short",
    v2(0x21, 0x11, b"", V2_MAX - 15): "no more than",
    v2(0x21, 0x11, b"", 65_535): "no more than",
}
"""What is no header, and a word of the reason; where that is empty, an end is waited for."""


class ParseHeaderTests(SynchronousTestCase):
    """:func:`parse_header`."""

    def test_right(self) -> None:
        """The client's address is read, and where its bytes begin."""
        for data, source in RIGHT.items():
            with self.subTest(data=data[:60]):
                header = parse_header(data + b"PING\n")
                assert header is not None
                self.assertEqual((header.source, header.length), (source, len(data)))
                self.assertEqual(header.destination is None, source is None)

    def test_destination(self) -> None:
        """So is where the client connected to."""
        for data in (b"PROXY TCP4 192.0.2.1 198.51.100.2 5 8888\r\n", v2(0x21, 0x11, V4)):
            header = parse_header(data)
            assert header is not None
            self.assertEqual(header.destination, ("198.51.100.2", 8888))

    def test_any_cut(self) -> None:
        """Of every header each beginning asks for more, and the whole is enough."""
        for data in RIGHT:
            with self.subTest(data=data[:60]):
                for cut in range(len(data)):
                    self.assertIsNone(parse_header(data[:cut]))

    def test_wrong(self) -> None:
        """What is no header is refused, for a reason that says why."""
        for data, reason in WRONG.items():
            with self.subTest(data=data[:60]):
                if reason:
                    error = self.assertRaises(BadProxyHeader, parse_header, data)
                    self.assertIn(reason, str(error))
                else:
                    self.assertIsNone(parse_header(data))

    def test_wrong_is_not_waited_for(self) -> None:
        """What cannot become a header is refused at the byte that says so."""
        self.assertRaises(BadProxyHeader, parse_header, b"PROXx")
        self.assertRaises(BadProxyHeader, parse_header, b"\r\n\r\n\x01")
        self.assertRaises(BadProxyHeader, parse_header, v2(0x21, 0x11, b"", 65_535))
        endless = b"PROXY UNKNOWN " + b"x" * (V1_MAX - 14)
        self.assertIsNone(parse_header(endless[:-1]))
        self.assertRaises(BadProxyHeader, parse_header, endless)

    @given(st.binary(max_size=300))
    def test_anything(self, data: bytes) -> None:
        """Whatever comes after a signature is a header, refused, or waited for."""
        for beginning in (b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11"):
            with contextlib.suppress(BadProxyHeader):
                header = parse_header(beginning + data)
                if header is not None:
                    self.assertLessEqual(header.length, len(beginning + data))

    @given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 65_535))
    def test_versions_agree(self, source: object, destination: object, port: int) -> None:
        """The same connection, announced in either version, is read alike."""
        first = f"PROXY TCP4 {source} {destination} {port} 8888\r\n".encode()
        packed = socket.inet_aton(str(source)) + socket.inet_aton(str(destination))
        second = v2(0x21, 0x11, packed + port.to_bytes(2) + (8888).to_bytes(2))
        expected = ((str(source), port), (str(destination), 8888))
        for data in (first, second):
            self.assertEqual(parse_header(data), ProxyHeader(len(data), *expected))


class TrustedProxiesTests(SynchronousTestCase):
    """:class:`TrustedProxies`."""

    def test_trusts(self) -> None:
        """Addresses and networks of both families are trusted, and no others."""
        trusted = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"])
        for host in ("127.0.0.1", "10.255.0.1", "2001:db8::9", "::ffff:10.0.0.1"):
            self.assertTrue(trusted.trusts(host), host)
        for host in ("127.0.0.2", "11.0.0.1", "2001:db9::9", "::1", "::ffff:11.0.0.1"):
            self.assertFalse(trusted.trusts(host), host)
        self.assertFalse(trusted.trusts(None))

    def test_unix(self) -> None:
        """The peers of a Unix socket are trusted where the word for them is there."""
        self.assertTrue(TrustedProxies(["unix"]).trusts(None))
        self.assertFalse(TrustedProxies(["unix"]).trusts("127.0.0.1"))

    def test_mistakes(self) -> None:
        """A name, and a network with bits of a host, are refused."""
        for word in ("localhost", "10.0.0.1/8", ""):
            self.assertRaises(ValueError, TrustedProxies, [word])
