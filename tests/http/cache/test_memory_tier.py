"""Tests of :mod:`twisted_net.http.cache.memory_tier`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.http.store_contract import make_entry
from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.memory_tier import (
    MAX_SHARE,
    NOTE_USE_AFTER,
    RECORD_BYTES,
    MemoryTier,
    Snapshot,
)

LARGE = 2**20


class MemoryTierTests(SynchronousTestCase):
    """:class:`MemoryTier` returns what is current, and is bounded."""

    def setUp(self) -> None:
        self.stamps = [0] * 4
        self.tier = MemoryTier(LARGE)

    def keep(self, url: str, *entries: Entry, slot: int = 0, commit: int = 5) -> None:
        """Keep entries that were read when *commit* was the latest."""
        self.tier.keep(url, entries, Snapshot(self.stamps, slot, commit), 0.0)

    def found(self, url: str, now: float = 0.0) -> tuple[Entry, ...] | None:
        """Return what the tier has."""
        found = self.tier.get(url, now)
        return None if found is None else found[0]

    def test_current(self) -> None:
        """Entries are current until a later transaction has stamped their slot."""
        entry = make_entry()
        self.keep("a", entry, slot=1)
        self.keep("none", slot=2)
        for stamp in (0, 4, 5):
            self.stamps[1] = stamp
            self.assertEqual(self.found("a"), (entry,))
        self.stamps[1] = 6
        self.assertIsNone(self.found("a"))
        self.assertEqual(self.found("none"), ())
        self.assertIsNone(self.found("unknown"))
        # It was forgotten: an older stamp, as no process writes it, does not bring it back.
        self.stamps[1] = 5
        self.assertIsNone(self.found("a"))
        self.assertEqual(self.tier.bytes, RECORD_BYTES + len("none"))

    def test_stamped_before_it_was_read(self) -> None:
        """What was read before a transaction that has stamped already is never current."""
        self.stamps[0] = 6
        self.keep("a", make_entry(), commit=5)
        self.assertIsNone(self.found("a"))
        self.keep("a", make_entry(), commit=6)
        self.assertIsNotNone(self.found("a"))

    def test_put(self) -> None:
        """An entry is added to those that are current, and to none that are not known."""
        old, new = make_entry(variant=b"1"), make_entry(2000, variant=b"1")
        other = make_entry(variant=b"2")
        self.keep("a", old, other)
        self.tier.put("a", new, 2)
        self.assertEqual(self.found("a"), (other, new))
        self.tier.put("a", make_entry(variant=b"3"), 1)
        self.assertEqual([entry.variant for entry in self.found("a") or ()], [b"3"])
        self.tier.put("unknown", new, 2)
        self.assertIsNone(self.found("unknown"))
        self.stamps[0] = 6
        self.tier.put("a", new, 2)
        self.assertEqual((self.found("a"), self.tier.bytes), (None, 0))

    def test_confirmed(self) -> None:
        """What this process has written stays current, unless another wrote before it."""
        for before, current in ((4, True), (5, True), (6, False)):
            self.stamps[0] = 0
            self.keep("a", make_entry())
            self.stamps[0] = 7
            self.tier.confirm("a", before, Snapshot(self.stamps, 0, 7))
            self.assertEqual(self.found("a") is not None, current)
        self.keep("a", make_entry())
        self.tier.confirm("a", 0, Snapshot([0], 0, 7))
        self.tier.confirm("unknown", 0, Snapshot(self.stamps, 0, 7))
        self.assertIsNone(self.found("a"))

    def test_bytes(self) -> None:
        """At the limit the URLs that were used least recently are dropped."""
        size = LARGE // MAX_SHARE - RECORD_BYTES - 2
        for number in range(MAX_SHARE):
            self.keep(f"{number:02}", make_entry(size))
        self.assertEqual(self.tier.bytes, LARGE)
        self.found("00", NOTE_USE_AFTER)
        self.keep("more", make_entry(size - 2))
        gone = [n for n in range(MAX_SHARE) if self.found(f"{n:02}") is None]
        self.assertEqual((gone, self.tier.bytes), ([1], LARGE))
        self.keep("02", make_entry())
        self.tier.drop("03")
        self.tier.drop("unknown")
        self.tier.clear()
        self.assertEqual((self.tier.bytes, self.found("00")), (0, None))

    def test_without_entries(self) -> None:
        """URLs without entries take no other's place, and others take theirs."""
        size = LARGE // MAX_SHARE - RECORD_BYTES - 2
        for number in range(MAX_SHARE - 1):
            self.keep(f"{number:02}", make_entry(size))
        for number in range(1000):
            self.keep(f"none {number}")
        self.assertLessEqual(self.tier.bytes, LARGE)
        self.assertEqual((self.found("00") is None, self.found("none 1")), (False, ()))
        self.assertIsNone(self.found("none 999"))
        for number in range(MAX_SHARE - 1):
            self.tier.get(f"{number:02}", NOTE_USE_AFTER)
        self.keep("more", make_entry(size - 2))
        self.assertEqual((self.found("00") is None, self.found("none 1")), (False, None))

    def test_large(self) -> None:
        """One URL takes no more than its share; what was there before is forgotten."""
        size = LARGE // MAX_SHARE - RECORD_BYTES - 1
        self.keep("a", make_entry(size))
        self.assertIsNotNone(self.found("a"))
        self.keep("a", make_entry(size + 1))
        self.assertIsNone(self.found("a"))
        self.assertEqual(self.tier.bytes, 0)

    def test_none(self) -> None:
        """A tier of no bytes keeps nothing, not even that a URL has no entries."""
        self.tier = MemoryTier(0)
        self.keep("a")
        self.assertIsNone(self.found("a"))

    def test_use(self) -> None:
        """The file is to be told of the use of a URL at most once a second."""
        self.keep("a", make_entry())
        told = []
        for tick in range(1, 33):
            found = self.tier.get("a", tick / 8)
            assert found is not None
            told.append(found[1])
        self.assertEqual([tick / 8 for tick, used in enumerate(told, 1) if used], [1, 2, 3, 4])
