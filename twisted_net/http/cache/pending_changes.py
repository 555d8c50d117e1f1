"""Pending changes of a store: what was put and removed, and is not yet in its file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from attrs import Factory, define, frozen

from twisted_net.http.cache.entry import Entry, replace_variant

BATCH_URLS = 64
"""Limit of URLs written, and of entries evicted, in one transaction."""

BATCH_BYTES = 4 * 2**20
"""Bytes after which no further URL is added to a transaction."""

MAX_CHANGED = 10_000
"""Limit of URLs with pending changes; beyond it the whole file is emptied."""


@frozen
class PendingChange:
    """
    A change to the entries of one URL that waits to be written.

    :param removed: whether to delete first those in the file.
    :param entries: to add then, in this order.
    :param size: of these entries, in bytes.
    """

    removed: bool
    entries: tuple[Entry, ...] = ()
    size: int = Factory(lambda self: sum(each.size for each in self.entries), takes_self=True)

    def over(self, stored: Sequence[Entry], max_variants: int) -> tuple[Entry, ...]:
        """Return the entries *stored* after this change."""
        kept = () if self.removed else tuple(stored)
        for entry in self.entries:
            kept = replace_variant(kept, entry, max_variants)
        return kept

    def after(self, older: PendingChange | None, max_variants: int) -> PendingChange:
        """Return both changes as one, with *older* applied first."""
        if older is None or self.removed:
            return self
        return PendingChange(older.removed, self.over(older.entries, max_variants))


@define(eq=False)
class WriteBatch:
    """
    The changes of one transaction, applied in the order of the fields.

    :param everything_removed: whether to delete all URLs first.
    :param changes: by URL.
    :param used: URLs that were read or changed, the latest last.
    """

    everything_removed: bool = False
    changes: dict[str, PendingChange] = Factory(dict)
    used: Sequence[str] = ()


class PendingChanges:
    """
    The changes that wait to be written, by URL, and those that are being written.

    :param max_variants: limit of entries under one URL.
    :param max_entries: limit of entries that wait.
    :param max_bytes: limit of their bytes.
    :ivar dropped: entries that will not be written, as too many waited or the file failed.
    """

    def __init__(self, max_variants: int, max_entries: int, max_bytes: int) -> None:
        self._max_variants = max_variants
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._waiting: dict[str, PendingChange] = {}
        self._entries = 0
        self._bytes = 0
        self._everything_removed = False
        self._written: WriteBatch | None = None
        self.dropped = 0

    def __bool__(self) -> bool:
        """Return whether changes wait, those being written not counted."""
        return bool(self._waiting) or self._everything_removed

    @property
    def everything_removed(self) -> bool:
        """Return whether all URLs of the file are to be removed first."""
        return self._everything_removed

    def put(self, url: str, entry: Entry) -> bool:
        """
        Add *entry* in place of the one for the same requests.

        :return: False if too many wait: then the entry is dropped, and those that are stored for
            the URL are removed, because the one that it replaces must not be served.
        """
        size = self._bytes + entry.size
        if self._entries >= self._max_entries or size > self._max_bytes:
            self.dropped += 1
            self.remove(url)
            return False
        self._add(url, PendingChange(removed=False, entries=(entry,)))
        return True

    def remove(self, url: str) -> None:
        """Remove all entries of a URL."""
        self._add(url, PendingChange(removed=True))

    def over(self, url: str, stored: Sequence[Entry]) -> Sequence[Entry]:
        """Return what a URL has after all changes, if the file has *stored*."""
        if self._written is not None:
            if self._written.everything_removed:
                stored = ()
            change = self._written.changes.get(url)
            if change is not None:
                stored = change.over(stored, self._max_variants)
        if self._everything_removed:
            stored = ()
        change = self._waiting.get(url)
        return stored if change is None else change.over(stored, self._max_variants)

    def begin_write(self, used: Sequence[str]) -> WriteBatch:
        """
        Take the oldest changes, to be written now; :meth:`end_write` or :meth:`put_back` follows.

        :param used: for the batch.
        """
        batch = WriteBatch(everything_removed=self._everything_removed, used=used)
        self._everything_removed = False
        size = 0
        for url in list(islice(self._waiting, BATCH_URLS)):
            if size >= BATCH_BYTES:
                break
            change = self._take(url)
            assert change is not None
            batch.changes[url] = change
            size += change.size
        self._written = batch
        return batch

    def end_write(self) -> None:
        """Forget the changes that were being written: they are in the file."""
        self._written = None

    def put_back(self, *, with_entries: bool) -> None:
        """
        Let the changes that could not be written wait again.

        :param with_entries: False to drop the entries, so that they do not fill the memory while
            the file fails; those that they replace must still be removed.
        """
        batch, self._written = self._written, None
        assert batch is not None
        waiting = [] if self._everything_removed else list(batch.changes.items())
        self._everything_removed |= batch.everything_removed
        for url, change in waiting:
            kept = change
            if not with_entries:
                self.dropped += len(change.entries)
                kept = PendingChange(removed=True)
            newer = self._waiting.get(url)
            self._set(url, kept if newer is None else newer.after(kept, self._max_variants))

    def _add(self, url: str, change: PendingChange) -> None:
        older = self._waiting.get(url)
        if older is None and len(self._waiting) >= MAX_CHANGED:
            # A removed entry must not be served later. With too many removals to remember them,
            # no entry in the file may be.
            self.dropped += self._entries
            self._waiting.clear()
            self._entries = self._bytes = 0
            self._everything_removed = True
        self._set(url, change.after(older, self._max_variants))

    def _set(self, url: str, change: PendingChange) -> None:
        self._take(url)
        self._waiting[url] = change
        self._entries += len(change.entries)
        self._bytes += change.size

    def _take(self, url: str) -> PendingChange | None:
        change = self._waiting.pop(url, None)
        if change is not None:
            self._entries -= len(change.entries)
            self._bytes -= change.size
        return change
