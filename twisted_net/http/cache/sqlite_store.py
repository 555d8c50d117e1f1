"""
The store of cache entries in an SQLite file, which outlives the process and may be shared.

All calls of sqlite3 are in :mod:`twisted_net.http.cache.sqlite_file`. They run in one thread,
which the store starts at its first use and ends when it is closed.
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
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.config.type_checks import check_arguments
from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.sqlite_file import (
    BATCH_BYTES,
    BATCH_URLS,
    FAILURES,
    CacheFile,
    PendingChange,
    WriteBatch,
    is_busy,
)
from twisted_net.net.bounded_table import BoundedTable
from twisted_net.net.steady_clock import steady

log = Logger()

MAX_CHANGED = 10_000
"""Limit of URLs with pending changes; beyond it the whole file is emptied."""

MAX_READS = 10_000
"""Limit of pending reads; a read beyond it finds nothing."""

MAX_USED = 256
"""Limit of URLs whose use is not yet in the file; at it, the file is written."""

MAX_READS_PER_ROUND = 16
"""Limit of reads between two write transactions, while both are pending."""

WRITE_DELAY = 0.05
"""Seconds in which changes are gathered for one write; a killed process loses those changes."""

RETRY_AFTER = 10.0
"""Seconds until a failed write is retried; if the file was only busy, it is retried at once."""

WARNING_INTERVAL = 60.0
"""Seconds in which at most one failure is logged; the others are counted."""


@implementer(IReactorTime)
class ThreadedClock(Protocol):
    """The parts of a reactor that the store needs: time, and calls from other threads."""

    # Any, in the signatures: as Twisted's interfaces have them.

    def seconds(self) -> float: ...

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002 - Twisted's name
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall: ...

    def getDelayedCalls(self) -> Sequence[IDelayedCall]: ...

    def callFromThread(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> None: ...


@check_arguments
class SQLiteStore:
    """
    A :class:`~twisted_net.http.cache.stores.Store` in a file; it evicts the least recently used
    URL first.

    It never raises an error: while the file cannot be read or written, requests find nothing in
    the cache; this is counted and, once a minute, logged. Its limits are those of
    :class:`~twisted_net.http.cache.stores.MemoryStore`, and hold for the entries in the file, a
    moment after each write. The file itself is somewhat larger, and does not shrink when they are
    lowered.

    The file is created with mode 0600, since responses may be private. Beside it are SQLite's
    files (``-wal``, ``-shm``) and ``-lock``, which is locked by each process that has it open. All
    must be on a local disk. Processes with different limits each apply their own.

    :param reactor: its thread pool is not used.
    :param path: its directory must exist.
    :param max_entries: limit of entries.
    :param max_bytes: limit of bytes in all, by :attr:`~twisted_net.http.cache.entry.Entry.size`.
    :param max_variants: limit of entries under one key.
    :param max_waiting: limit of entries that wait to be written. An entry beyond it is dropped,
        and the stored one that it would have replaced is removed.
    :param max_waiting_bytes: limit of bytes of the entries that wait to be written; likewise.
    :param read_timeout: seconds after which a read that waits for the disk finds nothing.
    :param close_timeout: seconds in which :meth:`close` writes the pending changes; those not
        written by then are lost.
    :ivar dropped: entries that were not stored, as too many waited or the file failed.
    :ivar failures: reads and writes of the file that failed.
    :ivar read_timeouts: reads that found nothing because the disk took too long.
    """

    MAX_WAITING_BYTES = 16 * 2**20

    def __init__(
        self,
        reactor: ThreadedClock,
        path: str | Path,
        max_entries: int = 1000,
        max_bytes: int = 64 * 2**20,
        max_variants: int = 64,
        *,
        max_waiting: int = 1000,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        read_timeout: float = 1.0,
        close_timeout: float = 5.0,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> None:
        self._reactor = steady(reactor)
        # Absolute: twistd changes the working directory when it becomes a daemon.
        self._path = os.path.abspath(path)
        self._max_bytes = max_bytes
        self._max_variants = min(max_variants, max_entries)
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._read_timeout = read_timeout
        self._close_timeout = close_timeout
        self._file = CacheFile(
            self._path, max_entries, max_bytes, self._max_variants, warn=self._warn, connect=connect
        )
        self._ended = threading.Event()
        # The condition guards all attributes below it, except those marked otherwise.
        self._condition = threading.Condition()
        self._reads: deque[tuple[str, Deferred[Sequence[Entry]]]] = deque()
        self._current_reads: list[tuple[str, Deferred[Sequence[Entry]]]] = []
        self._changes: dict[str, PendingChange] = {}
        self._entries_waiting = 0
        self._bytes_waiting = 0
        self._everything_removed = False
        self._used: BoundedTable[str, None] = BoundedTable(MAX_USED)
        self._write_at: float | None = None
        self._overfull = False
        self._failing = False
        self._flushes: list[Deferred[None]] = []
        self._started = False
        self._closing = False
        self.dropped = 0
        self.failures = 0
        # Used in the reactor's thread alone, as are the next two.
        self.read_timeouts = 0
        self._warned_at: float | None = None
        self._unlogged = 0

    def get(self, key: str) -> Deferred[Sequence[Entry]]:
        """Return the entries under *key*, newest last. It never fails, and may be cancelled."""
        found: Deferred[Sequence[Entry]] = Deferred()
        with self._condition:
            if self._closing or len(self._reads) >= MAX_READS:
                return succeed(())
            self._reads.append((key, found))
            self._note_use(key)
            if not self._wake():
                self._reads.pop()
                return succeed(())
        return found.addTimeout(self._read_timeout, self._reactor, self._read_timed_out)

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
                # The entry that it would have replaced must not be served in its place.
                self._add(key, PendingChange(removed=True))
            else:
                self._add(key, PendingChange(removed=False, entries=(entry,)))
                self._note_use(key)
            self._wake()

    def remove(self, key: str) -> None:
        with self._condition:
            self._add(key, PendingChange(removed=True))
            self._wake()

    def flush(self) -> Deferred[None]:
        """Wait until all earlier changes are in the file, or could not be written."""
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
        Write the pending changes, and end the thread.

        If that takes longer than the timeout, because the disk hangs, the changes are lost; the
        thread then ends when the disk responds, or with the process.
        """
        flushed = self.flush()
        with self._condition:
            self._closing = True
            self._condition.notify()
        return flushed.addTimeout(self._close_timeout, self._reactor, self._not_flushed)

    # In the reactor's thread, with the condition held.

    def _add(self, key: str, change: PendingChange) -> None:
        if self._closing:
            return
        older = self._changes.get(key)
        if older is None and len(self._changes) >= MAX_CHANGED:
            # A removed entry must not be served later. With too many removals to remember them,
            # no entry in the file may be.
            self.dropped += self._entries_waiting
            self._changes.clear()
            self._entries_waiting = self._bytes_waiting = 0
            self._everything_removed = True
        self._set(key, change.after(older, self._max_variants))
        if self._write_at is None:
            self._write_at = time.monotonic() + WRITE_DELAY

    def _set(self, key: str, change: PendingChange) -> None:
        self._take(key)
        self._changes[key] = change
        self._entries_waiting += len(change.entries)
        self._bytes_waiting += change.size

    def _take(self, key: str) -> PendingChange | None:
        change = self._changes.pop(key, None)
        if change is not None:
            self._entries_waiting -= len(change.entries)
            self._bytes_waiting -= change.size
        return change

    def _note_use(self, key: str) -> None:
        self._used[key] = None
        self._used.move_to_end(key)
        if len(self._used) == MAX_USED and self._write_at is None:
            self._write_at = time.monotonic() + WRITE_DELAY

    def _wake(self) -> bool:
        """Start the thread, or wake it up; return whether there is one."""
        if self._closing:
            return self._started
        if self._started:
            self._condition.notify()
            return True
        try:
            # Not threading.Thread, whose start() waits until the thread runs: 14 ms and more on
            # a busy machine. Like a daemon thread, it does not keep the process alive.
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:  # the system has none to give; the next call tries again
            self.failures += 1
            self._failed(str(error))
        else:
            self._started = True
        return self._started

    # In the reactor's thread.

    def _read_timed_out(self, value: object, seconds: float) -> Sequence[Entry]:
        self.read_timeouts += 1
        self._failed(f"it did not answer within {seconds:g} s")
        return ()

    def _not_flushed(self, value: object, seconds: float) -> None:
        with self._condition:
            self._failing = True  # so that the thread ends
        log.warn(
            "cache file {path}: the pending changes were not written within {seconds:g} s",
            path=self._path,
            seconds=seconds,
        )

    def _failed(self, reason: str) -> None:
        """Log a failure, unless one was logged within :data:`WARNING_INTERVAL`."""
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
            # A bug of ours: the store finds nothing from here on, and all waiters are fired.
            self._reactor.callFromThread(log.failure, "the cache file's thread", Failure())
        finally:
            self._file.close()
            with self._condition:
                self._closing = True
                # _fire skips those among the current reads that have fired already.
                reads = [*self._current_reads, *self._reads]
                results: list[tuple[Deferred[Any], Any]] = [(each, ()) for _, each in reads]
                results += [(each, None) for each in self._flushes]
                self._reads.clear()
            self._reactor.callFromThread(self._fire, results)
            self._ended.set()

    def _round(self) -> bool:
        """Wait for reads and writes, do some of them; return whether to go on."""
        with self._condition:
            while not (self._reads or self._write_due() or self._flushes or self._closing):
                self._condition.wait(self._until_write())
            count = min(len(self._reads), MAX_READS_PER_ROUND)
            reads = self._current_reads = [self._reads.popleft() for _ in range(count)]
        if reads:
            self._answer(reads)
        # Only now: a read must see the changes that wait to be written.
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

    def _next_batch(self) -> WriteBatch:
        batch = WriteBatch(everything_removed=self._everything_removed, used=list(self._used))
        self._everything_removed = False
        self._used.clear()
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
                continue  # cancelled, or timed out
            entries: Sequence[Entry] = ()
            try:
                entries = self._file.read(key)
            except FAILURES as error:
                self._count(error)
            with self._condition:
                # Nothing was written since: only this thread writes.
                if self._everything_removed:
                    entries = ()
                change = self._changes.get(key)
            if change is not None:
                entries = change.over(entries, self._max_variants)
            results.append((waiting, entries))
        self._reactor.callFromThread(self._fire, results)

    def _write(self, batch: WriteBatch) -> None:
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

    def _put_back(self, batch: WriteBatch, *, with_entries: bool) -> None:
        """
        Make the changes of a batch that was not written pending again.

        :param with_entries: False to drop the entries, so that they do not fill the memory while
            the file fails; those that they replace must still be removed.
        """
        with self._condition:
            waiting = [] if self._everything_removed else list(batch.changes.items())
            self._everything_removed |= batch.everything_removed
            for key, change in waiting:
                kept = change
                if not with_entries:
                    self.dropped += len(change.entries)
                    kept = PendingChange(removed=True)
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
