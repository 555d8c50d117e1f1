"""Tests of :mod:`twisted_net.http.cache.settings`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.settings import CacheSettings, url_pattern


class CacheSettingsTests(SynchronousTestCase):
    """:class:`CacheSettings` is checked where it is made."""

    def test_refused(self) -> None:
        """What is not a pattern and seconds is rejected by the name of the setting."""
        for text in ("http://a/*", "60", "http://a/* x", "http://a/* -1", ""):
            error = self.assertRaises(ValueError, CacheSettings, ttl_by_url=(text,))
            self.assertIn("ttl_by_url", str(error))


class UrlPatternTests(SynchronousTestCase):
    """:func:`url_pattern` reads one line of ``ttl_by_url``."""

    def test_match(self) -> None:
        """The pattern is for the whole URL; the number after it is its lifetime."""
        pattern, ttl = url_pattern("  http://a.example/* 60 ")
        self.assertEqual(ttl, 60.0)
        self.assertTrue(pattern.match("http://a.example/p?q"))
        self.assertFalse(pattern.match("http://a.example.evil/"))
        self.assertFalse(pattern.match("see http://a.example/"))
