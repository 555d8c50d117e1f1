"""
Whether many callers get what healthy servers have: ``python -m benchmarks.http_upstreams``.

Some servers on loopback answer with 1 KB that is fresh for a second; one of them answers after the
deadline, one with an error alone. Clients, all of one process, which begins with nothing, ask each
server for one page, all at once and with one deadline, round after round; then all servers are
away for some seconds, while the clients go on. This package, with hedging, and aiohttp with a
dictionary of futures, so that concurrent callers share a request, do this in turn, each in a
process of its own.

For each phase this prints the share of the parts of healthy servers that the clients got, how many
requests all servers saw, the time of the slowest round, and the CPU time for each part. The process
ends with 1 if this package got less than 0.9 in the first round or not all in those after it, if
the circuit breaker of a healthy server was open then, or if one server of those that were away saw
more than 10 requests, one for each 10 s, and those of the last round before they left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

from attrs import asdict, define, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from benchmarks.options import bounded_number

OURS, AIOHTTP = "twisted_net", "aiohttp"

FRESH = 1.0
"""Seconds for which a response is fresh."""

LATENCY = 0.02
"""Seconds after which a healthy server answers."""

REST = 10.0
"""Seconds of rest of a circuit breaker, by default, and failures in a row that open it."""

BODY = b"x" * 1000
GOOD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=1\r\n"
    b"Content-Length: 1000\r\n\r\n" + BODY
)
BAD = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n"

Get = Callable[[str], Awaitable[int]]
"""Returns the length of what it got; raises whatever happens."""


class Upstream(asyncio.Protocol):
    """A connection to one of the servers."""

    away = False
    requests: ClassVar[Counter[int]] = Counter()

    def __init__(self, number: int, delay: float) -> None:
        self._number, self._delay = number, delay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # Any: asyncio gives no narrower type here
        self._tail = b""

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        self._tail = data.rpartition(b"\r\n\r\n")[2]
        for _ in range(data.count(b"\r\n\r\n")):
            self.requests[self._number] += 1
            if self.away:
                self._transport.abort()
                return
            response = BAD if self._number == 1 else GOOD
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, response)


async def serve(count: int, deadline: float) -> None:
    """
    Serve on ports of loopback, which are printed, until standard input ends.

    Server 0 is slow, server 1 fails. A line ``down`` sends all away, any other back; after each
    line the requests that each has seen since the last one are printed.
    """
    loop = asyncio.get_running_loop()
    ports = []
    for number in range(count):
        delay = 3 * deadline if number == 0 else LATENCY
        made = partial(Upstream, number, delay)
        server = await loop.create_server(made, "127.0.0.1", 0, backlog=4096)
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        Upstream.away = line == "down\n"
        print(json.dumps([Upstream.requests[number] for number in range(count)]), flush=True)
        Upstream.requests.clear()


class Servers:
    """The process of the servers."""

    def __init__(self, count: int, deadline: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--serve", str(count), str(deadline)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.urls = [f"http://127.0.0.1:{port}/part" for port in self._read()]

    def _read(self) -> list[int]:
        assert self._process.stdout is not None
        found: list[int] = json.loads(self._process.stdout.readline())
        return found

    def counts(self, word: str = "up") -> list[int]:
        """Send all away, or back; return the requests of each since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._read()

    def end(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


@frozen
class Load:
    """
    Who asks, and how often.

    :param deadline: seconds of each call.
    :param outage: seconds.
    """

    clients: int
    servers: int
    rounds: int
    deadline: float
    outage: float


@define
class Phase:
    """What came of some rounds: parts got and asked for, those of healthy servers alone."""

    name: str
    got: int = 0
    asked: int = 0
    others: int = 0
    slowest: float = 0.0
    cpu: float = 0.0
    requests: int = 0
    most: int = 0  # of one healthy server
    opened: int = 0

    @property
    def share(self) -> float:
        """The parts that the clients got, of those asked for."""
        return self.got / self.asked


class Rounds:
    """
    Asks in rounds.

    :param together: runs coroutines concurrently.
    :param sleep: waits for some seconds.
    :param opened: returns how many circuit breakers of these URLs are open.
    """

    def __init__(
        self,
        load: Load,
        get: Get,
        together: Callable[[list[Any]], Awaitable[Any]],
        sleep: Callable[[float], Awaitable[Any]],
        opened: Callable[[list[str]], int],
    ) -> None:
        self._load, self._get, self._opened = load, get, opened
        self._together, self._sleep = together, sleep
        self._servers = Servers(load.servers, load.deadline)

    async def run(self) -> list[Phase]:
        """Ask in all phases."""
        load = self._load
        try:
            phases = [await self._rounds("cold", 1), await self._rounds("next", load.rounds)]
            self._servers.counts("down")
            period = FRESH + 0.1
            phases.append(await self._rounds("outage", round(load.outage / period), "up"))
            # When they are back, the next probe is due in the time of rest at the latest.
            await self._sleep(REST)
            return [*phases, await self._rounds("back", 1), await self._rounds("after", 2)]
        finally:
            self._servers.end()

    async def _rounds(self, name: str, count: int, then: str = "up") -> Phase:
        load, phase = self._load, Phase(name)
        took = 0.0
        for i in range(count):
            if i or name in ("next", "after"):
                # What was got before is stale.
                await self._sleep(max(FRESH + 0.1 - took, 0.05))
            begun, cpu = time.monotonic(), time.process_time()
            await self._together([self._client(phase) for _ in range(load.clients)])
            took = time.monotonic() - begun
            phase.slowest = max(phase.slowest, took)
            phase.cpu += time.process_time() - cpu
        counts = self._servers.counts(then)
        phase.requests, phase.most = sum(counts), max(counts[2:])
        phase.opened = self._opened(self._servers.urls[2:])
        return phase

    async def _client(self, phase: Phase) -> None:
        """Ask all servers for their parts, at once."""

        async def part(number: int, url: str) -> None:
            healthy = number > 1
            phase.asked += healthy
            with suppress(Exception):  # whatever it is, the part is not there
                if await self._get(url) == len(BODY):
                    phase.got += healthy
                    phase.others += not healthy

        await self._together([part(i, url) for i, url in enumerate(self._servers.urls)])


def show(phases: list[Phase]) -> None:
    """Print what was found, for the process that started this one."""
    print(json.dumps([asdict(phase) for phase in phases]))


async def measure_twisted_net(reactor: Any, load: Load) -> None:
    """Measure this package: its default settings, with hedging and the deadline."""
    from twisted_net.http import Client, HttpSettings
    from twisted_net.http.retry import CircuitState, RetryPolicy

    settings = HttpSettings(timeout=load.deadline, retry=RetryPolicy(hedge_after=0.2))
    async with Client(reactor, settings) as client:

        async def get(url: str) -> int:
            return len((await client.get(url)).raise_for_status().body)

        async def together(works: list[Coroutine[Any, Any, None]]) -> None:
            await gatherResults([Deferred.fromCoroutine(work) for work in works])

        def opened(urls: list[str]) -> int:
            return sum(client.circuit_state(url) is not CircuitState.CLOSED for url in urls)

        async def sleep(seconds: float) -> None:
            await deferLater(reactor, seconds)

        show(await Rounds(load, get, together, sleep, opened).run())


async def measure_aiohttp(load: Load) -> None:
    """Measure aiohttp, with a dictionary of futures whose results are kept while fresh."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=load.deadline)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        kept: dict[str, asyncio.Task[int]] = {}
        loop = asyncio.get_running_loop()

        async def fetch(url: str) -> int:
            try:
                async with session.get(url, raise_for_status=True) as response:
                    length = len(await response.read())
            except BaseException:
                del kept[url]
                raise
            loop.call_later(FRESH, kept.pop, url)
            return length

        async def get(url: str) -> int:
            if url not in kept:
                kept[url] = loop.create_task(fetch(url))
            return await asyncio.shield(kept[url])

        async def together(works: list[Coroutine[Any, Any, None]]) -> None:
            await asyncio.gather(*works)

        show(await Rounds(load, get, together, asyncio.sleep, lambda urls: 0).run())


def measure(name: str, load: Load) -> list[Phase]:
    """Measure one of them in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--measure", name, json.dumps(asdict(load))]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [Phase(**found) for found in json.loads(ran.stdout)]


def faults(load: Load, phases: list[Phase]) -> list[str]:
    """Say what did not hold."""
    found = []
    for phase in phases:
        least = {"cold": 0.9, "back": 0.9, "outage": 0.0}.get(phase.name, 1.0)
        if phase.share < least:
            found.append(f"{phase.name}: {phase.share:.3f} of the parts, not {least}")
        if phase.opened and phase.name != "outage":
            found.append(f"{phase.name}: {phase.opened} circuit breakers of healthy servers open")
        most = 10 + 1 + load.outage // REST
        if phase.name == "outage" and phase.most > most:
            found.append(f"outage: {phase.most} requests to one server, over {most:.0f}")
    return found


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split("\n", 1)[0])
    add = parser.add_argument
    add("--clients", type=bounded_number(int, 1, 10_000), default=200)
    add("--servers", type=bounded_number(int, 3, 500), default=20)
    add("--rounds", type=bounded_number(int, 1, 1000), default=9, help="after the first one")
    add("--deadline", type=bounded_number(float, 0.1, 60), default=1.0, help="seconds of a call")
    add("--outage", type=bounded_number(float, 2, 600), default=20.0, help="seconds")
    load = Load(**vars(parser.parse_args()))
    print(
        f"{'':12}{'phase':8}{'parts':>8}{'of':>8}{'share':>8}{'others':>8}{'requests':>10}"
        f"{'slowest ms':>12}{'µs CPU':>8}"
    )
    wrong = []
    for name in (OURS, AIOHTTP):
        phases = measure(name, load)
        for phase in phases:
            cpu = phase.cpu / phase.asked * 1e6
            print(
                f"{name:12}{phase.name:8}{phase.got:8}{phase.asked:8}{phase.share:8.3f}"
                f"{phase.others:8}{phase.requests:10}{phase.slowest * 1000:12.0f}{cpu:8.0f}"
            )
        if name == OURS:
            wrong = faults(load, phases)
    for fault in wrong:
        print(f"! {fault}")
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(int(sys.argv[2]), float(sys.argv[3])))
    elif sys.argv[1:2] == ["--measure"]:
        wanted = Load(**json.loads(sys.argv[3]))
        if sys.argv[2] == OURS:
            react(measure_twisted_net, (wanted,))
        else:
            asyncio.run(measure_aiohttp(wanted))
    else:
        sys.exit(main())
