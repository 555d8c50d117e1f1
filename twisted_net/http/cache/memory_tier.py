"""
Memory tier: entries of a cache file that are kept in memory too, while their stamps say so.

A *stamp* is the number of the last transaction that changed the entries of some URL, any process's
(:mod:`twisted_net.http.cache.stamps`). What was read after that transaction is current; what was
read before it is not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from attrs import define, frozen

from twisted_net.http.cache.entry import Entry, replace_variant

MAX_SHARE = 16
"""One URL's entries may take this part of the tier, one sixteenth; larger ones are not kept."""

RECORD_BYTES = 500
"""Bytes that a URL counts for beside its entries: also one that is known to have none."""

NOTE_USE_AFTER = 1.0
"""Seconds between two uses of a URL of which the file is told."""


@frozen(slots=True)
class Snapshot:
    """
    When entries were read: while ``stamps[slot] <= commit`` they are current.

    :param stamps: shared with other processes, which change it.
    :param slot: that of the URL.
    :param commit: number of the last transaction that the read has seen.
    """

    stamps: Sequence[int]
    slot: int
    commit: int


@define(slots=True, eq=False)
class _Record:
    entries: tuple[Entry, ...]
    stamps: Sequence[int]
    slot: int
    commit: int
    size: int
    noted_at: float


class MemoryTier:
    """
    Entries by URL, bounded in bytes; the URL that was used least recently is dropped first.

    The order of use is accurate to :data:`NOTE_USE_AFTER`.

    :param max_bytes: limit, by :attr:`~twisted_net.http.cache.entry.Entry.size` and
        :data:`RECORD_BYTES`; with 0 nothing is kept.
    :ivar bytes: those kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self.bytes = 0

    def get(self, url: str, now: float) -> tuple[tuple[Entry, ...], bool] | None:
        """
        Return the entries of a URL, none where it is known to have none, if they are current.

        :param now: seconds of a steady clock.
        :return: None where only the file knows; else the entries, and whether the file should be
            told that they were used.
        """
        record = self._records.get(url)
        if record is None:
            return None
        if record.stamps[record.slot] > record.commit:
            self.drop(url)
            return None
        if now - record.noted_at < NOTE_USE_AFTER:
            return record.entries, False
        record.noted_at = now
        self._records.move_to_end(url)
        return record.entries, True

    def keep(self, url: str, entries: Sequence[Entry], snapshot: Snapshot, now: float) -> None:
        """
        Keep the entries of a URL, in place of those kept before.

        Not if they are too large; and that it has none, only where that drops no other.
        """
        if not self._max_bytes:
            return
        self.drop(url)
        size = RECORD_BYTES + len(url) + sum(entry.size for entry in entries)
        if size * MAX_SHARE > self._max_bytes:
            return
        if not entries and self.bytes + size > self._max_bytes:
            # Many URLs that were asked for once must not take the place of what is there.
            return
        self._records[url] = _Record(
            tuple(entries), snapshot.stamps, snapshot.slot, snapshot.commit, size, now
        )
        self.bytes += size
        while self.bytes > self._max_bytes:
            self.bytes -= self._records.popitem(last=False)[1].size

    def put(self, url: str, entry: Entry, max_variants: int) -> None:
        """
        Add an entry, which is to be written, to those of a URL; without any that are current, none.

        :param max_variants: limit of entries under one URL.
        """
        record = self._records.get(url)
        if record is None:
            return
        self.drop(url)
        if record.stamps[record.slot] <= record.commit:
            entries = replace_variant(record.entries, entry, max_variants)
            snapshot = Snapshot(record.stamps, record.slot, record.commit)
            self.keep(url, entries, snapshot, record.noted_at)

    def confirm(self, url: str, before: int, snapshot: Snapshot) -> None:
        """
        Note that a transaction of this process has written what is kept of a URL.

        :param before: the slot's stamp before: if it is of a later transaction than what is kept
            was read after, another process's change was in the file, and that is not known.
        :param snapshot: with the number of this transaction.
        """
        record = self._records.get(url)
        if record is not None and record.stamps is snapshot.stamps and record.commit >= before:
            record.commit = max(record.commit, snapshot.commit)

    def drop(self, url: str) -> None:
        """Forget the entries of a URL."""
        record = self._records.pop(url, None)
        if record is not None:
            self.bytes -= record.size

    def clear(self) -> None:
        """Forget all entries."""
        self._records.clear()
        self.bytes = 0
