"""
Writes entries to a cache file until it is killed: ``python -m tests.live.cache_writer FILE NAME``.

Prints a line once the file is open, and after each entry that is certainly written.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

from tests.http.store_contract import make_entry
from tests.patience import PATIENCE
from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.sqlite_store import SQLiteStore

KEYS = 40
"""The number of entries that each writer rewrites."""


def nth_entry(name: str, number: int) -> Entry:
    """Return an entry whose body states its writer and version, of up to 60 KB."""
    body = f"{name} {number};".encode() * (1 + number * 7919 % 6000)
    return make_entry(body=body, request_time=float(number), variant=name.encode())


async def main(reactor: Any, path: str, name: str) -> None:  # Any: a reactor has many interfaces
    store = SQLiteStore(reactor, path, max_bytes=2**20, read_timeout=PATIENCE)
    number = 0
    while True:
        for _ in range(5):
            number += 1
            store.put(f"{name} {number % KEYS}", nth_entry(name, number))
            if number % 7 == 0:
                store.remove(f"{name} {(number - 3) % KEYS}")
        if number % 2:
            await store.flush()
        else:
            await store.get(f"{name} 1")
        sys.stdout.write(f"{number} {store.dropped} {store.read_timeouts}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    react(main, sys.argv[1:])
