"""
The servers that we compare ourselves with, each the plain way to write it.

``python -m benchmarks.rivals NAME TCP_PORT UDP_PORT`` runs one. All do the same work for a line:
decode it, look its command up, count it, and answer with JSON; and for a datagram: decode it, look
at it, count it and answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from twisted.internet.protocol import DatagramProtocol, Protocol, ServerFactory
from twisted.protocols.basic import LineOnlyReceiver, LineReceiver
from typing_extensions import override

BACKLOG = 4096
"""As ours: with the 50 or 100 that are usual, many clients at once are a matter of luck."""

COMMANDS: dict[str, Callable[[list[str]], str]] = {
    "ECHO": " ".join,
    "PING": lambda words: "PONG",
    "TIME": lambda words: datetime.now(UTC).isoformat(),
}


class Work:
    """What each of them does with what comes."""

    def __init__(self) -> None:
        self.messages = 0
        self.packets = 0

    def answer(self, line: bytes) -> bytes:
        """Answer a line."""
        name, *words = line.decode().split()
        name = name.upper()
        self.messages += 1
        result = COMMANDS[name](words)
        return json.dumps({"command": name, "result": result}).encode() + b"\n"

    def answer_datagram(self, datagram: bytes) -> bytes:
        """Answer a datagram."""
        text = datagram.decode().strip()
        self.packets += 1
        if text.upper() == "PING":
            return b"PONG"
        return f"ECHO: {text}".encode()


work = Work()


class OnlyLines(LineOnlyReceiver):
    """The command server as Twisted's documentation would have it."""

    delimiter = b"\n"

    @override
    def lineReceived(self, line: bytes) -> None:
        assert self.transport is not None
        self.transport.write(work.answer(line))


class Lines(LineReceiver):
    """The same with the class that most servers derive from, which can turn to raw data."""

    delimiter = b"\n"

    @override
    def lineReceived(self, line: bytes) -> None:
        assert self.transport is not None
        self.transport.write(work.answer(line))


class Datagrams(DatagramProtocol):
    """The datagram server as Twisted's documentation would have it."""

    @override
    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        self.transport.write(work.answer_datagram(datagram), addr)


async def serve_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve a connection over asyncio's streams."""
    with suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(work.answer(line))
            await writer.drain()
    writer.close()


class AsyncLines(asyncio.Protocol):
    """Serves a connection by asyncio's callbacks, with one write for all that came."""

    transport: asyncio.Transport
    answer = staticmethod(work.answer)

    def __init__(self) -> None:
        self._tail = b""

    @override
    def connection_made(self, transport: Any) -> None:  # Any: asyncio gives a wider type
        self.transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        *lines, self._tail = (self._tail + data).split(b"\n")
        self.transport.write(b"".join([self.answer(line) for line in lines]))


class AsyncDatagrams(asyncio.DatagramProtocol):
    """The datagram server of asyncio."""

    _transport: asyncio.DatagramTransport

    @override
    def connection_made(self, transport: Any) -> None:  # Any: asyncio gives a wider type
        self._transport = transport

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(work.answer_datagram(data), addr)


def run_twisted(protocol: type[Protocol], tcp_port: int, udp_port: int) -> None:
    """Serve on Twisted's default reactor until the process is ended."""
    from twisted.internet import reactor as installed

    reactor: Any = installed  # Any: it is many interfaces at once
    factory = ServerFactory()
    factory.protocol = protocol
    reactor.listenTCP(tcp_port, factory, backlog=BACKLOG, interface="127.0.0.1")
    reactor.listenUDP(udp_port, Datagrams(), interface="127.0.0.1")
    reactor.run()


async def serve_asyncio(
    protocol: type[asyncio.Protocol] | None, tcp_port: int, udp_port: int | None = None
) -> None:
    """Serve by this protocol, or by streams if None, until the process is ended."""
    loop = asyncio.get_running_loop()
    if udp_port is not None:
        await loop.create_datagram_endpoint(AsyncDatagrams, ("127.0.0.1", udp_port))
    if protocol is None:
        server = await asyncio.start_server(serve_stream, "127.0.0.1", tcp_port, backlog=BACKLOG)
    else:
        server = await loop.create_server(protocol, "127.0.0.1", tcp_port, backlog=BACKLOG)
    await server.serve_forever()


def main(name: str, *ports: str) -> None:
    """Run one of them on loopback."""
    tcp_port, udp_port = map(int, ports)
    if name in ("plain", "line-receiver"):
        run_twisted(OnlyLines if name == "plain" else Lines, tcp_port, udp_port)
        return
    run: Callable[..., object] = asyncio.run
    if name.startswith("uvloop"):
        import uvloop

        run = uvloop.run
    with suppress(KeyboardInterrupt):
        run(serve_asyncio(AsyncLines if name == "uvloop" else None, tcp_port, udp_port))


if __name__ == "__main__":
    main(*sys.argv[1:])
