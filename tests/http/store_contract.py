"""The contract of :class:`~twisted_net.http.cache.stores.Store`: tests for each store."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.entry import Entry
from twisted_net.http.cache.stores import Store
from twisted_net.http.fields import HeaderFields

_T = TypeVar("_T")

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "remove", "settle"]),
        st.sampled_from("abcd"),
        st.sampled_from([b"x", b"y", b"z"]),
        st.sampled_from([500, 800, 1500, 2600]),
    ),
    max_size=25,
)


def make_entry(size: int = 1000, variant: bytes = b"", **changes: Any) -> Entry:  # Any: of Entry
    """Return an entry that counts for *size* bytes, at least 500."""
    plain = Entry(
        status=200,
        reason="OK",
        fields=HeaderFields(),
        body=bytes(size - 500),
        request_time=0.0,
        response_time=0.0,
        explicit_lifetime=60.0,
        initial_age=0.0,
        vary=("accept",),
        variant=variant,
        no_cache=False,
        must_revalidate=False,
    )
    return evolve(plain, **changes)


class StoreContract:
    """
    The tests that a store must pass.

    A mixin for a ``SynchronousTestCase`` that defines how a store is made, and how to wait for it.
    """

    def make_store(
        self, max_entries: int = 1000, max_bytes: int = 2**20, max_variants: int = 64
    ) -> Store:
        """Return an empty store; the caller closes it."""
        raise NotImplementedError

    def wait_for(self, value: _T | Awaitable[_T]) -> _T:
        """Return *value*, or the result of awaiting it."""
        raise NotImplementedError

    def settle(self, store: Store) -> None:
        """Wait until the store's limits hold."""

    def found(self, store: Store, key: str) -> Sequence[Entry]:
        """Return what the store has under *key*."""
        return tuple(self.wait_for(store.get(key)))

    def close(self, store: Store) -> None:
        """Close the store."""
        self.wait_for(store.close())

    @property
    def case(self) -> SynchronousTestCase:
        """The test case of the mixin."""
        assert isinstance(self, SynchronousTestCase)
        return self

    def test_contract_put_and_get(self) -> None:
        """An entry that was put is found, also at once; an unknown key has none."""
        store = self.make_store()
        one = make_entry()
        store.put("k", one)
        self.case.assertEqual(self.found(store, "k"), (one,))
        self.settle(store)
        self.case.assertEqual(self.found(store, "k"), (one,))
        self.case.assertEqual(self.found(store, "other"), ())
        self.close(store)

    def test_contract_whole_entries(self) -> None:
        """Each field of an entry is returned as it was put, with its type."""
        store = self.make_store(max_bytes=2**24)
        every_byte = bytes(range(256))
        pairs: list[tuple[str | bytes, str | bytes]] = [
            ("Set-Cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("X", every_byte[128:]),
        ]
        entries = {
            "none": make_entry(explicit_lifetime=None, vary=(), reason=""),
            "all": make_entry(
                status=599,
                reason="\xe9\xff",
                fields=HeaderFields(pairs),
                body=every_byte,
                request_time=1.5e9 + 0.123456,
                response_time=1.5e9 + 1 / 3,
                initial_age=2.0**31,
                vary=("a", "b"),
                variant=every_byte,
                no_cache=True,
                must_revalidate=True,
            ),
            "empty": make_entry(body=b""),
            "large": make_entry(body=every_byte * 2**14),
        }
        for key, entry in entries.items():
            store.put(key, entry)
        self.settle(store)
        for key, entry in entries.items():
            [found] = self.found(store, key)
            self.case.assertEqual(found, entry)
            self.case.assertEqual(repr(found), repr(entry))
            self.case.assertEqual(found.fields.pairs, entry.fields.pairs)
            self.case.assertEqual(found.size, entry.size)
        self.close(store)

    def test_contract_keys(self) -> None:
        """Similar keys are not confused."""
        store = self.make_store()
        keys = ["", "k", "K", "k ", "k\0", "k'; --", 'k"', "k%", "_", "\xe9", "e\u0301", "0", "00"]
        for number, key in enumerate(keys):
            store.put(key, make_entry(1000 + number))
        self.settle(store)
        for number, key in enumerate(keys):
            self.case.assertEqual(self.found(store, key), (make_entry(1000 + number),), key)
        self.close(store)

    def test_contract_variants(self) -> None:
        """Variants are side by side, newest last; an entry for the same requests is replaced."""
        store = self.make_store()
        old, other, new = make_entry(variant=b"a"), make_entry(variant=b"b"), make_entry(1200, b"a")
        store.put("k", old)
        store.put("k", other)
        self.settle(store)
        self.case.assertEqual(self.found(store, "k"), (old, other))
        store.put("k", new)
        self.case.assertEqual(self.found(store, "k"), (other, new))
        self.settle(store)
        self.case.assertEqual(self.found(store, "k"), (other, new))
        self.close(store)

    def test_contract_max_variants(self) -> None:
        """Of too many variants the oldest is evicted."""
        store = self.make_store(max_variants=2)
        for variant in (b"a", b"b", b"c"):
            store.put("k", make_entry(variant=variant))
            self.settle(store)
        self.case.assertEqual([each.variant for each in self.found(store, "k")], [b"b", b"c"])
        self.close(store)

    def test_contract_max_entries(self) -> None:
        """Of too many entries the least recently used URL is evicted."""
        store = self.make_store(max_entries=2)
        store.put("a", make_entry())
        store.put("b", make_entry())
        self.settle(store)
        self.found(store, "a")
        store.put("c", make_entry())
        self.settle(store)
        self.case.assertEqual([key for key in "abc" if self.found(store, key)], ["a", "c"])
        self.close(store)

    def test_contract_max_bytes(self) -> None:
        """Of too many bytes, as many URLs are evicted as necessary."""
        store = self.make_store(max_bytes=3000)
        for key in "abc":
            store.put(key, make_entry())
        store.put("d", make_entry(2000))
        self.settle(store)
        self.case.assertEqual([key for key in "abcd" if self.found(store, key)], ["c", "d"])
        self.close(store)

    def test_contract_variants_pass_the_bytes(self) -> None:
        """With one URL left, its oldest variants are evicted."""
        store = self.make_store(max_bytes=2500)
        for variant in (b"a", b"b", b"c"):
            store.put("k", make_entry(variant=variant))
        self.settle(store)
        self.case.assertEqual([each.variant for each in self.found(store, "k")], [b"b", b"c"])
        self.close(store)

    def test_contract_too_large_alone(self) -> None:
        """An entry over ``max_bytes`` is not kept, removes the old one, and evicts no other."""
        store = self.make_store(max_bytes=3000)
        store.put("a", make_entry())
        store.put("b", make_entry())
        store.put("a", make_entry(3001))
        for _ in range(2):
            self.case.assertEqual(self.found(store, "a"), ())
            self.case.assertEqual(len(self.found(store, "b")), 1)
            self.settle(store)
        self.close(store)

    def test_contract_remove(self) -> None:
        """All variants of a key are removed, written already or not; an unknown key is ignored."""
        store = self.make_store()
        store.put("k", make_entry(variant=b"a"))
        self.settle(store)
        store.put("k", make_entry(variant=b"b"))
        store.put("other", make_entry())
        store.remove("k")
        store.remove("k")
        store.remove("unknown")
        self.case.assertEqual(self.found(store, "k"), ())
        self.settle(store)
        self.case.assertEqual(self.found(store, "k"), ())
        self.case.assertEqual(len(self.found(store, "other")), 1)
        store.put("k", make_entry())
        self.case.assertEqual(len(self.found(store, "k")), 1)
        self.close(store)

    def test_contract_close_unused(self) -> None:
        """A store that was never used can be closed, and is empty afterwards."""
        store = self.make_store()
        self.close(store)
        self.case.assertEqual(self.found(store, "k"), ())

    # Executors differ because each store's test case runs this very method.
    @settings(
        max_examples=25,
        suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
    )
    @given(STEPS)
    def test_contract_any_steps(self, steps: list[tuple[str, str, bytes, int]]) -> None:
        """After any steps only entries that were put last are found, and the limits hold."""
        store = self.make_store(max_entries=3, max_bytes=2500, max_variants=2)
        put: dict[tuple[str, bytes], Entry] = {}
        for number, (step, key, variant, size) in enumerate(steps):
            if step == "put":
                new = make_entry(size, variant, request_time=float(number))
                store.put(key, new)
                put[key, variant] = new
                self.case.assertEqual(self.found(store, key)[-1:], (new,) if size <= 2500 else ())
                if size > 2500:
                    put = {each: kept for each, kept in put.items() if each[0] != key}
            elif step == "remove":
                store.remove(key)
                put = {each: kept for each, kept in put.items() if each[0] != key}
            elif step == "settle":
                self.settle(store)
            for entry in self.found(store, key):
                self.case.assertEqual(put.get((key, entry.variant)), entry)
        self.settle(store)
        kept = [each for key in "abcd" for each in self.found(store, key)]
        self.case.assertLessEqual(len(kept), 3)
        self.case.assertLessEqual(sum(each.size for each in kept), 2500)
        self.close(store)
