"""Tests for :mod:`twisted_net.udp.server` over real sockets."""

from __future__ import annotations

import json
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol, ProcessProtocol

from tests.live.leaks import LoggedErrors
from tests.patience import until
from twisted_net.net.addresses import Source
from twisted_net.udp.limits import MAX_PAYLOAD, DatagramLimits
from twisted_net.udp.port import CappedPort
from twisted_net.udp.server import DatagramServer, listen_datagrams

EXAMPLE = Path(__file__).parents[2] / "examples" / "udp_handler.py"


class Asker(DatagramProtocol):
    """A client that waits for one answer at a time."""

    noisy = False

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self._waiting: Deferred[bytes] | None = None

    def ask(self, data: bytes, server: Source) -> Deferred[bytes]:
        """Send *data*, and give the next answer."""
        assert self.transport is not None
        waiting: Deferred[bytes] = Deferred()
        self._waiting = waiting
        self.transport.write(data, server)
        return waiting

    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        self.answers.append(datagram)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(datagram)


class Server:
    """A server that listens, and a client to ask it; leave it with ``async with``."""

    def __init__(self, reactor: Any, **options: Any) -> None:  # Any: a reactor; the server's own
        self.reactor = reactor
        self.interface = options.pop("interface", "127.0.0.1")
        self.protocol = DatagramServer(reactor, **options)
        self.asker = Asker()

    async def __aenter__(self) -> Server:
        self.port = listen_datagrams(self.reactor, self.protocol, 0, self.interface)
        self._client = self.reactor.listenUDP(
            0, self.asker, interface=self.interface, maxPacketSize=65_536
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.stopListening()
        await stop(self.port)

    @property
    def address(self) -> Source:
        """Where the server listens."""
        return self.interface, self.port.getHost().port

    async def ask(self, data: bytes) -> bytes:
        """Give the answer to *data*."""
        return await self.asker.ask(data, self.address)

    async def stats(self) -> dict[str, int]:
        """Give the server's figures as it tells them."""
        figures: dict[str, int] = json.loads(await self.ask(b"STATS"))
        return figures


async def stop(port: CappedPort) -> None:
    """Stop *port*, and wait until it has."""
    stopped = port.stopListening()
    assert stopped is not None
    await stopped


def send_burst(server: Source, count: int, source: socket.socket) -> None:
    """Send *count* datagrams without giving the reactor a turn."""
    for number in range(count):
        source.sendto(b"%d" % number, server)


def kernel_drops(port: int) -> int:
    """Give the datagrams to *port* that the kernel had no room for (proc(5))."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}"):
            return int(fields[-1])
    raise AssertionError(f"no socket on port {port}")


async def test_standard_answers(reactor: Any) -> None:
    """The wire's answers come over a real socket, and the client is in the figures."""
    async with Server(reactor) as server:
        assert await server.ask(b"PiNg") == b"PONG"
        stamp = datetime.fromisoformat((await server.ask(b"TIME")).decode())
        assert stamp.tzinfo is not None
        assert await server.ask(b"  hello \n") == b"ECHO: hello"
        assert await server.ask(b"\xff\x00\x00\x29") == b"\xff\x00\x00\x2a"
        assert await server.ask(b"\xff\xff\xff\xff") == b"\x00\x00\x00\x00"
        assert await server.ask(b"\xff") == b"INVALID"
        figures = await server.stats()
        assert (figures["total_packets"], figures["active_clients"]) == (7, 1)


async def test_empty_datagram(reactor: Any) -> None:
    """An empty datagram is answered."""
    async with Server(reactor) as server:
        assert await server.ask(b"") == b"ECHO: "


async def test_longest_datagram(reactor: Any) -> None:
    """The longest datagram that IPv4 carries is refused by default, and counted; others live."""
    async with Server(reactor) as server:
        for length in (4097, MAX_PAYLOAD):
            assert await server.ask(b"a" * length) == b"ERROR: datagram longer than 4096 bytes"
        assert await server.ask(b"a" * 4096) == b"ECHO: " + b"a" * 4096
        assert (await server.stats())["refused"] == 2


async def test_longest_datagram_accepted(reactor: Any) -> None:
    """With the highest limit, the longest datagram reaches the handler whole."""
    limits = DatagramLimits(max_datagram=MAX_PAYLOAD)
    async with Server(reactor, limits=limits, handler=lambda data, source: data) as server:
        longest = b"a" * (MAX_PAYLOAD - 1) + b"z"
        assert await server.ask(longest) == longest


async def test_handler_that_raises(reactor: Any, logged_errors: LoggedErrors) -> None:
    """A handler that raises is logged and counted, and the port answers the next datagram."""

    def handler(data: bytes, source: Source) -> bytes:
        return b"%d" % (10 // int(data))

    async with Server(reactor, handler=handler) as server:
        assert server.asker.transport is not None
        server.asker.transport.write(b"0", server.address)
        assert await server.ask(b"5") == b"2"
        assert server.protocol.responder.counts.failed == 1
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


async def test_burst_within_the_buffer(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst that the receive buffer holds is answered whole, 64 a turn: others have theirs."""
    count = 1000
    async with Server(reactor) as server:
        if server.port.receive_buffer < 1 << 20:
            pytest.skip("the kernel grants too small a receive buffer; raise net.core.rmem_max")
        counts = server.protocol.responder.counts
        turns: list[int] = []
        read = server.port.doRead

        def noted() -> None:
            before = counts.received
            read()
            turns.append(counts.received - before)

        monkeypatch.setattr(server.port, "doRead", noted)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
            source.bind(("127.0.0.1", 0))
            send_burst(server.address, count, source)
            await until(reactor, lambda: counts.received >= count)
        assert max(turns) <= 64
        assert counts.dropped == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/net/udp tells the kernel's drops")
async def test_burst_over_the_buffer(reactor: Any) -> None:
    """Of a burst that overflows the buffer, what came in and what the kernel dropped is all."""
    count = 3000
    limits = DatagramLimits(receive_buffer=65_536)
    async with Server(reactor, limits=limits) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
            source.bind(("127.0.0.1", 0))
            send_burst(server.address, count, source)
        # What was dropped was so when it was sent; all else is to be read.
        dropped = kernel_drops(server.port.getHost().port)
        assert dropped > 0
        counts = server.protocol.responder.counts
        await until(reactor, lambda: counts.received + dropped >= count)
        assert kernel_drops(server.port.getHost().port) == dropped
        assert counts.received + dropped == count
        assert await server.ask(b"PING") == b"PONG"


async def test_answers_to_a_closed_port(reactor: Any) -> None:
    """Clients that are gone before their answer do the port no harm."""
    async with Server(reactor) as server:
        for _ in range(20):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
                source.sendto(b"PING", server.address)
        await until(reactor, lambda: server.protocol.responder.counts.received == 20)
        assert await server.ask(b"PING") == b"PONG"


async def test_ipv6(reactor: Any) -> None:
    """The same is served over IPv6."""
    try:
        async with Server(reactor, interface="::1") as server:
            assert await server.ask(b"PING") == b"PONG"
            assert server.port.getHost().host == "::1"
    except CannotListenError as error:
        pytest.skip(f"no IPv6 here: {error}")


async def test_port_taken(reactor: Any) -> None:
    """A port that is taken is an error that names it; nothing is left of the attempt."""
    async with Server(reactor) as server:
        _, number = server.address
        with pytest.raises(CannotListenError) as caught:
            listen_datagrams(reactor, DatagramServer(reactor), number)
        assert str(number) in str(caught.value)
        assert await server.ask(b"PING") == b"PONG"


async def test_stop_leaves_nothing(reactor: Any) -> None:
    """After stopListening the timer is gone and the port is free for another."""
    before = set(reactor.getDelayedCalls())
    first = listen_datagrams(reactor, DatagramServer(reactor), 0)
    number = first.getHost().port
    await stop(first)
    assert not {call for call in reactor.getDelayedCalls() if call.active()} - before
    await stop(listen_datagrams(reactor, DatagramServer(reactor), number))


class Example(ProcessProtocol):
    """Runs an example, and gives its first line and its end."""

    def __init__(self) -> None:
        self.first_line: Deferred[str] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.errors = b""
        self._output = b""

    def outReceived(self, data: bytes) -> None:
        self._output += data
        if b"\n" in self._output and not self.first_line.called:
            self.first_line.callback(self._output.decode().splitlines()[0])

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: object) -> None:
        if not self.first_line.called:
            self.first_line.errback(AssertionError(self.errors.decode()))
        self.ended.callback(None)


async def test_example(reactor: Any) -> None:
    """The example prints its address, answers in capitals, and ends without an error."""
    example = Example()
    process = reactor.spawnProcess(example, sys.executable, [sys.executable, str(EXAMPLE), "0"])
    try:
        host, _, number = (await example.first_line).rpartition(" ")[2].partition(":")
        asker = Asker()
        client = reactor.listenUDP(0, asker, interface="127.0.0.1")
        try:
            assert await asker.ask(b"hello", (host, int(number))) == b"HELLO"
        finally:
            await client.stopListening()
    finally:
        if not example.ended.called:
            process.signalProcess("INT")
        await example.ended
    assert example.errors == b""
