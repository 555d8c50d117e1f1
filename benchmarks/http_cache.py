"""
What a cache costs: ``python -m benchmarks.http_cache``, after ``pip install twisted_net[bench]``.

Three measurements, the first two of ours and of four other caches in turn, over interleaved
rounds, against one server on loopback:

- the CPU time of a fresh hit of 1 KB, its body read;
- how many requests 100 callers for one cold URL make;
- how long the store in an SQLite file holds the reactor, beside the store in memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.cache_clients import CALLERS, CLIENTS
from benchmarks.options import bounded_number

OURS = ("ours", "our treq class", "treq over our agent", "ours, in a file")
COLD_SECONDS = 0.3
"""How long the server takes to answer for a cold URL."""


def serve(ready: Connection) -> None:
    """Answer each path with 1 KB that is fresh for an hour, and count requests by path."""
    counts: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if query == "count":
                body = str(counts[path]).encode()
            else:
                counts[path] += 1
                if path.endswith("/cold"):
                    time.sleep(COLD_SECONDS)
                body = b"x" * 1000
            self.send_response(200)
            for name, value in (
                ("Content-Type", "application/json"),
                ("Cache-Control", "no-store" if query else "max-age=3600"),
                ("ETag", '"1"'),
                ("Vary", "Accept"),
                ("Content-Length", str(len(body))),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 512

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing: clients that end drop their connections."""

    server = Server(("127.0.0.1", 0), Handler)
    ready.send(server.server_address[1])
    server.serve_forever()


def measured(name: str, url: str) -> dict[str, float] | str:
    """Measure a client in a process of its own: the figures, or why there are none."""
    words = [sys.executable, "-m", "benchmarks.cache_clients", name, url]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "no end within 60 s"
    if ended.returncode:
        return (ended.stderr.strip().splitlines() or ["no word"])[-1]
    figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def compare(rounds: int) -> None:
    """Measure all clients, and print the table."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(target=serve, args=(sender,), daemon=True)
    server.start()
    port = receiver.recv()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
    missing: dict[str, str] = {}
    for round_ in range(rounds):
        for number, name in enumerate(CLIENTS):
            figures = measured(name, f"http://127.0.0.1:{port}/{round_}-{number}")
            if isinstance(figures, str):
                missing[name] = figures
            else:
                found[name].append(figures)
    server.terminate()
    server.join()
    times = {
        name: statistics.median(each["us"] for each in figures)
        for name, figures in found.items()
        if figures
    }
    rivals = [taken for name, taken in times.items() if name not in OURS]
    fastest = min(rivals, default=None)
    print(f"A fresh hit, medians of {rounds} rounds; {CALLERS} callers for one cold URL")
    print(f"{'client':30}{'CPU µs a hit':>14}{'fastest rival / it':>20}{'requests':>10}")
    for name in CLIENTS:
        if name not in times:
            print(f"{named(name):30}  not measured: {missing[name]}")
            continue
        ratio = f"{fastest / times[name]:.1f}" if fastest is not None else ""
        cold = max(each["requests"] for each in found[name])
        print(f"{named(name):30}{times[name]:14.1f}{ratio:>20}{cold:10.0f}")


def named(name: str) -> str:
    """Give the name of a client with its version."""
    distribution = CLIENTS[name][0]
    try:
        return name if distribution is None else f"{name} ({version(distribution)})"
    except PackageNotFoundError:
        return name


class Stopwatch:
    """
    Notes how long the reactor's thread was held in some calls and in each turn, in ms.

    The time that it waited for a processor, which others had, is taken off: it tells nothing of
    the store. The time that it waited for the store's thread, for a lock or for the
    interpreter's, is not. On a busy or virtual machine that thread, too, waits for a processor;
    so what the reactor's thread computed is noted as well: the difference is waiting.
    """

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {
            name: [] for name in ("calls", "calls, CPU", "turns", "turns, CPU")
        }
        self._thread = threading.get_ident()
        self._schedule = os.open(
            f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY
        )
        self.start()

    def start(self) -> None:
        """Begin with a turn that is not noted."""
        self._turn = self._now()

    def _now(self) -> tuple[float, float]:
        """Seconds, without those that the thread could have run but did not; and of its CPU."""
        waited = int(os.pread(self._schedule, 64, 0).split()[1])
        return time.perf_counter() - waited / 1e9, time.thread_time()

    def _note(self, what: str, begin: tuple[float, float]) -> None:
        now = self._now()
        self.found[what].append((now[0] - begin[0]) * 1000)
        self.found[f"{what}, CPU"].append((now[1] - begin[1]) * 1000)

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Give *function*, timed when it is called in the reactor's thread."""

        def call(*args: Any) -> Any:
            begin = self._now()
            try:
                return function(*args)
            finally:
                if threading.get_ident() == self._thread:
                    self._note("calls", begin)

        return call

    def turn(self) -> None:
        """Note that the reactor has begun another turn."""
        self._note("turns", self._turn)
        self._turn = self._now()


async def use(reactor: Any, store: Any, watch: Stopwatch, puts: int) -> None:
    """Put and get thousands of entries, some of 1 MiB, and time each turn of the reactor."""
    from attrs import evolve
    from twisted.internet.defer import gatherResults, maybeDeferred
    from twisted.internet.task import LoopingCall, deferLater

    from twisted_net.http.cache.entry import CacheRequest, ReceiptTimes
    from twisted_net.http.cache.rules import Rules
    from twisted_net.http.cache.settings import CacheSettings
    from twisted_net.http.fields import HeaderFields

    request = CacheRequest("GET", "http://localhost/", HeaderFields())
    fields = HeaderFields([("Cache-Control", "max-age=60"), ("ETag", '"1"'), ("Vary", "Accept")])
    times = ReceiptTimes(0.0, 0.0, 0.0)
    small = Rules(CacheSettings()).make_entry(request, 200, "OK", fields, bytes(1000), times)
    large = evolve(small, body=bytes(2**20))
    put, get = watch.timed(store.put), watch.timed(store.get)
    turns = LoopingCall(watch.turn)
    turns.clock = reactor
    watch.start()
    turned = turns.start(0, now=False)
    for number in range(puts // 5):
        for each in range(5):
            key = f"http://localhost/{(number * 5 + each) % 900}"
            put(key, large if number % 20 == 0 and each == 0 else small)
        keys = [f"http://localhost/{(number * 7 + each) % 900}" for each in range(5)]
        await gatherResults([maybeDeferred(get, key) for key in keys])
        await deferLater(reactor, 0)
    turns.stop()
    await turned


def hold(puts: int, kind: str) -> None:
    """Print how long the reactor was held while a store was used."""
    from twisted.internet.task import react

    from twisted_net.http.cache.sqlite_store import SQLiteStore
    from twisted_net.http.cache.stores import MemoryStore

    async def main(reactor: Any) -> None:
        watch = Stopwatch()
        with tempfile.TemporaryDirectory() as folder:
            if kind == "memory":
                await use(reactor, MemoryStore(), watch, puts)
            else:
                store = SQLiteStore(reactor, f"{folder}/cache.sqlite")
                # What hands the results of a read to those who wait runs in the reactor too.
                store._take = watch.timed(store._take)  # type: ignore[method-assign]
                await use(reactor, store, watch, puts)
                await store.close()
        print(json.dumps(watch.found))

    # Before all others, where the system lets us: one that takes the processor from the store's
    # thread makes the reactor wait for what that holds. (Real-time priorities are throttled.)
    with suppress(PermissionError):
        os.nice(-20)
    # Python's collector stops all threads, whichever allocates: 22 ms over all that was imported.
    gc.collect()
    gc.freeze()
    react(main)


def compare_holds(rounds: int, puts: int) -> None:
    """Measure both stores, and print the table."""
    print(f"\nThe reactor's thread in {puts} puts and gets, {puts // 100} of 1 MiB: ms")
    print(f"{'store':10}{'':12}{'p50':>9}{'p99.9':>9}{'p99.99':>9}{'longest':>9}{'over 1 ms':>18}")
    for kind in ("memory", "file"):
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            words = [sys.executable, "-m", "benchmarks.http_cache", "--hold", kind]
            output = subprocess.check_output([*words, f"--puts={puts}"], text=True)
            for what, values in json.loads(output).items():
                found.setdefault(what, []).extend(values)
        for what, values in found.items():
            values.sort()
            quantiles = [values[int(len(values) * part)] for part in (0.5, 0.999, 0.9999)]
            columns = "".join(f"{value:9.3f}" for value in (*quantiles, values[-1]))
            over = f"{sum(value > 1 for value in values)} of {len(values)}"
            print(f"{kind:10}{what:12}{columns}{over:>18}")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=bounded_number(int, 1, 100_000), default=5)
    parser.add_argument("--puts", type=bounded_number(int, 1, 100_000), default=5000)
    parser.add_argument("--hold", choices=["memory", "file"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold:
        hold(options.puts, options.hold)
        return
    os.environ["PYTHONPATH"] = os.getcwd()
    compare(options.rounds)
    compare_holds(options.rounds, options.puts)


if __name__ == "__main__":
    main()
