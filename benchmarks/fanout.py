"""
A message to many subscribers: ``python -m benchmarks.fanout``.

5,000 connections subscribe to one topic, and messages of 100 bytes are published: one at a time,
each once all have the one before, and ten at a time, in one segment. Of ours, of a loop of
``transport.write`` with an encoding each over plain Twisted, of Redis pub/sub (redis-server
must be installed), and of nothing but a ``socket.send`` for each, in turn, over interleaved rounds.
Printed is the processor time of the server for each message, from the kernel's accounts, and what
it is of ours. One at a time most of it is the kernel's, for 5,000 sends, which nobody is spared:
the bare sends show the floor. Ten at a time shows more of what a server does itself; the bare sends
are ten for each connection then too.

Needs a limit of open files above twice the number of subscribers.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.protocol import ServerFactory
from twisted.protocols.basic import LineOnlyReceiver
from typing_extensions import override

from benchmarks.contestants import redis_words
from benchmarks.options import bounded_number
from benchmarks.rivals import BACKLOG, AsyncLines, serve_asyncio
from benchmarks.servers import free_ports, processor_time, raise_descriptor_limit, started

TEXT = "x" * 100
NAMES = ("ours", "loop", "redis", "bare")


class Loop(LineOnlyReceiver):
    """Sends each line that a client sends to all clients but that one, encoded for each."""

    delimiter = b"\n"
    clients: set[Loop] = set()  # noqa: RUF012  # of all, on purpose

    @override
    def connectionMade(self) -> None:
        self.clients.add(self)

    @override
    def connectionLost(self, reason: object = None) -> None:
        self.clients.discard(self)

    @override
    def lineReceived(self, line: bytes) -> None:
        topic, text = line.decode().split(" ", 2)[1:]
        assert self.transport is not None
        for client in self.clients:
            if client is not self:
                assert client.transport is not None
                event = {"event": "message", "topic": topic, "message": text}
                client.transport.write(json.dumps(event).encode() + b"\n")
        self.transport.write(b"done\n")


class Once(Loop):
    """Does so with one encoding for all."""

    @override
    def lineReceived(self, line: bytes) -> None:
        topic, text = line.decode().split(" ", 2)[1:]
        event = json.dumps({"event": "message", "topic": topic, "message": text}).encode() + b"\n"
        assert self.transport is not None
        for client in self.clients:
            if client is not self:
                assert client.transport is not None
                client.transport.write(event)
        self.transport.write(b"done\n")


class AsyncOnce(AsyncLines):
    """The same as callbacks of asyncio."""

    clients: set[AsyncOnce] = set()  # noqa: RUF012  # of all, on purpose

    @override
    def connection_made(self, transport: Any) -> None:  # Any: asyncio gives a wider type
        super().connection_made(transport)
        self.clients.add(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.clients.discard(self)

    @override
    def answer(self, line: bytes) -> bytes:
        topic, text = line.decode().split(" ", 2)[1:]
        event = json.dumps({"event": "message", "topic": topic, "message": text}).encode() + b"\n"
        for client in self.clients:
            if client is not self:
                client.transport.write(event)
        return b"done\n"


def serve_bare(port: int) -> None:
    """Send the message to all but its sender for each line that one sends, and do nothing else."""
    event = json.dumps({"event": "message", "topic": "news", "message": TEXT}).encode() + b"\n"
    selector = selectors.DefaultSelector()
    listening = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    selector.register(listening, selectors.EVENT_READ)
    clients: set[socket.socket] = set()
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                client, _ = listening.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                clients.add(client)
                selector.register(client, selectors.EVENT_READ)
                continue
            sender = key.fileobj
            assert isinstance(sender, socket.socket)
            try:
                data = sender.recv(65_536)
            except ConnectionResetError:
                data = b""
            if not data:
                clients.discard(sender)
                selector.unregister(sender)
                sender.close()
            for _ in range(data.count(b"\n")):
                for client in clients:
                    if client is not sender:
                        client.send(event)
                sender.send(b"done\n")


def serve(name: str, port: int) -> None:
    """Run one of the servers that are written in Python."""
    if name == "bare":
        serve_bare(port)
        return
    if name == "uvloop":
        import uvloop

        uvloop.run(serve_asyncio(AsyncOnce, port))
        return
    if name == "quiet":
        from twisted_net.quiet_reactor import install

        install()
    from twisted.internet import reactor

    from twisted_net.commands.standard import standard_commands
    from twisted_net.tcp.limits import Limits
    from twisted_net.tcp.server import CommandFactory
    from twisted_net.tcp.transport import listen_tcp

    if name in ("ours", "quiet"):
        limits = Limits(max_connections=50_000)
        server = CommandFactory(reactor, standard_commands(), limits)
        listen_tcp(reactor, port, server)
    else:
        factory = ServerFactory()
        factory.protocol = {"loop": Loop, "once": Once}[name]
        reactor.listenTCP(port, factory, BACKLOG, "127.0.0.1")
    reactor.run()


@contextmanager
def running(name: str, core: int | None = None) -> Iterator[tuple[int, int]]:
    """Run a server, and give its port and its process."""
    port, _ = free_ports()
    if name == "redis":
        words = redis_words(port)
    else:
        words = [sys.executable, "-m", "benchmarks.fanout", "--serve", name, str(port)]
    with started(name, words, port, core=core) as server:
        yield port, server.pid


class Subscribers:
    """Many connections that count the bytes that come."""

    def __init__(self, port: int, count: int, hello: bytes, answer: bytes) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port), timeout=30)
            client.sendall(hello)
            got = b""
            while answer and not got.endswith(answer):
                got += client.recv(4096)
            client.setblocking(False)
            self._selector.register(client, selectors.EVENT_READ)
            self._sockets.append(client)

    def receive(self, size: int) -> None:
        """Read until all together have got so many bytes."""
        while size > 0:
            events = self._selector.select(30)
            assert events, f"{size} bytes never came"
            for key, _ in events:
                size -= len(key.fileobj.recv(65_536))  # type: ignore[union-attr]  # sockets alone

    def close(self) -> None:
        """Close them all."""
        self._selector.close()
        for client in self._sockets:
            client.close()


def our_size(port: int) -> int:
    """
    Return the bytes of a message of ours.

    :param port: of the client that publishes it.
    """
    event = {
        "event": "message",
        "topic": "news",
        "message": TEXT,
        "id": 10**15,  # microseconds since 1970
        "time": "2026-11-30T12:00:00.000000+00:00",
        "sender": f"127.0.0.1:{port}",
    }
    return len(json.dumps(event, separators=(",", ":"))) + 1


def measure(name: str, count: int, messages: int, burst: int, core: int | None = None) -> float:
    """
    Give the milliseconds of processor time that the server needs for one message.

    :param core: the processor that it is pinned to; None for any.
    """
    event = {"event": "message", "topic": "news", "message": TEXT}
    request = f"PUBLISH news {TEXT}\n".encode() * burst
    if name in ("ours", "quiet"):
        hello, answer = b"SUBSCRIBE news\n", b"}\n"
        size = 0  # known when the publisher has an address
    elif name in ("loop", "once", "uvloop", "bare"):
        hello, answer = b"", b""
        size = len(json.dumps(event)) + 1
    else:
        hello, answer = b"SUBSCRIBE news\r\n", b":1\r\n"
        size = len(f"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$100\r\n{TEXT}\r\n")
    with running(name, core) as (port, pid):
        subscribers = Subscribers(port, count, hello, answer)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as publisher:
            size = size or our_size(publisher.getsockname()[1])
            for warm_up in (True, False):
                began = processor_time(pid)
                for _ in range(3 if warm_up else messages // burst):
                    publisher.sendall(request)
                    assert publisher.recv(4096)
                    subscribers.receive(count * size * burst)
        used = processor_time(pid) - began
        subscribers.close()
    return used / (messages // burst * burst) * 1000


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 2)[1])
    parser.add_argument("--serve", nargs=2, metavar=("NAME", "PORT"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=bounded_number(int, 1, 100_000), default=3)
    parser.add_argument("--subscribers", type=bounded_number(int, 1, 100_000), default=5000)
    parser.add_argument("--messages", type=bounded_number(int, 1, 100_000), default=40)
    arguments = parser.parse_args()
    raise_descriptor_limit()
    if arguments.serve:
        serve(arguments.serve[0], int(arguments.serve[1]))
        return
    for burst in (1, 10):
        found: dict[str, list[float]] = {name: [] for name in NAMES}
        for _ in range(arguments.rounds):
            for name in NAMES:
                used = measure(name, arguments.subscribers, arguments.messages, burst)
                found[name].append(used)
        ours = statistics.median(found["ours"])
        print(f"a message of 100 bytes to {arguments.subscribers} subscribers, {burst} at a time")
        for name in NAMES:
            median = statistics.median(found[name])
            spread = f"{min(found[name]):.1f} to {max(found[name]):.1f}"
            print(f"  {name:6} {median:7.1f} ms ({spread}), {median / ours:.2f} of ours")


if __name__ == "__main__":
    main()
