"""
A store of the cache in an SQLite file, which outlives the process and may be shared by several.

Nothing here calls sqlite3: all of that is in :mod:`twisted_net.http.cache.sqlite_file`, and runs
in one thread, which the store starts when it is first used and ends when it is closed.
"""

from __future__ import annotations

import _thread
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.sqlite_file import (
    BATCH_BYTES,
    BATCH_URLS,
    FAILURES,
    Batch,
    CacheFile,
    Change,
    is_busy,
)

log = Logger()

MAX_CHANGED = 10_000
"""Most URLs with changes that wait for the file; beyond it, everything in it is forgotten."""

MAX_READS = 10_000
"""Most reads that wait for the file; one above it finds nothing."""

MAX_USED = 256
"""URLs whose use is remembered until the file is written, and after which it is written."""

READS_PER_ROUND = 16
"""Most reads between two transactions, while both wait."""

GATHER = 0.05
"""Seconds that a write waits for others; a killed process loses what came in them."""

RETRY_AFTER = 10.0
"""Seconds until a write that failed is tried again; if the file was only busy, at once."""

WARNING_INTERVAL = 60.0
"""Seconds in which one failure is logged; the others are counted."""


class SQLiteStore:
    """
    A :class:`~twisted_net.http.cache.stores.Store` in a file; what was unused for
    longest is evicted first.

    It never fails: where the file cannot be read or written, there is no cache for a while,
    which is counted and, once a minute, logged. Its bounds hold for the file, and a moment after
    an entry was put. They are those of :class:`~twisted_net.http.cache.stores.MemoryStore`; the
    file is somewhat larger, and does not shrink when they are lowered.

    The file is made with mode 0600, since answers may be private, and beside it SQLite's own
    (``-wal``, ``-shm``) and ``-lock``, which tells the processes that have it open of each other.
    All must be on a local disk. Processes with other bounds each apply their own.

    :param reactor: any; its thread pool is left alone.
    :param path: its directory must exist.
    :param max_entries: most entries; :param max_bytes: most bytes; :param max_variants: most
        entries under one key.
    :param max_waiting: most entries that wait to be written; :param max_waiting_bytes: likewise.
        What is put beyond is dropped, and what was stored in its place removed.
    :param patience: seconds after which a read that waits for the disk finds nothing.
    :param close_patience: seconds in which :meth:`close` has written what waits; what is left
        then is lost.
    :ivar dropped: entries that were not kept, for too many waited or the file failed.
    :ivar failures: reads and writes of the file that failed.
    :ivar late: reads that found nothing because the disk took too long.
    """

    MAX_WAITING_BYTES = 16 * 2**20

    def __init__(
        self,
        reactor: Any,  # Any: IReactorTime and IReactorFromThreads in one
        path: str | Path,
        max_entries: int = 1000,
        max_bytes: int = 64 * 2**20,
        max_variants: int = 64,
        *,
        max_waiting: int = 1000,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        patience: float = 1.0,
        close_patience: float = 5.0,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> None:
        self._reactor = reactor
        # Absolute: twistd changes the working directory when it becomes a daemon.
        self._path = os.path.abspath(path)
        self._max_bytes = max_bytes
        self._max_variants = min(max_variants, max_entries)
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._patience = patience
        self._close_patience = close_patience
        self._file = CacheFile(
            self._path, max_entries, max_bytes, self._max_variants, warn=self._warn, connect=connect
        )
        self._ended = threading.Event()
        # The condition guards all below it but what says so.
        self._condition = threading.Condition()
        self._reads: deque[tuple[str, Deferred[Sequence[Entry]]]] = deque()
        self._in_hand: list[tuple[str, Deferred[Sequence[Entry]]]] = []
        self._changes: dict[str, Change] = {}
        self._entries_waiting = 0
        self._bytes_waiting = 0
        self._everything_removed = False
        self._used: dict[str, None] = {}
        self._write_at: float | None = None
        self._overfull = False
        self._failing = False
        self._flushes: list[Deferred[None]] = []
        self._started = False
        self._closing = False
        self.dropped = 0
        self.failures = 0
        self.late = 0  # of the reactor's thread alone, as are the next two
        self._warned_at: float | None = None
        self._unlogged = 0

    def get(self, key: str) -> Deferred[Sequence[Entry]]:
        """Give the entries under *key*, newest last. It never fails, and may be cancelled."""
        found: Deferred[Sequence[Entry]] = Deferred()
        with self._condition:
            if self._closing or len(self._reads) >= MAX_READS:
                return succeed(())
            self._reads.append((key, found))
            self._note_use(key)
            self._wake()
        return found.addTimeout(self._patience, self._reactor, self._too_late)

    def put(self, key: str, entry: Entry) -> None:
        if entry.size > self._max_bytes:
            self.remove(key)
            return
        with self._condition:
            if (
                self._entries_waiting >= self._max_waiting
                or self._bytes_waiting + entry.size > self._max_waiting_bytes
            ):
                self.dropped += 1
                # It would have replaced something, which is not to be served instead.
                self._add(key, Change(removed=True))
            else:
                self._add(key, Change(removed=False, entries=(entry,)))
                self._note_use(key)
            self._wake()

    def remove(self, key: str) -> None:
        with self._condition:
            self._add(key, Change(removed=True))
            self._wake()

    def flush(self) -> Deferred[None]:
        """Wait until all that was put or removed before is in the file, or could not be."""
        flushed: Deferred[None] = Deferred()
        with self._condition:
            if not self._started or self._closing:
                return succeed(None)
            self._failing = False
            self._flushes.append(flushed)
            self._wake()
        return flushed

    def close(self) -> Deferred[None]:
        """
        Write what waits, and end the thread.

        What takes longer than the patience for it, because the disk hangs, is given up; the
        thread then ends with the disk's answer, or with the process.
        """
        flushed = self.flush()
        with self._condition:
            self._closing = True
            self._condition.notify()
        return flushed.addTimeout(self._close_patience, self._reactor, self._not_flushed)

    # In the reactor's thread, with the condition held.

    def _add(self, key: str, change: Change) -> None:
        if self._closing:
            return
        older = self._changes.get(key)
        if older is None and len(self._changes) >= MAX_CHANGED:
            # What was removed must not come back. When even that is too much to remember,
            # nothing that is in the file may.
            self.dropped += self._entries_waiting
            self._changes.clear()
            self._entries_waiting = self._bytes_waiting = 0
            self._everything_removed = True
        self._set(key, change.after(older, self._max_variants))
        if self._write_at is None:
            self._write_at = time.monotonic() + GATHER

    def _set(self, key: str, change: Change) -> None:
        self._take(key)
        self._changes[key] = change
        self._entries_waiting += len(change.entries)
        self._bytes_waiting += change.size

    def _take(self, key: str) -> Change | None:
        change = self._changes.pop(key, None)
        if change is not None:
            self._entries_waiting -= len(change.entries)
            self._bytes_waiting -= change.size
        return change

    def _note_use(self, key: str) -> None:
        self._used.pop(key, None)
        self._used[key] = None
        if len(self._used) > MAX_USED:
            del self._used[next(iter(self._used))]
        if len(self._used) == MAX_USED and self._write_at is None:
            self._write_at = time.monotonic() + GATHER

    def _wake(self) -> None:
        """Start the thread, or tell it that there is something to do."""
        if self._closing:
            return
        if not self._started:
            self._started = True
            # Not threading.Thread, whose start() waits until the thread runs: 14 ms and more on
            # a busy machine. Neither keeps a process that forgets to close the store.
            _thread.start_new_thread(self._run, ())
        else:
            self._condition.notify()

    # In the reactor's thread.

    def _too_late(self, value: object, seconds: float) -> Sequence[Entry]:
        self.late += 1
        self._failed(f"it did not answer within {seconds:g} s")
        return ()

    def _not_flushed(self, value: object, seconds: float) -> None:
        with self._condition:
            self._failing = True  # so that the thread ends
        log.warn(
            "cache file {path}: what waited was not written within {seconds:g} s",
            path=self._path,
            seconds=seconds,
        )

    def _failed(self, reason: str) -> None:
        """Log a failure, unless one was logged a moment ago."""
        now = self._reactor.seconds()
        if self._warned_at is not None and now - self._warned_at < WARNING_INTERVAL:
            self._unlogged += 1
            return
        log.warn(
            "cache file {path}: {reason} ({unlogged} more of its failures were not logged)",
            path=self._path,
            reason=reason,
            unlogged=self._unlogged,
            failures=self.failures,
            dropped=self.dropped,
        )
        self._warned_at = now
        self._unlogged = 0

    def _fire(self, results: Sequence[tuple[Deferred[Any], Any]]) -> None:
        for waiting, value in results:
            if not waiting.called:
                waiting.callback(value)

    # In the thread of the store.

    def _run(self) -> None:
        try:
            while self._round():
                pass
        except Exception:
            # A bug of ours: there is no cache from here on, and whoever waits is told.
            self._reactor.callFromThread(log.failure, "the cache file's thread", Failure())
        finally:
            self._file.close()
            with self._condition:
                self._closing = True
                # Those in hand that are answered already are passed over.
                reads = [*self._in_hand, *self._reads]
                left: list[tuple[Deferred[Any], Any]] = [(each, ()) for _, each in reads]
                left += [(each, None) for each in self._flushes]
                self._reads.clear()
            self._reactor.callFromThread(self._fire, left)
            self._ended.set()

    def _round(self) -> bool:
        """Wait for something to do, do some of it, and say whether there will be more."""
        with self._condition:
            while not (self._reads or self._write_due() or self._flushes or self._closing):
                self._condition.wait(self._until_write())
            count = min(len(self._reads), READS_PER_ROUND)
            reads = self._in_hand = [self._reads.popleft() for _ in range(count)]
        if reads:
            self._answer(reads)
        # Only now: a read must see what waits to be written.
        with self._condition:
            batch = self._next_batch() if self._write_due() else None
        if batch is not None:
            self._write(batch)
        with self._condition:
            if self._flushes and not self._write_due():
                if self._closing:
                    return bool(self._reads)
                self._reactor.callFromThread(self._fire, [(each, None) for each in self._flushes])
                self._flushes = []
        return True

    def _write_due(self) -> bool:
        if self._flushes:
            return not self._failing and bool(
                self._changes or self._used or self._everything_removed or self._overfull
            )
        return self._write_at is not None and time.monotonic() >= self._write_at

    def _until_write(self) -> float | None:
        return None if self._write_at is None else max(0.0, self._write_at - time.monotonic())

    def _next_batch(self) -> Batch:
        batch = Batch(everything_removed=self._everything_removed, used=list(self._used))
        self._everything_removed = False
        self._used = {}
        size = 0
        for key in list(islice(self._changes, BATCH_URLS)):
            if size >= BATCH_BYTES:
                break
            change = self._take(key)
            assert change is not None
            batch.changes[key] = change
            size += change.size
        return batch

    def _answer(self, reads: Sequence[tuple[str, Deferred[Sequence[Entry]]]]) -> None:
        results = []
        for key, waiting in reads:
            if waiting.called:
                continue  # cancelled, or too late
            entries: Sequence[Entry] = ()
            try:
                entries = self._file.read(key)
            except FAILURES as error:
                self._count(error)
            with self._condition:
                # Nothing was written since, as that is done in this thread.
                if self._everything_removed:
                    entries = ()
                change = self._changes.get(key)
            if change is not None:
                entries = change.over(entries, self._max_variants)
            results.append((waiting, entries))
        self._reactor.callFromThread(self._fire, results)

    def _write(self, batch: Batch) -> None:
        try:
            overfull = self._file.write(batch)
        except FAILURES as error:
            busy = is_busy(error)
            self._put_back(batch, with_entries=busy)
            with self._condition:
                self._failing = not busy
                self._write_at = time.monotonic() + (0.0 if busy else RETRY_AFTER)
            self._count(error)
            return
        with self._condition:
            self._failing = False
            self._overfull = overfull
            more = self._changes or self._everything_removed or overfull
            self._write_at = time.monotonic() if more else None

    def _put_back(self, batch: Batch, *, with_entries: bool) -> None:
        """
        Let a batch that was not written wait again.

        :param with_entries: False where they are dropped, so that they do not fill the memory
            while the file fails; what they replace must still be removed.
        """
        with self._condition:
            waiting = [] if self._everything_removed else list(batch.changes.items())
            self._everything_removed |= batch.everything_removed
            for key, change in waiting:
                kept = change
                if not with_entries:
                    self.dropped += len(change.entries)
                    kept = Change(removed=True)
                newer = self._changes.get(key)
                self._set(key, kept if newer is None else newer.after(kept, self._max_variants))

    def _count(self, error: BaseException) -> None:
        with self._condition:
            self.failures += 1
        self._reactor.callFromThread(self._failed, f"{error}")

    def _warn(self, text: str) -> None:
        self._reactor.callFromThread(
            log.warn, "cache file {path}: {text}", path=self._path, text=text
        )
