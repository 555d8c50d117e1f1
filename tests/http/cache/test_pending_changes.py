"""Tests of :mod:`twisted_net.http.cache.pending_changes`; more by way of the store."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.http.store_contract import make_entry
from twisted_net.http.cache.entry import Entry, replace_variant
from twisted_net.http.cache.pending_changes import PendingChanges, WriteBatch

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "remove", "begin", "end", "back"]),
        st.sampled_from("abc"),
        st.sampled_from([b"x", b"y", b"z"]),
    ),
    max_size=30,
)


class PendingChangesTests(SynchronousTestCase):
    """:class:`PendingChanges` shows what a URL will have, whatever is written by now."""

    @given(STEPS)
    def test_any_steps(self, steps: list[tuple[str, str, bytes]]) -> None:
        """Over a file, in which batches arrive or not, the latest changes are seen."""
        changes = PendingChanges(2, 1000, 2**20)
        file: dict[str, tuple[Entry, ...]] = {}
        expected: dict[str, tuple[Entry, ...]] = {}
        batch: WriteBatch | None = None
        for number, (step, url, variant) in enumerate(steps):
            if step == "put":
                entry = make_entry(variant=variant, request_time=float(number))
                self.assertTrue(changes.put(url, entry))
                expected[url] = replace_variant(expected.get(url, ()), entry, 2)
            elif step == "remove":
                changes.remove(url)
                expected[url] = ()
            elif step == "begin" and batch is None:
                batch = changes.begin_write(())
            elif step == "end" and batch is not None:
                for changed, change in batch.changes.items():
                    file[changed] = change.over(file.get(changed, ()), 2)
                changes.end_write()
                batch = None
            elif step == "back" and batch is not None:
                changes.put_back(with_entries=True)
                batch = None
            for each in "abc":
                found = changes.over(each, file.get(each, ()))
                self.assertEqual(tuple(found), expected.get(each, ()))

    def test_failed(self) -> None:
        """Entries of a write that failed are dropped, and what they replace stays removed."""
        changes = PendingChanges(2, 1000, 2**20)
        old = (make_entry(variant=b"x"),)
        changes.put("a", make_entry(variant=b"x"))
        changes.begin_write(())
        self.assertFalse(changes)
        changes.put_back(with_entries=False)
        self.assertTrue(changes)
        self.assertEqual((changes.over("a", old), changes.dropped), ((), 1))

    def test_too_many(self) -> None:
        """An entry over a limit is dropped, and what it would replace is removed."""
        for limits in ((1, 2**20), (1000, 1500)):
            changes = PendingChanges(2, *limits)
            self.assertTrue(changes.put("a", make_entry()))
            self.assertFalse(changes.put("b", make_entry()))
            self.assertEqual((changes.over("b", (make_entry(),)), changes.dropped), ((), 1))
