"""Tests of :mod:`twisted_net.http.cache.storability`; ``test_rules`` has their interplay."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.storability import (
    forbids_storing,
    longest_stale_window,
    storable_if_shared,
)
from twisted_net.http.fields import HeaderFields


class ForbidsStoringTests(SynchronousTestCase):
    """RFC 9111 §5.2.2.3 and §5.2.2.5."""

    def test_must_understand(self) -> None:
        """With it ``no-store`` is ignored for the statuses that are known."""
        known = [200, 203, 204, 206, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406]
        known += [409, 410, 414, 500, 501, 502, 503, 504]
        said = {"must-understand": None, "no-store": None}
        self.assertEqual(
            [status for status in range(200, 600) if not forbids_storing(said, status)], known
        )

    def test_no_store(self) -> None:
        """Alone it counts for all statuses."""
        self.assertTrue(forbids_storing({"no-store": None}, 200))
        self.assertFalse(forbids_storing({}, 200))


class StorableIfSharedTests(SynchronousTestCase):
    """RFC 9111 §3.5 and §5.2.2.7."""

    def test_authorization(self) -> None:
        """A response to one user is for others too if one of three directives permits it."""
        request = HeaderFields([("Authorization", "x")])
        for name in ("public", "must-revalidate", "s-maxage"):
            self.assertTrue(storable_if_shared(request, {name: "1"}), name)
        self.assertFalse(storable_if_shared(request, {"max-age": "1"}))
        self.assertTrue(storable_if_shared(HeaderFields(), {"max-age": "1"}))

    def test_private(self) -> None:
        """``private`` for all of it forbids to store, for some fields it does not."""
        self.assertFalse(storable_if_shared(HeaderFields(), {"private": None}))
        self.assertTrue(storable_if_shared(HeaderFields(), {"private": "x-user"}))


class LongestStaleWindowTests(SynchronousTestCase):
    """RFC 5861."""

    def test_longest(self) -> None:
        """The longer of both times counts."""
        for refresh, error in (("5", "9"), ("9", "5")):
            said = {"stale-while-revalidate": refresh, "stale-if-error": error}
            self.assertEqual(longest_stale_window(said), 9)
        self.assertEqual(longest_stale_window({"stale-if-error": "3"}), 3)
        self.assertEqual(longest_stale_window({}), 0)
