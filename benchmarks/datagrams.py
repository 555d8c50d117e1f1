"""
What datagrams cost and amplify, and what becomes of a burst: ``python -m benchmarks.datagrams``.

- CPU of the server for each datagram, with 64 of them under way, beside plain Twisted and uvloop,
  which give the same answers and count clients too;
- bytes that leave for bytes that come, question by question, guarded as beyond loopback and not:
  what somebody gains who forges the address of his victim;
- bursts of 20,000 datagrams: each is counted as received, or as dropped by the kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.options import bounded_number

ROOT = Path(__file__).resolve().parent.parent
TWISTD = str(Path(sys.executable).with_name("twistd"))

WORK = """
import sys

clients = {}

def answer(data, addr):
    clients[addr] = clients.get(addr, 0) + 1
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        if len(data) < 4:
            return b"INVALID"
        return ((int.from_bytes(data[:4], "big") + 1) & 0xFFFFFFFF).to_bytes(4, "big")
    return b"PONG" if text.upper() == "PING" else f"ECHO: {text}".encode()
"""

TWISTED = (
    WORK
    + """
from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol

class Datagrams(DatagramProtocol):
    def datagramReceived(self, data, addr):
        self.transport.write(answer(data, addr), addr)

reactor.listenUDP(int(sys.argv[1]), Datagrams(), "127.0.0.1")
reactor.run()
"""
)

UVLOOP = (
    WORK
    + """
import asyncio, uvloop

class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(answer(data, addr), addr)

async def main():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", int(sys.argv[1])))
    await loop.create_future()

uvloop.run(main())
"""
)


def ours(port: int, *options: str, reactor: str = "epoll") -> list[str]:
    """Give the command of the service, its datagrams alone."""
    words = [TWISTD, f"--reactor={reactor}", "-n", "--pidfile=", "net", "--tcp-enabled=false"]
    return [*words, f"--udp-port={port}", *options]


def servers(port: int) -> dict[str, list[str]]:
    """Give the command of each server whose CPU is measured."""
    return {
        "ours": ours(port),
        "ours, quiet reactor": ours(port, reactor="quiet"),
        "Twisted": [sys.executable, "-c", TWISTED, str(port)],
        "uvloop": [sys.executable, "-c", UVLOOP, str(port)],
    }


@contextmanager
def running(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        with client_of(port, 0.1) as client:
            for _ in range(200):
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended with status {process.returncode}")
                try:
                    client.send(b"PING")
                    if client.recv(100) == b"PONG":
                        break
                except (TimeoutError, ConnectionRefusedError):
                    time.sleep(0.05)
            else:
                raise RuntimeError(f"{command} does not answer")
        yield process
    finally:
        process.terminate()
        process.wait(15)


@contextmanager
def client_of(port: int, timeout: float) -> Iterator[socket.socket]:
    """Give a socket that asks the server at *port*."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(timeout)
        yield client


def free_port() -> int:
    """Give a port that nobody uses now."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_of(pid: int) -> float:
    """Give the processor seconds that a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def cpu_per_datagram(port: int, pid: int, seconds: float) -> float:
    """Keep 64 datagrams under way, and give the µs of the server's CPU for each answer."""
    answers = 0
    with client_of(port, 0.5) as client:
        for _ in range(64):
            client.send(b"hello world 1234")
        before = cpu_of(pid)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            try:
                client.recv(100)
            except TimeoutError:
                for _ in range(64):
                    client.send(b"hello world 1234")
                continue
            answers += 1
            client.send(b"hello world 1234")
        return (cpu_of(pid) - before) / answers * 1e6


def questions() -> dict[str, list[bytes]]:
    """Give what is asked, by the name of its kind."""
    chance = random.Random(1)
    return {
        "PING": [b"PING"],
        "TIME": [b"TIME"],
        "TIME, padded": [b"TIME".ljust(64)],
        "STATS": [b"STATS"],
        "STATS, padded": [b"STATS".ljust(1200)],
        "text of 0 to 20 bytes": [b"x" * length for length in range(21)],
        "text, padded": [b"hello".ljust(20)],
        "a number": [b"\xff\x00\x00\x29"],
        "over the limit": [b"x" * 5000],
        "2000 random ones": [chance.randbytes(chance.randrange(40)) for _ in range(2000)],
    }


def amplification(port: int, asked: list[bytes]) -> tuple[int, int, int, float]:
    """Give the bytes sent, the bytes and datagrams that came back, and the worst ratio of one."""
    came = datagrams = 0
    worst = 0.0
    for data in asked:
        with client_of(port, 0.2 if len(asked) == 1 else 0.003) as victim:
            victim.send(data)
            try:
                answer = victim.recv(65_536)
            except TimeoutError:
                continue
            came += len(answer)
            datagrams += 1
            worst = max(worst, len(answer) / max(len(data), 1))
    return sum(map(len, asked)), came, datagrams, worst


def burst(port: int, count: int) -> tuple[int, int]:
    """Send a burst as fast as it goes; give what the server has received and lost of it."""

    def figures() -> dict[str, int]:
        with client_of(port, 2) as client:
            while True:
                client.send(b"STATS".ljust(1200))
                try:
                    told: dict[str, int] = json.loads(client.recv(65_536))
                except TimeoutError:
                    continue
                return told

    before = figures()
    with client_of(port, 1) as sender:
        for _ in range(count):
            sender.send(b"burst")
    time.sleep(0.5)
    after = figures()
    # The second question for the figures is among the received.
    received = after["total_packets"] - before["total_packets"] - 1
    return received, after["kernel_drops"] - before["kernel_drops"]


def print_costs(rounds: int, seconds: float) -> None:
    """Measure the CPU of all servers in turn, and print the best of each."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name in servers(0):
            port = free_port()
            with running(servers(port)[name], port) as process:
                cost = cpu_per_datagram(port, process.pid, seconds)
            best[name] = min(cost, best.get(name, cost))
    print(f"CPU of the server, best of {rounds} rounds")
    print(f"{'server':22}{'µs a datagram':>16}{'to ours':>10}")
    for name, cost in best.items():
        print(f"{name:22}{cost:16.2f}{cost / best['ours']:10.2f}")


def print_amplification() -> None:
    """Print what comes back for what is sent, and fail where the guard lets more out than in."""
    print("\nBytes to a forged source for each byte that was sent")
    print(f"{'question':24}{'guarded':>10}{'worst':>8}{'not guarded':>14}{'worst':>8}")
    results: dict[str, list[tuple[float, float]]] = {}
    for guard in ("always", "never"):
        port = free_port()
        command = ours(port, f"--udp-guard={guard}", "--udp-datagrams-per-network=none")
        with running(command, port):
            for name, asked in questions().items():
                sent, came, _datagrams, worst = amplification(port, asked)
                results.setdefault(name, []).append((came / max(sent, 1), worst))
    for name, ((ratio, worst), (free_ratio, free_worst)) in results.items():
        print(f"{name:24}{ratio:10.2f}{worst:8.2f}{free_ratio:14.2f}{free_worst:8.2f}")
    highest = max(pair[0][1] for pair in results.values())
    print(f"highest ratio of one guarded datagram: {highest:.2f}")
    if highest > 1:
        sys.exit("the guard let more out than in")


def print_bursts(runs: int, count: int) -> None:
    """Print what became of bursts, and fail where a datagram is not accounted for."""
    print(f"\nBursts of {count} datagrams")
    print(f"{'receive buffer':>16}{'received':>12}{'lost':>10}{'unaccounted':>14}")
    for size in (212_992, 4 << 20):
        port = free_port()
        with running(ours(port, f"--udp-receive-buffer={size}"), port):
            for _ in range(runs):
                received, lost = burst(port, count)
                print(f"{size:16}{received:12}{lost:10}{count - received - lost:14}")
                if received + lost != count:
                    sys.exit("datagrams are not accounted for")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="What plain datagrams cost and amplify.")
    parser.add_argument("--rounds", type=bounded_number(int, 1, 100_000), default=3)
    parser.add_argument(
        "--seconds", type=bounded_number(float, 0.05, 3600), default=2.0, help="of each measurement"
    )
    parser.add_argument(
        "--runs", type=bounded_number(int, 1, 100_000), default=5, help="bursts of each kind"
    )
    options = parser.parse_args()
    os.chdir(ROOT)
    print_costs(options.rounds, options.seconds)
    print_amplification()
    print_bursts(options.runs, 20_000)


if __name__ == "__main__":
    main()
