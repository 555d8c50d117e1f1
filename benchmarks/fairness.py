"""
What one client does to the others: ``python -m benchmarks.fairness``.

Four measurements, each of ours and of plain Twisted (LineOnlyReceiver, DatagramProtocol) in
turn, over interleaved rounds:

- the round trip of one client's PING while four others send ECHO as fast as they can;
- the same while one client floods the UDP port, or the CoAP port, which plain Twisted has not: with
  confirmable requests, with garbage, or with first blocks of bodies that never go on;
- the same while one client of ours says BROADCAST, again and again, to 5,000 that are connected;
- the memory of the server after a client has sent up to 150 MB of ECHO and read nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import select
import selectors
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.synchronize import Event

from benchmarks.contestants import CONTESTANTS, ECHO, PING
from benchmarks.options import bounded_number
from benchmarks.servers import (
    Server,
    core_for_the_server,
    free_ports,
    raise_descriptor_limit,
    running,
    started,
)
from twisted_net.coap.blockwise import Block
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message

SERVERS = ("ours", "plain")
NEVER_READING_BYTES = 150_000_000
STALLED = 3.0
"""Seconds without a byte taken after which a sender gives up."""

SMALL = [b"flood"] * 100
"""Datagrams that flood the datagram server."""

LISTENERS = 5000
"""Clients that get a broadcast."""

OVERTIME = 5.0
"""Seconds that a load goes on after the measurement should have ended: the longest wait seen."""

LOAD_TIMEOUT = 20.0
"""Seconds in which the process of a load must begin."""

UNTIL_FULL = 0.3
"""Seconds in which a load fills the buffers between it and the server."""


def round_trips(server: Server, ping: bytes, expected: bytes, seconds: float) -> list[float]:
    """Send PING and await its answer, again and again; give the milliseconds of each."""
    times = []
    with server.connect() as client, client.makefile("rb") as lines:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.perf_counter()
            client.sendall(ping)
            answer = lines.readline()
            while answer.startswith(b'{"event":'):
                answer = lines.readline()
            times.append((time.perf_counter() - begin) * 1000)
            assert answer == expected, answer
            time.sleep(0.002)
    return times


def pipeline(tcp_port: int, request: bytes, clients: int, seconds: float, ready: Event) -> None:
    """Let *clients* connections send small requests as fast as the server takes them."""
    block = request * 4096
    selector = selectors.DefaultSelector()
    left: dict[socket.socket, memoryview] = {}
    for _ in range(clients):
        client = socket.create_connection(("127.0.0.1", tcp_port))
        client.setblocking(False)
        left[client] = memoryview(block)
        selector.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE)
    ready.set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for key, events in selector.select(0.1):
            client = key.fileobj  # type: ignore[assignment]  # only sockets are registered
            if events & selectors.EVENT_READ:
                client.recv(262_144)
            if events & selectors.EVENT_WRITE:
                left[client] = left[client][client.send(left[client]) :] or memoryview(block)
    for client in left:
        client.close()


def broadcasts(tcp_port: int, clients: int, seconds: float, ready: Event) -> None:
    """Let one of many clients say BROADCAST, again whenever it has its answer."""
    with ExitStack() as opened:
        epoll = opened.enter_context(select.epoll())
        for _ in range(clients):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", tcp_port)))
            epoll.register(client, select.EPOLLIN)
        client.sendall(b"BROADCAST hello\n")
        ready.set()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for fd, _ in epoll.poll(0.1, clients):
                if b'"command":"BROADCAST"' in os.read(fd, 65_536):
                    os.write(fd, b"BROADCAST hello\n")


def flood(udp_port: int, datagrams: list[bytes], seconds: float, ready: Event) -> None:
    """Send datagrams as fast as the kernel takes them, again and again, and read no answer."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", udp_port))
        ready.set()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for datagram in datagrams:
                client.send(datagram)


def coap_floods() -> dict[str, list[bytes]]:
    """Give the datagrams of floods of the CoAP port."""
    ids = range(60_000)
    path = int(Option.URI_PATH)
    requests = [CoapMessage(Type.CON, Code.GET, i, b"%d" % i, [(path, b"ping")]) for i in ids]
    first = (int(Option.BLOCK1), Block(0, True, 1024).encode())
    blocks = [
        CoapMessage(
            Type.CON,
            Code.POST,
            i,
            b"%d" % i,
            [(path, b"echo"), (int(Option.URI_QUERY), b"%d" % i), first],
            b"a" * 1024,
        )
        for i in ids[:20_000]
    ]
    chance = random.Random(1)
    return {
        "a CoAP flood: requests": [encode_message(message) for message in requests],
        "a CoAP flood: garbage": [chance.randbytes(chance.randrange(200)) for _ in ids],
        "a CoAP flood: first blocks": [encode_message(message) for message in blocks],
    }


def never_read(server: Server) -> tuple[int, int]:
    """Send ECHO and read nothing; give the bytes that were taken, and the growth of the server."""
    before = server.resident()
    block = memoryview(b"ECHO hello world\n" * 4096)
    sent, highest = 0, before
    with server.connect() as client:
        client.settimeout(STALLED)
        rest = block
        while sent < NEVER_READING_BYTES:
            try:
                count = client.send(rest)
            except (TimeoutError, ConnectionError):
                break
            sent += count
            rest = rest[count:] or block
            highest = max(highest, server.resident())
        time.sleep(0.5)
        highest = max(highest, server.resident())
    return sent, highest - before


@contextmanager
def beside(load: Callable[..., None], *arguments: object) -> Iterator[None]:
    """
    Run *load* in a process of its own while the block runs, which it outlives by nothing.

    :param arguments: those of *load*, but the event that it sets when it begins.
    """
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=load, args=(*arguments, ready))
    process.start()
    try:
        if not ready.wait(LOAD_TIMEOUT):
            raise RuntimeError(f"{load.__name__} does not begin")
        time.sleep(UNTIL_FULL)
        yield
    finally:
        process.terminate()
        process.join()


def percentile(times: list[float], share: float) -> float:
    """Give the time that *share* of all do not exceed."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@contextmanager
def running_with_coap(core: int | None) -> Iterator[tuple[Server, int]]:
    """Run our server with CoAP until the block ends; give it and the port of CoAP."""
    tcp_port, udp_port = free_ports()
    _, coap_port = free_ports()
    words = CONTESTANTS["ours"].words(tcp_port, udp_port)
    words = [*words, "--coap-enabled=true", f"--coap-port={coap_port}"]
    with started("ours", words, tcp_port, udp_port, core) as server:
        yield server, coap_port


def measure(
    rounds: int, seconds: float, core: int | None
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Give (p50, p99) in ms of each round, by load and server, which has *core* to itself."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    floods = coap_floods()

    def note(load: str, server: Server) -> None:
        with urgent():
            times = round_trips(server, PING.request, pong, seconds)
        found.setdefault((load, server.name), []).append(
            (statistics.median(times), percentile(times, 0.99))
        )

    for _ in range(rounds):
        for name in SERVERS:
            with running(name, core) as server:
                pong = PING.answer(server.tcp_port)
                note("alone", server)
                with beside(pipeline, server.tcp_port, ECHO.request, 4, seconds + OVERTIME):
                    note("4 clients pipeline ECHO", server)
                with beside(flood, server.udp_port, SMALL, seconds + OVERTIME):
                    note("a UDP flood", server)
                if name == "ours":
                    with beside(broadcasts, server.tcp_port, LISTENERS, seconds + OVERTIME):
                        note(f"BROADCAST to {LISTENERS:,} clients", server)
        with running_with_coap(core) as (server, coap_port):
            pong = PING.answer(server.tcp_port)
            for load, datagrams in floods.items():
                with beside(flood, coap_port, datagrams, seconds + OVERTIME):
                    note(load, server)
    return found


@contextmanager
def urgent() -> Iterator[None]:
    """
    Run the block before all other processes, where the system lets us.

    On a machine of few cores this process shares one with the load, and would measure how long
    it waits for that core. It sleeps nearly always.
    """
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=bounded_number(int, 1, 100_000), default=3)
    parser.add_argument(
        "--seconds", type=bounded_number(float, 0.05, 3600), default=4.0, help="of each measurement"
    )
    options = parser.parse_args()
    raise_descriptor_limit()
    core = core_for_the_server()
    found = measure(options.rounds, options.seconds, core)
    print(f"PING beside others: ms, medians of {options.rounds} rounds")
    print(f"{'load':28}{'server':>8}{'p50':>10}{'p99':>10}{'p99, plain / ours':>20}")
    for load in dict.fromkeys(load for load, _ in found):
        p99 = {}
        for name in (name for name in SERVERS if (load, name) in found):
            p50 = statistics.median(pair[0] for pair in found[load, name])
            p99[name] = statistics.median(pair[1] for pair in found[load, name])
            ratio = f"{p99['plain'] / p99['ours']:.1f}" if name == "plain" else ""
            print(f"{load:28}{name:>8}{p50:10.2f}{p99[name]:10.2f}{ratio:>20}")

    print("\nA client that sends up to 150 MB of ECHO and never reads")
    print(f"{'server':>8}{'MB taken':>12}{'MB grown':>12}")
    for name in SERVERS:
        with running(name, core) as server:
            sent, grown = never_read(server)
            print(f"{name:>8}{sent / 1e6:12.1f}{grown / 1e6:12.1f}")


if __name__ == "__main__":
    main()
