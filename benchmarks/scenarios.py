"""What is measured, each as one function from a contestant to its figures."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

from attrs import Factory, frozen

from benchmarks import fanout
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.fairness import (
    OVERTIME,
    SMALL,
    beside,
    flood,
    percentile,
    pipeline,
    round_trips,
    urgent,
)
from benchmarks.load import Clients, Load, ask_datagrams, ask_from_many, ask_in_bursts
from benchmarks.servers import Server, free_ports, processor_time, raise_descriptor_limit, started

Figures = Mapping[str, float]
"""Numbers by the heading of their column, which names the unit; the first is what counts."""

WARM_UP = 0.15
"""Seconds of load before the one that is measured."""

IDLE = 10_000
SPARE_DESCRIPTORS = 300
SUBSCRIBERS = 5000
MESSAGES = 8
IMPORTS_PER_ROUND = 3

IMPORTS = {"ours": "twisted_net.udp.server", "plain": "twisted.internet.udp"}
"""The modules of which the start of an import is compared, by contestant."""

FANOUT = {
    "quiet": "quiet",
    "ours": "ours",
    "plain": "once",
    "uvloop": "uvloop",
    "redis": "redis",
}
"""Servers of :mod:`benchmarks.fanout` by contestant."""


@frozen
class Scenario:
    """
    One thing that is measured of some contestants.

    :param title: what it is, for people.
    :param unit: of the first figure, for people.
    :param names: the contestants that it makes sense for.
    :param running: measures a server that runs, for some seconds.
    :param alone: measures a contestant that it starts itself, on a processor or any.
    :param titles: of contestants that have another one here than elsewhere.
    :param once: whether the first round is enough, as chance has no part in it.
    """

    name: str
    title: str
    unit: str
    names: tuple[str, ...]
    running: Callable[[Server, float], Figures] | None = None
    alone: Callable[[Contestant, int | None], Figures] | None = None
    titles: Mapping[str, str] = Factory(dict)
    once: bool = False

    def title_of(self, name: str) -> str:
        """Give the title of a contestant."""
        return self.titles.get(name, CONTESTANTS[name].title)


def _cost(server: Server, run: Callable[[float], Load], seconds: float) -> Figures:
    run(WARM_UP)
    before = processor_time(server.pid)
    load = run(seconds)
    used = processor_time(server.pid) - before
    return {
        "CPU µs": used / load.requests * 1e6,
        "p50 ms": load.percentile(0.5),
        "p99 ms": load.percentile(0.99),
        "a second": load.requests / load.seconds,
    }


def requests(connections: int, depth: int, server: Server, seconds: float) -> Figures:
    """Measure small requests over TCP."""
    with Clients(server.tcp_port, CONTESTANTS[server.name].echo, depth) as clients:
        clients.open(connections)
        return _cost(server, clients.run, seconds)


def datagrams(server: Server, seconds: float) -> Figures:
    """Measure small datagrams, of which one client has 64 under way."""
    return _cost(server, partial(ask_datagrams, server.udp_port, 64), seconds)


def bursts(server: Server, seconds: float) -> Figures:
    """Measure small datagrams that one client sends 64 at a time."""
    return _cost(server, partial(ask_in_bursts, server.udp_port, 64), seconds)


def datagrams_of_many(server: Server, seconds: float) -> Figures:
    """Measure small datagrams of 64 clients, each with one under way."""
    return _cost(server, partial(ask_from_many, server.udp_port, 64), seconds)


def _latency(server: Server, seconds: float, load: Callable[..., None], *of: object) -> Figures:
    ping = CONTESTANTS[server.name].ping
    # Before the load: some rivals then let a new connection wait longer than an answer may take.
    expected = ping.answer(server.tcp_port)
    with beside(load, *of, seconds + OVERTIME), urgent():
        times = round_trips(server, ping.request, expected, seconds)
    return {"p99 ms": percentile(times, 0.99), "p50 ms": statistics.median(times)}


def ping_beside_pipelines(server: Server, seconds: float) -> Figures:
    """Measure what one client waits while four others ask as fast as they can."""
    request = CONTESTANTS[server.name].echo.request
    return _latency(server, seconds, pipeline, server.tcp_port, request, 4)


def ping_beside_flood(server: Server, seconds: float) -> Figures:
    """Measure what one client of TCP waits while another floods the UDP port."""
    return _latency(server, seconds, flood, server.udp_port, SMALL)


def idle_memory(contestant: Contestant, core: int | None) -> Figures:
    """
    Measure what a connection holds that has been answered once and is idle since.

    :raises RuntimeError: where this process may not open so many.
    """
    allowed = raise_descriptor_limit()
    if allowed < IDLE + SPARE_DESCRIPTORS:
        raise RuntimeError(
            f"only {allowed} open files are allowed, where {IDLE + SPARE_DESCRIPTORS} are needed: "
            f"see ulimit -Hn"
        )
    tcp_port, udp_port = free_ports()
    words = contestant.words(tcp_port, udp_port)
    with (
        started(contestant.name, words, tcp_port, udp_port, core) as server,
        Clients(tcp_port, contestant.echo) as clients,
    ):
        # What the first ones bring along is not theirs.
        first = IDLE // 20
        clients.open(first)
        before = server.resident()
        clients.open(IDLE - first)
        return {"bytes": (server.resident() - before) / (IDLE - first)}


def fan_out(contestant: Contestant, core: int | None) -> Figures:
    """Measure a message of 100 bytes to many subscribers."""
    raise_descriptor_limit()
    name = FANOUT[contestant.name]
    return {"CPU ms": fanout.measure(name, SUBSCRIBERS, MESSAGES, 1, core)}


def first_answer(contestant: Contestant, core: int | None) -> Figures:
    """Measure from the start of the process to its first answer."""
    tcp_port, udp_port = free_ports()
    began = time.perf_counter()
    words = contestant.words(tcp_port, udp_port)
    with started(contestant.name, words, tcp_port, udp_port, core, look_every=0.002) as server:
        contestant.echo.answer(tcp_port)
        wall = time.perf_counter() - began
        return {"ms": wall * 1000, "CPU ms": processor_time(server.pid) * 1000}


def import_time(contestant: Contestant, core: int | None) -> Figures:
    """Measure an interpreter that imports one module and ends; the best of some."""
    words = [sys.executable, "-c", f"import {IMPORTS[contestant.name]}"]
    best = float("inf")
    for _ in range(IMPORTS_PER_ROUND):
        process = subprocess.Popen(words)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        best = min(best, usage.ru_utime + usage.ru_stime)
    return {"CPU ms": best * 1000}


ALL = tuple(CONTESTANTS)
DATAGRAM_TITLES = {
    "plain": "Twisted DatagramProtocol",
    "asyncio": "asyncio DatagramProtocol",
    "uvloop": "DatagramProtocol on uvloop",
}
WITH_UDP = tuple(name for name, contestant in CONTESTANTS.items() if contestant.udp)


def _of_requests(connections: int, depth: int) -> Scenario:
    clients = f"{connections:,} connection{'s' * (connections > 1)}"
    under_way = "one request at a time" if depth == 1 else f"{depth} requests at a time"
    return Scenario(
        f"tcp-{connections}x{depth}",
        f"TCP: {clients}, {under_way}",
        "CPU µs for a request",
        ALL,
        running=partial(requests, connections, depth),
        titles={"redis": "Redis ECHO", "memcached": "memcached version"},
    )


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        *(_of_requests(*load) for load in ((1, 1), (50, 1), (50, 16), (1000, 1))),
        Scenario(
            "udp",
            "UDP: 1 client, 64 datagrams under way",
            "CPU µs for a datagram",
            WITH_UDP,
            running=datagrams,
            titles=DATAGRAM_TITLES,
        ),
        Scenario(
            "udp-bursts",
            "UDP: 1 client, bursts of 64 datagrams",
            "CPU µs for a datagram",
            WITH_UDP,
            running=bursts,
            titles=DATAGRAM_TITLES,
        ),
        Scenario(
            "udp-clients",
            "UDP: 64 clients, one datagram at a time",
            "CPU µs for a datagram",
            WITH_UDP,
            running=datagrams_of_many,
            titles=DATAGRAM_TITLES,
        ),
        Scenario(
            "fairness",
            "Fairness: PING while 4 other clients pipeline",
            "ms, the 99th percentile",
            ALL,
            running=ping_beside_pipelines,
        ),
        Scenario(
            "flood",
            "Fairness: PING over TCP while UDP is flooded",
            "ms, the 99th percentile",
            WITH_UDP,
            running=ping_beside_flood,
        ),
        Scenario(
            "fan-out",
            f"Fan-out: a message to {SUBSCRIBERS:,} subscribers",
            "CPU ms for a message",
            tuple(FANOUT),
            alone=fan_out,
            titles={
                "plain": "Twisted, a loop of write",
                "uvloop": "uvloop, a loop of write",
                "redis": "Redis PUBLISH",
            },
        ),
        Scenario(
            *("memory", f"Memory: {IDLE:,} idle connections", "bytes for a connection", ALL),
            alone=idle_memory,
            once=True,
        ),
        Scenario(
            *("start-up", "Start-up: from the start to the first answer", "ms", ALL),
            alone=first_answer,
        ),
        Scenario(
            "import",
            "Import: one module in a new interpreter",
            "CPU ms",
            tuple(IMPORTS),
            alone=import_time,
            titles=IMPORTS,
        ),
    )
}
"""By name, in the order of the tables."""
