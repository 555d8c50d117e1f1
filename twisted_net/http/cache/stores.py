"""Stores of cache entries: the interface, the one in memory, and the choice by settings."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from twisted.internet.interfaces import IReactorTime

from twisted_net.config.type_checks import check_arguments
from twisted_net.http.cache.entry import Entry, replace_variant
from twisted_net.http.cache.settings import CacheSettings

if TYPE_CHECKING:
    from twisted_net.http.cache.sqlite_store import ThreadedClock


class Store(Protocol):
    """
    Stores entries under a key: the canonical URL.

    It may evict any entry at any time, and never confuses keys. All values that it takes and
    returns are immutable.
    """

    def get(self, key: str) -> Sequence[Entry] | Awaitable[Sequence[Entry]]:
        """
        Return the entries under *key*, newest last; an empty sequence where there are none.

        A store in memory returns them at once; another may return an awaitable. A Deferred
        belongs to the caller, who may add callbacks to it and cancel it.
        """

    def put(self, key: str, entry: Entry) -> None:
        """
        Store *entry* under *key*, in place of the one for the same requests.

        It returns at once; a later :meth:`get` sees the entry.
        """

    def remove(self, key: str) -> None:
        """Remove all entries under *key*; without any, do nothing."""

    def close(self) -> Awaitable[None] | None:
        """Release its resources; called once, and no other method after it."""


def open_store(reactor: IReactorTime, settings: CacheSettings) -> Store:
    """
    Return the store that *settings* ask for, in memory or in a file, with their limits.

    :param reactor: for a store in a file it must be a
        :class:`~twisted_net.http.cache.sqlite_store.ThreadedClock` too, as every real reactor is.
    """
    limits = (settings.max_entries, settings.max_bytes, settings.max_variants)
    if settings.file is None:
        return MemoryStore(*limits)
    # Imported only here: some builds of Python have no sqlite3.
    from twisted_net.http.cache.sqlite_store import SQLiteStore

    # The largest response must be able to wait for the disk.
    waiting = max(SQLiteStore.MAX_WAITING_BYTES, 2 * settings.max_object)
    # cast: Twisted has no interface for both, and the reactors for tests have no threads.
    clock = cast("ThreadedClock", reactor)
    return SQLiteStore(
        clock,
        settings.file,
        *limits,
        max_memory=settings.max_memory,
        max_waiting_bytes=waiting,
    )


@check_arguments
class MemoryStore:
    """
    A :class:`Store` in memory, which evicts the least recently used URL first.

    A single entry larger than *max_bytes* is not stored.

    :param max_entries: limit of entries; each variant of a URL counts.
    :param max_bytes: limit of bytes in all, by :attr:`~twisted_net.http.cache.entry.Entry.size`.
    :param max_variants: limit of entries under one key; the oldest are evicted first.
    """

    def __init__(
        self,
        max_entries: int = 1000,
        max_bytes: int = 64 * 2**20,
        max_variants: int = 64,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._max_variants = max_variants
        self._kept: OrderedDict[str, tuple[Entry, ...]] = OrderedDict()
        self.entries = 0
        self.bytes = 0

    def get(self, key: str) -> Sequence[Entry]:
        found = self._kept.get(key)
        if found is None:
            return ()
        self._kept.move_to_end(key)
        return found

    def put(self, key: str, entry: Entry) -> None:
        old = self._kept.get(key, ())
        self.remove(key)
        if entry.size > self._max_bytes:
            return
        self._add(key, replace_variant(old, entry, min(self._max_variants, self._max_entries)))
        while len(self._kept) > 1 and self._overfull():
            self.remove(next(iter(self._kept)))
        # One URL is left, and its variants alone may exceed max_bytes.
        while self._overfull():
            kept = self._kept[key][1:]
            self.remove(key)
            self._add(key, kept)

    def remove(self, key: str) -> None:
        for entry in self._kept.pop(key, ()):
            self.entries -= 1
            self.bytes -= entry.size

    def close(self) -> None:
        self._kept.clear()
        self.entries = self.bytes = 0

    def _add(self, key: str, entries: tuple[Entry, ...]) -> None:
        self._kept[key] = entries
        for entry in entries:
            self.entries += 1
            self.bytes += entry.size

    def _overfull(self) -> bool:
        return self.entries > self._max_entries or self.bytes > self._max_bytes
