"""
What one TCP request costs inside the reactor: ``python -m benchmarks.reactor_time``.

Clients in the same process send a request each over loopback; then the reactor is let run, and only
that is timed: poll, recv, the protocol, send. The best of some thousand rounds is shown, in
microseconds for one request, so that a busy machine disturbs it little. What is left out is what
an operating system does to wake the clients, which is the same for all.

The first row is no server, but ``epoll_wait``, ``recv`` and ``send`` called in a loop: nothing
written in Python on a readiness API can be faster.
"""

from __future__ import annotations

import argparse
import json
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.options import bounded_number

REQUEST = b"ECHO hello world\n"
ANSWER = b'{"command":"ECHO","result":"hello world"}\n'

# protocol, transport, reactor
ROWS = (
    ("system calls", "", ""),
    ("LineReceiver, JSON", "stock", "epoll"),
    ("LineReceiver, JSON", "fast", "epoll"),
    ("LineReceiver, JSON", "fast", "quiet"),
    ("constant answer", "stock", "epoll"),
    ("constant answer", "fast", "quiet"),
    ("command server", "stock", "epoll"),
    ("command server", "fast", "epoll"),
    ("command server", "fast", "quiet"),
)


def main() -> None:
    """Measure each row in a process of its own, some times over, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument(
        "--seconds", type=bounded_number(float, 0.05, 3600), default=1.0, help="for each figure"
    )
    parser.add_argument("--rounds", type=bounded_number(int, 1, 100_000), default=3)
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        row, connections, depth = options.row
        print(measure(row, connections, depth, options.seconds))
        return
    scenarios = ((50, 1), (50, 16), (1000, 1))
    best: dict[tuple[Any, ...], float] = {}  # Any: strings and numbers
    for _ in range(options.rounds):
        for row in ROWS:
            for connections, depth in scenarios:
                answer = subprocess.run(
                    [
                        *(sys.executable, "-m", "benchmarks.reactor_time"),
                        *("--seconds", str(options.seconds)),
                        *("--row", json.dumps([row, connections, depth])),
                    ],
                    stdout=subprocess.PIPE,
                    check=True,
                )
                key = (row, connections, depth)
                best[key] = min(best.get(key, 1e9), float(answer.stdout))
    heads = "".join(f"{f'{connections}x{depth}':>9}" for connections, depth in scenarios)
    print(f"{'protocol':20}{'transport':>10}{'reactor':>9}{heads}")
    for row in ROWS:
        figures = "".join(f"{best[(row, *scenario)]:9.2f}" for scenario in scenarios)
        print(f"{row[0]:20}{row[1]:>10}{row[2]:>9}{figures}")


def measure(row: list[str], connections: int, depth: int, seconds: float) -> float:
    """Give microseconds for one request."""
    protocol, transport, reactor = row
    # Two files for each connection; 1024 is a usual limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
    if not reactor:
        port, turn = serve_bare()
    else:
        port, turn = serve(protocol, transport, reactor)
    clients = []
    for _ in range(connections):
        clients.append(socket.create_connection(("127.0.0.1", port)))
        turn()
    best = 1e9
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for client in clients:
            client.sendall(REQUEST * depth)
        begin = time.perf_counter()
        turn()
        best = min(best, time.perf_counter() - begin)
        for client in clients:
            answers = b""
            while answers.count(b"\n") < depth:
                try:
                    answers += client.recv(65536, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    # The machine was busy, and the turn ended before all lines were run.
                    turn()
            if answers != ANSWER * depth:
                raise SystemExit(f"wrong answer: {answers[:100]!r}")
    return best / connections / depth * 1e6


def serve_bare() -> tuple[int, Callable[[], None]]:
    """Answer by system calls alone; give the port, and what runs one turn."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listening.setblocking(False)
    sockets: dict[int, socket.socket] = {}
    poller = select.epoll()

    def turn() -> None:
        if len(sockets) < 1000:
            try:
                accepted, _ = listening.accept()
            except BlockingIOError:
                pass
            else:
                sockets[accepted.fileno()] = accepted
                poller.register(accepted, select.EPOLLIN)
        for fd, _ in poller.poll(0, len(sockets) or 1):
            connection = sockets[fd]
            data = connection.recv(65536)
            connection.send(ANSWER if len(data) == len(REQUEST) else ANSWER * data.count(b"\n"))

    return listening.getsockname()[1], turn


def serve(protocol: str, transport: str, name: str) -> tuple[int, Callable[[], None]]:
    """Answer by a reactor of Twisted's; give the port, and what runs one turn."""
    from twisted.internet.epollreactor import EPollReactor
    from twisted.internet.main import installReactor

    from twisted_net.quiet_reactor import QuietEPollReactor
    from twisted_net.tcp.transport import listen_tcp

    made: Any = EPollReactor if name == "epoll" else QuietEPollReactor  # Any: they have no types
    reactor = made()
    installReactor(reactor)
    factory = make_factory(protocol, reactor)
    if transport == "fast":
        port: Any = listen_tcp(reactor, 0, factory)  # Any: its address has a port
    else:
        port = reactor.listenTCP(0, factory, 4096, "127.0.0.1")
    reactor.startRunning()

    def turn() -> None:
        reactor.runUntilCurrent()
        reactor.doIteration(0)
        # The stock transport sends in the turn after the one in which it reads.
        if reactor.getWriters():
            reactor.runUntilCurrent()
            reactor.doIteration(0)

    return port.getHost().port, turn


def make_factory(protocol: str, reactor: Any) -> Any:  # Any: reactors and factories of all kinds
    """Give the factory of a row."""
    from twisted.internet.protocol import Factory, Protocol
    from twisted.protocols.basic import LineReceiver

    from twisted_net.commands.standard import standard_commands
    from twisted_net.tcp.server import CommandFactory

    class Lines(LineReceiver):
        """Decodes, looks the command up and encodes, as simply as can be."""

        delimiter = b"\n"

        def lineReceived(self, line: bytes) -> None:
            name, *words = line.decode().split()
            answer = {"command": name.upper(), "result": " ".join(words)}
            line = json.dumps(answer, separators=(",", ":")).encode()
            self.sendLine(line)  # type: ignore[no-untyped-call]  # it has no types

    class Constant(Protocol):
        """Knows the answer before the question."""

        transport: Any  # Any: TCP

        def dataReceived(self, data: bytes) -> None:
            self.transport.write(ANSWER * data.count(b"\n"))

    if protocol == "command server":
        return CommandFactory(reactor, standard_commands())
    return Factory.forProtocol(Constant if protocol == "constant answer" else Lines)


if __name__ == "__main__":
    main()
