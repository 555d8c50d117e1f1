"""
CON exchanges per second of server CPU, ours beside aiocoap's: ``python -m benchmarks.coap``.

Each server runs as a process and answers ``GET /ping`` with ``PONG``. A number of clients, each
with one request under way as RFC 7252 wants it (NSTART 1), ask it for some seconds. What counts
is the processor time that the server took for each exchange: the clients run beside it.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import subprocess
import sys
import time

from attrs import frozen

from benchmarks.options import bounded_number
from benchmarks.servers import processor_time

RIVAL = """
import asyncio, sys
import aiocoap, aiocoap.resource as resource

class Ping(resource.Resource):
    async def render_get(self, request):
        return aiocoap.Message(payload=b"PONG", content_format=0)

async def main():
    site = resource.Site()
    site.add_resource(["ping"], Ping())
    await aiocoap.Context.create_server_context(
        site, bind=("127.0.0.1", int(sys.argv[1])), transports=["udp6"]
    )
    await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""

OURS = """
import sys
from twisted.internet import reactor
from twisted_net.commands.standard import standard_commands
from twisted_net.coap.port import listen_coap
from twisted_net.coap.server import CoapServer

listen_coap(reactor, CoapServer(reactor, standard_commands()), int(sys.argv[1]))
reactor.run()
"""


@frozen
class Result:
    """What one server did."""

    exchanges: int
    seconds: float
    cpu: float

    @property
    def per_cpu_second(self) -> float:
        """Exchanges per second of the server's processor time."""
        return self.exchanges / self.cpu


def measure(program: str, seconds: float, clients: int) -> Result:
    """Run a server and its clients."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", program, str(port)])
    try:
        sockets = [_client(port) for _ in range(clients)]
        _wait_until_ready(sockets[0], server)
        ask(sockets, 0.5, 0)
        before = processor_time(server.pid)
        began = time.perf_counter()
        exchanges = ask(sockets, seconds, 30_000)
        return Result(exchanges, time.perf_counter() - began, processor_time(server.pid) - before)
    finally:
        server.terminate()
        server.wait()


def ask(sockets: list[socket.socket], seconds: float, first_id: int) -> int:
    """Have each client ask one question after the other; give the number of answers."""
    selector = selectors.DefaultSelector()
    ids = dict.fromkeys(sockets, first_id)
    for asker in sockets:
        selector.register(asker, selectors.EVENT_READ, asker)
        asker.send(_question(first_id))
    answers = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key, _ in selector.select(1):
            client: socket.socket = key.data
            answer = client.recv(2048)
            if answer[1] != 69 or answer[2:4] != ids[client].to_bytes(2, "big"):
                raise RuntimeError(f"not the answer to the question: {answer!r}")
            answers += 1
            ids[client] = (ids[client] + 1) & 0xFFFF
            client.send(_question(ids[client]))
    for asker in sockets:
        asker.recv(2048)
    return answers


def main() -> None:
    """Measure both, in turn, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=bounded_number(float, 0.05, 3600), default=4.0)
    parser.add_argument("--clients", type=bounded_number(int, 1, 100_000), default=20)
    parser.add_argument("--rounds", type=bounded_number(int, 1, 100_000), default=3)
    chosen = parser.parse_args()
    best = {"ours": 0.0, "aiocoap": 0.0}
    for _ in range(chosen.rounds):
        for name, program in (("ours", OURS), ("aiocoap", RIVAL)):
            result = measure(program, chosen.seconds, chosen.clients)
            best[name] = max(best[name], result.per_cpu_second)
            print(
                f"{name:8} {result.exchanges / result.seconds:8.0f} exchanges/s,"
                f" {result.per_cpu_second:8.0f} per second of CPU,"
                f" {1e6 / result.per_cpu_second:6.1f} µs each"
            )
    print(f"ours is {best['ours'] / best['aiocoap']:.1f} times aiocoap")


def _question(message_id: int) -> bytes:
    return b"\x42\x01" + message_id.to_bytes(2, "big") + message_id.to_bytes(2, "big") + b"\xb4ping"


def _client(port: int) -> socket.socket:
    client = socket.socket(type=socket.SOCK_DGRAM)
    client.connect(("127.0.0.1", port))
    client.settimeout(5)
    return client


def _wait_until_ready(client: socket.socket, server: subprocess.Popen[bytes]) -> None:
    client.settimeout(0.2)
    for number in range(100):
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}")
        try:
            client.send(_question(60_000 + number))
            client.recv(2048)
        except (TimeoutError, ConnectionRefusedError):
            time.sleep(0.1)
            continue
        client.settimeout(5)
        return
    raise RuntimeError("the server does not answer")


if __name__ == "__main__":
    main()
