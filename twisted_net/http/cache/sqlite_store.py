"""
The store of cache entries in an SQLite file, which outlives the process and may be shared.

All calls of sqlite3 are in :mod:`twisted_net.http.cache.sqlite_file`. They run in one thread,
which the store starts at its first use and ends when it is closed. The reactor's thread hands it
reads and writes by a queue, and takes the results by ``callFromThread``, in the same order; what
the store knows is the reactor's thread's alone, so neither waits for a lock of the other.
"""

from __future__ import annotations

import _thread
import os
import queue
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.config.type_checks import check_arguments
from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.memory_tier import MemoryTier
from twisted_net.http.cache.pending_changes import PendingChanges, WriteBatch
from twisted_net.http.cache.sqlite_file import FAILURES, CacheFile, FileRead, FileWrite
from twisted_net.http.cache.sqlite_schema import is_busy
from twisted_net.net.bounded_table import BoundedTable
from twisted_net.net.steady_clock import steady

log = Logger()

MAX_READS = 10_000
"""Limit of pending reads; a read beyond it finds nothing."""

MAX_USED = 256
"""Limit of URLs whose use is not yet in the file; at it, the file is written."""

MAX_READS_PER_ROUND = 16
"""Limit of reads whose results are handed over together."""

WRITE_DELAY = 0.05
"""Seconds in which changes are gathered for one write; a killed process loses those changes."""

RETRY_AFTER = 10.0
"""Seconds until a failed write is retried; if the file was only busy, it is retried at once."""

CHECK_INTERVAL = 1.0
"""Seconds between two looks whether the file is still there, while the memory tier answers."""

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


_Waiting = Deferred[Sequence[Entry]]


@define(eq=False)
class _Read:
    """
    A read for one or several callers.

    :param current: False if its URL was changed since by this process.
    :param found: set by the thread, unless it failed.
    """

    url: str
    waiting: list[_Waiting]
    current: bool = True
    found: FileRead | None = None
    error: BaseException | None = None


@define(eq=False)
class _Write:
    """
    The write of one batch.

    :param done: set by the thread, unless it failed.
    """

    batch: WriteBatch
    done: FileWrite | None = None
    error: BaseException | None = None


@define(eq=False)
class _Check:
    """A look whether the file is still there."""


_Job = _Read | _Write | _Check | None
"""What the thread is asked for; None: its end."""


@check_arguments
class SQLiteStore:
    """
    A :class:`~twisted_net.http.cache.stores.Store` in a file; it evicts the least recently used
    URL first.

    It never raises an error: while the file cannot be read or written, requests find nothing in
    the cache; this is counted and, once a minute, logged. Its limits are those of
    :class:`~twisted_net.http.cache.stores.MemoryStore`, and hold for the entries in the file, a
    moment after each write. The file itself is somewhat larger; where the limits are lowered it
    shrinks, 1 MiB at a time.

    What was read is kept in memory too, up to *max_memory*. It is served from there as long as no
    process has changed it, which needs neither the thread nor the disk.

    The file is created with mode 0600, since responses may be private. Beside it are SQLite's
    files (``-wal``, ``-shm``), ``-lock``, which is locked by each process that has it open, and
    ``-stamps``, through which processes know of each other's changes
    (:mod:`twisted_net.http.cache.stamps`). All must be on a local disk. Processes with different
    limits each apply their own.

    :param reactor: its thread pool is not used.
    :param path: its directory must exist.
    :param max_entries: limit of entries.
    :param max_bytes: limit of bytes in all, by :attr:`~twisted_net.http.cache.entry.Entry.size`.
    :param max_variants: limit of entries under one key.
    :param max_memory: limit of bytes of the entries that are in memory too; 0: none.
    :param max_waiting: limit of entries that wait to be written. An entry beyond it is dropped,
        and the stored one that it would have replaced is removed.
    :param max_waiting_bytes: limit of bytes of the entries that wait to be written; likewise.
    :param read_timeout: seconds after which a read that waits for the disk finds nothing.
    :param close_timeout: seconds in which :meth:`close` writes the pending changes; those not
        written by then are lost.
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
        max_memory: int = 16 * 2**20,
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
        self._read_timeout = read_timeout
        self._close_timeout = close_timeout
        self._max_variants = max_variants = min(max_variants, max_entries)
        self._file = CacheFile(
            self._path,
            max_entries,
            max_bytes,
            max_variants,
            warn=self._warn,
            replaced=self._replaced,
            connect=connect,
        )
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._done: list[_Read | _Write] = []  # the thread's
        # All below is used in the reactor's thread alone.
        self._tier = MemoryTier(max_memory)
        self._checked_at = self._reactor.seconds()
        self._reading: dict[str, _Read] = {}
        self._reads_pending = 0
        self._waiting: deque[tuple[float, _Waiting]] = deque()
        self._expiry: IDelayedCall | None = None
        self._changes = PendingChanges(max_variants, max_waiting, max_waiting_bytes)
        self._used: BoundedTable[str, None] = BoundedTable(MAX_USED)
        self._write_call: IDelayedCall | None = None
        self._writing = False
        self._more_to_write = False
        self._failing = False
        self._flushes: list[Deferred[None]] = []
        self._started = False
        self._closing = False
        self._end_asked = False
        self._closed: Deferred[None] = Deferred()
        self.failures = 0
        self.read_timeouts = 0
        self._warned_at: float | None = None
        self._unlogged = 0

    @property
    def dropped(self) -> int:
        """Return how many entries were not stored, as too many waited or the file failed."""
        return self._changes.dropped

    def get_from_memory(self, key: str) -> Sequence[Entry] | None:
        """
        Return the entries under *key*, newest last, if they are in memory and current.

        None says nothing of the file: :meth:`get` asks it.
        """
        now = self._reactor.seconds()
        found = self._tier.get(key, now)
        if found is None:
            return None
        entries, used = found
        if used:
            self._note_use(key)
        if now - self._checked_at >= CHECK_INTERVAL:
            self._checked_at = now
            if self._started and not self._closing:
                self._jobs.put(_Check())
        return entries

    def get(self, key: str) -> Deferred[Sequence[Entry]]:
        """Return the entries under *key*, newest last. It never fails, and may be cancelled."""
        entries = self.get_from_memory(key)
        if entries is not None:
            return succeed(entries)
        if (
            self._closing
            or max(self._reads_pending, len(self._waiting)) >= MAX_READS
            or not self._start()
        ):
            return succeed(())
        self._note_use(key)
        waiting: _Waiting = Deferred()
        read = self._reading.get(key)
        if read is not None:
            read.waiting.append(waiting)
        else:
            # In this order: the thread skips a read that nobody waits for.
            read = self._reading[key] = _Read(key, [waiting])
            self._reads_pending += 1
            self._jobs.put(read)
        self._waiting.append((self._reactor.seconds() + self._read_timeout, waiting))
        if self._expiry is None:
            self._expiry = self._reactor.callLater(self._read_timeout, self._expire)
        return waiting

    def put(self, key: str, entry: Entry) -> None:
        if self._closing:
            return
        if entry.size > self._max_bytes:
            self.remove(key)
        elif self._changes.put(key, entry):
            self._note_use(key)
            self._tier.put(key, entry, self._max_variants)
            self._changed(key)
        else:
            self._tier.drop(key)
            self._changed(key)

    def remove(self, key: str) -> None:
        if not self._closing:
            self._changes.remove(key)
            self._tier.drop(key)
            self._changed(key)

    def flush(self) -> Deferred[None]:
        """Wait until all earlier changes are in the file, or could not be written."""
        if not self._started or self._closing:
            return succeed(None)
        flushed: Deferred[None] = Deferred()
        self._failing = False
        self._flushes.append(flushed)
        self._go_on()
        return flushed

    def close(self) -> Deferred[None]:
        """
        Write the pending changes, and end the thread.

        If that takes longer than the timeout, because the disk hangs, the changes are lost; the
        thread then ends when the disk responds, or with the process.
        """
        if self._closing or not self._started:
            self._closing = True
            return succeed(None)
        self._closing = True
        self._failing = False
        self._tier.clear()
        self._go_on()
        return self._closed.addTimeout(self._close_timeout, self._reactor, self._not_flushed)

    # Reads.

    def _note_use(self, key: str) -> None:
        self._used[key] = None
        self._used.move_to_end(key)
        if len(self._used) == MAX_USED:
            self._write_after(WRITE_DELAY)

    def _read_done(self, read: _Read) -> None:
        self._reads_pending -= 1
        if self._reading.get(read.url) is read:
            del self._reading[read.url]
        entries: Sequence[Entry] = ()
        if read.found is not None:
            entries = self._changes.over(read.url, read.found.entries)
            if read.current and not self._closing:
                self._tier.keep(read.url, entries, read.found.snapshot, self._reactor.seconds())
        elif read.error is not None:
            self._count(read.error)
        for waiting in read.waiting:
            if not waiting.called:  # cancelled, or timed out
                waiting.callback(entries)
        while self._waiting and self._waiting[0][1].called:
            self._waiting.popleft()

    def _expire(self) -> None:
        """Answer the reads that wait for too long, and wait for the next one."""
        self._expiry = None
        now = self._reactor.seconds()
        while self._waiting:
            deadline, waiting = self._waiting[0]
            if not waiting.called and deadline > now:
                self._expiry = self._reactor.callLater(deadline - now, self._expire)
                return
            self._waiting.popleft()
            if not waiting.called:
                self.read_timeouts += 1
                self._failed(f"it did not answer within {self._read_timeout:g} s")
                waiting.callback(())

    # Writes.

    def _changed(self, key: str) -> None:
        if self._changes.everything_removed:
            self._tier.clear()
            for read in self._reading.values():
                read.current = False
            self._reading.clear()
        # Later reads must see the change, and what is being read must not be kept.
        reading = self._reading.pop(key, None)
        if reading is not None:
            reading.current = False
        if self._start():
            self._write_after(WRITE_DELAY)

    def _write_after(self, delay: float) -> None:
        """Write in *delay* seconds, unless a write is pending."""
        if self._write_call is None and not self._writing and self._started:
            self._write_call = self._reactor.callLater(delay, self._write)

    def _write(self) -> None:
        if self._write_call is not None and self._write_call.active():
            self._write_call.cancel()
        self._write_call = None
        self._writing = True
        batch = self._changes.begin_write(list(self._used))
        self._used = BoundedTable(MAX_USED)
        self._jobs.put(_Write(batch))

    def _write_done(self, write: _Write) -> None:
        self._writing = False
        if write.error is None:
            assert write.done is not None
            self._changes.end_write()
            self._failing = False
            self._more_to_write = write.done.more
            for key, (before, snapshot) in write.done.changed.items():
                self._tier.confirm(key, before, snapshot)
        else:
            busy = is_busy(write.error)
            if not busy:
                for key in write.batch.changes:
                    self._tier.drop(key)
            self._changes.put_back(with_entries=busy)
            self._failing = not busy
            self._count(write.error)
        self._go_on()

    def _go_on(self) -> None:
        """Write what is to be written by now, or later; fire those that wait for it."""
        if self._writing or self._end_asked:
            return
        to_write = (
            self._changes
            or (self._more_to_write and not self._closing)
            or (self._used and (self._flushes or self._closing))
        )
        if to_write and not self._failing:
            self._write()
            return
        if self._failing and not self._closing:
            self._write_after(RETRY_AFTER)
        flushes, self._flushes = self._flushes, []
        for flushed in flushes:
            flushed.callback(None)
        if self._closing:
            self._end()

    # The thread's begin and end.

    def _start(self) -> bool:
        """Start the thread, if there is none; return whether there is one."""
        if self._started or self._closing:
            return self._started
        try:
            # Not threading.Thread, whose start() waits until the thread runs: 14 ms and more on
            # a busy machine. Like a daemon thread, it does not keep the process alive.
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:  # the system has none to give; the next call tries again
            self._count(error)
            return False
        self._started = True
        # The limits may have been lowered since the file was written.
        self._more_to_write = True
        self._write_after(WRITE_DELAY)
        return True

    def _end(self) -> None:
        if self._end_asked:
            return
        self._end_asked = True
        self._jobs.put(None)
        if self._write_call is not None:
            self._write_call.cancel()
            self._write_call = None

    def _not_flushed(self, value: object, seconds: float) -> None:
        self._end()
        log.warn(
            "cache file {path}: the pending changes were not written within {seconds:g} s",
            path=self._path,
            seconds=seconds,
        )

    def _thread_ended(self) -> None:
        self._closing = True
        self._end()
        self._tier.clear()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        waiting = [each for _, each in self._waiting if not each.called]
        self._waiting.clear()
        for each in waiting:
            each.callback(())
        for flushed in (*self._flushes, self._closed):
            if not flushed.called:
                flushed.callback(None)

    # Failures.

    def _count(self, error: BaseException) -> None:
        self.failures += 1
        self._failed(f"{error}")

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

    # Results of the thread.

    def _take(self, jobs: Sequence[_Read | _Write]) -> None:
        for job in jobs:
            if isinstance(job, _Read):
                self._read_done(job)
            else:
                self._write_done(job)

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
            self._reactor.callFromThread(self._thread_ended)

    def _round(self) -> bool:
        """Wait for jobs, and do some of them; return whether to go on."""
        jobs = [self._jobs.get()]
        # Only this thread takes jobs out.
        while len(jobs) < MAX_READS_PER_ROUND and not self._jobs.empty():
            jobs.append(self._jobs.get())
        for job in jobs:
            if isinstance(job, _Read):
                self._answer(job)
            elif isinstance(job, _Write):
                # It may take longer than they may wait.
                self._hand_over()
                self._apply(job)
            elif job is None:
                self._hand_over()
                return False
            else:
                self._file.check()
        self._hand_over()
        return True

    def _answer(self, read: _Read) -> None:
        if not all(each.called for each in read.waiting):  # cancelled, or timed out
            try:
                read.found = self._file.read(read.url)
            except FAILURES as error:
                read.error = error
        self._done.append(read)

    def _apply(self, write: _Write) -> None:
        try:
            write.done = self._file.write(write.batch)
        except FAILURES as error:
            write.error = error
        self._done.append(write)

    def _hand_over(self) -> None:
        if self._done:
            self._reactor.callFromThread(self._take, self._done)
            self._done = []

    def _replaced(self) -> None:
        # First what was read from the old file, or it would be kept.
        self._hand_over()
        self._reactor.callFromThread(self._tier.clear)

    def _warn(self, text: str) -> None:
        self._reactor.callFromThread(
            log.warn, "cache file {path}: {text}", path=self._path, text=text
        )
