"""
One caching HTTP client under measurement: ``python -m benchmarks.cache_clients NAME URL``.

Each is in a process of its own, since it may be missing (so they are imported by name), and has
its own event loop or none. It prints what it found as JSON: ``us``, CPU microseconds for a fresh
hit of 1 KB with its body, all threads of the process counted; ``requests``, how many 100 callers
for one cold URL made.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

CALLERS = 100
SECONDS = 0.8
"""CPU time that the hits of one measurement take, about."""

Get = Callable[[str], Awaitable[bytes]]


def requests_made(url: str) -> int:
    """Ask the server how often the path of *url* was asked for."""
    with urllib.request.urlopen(url + "?count") as answer:
        return int(answer.read())


class Hits:
    """Says whether there were hits enough, and how long one took."""

    def __init__(self) -> None:
        self._count = 0
        self._begin = time.process_time()

    def enough(self) -> bool:
        """Count ten hits more."""
        self._count += 10
        return time.process_time() - self._begin > SECONDS

    def microseconds(self) -> float:
        """Give the CPU time of one."""
        return (time.process_time() - self._begin) / self._count * 1e6


async def measure(url: str, get: Get, together: Callable[[list[Any]], Awaitable[Any]]) -> None:
    """Measure a client whose calls are awaited."""
    for _ in range(20):
        assert len(await get(f"{url}/warm")) == 1000
    hits = Hits()
    while not hits.enough():
        for _ in range(10):
            await get(f"{url}/warm")
    microseconds = hits.microseconds()
    warm = requests_made(f"{url}/warm")
    await together([get(f"{url}/cold") for _ in range(CALLERS)])
    report(microseconds, warm, requests_made(f"{url}/cold"))


def measure_blocking(url: str, get: Callable[[str], bytes]) -> None:
    """Measure a client whose calls block; many callers are as many threads."""
    for _ in range(20):
        assert len(get(f"{url}/warm")) == 1000
    hits = Hits()
    while not hits.enough():
        for _ in range(10):
            get(f"{url}/warm")
    microseconds = hits.microseconds()
    warm = requests_made(f"{url}/warm")
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(get, [f"{url}/cold"] * CALLERS))
    report(microseconds, warm, requests_made(f"{url}/cold"))


def report(microseconds: float, warm: int, cold: int) -> None:
    """Print the figures; *warm* is 1, or the hits were none."""
    assert warm == 1, f"{warm} requests for a fresh answer"
    print(json.dumps({"us": microseconds, "requests": cold}))


def twisted(main: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run *main* in the reactor."""
    from twisted.internet.task import react

    react(main)


async def together(calls: list[Any]) -> Any:  # Any: coroutines and their results
    """Await coroutines of Twisted's at once."""
    from twisted.internet.defer import Deferred, gatherResults

    return await gatherResults([Deferred.fromCoroutine(call) for call in calls])


def ours(url: str, file: str | None = None) -> None:
    """Measure ``Client.get`` with the defaults, or with a cache in a file."""
    from twisted_net.http.cache.settings import CacheSettings
    from twisted_net.http.client import Client
    from twisted_net.http.settings import HttpSettings

    async def main(reactor: Any) -> None:
        async with Client(reactor, HttpSettings(cache=CacheSettings(file=file))) as client:

            async def get(target: str) -> bytes:
                return (await client.get(target)).body

            await measure(url, get, together)

    twisted(main)


def ours_in_a_file(url: str) -> None:
    """Measure ``Client.get`` with a cache in a file."""
    with tempfile.TemporaryDirectory() as folder:
        ours(url, f"{folder}/cache.sqlite")


def treq_over_ours(url: str) -> None:
    """Measure plain treq over our agent."""
    from treq.client import HTTPClient

    measure_treq(url, HTTPClient)


def treq_of_ours(url: str) -> None:
    """Measure treq's class as this package has it, over our agent."""
    from twisted_net.http.treq import HTTPClient

    measure_treq(url, HTTPClient)


def measure_treq(url: str, kind: Any) -> None:  # Any: treq's class, which may be missing
    """Measure a client of treq's type over our agent."""
    from twisted_net.http.agent import HTTPAgent

    async def main(reactor: Any) -> None:
        agent = HTTPAgent(reactor)
        client = kind(agent)

        async def get(target: str) -> bytes:
            response = await client.get(target, reactor=reactor)
            body: bytes = await response.content()
            return body

        await measure(url, get, together)
        await agent.close()

    twisted(main)


def hishel_httpx(url: str) -> None:
    """Measure hishel's asynchronous client; its one kind of local storage is SQLite."""
    hishel, httpx = import_module("hishel"), import_module("hishel.httpx")

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            storage = hishel.AsyncSqliteStorage(database_path=f"{folder}/hishel.db")
            async with httpx.AsyncCacheClient(storage=storage) as client:

                async def get(target: str) -> bytes:
                    body: bytes = (await client.get(target)).content
                    return body

                await measure(url, get, lambda calls: asyncio.gather(*calls))

    asyncio.run(main())


def requests_cache_memory(url: str) -> None:
    """Measure requests-cache, in memory."""
    with import_module("requests_cache").CachedSession(
        backend="memory", cache_control=True
    ) as session:
        measure_blocking(url, lambda target: session.get(target).content)


def cache_control(url: str) -> None:
    """Measure CacheControl over requests, in memory."""
    session = import_module("requests").Session()
    with import_module("cachecontrol").CacheControl(session):
        measure_blocking(url, lambda target: session.get(target).content)


def aiohttp_cache(url: str) -> None:
    """Measure aiohttp-client-cache, in memory."""
    library = import_module("aiohttp_client_cache")

    async def main() -> None:
        async with library.CachedSession(cache=library.CacheBackend(cache_control=True)) as session:

            async def get(target: str) -> bytes:
                async with session.get(target) as response:
                    body: bytes = await response.read()
                    return body

            await measure(url, get, lambda calls: asyncio.gather(*calls))

    asyncio.run(main())


CLIENTS: dict[str, tuple[str | None, Callable[[str], None]]] = {
    "ours": (None, ours),
    "our treq class": ("treq", treq_of_ours),
    "treq over our agent": ("treq", treq_over_ours),
    "ours, in a file": (None, ours_in_a_file),
    "aiohttp-client-cache": ("aiohttp-client-cache", aiohttp_cache),
    "CacheControl": ("CacheControl", cache_control),
    "requests-cache": ("requests-cache", requests_cache_memory),
    "hishel": ("hishel", hishel_httpx),
}
"""The distribution whose version is named, and what measures it."""


if __name__ == "__main__":
    CLIENTS[sys.argv[1]][1](sys.argv[2])
