"""Tests of :mod:`twisted_net.http.cache.stores`."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.http.cache.test_sqlite_store import ThreadedClock
from tests.http.store_contract import StoreContract, make_entry
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.cache.sqlite_store import SQLiteStore
from twisted_net.http.cache.stores import MemoryStore, Store, open_store

_T = TypeVar("_T")


class MemoryStoreTests(SynchronousTestCase):
    """:class:`MemoryStore` keeps the entries used last, within its limits."""

    def test_put_and_get(self) -> None:
        """An entry that was put is found; an unknown key has none."""
        store = MemoryStore()
        one = make_entry()
        store.put("k", one)
        self.assertEqual(tuple(store.get("k")), (one,))
        self.assertEqual(tuple(store.get("other")), ())
        self.assertEqual((store.entries, store.bytes), (1, 1000))

    def test_variants(self) -> None:
        """Variants are side by side, newest last; an entry for the same requests is replaced."""
        store = MemoryStore()
        old, other, new = (
            make_entry(variant=b"a"),
            make_entry(variant=b"b"),
            make_entry(1200, variant=b"a"),
        )
        for each in (old, other, new):
            store.put("k", each)
        self.assertEqual(tuple(store.get("k")), (other, new))
        self.assertEqual((store.entries, store.bytes), (2, 2200))

    def test_max_variants(self) -> None:
        """Of too many variants the oldest is evicted."""
        store = MemoryStore(max_variants=2)
        for variant in (b"a", b"b", b"c"):
            store.put("k", make_entry(variant=variant))
        self.assertEqual([each.variant for each in store.get("k")], [b"b", b"c"])

    def test_variants_of_one_url_pass_the_entries(self) -> None:
        """The variants of one URL are limited by ``max_entries`` too."""
        store = MemoryStore(max_entries=2, max_variants=10)
        store.put("other", make_entry())
        for variant in (b"a", b"b", b"c"):
            store.put("k", make_entry(variant=variant))
        self.assertEqual([each.variant for each in store.get("k")], [b"b", b"c"])
        self.assertEqual(store.entries, 2)

    def test_just_not_too_large(self) -> None:
        """An entry of exactly ``max_bytes`` is kept, alone."""
        store = MemoryStore(max_bytes=3000)
        store.put("a", make_entry())
        store.put("b", make_entry(3000))
        self.assertEqual([key for key in "ab" if store.get(key)], ["b"])

    def test_max_entries(self) -> None:
        """Of too many entries the least recently used URL is evicted."""
        store = MemoryStore(max_entries=2)
        for key in "ab":
            store.put(key, make_entry())
        store.get("a")
        store.put("c", make_entry())
        self.assertEqual([key for key in "abc" if store.get(key)], ["a", "c"])

    def test_max_bytes(self) -> None:
        """Of too many bytes, as many URLs are evicted as necessary."""
        store = MemoryStore(max_bytes=3000)
        for key in "abc":
            store.put(key, make_entry())
        store.put("d", make_entry(2000))
        self.assertEqual([key for key in "abcd" if store.get(key)], ["c", "d"])
        self.assertEqual(store.bytes, 3000)

    def test_variants_of_one_url_pass_the_bytes(self) -> None:
        """With one URL left, its oldest variants are evicted."""
        store = MemoryStore(max_bytes=2500)
        for variant in (b"a", b"b", b"c"):
            store.put("k", make_entry(variant=variant))
        self.assertEqual([each.variant for each in store.get("k")], [b"b", b"c"])
        self.assertEqual(store.bytes, 2000)

    def test_too_large_alone(self) -> None:
        """An entry over ``max_bytes`` is not kept, removes the old one, and evicts no other."""
        store = MemoryStore(max_bytes=3000)
        store.put("a", make_entry())
        store.put("b", make_entry())
        store.put("a", make_entry(3001))
        self.assertEqual(tuple(store.get("a")), ())
        self.assertEqual(len(store.get("b")), 1)
        self.assertEqual(store.bytes, 1000)

    def test_remove(self) -> None:
        """All variants of a key are removed; an unknown key is ignored."""
        store = MemoryStore()
        store.put("k", make_entry(variant=b"a"))
        store.put("k", make_entry(variant=b"b"))
        store.remove("k")
        store.remove("k")
        self.assertEqual((tuple(store.get("k")), store.entries, store.bytes), ((), 0, 0))

    def test_close(self) -> None:
        """After closing it is empty."""
        store = MemoryStore()
        store.put("k", make_entry())
        store.close()
        self.assertEqual((store.entries, store.bytes), (0, 0))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "get", "remove"]),
                st.sampled_from("abcd"),
                st.sampled_from([b"x", b"y", b"z"]),
                st.sampled_from([500, 800, 1500, 2600]),
            ),
            max_size=40,
        )
    )
    def test_bounds_and_counts(self, steps: list[tuple[str, str, bytes, int]]) -> None:
        """After any steps the counts are right, the limits hold, and the newest is found."""
        store = MemoryStore(max_entries=3, max_bytes=2500, max_variants=2)
        for step, key, variant, size in steps:
            if step == "put":
                new = make_entry(size, variant)
                store.put(key, new)
                self.assertEqual(list(store.get(key))[-1:], [new] if size <= 2500 else [])
            elif step == "get":
                store.get(key)
            else:
                store.remove(key)
            kept = [each for key in "abcd" for each in store._kept.get(key, ())]
            self.assertEqual(store.entries, len(kept))
            self.assertEqual(store.bytes, sum(each.size for each in kept))
            self.assertLessEqual(store.entries, 3)
            self.assertLessEqual(store.bytes, 2500)
            self.assertTrue(all(len(v) <= 2 for v in store._kept.values()))


class OpenStoreTests(SynchronousTestCase):
    """:func:`open_store` returns the store that the settings ask for."""

    def test_memory(self) -> None:
        """Without a file, it is a store in memory, with the limits."""
        store = open_store(Clock(), CacheSettings(max_entries=2, max_variants=1))
        self.assertIsInstance(store, MemoryStore)
        for key in "abc":
            store.put(key, make_entry())
        self.assertEqual([key for key in "abc" if store.get(key)], ["b", "c"])

    def test_file(self) -> None:
        """With one, it is a store in that file, which is created at its first use."""
        path = str(Path(self.enterContext(TemporaryDirectory()), "cache"))
        settings = CacheSettings(
            file=path, max_entries=3, max_bytes=4000, max_object=2**24, max_memory=5000
        )
        store = open_store(ThreadedClock(), settings)
        assert isinstance(store, SQLiteStore)
        self.assertEqual(store._path, os.path.abspath(path))
        self.assertEqual((store._max_bytes, store._changes._max_variants), (4000, 3))
        self.assertEqual((store._changes._max_bytes, store._tier._max_bytes), (2**25, 5000))
        self.assertFalse(os.path.exists(path))
        self.successResultOf(store.close())

    def test_no_name(self) -> None:
        """A file must have a name."""
        self.assertRaises(ValueError, CacheSettings, file="")


class MemoryStoreContractTests(StoreContract, SynchronousTestCase):
    """:class:`MemoryStore` fulfils the contract of a store."""

    @override
    def make_store(
        self, max_entries: int = 1000, max_bytes: int = 2**20, max_variants: int = 64
    ) -> Store:
        return MemoryStore(max_entries, max_bytes, max_variants)

    @override
    def wait_for(self, value: _T | Awaitable[_T]) -> _T:
        assert not isinstance(value, Awaitable)
        return value
