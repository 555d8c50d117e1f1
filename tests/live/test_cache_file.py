"""The cache in a file: with a reactor, with several processes, and with processes that die."""

from __future__ import annotations

import random
import re
import signal
import sqlite3
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tests.http.store_contract import make_entry
from tests.live.cache_writer import KEYS, nth_entry
from tests.live.processes import Running
from tests.patience import PATIENCE
from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.cache.sqlite_store import SQLiteStore
from twisted_net.http.cache.stores import open_store
from twisted_net.http.client import Client
from twisted_net.http.settings import HttpSettings

ROOT = Path(__file__).resolve().parents[2]


opened = partial(SQLiteStore, read_timeout=PATIENCE, close_timeout=PATIENCE)
"""A store that waits for a busy disk; an impatient one finds nothing, as it should."""


def writer(reactor: Any, path: Path, name: str) -> Running:  # Any: many interfaces in one
    """Start a process that writes into the file."""
    words = [sys.executable, "-m", "tests.live.cache_writer", str(path), name]
    return Running(reactor, words, ROOT)


async def entries(store: SQLiteStore, name: str) -> list[Entry]:
    """Give all entries of one writer; each must be one that it has put, under its key."""
    found = []
    for place in range(KEYS):
        for entry in await store.get(f"{name} {place}"):
            number = int(entry.request_time)
            assert number % KEYS == place
            assert entry == nth_entry(name, number)
            found.append(entry)
    return found


def names(folder: Path) -> Iterator[str]:
    """Give the names of the files that a cache does not always have."""
    for each in folder.iterdir():
        if not re.search(r"sqlite(-wal|-shm|-lock|-stamps)?$", each.name):
            yield each.name


async def test_killed_at_any_moment(reactor: Any, tmp_path: Path) -> None:
    """A file whose process was killed opens, is whole, and has what was flushed."""
    path = tmp_path / "cache.sqlite"
    draw = random.Random(9111)
    latest = 0
    for _ in range(8):
        async with writer(reactor, path, "w") as process:
            await process.logged(rf"(\d+ \d+ \d+\n){{{draw.randint(2, 9)}}}")
            await deferLater(reactor, draw.random() * 0.02)
            process.signal(signal.SIGKILL)
            ended = await process.ended()
        assert ended.status == -signal.SIGKILL, ended
        assert not ended.stderr
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
        store = opened(reactor, path)
        found = await entries(store, "w")
        assert found
        assert store.failures == 0
        await store.close()
        assert list(names(tmp_path)) == []
        latest = max(latest, *(int(entry.request_time) for entry in found))
    assert latest > 5


async def test_killed_before_anything_is_written(reactor: Any, tmp_path: Path) -> None:
    """The same for a process that is killed while it makes the file."""
    draw = random.Random(9211)
    for round_ in range(4):
        path = tmp_path / f"{round_}.sqlite"
        async with writer(reactor, path, "w") as process:
            while not path.exists():  # the test's own limit ends it
                await deferLater(reactor, 0.001)
            await deferLater(reactor, draw.random() * 0.01)
            process.signal(signal.SIGKILL)
            await process.ended()
        store = opened(reactor, path)
        await entries(store, "w")
        store.put("k", make_entry())
        await store.flush()
        assert len(await store.get("k")) == 1
        assert (store.failures, store.dropped) == (0, 0)
        await store.close()
    assert list(names(tmp_path)) == []


async def test_several_processes(reactor: Any, tmp_path: Path) -> None:
    """Processes write into one file at once; all that is found is whole, and bounds hold."""
    path = tmp_path / "cache.sqlite"
    store = opened(reactor, path, max_bytes=2**20)
    async with (
        writer(reactor, path, "a") as a,
        writer(reactor, path, "b") as b,
        writer(reactor, path, "c") as c,
    ):
        await gatherResults([each.logged(r"\d+ \d+ \d+\n") for each in (a, b, c)])
        found: set[str] = set()
        while found != {"a", "b", "c"}:  # the test's own limit ends it
            found |= {name for name in "abc" if await entries(store, name)}
            store.put("reader", make_entry())
        for each in (a, b, c):
            each.signal(signal.SIGKILL)
            ended = await each.ended()
            assert ended.stdout.splitlines()[-1].endswith(" 0 0"), ended
    await store.flush()
    assert len(await store.get("reader")) == 1
    assert (store.dropped, store.read_timeouts) == (0, 0)
    await store.close()
    connection = sqlite3.connect(path)
    count, total = connection.execute("SELECT count(*), sum(size) FROM entries").fetchone()
    assert connection.execute("SELECT entries, bytes FROM totals").fetchall() == [(count, total)]
    assert total <= 2**20
    connection.close()
    assert list(names(tmp_path)) == []


async def test_many_at_once(reactor: Any, tmp_path: Path) -> None:
    """Many reads at once all find what was put, and cancelled ones leave nothing."""
    store = open_store(reactor, CacheSettings(file=str(tmp_path / "cache.sqlite")))
    assert isinstance(store, SQLiteStore)
    for number in range(300):
        store.put(f"{number}", make_entry(600 + number))
    reads = [store.get(f"{number}") for number in range(300)]
    waste: list[Deferred[Any]] = [store.get("waste") for _ in range(50)]
    for each in waste:
        each.addErrback(lambda _: None)
        each.cancel()
    for number, found in enumerate(await gatherResults(reads)):
        assert [entry.size for entry in found] == [600 + number]
    await store.close()


async def test_client_without_use(reactor: Any, tmp_path: Path) -> None:
    """A client that makes no request makes no file, and closes."""
    path = tmp_path / "cache.sqlite"
    settings = HttpSettings(cache=CacheSettings(file=str(path)))
    async with Client(reactor, settings):
        pass
    assert list(tmp_path.iterdir()) == []


class Page(Resource):
    """Says nothing of how long it is fresh, and counts."""

    isLeaf = True
    count = 0

    def render_GET(self, request: Request) -> bytes:
        self.count += 1
        return b"page %d" % self.count


async def test_example(reactor: Any, tmp_path: Path) -> None:
    """The example has its answer from the server first, and then out of the file."""
    page = Page()
    port = reactor.listenTCP(0, Site(page), interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}/"
    words = [sys.executable, "http_cache_file.py", str(tmp_path / "cache.sqlite"), url]
    for from_cache in (False, True):
        async with Running(reactor, words, ROOT / "examples") as example:
            ended = await example.ended()
        assert ended.stdout == f"200 page 1\nfrom the cache: {from_cache}\n", ended
        assert ended.status == 0
    assert page.count == 1
    await port.stopListening()
