"""
Changes entries of a cache file until it is killed: ``python -m tests.live.cache_tier_writer FILE``.

Each entry has a ``request_time`` of its own, by which it is known again. A URL has one entry or
none; most changes are those of few URLs, and some evict others. Prints a line after each change
that is certainly in the file.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from twisted.internet.task import react

from tests.http.store_contract import make_entry
from tests.patience import PATIENCE
from twisted_net.http.cache.sqlite_store import SQLiteStore

URLS = tuple(f"http://localhost/{number}" for number in range(8))
"""The URLs that all processes change."""

MAX_ENTRIES = 6


async def main(reactor: Any, path: str) -> None:  # Any: a reactor has many interfaces
    store = SQLiteStore(reactor, path, max_entries=MAX_ENTRIES, read_timeout=PATIENCE)
    while True:
        for url in random.sample(URLS, random.choice([1, 1, 1, 2, 5])):
            if random.random() < 0.1:
                store.remove(url)
            else:
                # Some are read by a blob, the others with their rows.
                size = random.choice([1000, 2000, 100_000])
                store.put(url, make_entry(size, request_time=random.random()))
        if random.random() < 0.5:
            await store.get(random.choice(URLS))
        await store.flush()
        sys.stdout.write(f"written {store.dropped}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    react(main, sys.argv[1:])
