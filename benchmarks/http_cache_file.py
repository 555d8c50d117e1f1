"""
What a hit in a cache file costs: ``python -m benchmarks.http_cache_file``.

The CPU time, all threads of the process counted, of ``client.get`` for a fresh response of 1 KB
that is in memory, in the memory tier of a file, and in the file alone; one at a time and 50 at
once. Beside it what the store alone takes to answer. ``--before DIRECTORY`` measures the package
in another checkout in turn, and prints what part of its time is left.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

URLS = 900
AT_ONCE = 50
CALLS = 1500

Ask = Callable[[str], Awaitable[Any]]


async def microseconds(ask: Ask, at_once: int) -> float:
    """Return the CPU time of one call, in microseconds."""
    from twisted.internet.defer import Deferred, gatherResults

    def begun(url: str) -> Any:  # Any: Deferred is generic, and Twisted's is imported late
        asked: Any = ask(url)
        return asked if isinstance(asked, Deferred) else Deferred.fromCoroutine(asked)

    begin = time.process_time()
    for number in range(0, CALLS, at_once):
        urls = [f"http://localhost/{(number + each) % URLS}" for each in range(at_once)]
        if at_once == 1:
            await ask(urls[0])
        else:
            await gatherResults([begun(url) for url in urls])
    return (time.process_time() - begin) / CALLS * 1e6


async def measure(reactor: Any, folder: str) -> dict[str, float]:
    """Return the figures of one round."""
    from twisted_net.http.cache.entry import CacheRequest, ReceiptTimes
    from twisted_net.http.cache.rules import Rules
    from twisted_net.http.cache.settings import CacheSettings
    from twisted_net.http.cache.stores import open_store
    from twisted_net.http.client import Client
    from twisted_net.http.fields import HeaderFields
    from twisted_net.http.settings import HttpSettings

    now = time.time() - 60
    times = ReceiptTimes(now, now, now)
    fields = HeaderFields(
        [("Content-Type", "application/json"), ("Cache-Control", "max-age=3600"), ("ETag", '"1"')]
    )
    request = CacheRequest("GET", "http://localhost/", HeaderFields())
    entry = Rules(CacheSettings()).make_entry(request, 200, "OK", fields, bytes(1000), times)
    kinds: dict[str, dict[str, Any]] = {"memory": {}, "file": {"file": f"{folder}/cache.sqlite"}}
    if "max_memory" in CacheSettings.__struct_fields__:
        kinds["tier"] = kinds["file"]
        kinds["file"] = {**kinds["file"], "max_memory": 0}
    found: dict[str, float] = {}
    for kind, options in kinds.items():
        store: Any = open_store(reactor, CacheSettings(**options))
        client = Client(reactor, HttpSettings(), store=store)
        if kind != "tier":  # the file has them by then
            for number in range(URLS):
                store.put(f"http://localhost/{number}", entry)
        if kind == "file":
            await store.flush()
        for number in range(URLS):
            assert (await client.get(f"http://localhost/{number}")).from_cache
        for at_once in (1, AT_ONCE):
            found[f"{kind}, {at_once}"] = await microseconds(client.get, at_once)
        if kind == "file":
            for at_once in (1, AT_ONCE):
                found[f"its store, {at_once}"] = await microseconds(store.get, at_once)
        await client.close()
    return found


def child() -> None:
    """Print the figures of one round as JSON."""
    from twisted.internet.task import react

    async def main(reactor: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(await measure(reactor, folder)))

    react(main)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--before", metavar="DIRECTORY", help="another checkout to compare with")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child()
        return
    sources = {"now": os.getcwd(), "before": options.before}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name, path in sources.items() if path}
    for _ in range(options.rounds):
        for name, found in rounds.items():
            environment = {**os.environ, "PYTHONPATH": sources[name]}
            words = [sys.executable, __file__, "--child"]
            found.append(json.loads(subprocess.check_output(words, env=environment, text=True)))
    print(f"A hit of 1 KB, medians of {options.rounds} rounds; ratios are those of each round")
    print(f"{'where, calls at once':24}{'CPU µs':>10}{'of memory':>12}{'of before':>12}")
    for what in rounds["now"][0]:
        columns = f"{statistics.median(each[what] for each in rounds['now']):10.1f}"
        memory = "memory, 1" if what.endswith(", 1") else f"memory, {AT_ONCE}"
        columns += f"{statistics.median(each[what] / each[memory] for each in rounds['now']):12.2f}"
        if "before" in rounds and what in rounds["before"][0]:
            pairs = zip(rounds["now"], rounds["before"], strict=True)
            columns += f"{statistics.median(a[what] / b[what] for a, b in pairs):12.2f}"
        print(f"{what:24}{columns}")


if __name__ == "__main__":
    main()
