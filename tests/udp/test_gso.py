"""Tests for :mod:`twisted_net.udp.gso`."""

from __future__ import annotations

import socket
import sys
from itertools import groupby
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.addresses import Source
from twisted_net.udp.gso import MAX_SEGMENTS, QueuedAnswer, runs, send_segmented, supports_gso
from twisted_net.udp.port import CappedPort

# Linux: whether datagrams are sent without a checksum, which no run can be.
SO_NO_CHECK = 11

PEERS: list[Any] = [  # Any: of IPv4 and of IPv6
    ("127.0.0.1", 1),
    ("127.0.0.1", 2),
    ("127.0.0.2", 1),
    ("fe80::1", 1, 0, 2),
    ("fe80::1", 1, 0, 3),
]


def answer_to(peer: Any, datagram: bytes) -> QueuedAnswer:  # Any: as above
    """Make an answer whose peer is a tuple of its own, as every ``recvfrom`` makes one."""
    return datagram, peer[:2], (*peer,)


class RunsTests(SynchronousTestCase):
    """:func:`runs` finds what one call can send."""

    @given(
        st.lists(
            st.builds(answer_to, st.sampled_from(PEERS), st.sampled_from([b"", b"a", b"b", b"cc"]))
        )
    )
    def test_model(self, answers: list[QueuedAnswer]) -> None:
        """Two or more of one peer and one size that are in a row, but no empty ones."""
        expected: list[tuple[int, int]] = []
        at = 0
        for (_, size), group in groupby(answers, lambda answer: (answer[2], len(answer[0]))):
            count = len(list(group))
            if size and count > 1:
                expected.append((at, at + count))
            at += count
        self.assertEqual(list(runs(answers)), expected)

    def test_none(self) -> None:
        """Of no answers there is no run."""
        self.assertEqual(list(runs([])), [])


class KernelTests(SynchronousTestCase):
    """:func:`send_segmented` gives real clients real datagrams."""

    if sys.platform != "linux":
        skip = "only Linux cuts what it sends into datagrams"

    def bound(self, host: str = "127.0.0.1") -> socket.socket:
        """Open a socket that does not block."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_DGRAM)
        self.addCleanup(opened.close)
        try:
            opened.bind((host, 0))
        except OSError as error:
            self.skipTest(f"no {host} here: {error}")
        opened.setblocking(False)
        return opened

    def received(self, client: socket.socket) -> list[bytes]:
        """Return what a client has received; on loopback it is there once it is sent."""
        datagrams = []
        while True:
            try:
                datagrams.append(client.recv(65_535))
            except BlockingIOError:
                return datagrams

    def run_to(self, client: socket.socket, datagrams: list[bytes]) -> list[QueuedAnswer]:
        """Make a run of answers to a client."""
        return [answer_to(client.getsockname(), datagram) for datagram in datagrams]

    def test_cut(self) -> None:
        """Each datagram comes by itself, in order, over both families."""
        for host in ("127.0.0.1", "::1"):
            with self.subTest(host=host):
                server, client = self.bound(host), self.bound(host)
                self.assertTrue(supports_gso(server))
                datagrams = [b"%04d" % number for number in range(MAX_SEGMENTS)]
                self.assertTrue(send_segmented(server, self.run_to(client, datagrams)))
                self.assertEqual(self.received(client), datagrams)

    def test_not_taken(self) -> None:
        """Of what the kernel does not take nothing is sent: too many, too long, no checksum."""
        server, client = self.bound(), self.bound()
        self.assertFalse(send_segmented(server, self.run_to(client, [b"x"] * 1000)))
        self.assertFalse(send_segmented(server, self.run_to(client, [b"x" * 1200] * 60)))
        server.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        self.assertFalse(send_segmented(server, self.run_to(client, [b"x"] * 2)))
        self.assertEqual(self.received(client), [])

    def test_no_such_option(self) -> None:
        """A socket of another kind knows nothing of it."""
        with socket.socket() as other:
            self.assertFalse(supports_gso(other))

    def test_port(self) -> None:
        """A port answers clients in one turn, and where runs are not taken, one by one."""

        class Echo(DatagramProtocol):
            noisy = False

            def datagramReceived(self, datagram: bytes, addr: Source) -> None:
                assert self.transport is not None
                self.transport.write(datagram, addr)

        for unchecked in (0, 1):
            with self.subTest(unchecked=unchecked):
                port = CappedPort(0, Echo(), "127.0.0.1", reactor=MemoryReactorClock())
                port.startListening()
                self.addCleanup(port.connectionLost)
                port.socket.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, unchecked)
                clients = [self.bound(), self.bound()]
                asked = [b"1", b"2", b"", b"", b"333", b"444", b"5"]
                for client in clients:
                    for datagram in asked:
                        client.sendto(datagram, ("127.0.0.1", port.getHost().port))
                port.doRead()
                self.assertEqual([self.received(client) for client in clients], [asked] * 2)
                self.assertEqual(port.counts.dropped, 0)


class ElsewhereTests(SynchronousTestCase):
    """Other systems have nothing of the kind."""

    def test_other_system(self) -> None:
        """They are not asked: the number of the option may be another one's."""
        self.patch(sys, "platform", "darwin")
        with socket.socket(type=socket.SOCK_DGRAM) as opened:
            self.assertFalse(supports_gso(opened))
