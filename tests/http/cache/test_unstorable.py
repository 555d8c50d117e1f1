"""Tests of :mod:`twisted_net.http.cache.unstorable`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.unstorable import MAX_KEYS, SECONDS, Unstorable


class UnstorableTests(SynchronousTestCase):
    """:class:`Unstorable` remembers so many keys for so long."""

    def test_time(self) -> None:
        """A key is remembered from its note on until its time is over, and then not kept."""
        found = Unstorable()
        self.assertFalse(found.includes("a", 5.0))
        found.note("a", 5.0)
        self.assertTrue(found.includes("a", 5.0))
        self.assertTrue(found.includes("a", 4.9 + SECONDS))
        self.assertFalse(found.includes("b", 5.0))
        self.assertFalse(found.includes("a", 5.0 + SECONDS))
        self.assertEqual(len(found), 0)

    def test_noted_again(self) -> None:
        """Its time runs from the last note."""
        found = Unstorable(seconds=10.0)
        found.note("a", 0.0)
        found.note("a", 9.0)
        self.assertTrue(found.includes("a", 18.0))
        self.assertEqual(len(found), 1)

    def test_forget(self) -> None:
        """What could be stored is forgotten at once, and what is not there costs nothing."""
        found = Unstorable()
        found.note("a", 0.0)
        found.forget("a")
        found.forget("b")
        self.assertFalse(found.includes("a", 0.0))

    def test_limit(self) -> None:
        """At the limit the key that was noted longest ago is forgotten."""
        found = Unstorable(max_keys=2)
        for key in ("a", "b", "a", "c"):
            found.note(key, 0.0)
        self.assertEqual([found.includes(key, 0.0) for key in "abc"], [True, False, True])

    def test_default_limit(self) -> None:
        """However many keys strangers make up, so many are kept."""
        found = Unstorable()
        for key in range(MAX_KEYS + 5):
            found.note(key, 0.0)
        self.assertEqual(len(found), MAX_KEYS)
