"""Tests of :mod:`twisted_net.http.cache.invalidation`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.invalidation import invalidated_keys
from twisted_net.http.fields import HeaderFields

KEY = "http://a.example/p"


class InvalidatedKeysTests(SynchronousTestCase):
    """§4.4: the keys that an unsafe request invalidates."""

    def test_unsafe(self) -> None:
        """Its target, if it succeeds."""
        for method in ("POST", "PUT", "DELETE", "PATCH", "BREW"):
            for status in (200, 204, 303):
                self.assertEqual(invalidated_keys(method, KEY, status, HeaderFields()), [KEY])
            for status in (100, 199, 400, 500):
                self.assertEqual(invalidated_keys(method, KEY, status, HeaderFields()), [])

    def test_safe(self) -> None:
        """A safe method invalidates nothing."""
        for method in ("GET", "HEAD", "OPTIONS", "TRACE"):
            self.assertEqual(invalidated_keys(method, KEY, 200, HeaderFields()), [])

    def test_locations(self) -> None:
        """Also its ``Location`` and ``Content-Location``, if they are of the same origin."""
        fields = HeaderFields(
            [("Location", "/new"), ("Content-Location", "http://A.example:80/x?y")]
        )
        expected = [KEY, "http://a.example/new", "http://a.example/x?y"]
        self.assertEqual(invalidated_keys("POST", KEY, 201, fields), expected)
        twice = HeaderFields([("Location", "/x"), ("Content-Location", "/x")])
        self.assertEqual(invalidated_keys("PUT", KEY, 200, twice), [KEY, "http://a.example/x"])
        itself = HeaderFields([("Location", KEY)])
        self.assertEqual(invalidated_keys("PUT", KEY, 200, itself), [KEY])
        for other in ("http://b.example/", "https://a.example/", "http://[", "ftp://a.example/"):
            fields = HeaderFields([("Location", other)])
            self.assertEqual(invalidated_keys("POST", KEY, 201, fields), [KEY])
