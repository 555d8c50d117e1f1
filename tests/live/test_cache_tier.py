"""The memory tier of a cache file, while other processes change the file and are killed."""

from __future__ import annotations

import random
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from tests.http.store_contract import make_entry
from tests.live.cache_tier_writer import MAX_ENTRIES, URLS
from tests.live.processes import Running
from tests.patience import PATIENCE
from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.serialization import decode_head
from twisted_net.http.cache.sqlite_store import SQLiteStore

ROOT = Path(__file__).resolve().parents[2]
HITS = 1000
"""Answers out of memory that are compared with the file, in each round."""

CHANGES = 20
"""Changes by others that are seen, at least, in each round."""

ROUNDS = 3


class Visible:
    """What is in a file, as SQLite shows it to a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        self.close = self._database.close

    def times(self, url: str) -> list[float]:
        """Return the ``request_time`` of the entries of a URL."""
        rows = self._database.execute(
            "SELECT head FROM entries WHERE url = (SELECT id FROM urls WHERE url = ?)", (url,)
        )
        return [decode_head(head, b"").request_time for (head,) in rows.fetchall()]


def times(entries: Any) -> list[float]:  # Any: a sequence of entries
    """Return the ``request_time`` of entries."""
    found: list[Entry] = list(entries)
    return [entry.request_time for entry in found]


def writer(reactor: Any, path: Path) -> Running:  # Any: many interfaces in one
    """Start a process that changes the file."""
    return Running(reactor, [sys.executable, "-m", "tests.live.cache_tier_writer", str(path)], ROOT)


async def compare(reactor: Any, store: SQLiteStore, visible: Visible) -> None:
    """
    Fail where memory has what the file had before, and has no more.

    The file is looked at first. Only if it is changed between the two looks may they differ; then
    memory has something that was not seen in the file before.
    """
    hits, changes = 0, 0
    seen: dict[str, list[list[float]]] = {url: [[]] for url in URLS}
    while hits < HITS or changes < CHANGES:  # the test's own limit ends it
        for url in random.choices(URLS, k=50):
            before = visible.times(url)
            near = store.get_from_memory(url)
            if before != seen[url][-1]:
                changes += 1
                seen[url].append(before)
            if near is None:
                await store.get(url)
                continue
            hits += 1
            found = times(near)
            if found != before:
                assert visible.times(url) != before, (url, found, before)
                assert not found or found not in seen[url], (url, found, before)
        if random.random() < 0.2:
            # What this process writes is visible, too, before it is compared.
            store.put(random.choice(URLS), make_entry(request_time=random.random()))
            await store.flush()
        await deferLater(reactor, 0)


async def test_never_stale(reactor: Any, tmp_path: Path) -> None:
    """
    No entry comes out of memory once another process's change of it is in the file.

    Two processes write, and are killed at any moment.
    """
    path = tmp_path / "cache.sqlite"
    store = SQLiteStore(reactor, path, max_entries=MAX_ENTRIES, read_timeout=PATIENCE)
    await store.get(URLS[0])
    visible = Visible(path)
    for _ in range(ROUNDS):
        async with writer(reactor, path) as one, writer(reactor, path) as two:
            for each in (one, two):
                await each.logged("written 0\n")
            await compare(reactor, store, visible)
            for each in (one, two):
                each.signal(signal.SIGKILL)
                ended = await each.ended()
                assert ended.status == -signal.SIGKILL, ended
                assert set(ended.stdout.splitlines()[:-1]) == {"written 0"}
        # Whatever they were about to write: memory and file agree, and memory answers again.
        store.put("http://localhost/own", make_entry())
        await store.flush()
        for url in URLS:
            assert times(await store.get(url)) == visible.times(url)
            near = store.get_from_memory(url)
            assert near is not None
            assert times(near) == visible.times(url)
        store.remove("http://localhost/own")
        await store.flush()
    # A write that finds the file busy is counted, and made again.
    assert (store.dropped, store.read_timeouts) == (0, 0)
    visible.close()
    await store.close()
