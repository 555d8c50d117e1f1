"""Tests of :mod:`twisted_net.http.cache.stores`."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.http.store_contract import StoreContract
from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.cache.sqlite_store import SQLiteStore
from twisted_net.http.cache.stores import MemoryStore, Store, open_store
from twisted_net.http.fields import HeaderFields

_T = TypeVar("_T")


def entry(size: int = 1000, variant: bytes = b"", body: bytes = b"") -> Entry:
    """Give an entry that counts for *size* bytes, at least 500."""
    return Entry(
        status=200,
        reason="OK",
        fields=HeaderFields(),
        body=body.ljust(size - 500, b"."),
        request_time=0.0,
        response_time=0.0,
        explicit_lifetime=60.0,
        initial_age=0.0,
        vary=("accept",),
        variant=variant,
        no_cache=False,
        must_revalidate=False,
    )


class MemoryStoreTests(SynchronousTestCase):
    """:class:`MemoryStore` keeps what was used last, within its bounds."""

    def test_put_and_get(self) -> None:
        """What was put is given; an unknown key has nothing."""
        store = MemoryStore()
        one = entry()
        store.put("k", one)
        self.assertEqual(tuple(store.get("k")), (one,))
        self.assertEqual(tuple(store.get("other")), ())
        self.assertEqual((store.entries, store.bytes), (1, 1000))

    def test_variants(self) -> None:
        """Entries of other requests stand beside each other, newest last; the same is replaced."""
        store = MemoryStore()
        old, other, new = entry(variant=b"a"), entry(variant=b"b"), entry(1200, variant=b"a")
        for each in (old, other, new):
            store.put("k", each)
        self.assertEqual(tuple(store.get("k")), (other, new))
        self.assertEqual((store.entries, store.bytes), (2, 2200))

    def test_most_variants(self) -> None:
        """Of too many variants the oldest goes."""
        store = MemoryStore(max_variants=2)
        for variant in (b"a", b"b", b"c"):
            store.put("k", entry(variant=variant))
        self.assertEqual([each.variant for each in store.get("k")], [b"b", b"c"])

    def test_variants_of_one_url_pass_the_entries(self) -> None:
        """One URL has no more variants than there may be entries at all, and loses none else."""
        store = MemoryStore(max_entries=2, max_variants=10)
        store.put("other", entry())
        for variant in (b"a", b"b", b"c"):
            store.put("k", entry(variant=variant))
        self.assertEqual([each.variant for each in store.get("k")], [b"b", b"c"])
        self.assertEqual(store.entries, 2)

    def test_just_not_too_large(self) -> None:
        """An entry of just all the bytes is kept, alone."""
        store = MemoryStore(max_bytes=3000)
        store.put("a", entry())
        store.put("b", entry(3000))
        self.assertEqual([key for key in "ab" if store.get(key)], ["b"])

    def test_most_entries(self) -> None:
        """Of too many entries the URL goes that was unused for longest."""
        store = MemoryStore(max_entries=2)
        for key in "ab":
            store.put(key, entry())
        store.get("a")
        store.put("c", entry())
        self.assertEqual([key for key in "abc" if store.get(key)], ["a", "c"])

    def test_most_bytes(self) -> None:
        """Of too many bytes, as many URLs go as need be."""
        store = MemoryStore(max_bytes=3000)
        for key in "abc":
            store.put(key, entry())
        store.put("d", entry(2000))
        self.assertEqual([key for key in "abcd" if store.get(key)], ["c", "d"])
        self.assertEqual(store.bytes, 3000)

    def test_variants_of_one_url_pass_the_bytes(self) -> None:
        """With one URL left, its oldest variants go."""
        store = MemoryStore(max_bytes=2500)
        for variant in (b"a", b"b", b"c"):
            store.put("k", entry(variant=variant))
        self.assertEqual([each.variant for each in store.get("k")], [b"b", b"c"])
        self.assertEqual(store.bytes, 2000)

    def test_too_large_alone(self) -> None:
        """An entry over all the bytes is not kept, replaces the old one, and pushes none out."""
        store = MemoryStore(max_bytes=3000)
        store.put("a", entry())
        store.put("b", entry())
        store.put("a", entry(3001))
        self.assertEqual(tuple(store.get("a")), ())
        self.assertEqual(len(store.get("b")), 1)
        self.assertEqual(store.bytes, 1000)

    def test_remove(self) -> None:
        """All variants of a key go; an unknown one is no mistake."""
        store = MemoryStore()
        store.put("k", entry(variant=b"a"))
        store.put("k", entry(variant=b"b"))
        store.remove("k")
        store.remove("k")
        self.assertEqual((tuple(store.get("k")), store.entries, store.bytes), ((), 0, 0))

    def test_close(self) -> None:
        """Nothing is left after closing."""
        store = MemoryStore()
        store.put("k", entry())
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
        """Whatever is done, the counts are true, the bounds hold, and the newest is found."""
        store = MemoryStore(max_entries=3, max_bytes=2500, max_variants=2)
        for step, key, variant, size in steps:
            if step == "put":
                new = entry(size, variant)
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
    """:func:`open_store` gives what the settings ask for."""

    def test_memory(self) -> None:
        """Without a file, it is a store in memory, with the bounds."""
        store = open_store(Clock(), CacheSettings(max_entries=2, max_variants=1))
        self.assertIsInstance(store, MemoryStore)
        for key in "abc":
            store.put(key, entry())
        self.assertEqual([key for key in "abc" if store.get(key)], ["b", "c"])

    def test_file(self) -> None:
        """With one, it is a store in that file, which is not made before it is used."""
        path = self.mktemp()
        settings = CacheSettings(file=path, max_entries=3, max_bytes=4000, max_object=2**24)
        store = open_store(Clock(), settings)
        assert isinstance(store, SQLiteStore)
        self.assertEqual(store._path, os.path.abspath(path))
        self.assertEqual((store._max_bytes, store._max_variants), (4000, 3))
        self.assertEqual(store._max_waiting_bytes, 2**25)
        self.assertFalse(os.path.exists(path))
        self.successResultOf(store.close())

    def test_no_name(self) -> None:
        """A file must have a name."""
        self.assertRaises(ValueError, CacheSettings, file="")


class MemoryStoreContractTests(StoreContract, SynchronousTestCase):
    """:class:`MemoryStore` does what a store must."""

    @override
    def make_store(
        self, max_entries: int = 1000, max_bytes: int = 2**20, max_variants: int = 64
    ) -> Store:
        return MemoryStore(max_entries, max_bytes, max_variants)

    @override
    def wait_for(self, value: _T | Awaitable[_T]) -> _T:
        assert not isinstance(value, Awaitable)
        return value
