"""Where a cache keeps its entries."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from twisted_net.http.cache.entry import Entry, replace_variant
from twisted_net.http.cache.settings import CacheSettings


class Store(Protocol):
    """
    Keeps entries by key: the canonical URL.

    It may forget anything at any time, and never mixes keys. What it is given and gives out is
    immutable.
    """

    def get(self, key: str) -> Sequence[Entry] | Awaitable[Sequence[Entry]]:
        """
        Give the entries under *key*, newest last; none where nothing is kept.

        A store in memory answers at once; another may answer with an awaitable.
        """

    def put(self, key: str, entry: Entry) -> None:
        """
        Keep *entry* under *key*, in place of the one that answers the same requests.

        Returns at once; a later :meth:`get` sees it.
        """

    def remove(self, key: str) -> None:
        """Forget all entries under *key*, if there are any."""

    def close(self) -> Awaitable[None] | None:
        """Let go of what it holds; called once, after which nothing else is."""


def open_store(reactor: Any, settings: CacheSettings) -> Store:  # Any: many interfaces in one
    """Give the store that *settings* ask for, in memory or in a file, with their bounds."""
    bounds = (settings.max_entries, settings.max_bytes, settings.max_variants)
    if settings.file is None:
        return MemoryStore(*bounds)
    # Only here: there are Pythons without sqlite3.
    from twisted_net.http.cache.sqlite_store import SQLiteStore

    # The largest answer must be able to wait for the disk.
    waiting = max(SQLiteStore.MAX_WAITING_BYTES, 2 * settings.max_object)
    return SQLiteStore(reactor, settings.file, *bounds, max_waiting_bytes=waiting)


class MemoryStore:
    """
    A :class:`Store` in memory, which forgets the URLs first that were unused for longest.

    An entry that alone passes *max_bytes* is not kept.

    :param max_entries: most entries, the variants of one URL counted one by one.
    :param max_bytes: most bytes, by :attr:`~twisted_net.http.cache.rules.Entry.size`.
    :param max_variants: most entries under one key; the oldest go first.
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
        # One URL is left, and its variants alone may be too many bytes.
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
