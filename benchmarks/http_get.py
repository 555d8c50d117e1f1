"""
What a plain GET costs: ``python -m benchmarks.http_get``.

This package's client with all its bounds on, treq, Twisted's Agent with a pool, httpx, requests
and aiohttp each fetch a small page from a server in a process of its own, one call at a time and
50 at a time; each in a process of its own too, in turn, over interleaved rounds. It prints
the medians: calls a second, the client's CPU time per call, and this package's rate and CPU time
as ratios to those of each. Then come a fresh hit in the cache of this package's client, and, with
``--clients`` that name it, a GET over a new connection beside that of aiohttp.

``--tls`` fetches the page with TLS 1.3, the certificate verified, over connections that stay open;
a new connection of this package's client resumes the session of an earlier one.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from benchmarks.options import bounded_number

ON_ASYNCIO = "twisted_net/asyncio"
"""This package on the asyncio reactor; the others of Twisted run on its default."""

CLIENTS = ("twisted_net", ON_ASYNCIO, "treq", "Agent", "httpx", "requests", "aiohttp")
AT_ONCE = (1, 50)
PAGE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Sun, 22 Nov 2026 09:30:00 GMT\r\n"
    b"Cache-Control: no-store\r\nContent-Length: 27\r\n\r\n" + b'{"hello":"world","n":12345}'
)
FRESH = PAGE.replace(b"no-store", b"max-age=9999999")
LAST = PAGE.replace(b"Date:", b"Connection: close\r\nDate:")

Fetch = Callable[[str], Awaitable[None]]


class Page(asyncio.Protocol):
    """Answers each request with one page, without parsing, so that clients are measured."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # Any: asyncio gives no narrower type here
        self._tail = b""

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        requests = data.count(b"\r\n\r\n")
        self._tail = data.rpartition(b"\r\n\r\n")[2]
        if b"GET /last" in data:
            self._transport.write(LAST)
            self._transport.close()
        elif requests:
            self._transport.write((FRESH if b"GET /fresh" in data else PAGE) * requests)


async def serve(pair: str | None) -> None:
    """Serve on a free port of loopback until the process ends; print the port."""
    context = None
    if pair is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair)
    server = await asyncio.get_running_loop().create_server(Page, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Timer:
    """Measures the time of some calls, after as many for warming up."""

    def __init__(self, count: int, at_once: int) -> None:
        self.at_once = at_once
        self.rounds = (max(at_once, count // 5), count)

    def report(self, count: int, wall: float, cpu: float) -> None:
        """Print calls a second, and microseconds of CPU per call."""
        print(json.dumps([count / wall, cpu / count * 1e6]))

    async def run(
        self, url: str, fetch: Fetch, together: Callable[[list[Any]], Awaitable[Any]]
    ) -> None:
        """
        Make the calls, some at a time; *together* runs coroutines concurrently.

        Each worker has a URL of its own: a cache collapses concurrent requests for one URL.
        """
        for count in self.rounds:
            left = iter(range(count))

            async def work(url: str, left: Any = left) -> None:
                for _ in left:
                    await fetch(url)

            wall, cpu = time.perf_counter(), time.process_time()
            await together([work(f"{url}{i}") for i in range(self.at_once)])
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.report(count, wall, cpu)


async def deferreds(works: list[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines concurrently in Twisted."""
    await gatherResults([Deferred.fromCoroutine(work) for work in works])


async def measure_twisted_net(reactor: Any, timer: Timer, url: str) -> None:
    """Measure this package with its default settings."""
    from twisted_net.http.client import Client

    async with Client(reactor) as client:

        async def fetch(url: str) -> None:
            assert len((await client.get(url)).body) == 27

        await timer.run(url, fetch, deferreds)


async def measure_treq(reactor: Any, timer: Timer, url: str) -> None:
    """Measure treq as in its documentation, with one client."""
    from treq.client import HTTPClient
    from twisted.web.client import Agent, HTTPConnectionPool

    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = 100
    client = HTTPClient(Agent(reactor, pool=pool))

    async def fetch(url: str) -> None:
        response = await client.get(url, reactor=reactor)
        assert len(await response.content()) == 27

    await timer.run(url, fetch, deferreds)
    await pool.closeCachedConnections()


async def measure_agent(reactor: Any, timer: Timer, url: str) -> None:
    """Measure Twisted's Agent with a pool."""
    from twisted.web.client import Agent, HTTPConnectionPool, readBody

    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = 100
    agent = Agent(reactor, pool=pool)

    async def fetch(url: str) -> None:
        response = await agent.request(b"GET", url.encode())
        assert len(await readBody(response)) == 27

    await timer.run(url, fetch, deferreds)
    await pool.closeCachedConnections()


async def measure_aiohttp(timer: Timer, url: str) -> None:
    """Measure aiohttp."""
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def fetch(url: str) -> None:
            async with session.get(url) as response:
                assert len(await response.read()) == 27

        await timer.run(url, fetch, lambda works: asyncio.gather(*works))


async def measure_httpx(timer: Timer, url: str) -> None:
    """Measure httpx."""
    import httpx

    async with httpx.AsyncClient() as client:

        async def fetch(url: str) -> None:
            assert len((await client.get(url)).content) == 27

        await timer.run(url, fetch, lambda works: asyncio.gather(*works))


def measure_requests(timer: Timer, url: str) -> None:
    """Measure requests, with a thread for each concurrent call."""
    import requests

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=100))

    def fetch(number: int) -> None:
        assert len(session.get(f"{url}{number % timer.at_once}").content) == 27

    with ThreadPoolExecutor(timer.at_once) as threads:
        for count in timer.rounds:
            wall, cpu = time.perf_counter(), time.process_time()
            list(threads.map(fetch, range(count)))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    timer.report(count, wall, cpu)


def measure_one(name: str, count: int, at_once: int, url: str) -> None:
    """Measure one client in this process."""
    timer = Timer(count, at_once)
    by_twisted = {
        "twisted_net": measure_twisted_net,
        ON_ASYNCIO: measure_twisted_net,
        "treq": measure_treq,
        "Agent": measure_agent,
    }
    by_asyncio = {"httpx": measure_httpx, "aiohttp": measure_aiohttp}
    if name == ON_ASYNCIO:
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
    if name in by_twisted:
        react(by_twisted[name], (timer, url))
    elif name in by_asyncio:
        asyncio.run(by_asyncio[name](timer, url))
    else:
        measure_requests(timer, url)


def measure(name: str, count: int, at_once: int, url: str) -> tuple[float, float]:
    """Measure one client in a process of its own; return calls a second and µs of CPU."""
    command = [sys.executable, "-m", "benchmarks.http_get", "--measure", name, url]
    command += [str(count), str(at_once)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    rate, cpu = json.loads(ran.stdout)
    return rate, cpu


def version(name: str) -> str:
    """Return the version that is measured."""
    names = {"Agent": "twisted", ON_ASYNCIO: "twisted_net"}
    return importlib.metadata.version(names.get(name, name))


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split("\n", 1)[0])
    parser.add_argument("--rounds", type=bounded_number(int, 1, 100_000), default=3)
    parser.add_argument(
        "--count",
        type=bounded_number(int, 1, 100_000),
        default=2000,
        help="calls of each measurement",
    )
    parser.add_argument("--tls", action="store_true", help="fetch the page with TLS")
    parser.add_argument(
        "--clients", default=",".join(CLIENTS), help="those that are measured, with commas"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(options, certify(Path(folder)) if options.tls else [])


def certify(folder: Path) -> list[str]:
    """Make a certificate that all clients trust; return the server's arguments for it."""
    # Not for those who measure without TLS: the tests' packages would be needed.
    from tests.tcp.issuing import Authority, write_pair

    authority = Authority()
    trusted = str(authority.write(folder / "ca.pem"))
    # OpenSSL reads the first, in the clients' processes.
    os.environ["SSL_CERT_FILE"] = os.environ["REQUESTS_CA_BUNDLE"] = trusted
    return [str(write_pair(folder / "server.pem", authority.issue("127.0.0.1")))]


def run(options: argparse.Namespace, pair: list[str]) -> None:
    """Run the server, measure the clients, and print the tables."""
    clients = [name for name in CLIENTS if name in options.clients.split(",")]
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.http_get", "--serve", *pair],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if len(cores) > 1:
            # The server has one core, each client another.
            os.sched_setaffinity(server.pid, cores[:1])
            os.sched_setaffinity(0, cores[1:])
        assert server.stdout is not None
        scheme = "https" if pair else "http"
        url = f"{scheme}://127.0.0.1:{int(server.stdout.readline())}"
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        hits = []
        lasts: dict[str, list[tuple[float, float]]] = {}
        for _ in range(options.rounds):
            for at_once in AT_ONCE:
                for name in clients:
                    one = measure(name, options.count, at_once, url + "/")
                    found.setdefault((name, at_once), []).append(one)
            hits.append(measure(clients[0], 20 * options.count, 1, url + "/fresh"))
            for name in {clients[0], "aiohttp"} & set(clients):
                lasts.setdefault(name, []).append(measure(name, options.count, 1, url + "/last"))
    finally:
        server.terminate()
        server.wait()
    print_tables(clients, scheme, options.rounds, found)
    cpu = statistics.median(cpu for _, cpu in hits)
    print(f"\nA fresh hit through Client.get: {cpu:.1f} µs of CPU")
    for name in sorted(lasts, reverse=True):
        cpu = statistics.median(cpu for _, cpu in lasts[name])
        print(f"A GET of {name} over a new connection: {cpu:.0f} µs of CPU")


def print_tables(
    clients: list[str],
    scheme: str,
    rounds: int,
    found: dict[tuple[str, int], list[tuple[float, float]]],
) -> None:
    """Print the results."""
    print(f"GETs of {scheme}, medians of {rounds} rounds")
    print(f"{'client':24}{'at once':>8}{'calls/s':>10}{'µs CPU':>9}{'ours / it':>12}{'CPU':>7}")
    for at_once in AT_ONCE:
        ours = statistics.median(rate for rate, _ in found[clients[0], at_once])
        our_cpu = statistics.median(cpu for _, cpu in found[clients[0], at_once])
        for name in clients:
            rate = statistics.median(rate for rate, _ in found[name, at_once])
            cpu = statistics.median(cpu for _, cpu in found[name, at_once])
            shown = f"{name} {version(name)}"
            ratios = f"{ours / rate:12.2f}{our_cpu / cpu:7.2f}"
            print(f"{shown:24}{at_once:8}{rate:10.0f}{cpu:9.0f}{ratios}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(sys.argv[2] if sys.argv[2:] else None))
    elif sys.argv[1:2] == ["--measure"]:
        measure_one(sys.argv[2], int(sys.argv[4]), int(sys.argv[5]), sys.argv[3])
    else:
        main()
