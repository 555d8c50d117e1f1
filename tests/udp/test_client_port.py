"""Tests for :mod:`twisted_net.udp.client_port`."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections import deque
from typing import Any

from twisted.internet.error import MessageLengthError

from tests.udp.memory import FakeSocket, PortTestCase, Recorder
from twisted_net.net.addresses import Source
from twisted_net.udp.client_port import ClientPort
from twisted_net.udp.error_queue import ERRORS_AT_ONCE

SERVER: Source = ("192.0.2.1", 5683)
SERVER_6: Source = ("2001:db8::1", 5683)


class Queueing(FakeSocket):
    """
    A socket that queues ICMP errors; while there are some, nothing is sent.

    :ivar errors: the destinations that have refused datagrams, in the form of the kernel.
    """

    family = socket.AF_INET

    def __init__(self) -> None:
        super().__init__()
        self.errors: deque[tuple[Any, ...]] = deque()  # Any: v4 and v6

    def recvmsg(self, size: int, ancillary: int, flags: int) -> tuple[Any, ...]:  # Any: as above
        if not self.errors:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        level = socket.IPPROTO_IPV6 if self.family == socket.AF_INET6 else socket.IPPROTO_IP
        refused = struct.pack("=I", errno.ECONNREFUSED)
        return b"", [(level, 11, refused)], 0, self.errors.popleft()

    def _send(self, data: bytes, address: Source) -> int:
        if self.errors:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return super()._send(data, address)


class ClientPortTests(PortTestCase):
    """:class:`ClientPort`, whose socket tells the errors of earlier datagrams as it sends one."""

    if sys.platform != "linux":
        skip = "errors are queued on Linux"

    def open(self, interface: str = "0.0.0.0") -> tuple[ClientPort, Queueing, list[Source]]:
        """Start a port; give its socket too, and the destinations of which it says so."""
        fake = Queueing()
        fake.family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        self.use_socket(fake)
        refused: list[Source] = []
        port = ClientPort(0, Recorder(), interface, 4097, self.reactor)
        port.refused = refused.append
        port.startListening()
        return port, fake, refused

    def test_error_of_another(self) -> None:
        """A datagram leaves at once, though others were refused before it, and many of them."""
        for interface, server, host in (
            ("0.0.0.0", SERVER, ("192.0.2.9", 1)),
            ("::", SERVER_6, ("2001:db8::9", 1, 0, 0)),
        ):
            for count in (1, 3 * ERRORS_AT_ONCE):
                with self.subTest(interface=interface, count=count):
                    port, fake, refused = self.open(interface)
                    fake.errors.extend([host] * count)
                    port.write(b"x", server)
                    self.assertEqual(fake.outgoing, [(b"x", server)])
                    self.assertEqual(refused, [host[:2]] * count)
                    self.stop(port)

    def test_own_error(self) -> None:
        """An error of this datagram is raised; one that is too long has its own."""
        port, fake, refused = self.open()
        fake.send_errors.append(errno.ENETUNREACH)
        error = self.assertRaises(OSError, port.write, b"x", SERVER)
        self.assertEqual(error.errno, errno.ENETUNREACH)
        self.assertRaises(MessageLengthError, port.write, bytes(65_508), SERVER)
        self.assertEqual((refused, fake.outgoing), ([], []))
        self.stop(port)

    def test_closed_by_an_error(self) -> None:
        """What hears of an error may close the port: nothing more is sent then."""
        port, fake, _ = self.open()
        port.refused = lambda destination: port.connectionLost()
        fake.errors.append(("192.0.2.9", 1))
        port.write(b"x", SERVER)
        self.assertEqual(fake.outgoing, [])
