"""Many more peers than there is room for: the bounds hold, and a datagram takes the same work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.coap.coap_driver import OBSERVE, Driver
from tests.complexity.work import counted
from twisted_net.coap.blockwise import Block
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.standard import standard_commands
from twisted_net.discovery.announcements import (
    MAX_INSTANCES,
    VERSION,
    Announcement,
    Collector,
    encode_announcement,
)
from twisted_net.net.addresses import Source
from twisted_net.udp.limits import DatagramLimits
from twisted_net.udp.responder import DatagramResponder

SMALL = CoapLimits(
    max_peers=20,
    max_exchanges=30,
    max_exchange_bytes=1024,
    max_transfers=10,
    max_transfer_bytes=4096,
    max_observers=10,
    max_topics=10,
)

_PATH = int(Option.URI_PATH)
_BLOCK1 = (int(Option.BLOCK1), Block(0, True, 16).encode())
_BLOCK2 = (int(Option.BLOCK2), Block(0, False, 16).encode())

# Code, path, options, payload.
REQUESTS: tuple[tuple[int, list[bytes], list[tuple[int, bytes]], bytes], ...] = (
    (Code.GET, [b"ping"], [], b""),
    (Code.GET, [b"stats"], [_BLOCK2], b""),
    (Code.GET, [b"stats"], [OBSERVE], b""),
    (Code.GET, [b"topics", b"a"], [OBSERVE], b""),
    (Code.POST, [b"echo"], [_BLOCK1], b"x" * 16),
    (Code.POST, [b"topics", b"a"], [], b"x"),
    (Code.CONTENT, [], [], b"x"),
)


def _datagram(which: int, kind: int, number: int) -> bytes:
    code, path, options, payload = REQUESTS[which]
    pairs = sorted([*((_PATH, part) for part in path), *options], key=lambda pair: pair[0])
    return encode_message(CoapMessage(kind, code, number % 65_536, b"t", pairs, payload))


def sources(host: str) -> Iterator[Source]:
    """Return ever new sources."""
    for number in range(1, 1 << 24):
        high, low = divmod(number, 60_000)
        yield f"{host}.{high + 1}", low + 1


class CoapCrowdTests(SynchronousTestCase):
    """A CoAP server whose peers come by the thousands, from addresses of all kinds."""

    @settings(max_examples=20, deadline=None)
    @given(
        st.lists(st.integers(0, len(REQUESTS) - 1), min_size=1, max_size=4),
        st.sampled_from([Type.CON, Type.NON]),
        st.sampled_from(["127.0.0", "192.0.2"]),
        st.booleans(),
    )
    def test_bounds(self, which: list[int], kind: int, host: str, group: bool) -> None:
        """Each table holds its bound, and a datagram of a full server takes no more work."""
        driver = Driver(standard_commands(), SMALL)
        server, crowd = driver.server, sources(host)

        def send(count: int) -> None:
            for number in range(count):
                source = next(crowd)
                for each in which:
                    server.receive(_datagram(each, kind, number), source, group)
            driver.transport.written.clear()

        send(60)
        few = counted(lambda: send(20)).calls
        send(600)
        many = counted(lambda: send(20)).calls
        self.assertLessEqual(many, 1.3 * few)
        sizes, limits = server.layer.sizes, SMALL
        self.assertLessEqual(sizes["peers"], limits.max_peers)
        self.assertLessEqual(sizes["exchanges"], limits.max_exchanges)
        self.assertLessEqual(sizes["exchange_bytes"], limits.max_exchange_bytes)
        self.assertLessEqual(server.observers, limits.max_observers)
        self.assertLessEqual(len(server.sessions), limits.max_peers + limits.max_observers)
        for kept in (server._assembler._bodies, server._responses._bodies):
            self.assertLessEqual(len(kept), limits.max_transfers)
        driver.clock.advance(1000)
        driver.leftovers()


class OtherCrowdTests(SynchronousTestCase):
    """The other tables that strangers fill."""

    def assert_flat(self, send: Callable[[int], None], limit: int) -> None:
        """Check that a datagram takes no more work when ten times as many peers have sent."""
        send(2 * limit)
        few = counted(lambda: send(50)).calls
        send(10 * limit)
        many = counted(lambda: send(50)).calls
        self.assertLessEqual(many, 1.3 * few)

    def test_datagrams(self) -> None:
        """The clients of the datagram server."""
        responder = DatagramResponder(DatagramLimits(max_clients=100))
        crowd = sources("192.0.2")

        def send(count: int) -> None:
            for _ in range(count):
                responder.answer(b"PING", next(crowd), 0.0, lambda: 0.0)

        self.assert_flat(send, 100)
        self.assertEqual(len(responder.clients), 100)

    def test_announcements(self) -> None:
        """The servers of a group."""
        collector = Collector()
        count = 0

        def send(announcements: int) -> None:
            nonlocal count
            for _ in range(announcements):
                count += 1
                host = f"10.{count >> 16}.{count >> 8 & 255}.{count & 255}"
                announced = Announcement(
                    VERSION, "a", "1", f"{count:032x}", {"tcp": 1}, 1000.0 + count % 7
                )
                collector.receive(encode_announcement(announced), (host, 1), 0.0)

        self.assert_flat(send, MAX_INSTANCES)
        self.assertEqual(len(collector), MAX_INSTANCES)
