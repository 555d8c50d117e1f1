"""
What bodies of many kinds cost: ``python -m benchmarks.http_bodies [name ...]``.

This package's client with all its bounds on, and aiohttp, get 2 KB in chunks, 2 KB behind a header
of 15 lines, 100 KB, and 2 KB compressed from 20; they POST 1 KB of JSON, and stream 10 MB. As
agents, this package's ``HTTPAgent`` and Twisted's ``Agent`` get a small page. Each is in a process
of its own, in turn, over interleaved rounds; the server has another. It prints the medians of the
client's CPU time for each call, the ratio of the two, and the most that it is meant to be.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import frozen
from twisted.internet.task import react

from benchmarks.http_get import PAGE, Timer, deferreds
from benchmarks.options import bounded_number

OURS, AIOHTTP, OUR_AGENT, AGENT = "twisted_net", "aiohttp", "HTTPAgent", "Agent"

TEXT = b'{"name":"value","number":12345,"list":[1,2,3]}\n' * 43
STREAM = 10_000_000
JSON = {"items": [{"number": number, "name": "x" * 20} for number in range(20)]}

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"


def _page(body: bytes, more: bytes = b"") -> bytes:
    return _OK + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _chunked(body: bytes, size: int) -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return _OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


PAGES = {
    b"chunked": _chunked(TEXT, 512),
    b"lines": _page(TEXT, b"".join(b"X-Field-%d: some value of it\r\n" % i for i in range(12))),
    b"large": _page(b"x" * 100_000),
    b"gzip": _page(gzip.compress(TEXT * 10, mtime=0), b"Content-Encoding: gzip\r\n"),
    b"post": _page(b'{"ok":true}'),
    b"stream": _page(b"x" * STREAM),
    b"agent": PAGE,
}


@frozen
class Row:
    """
    What is measured.

    :param most: the ratio that it is meant to have at most.
    :param rival: what ours is compared with.
    :param share: of the calls of the others, so many are made.
    """

    title: str
    most: float
    ours: str = OURS
    rival: str = AIOHTTP
    share: float = 1.0


ROWS = {
    "chunked": Row("2 KB in chunks", 0.7),
    "lines": Row("15 lines and 2 KB", 0.6),
    "large": Row("100 KB", 1.0, share=0.5),
    "gzip": Row("20 KB, compressed", 0.8),
    "post": Row("POST of 1 KB", 0.7),
    "stream": Row("stream of 10 MB", 1.0, share=0.005),
    "agent": Row("27 bytes, as agents", 0.6, OUR_AGENT, AGENT),
}


class Server(asyncio.Protocol):
    """Answers each request with the page of its path, without more parsing than that takes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # Any: asyncio gives no narrower type here
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            lengths = [line for line in lines if line.startswith(b"content-length:")]
            length = int(lengths[0].partition(b":")[2]) if lengths else 0
            if len(rest) < length:
                return
            self._received = rest[length:]
            self._transport.write(PAGES[head.split(b"/", 2)[1].split(b"?")[0].split(b" ")[0]])


async def serve() -> None:
    """Serve on a free port of loopback until the process ends; print the port."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


Fetch = Callable[[str], Awaitable[None]]


def check(length: int, least: int) -> None:
    """Notice a body that is not the one that was sent."""
    if length < least:
        raise RuntimeError(f"a body of {length} bytes")


async def measure_ours(reactor: Any, timer: Timer, kind: str, url: str) -> None:
    """Measure this package with its default settings."""
    from twisted_net.http import Client

    async with Client(reactor) as client:

        async def get(url: str) -> None:
            check(len((await client.get(url)).body), 2000)

        async def post(url: str) -> None:
            check(len((await client.post(url, json=JSON)).body), 11)

        async def stream(url: str) -> None:
            length = 0
            async with client.stream("GET", url) as response:
                async for piece in response:
                    length += len(piece)
            check(length, STREAM)

        fetch: Fetch = {"post": post, "stream": stream}.get(kind, get)
        await timer.run(url, fetch, deferreds)


async def measure_aiohttp(timer: Timer, kind: str, url: str) -> None:
    """Measure aiohttp."""
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def get(url: str) -> None:
            async with session.get(url) as response:
                check(len(await response.read()), 2000)

        async def post(url: str) -> None:
            async with session.post(url, json=JSON) as response:
                check(len(await response.read()), 11)

        async def stream(url: str) -> None:
            length = 0
            async with session.get(url) as response:
                async for piece in response.content.iter_any():
                    length += len(piece)
            check(length, STREAM)

        fetch: Fetch = {"post": post, "stream": stream}.get(kind, get)
        await timer.run(url, fetch, lambda works: asyncio.gather(*works))


async def measure_agent(reactor: Any, timer: Timer, name: str, url: str) -> None:
    """Measure an ``IAgent``."""
    from twisted.web.client import Agent, HTTPConnectionPool, readBody

    from twisted_net.http import HTTPAgent

    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = 100
    agent: Any = HTTPAgent(reactor) if name == OUR_AGENT else Agent(reactor, pool=pool)

    async def fetch(url: str) -> None:
        check(len(await readBody(await agent.request(b"GET", url.encode()))), 27)

    await timer.run(url, fetch, deferreds)
    await pool.closeCachedConnections()
    if name == OUR_AGENT:
        await agent.close()


def measure_one(name: str, kind: str, url: str, count: int, at_once: int) -> None:
    """Measure one in this process."""
    timer = Timer(count, at_once)
    if name == OURS:
        react(measure_ours, (timer, kind, url))
    elif name == AIOHTTP:
        asyncio.run(measure_aiohttp(timer, kind, url))
    else:
        react(measure_agent, (timer, name, url))


def measure(name: str, kind: str, url: str, count: int, at_once: int) -> float:
    """Measure one in a process of its own; return µs of CPU for each call."""
    words = [sys.executable, "-m", __spec__.name, "--measure", name, kind, url]
    words += [str(count), str(at_once)]
    ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    _, cpu = json.loads(ran.stdout)
    return float(cpu)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split("\n", 1)[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="name", help=", ".join(ROWS))
    add("--rounds", type=bounded_number(int, 1, 1000), default=5)
    add("--count", type=bounded_number(int, 200, 100_000), default=2000, help="calls of each")
    add("--at-once", type=bounded_number(int, 1, 100), default=1)
    options = parser.parse_args()
    if unknown := set(options.names) - set(ROWS):
        parser.error(f"there is no row {min(unknown)}; there are {', '.join(ROWS)}")
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, "--serve"], stdout=subprocess.PIPE, text=True
    )
    found: dict[tuple[str, str], list[float]] = {}
    try:
        if len(cores) > 1:
            # The server has one core, each client another.
            os.sched_setaffinity(server.pid, cores[:1])
            os.sched_setaffinity(0, cores[1:])
        assert server.stdout is not None
        base = f"http://127.0.0.1:{int(server.stdout.readline())}"
        for _ in range(options.rounds):
            for kind in options.names or ROWS:
                row = ROWS[kind]
                count = max(round(options.count * row.share), options.at_once)
                for name in (row.ours, row.rival):
                    cpu = measure(name, kind, f"{base}/{kind}?", count, options.at_once)
                    found.setdefault((kind, name), []).append(cpu)
    finally:
        server.terminate()
        server.wait()
    print(f"{options.at_once} at once, µs of CPU for each call, medians of {options.rounds} rounds")
    for kind in options.names or ROWS:
        row = ROWS[kind]
        ours, rival = (statistics.median(found[kind, name]) for name in (row.ours, row.rival))
        print(
            f"{row.title:24}{row.ours:14}{ours:9.0f}{row.rival:>12}{rival:9.0f}"
            f"{ours / rival:8.2f}  (at most {row.most})"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve())
    elif sys.argv[1:2] == ["--measure"]:
        measure_one(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
    else:
        main()
